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


def test_what_lies_in_front_of_the_column_shifts_no_level() -> None:
    levels = ["T8", "T9", "T10", "T11", "T12"]
    is_vertebra, place = (np.pad(of, ((0, 0), (20, 0), (0, 0))) for of in spine(levels))
    top = len(is_vertebra) - 2 - 2 * STEP + 4
    is_vertebra[top - 7 : top, 9:16, 3:9], place[top - 7 : top, 9:16, 3:9] = 0.97, LEVELS.index("T9")  # of the heart
    labels, bodies = labelled((is_vertebra, place))
    assert [body.level for body in bodies] == levels
    assert not labels[:, :17].any()


def test_bodies_that_touch_are_told_apart() -> None:
    is_vertebra, place = spine(["L1", "L2", "L3"])
    is_vertebra[:, 5:7, 5:7] = 0.97  # a bridge of 8 mm through all discs
    assert [body.level for body in found_in((is_vertebra, place))] == ["L1", "L2", "L3"]


@pytest.mark.parametrize("slant", [0.0, 0.6, -0.6])
def test_bodies_that_hang_together_all_over_are_parted_where_the_disc_is_likeliest(slant: float) -> None:
    z, y, _ = np.mgrid[0:40, 0:14, 0:14]
    along = z + slant * (y - 7)  # discs may be tilted
    is_inside = (along > 5) & (along < 34)
    is_disc = is_inside & (((along > 13) & (along < 16)) | ((along > 23) & (along < 26)))
    is_vertebra, disc = np.where(is_inside, np.where(is_disc, 0.6, 0.9), 0.0), np.where(is_disc, 0.35, 0.0)
    place = np.where(along < 14.5, LEVELS.index("L4"), np.where(along < 24.5, LEVELS.index("L3"), LEVELS.index("L2")))
    others = {"disc": disc, "rib": np.zeros(z.shape), "sacrum": np.zeros(z.shape)}
    _, bodies = labelled_bodies(is_vertebra, place.astype(float), np.full(z.shape, 0.5), spacing_mm=3.0, others=others)
    assert [body.level for body in bodies] == ["L2", "L3", "L4"]
    (whole,) = labelled_bodies(np.where(is_inside, 0.9, 0.0), place.astype(float), np.full(z.shape, 0.5), spacing_mm=3.0)[1]
    assert whole.n_voxels == is_inside.sum()


def test_a_missed_body_leaves_its_level_out() -> None:
    found = found_in(spine(["L1", "L2", "L3", "L4", "L5"], missing=("L3",)))
    assert [body.level for body in found] == ["L1", "L2", "L4", "L5"]


def test_beyond_the_ends_of_a_spine_there_is_no_level() -> None:
    levels = ["L4", "L5", "S1"]
    beyond = found_in(spine(levels, said=[LEVELS.index(level) + 1.0 for level in levels]))
    assert [body.level for body in beyond] == ["L5", "S1"]


def with_landmarks(
    levels: list[str], *, said: list[float], ribs: tuple[str, ...] = (), sacrum_of: str = "", wings_of: tuple[str, ...] = (),
    spread: float = 1.5,
) -> tuple[Body, ...]:  # fmt: skip
    """The spine amid 40 voxels, with necks of ribs beside some of its bodies, the sacrum below one, its wings beside some."""
    is_vertebra, place = (np.pad(of, ((16, 0), (14, 14), (14, 14))) for of in spine(levels, said=said))
    rib, sacrum = np.zeros_like(place), np.zeros_like(place)
    for number, level in enumerate(levels):
        top = len(place) - 2 - number * STEP
        if level in ribs:
            rib[top - 4 : top - 1, 21:24, [11, 12, 13, 26, 27, 28]] = 0.9
        if level == sacrum_of:
            sacrum[max(0, top - 16) : top - 6, 17:26, 12:28] = 0.9
        if level in wings_of:
            sacrum[top - 6 : top, 19:27, [7, 8, 9, 10, 11, 12, 26, 27, 28, 29, 30, 31]] = 0.9
    others = {"rib": rib, "sacrum": sacrum, "disc": np.zeros_like(place)}
    return labelled_bodies(is_vertebra, place, np.full_like(place, spread), spacing_mm=4.0, others=others)[1]


@pytest.mark.parametrize("wrong", [-2.0, -1.0, 1.0, 2.0])
@pytest.mark.parametrize(
    ("levels", "ribs", "sacrum_of", "counted_from"),
    [
        (["T11", "T12", "L1", "L2"], ("T11", "T12"), "", ("rib",)),
        (["T10", "T11", "T12", "L1"], ("T10", "T11", "T12"), "", ("rib",)),
        (["T10", "T11", "T12", "L1", "L2", "L3", "L4", "L5", "S1"], ("T10", "T11", "T12"), "S1", ("rib", "sacrum")),
    ],
)
def test_levels_are_counted_from_the_last_rib_where_the_network_is_not_sure_of_another(
    levels: list[str], ribs: tuple[str, ...], sacrum_of: str, counted_from: tuple[str, ...], wrong: float
) -> None:
    found = with_landmarks(levels, said=[LEVELS.index(level) + wrong for level in levels], ribs=ribs, sacrum_of=sacrum_of)
    assert [body.level for body in found] == levels
    assert {body.counted_from for body in found} == {counted_from}


def test_no_level_is_counted_further_than_six_from_a_landmark() -> None:
    levels = list(LEVELS[LEVELS.index("T3") : LEVELS.index("L2") + 1])
    ribs = tuple(level for level in levels if level.startswith("T"))
    found = with_landmarks(levels, said=[float(LEVELS.index(level)) for level in levels], ribs=ribs)
    assert [body.level for body in found] == levels[levels.index("T6") :]
    assert {body.counted_from for body in found} == {("rib",)}


def test_bodies_that_hang_together_and_what_lies_beyond_them_have_no_level() -> None:
    levels = ["T7", "T8", "T9", "T10", "T11", "T12", "L1"]
    is_vertebra, place = (np.pad(of, ((16, 0), (14, 14), (14, 14))) for of in spine(levels))
    top = len(place) - 2 - 2 * STEP
    is_vertebra[top - 6 : top, 17:23, 17:28], place[top - 6 : top, 17:23, 17:28] = 0.97, LEVELS.index("T9")  # twice as large
    rib = np.zeros_like(place)
    for number in range(6):
        high = len(place) - 2 - number * STEP
        rib[high - 4 : high - 1, 21:24, [11, 12, 13, 26, 27, 28]] = 0.9
    others = {"rib": rib, "sacrum": np.zeros_like(rib), "disc": np.zeros_like(rib)}
    bodies = labelled_bodies(is_vertebra, place, np.full_like(place, 1.5), spacing_mm=4.0, others=others)[1]
    assert [body.level for body in bodies] == ["T10", "T11", "T12", "L1"]
    is_vertebra[top - 6 : top] = 0.01  # missed
    bodies = labelled_bodies(is_vertebra, place, np.full_like(place, 1.5), spacing_mm=4.0, others=others)[1]
    assert [body.level for body in bodies] == ["T10", "T11", "T12", "L1"]


@pytest.mark.parametrize("last", ["L5", "S1"])
def test_the_sacrum_leaves_two_places_and_the_network_chooses(last: str) -> None:
    levels = list(LEVELS[LEVELS.index("L2") : LEVELS.index(last) + 1])
    for wrong in (-0.3, 0.3):
        said = [LEVELS.index(level) + wrong for level in levels]
        found = with_landmarks(levels, said=said, sacrum_of=last, spread=0.4)
        assert [body.level for body in found] == levels
        assert found[0].counted_from == ("sacrum",)
    far = with_landmarks(levels, said=[LEVELS.index(level) - 4.0 for level in levels], sacrum_of=last)
    assert far[0].counted_from == ()  # the two contradict each other: neither is believed


@pytest.mark.parametrize("below", [(), ("S2",)])
def test_the_first_body_between_wings_is_s1_whatever_the_network_says(below: tuple[str, ...]) -> None:
    levels = ["L2", "L3", "L4", "L5", "S1"]
    said = [LEVELS.index(level) - 0.9 for level in levels] + [float(LEVELS.index("S1"))] * len(below)
    found = with_landmarks([*levels, *below], said=said, sacrum_of=[*levels, *below][-1], wings_of=("S1", *below))
    assert [body.level for body in found] == levels  # S2, taken for a body, has no level
    assert found[0].counted_from == ("sacrum",)


def test_between_two_places_that_are_nearly_as_likely_no_level_is_handed_out() -> None:
    levels = ["L2", "L3", "L4", "L5"]
    found = with_landmarks(levels, said=[LEVELS.index(level) + 0.45 for level in levels], sacrum_of="L5")
    assert found[0].confidence < 0.6
    assert found[0].counted_from == ()


@pytest.mark.parametrize(("ribs", "said"), [((), 0.0), (("T10", "T11", "T12"), 0.0), (("T12",), 2.0)])
def test_ribs_on_all_on_none_or_in_between_tell_nothing(ribs: tuple[str, ...], said: float) -> None:
    levels = ["T10", "T11", "T12"]
    found = with_landmarks(levels, said=[LEVELS.index(level) + said for level in levels], ribs=ribs)
    assert {body.counted_from for body in found} == {()}


def test_a_body_that_is_cut_by_the_last_slice_or_comes_after_a_gap_is_no_proof_that_ribs_have_ended() -> None:
    levels = ["T8", "T9", "T10", "T11"]
    is_vertebra, place = (np.pad(of, ((0, 0), (14, 14), (14, 14))) for of in spine(levels))
    rib = np.zeros_like(place)
    for number in range(3):
        top = len(place) - 2 - number * STEP
        rib[top - 4 : top - 1, 21:24, [11, 12, 13, 26, 27, 28]] = 0.9
    others = {"rib": rib, "sacrum": np.zeros_like(rib), "disc": np.zeros_like(rib)}
    spread = np.full_like(place, 0.5)
    cut = 6  # slices: three of the last body are left
    seen = {kind: of[cut:] for kind, of in others.items()}
    bodies = labelled_bodies(is_vertebra[cut:], place[cut:], spread[cut:], spacing_mm=4.0, others=seen)[1]
    assert len(bodies) == 4
    assert bodies[0].counted_from == ()
    is_vertebra[STEP : 2 * STEP + 2] = 0.01  # T10 is missed
    bodies = labelled_bodies(is_vertebra, place, spread, spacing_mm=4.0, others=others)[1]
    assert bodies[0].counted_from == ()


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
