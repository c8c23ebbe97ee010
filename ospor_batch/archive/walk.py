"""List every name below an archive root, in a stable order, and cut the list into partitions."""

from __future__ import annotations

import errno
import itertools
import operator
import os
import stat
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ospor_batch.errors import ArchiveError
from ospor_batch.sources import path_name, path_text
from ospor_batch.sources.local import refusal_of

# Refusals that need no reading; a name that had one and has none now must be read.
LISTING_REFUSALS = (
    "special_file", "broken_link", "permission_denied", "read_error", "name_too_long",
    "unsafe_name", "duplicate_name", "encrypted", "link_in_archive", "unsupported_member", "archive_limit", "nested_too_deep",
    "object_asleep", "bad_uid",
)  # fmt: skip


_name_of, _mode_of, _size_of, _mtime_of = map(operator.attrgetter, ("name", "st_mode", "st_size", "st_mtime_ns"))
AT_ONCE = 1000  # entries of a folder asked at a time: the answer of one takes 0.8 kB, and stays in the caches so
FORMAT = 0o170000  # bits of a mode that say what kind of file it is (inode(7))


class Listed(NamedTuple):  # a tuple, since a dataclass costs as much as the system call that lists the file
    """One name below the root, as path_text writes it; ``refusal`` when it cannot be read as a file.

    A folder that cannot be listed stands here itself, with ``is_folder``, for what it may hold.
    """

    path: str
    size_bytes: int
    mtime_ns: int
    refusal: str | None = None
    detail: str = ""
    is_folder: bool = False


class Folder(NamedTuple):
    """Regular files of one folder, as columns: a tuple a file would cost as much as asking the system for it.

    path: of the folder; names: as path_text writes them.
    """

    path: str
    names: list[str]
    sizes: list[int]
    mtimes_ns: list[int]

    def files(self) -> Iterator[Listed]:
        """One by one, in the order of their names."""
        start = f"{self.path}/" if self.path else ""
        for name, size, mtime in sorted(zip(self.names, self.sizes, self.mtimes_ns, strict=True)):
            yield Listed(start + name, size, mtime)


def walk_folders(root: Path, *, skip: Sequence[Path] = ()) -> Iterator[Folder | Listed]:
    """List as walk does; the regular files of a folder come together, what is odd about it one by one."""
    seen = {_identity(folder) for folder in skip if folder.is_dir()}
    folders, linked = [""], list[str]()
    while folders or linked:
        folder = folders.pop() if folders else linked.pop(0)
        plain = Folder(folder, [], [], [])
        found = _list_folder(root, folder, seen=seen, plain=plain)
        if plain.names and not any(file.is_folder for file in found.files):
            yield plain
        yield from found.files
        folders += reversed(found.folders)
        linked += found.linked


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


def partitions(paths: Sequence[str], *, size: int) -> Iterator[slice]:
    """Cut a sorted list into runs of about ``size``, at places that a new name elsewhere does not move."""
    begin, longest, digest = 0, 4 * size, zlib.crc32
    for end, path in enumerate(paths, start=1):
        if digest(path.encode()) % size == 0 or end - begin >= longest:
            yield slice(begin, end)
            begin = end
    if begin < len(paths):
        yield slice(begin, len(paths))


@dataclass
class _Found:
    files: list[Listed]
    folders: list[str]
    linked: list[str]


def _list_folder(root: Path, folder: str, *, seen: set[tuple[int, int]], plain: Folder | None = None) -> _Found:
    """List one folder; its regular files go to plain where that is given."""
    found = _Found([], [], [])
    path = os.path.join(root, path_name(folder) if "\\" in folder else folder)  # noqa: PTH118 -- a Path costs what its files do
    try:
        identity = _identity(path)
        if identity in seen:
            return found
        seen.add(identity)
        with os.scandir(path) as entries:
            odd = entries if plain is None else _take_plain(entries, plain)
            for entry in sorted(odd, key=lambda e: e.name):
                _take(entry, folder, found)
    except OSError as error:
        if not folder:
            raise ArchiveError(f"{root}: cannot be listed ({type(error).__name__})") from None
        if isinstance(error, FileNotFoundError):
            return found  # removed while the walk was under way
        # what the folder holds is not known as a whole: nothing of it is told, so that nothing counts as gone
        found = _Found([_unlistable(folder, error)], [], [])
    return found


def _take_plain(entries: Iterator[os.DirEntry[str]], plain: Folder) -> list[os.DirEntry[str]]:
    """Take every regular file; return the entries that are something else."""
    odd = list[os.DirEntry[str]]()
    while found := list(itertools.islice(entries, AT_ONCE)):
        try:
            statuses = [entry.stat(follow_symlinks=False) for entry in found]
        except OSError:
            found, statuses, silent = _take_those_that_answer(found)
            odd += silent
        modes = list(map(_mode_of, statuses))
        if any(mode & FORMAT != stat.S_IFREG for mode in set(modes)):
            are_plain = [mode & FORMAT == stat.S_IFREG for mode in modes]
            odd += itertools.compress(found, map(operator.not_, are_plain))
            found, statuses = list(itertools.compress(found, are_plain)), list(itertools.compress(statuses, are_plain))
        names = list(map(_name_of, found))
        together = "\0".join(names)
        plain.names.extend(names if together.isascii() and "\\" not in together else path_text(together).split("\0"))
        plain.sizes.extend(map(_size_of, statuses))
        plain.mtimes_ns.extend(map(_mtime_of, statuses))
    return odd


def _take_those_that_answer(
    entries: Sequence[os.DirEntry[str]],
) -> tuple[list[os.DirEntry[str]], list[os.stat_result], list[os.DirEntry[str]]]:
    """Entries with their status, and those that have none: they are asked again later, and told apart there."""
    found, statuses, odd = list[os.DirEntry[str]](), list[os.stat_result](), list[os.DirEntry[str]]()
    for entry in entries:
        try:
            statuses.append(entry.stat(follow_symlinks=False))
        except OSError:
            odd.append(entry)
            continue
        found.append(entry)
    return found, statuses, odd


def _take(entry: os.DirEntry[str], folder: str, found: _Found) -> None:
    name = path_text(entry.name)
    path = f"{folder}/{name}" if folder else name
    try:
        status = entry.stat()
    except (FileNotFoundError, NotADirectoryError):
        if entry.is_symlink():
            found.files.append(Listed(path, 0, entry.stat(follow_symlinks=False).st_mtime_ns, "broken_link", "leads nowhere"))
        return
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG and not entry.is_symlink():
            _take_too_long(entry, path, found)
            return
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


def _take_too_long(entry: os.DirEntry[str], path: str, found: _Found) -> None:
    if entry.is_dir(follow_symlinks=False):
        found.folders.append(path)  # it cannot be listed either, and says so itself
    else:
        found.files.append(Listed(path, 0, 0, "name_too_long", "the path is longer than the system opens"))


def _unlistable(folder: str, error: OSError) -> Listed:
    detail = "the folder cannot be listed; what was known of its files is kept"
    reason = refusal_of(error).reason
    return Listed(folder, 0, 0, "read_error" if reason == "file_missing" else reason, detail, is_folder=True)


def _identity(folder: Path | str) -> tuple[int, int]:
    status = os.stat(folder)  # noqa: PTH116
    return status.st_dev, status.st_ino
