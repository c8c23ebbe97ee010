"""Ask the system for many files at once, here and in processes beside this one; who answers changes no answer."""

from __future__ import annotations

import contextlib
import operator
import os
import select
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ospor_batch.archive import statuses
from ospor_batch.sources.names import LAST_SECOND

ALONE = 40_000  # names asked before a process is started, which costs as much as 5,000 of them
NEAR = 3  # processes at most where the system answers at once: this one finds the names, a quarter of the work
FAR = 15  # and where an answer is waited for, as from another machine
FAR_NS = 100_000  # a name; a disk that is not asked for the first time takes 3,000
WAITED_NS = 10**8  # for answers from afar, before processes are started whatever the number of names
FEWEST = 20  # names that are sent to another process; fewer are asked in the time that sending takes
IN_FLIGHT = 2  # questions of one process: one it works on, one that waits
BLOCK = 1 << 16
_name_of = operator.attrgetter("name")


class Statuses(NamedTuple):
    """Of the names of a question, in their order; mode is 0 where the system refuses."""

    modes: NDArray[np.uint16]
    sizes: NDArray[np.int64]
    mtimes_ns: NDArray[np.int64]


class Question:
    """At most statuses.AT_ONCE entries of one folder, and what was answered; null until it is."""

    def __init__(self, folder: bytes, entries: Sequence[os.DirEntry[str]]) -> None:
        self.folder = folder
        self.entries = entries
        self.names = "\0".join(map(_name_of, entries))
        self.answer: bytes | None = None

    @property
    def raw_names(self) -> bytes:
        return os.fsencode(self.names)

    def told(self) -> Statuses:
        assert self.answer is not None
        n, columns, at = len(self.entries), list[NDArray[np.generic]](), 0
        for kind in ("u2", "i8", "i8", "u4"):
            columns.append(np.frombuffer(self.answer, np.dtype(kind), count=n, offset=at))
            at += columns[-1].nbytes
        modes, sizes, seconds, nanoseconds = columns
        held = seconds.astype(np.int64).clip(-LAST_SECOND, LAST_SECOND)
        mtimes = held * statuses.NANOSECONDS + nanoseconds.astype(np.int64)
        return Statuses(modes.astype(np.uint16), sizes.astype(np.int64), mtimes)


class Askers:
    """This process and those beside it, which are started once there is enough to ask, and ended with the block."""

    def __init__(self, most: int | None = None) -> None:
        """most: processes beside this one; null: as cores and the answers' delay suggest."""
        self._most = most
        self._beside: list[_Beside] = []
        self._n_asked = self._n_here = self._here_ns = 0

    def __enter__(self) -> Askers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for each in self._beside:
            each.close()

    def ask(self, question: Question) -> None:
        """Have it answered: by a process that is free, in a while, or here and now."""
        self._n_asked += len(question.entries)
        if len(question.entries) < FEWEST and not self.is_far:
            self._ask_here(question)
            return
        is_worth_it = self._n_asked >= ALONE or (self.is_far and self._here_ns > WAITED_NS)
        if is_worth_it and len(self._beside) < self._wanted():
            self._start()
        for each in list(self._beside):
            self._or_here(each, each.hear)
        free = min(self._beside, key=lambda each: len(each.waiting), default=None)
        if free is None or len(free.waiting) >= IN_FLIGHT:
            self._ask_here(question)
        else:
            self._or_here(free, lambda: free.ask(question))

    def wait(self, question: Question) -> Statuses:
        """What was answered."""
        while question.answer is None:
            (asked,) = (each for each in self._beside if question in each.waiting)
            self._or_here(asked, lambda: asked.hear(is_waiting=True))  # noqa: B023 -- it is called at once
        return question.told()

    def _wanted(self) -> int:
        if self._most is not None:
            return self._most
        return FAR if self.is_far else min(NEAR, _n_cores() - 1)

    @property
    def is_far(self) -> bool:
        return self._here_ns > FAR_NS * max(1, self._n_here)

    def _start(self) -> None:
        try:
            self._beside.append(_Beside())
        except (OSError, ValueError):  # no process to be had: all is asked here
            self._most = len(self._beside)

    def _ask_here(self, question: Question) -> None:
        began = time.perf_counter_ns()
        question.answer = statuses.ask(question.folder, question.raw_names.split(b"\0"))
        self._here_ns += time.perf_counter_ns() - began
        self._n_here += len(question.entries)

    def _or_here(self, each: _Beside, work: Callable[[], None]) -> None:
        """Work with a process; when it is gone, what it was asked is asked here."""
        try:
            work()
        except OSError:
            self._beside.remove(each)
            self._most = len(self._beside)
            each.close()
            for question in each.waiting:
                self._ask_here(question)


class _Beside:
    """One process that asks; it answers in the order of the questions."""

    def __init__(self) -> None:
        command = [sys.executable, "-I", "-S", statuses.__file__]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._in, False)
        self._both, self._answers = select.poll(), select.poll()
        self._both.register(self._in, select.POLLOUT)
        self._both.register(self._out, select.POLLIN)
        self._answers.register(self._out, select.POLLIN)
        self._got = bytearray()
        self.waiting: deque[Question] = deque()

    def ask(self, question: Question) -> None:
        """Send a question. OSError when the process is gone."""
        names = question.raw_names
        self.waiting.append(question)
        left = memoryview(statuses.HEAD.pack(len(question.folder), len(names)) + question.folder + names)
        while left:
            # both ways are looked at: each end could otherwise wait for the other to read
            for handle, event in self._both.poll():
                if handle == self._out:
                    self._take()
                elif event:
                    with contextlib.suppress(BlockingIOError):
                        left = left[os.write(self._in, left) :]

    def hear(self, *, is_waiting: bool = False) -> None:
        """Take what has been answered; is_waiting: not before there is something. OSError when the process is gone."""
        while self.waiting and self._answers.poll(None if is_waiting else 0):
            self._take()
            is_waiting = False

    def close(self) -> None:
        self._process.kill()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
        self._process.wait()

    def _take(self) -> None:
        block = os.read(self._out, BLOCK)
        if not block:
            raise BrokenPipeError
        self._got += block
        while self.waiting and len(self._got) >= (size := statuses.BYTES_A_NAME * len(self.waiting[0].entries)):
            self.waiting.popleft().answer = bytes(self._got[:size])
            del self._got[:size]


def _n_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
