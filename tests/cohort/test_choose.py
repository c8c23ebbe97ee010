"""Which series stands for a study, and does its reason say why?"""

from __future__ import annotations

import polars as pl
import pytest

from ospor_batch.cohort.choose import check_overrides, choose, selection
from ospor_batch.cohort.criteria import compile_steps, judge
from ospor_batch.errors import StudyError
from tests.cohort.rows import hexed


def of(*names: str) -> list[str | None]:
    return [hexed(name) for name in names]


def one_study(series, *changes):
    return series(*({"patient_key": "A", "study_key": "S", "series_key": f"s{i}", **c} for i, c in enumerate(changes)))


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ({"grade": "usable"}, {"grade": "doubtful", "grade_reason": "x", "mask_kind": "nifti"}),
        ({"mask_kind": "nifti", "slice_thickness_mm": 5.0, "kernel_class": "sharp"}, {}),
        ({"slice_thickness_mm": 1.0}, {"slice_thickness_mm": 3.0}),
        ({"kernel_class": "standard"}, {"kernel_class": "sharp"}),
        ({"extent_mm": 350.0}, {"extent_mm": 150.0}),
        ({"findings": ""}, {"findings": "uneven_gaps;tilted"}),
    ],
)
def test_each_part_of_the_score_decides_alone(series, no_overrides, better, worse):
    for changes in ((better, worse), (worse, better)):
        rows = one_study(series, *changes)
        first = choose(rows, overrides=no_overrides).filter(pl.col("choice_rank") == 1)
        assert first["series_key"].to_list() == of(f"s{changes.index(better)}")


def test_slices_thinner_than_enough_gain_nothing_and_ties_go_to_the_first_key(series, no_overrides):
    rows = one_study(series, {"slice_thickness_mm": 1.0}, {"slice_thickness_mm": 0.5})
    ranked = choose(rows, overrides=no_overrides).sort("choice_rank")
    assert ranked["score"].n_unique() == 1
    assert ranked["series_key"].to_list() == sorted(ranked["series_key"])


def test_the_reason_shows_parts_that_add_up_to_the_score(series, no_overrides):
    ranked = choose(one_study(series, {"slice_thickness_mm": 2.3, "extent_mm": 123.0}), overrides=no_overrides)
    parts = ranked["choice_reason"][0].split(" + ")
    assert [part.rsplit(" ", 1)[0] for part in parts] == ["usable", "mask", "thin slices", "kernel", "coverage", "clean"]
    assert sum(float(part.rsplit(" ", 1)[1]) for part in parts) == pytest.approx(ranked["score"][0])


def test_unknown_thickness_and_extent_score_nothing_and_break_nothing(series, no_overrides):
    rows = one_study(series, {"slice_thickness_mm": None, "extent_mm": None})
    assert choose(rows, overrides=no_overrides)["score"].to_list() == [20.0 + 2.0 + 1.0]


def test_one_series_of_every_study_and_person_is_chosen(series, no_overrides):
    rows = series(
        {"patient_key": "A", "study_key": "S", "series_key": "1"},
        {"patient_key": "A", "study_key": "T", "series_key": "2"},
        {"patient_key": "B", "study_key": "S", "series_key": "3"},  # a study instance used for two people
    )
    assert choose(rows, overrides=no_overrides)["choice_rank"].to_list() == [1, 1, 1]


def test_an_override_is_honoured_and_recorded(series):
    rows = one_study(series, {}, {"grade": "doubtful", "grade_reason": "x"})
    overrides = pl.DataFrame({"study_key": of("S"), "series_key": of("s1")})
    check_overrides(overrides, rows)
    first = choose(rows, overrides=overrides).filter(pl.col("choice_rank") == 1)
    assert first["series_key"].to_list() == of("s1")
    assert first["choice_reason"][0].startswith("override; usable 0.0")


def test_an_override_that_a_criterion_bars_is_said_so(series):
    rows = one_study(series, {}, {"modality": "MR"})
    overrides = pl.DataFrame({"study_key": of("S"), "series_key": of("s1")})
    judged = judge(rows, compile_steps(()).series)
    ranked = choose(judged.filter(pl.col("first_failed").is_null()), overrides=overrides)
    fates = {
        r["series_key"]: (r["fate"], r["choice_reason"]) for r in selection(judged, ranked, overrides=overrides).to_dicts()
    }
    assert fates[hexed("s0")][0] == "chosen"
    assert fates[hexed("s1")] == ("excluded", "override not honoured: failed CT")


def test_overrides_that_cannot_be_are_refused(series):
    rows = one_study(series, {}, {})
    with pytest.raises(StudyError, match="1 rows name a series that its study does not have"):
        check_overrides(pl.DataFrame({"study_key": of("S"), "series_key": of("other")}), rows)
    with pytest.raises(StudyError, match="stands more than once"):
        check_overrides(pl.DataFrame({"study_key": of("S", "S"), "series_key": of("s0", "s1")}), rows)
