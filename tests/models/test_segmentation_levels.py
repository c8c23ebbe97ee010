"""Bodies get one component each, levels in anatomical order, and a confidence that says how sure the network was."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ospor_batch.models.segmentation_classes import FILE_VALUES, LEVELS, STRUCTURES, structures_of
from ospor_batch.models.segmentation_levels import labelled_bodies

STEP = 9  # voxels of 4 mm from one body to the next
SHARE = 0.96  # what the network gives to its favourite class


def spine(levels: list[str], *, said: list[str] | None = None, missing: tuple[str, ...] = ()) -> np.ndarray:
    """Probabilities (class, z, y, x) of boxes from head to foot; said: what the network calls each."""
    said = said or levels
    probability = np.full((len(STRUCTURES), STEP * len(levels) + 4, 12, 12), 0.001)
    probability[0] = 1.0
    for place, (level, name) in enumerate(zip(levels, said, strict=True)):
        if level in missing:
            continue
        top = probability.shape[1] - 2 - place * STEP
        box = (slice(top - 6, top), slice(3, 9), slice(3, 9))
        probability[:, *box] = (1 - SHARE) / (len(STRUCTURES) - 1)
        probability[STRUCTURES.index(name), *box] = SHARE
    return probability / probability.sum(axis=0)


def found_in(probability: np.ndarray) -> list[str]:
    _, bodies = labelled_bodies(probability, voxel_ml=0.064)
    return [body.level for body in bodies]


def test_levels_as_the_network_says_them() -> None:
    labels, bodies = labelled_bodies(spine(list(LEVELS)), voxel_ml=0.064)
    assert [body.level for body in bodies] == list(LEVELS)
    assert all(body.confidence > 0.9 for body in bodies)
    assert set(np.unique(labels)) == {0, *(STRUCTURES.index(level) for level in LEVELS)}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 4), st.integers(4, 6), st.data())
def test_one_wrong_name_is_put_right_by_its_neighbours(first: int, n: int, data: st.DataObject) -> None:
    levels = list(LEVELS[first : first + n])
    wrong = data.draw(st.integers(0, len(levels) - 1))
    said = [*levels]
    said[wrong] = data.draw(st.sampled_from([level for level in LEVELS if level != levels[wrong]]))
    assert found_in(spine(levels, said=said)) == levels


def test_a_level_that_was_moved_has_a_low_confidence() -> None:
    _, bodies = labelled_bodies(spine(["T12", "L1", "L2", "L3"], said=["T12", "L1", "L4", "L3"]), voxel_ml=0.064)
    assert [body.level for body in bodies] == ["T12", "L1", "L2", "L3"]
    assert bodies[2].confidence < 0.1 < bodies[1].confidence


def test_a_missed_body_leaves_its_level_out() -> None:
    assert found_in(spine(["L1", "L2", "L3", "L4", "L5"], missing=("L3",))) == ["L1", "L2", "L4", "L5"]


def test_more_bodies_than_a_spine_has_are_bounded() -> None:
    levels = ["T1-T9"] * 12 + list(LEVELS)
    assert found_in(spine(levels))[-9:] == list(LEVELS)


def test_nothing_and_specks_are_no_bodies() -> None:
    empty = np.zeros((len(STRUCTURES), 8, 8, 8))
    empty[0] = 1
    assert labelled_bodies(empty, voxel_ml=0.064)[1] == ()
    empty[:, 3, 3, 3] = 0
    empty[STRUCTURES.index("L1"), 3, 3, 3] = 1
    assert labelled_bodies(empty, voxel_ml=0.064)[1] == ()


@pytest.mark.parametrize(("value", "name"), [(20, "L1"), (19, "T12"), (26, "S1"), (8, "T1-T9"), (16, "T1-T9"), (100, "muscle")])
def test_numbers_of_a_file_become_classes(value: int, name: str) -> None:
    assert STRUCTURES[structures_of(np.array([[[value]]]))[0, 0, 0]] == name
    assert FILE_VALUES.get(name, value) == value


def test_numbers_that_mean_nothing_are_background() -> None:
    assert not structures_of(np.array([0, 1, 7, 25, 99, 250, 1000])).any()
