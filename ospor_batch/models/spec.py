"""A predictor by name and parameters, frozen and small enough to send; its digests key the prediction store."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ospor_batch.imaging.masks import MaskRule
from ospor_batch.imaging.regions import Region
from ospor_batch.imaging.volume import Volume

PREPROCESSING = "1"  # raise it with every change that can move a value: reading, HU, masks, regions
PRECISION = "float64"  # of the statistics; pixels are float32
Parameter = str | float | int | bool | tuple[str, ...]


@dataclass(frozen=True)
class PredictorSpec:
    """What a worker needs to build a predictor.

    version: of the predictor's own rule or weights. parameters: (name, value), sorted, defaults written out.
    device: where it computes, cpu or cuda; in no digest, since it must not change a decision.
    """

    predictor: str
    version: str
    parameters: tuple[tuple[str, Parameter], ...]
    masks: MaskRule
    device: str = "cpu"

    @property
    def model_digest(self) -> str:
        """SHA-256 (first 16 digits) over name and version."""
        return _digest({"predictor": self.predictor, "version": self.version})

    @property
    def parameter_digest(self) -> str:
        """SHA-256 (first 16 digits) over preprocessing, precision, parameters and masks."""
        return _digest(
            {
                "preprocessing": PREPROCESSING,
                "precision": PRECISION,
                "parameters": dict(self.parameters),
                "masks": {"source": "masks", "pattern": self.masks.pattern, "labels": dict(self.masks.labels)},
            }
        )

    @property
    def key(self) -> str:
        """Folder of its predictions."""
        return f"{self.model_digest}-{self.parameter_digest}"


@dataclass(frozen=True)
class Prediction:
    """What a predictor says of one series.

    score: higher means more likely osteoporosis. value: the measurement behind it, in unit. levels: those that entered.
    """

    score: float
    value: float
    unit: str
    levels: tuple[str, ...]
    flags: tuple[str, ...]
    regions: tuple[Region, ...]


class Predictor(Protocol):
    """Built once per worker process; keeps what is costly to load."""

    def predict(self, volume: Volume, labels: npt.NDArray[np.int32]) -> Prediction:
        """Predict one series; ItemRefused when it cannot be scored. labels: on the volume's grid."""


def _digest(of: dict[str, Any]) -> str:
    text = json.dumps(of, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
