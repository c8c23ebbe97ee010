"""Volumes to train the segmentation on: the same twice, with ribs and a sacrum from which levels can be counted."""

from __future__ import annotations

import numpy as np
import pytest

from ospor_batch.models.segmentation_classes import DISC, KIND_OF, KINDS, LEVELS, RIB, SACRUM, STRUCTURES
from ospor_batch.models.segmentation_levels import labelled_bodies
from ospor_batch.models.segmentation_training import Labelled, with_discs
from ospor_batch.stages.segmentation_volumes import generated

S1 = STRUCTURES.index("S1")
MM = 5.0


@pytest.fixture(scope="module")
def volumes() -> list[Labelled]:
    """T7 to the sacrum, T9 to the sacrum, and T1 to L3, of three people."""
    return list(generated(3, seed=3, spacing_mm=MM))


def test_the_same_seed_makes_the_same_volumes_and_another_other_ones() -> None:
    first, again, other = (next(generated(1, seed=seed, spacing_mm=8.0)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.hu, again.hu)
    np.testing.assert_array_equal(first.structures, again.structures)
    assert first.hu.shape != other.hu.shape or (first.hu != other.hu).any()


def test_every_level_in_view_is_labelled_from_foot_to_head(volumes: list[Labelled]) -> None:
    chest = volumes[2]
    heights = [np.argwhere(chest.structures == STRUCTURES.index(level))[:, 0].mean() for level in LEVELS[:14]]
    assert (np.diff(heights) < 0).all()
    assert {"muscle", "fat", "visceral_fat"} <= {STRUCTURES[number] for number in np.unique(chest.structures)}


def test_below_s1_lies_bone_that_is_no_body_and_bends_to_the_back(volumes: list[Labelled]) -> None:
    volume = volumes[0]
    last = np.argwhere(volume.structures == S1)
    low, (_, back, middle) = last[:, 0].min(), last.mean(axis=0)
    below = volume.hu[:low, :, round(middle) - 1 : round(middle) + 2]
    assert (below > 40).any(axis=(1, 2))[-8:].all()  # 40 mm of it, without a gap
    is_level = (volume.structures[:low] > 0) & (volume.structures[:low] <= S1)
    assert not is_level.any()
    sacrum = volume.structures[:low, :, round(middle) - 1 : round(middle) + 2] == STRUCTURES.index("sacrum")
    assert ((below > 200) & sacrum).sum() > 20
    deep = np.argwhere(sacrum[low - round(45 / MM)])[:, 0].mean()
    assert (deep - back) * MM > 10


def test_the_wings_of_the_sacrum_join_s1_to_the_iliac_bones(volumes: list[Labelled]) -> None:
    volume = volumes[0]
    z, y, x = np.argwhere(volume.structures == S1).mean(axis=0)
    row = volume.structures[round(z), round(y) : round(y + 20 / MM)] == STRUCTURES.index("sacrum")
    across = (np.flatnonzero(row.any(axis=0)) - x) * MM
    for side in (-1, 1):
        beside = side * across[np.sign(across) == side]
        assert beside.min() < 30
        assert 45 < beside.max() < 70


def test_ribs_begin_beside_the_thoracic_bodies_alone(volumes: list[Labelled]) -> None:
    volume = volumes[0]
    rib = np.argwhere(volume.structures == STRUCTURES.index("rib"))
    for level in ("T11", "T12", "L2"):
        z, y, x = np.argwhere(volume.structures == STRUCTURES.index(level)).mean(axis=0)
        near = rib[(np.abs(rib[:, 0] - z) * MM <= 10) & (np.abs(rib[:, 2] - x) * MM <= 45)]
        assert bool(len(near)) == level.startswith("T"), level
        # a real head of a rib lies 20 mm beside and 18 mm behind the middle of its body
        if len(near):
            head = near[np.abs(near[:, 2] - x).argmin()]
            assert abs(head[2] - x) * MM < 28
            assert 3 < (head[1] - y) * MM < 28


@pytest.mark.parametrize("wrong", [-1.0, 1.0])
def test_levels_are_counted_from_the_ribs_and_the_sacrum_of_every_volume(volumes: list[Labelled], wrong: float) -> None:
    for volume, counted_from in zip(volumes, ((RIB, SACRUM), (RIB, SACRUM), (RIB,)), strict=True):
        structures = with_discs(volume.structures, spacing_mm=MM)
        is_body = KIND_OF[structures] == KINDS.index("vertebra")
        place = np.where(is_body, structures - 1.0 + wrong, 0.0)  # T1 is the first structure after the background
        others = {kind: (structures == STRUCTURES.index(kind)) * 0.95 for kind in (DISC, RIB, SACRUM)}
        spread = np.full(structures.shape, 1.5)
        labels, bodies = labelled_bodies(is_body * 0.97, place, spread, spacing_mm=MM, others=others)
        assert {body.counted_from for body in bodies} == {counted_from}
        for body in bodies:
            number = STRUCTURES.index(body.level)
            assert np.bincount(structures[labels == number]).argmax() == number
