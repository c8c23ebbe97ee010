"""Memory of a volume that is gone serves the next one, and never one that somebody still looks at."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ospor_batch.imaging import memory
from ospor_batch.imaging.memory import LEAST_BYTES, empty

SHAPE = (2, LEAST_BYTES // 8)  # of float32: just large enough


@pytest.fixture(autouse=True)
def _none_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_kept", [])


def address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


def test_memory_comes_back_with_the_last_view() -> None:
    volume = empty(SHAPE, np.float32)
    volume[:] = 3
    where, view = address(volume), volume[1, ::2]
    del volume
    other = empty(SHAPE, np.float32)
    assert address(other) != where
    other[:] = 4
    assert (view == 3).all()
    del view
    assert address(empty(SHAPE, np.float32)) == where


def test_only_what_fits_is_taken_again_and_little_is_kept() -> None:
    several = [empty((n, LEAST_BYTES), np.uint8) for n in (5, 1, 1, 1)]
    places = [address(array) for array in several]
    several.clear()
    assert len(memory._kept) == memory.MOST_KEPT
    assert address(empty((1, LEAST_BYTES), np.uint8)) in places[1:] + places[:1]
    assert empty((3, 4), np.int16).base is None  # small arrays are NumPy's own
    with pytest.raises(MemoryError):
        empty((2**46,), np.float32)


def test_threads_never_share_it() -> None:
    barrier = threading.Barrier(4, timeout=60)

    def work(number: int) -> bool:
        for _ in range(5):
            volume = empty(SHAPE, np.float32)
            volume[:, ::1024] = number
            barrier.wait()
            if not (volume[:, ::1024] == number).all():
                return False
            barrier.wait()
            del volume
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))
