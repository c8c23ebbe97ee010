"""Read, decode and prepare in threads ahead of the device, and hand over in order; never more than a declared number."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from ospor_batch.errors import ItemRefused

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")


def in_batches(
    items: Sequence[A],
    *,
    prepare: Callable[[A], B],
    predict: Callable[[list[tuple[A, B]]], Sequence[C | ItemRefused]],
    waiting_for: Callable[[Callable[[], B]], B],
    batch_items: Callable[[], int],
    n_threads: int,
    n_decoded: int,
) -> Iterator[tuple[A, C | ItemRefused]]:
    """Yield what became of every item, in batches that follow the order of the items.

    prepare: runs in the threads; its ItemRefused is the item's verdict and takes no place in a batch. predict: runs in the
    calling thread. waiting_for: called around every wait for a prepared item. batch_items: asked before each batch, since
    a device that ran out of memory takes less. n_decoded: most items that are being prepared, wait, or are on the device.
    """
    queued: deque[tuple[A, Future[B]]] = deque()
    source = iter(items)
    pool = ThreadPoolExecutor(n_threads, thread_name_prefix="decode")

    def top_up(n_held: int) -> None:
        while len(queued) + n_held < n_decoded and (item := next(source, None)) is not None:
            queued.append((item, pool.submit(prepare, item)))

    batch: list[tuple[A, B]] = []
    try:
        top_up(0)
        while queued:
            item, future = queued.popleft()
            try:
                batch.append((item, waiting_for(future.result)))
            except ItemRefused as refusal:
                yield item, refusal
            top_up(len(batch))
            if batch and (len(batch) >= min(batch_items(), n_decoded) or not queued):
                answers = predict(batch)
                held = [held for held, _ in batch]
                batch = []  # frees the pixels
                yield from zip(held, answers, strict=True)
                top_up(0)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
