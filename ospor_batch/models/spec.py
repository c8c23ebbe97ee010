"""A predictor by name and parameters, frozen and small enough to send; its digests key the prediction store."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ospor_batch.errors import ItemRefused
from ospor_batch.evaluation.overlap import Overlap
from ospor_batch.imaging.masks import MaskRule
from ospor_batch.imaging.radiograph import Radiograph
from ospor_batch.imaging.regions import Region
from ospor_batch.imaging.volume import Volume

PREPROCESSING = "4"  # raise it with every change that can move a value: reading, HU, masks, regions
PRECISION = "float64"  # of the statistics; pixels are float32
COARSE = "least_decoded_pixels"  # parameter of a predictor that may be shown a part of an image's resolution
Parameter = str | float | int | bool | tuple[str, ...]


@dataclass(frozen=True)
class PredictorSpec:
    """What a worker needs to build a predictor.

    version: of the predictor's own rule or weights. parameters: (name, value), sorted, defaults written out.
    device: where it computes, cpu or cuda; in no digest, since it must not change a decision. folder: of a trained model,
    in no digest either, since version is then the digest of what lies there.
    """

    predictor: str
    version: str
    parameters: tuple[tuple[str, Parameter], ...]
    masks: MaskRule
    device: str = "cpu"
    folder: str = ""

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
                "masks": self.masks.identity,
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
    level_values: what was predicted of single levels, in the same unit.
    """

    score: float
    value: float
    unit: str
    levels: tuple[str, ...]
    flags: tuple[str, ...]
    regions: tuple[Region, ...]
    level_values: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Pixels:
    """What the files of one series became.

    volume: of a predictor that reads CT. labels: levels on the volume's grid; null for a predictor that needs none.
    radiograph: of a predictor that reads radiographs. mask_flags: what is to be said of the labels (level_uncertain:L1 ...).
    overlaps: of segmented levels with masks beside the images.
    """

    volume: Volume | None = None
    labels: npt.NDArray[np.int32] | None = None
    radiograph: Radiograph | None = None
    mask_flags: tuple[str, ...] = ()
    overlaps: Mapping[str, Overlap] = field(default_factory=dict)


class Predictor(Protocol):
    """Built once per worker process; keeps what is costly to load.

    The two halves run side by side: ``prepare`` in threads beside the device, ``predict`` on the device. One that has a true
    ``is_reentrant`` may be asked to ``predict`` by several threads at once, one series each, on a CPU.
    """

    @property
    def batch_items(self) -> int:
        """Items that go to the device together; halved when its memory does not hold them."""

    def prepare(self, pixels: Pixels) -> Any:
        """Turn one series into what ``predict`` takes; ItemRefused when it cannot be scored. Called from several threads."""

    def predict(self, batch: Sequence[Any]) -> Sequence[Prediction | ItemRefused]:
        """Predict prepared series, one answer each in their order; an answer does not depend on its neighbours."""


def _digest(of: dict[str, Any]) -> str:
    text = json.dumps(of, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
