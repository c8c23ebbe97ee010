"""Where the seconds of a shard went, and which step holds the others up."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

AHEAD = ("read", "decode")  # in threads ahead of the device; their seconds are summed over threads
ON_DEVICE = ("transfer", "compute")
STEPS = (*AHEAD, "starved", *ON_DEVICE, "write")  # starved: the device had nothing decoded to work on


@dataclass
class Stopwatch:
    """Seconds by step; threads may stop their times at once."""

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STEPS, 0.0))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextlib.contextmanager
    def on(self, step: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            took = time.perf_counter() - began
            self.add({step: took})

    def add(self, more: Mapping[str, float]) -> None:
        """Add what was measured elsewhere."""
        with self._lock:
            for step, seconds in more.items():
                self.seconds[step] += seconds


def summed(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Seconds by step over several shards."""
    total = dict.fromkeys(STEPS, 0.0)
    for part in parts:
        for step, seconds in part.items():
            total[step] += seconds
    return total


def bottleneck(seconds: Mapping[str, float]) -> str:
    """The step to make faster first: of those ahead when the device starved longer than it worked, else of those behind."""
    behind = {step: seconds[step] for step in (*ON_DEVICE, "write")}
    if seconds["starved"] > max(behind.values()):
        return max(AHEAD, key=lambda step: seconds[step])
    return max(behind, key=lambda step: behind[step])
