"""List every name below an archive root, in a stable order, and cut the list into partitions."""

from __future__ import annotations

import errno
import itertools
import operator
import os
import stat
import zlib
from array import array
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ospor_batch.archive.ahead import Ahead, Identity, identity
from ospor_batch.archive.asking import Askers, Question, Statuses
from ospor_batch.archive.statuses import AT_ONCE
from ospor_batch.errors import ArchiveError
from ospor_batch.sources import path_name, path_text
from ospor_batch.sources.local import refusal_of
from ospor_batch.sources.names import SECOND, held_time

# Refusals that need no reading; a name that had one and has none now must be read.
LISTING_REFUSALS = (
    "special_file", "broken_link", "permission_denied", "read_error", "name_too_long",
    "unsafe_name", "duplicate_name", "encrypted", "link_in_archive", "unsupported_member", "archive_limit", "nested_too_deep",
    "object_asleep", "bad_uid",
)  # fmt: skip


FORMAT = 0o170000  # bits of a mode that say what kind of file it is (inode(7))
LONGEST_PATH, LONGEST_NAME = 4095, 255  # bytes: PATH_MAX and NAME_MAX of Linux (limits.h)
MOST_AHEAD_NS = 2 * 86_400 * 10**9  # of our clock, that a file's time may be: what lies beyond was told by a wrong clock
EXPECTED = 16  # folders that will be listed next: opened ahead where that is slow
MOST_UNDER_WAY = 50_000  # names found but not told yet, since an answer before them is missing: 0.2 kB each


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
    sizes: Sequence[int]
    mtimes_ns: Sequence[int]

    def files(self) -> Iterator[Listed]:
        """One by one, in the order of their names."""
        start = f"{self.path}/" if self.path else ""
        for name, size, mtime in sorted(zip(self.names, self.sizes, self.mtimes_ns, strict=True)):
            yield Listed(start + name, size, mtime)


def walk_folders(
    root: Path, *, skip: Sequence[Path] = (), beside: int | None = None, left: Callable[[int], None] = lambda _: None
) -> Iterator[Folder | Listed]:
    """List as walk does; the regular files of a folder come together, what is odd about it one by one.

    beside: processes that ask the system along with this one; null: as cores and delay suggest. The list is the same.
    left: told how many folders are known of and not listed yet.
    """
    skipped = {identity(folder) for folder in skip if folder.is_dir()}
    folders, linked = [""], list[str]()
    under_way, n_names = deque[_UnderWay](), 0
    with Askers(beside) as askers, Ahead(skipped) as ahead:
        tree = _Tree(root, skipped, ahead)
        while folders or linked or under_way:
            if folders or linked:
                is_link = not folders
                last = _UnderWay(tree, linked.pop(0) if is_link else folders.pop(), askers)
                ahead.expect(map(tree.path, reversed(folders[-EXPECTED:])))
                last.found = tree.listed(last.folder, is_link=is_link, take_plain=last.take)
                under_way.append(last)
                n_names += last.n_names
                folders += reversed(last.found.folders)
                linked += last.found.linked
                left(len(folders) + len(linked))
            while under_way and (under_way[0].is_answered or n_names > MOST_UNDER_WAY or not (folders or linked)):
                first = under_way.popleft()
                yield from first.told()
                n_names -= first.n_names
                folders += reversed(first.late.folders)
                linked += first.late.linked


def waits(mtime_ns: int, *, settled_before_ns: int | None) -> bool:
    """Whether a file may still be arriving; one with a time far ahead is taken as it is, since it would wait for years."""
    return settled_before_ns is not None and settled_before_ns < mtime_ns <= settled_before_ns + MOST_AHEAD_NS


def walk(root: Path, *, skip: Sequence[Path] = ()) -> Iterator[Listed]:
    """List every file below a root: real folders first, then linked ones; each folder once, so that loops end.

    Folders in skip are left out with all they hold. ArchiveError when the root itself cannot be listed.
    """
    tree = _Tree(root, {identity(folder) for folder in skip if folder.is_dir()}, Ahead())
    folders, linked = [""], list[str]()
    while folders or linked:
        is_link = not folders
        found = tree.listed(linked.pop(0) if is_link else folders.pop(), is_link=is_link)
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


Entries = Iterator[os.DirEntry[str]]


@dataclass
class _Found:
    """What a folder holds; has_lost: a name was there a moment ago, and is not now."""

    files: list[Listed] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    linked: list[str] = field(default_factory=list)
    identity: Identity | None = None
    has_lost: bool = False


class _UnderWay:
    """A folder whose names are known, while its regular files are asked for."""

    def __init__(self, tree: _Tree, folder: str, askers: Askers) -> None:
        self.folder = folder
        self._tree = tree
        self.found, self.late = _Found(), _Found()
        self.n_names = 0
        self._questions: list[Question] = []
        self._askers = askers

    @property
    def is_answered(self) -> bool:
        return all(question.answer is not None for question in self._questions)

    def take(self, path: str, entries: Entries) -> list[os.DirEntry[str]]:
        """Have every regular file asked for; return the entries that are something else."""
        odd, place = list[os.DirEntry[str]](), os.fsencode(path)
        if len(place) + 1 + LONGEST_NAME > LONGEST_PATH:
            return list(entries)  # some may lie too deep to be opened, which only their whole path tells
        at_once = max(1, AT_ONCE // 10) if self._askers.is_far else AT_ONCE  # a thousand answers from afar are a second
        while some := list(itertools.islice(entries, at_once)):
            try:
                are_files = [entry.is_file(follow_symlinks=False) for entry in some]
            except OSError:
                are_files = list(map(_is_file, some))
            if not all(are_files):
                odd += itertools.compress(some, map(operator.not_, are_files))
                some = list(itertools.compress(some, are_files))
            if some:
                self._questions.append(Question(place, some))
                self._askers.ask(self._questions[-1])
                self.n_names += len(some)
        return odd

    def told(self) -> Iterator[Folder | Listed]:
        """What the folder holds; waits for answers."""
        plain = Folder(self.folder, [], array("q"), array("q"))
        answers = [(question, self._askers.wait(question)) for question in self._questions]
        if any(file.is_folder for file in self.found.files):
            answers = []  # it could not be listed whole
        try:
            for question, statuses in answers:
                self._add(question, statuses, plain)
            self.late.identity = self.found.identity
            self._tree.check(self.folder, self.late)
        except OSError as error:
            if not self._tree.is_removed(self.folder, error):
                plain.names.clear()
                self.found, self.late = _Found([_unlistable(self.folder, error)]), _Found()
        if plain.names:
            yield plain
        yield from self.found.files + self.late.files

    def _add(self, question: Question, statuses: Statuses, plain: Folder) -> None:
        names, are_plain = question.names, statuses.modes & FORMAT == stat.S_IFREG
        if not are_plain.all():  # they were files when the folder was listed, and are gone, replaced or silent now
            for at in np.flatnonzero(~are_plain).tolist():
                _take(question.entries[at], self.folder, self.late)
            names = "\0".join(itertools.compress(names.split("\0"), are_plain.tolist()))
            statuses = Statuses(statuses.modes[are_plain], statuses.sizes[are_plain], statuses.mtimes_ns[are_plain])
        if len(statuses.modes):
            plain.names.extend((names if names.isascii() and "\\" not in names else path_text(names)).split("\0"))
            for column, told in ((plain.sizes, statuses.sizes), (plain.mtimes_ns, statuses.mtimes_ns)):
                assert isinstance(column, array)
                column.frombytes(told.tobytes())


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file(follow_symlinks=False)
    except OSError:  # a file system that tells no kinds, and refuses to when it is asked
        return False


@dataclass
class _Tree:
    """A tree of folders that is being listed.

    Behind a link each folder is listed once, so that loops end. Elsewhere every folder is: two that a file system gives
    one number are two.
    """

    root: Path
    skipped: Collection[Identity]
    ahead: Ahead
    seen: set[Identity] = field(default_factory=set)
    is_beyond_link: bool = False

    def listed(
        self, folder: str, *, is_link: bool, take_plain: Callable[[str, Entries], list[os.DirEntry[str]]] | None = None
    ) -> _Found:
        """List one folder; take_plain takes its regular files, where it is given, and leaves the others."""
        self.is_beyond_link |= is_link
        found, path = _Found(), self.path(folder)
        try:
            with self.ahead.opened(path) as opened:
                found.identity = opened.identity
                if found.identity in self.skipped or (self.is_beyond_link and found.identity in self.seen):
                    return found
                self.seen.add(found.identity)
                if is_link and not opened.first:
                    said = "a link to an empty folder: is the share mounted? What was known of its files is kept"
                    return _Found([Listed(folder, 0, 0, "read_error", said, is_folder=True)])
                entries = itertools.chain(opened.first, opened.handle)
                odd = entries if take_plain is None else take_plain(path, entries)
                for entry in sorted(odd, key=lambda e: e.name):
                    _take(entry, folder, found)
            self.check(folder, found)
        except OSError as error:
            # what the folder holds is not known as a whole: nothing of it is told, so that nothing counts as gone
            return _Found([] if self.is_removed(folder, error) else [_unlistable(folder, error)])
        return found

    def path(self, folder: str) -> str:
        # a Path costs what the files of a folder do
        return os.path.join(self.root, path_name(folder) if "\\" in folder else folder)  # noqa: PTH118

    def check(self, folder: str, found: _Found) -> None:
        """OSError when names were lost since another folder stands in the place of this one, as after unmounting."""
        if found.has_lost and identity(self.path(folder)) != found.identity:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    def is_removed(self, folder: str, error: OSError) -> bool:
        """Whether a folder was taken away while the walk is under way: the nearest one above that still stands was listed.

        Otherwise it was unmounted, or is a place where nothing can be mounted now.
        """
        if not folder or not isinstance(error, FileNotFoundError) or os.path.lexists(self.path(folder)):
            return False
        while folder:
            folder = folder.rpartition("/")[0]
            try:
                return identity(self.path(folder)) in self.seen
            except FileNotFoundError:
                continue
            except OSError:
                return False
        return False


def _take(entry: os.DirEntry[str], folder: str, found: _Found) -> None:
    name = path_text(entry.name)
    path = f"{folder}/{name}" if folder else name
    try:
        status = entry.stat()
    except (FileNotFoundError, NotADirectoryError):
        if entry.is_symlink():
            found.files.append(Listed(path, 0, _time(entry.stat(follow_symlinks=False)), "broken_link", "leads nowhere"))
        else:
            found.has_lost = True
        return
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG and not entry.is_symlink():
            _take_too_long(entry, path, found)
            return
        if not entry.is_symlink():
            raise
        found.files.append(Listed(path, 0, _time(entry.stat(follow_symlinks=False)), "broken_link", "cannot be followed"))
        return
    if stat.S_ISDIR(status.st_mode):
        (found.linked if entry.is_symlink() else found.folders).append(path)
    elif stat.S_ISREG(status.st_mode):
        found.files.append(Listed(path, status.st_size, _time(status)))
    else:
        found.files.append(Listed(path, 0, _time(status), "special_file", "socket, pipe or device"))


def _take_too_long(entry: os.DirEntry[str], path: str, found: _Found) -> None:
    if entry.is_dir(follow_symlinks=False):
        found.folders.append(path)  # it cannot be listed either, and says so itself
    else:
        found.files.append(Listed(path, 0, 0, "name_too_long", "the path is longer than the system opens"))


def _unlistable(folder: str, error: OSError) -> Listed:
    """The folder itself, for what it may hold; ArchiveError for the root."""
    if not folder:
        raise ArchiveError(f"cannot be listed ({type(error).__name__}: {error.strerror})") from None
    detail = "the folder cannot be listed; what was known of its files is kept"
    reason = refusal_of(error).reason
    return Listed(folder, 0, 0, "read_error" if reason == "file_missing" else reason, detail, is_folder=True)


def _time(status: os.stat_result) -> int:
    return held_time(*divmod(status.st_mtime_ns, SECOND))
