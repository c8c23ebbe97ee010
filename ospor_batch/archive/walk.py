"""List every name below an archive root, in a stable order, and cut the list into partitions."""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ospor_batch.errors import ArchiveError
from ospor_batch.sources import path_name, path_text

# Refusals that need no reading; a name that had one and has none now must be read.
LISTING_REFUSALS = ("special_file", "broken_link", "permission_denied", "read_error")


@dataclass(frozen=True)
class Listed:
    """One name below the root, as path_text writes it; ``refusal`` when it cannot be read as a file.

    A folder that cannot be listed stands here itself, with ``is_folder``, for what it may hold.
    """

    path: str
    size_bytes: int
    mtime_ns: int
    refusal: str | None = None
    detail: str = ""
    is_folder: bool = False


def walk(root: Path, *, skip: Sequence[Path] = ()) -> Iterator[Listed]:
    """List every file below a root: real folders first, then linked ones; each folder once, so that loops end.

    Folders in skip are left out with all they hold. ArchiveError when the root itself cannot be listed.
    """
    seen = {_identity(folder) for folder in skip if folder.is_dir()}
    folders, linked = [""], list[str]()
    while folders or linked:
        folder = folders.pop() if folders else linked.pop(0)
        found = _list_folder(root, folder, seen=seen)
        yield from found.files
        # the last is taken first: reversed, so that the order of names is the order of the walk
        folders += reversed(found.folders)
        linked += found.linked


def partitions(items: Sequence[Listed], *, size: int) -> Iterator[list[Listed]]:
    """Cut a sorted list into runs of about ``size``, at places that a new name elsewhere does not move."""
    part: list[Listed] = []
    for item in items:
        part.append(item)
        if zlib.crc32(item.path.encode()) % size == 0 or len(part) >= 4 * size:
            yield part
            part = []
    if part:
        yield part


@dataclass
class _Found:
    files: list[Listed]
    folders: list[str]
    linked: list[str]


def _list_folder(root: Path, folder: str, *, seen: set[tuple[int, int]]) -> _Found:
    found = _Found([], [], [])
    path = root / path_name(folder)
    try:
        identity = _identity(path)
        if identity in seen:
            return found
        seen.add(identity)
        with os.scandir(path) as entries:
            for entry in sorted(entries, key=lambda e: e.name):
                _take(entry, folder, found)
    except OSError as error:
        if not folder:
            raise ArchiveError(f"{root}: cannot be listed ({type(error).__name__})") from None
        if isinstance(error, FileNotFoundError):
            return found  # removed while the walk was under way
        # what the folder holds is not known as a whole: nothing of it is told, so that nothing counts as gone
        found = _Found([_unlistable(folder, error)], [], [])
    return found


def _take(entry: os.DirEntry[str], folder: str, found: _Found) -> None:
    name = path_text(entry.name)
    path = f"{folder}/{name}" if folder else name
    try:
        status = entry.stat()
    except (FileNotFoundError, NotADirectoryError):
        if entry.is_symlink():
            found.files.append(Listed(path, 0, entry.stat(follow_symlinks=False).st_mtime_ns, "broken_link", "leads nowhere"))
        return
    except OSError:
        if not entry.is_symlink():
            raise
        found.files.append(Listed(path, 0, entry.stat(follow_symlinks=False).st_mtime_ns, "broken_link", "cannot be followed"))
        return
    if stat.S_ISDIR(status.st_mode):
        (found.linked if entry.is_symlink() else found.folders).append(path)
    elif stat.S_ISREG(status.st_mode):
        found.files.append(Listed(path, status.st_size, status.st_mtime_ns))
    else:
        found.files.append(Listed(path, 0, status.st_mtime_ns, "special_file", "socket, pipe or device"))


def _unlistable(folder: str, error: OSError) -> Listed:
    reason = "permission_denied" if isinstance(error, PermissionError) else "read_error"
    detail = "the folder cannot be listed; what was known of its files is kept"
    return Listed(folder, 0, 0, reason, detail, is_folder=True)


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino
