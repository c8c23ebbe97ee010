"""Counters of a worker process; Dask serves them at its own /metrics where prometheus_client is installed."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

_TOTALS: dict[str, float] = defaultdict(float)
_LOCK = threading.Lock()
_published: list[Any] = []


def add(more: Mapping[str, float]) -> None:
    """Add to the counters of this process; a name is ``counter`` or ``counter:label``, words of ours only."""
    with _LOCK:
        for name, value in more.items():
            _TOTALS[name] += value


def totals() -> dict[str, float]:
    """Every counter of this process."""
    with _LOCK:
        return dict(sorted(_TOTALS.items()))


def publish() -> bool:
    """Let the registry that Dask's endpoint shows ask for the counters; false where prometheus_client is missing."""
    try:
        from prometheus_client import REGISTRY
    except ImportError:
        return False
    if not _published:
        _published.append(_Collector())
        REGISTRY.register(_published[0])
    return True


class _Collector:
    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily

        families: dict[str, Any] = {}
        for name, value in totals().items():
            counter, _, label = name.partition(":")
            if counter not in families:
                families[counter] = CounterMetricFamily(f"ospor_{counter}", f"{counter} of this worker", labels=["kind"])
            families[counter].add_metric([label], value)
        yield from families.values()
