"""The baseline without weights: mean HU of the lumbar vertebrae, low means osteoporosis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ospor_batch.errors import ItemRefused
from ospor_batch.models.spec import Parameter, Pixels, Prediction, PredictorSpec
from ospor_batch.models.vertebra_inputs import regions_of

VERSION = "1"  # raise it when the rule below changes
DEFAULTS: dict[str, Parameter] = {"levels": ("L1", "L2", "L3", "L4")}  # the levels of spine DXA, methods L4


@dataclass(frozen=True)
class MeanHu:
    """Mean over levels of the plain mean HU of each level; levels weigh the same, whatever their size.

    levels: those that enter; labels: (level, label) of every level that is measured.
    """

    levels: tuple[str, ...]
    labels: tuple[tuple[str, int], ...]

    batch_items: int = 1
    is_reentrant = True

    def prepare(self, pixels: Pixels) -> Prediction:
        """Measure every labelled level; levels_missing when none that should enter has voxels."""
        volume = pixels.volume
        assert volume is not None  # registry: it reads CT and masks
        regions = regions_of(pixels, dict(self.labels))
        entering = [region for region in regions if region.level in self.levels]
        if not entering:
            raise ItemRefused("levels_missing", f"none of {', '.join(self.levels)} has voxels in the images")
        value = float(np.mean([region.mean_hu for region in entering]))
        present = {region.level for region in entering}
        flags = [*pixels.mask_flags, *(f"level_missing:{level}" for level in self.levels if level not in present)]
        if volume.n_missing_slices:
            flags.append(f"slices_missing:{volume.n_missing_slices}")
        return Prediction(
            score=-value,
            value=value,
            unit="HU",
            levels=tuple(region.level for region in entering),
            flags=tuple(flags),
            regions=regions,
        )

    def predict(self, batch: Sequence[Prediction]) -> Sequence[Prediction]:
        """Everything was measured in ``prepare``."""
        return batch


def build_mean_hu(spec: PredictorSpec) -> MeanHu:
    """Build the predictor from its spec."""
    levels = dict(spec.parameters)["levels"]
    assert isinstance(levels, tuple)
    return MeanHu(levels=levels, labels=spec.masks.labels)
