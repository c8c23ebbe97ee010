"""Decoding runs ahead of the device, keeps the order, and never holds more than was declared."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ospor_batch.errors import ItemRefused
from ospor_batch.inference.ahead import in_batches


class Held:
    """Counts what is prepared and not yet answered."""

    def __init__(self, refused: frozenset[int] = frozenset()) -> None:
        self.now = self.most = 0
        self.refused = refused
        self.batches: list[list[int]] = []
        self._lock = threading.Lock()

    def prepare(self, item: int) -> str:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        if item in self.refused:
            with self._lock:
                self.now -= 1
            raise ItemRefused("no")
        return str(item)

    def predict(self, batch: list[tuple[int, str]]) -> Sequence[int | ItemRefused]:
        self.batches.append([item for item, _ in batch])
        with self._lock:
            self.now -= len(batch)
        return [int(prepared) * 10 for _, prepared in batch]


@given(
    n=st.integers(0, 20), refused=st.frozensets(st.integers(0, 19)), batch=st.integers(1, 5), threads=st.integers(1, 3),
    decoded=st.integers(1, 8),
)  # fmt: skip
def test_every_item_is_answered_in_batches_that_follow_the_order(
    n: int, refused: frozenset[int], batch: int, threads: int, decoded: int
) -> None:
    held = Held(refused)
    with ThreadPoolExecutor(threads) as pool:
        found = dict(
            in_batches(
                range(n), submit=lambda item: pool.submit(held.prepare, item), predict=held.predict,
                waiting_for=lambda result: result(), batch_items=lambda: batch, n_decoded=decoded,
            )
        )  # fmt: skip
    assert {item: answer for item, answer in found.items() if not isinstance(answer, ItemRefused)} == {
        item: 10 * item for item in range(n) if item not in refused
    }
    assert set(found) == set(range(n))
    assert held.most <= decoded
    accepted = [item for item in range(n) if item not in refused]
    size = min(batch, decoded)
    assert [item for batch_of in held.batches for item in batch_of] == accepted
    # only the last can be smaller: which items share a batch follows from the order alone
    assert all(len(of) == size for of in held.batches[:-1])


def test_the_next_is_prepared_while_the_device_works() -> None:
    while_working: list[int] = []
    prepared: list[int] = []

    def prepare(item: int) -> int:
        prepared.append(item)
        return item

    def predict(batch: list[tuple[int, int]]) -> list[int | ItemRefused]:
        until = time.monotonic() + 10
        while len(prepared) < min(4, batch[-1][0] + 3) and time.monotonic() < until:
            time.sleep(0.001)
        while_working.append(len(prepared))
        return [item for _, item in batch]

    with ThreadPoolExecutor(1) as pool:
        found = in_batches(
            range(4), submit=lambda item: pool.submit(prepare, item), predict=predict, waiting_for=lambda result: result(),
            batch_items=lambda: 1, n_decoded=3,
        )  # fmt: skip
        assert [answer for _, answer in found] == [0, 1, 2, 3]
    assert while_working == [3, 4, 4, 4]


def test_a_fault_of_the_program_comes_through() -> None:
    def prepare(item: int) -> int:
        if item == 2:
            raise ZeroDivisionError
        return item

    with ThreadPoolExecutor(2) as pool:
        found = in_batches(
            range(9), submit=lambda item: pool.submit(prepare, item), predict=lambda batch: [item for item, _ in batch],
            waiting_for=lambda result: result(), batch_items=lambda: 1, n_decoded=4,
        )  # fmt: skip
        with pytest.raises(ZeroDivisionError):
            list(found)
