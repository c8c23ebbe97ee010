"""A private folder for what must lie on disk to be read: unpacked tars, inner archives, images of a server."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from ospor_batch.errors import ItemRefused, StorageError

GIGABYTE = 10**9
LEAST_FREE_BYTES = 1 * GIGABYTE  # left on the disk for the catalog, which must not fail for a cache
PRIVATE = 0o700
ABANDONED_S = 86_400


@dataclass(frozen=True)
class Cache:
    """Files that can be made again; the least recently used go when they are more than limit_bytes."""

    folder: Path
    limit_bytes: int = 100 * GIGABYTE

    def kept(self, *identity: str, write: Callable[[BinaryIO], None]) -> Path:
        """The file of an identity; written when it is not there, whole or not at all, by one process at a time."""
        key = hashlib.sha256("\0".join(identity).encode("utf-8", "surrogatepass")).hexdigest()
        target = self.folder / key
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=PRIVATE)
            with _locked(self.folder / f".{key[:2]}.lock"):
                if not target.is_file():
                    self._write(target, write)
                os.utime(target)  # the time of its last use
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES}:
                raise StorageError(
                    f"the private cache cannot be written ({type(error).__name__}); free space, run again"
                ) from None
            raise
        return target

    def _write(self, target: Path, write: Callable[[BinaryIO], None]) -> None:
        unfinished = target.with_name(f".{target.name}.{os.getpid()}.unfinished")
        try:
            with unfinished.open("wb") as file:
                unfinished.chmod(0o600)
                write(cast("BinaryIO", _Bounded(file, self._free())))
            self._make_room(unfinished.stat().st_size)
            unfinished.replace(target)
        finally:
            unfinished.unlink(missing_ok=True)

    def _free(self) -> int:
        return shutil.disk_usage(self.folder).free - LEAST_FREE_BYTES

    def _make_room(self, size: int) -> None:
        """Remove the least recently used; a process that holds one open still reads it to its end."""
        held = []
        for path in self.folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                if not path.name.startswith("."):
                    held.append((status.st_mtime_ns, path, status.st_size))
                elif path.suffix == ".unfinished" and time.time() - status.st_mtime > ABANDONED_S:
                    path.unlink()  # whoever wrote it was killed
        total = size + sum(of for _, _, of in held)
        most = min(self.limit_bytes, (total + self._free()) // 2)  # as much is left for the next
        for _, path, of in sorted(held):
            if total <= most:
                break
            path.unlink(missing_ok=True)
            total -= of


class _Bounded:
    """A file of the cache; StorageError when it takes what is left on the disk for the catalog."""

    def __init__(self, file: BinaryIO, room: int) -> None:
        self._file, self._room = file, room

    def write(self, block: bytes) -> int:
        self._room -= len(block)
        if self._room < 0:
            raise StorageError(
                "the disk of the private cache has no room for a file that must be unpacked or fetched: "
                f"{LEAST_FREE_BYTES / GIGABYTE:g} GB are left for the catalog; free space, or unpack large archives yourself, "
                "and run again: finished work is kept"
            )
        return self._file.write(block)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def within(room: int) -> Callable[[int], None]:
    """A check to call with the bytes written so far; ItemRefused(archive_limit) beyond room."""

    def check(n_bytes: int) -> None:
        if n_bytes > room:
            raise ItemRefused("archive_limit", f"unpacked it holds more than the {room} bytes that it may take")

    return check


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
