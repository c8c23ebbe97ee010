"""Predictors that fail in every way that real ones do; they score a volume by its highest level mean."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ospor_batch.errors import ItemRefused
from ospor_batch.models import registry
from ospor_batch.models.registry import Kind, predictor_here, spec_of
from ospor_batch.models.spec import Pixels, Prediction, PredictorSpec

LABELS = {"L1": 20, "L2": 21, "L3": 22, "L4": 23}


@dataclass
class Failing:
    """Calls ``on`` with the values of a batch before it answers; values are the rounded means of the images."""

    on: Callable[[list[float]], None] = lambda values: None
    batch_items: int = 4
    batches: list[int] = field(default_factory=list)
    device: str = "cpu"

    def prepare(self, pixels: Pixels) -> float:
        assert pixels.volume is not None
        return float(pixels.volume.hu.max())

    def predict(self, batch: Sequence[float]) -> list[Prediction | ItemRefused]:
        self.batches.append(len(batch))
        self.on(list(batch))
        return [Prediction(-value, value, "HU", (), (), ()) for value in batch]


def register(monkeypatch: pytest.MonkeyPatch, predictor: Any, name: str = "failing") -> PredictorSpec:
    """Let the registry build this predictor for as long as the test lasts; its spec."""
    build = predictor if callable(predictor) else lambda spec: predictor
    monkeypatch.setitem(registry.PREDICTORS, name, Kind(build, version="1", defaults={}, wants_gpu=False, reads_masks=False))
    predictor_here.cache_clear()
    return spec_of(name, parameters={}, pattern="*.nii*", labels=LABELS)


def crash(folder: Path) -> None:
    """As a decoder that runs into bad memory; writes down that it did."""
    with (folder / "deaths").open("a") as file:
        file.write("x")
    os.abort()


def hang() -> None:
    """As a decoder in an endless loop."""
    time.sleep(600)
