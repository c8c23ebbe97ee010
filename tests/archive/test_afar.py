"""Files that answer late are read together; what is read does not change."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ospor_batch.archive import afar, heads
from ospor_batch.archive.heads import Heads, read_heads

DELAY_S = 0.002
HEAD = 64


def made(folder: Path) -> tuple[list[str], list[int]]:
    """Files of many lengths in folders of many and of one; some are gone."""
    paths, sizes = list[str](), list[int]()
    for number in range(300):
        path = folder / (f"many{number % 2}" if number < 200 else f"one{number}") / f"{number}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes([number % 256]) * (number % 90))
        paths.append(str(path))
        sizes.append(number % 90)
    for number in range(0, 300, 41):
        Path(paths[number]).unlink()
    return sorted(paths), [sizes[int(path.rpartition("/")[2])] for path in sorted(paths)]


def as_read(of: Heads) -> list[tuple[int, bytes]]:
    return [(int(n), of.block[a:b].tobytes()) for n, a, b in zip(of.sizes, of.start, of.end, strict=True)]


@pytest.mark.parametrize("is_late", [True, False])
def test_files_that_answer_late_are_read_together_and_others_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_late: bool
) -> None:
    paths, sizes = made(tmp_path)
    monkeypatch.setattr(afar, "_delay", afar._Delay())
    expected = as_read(read_heads(paths, sizes, n_bytes=HEAD))
    real, lock, under_way, most = heads._read_names, threading.Lock(), [0], [0]

    def late(names: Any, **more: Any) -> list[int]:
        with lock:
            under_way[0] += 1
            most[0] = max(most[0], under_way[0])
        time.sleep(DELAY_S * len(names) if is_late else 0)
        with lock:
            under_way[0] -= 1
        return real(names, **more)

    monkeypatch.setattr(heads, "_read_names", late)
    monkeypatch.setattr(afar, "_delay", afar._Delay())
    monkeypatch.setattr(afar, "SLOW_NS", 400_000 if is_late else 10**9)
    read_heads(paths[:80], sizes[:80], n_bytes=HEAD)  # by which the delay is judged
    found = read_heads(paths, sizes, n_bytes=HEAD)
    assert as_read(found) == expected
    assert sum(size == -1 for size, _ in expected) == 8
    assert (most[0] > 4) == is_late
    assert np.all(found.end >= found.start)
    assert read_heads([], [], n_bytes=HEAD).sizes.size == 0


def test_a_delay_that_is_over_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(afar, "_delay", afar._Delay(n_files=1000, waited_ns=10**12))
    monkeypatch.setattr(afar, "LOOK_AGAIN", 3)
    together: list[int] = []
    monkeypatch.setattr(afar, "_read_together", lambda *_, **__: together.append(1) or [])

    def reader(_: str, names: Any, **__: Any) -> list[int]:
        return [0] * len(names)

    for _ in range(9):
        afar.read(reader, [("f/", ["a"] * 100)], views=iter([]))
    assert len(together) == 3
