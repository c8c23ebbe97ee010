"""Bodies get one component each, levels in anatomical order, and a confidence that says how sure the chain is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ospor_batch.models.segmentation_classes import FILE_VALUES, KIND_OF, KINDS, LEVELS, STRUCTURES, structures_of
from ospor_batch.models.segmentation_levels import Body, labelled_bodies

STEP = 9  # voxels of 4 mm from one body to the next


def spine(
    levels: list[str], *, said: list[float] | None = None, missing: tuple[str, ...] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes from head to foot: probability of a vertebra, and the place (T1 being 0) that the network gives to each."""
    said = said or [float(LEVELS.index(level)) for level in levels]
    is_vertebra = np.full((STEP * len(levels) + 4, 12, 12), 0.01)
    place = np.zeros_like(is_vertebra)
    for number, (level, value) in enumerate(zip(levels, said, strict=True)):
        if level not in missing:
            top = len(is_vertebra) - 2 - number * STEP
            is_vertebra[top - 6 : top, 3:9, 3:9], place[top - 6 : top, 3:9, 3:9] = 0.97, value
    return is_vertebra, place


def found_in(made: tuple[np.ndarray, np.ndarray], *, spread: float = 0.5) -> tuple[Body, ...]:
    return labelled(made, spread=spread)[1]


def labelled(made: tuple[np.ndarray, np.ndarray], *, spread: float = 0.5) -> tuple[np.ndarray, tuple[Body, ...]]:
    return labelled_bodies(*made, np.full_like(made[1], spread), spacing_mm=4.0)


def test_every_level_is_named_and_labelled() -> None:
    labels, bodies = labelled(spine(list(LEVELS)))
    assert [body.level for body in bodies] == list(LEVELS)
    assert all(body.confidence > 0.85 for body in bodies)
    assert set(np.unique(labels)) == {0, *(STRUCTURES.index(level) for level in LEVELS)}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 12), st.integers(3, 6), st.data())
def test_one_wrong_number_is_put_right_by_its_neighbours(first: int, n: int, data: st.DataObject) -> None:
    levels = list(LEVELS[first : first + n])
    said = [float(LEVELS.index(level)) for level in levels]
    said[data.draw(st.integers(0, n - 1))] += data.draw(st.sampled_from([-3.0, -1.0, 1.0, 2.0]))
    assert [body.level for body in found_in(spine(levels, said=said))] == levels


def test_a_chain_between_two_names_has_a_low_confidence() -> None:
    levels = ["L1", "L2", "L3"]
    sure = found_in(spine(levels))[0].confidence
    unsure = found_in(spine(levels, said=[LEVELS.index(level) + 0.45 for level in levels]))[0].confidence
    assert sure > 0.85
    assert unsure < 0.6
    assert found_in(spine(levels), spread=4.0)[0].confidence < 0.6  # the network itself is not sure


def test_heads_of_femurs_are_no_vertebrae() -> None:
    levels = ["L3", "L4", "L5", "S1"]
    is_vertebra, place = (np.pad(of, ((12, 0), (0, 0), (20, 20))) for of in spine(levels))
    for column in (2, 44):
        is_vertebra[2:8, 3:9, column : column + 6] = 0.97
    assert [body.level for body in found_in((is_vertebra, place))] == levels


def test_a_splinter_between_bodies_shifts_no_level() -> None:
    levels = ["T12", "L1", "L2", "L3", "L4"]
    is_vertebra, place = (np.pad(of, ((0, 0), (0, 0), (0, 8))) for of in spine(levels))
    top = len(is_vertebra) - 2 - 2 * STEP
    is_vertebra[top : top + 3, 4:7, 13:16], place[top : top + 3, 4:7, 13:16] = 0.97, LEVELS.index("L1")
    is_vertebra[top + 1, 5, 12:14] = 0.4
    assert [body.level for body in found_in((is_vertebra, place))] == levels


def test_bodies_that_touch_are_told_apart() -> None:
    is_vertebra, place = spine(["L1", "L2", "L3"])
    is_vertebra[:, 5:7, 5:7] = 0.97  # a bridge of 8 mm through all discs
    assert [body.level for body in found_in((is_vertebra, place))] == ["L1", "L2", "L3"]


def test_a_missed_body_leaves_its_level_out() -> None:
    found = found_in(spine(["L1", "L2", "L3", "L4", "L5"], missing=("L3",)))
    assert [body.level for body in found] == ["L1", "L2", "L4", "L5"]


def test_beyond_the_ends_of_a_spine_there_is_no_level() -> None:
    levels = ["L4", "L5", "S1"]
    beyond = found_in(spine(levels, said=[LEVELS.index(level) + 1.0 for level in levels]))
    assert [body.level for body in beyond] == ["L5", "S1"]


def test_nothing_and_specks_are_no_bodies() -> None:
    empty = np.zeros((8, 8, 8))
    assert found_in((empty, empty)) == ()
    empty[3, 3, 3] = 1
    assert found_in((empty, empty)) == ()


@pytest.mark.parametrize(("value", "name"), [(20, "L1"), (19, "T12"), (26, "S1"), (8, "T1"), (100, "muscle")])
def test_numbers_of_a_file_become_structures(value: int, name: str) -> None:
    assert STRUCTURES[structures_of(np.array([[[value]]]))[0, 0, 0]] == name
    assert FILE_VALUES[name] == value


def test_the_disc_is_never_handed_out() -> None:
    assert "disc" in STRUCTURES
    assert "disc" not in FILE_VALUES


def test_numbers_that_mean_nothing_are_background() -> None:
    assert not structures_of(np.array([0, 1, 7, 25, 99, 250, 1000])).any()
    assert [KINDS[kind] for kind in KIND_OF[[0, 1, 18, 19, 21]]] == [
        "background",
        "vertebra",
        "vertebra",
        "muscle",
        "visceral_fat",
    ]
