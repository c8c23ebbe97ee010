"""What a stage sees of a cluster: map a function over items and take the outcomes as they come."""

from __future__ import annotations

import functools
import time
from asyncio import CancelledError
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from ospor_batch.compute import counting
from ospor_batch.errors import OsporError

if TYPE_CHECKING:
    from distributed import Client, Future

A = TypeVar("A")
B = TypeVar("B")
WORKER_DIED = "worker_died"
ASK_SECONDS = 2.0
IN_FLIGHT_PER_THREAD = 2  # one runs, one waits: a worker never idles, and a dead one takes at most two items with it


@dataclass(frozen=True)
class Outcome(Generic[A, B]):
    """What became of one item.

    error: null when it has a value; "worker_died", or the class name of what the function raised; never its text.
    """

    item: A
    value: B | None
    error: str | None


class Executor(Protocol):
    """Where work runs."""

    @property
    def n_workers(self) -> int:
        """Workers there now."""

    @property
    def is_expendable(self) -> bool:
        """True when work runs in processes that may die without this one."""

    @property
    def link(self) -> str | None:
        """Address of the dashboard, where there is one."""

    def map(self, function: Callable[[A], B], items: Sequence[A]) -> Iterator[Outcome[A, B]]:
        """Yield an outcome for every item, in the order of completion; an OsporError of the function is raised here."""


class InLine:
    """Work in this very process, one item after the other; whatever the function raises is raised here."""

    @property
    def n_workers(self) -> int:
        return 1

    @property
    def is_expendable(self) -> bool:
        return False

    @property
    def link(self) -> str | None:
        return None

    def map(self, function: Callable[[A], B], items: Sequence[A]) -> Iterator[Outcome[A, B]]:
        for item in items:
            yield Outcome(item, function(item), None)


@dataclass(frozen=True)
class _Answer(Generic[B]):
    """What comes back from a worker; exception text stays there, since it may hold a path."""

    value: B | None = None
    refusal: OsporError | None = None
    error: str | None = None


class DaskExecutor:
    """Work on the workers of a Dask client; no result is kept on the cluster."""

    def __init__(self, client: Client, *, most_workers: int = 1) -> None:
        """most_workers: up to which a cluster may grow by itself; it grows only while work waits for it."""
        self.client = client
        self.most_workers = most_workers
        self._seen: tuple[float, dict[str, int]] = (-ASK_SECONDS, {})

    @property
    def n_workers(self) -> int:
        return max(self.most_workers, len(self._threads()))

    @property
    def is_expendable(self) -> bool:
        return True

    @property
    def link(self) -> str | None:
        return str(self.client.dashboard_link) if self.client.status == "running" else None

    def _threads(self) -> dict[str, int]:
        """Threads of every worker; asked for at most every two seconds, since a scheduler has much else to answer."""
        asked, found = self._seen
        if not found or time.monotonic() - asked > ASK_SECONDS:
            try:
                found = dict(self.client.nthreads())
            except OSError:
                raise _lost() from None
            self._seen = (time.monotonic(), found)
        return found

    def map(self, function: Callable[[A], B], items: Sequence[A]) -> Iterator[Outcome[A, B]]:
        from distributed import as_completed  # late: 0.5 s

        call = functools.partial(_answer, function)
        waiting = iter(enumerate(items))
        running: dict[Future, int] = {}
        finished = as_completed()
        try:
            self._submit(call, waiting, running=running, finished=finished)
            while running:
                future = next(finished)
                if self.client.status != "running" or future.status == "cancelled":
                    raise _lost()
                if future.status == "lost":  # its worker died with the answer; another is asked for it
                    finished.add(future)
                    continue
                item = items[running.pop(future)]
                try:
                    outcome = _outcome(item, future)
                except (OSError, CancelledError):
                    raise _lost() from None
                future.release()
                self._submit(call, waiting, running=running, finished=finished)
                yield outcome
        finally:
            if running and self.client.status == "running":
                self.client.cancel(list(running))

    def _submit(
        self, call: Callable[[Any], Any], waiting: Iterator[tuple[int, Any]], *, running: dict[Future, int], finished: Any
    ) -> None:
        # not once and for all: workers die, come back and join
        room = IN_FLIGHT_PER_THREAD * max(self.most_workers, sum(self._threads().values()))
        while len(running) < room:
            following = next(waiting, None)
            if following is None:
                return
            position, item = following
            # allowed-failures is 0 on the scheduler; Dask itself never tries again, since the caller bisects
            future = self.client.submit(call, item, pure=False, retries=0)
            running[future] = position
            finished.add(future)


def _answer(function: Callable[[A], B], item: A) -> _Answer[B]:
    try:
        value = function(item)
        counts = getattr(value, "counts", None)
        counting.add({"tasks": 1, **(counts() if callable(counts) else {})})
        return _Answer(value=value)
    except OsporError as refusal:
        return _Answer(refusal=refusal)
    # the text and traceback of a bug may hold a path: only the name of its class leaves the worker
    except Exception as error:  # noqa: BLE001
        return _Answer(error=type(error).__name__)


def _outcome(item: A, future: Future) -> Outcome[A, Any]:
    if future.status != "finished":
        name = type(future.exception()).__name__ if future.status == "error" else future.status
        return Outcome(item, None, WORKER_DIED if name == "KilledWorker" else name)
    answer = future.result()
    if answer.refusal is not None:
        raise answer.refusal
    return Outcome(item, answer.value, answer.error)


def _lost() -> OsporError:
    return OsporError("the scheduler of the cluster is gone; run the same command again: finished work is kept")
