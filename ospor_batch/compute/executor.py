"""What a stage sees of a cluster: map a function over items and take the outcomes as they come."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import queue
import time
from asyncio import CancelledError
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from ospor_batch.compute import counting
from ospor_batch.errors import ClusterError, OsporError

if TYPE_CHECKING:
    from distributed import Client, Future

A = TypeVar("A")
B = TypeVar("B")
WORKER_DIED = "worker_died"
AGAIN = "then run the same command again: finished work is kept"
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


@dataclass(frozen=True)
class Patience:
    """How long work waits while there is no worker at all, and who is to be asked then."""

    seconds: float = 600.0
    ask: str = "look at the logs of the workers, or ask whoever runs the cluster"


class Executor(Protocol):
    """Where work runs."""

    @property
    def n_workers(self) -> int:
        """Workers to cut work for: those there now, or as many as the cluster may grow to."""

    @property
    def n_present(self) -> int:
        """Workers there now."""

    @property
    def is_expendable(self) -> bool:
        """True when work runs in processes that may die without this one."""

    @property
    def is_here(self) -> bool:
        """True when all work runs on this machine, as the user of this process."""

    @property
    def link(self) -> str | None:
        """Address of the dashboard, where there is one."""

    def map(self, function: Callable[[A], B], items: Iterable[A]) -> Iterator[Outcome[A, B]]:
        """Yield an outcome for every item, in the order of completion; an OsporError of the function is raised here.

        Items are taken as workers need them, so they may still be found while others are worked on.
        """


class InLine:
    """Work in this very process, one item after the other; whatever the function raises is raised here."""

    @property
    def n_workers(self) -> int:
        return 1

    @property
    def n_present(self) -> int:
        return 1

    @property
    def is_expendable(self) -> bool:
        return False

    @property
    def is_here(self) -> bool:
        return True

    @property
    def link(self) -> str | None:
        return None

    def map(self, function: Callable[[A], B], items: Iterable[A]) -> Iterator[Outcome[A, B]]:
        for item in items:
            yield Outcome(item, function(item), None)


@dataclass(frozen=True)
class _Answer(Generic[B]):
    """What comes back from a worker; exception text stays there, since it may hold a path."""

    value: B | None = None
    refusal: OsporError | None = None
    error: str | None = None


Finished = queue.SimpleQueue[tuple["Future", _Answer[Any] | None]]


class DaskExecutor:
    """Work on the workers of a Dask client; no result is kept on the cluster."""

    def __init__(
        self, client: Client, *, most_workers: int = 1, patience: Patience | None = None, is_here: bool = False
    ) -> None:
        """most_workers: up to which a cluster may grow by itself; it grows only while work waits for it."""
        self.client = client
        self.is_here = is_here
        self.most_workers = most_workers
        self.patience = patience or Patience()
        self._seen: tuple[float, dict[str, int]] = (-ASK_SECONDS, {})
        self._had_a_worker = time.monotonic()

    @property
    def n_workers(self) -> int:
        return max(self.most_workers, self.n_present)

    @property
    def n_present(self) -> int:
        return len(self._threads())

    @property
    def is_expendable(self) -> bool:
        return True

    @property
    def link(self) -> str | None:
        if self.client.status != "running":
            return None
        found = str(self.client.dashboard_link)
        # without bokeh Dask's dashboard is a page that asks for bokeh; these tables of workers, tasks and logs need none
        return found if importlib.util.find_spec("bokeh") else found.replace("/status", "/info/main/workers.html")

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

    def map(self, function: Callable[[A], B], items: Iterable[A]) -> Iterator[Outcome[A, B]]:
        call = functools.partial(_answer, function)
        waiting = iter(items)
        running: dict[Future, A] = {}
        finished: Finished = queue.SimpleQueue()
        self._had_a_worker = time.monotonic()
        try:
            self._submit(call, waiting, running=running, finished=finished)
            while running:
                future, answer = self._next(finished)
                if self.client.status != "running" or future.status == "cancelled":
                    raise _lost()
                item = running.pop(future)
                outcome = _outcome(item, future, answer)
                future.release()
                self._submit(call, waiting, running=running, finished=finished)
                yield outcome
        finally:
            if running and self.client.status == "running":
                self.client.cancel(list(running))

    def _next(self, finished: Finished) -> tuple[Future, _Answer[Any] | None]:
        """The next future that ended, with its answer; ClusterError when there is no worker for longer than patience lasts."""
        while True:
            try:
                return finished.get(timeout=ASK_SECONDS)
            except queue.Empty:
                if self.client.status != "running":
                    raise _lost() from None
            if self._threads():
                self._had_a_worker = time.monotonic()
            elif time.monotonic() - self._had_a_worker > self.patience.seconds:
                raise ClusterError(
                    f"compute: no worker for {self.patience.seconds / 60:g} minutes; {self.patience.ask}; {AGAIN}"
                )

    def _submit(
        self,
        call: Callable[[Any], Any],
        waiting: Iterator[Any],
        *,
        running: dict[Future, Any],
        finished: Finished,
    ) -> None:
        # not once and for all: workers die, come back and join
        room = IN_FLIGHT_PER_THREAD * max(self.most_workers, sum(self._threads().values()))
        while len(running) < room:
            item = next(waiting, waiting)
            if item is waiting:  # nothing is left
                return
            # allowed-failures is 0 on the scheduler; Dask itself never tries again, since the caller bisects
            future = self.client.submit(call, item, pure=False, retries=0)
            running[future] = item
            # not as_completed: it can wait for no longer than forever, and asks whichever client was opened last
            self.client.loop.add_callback(_hand_over, future, finished)


async def _hand_over(future: Future, finished: Finished) -> None:
    """Fetch an answer as soon as it is there, many at a time.

    One after the other they would hold up everything: a worker whose decoder holds the interpreter lock answers late.
    """
    answer: _Answer[Any] | None = None
    try:
        with contextlib.suppress(OSError, CancelledError):
            found = await future.client.gather([future], errors="skip", asynchronous=True)
            answer = found[0] if found else None
    finally:
        finished.put((future, answer))


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


def _outcome(item: A, future: Future, answer: _Answer[Any] | None) -> Outcome[A, Any]:
    if future.status == "error":
        name = type(future.exception()).__name__
        return Outcome(item, None, WORKER_DIED if name == "KilledWorker" else name)
    if answer is None:
        raise _lost()
    if answer.refusal is not None:
        raise answer.refusal
    return Outcome(item, answer.value, answer.error)


def _lost() -> OsporError:
    return OsporError("the scheduler of the cluster is gone; run the same command again: finished work is kept")
