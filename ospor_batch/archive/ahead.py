"""Open the folders that will be listed next while others are, where the system is slow to answer, as over a network."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

THREADS = 16
MOST_HELD = 128  # folders opened and not yet asked for
FIRST = 1000  # entries of a folder that are held: 0.3 kB each
CHILDREN = 8  # of a folder that was opened ahead, which are opened ahead too
SLOW_NS = 300_000  # a folder; a disk takes 20,000 to 60,000, another machine as long as the way there and back
FEWEST = 20  # folders by which the delay is judged
Identity = tuple[int, int]


def identity(folder: str | os.PathLike[str]) -> Identity:
    status = os.stat(folder)  # noqa: PTH116
    return status.st_dev, status.st_ino


class Opened(NamedTuple):
    """A folder: its number in the file system, its first entries, and the open handle that gives the rest.

    waited_ns: until the first entry was there, since a folder of many takes long to read wherever it lies.
    """

    identity: Identity
    first: list[os.DirEntry[str]]
    handle: os._ScandirIterator[str]
    waited_ns: int


def _open(path: str) -> Opened:
    began = time.perf_counter_ns()
    found = identity(path)
    handle = os.scandir(path)
    try:
        first = list(itertools.islice(handle, 1))
        waited = time.perf_counter_ns() - began
        return Opened(found, first + list(itertools.islice(handle, FIRST - 1)), handle, waited)
    except BaseException:
        handle.close()
        raise


class Ahead:
    """Folders opened before they are asked for; nothing is done ahead where the system answers at once."""

    def __init__(self, skipped: Collection[Identity] = ()) -> None:
        """skipped: folders that will not be listed, nor what lies below them."""
        self._skipped = skipped
        self._held: dict[str, Future[Opened]] = {}
        self._childless: list[str] = []  # held, and what lies below is not opened yet
        self._pool: ThreadPoolExecutor | None = None
        self._n_asked = self._waited_ns = 0

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        for path in list(self._held):
            self._let_go(path)

    def expect(self, paths: Iterable[str]) -> None:
        """These will be asked for, the first of them first."""
        if self._n_asked < FEWEST or self._waited_ns < SLOW_NS * self._n_asked:
            return
        for path in paths:
            if path not in self._held:
                while len(self._held) >= MOST_HELD:
                    self._let_go(next(iter(self._held)))
                self._begin(path)
        todo, self._childless = [path for path in self._childless if path in self._held], []
        for path in todo:
            if not self._held[path].done():
                self._childless.append(path)
                continue
            for child in self._children(self._held[path]):
                if child not in self._held and len(self._held) < MOST_HELD:
                    self._begin(child)

    @contextlib.contextmanager
    def opened(self, path: str) -> Iterator[Opened]:
        """One folder, opened ahead or now; OSError as the system gives it."""
        held = self._held.pop(path, None)
        found = _open(path) if held is None else held.result()
        if held is None:
            self._waited_ns += found.waited_ns
            self._n_asked += 1
        with found.handle:
            yield found

    def _begin(self, path: str) -> None:
        self._pool = self._pool or ThreadPoolExecutor(THREADS, thread_name_prefix="folders")
        self._held[path] = self._pool.submit(_open, path)
        self._childless.append(path)

    def _children(self, held: Future[Opened]) -> list[str]:
        if held.exception() is not None or held.result().identity in self._skipped:
            return []
        with contextlib.suppress(OSError):
            folders = [entry for entry in held.result().first if entry.is_dir(follow_symlinks=False)]
            return [entry.path for entry in sorted(folders, key=lambda e: e.name)[:CHILDREN]]
        return []

    def _let_go(self, path: str) -> None:
        held = self._held.pop(path)
        held.cancel()
        held.add_done_callback(_close)


def _close(held: Future[Opened]) -> None:
    if not held.cancelled() and held.exception() is None:
        held.result().handle.close()
