"""Read many files at a time where each is waited for, as on a network share; where the system answers at once, one by one."""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

THREADS = 16  # files that are waited for at a time
SLOW_NS = 400_000  # a file; a warm disk takes 10,000, a cold one 150,000, another machine three times the way there and back
FEWEST = 4 * THREADS  # files by which the delay is judged
LOOK_AGAIN = 500  # calls after which it is judged anew, by one that is done one by one
View = list[memoryview]


Run = tuple[str, Sequence[str]]
"""Files of one folder: the folder and their names in it."""


class Reader(Protocol):
    """Reads files of one folder one by one: how many bytes each gave."""

    def __call__(self, folder: str, names: Sequence[str], *, views: Iterator[View]) -> list[int]: ...


@dataclass
class _Delay:
    """How long files were waited for since it was last judged."""

    n_files: int = 0
    n_calls: int = 0
    waited_ns: int = 0

    @property
    def is_slow(self) -> bool:
        return self.n_files >= FEWEST and self.waited_ns > SLOW_NS * self.n_files

    def called(self) -> None:
        """Files are about to be read; after many such calls it is judged anew."""
        self.n_calls += 1
        if self.n_calls > LOOK_AGAIN:
            self.n_files = self.n_calls = self.waited_ns = 0

    def took(self, n_files: int, waited_ns: int) -> None:
        """So many files were waited for one by one."""
        self.n_files += n_files
        self.waited_ns += waited_ns


_delay = _Delay()  # of this process, whatever thread reads


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, thread_name_prefix="files")


def read(reader: Reader, runs: Iterable[Run], *, views: Iterator[View]) -> list[int]:
    """What a reader gives for runs of files, in their order, whoever waits for which."""
    global _delay  # noqa: PLW0603 -- of this process, whatever thread reads
    _delay.n_calls += 1
    if _delay.n_calls > LOOK_AGAIN:
        _delay = _Delay()  # of this process, whatever thread reads
    if _delay.is_slow:
        return _read_together(reader, list(runs), views=views)
    found, began = list[int](), time.perf_counter_ns()
    for folder, names in runs:
        found += reader(folder, names, views=views)
    _delay.took(len(found), time.perf_counter_ns() - began)
    return found


def _read_together(reader: Reader, runs: Sequence[Run], *, views: Iterator[View]) -> list[int]:
    longest, parts = -(-sum(len(names) for _, names in runs) // THREADS), list[Future[list[int]]]()
    for folder, names in runs:
        for at in range(0, len(names), longest):
            some = names[at : at + longest]
            held = list(itertools.islice(views, len(some)))
            parts.append(_pool().submit(reader, folder, some, views=iter(held)))
    return [got for part in parts for got in part.result()]
