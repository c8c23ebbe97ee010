"""Prepare items ahead of the device and hand them over in order; never more than a declared number."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import TypeVar

from ospor_batch.errors import ItemRefused

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")


def in_batches(
    items: Sequence[A],
    *,
    submit: Callable[[A], Future[B]],
    predict: Callable[[list[tuple[A, C]]], Sequence[D | ItemRefused]],
    waiting_for: Callable[[Callable[[], B]], C],
    batch_items: Callable[[], int],
    n_decoded: int,
) -> Iterator[tuple[A, D | ItemRefused]]:
    """Yield what became of every item, in batches that follow the order of the items.

    submit: begins to prepare an item elsewhere; its ItemRefused is the item's verdict and takes no place in a batch. predict:
    runs in the calling thread. waiting_for: called around every wait for a prepared item. batch_items: asked before each
    batch, since a device that ran out of memory takes less. n_decoded: most items that are being prepared, wait, or are on
    the device.
    """
    queued: deque[tuple[A, Future[B]]] = deque()
    source = iter(items)

    def top_up(n_held: int) -> None:
        while len(queued) + n_held < n_decoded and (item := next(source, None)) is not None:
            queued.append((item, submit(item)))

    batch: list[tuple[A, C]] = []
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
