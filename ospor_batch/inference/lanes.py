"""Several series side by side on a CPU, each read, decoded and computed by one thread.

Where the network has no device of its own, those who decode and those who compute share the same cores. Borders between them
leave cores idle, whichever is slower; a thread that takes each series from file to answer does what is due. A network then
computes with one thread, so that an answer does not depend on how many cores a machine has (benchmarks/inference.md).

Many plain files of a CT are another matter: to read them is to move bytes and to hold the interpreter between, so that two
threads read two series hardly sooner than one after the other, and take the caches from each other. Few lanes read such a
series at a time.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, nullcontext

from ospor_batch.inference.ahead import in_batches
from ospor_batch.inference.decoders import pool_of_single_threads, prepare
from ospor_batch.inference.device import Answer, Device
from ospor_batch.inference.items import Item
from ospor_batch.inference.journal import Journal
from ospor_batch.inference.timing import AHEAD, ON_DEVICE, Stopwatch
from ospor_batch.inference.watchdog import at_most

ANSWERED_AHEAD = 4  # answers a lane that may wait for a slower series before them; they hold no pixels
Lane = Callable[[Item], "Future[Answer]"]


def can_share(device: Device) -> bool:
    """Whether series may be computed by several threads at once: on a CPU, by a predictor that says it may."""
    return device.spec.device == "cpu" and bool(getattr(device.predictor, "is_reentrant", False))


def side_by_side(
    items: Sequence[Item],
    device: Device,
    *,
    n_lanes: int,
    journal: Journal,
    item_seconds: float,
    watch: Stopwatch,
    n_reading: int = 1,
) -> Iterator[tuple[Item, Answer]]:
    """Every item with its verdict, in order; no more than ``n_lanes`` are held decoded.

    n_reading: lanes that read many plain files at a time.
    """
    n = max(1, min(n_lanes, len(items)))
    of_lanes = Stopwatch()
    device.watch = of_lanes
    try:
        # lanes that a short shard has no series for decode the files of the others
        pool = _pool(n, device, journal=journal, item_seconds=item_seconds, n_threads=n_lanes // n, n_reading=n_reading)
        with pool as submit:
            yield from in_batches(
                items,
                submit=submit,
                predict=lambda batch: [answer for _, answer in batch],
                waiting_for=lambda result: result(),
                batch_items=lambda: 1,
                n_decoded=ANSWERED_AHEAD * n,
            )
    finally:
        watch.add(_as_one_device(of_lanes.seconds, n))


@contextmanager
def _pool(n: int, device: Device, *, journal: Journal, item_seconds: float, n_threads: int, n_reading: int) -> Iterator[Lane]:
    pool, reading = pool_of_single_threads(n, device.spec, name="lane"), threading.BoundedSemaphore(n_reading)
    each = functools.partial(
        _answered, device=device, journal=journal, item_seconds=item_seconds, n_threads=n_threads, reading=reading
    )
    try:
        yield lambda item: pool.submit(each, item)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _answered(
    item: Item,
    *,
    device: Device,
    journal: Journal,
    item_seconds: float,
    n_threads: int,
    reading: threading.BoundedSemaphore,
) -> Answer:
    turn: AbstractContextManager[object] = reading if item.is_plain_stack else nullcontext()
    n_threads = 1 if item.is_plain_stack else n_threads
    began = time.perf_counter()
    prepared, seconds = prepare(item, device.spec, journal=journal, item_seconds=item_seconds, n_threads=n_threads, turn=turn)
    waited = time.perf_counter() - began - sum(seconds.values())
    device.watch.add({**seconds, "starved": waited})
    journal.begins([item.item_digest])
    with at_most(item_seconds, say_to=journal.fileno()):
        (answer,) = device.predict([prepared])
    journal.rests([item.item_digest])
    return answer


def _as_one_device(seconds: dict[str, float], n: int) -> dict[str, float]:
    """Seconds of n threads as those of one device: it starved while they read and decoded, or waited for their turn."""
    ahead = {step: seconds[step] for step in AHEAD}
    return {
        **ahead,
        "starved": (sum(ahead.values()) + seconds["starved"]) / n,
        **{step: seconds[step] / n for step in ON_DEVICE},
    }
