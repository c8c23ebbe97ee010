"""Volumes to train the segmentation on: the same twice, and a sacrum below S1 that no body may be mistaken for."""

from __future__ import annotations

import numpy as np

from ospor_batch.models.segmentation_classes import LEVELS, STRUCTURES
from ospor_batch.stages.segmentation_volumes import generated

S1 = STRUCTURES.index("S1")


def test_the_same_seed_makes_the_same_volumes_and_another_other_ones() -> None:
    first, again, other = (next(generated(1, seed=seed, spacing_mm=8.0)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.hu, again.hu)
    np.testing.assert_array_equal(first.structures, again.structures)
    assert first.hu.shape != other.hu.shape or (first.hu != other.hu).any()


def test_every_level_in_view_is_labelled_from_foot_to_head() -> None:
    *_, chest = generated(3, seed=3, spacing_mm=5.0)
    heights = [np.argwhere(chest.structures == STRUCTURES.index(level))[:, 0].mean() for level in LEVELS[:14]]
    assert (np.diff(heights) < 0).all()
    assert {"muscle", "fat", "visceral_fat"} <= {STRUCTURES[number] for number in np.unique(chest.structures)}


def test_below_s1_lies_bone_that_is_no_body() -> None:
    volume = next(generated(1, seed=3, spacing_mm=5.0))
    last = np.argwhere(volume.structures == S1)
    low, middle = last[:, 0].min(), last[:, 2].mean()
    below = volume.hu[:low, :, round(middle) - 1 : round(middle) + 2]
    assert (below > 40).any(axis=(1, 2))[-8:].all()  # 40 mm of it, without a gap
    is_level = (volume.structures[:low] > 0) & (volume.structures[:low] <= S1)
    assert not is_level.any()
    sacrum = volume.structures[:low, :, round(middle) - 1 : round(middle) + 2] == STRUCTURES.index("sacrum")
    assert ((below > 200) & sacrum).sum() > 20


def test_ribs_are_named_beside_the_thoracic_bodies_alone() -> None:
    volume = next(generated(1, seed=3, spacing_mm=5.0))
    middle = {level: np.argwhere(volume.structures == STRUCTURES.index(level)).mean(axis=0) for level in ("T11", "T12", "L2")}
    rib = np.argwhere(volume.structures == STRUCTURES.index("rib"))
    for level, (z, _, x) in middle.items():
        near = (np.abs(rib[:, 0] - z) <= 2) & (np.abs(rib[:, 2] - x) <= 45 / 5)
        assert near.any() == level.startswith("T"), level
