"""A trained recipe as a predictor: images unlike those it learned from are said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ospor_batch.models import ct_qct_bmd
from ospor_batch.models.spec import Parameter, Pixels
from ospor_batch.models.trained import UNLIKE_TRAINING, TrainedPredictor
from tests.models.spines import preparing, spine

CHANGES: dict[str, Parameter] = {"levels": ("L1", "L2"), "crop_pixels": 16}


def flags_of(pixels: Pixels, spacing_mm: tuple[float, float] | None) -> tuple[str, ...]:
    recipe = ct_qct_bmd.RECIPE
    return TrainedPredictor(recipe, preparing(recipe, CHANGES), lambda _: (), 1, spacing_mm).prepare(pixels).flags


@pytest.mark.parametrize(
    ("learned_from", "is_alike"),
    [((4.0, 4.0), True), ((1.0, 3.5), True), ((1.0, 3.0), False), ((5.5, 8.0), False), (None, True)],
)
def test_slices_unlike_those_learned_from_are_flagged(learned_from: tuple[float, float] | None, is_alike: bool) -> None:
    """The made spine has slices of 4 mm; a quarter more or less than what was learned from is still alike."""
    assert (UNLIKE_TRAINING not in flags_of(spine(120.0), learned_from)) is is_alike


def test_the_distance_counts_and_not_the_pixels() -> None:
    made = spine(120.0)
    assert made.volume is not None
    wide = np.diag([1.0, 2, 2, 1])  # the same slices with pixels of 8 mm
    assert UNLIKE_TRAINING not in flags_of(replace(made, volume=replace(made.volume, affine=made.volume.affine @ wide)), (4, 4))
