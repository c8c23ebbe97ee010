"""One file of an archive by the root and the path that the catalog holds, and its bytes."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ospor_batch.sources import roots
from ospor_batch.sources.cache import Cache
from ospor_batch.sources.local import is_file, open_file, refusal_of
from ospor_batch.sources.names import local_path, path_name
from ospor_batch.sources.objects import Objects


@dataclass(frozen=True)
class Stored:
    """A file that is no plain file on disk: a member of a zip or tar, an object of a bucket, an instance of a server."""

    root: str
    path: str
    cache: Path

    @property
    def name(self) -> str:
        """The last part of its path."""
        return path_name(self.path).rpartition("/")[2]

    def __str__(self) -> str:
        """Its path below the root, as names are matched with."""
        return path_name(self.path)


Location = Path | Stored


def locate(root: str, path: str, *, cache: Path) -> Location:
    """The place of a file: its path where it is a plain file. cache: a private folder for what must lie on disk."""
    if "://" in root or next(roots.prefixes(path), None) is not None or _is_file(root):
        return Stored(root, path, cache)
    return local_path(Path(root), path)


@contextlib.contextmanager
def open_bytes(where: Location) -> Iterator[BinaryIO]:
    """Open a file for reading; ItemRefused says why it, or a read in the body, failed.

    Reasons: file_missing, permission_denied, read_error (transient), special_file, name_too_long; of archives also
    broken_archive and archive_limit.
    """
    if isinstance(where, Path):
        with open_file(where) as file:
            yield file
        return
    cache = Cache(where.cache)
    try:
        if roots.kind_of(where.root) == "dicomweb":
            opened: BinaryIO = roots.cached_instance(where.root, where.path, cache=cache).open("rb")
        else:
            opened = roots.open_at(roots.base_of(where.root), where.path, cache=cache)
        with opened as file:
            yield file
    except OSError as error:
        raise refusal_of(error) from None


def read_bytes(where: Location) -> bytes:
    """The whole content of a file."""
    with open_bytes(where) as file:
        return file.read()


class HeaderFiles:
    """The files of one partition, opened for their headers; what can be fetched ahead is.

    files: path and size of each, in the order in which they will be opened.
    """

    def __init__(self, root: str, files: Sequence[tuple[str, int]], *, cache: Path) -> None:
        self._cache = Cache(cache)
        self._base = roots.base_of(root)
        self._sizes = dict(files)
        if isinstance(self._base.origin, Objects):
            self._base.origin.expect([(path, size) for path, size in files if next(roots.prefixes(path), None) is None])

    @contextlib.contextmanager
    def open(self, path: str) -> Iterator[BinaryIO]:
        """Open one; ItemRefused as open_bytes says."""
        try:
            size = self._sizes.get(path)
            with roots.open_at(self._base, path, cache=self._cache, size=size) as file:
                yield file
        except OSError as error:
            raise refusal_of(error) from None


@functools.lru_cache(maxsize=64)
def _is_file(root: str) -> bool:
    return is_file(root)
