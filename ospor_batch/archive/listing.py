"""Every file of an archive of any kind: of a folder, inside zips and tars, in a bucket, on a DICOMweb server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ospor_batch.archive.walk import Folder, Listed, waits, walk, walk_folders
from ospor_batch.errors import ArchiveError, ItemRefused
from ospor_batch.sources import roots
from ospor_batch.sources.cache import Cache
from ospor_batch.sources.containers import SUFFIXES, is_container_name
from ospor_batch.sources.local import refusal_of
from ospor_batch.sources.objects import Objects


@dataclass(frozen=True)
class _Look:
    """Where archives are opened, and how old the last change must be for it."""

    base: roots.Base
    cache: Cache
    settled_before_ns: int | None

    def is_young(self, file: Listed) -> bool:
        return waits(file.mtime_ns, settled_before_ns=self.settled_before_ns)


def list_archive(
    root: str, *, cache: Path, skip: Sequence[Path] = (), settled_before_ns: int | None = None
) -> Iterator[Listed]:
    """List every file of an archive; zips and tars are entered as if they were folders, archives inside them too.

    One that changed after settled_before_ns, or cannot be read whole, is listed itself, as a folder that is not known:
    what was known of it is kept. cache: private folder. ArchiveError when the root is not there or cannot be listed, or
    is a file and no archive.
    """
    if roots.kind_of(root) == "dicomweb":
        for told in roots.server(root).listing():
            yield Listed(*told)
        return
    look = _Look(roots.base_of(root), Cache(cache), settled_before_ns)
    if look.base.only is not None:
        yield from _named(look.base.only, look)
        return
    for file in _objects(look.base.origin) if isinstance(look.base.origin, Objects) else walk(Path(root), skip=skip):
        if file.refusal is None and is_container_name(file.path):
            yield from _entered(file, look)
        else:
            yield file


def list_in_folders(
    root: str,
    *,
    cache: Path,
    skip: Sequence[Path] = (),
    settled_before_ns: int | None = None,
    left: Callable[[int], None] = lambda _: None,
) -> Iterator[Folder | Listed]:
    """List as list_archive does; the plain files of each folder of a local root come together.

    left: told how many folders are known of and not listed yet; only of a local root.
    """
    is_local = roots.kind_of(root) != "dicomweb"
    base = roots.base_of(root) if is_local else None
    if base is None or base.only is not None or isinstance(base.origin, Objects):
        yield from list_archive(root, cache=cache, skip=skip, settled_before_ns=settled_before_ns)
        return
    look = _Look(base, Cache(cache), settled_before_ns)
    for item in walk_folders(Path(root), skip=skip, left=left):
        if isinstance(item, Folder) and not has_container_name(item.names):
            yield item
            continue
        for file in item.files() if isinstance(item, Folder) else [item]:
            if file.refusal is None and is_container_name(file.path):
                yield from _entered(file, look)
            else:
                yield file


def has_container_name(names: Sequence[str]) -> bool:
    """Whether one of many files may be named like a zip or tar; asked of all at once."""
    text = "\0".join(names).lower()
    return any(suffix in text for suffix in SUFFIXES) and any(map(is_container_name, names))


def _named(path: str, look: _Look) -> Iterator[Listed]:
    """The members of an archive that is itself a root."""
    try:
        status = look.base.origin.status(path)
        if status is None:
            raise ArchiveError("the file is not there")
        file = Listed(path, *status)
        if look.is_young(file):
            yield file._replace(is_folder=True)
            return
        held = roots.container_at(look.base, path, cache=look.cache)
    except OSError as error:
        raise ArchiveError(f"cannot be read ({refusal_of(error).reason})") from None
    except ItemRefused as refusal:
        raise ArchiveError(f"cannot be read ({refusal})") from None
    if held is None:
        raise ArchiveError("is a file, expected a folder, a zip or a tar")
    yield from _members(file, held, look)


def _entered(file: Listed, look: _Look) -> Iterator[Listed]:
    """The members of a file that is named like an archive; the file itself when it is none or cannot be entered."""
    if look.is_young(file):
        yield file._replace(is_folder=True)
        return
    try:
        held = roots.container_at(look.base, file.path, cache=look.cache)
    except OSError as error:
        yield _closed(file, refusal_of(error))
    except ItemRefused as refusal:
        yield _closed(file, refusal)
    else:
        yield from [file] if held is None else _members(file, held, look)


def _members(file: Listed, held: roots.Held, look: _Look, *, is_inner: bool = False) -> Iterator[Listed]:
    inner: list[Listed] = []
    for member in held.archive.members():
        listed = Listed(f"{file.path}/{member.path}", *member[1:])
        if member.refusal is not None or not is_container_name(member.path):
            yield listed
        elif is_inner:
            yield listed._replace(refusal="nested_too_deep", detail="an archive inside an archive inside an archive")
        else:
            inner.append(listed)
    if held.archive.fault is not None:
        yield _closed(file, held.archive.fault)
    for listed in inner:
        yield from _inner(listed, held, path=listed.path.removeprefix(f"{file.path}/"), look=look)


def _inner(file: Listed, outer: roots.Held, *, path: str, look: _Look) -> Iterator[Listed]:
    try:
        held = roots.inner_container(outer, path, cache=look.cache)
    except OSError as error:
        yield _closed(file, refusal_of(error))
    except ItemRefused as refusal:
        yield _closed(file, refusal)
    else:
        yield from [file] if held is None else _members(file, held, look, is_inner=True)


def _closed(file: Listed, refusal: ItemRefused) -> Listed:
    return file._replace(refusal=refusal.reason, detail=refusal.detail, is_folder=True)


def _objects(bucket: Objects) -> Iterable[Listed]:
    for path, size, mtime, is_asleep in bucket.listing():
        if is_asleep:
            yield Listed(path, size, mtime, "object_asleep", "in cold storage: restore it, then crawl again")
        else:
            yield Listed(path, size, mtime)
