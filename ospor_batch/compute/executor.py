"""What a stage sees of a cluster: map a function over items and take the outcomes as they come."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from ospor_batch.errors import OsporError

if TYPE_CHECKING:
    from distributed import Client, Future

A = TypeVar("A")
B = TypeVar("B")
WORKER_DIED = "worker_died"
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

    def map(self, function: Callable[[A], B], items: Sequence[A]) -> Iterator[Outcome[A, B]]:
        """Yield an outcome for every item, in the order of completion; an OsporError of the function is raised here."""


class InLine:
    """Work in this very process, one item after the other; whatever the function raises is raised here."""

    @property
    def n_workers(self) -> int:
        return 1

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

    def __init__(self, client: Client) -> None:
        self.client = client

    @property
    def n_workers(self) -> int:
        return max(1, len(self.client.nthreads()))

    def map(self, function: Callable[[A], B], items: Sequence[A]) -> Iterator[Outcome[A, B]]:
        from distributed import as_completed  # late: 0.5 s

        call = functools.partial(_answer, function)
        waiting = iter(enumerate(items))
        running: dict[Future, int] = {}
        finished = as_completed()
        room = IN_FLIGHT_PER_THREAD * max(1, sum(self.client.nthreads().values()))
        try:
            self._submit(call, waiting, running=running, finished=finished, room=room)
            while running:
                future = next(finished)
                item = items[running.pop(future)]
                outcome = _outcome(item, future)
                future.release()
                self._submit(call, waiting, running=running, finished=finished, room=room)
                yield outcome
        finally:
            if running:
                self.client.cancel(list(running))

    def _submit(
        self, call: Callable[[Any], Any], waiting: Iterator[tuple[int, Any]], *, running: dict[Future, int], finished: Any,
        room: int,
    ) -> None:  # fmt: skip
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
        return _Answer(value=function(item))
    except OsporError as refusal:
        return _Answer(refusal=refusal)
    # the text and traceback of a bug may hold a path: only the name of its class leaves the worker
    except Exception as error:  # noqa: BLE001
        return _Answer(error=type(error).__name__)


def _outcome(item: A, future: Future) -> Outcome[A, Any]:
    if future.status != "finished":
        name = type(future.exception()).__name__ if future.status == "error" else future.status
        return Outcome(item, None, WORKER_DIED if name in {"KilledWorker", "lost"} else name)
    answer = future.result()
    if answer.refusal is not None:
        raise answer.refusal
    return Outcome(item, answer.value, answer.error)
