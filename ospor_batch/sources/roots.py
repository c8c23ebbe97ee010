"""Which kind of archive a string of the study file names, and where the bytes of one of its files come from."""

from __future__ import annotations

import atexit
import math
import re
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple, Protocol
from urllib.parse import urlsplit

from ospor_batch.errors import StudyError
from ospor_batch.sources import dicomweb, objects
from ospor_batch.sources.cache import Cache
from ospor_batch.sources.containers import LIMITS, SUFFIXES, Container, Format, format_of, is_container_name, missing
from ospor_batch.sources.dicomweb import DicomWeb
from ospor_batch.sources.local import handle_of, is_file
from ospor_batch.sources.names import SECOND, held_time, local_path, path_text
from ospor_batch.sources.objects import Objects
from ospor_batch.sources.tars import Tar, unpack
from ospor_batch.sources.zips import Zip

Kind = Literal["local", "s3", "dicomweb"]
HELD_OPEN = 3  # archives that one thread keeps open; their directories stay in memory
BLOCK = 1 << 20
INSIDE = re.compile(f"(?:{'|'.join(map(re.escape, SUFFIXES))})(?=/.)", re.IGNORECASE)
ASKED_AGAIN_S = 30
MOST_TOLD = 10_000
KINDS = "a folder, a zip or tar, s3://BUCKET/PREFIX, dicomweb+http://HOST/PATH or dicomweb+https://HOST/PATH"


def kind_of(root: str) -> Kind:
    """The kind of an archive root; StudyError for a scheme that is not read, and for credentials inside a URL."""
    if "://" not in root:
        return "local"
    parts = urlsplit(root)
    if parts.username is not None or parts.password is not None:
        raise StudyError(f"archives: a {parts.scheme} URL with credentials in it; give them in the environment instead")
    if root.startswith(objects.SCHEME) and parts.netloc:
        return "s3"
    if parts.scheme in {"dicomweb+http", "dicomweb+https"} and parts.netloc:
        return "dicomweb"
    raise StudyError(f"archives: {parts.scheme or '?'}:// is no archive that is read here; expected {KINDS}")


class Origin(Protocol):
    """Where files and archives lie: a folder, or a bucket."""

    def status(self, path: str) -> tuple[int, int] | None:
        """Size and time of a file; null when there is no file of this path."""

    def open(self, path: str, size: int | None = None) -> BinaryIO:
        """Open a file; OSError or ItemRefused."""

    def directory(self, path: str, size: int) -> BinaryIO:
        """Open a file that is read here and there."""


class Folder:
    """A folder of the file system."""

    def __init__(self, root: str) -> None:
        self._root = Path(root)

    def status(self, path: str) -> tuple[int, int] | None:
        where = local_path(self._root, path)
        if not where.is_file():
            return None
        told = where.stat()
        return told.st_size, held_time(*divmod(told.st_mtime_ns, SECOND))

    def open(self, path: str, size: int | None = None) -> BinaryIO:  # noqa: ARG002 -- the system knows the size
        return handle_of(local_path(self._root, path))

    def directory(self, path: str, size: int) -> BinaryIO:
        return self.open(path, size)


class Base(NamedTuple):
    """What the paths of an archive start from; an archive that is a file (``only``) lies in the folder above it."""

    origin: Origin
    root: str
    only: str | None = None


def base_of(root: str) -> Base:
    """The base of an archive that is no DICOMweb server."""
    if kind_of(root) == "s3":
        above, _, name = root.rstrip("/").rpartition("/")
        if is_container_name(name) and above != "s3:/":
            return Base(Objects(above), above, name)
        return Base(Objects(root), root)
    path = Path(root)
    if is_file(path):
        return Base(Folder(str(path.parent)), str(path.parent), path_text(path.name))
    return Base(Folder(root), root)


def prefixes(path: str) -> Iterator[tuple[str, str]]:
    """Every cut of a path behind a component that is named like an archive: archive and path inside it."""
    for found in INSIDE.finditer(path):
        yield path[: found.end()], path[found.end() + 1 :]


class Held(NamedTuple):
    """An archive that is kept open, and what tells it from its earlier and later versions."""

    archive: Container
    identity: tuple[str, ...]


class _Kept:
    """What one thread keeps open; closed when the thread ends and lets go of it."""

    def __init__(self) -> None:
        self.archives: OrderedDict[tuple[str, ...], Held | None] = OrderedDict()
        self.servers: dict[str, DicomWeb] = {}

    def close(self) -> None:
        while self.archives:
            _, held = self.archives.popitem()
            if held is not None:
                held.archive.close()
        while self.servers:
            self.servers.popitem()[1].close()

    def __del__(self) -> None:
        self.close()


class _Open(threading.local):
    def __init__(self) -> None:
        self.kept = _Kept()
        self.told: dict[tuple[str, str], tuple[float, tuple[int, int] | None]] = {}

    @property
    def archives(self) -> OrderedDict[tuple[str, ...], Held | None]:
        return self.kept.archives

    @property
    def servers(self) -> dict[str, DicomWeb]:
        return self.kept.servers


_open = _Open()


@atexit.register
def close_all() -> None:
    """Close the archives and connections that this thread keeps open."""
    _open.kept.close()
    _open.told.clear()


def server(root: str) -> DicomWeb:
    """The server of a root, with the connection that this thread keeps."""
    if root not in _open.servers:
        _open.servers[root] = DicomWeb(root)
    return _open.servers[root]


def container_at(base: Base, path: str, *, cache: Cache) -> Held | None:
    """The archive at a path, kept open for the next member; null when there is none, or its content is none.

    OSError, ItemRefused: broken_archive, archive_limit.
    """
    status = _status(base, path)
    if status is None:
        return None
    size, time_ns = status
    identity = (base.root, path, str(size), str(time_ns))
    return _kept(identity, lambda: (base.origin.directory(path, size), size), cache=cache)


def _status(base: Base, path: str) -> tuple[int, int] | None:
    """Size and time of an archive; a bucket is not asked again for each of its members."""
    if isinstance(base.origin, Folder):
        return base.origin.status(path)
    at, status = _open.told.get((base.root, path), (-math.inf, None))
    if time.monotonic() - at > ASKED_AGAIN_S:
        status = base.origin.status(path)
        if len(_open.told) > MOST_TOLD:
            _open.told.clear()
        _open.told[base.root, path] = time.monotonic(), status
    return status


def inner_container(outer: Held, path: str, *, cache: Cache) -> Held | None:
    """An archive inside an archive, from a private copy; null when its content is none."""
    identity = (*outer.identity, path)

    def write(out: BinaryIO) -> None:
        with outer.archive.open(path) as file:
            shutil.copyfileobj(file, out, BLOCK)

    def begin() -> tuple[BinaryIO, int]:
        copy = cache.kept("inner", *identity, write=write).open("rb")
        return copy, copy.seek(0, 2)

    return _kept(identity, begin, cache=cache)


def _kept(identity: tuple[str, ...], begin: Callable[[], tuple[BinaryIO, int]], *, cache: Cache) -> Held | None:
    if identity in _open.archives:
        _open.archives.move_to_end(identity)
        return _open.archives[identity]
    file, size = begin()
    try:
        form = format_of(file)
        found = None if form is None else _read(file, form, size=size, identity=identity, cache=cache)
    except BaseException:
        file.close()
        raise
    if found is None:
        file.close()
    while len(_open.archives) >= HELD_OPEN:
        _, oldest = _open.archives.popitem(last=False)
        if oldest is not None:
            oldest.archive.close()
    _open.archives[identity] = None if found is None else Held(found, identity)
    return _open.archives[identity]


def _read(file: BinaryIO, form: Format, *, size: int, identity: tuple[str, ...], cache: Cache) -> Container | None:
    if form == "zip":
        return Zip(file, size=size)
    token = "\0".join(identity[1:]).encode("utf-8", "surrogatepass")
    if form == "tar":
        return Tar(file, size=size, token=token)

    def write(out: BinaryIO) -> None:
        unpack(file, out, form=form, room=LIMITS.ratio * size + LIMITS.free_bytes)

    plain = cache.kept("unpacked", *identity, write=write).open("rb")
    file.close()
    if format_of(plain) != "tar":
        plain.close()
        return None
    return Tar(plain, size=plain.seek(0, 2), token=token)


def open_at(base: Base, path: str, *, cache: Cache, size: int | None = None) -> BinaryIO:
    """Open a file of an archive that is no DICOMweb server: itself, or as a member of the archive that it lies in."""
    for outer, rest in _archives_of(base, path):
        container = container_at(base, outer, cache=cache)
        if container is None:
            continue
        if container.archive.holds(rest):
            return container.archive.open(rest)
        for inner, last in prefixes(rest):
            if container.archive.holds(inner):
                nested = inner_container(container, inner, cache=cache)
                if nested is not None:
                    return nested.archive.open(last)
        raise missing()
    return base.origin.open(path, size)


def _archives_of(base: Base, path: str) -> Iterator[tuple[str, str]]:
    """What prefixes tells, and an archive that is the root whatever its name."""
    if base.only is not None and not is_container_name(base.only):
        yield base.only, path.removeprefix(f"{base.only}/")
    yield from prefixes(path)


def cached_instance(root: str, path: str, *, cache: Cache) -> Path:
    """An instance of a DICOMweb server as a file of the private cache."""
    return dicomweb.cached(server(root), root=root, path=path, cache=cache)
