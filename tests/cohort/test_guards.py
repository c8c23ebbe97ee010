"""Event guards: what lies between image and label removes the pair; what nobody recorded is said, and never counted as 0."""

from __future__ import annotations

from datetime import date, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ospor_batch.cohort.build import build
from ospor_batch.cohort.criteria import compile_steps
from ospor_batch.cohort.guards import NOT_ASSESSED, Guard, with_guards
from ospor_batch.config import Criterion, Match
from ospor_batch.contracts.table import schema_of, whole
from ospor_batch.errors import StudyError
from tests.cohort.rows import hexed

DAY = date(2022, 6, 1)
BETWEEN = Criterion(name="no treatment between", rule="no_event_between", codes=("bone_drug", "spine_surgery"))


def events(*rows: tuple[str, str, str, int, int | None]) -> pl.DataFrame:
    """(center, person, code, start, end) with days counted from DAY."""
    made = [
        {
            "center": center, "event_key": hexed(f"event{i}"), "patient_key": hexed(person), "export": "e.csv",
            "row_number": i + 2, "code": code, "start_date": DAY + timedelta(start),
            "end_date": None if end is None else DAY + timedelta(end),
        }
        for i, (center, person, code, start, end) in enumerate(rows)
    ]  # fmt: skip
    return whole(pl.DataFrame(made, schema=schema_of("event")), "event")


def cohort_of(series, labels, question, no_overrides, *, criteria, given, centers=("north",), assessed=("north",), match=None):
    asked = question(
        steps=compile_steps(criteria), centers=centers, event_centers=assessed, match=match or Match()
    )  # fmt: skip
    images = [{"patient_key": p, "study_key": f"{p}1", "series_key": f"{p}1a", "center": c} for p, c in people(centers)]
    found = [
        {"patient_key": p, "label_key": f"L{p}", "exam_key": f"E{p}", "center": c, "label_date": DAY + timedelta(10)}
        for p, c in people(centers)
    ]
    return build(series(*images), labels(*found), question=asked, overrides=no_overrides, events=given)


def people(centers):
    return [(f"{center}{i}", center) for center in centers for i in range(3)]


def left_at(cohort, level="person", center="north"):
    rows = cohort.attrition.filter(pl.col("level") == level, pl.col("center") == center, pl.col("n_excluded") > 0)
    return dict(rows.select("reason", "n_excluded").iter_rows())


@pytest.mark.parametrize(("start", "struck"), [(-1, False), (0, True), (5, True), (10, True), (11, False)])
def test_an_event_from_the_day_of_the_image_to_that_of_the_label_removes_the_pair(  # noqa: PLR0917 -- fixtures
    series, labels, question, no_overrides, start, struck
):
    found = cohort_of(series, labels, question, no_overrides, criteria=(BETWEEN,),
                      given=events(("north", "north0", "bone_drug", start, None)))  # fmt: skip
    assert left_at(found) == ({"no_treatment_between": 1} if struck else {})
    roles = dict(found.manifest.select("patient_key", "role").iter_rows())
    assert roles[hexed("north0")] == ("image_only" if struck else "paired")  # still scored
    assert roles[hexed("north1")] == "paired"
    assert found.guard.select("status", "n_events", "n_persons", "n_struck").rows() == [("assessed", 1, 3, int(struck))]


def test_an_event_of_another_kind_or_person_does_not_strike(series, labels, question, no_overrides):
    given = events(("north", "north0", "fracture", 3, None), ("south", "south1", "bone_drug", 3, None))
    found = cohort_of(series, labels, question, no_overrides, criteria=(BETWEEN,), given=given)
    assert left_at(found) == {}


def test_an_event_that_another_center_recorded_strikes_the_same_person(series, labels, question, no_overrides):
    """One key at two centers is a crosswalk's: equal numbers of two centers have two keys."""
    given = events(("south", "north1", "bone_drug", 3, None))
    found = cohort_of(series, labels, question, no_overrides, criteria=(BETWEEN,), given=given)
    assert left_at(found) == {"no_treatment_between": 1}


def test_implants_are_a_guard_of_their_own_with_usual_codes(series, labels, question, no_overrides):
    given = events(
        ("north", "north0", "implant", -900, None), ("north", "north1", "spine_surgery", 1, None),
        ("north", "north2", "fracture", -900, None),
    )  # fmt: skip
    guard = Criterion(name="no implant", rule="no_implant")
    found = cohort_of(series, labels, question, no_overrides, criteria=(guard,), given=given, centers=("north", "south"))
    assert left_at(found) == {"no_implant": 1}
    told = found.guard.select("center", "rule", "codes", "status", "n_struck").sort("center").rows()
    codes = "cement;implant;spine_surgery"
    assert told == [("north", "no_implant", codes, "assessed", 1), ("south", "no_implant", codes, "not_assessed", None)]
    narrow = Criterion(name="no implant", rule="no_implant", codes=("cement",))
    assert left_at(cohort_of(series, labels, question, no_overrides, criteria=(narrow,), given=given)) == {}


def test_an_implant_that_a_description_names_strikes_where_no_event_was_recorded(series, labels, question, no_overrides):
    def described(*rows):
        return series(*({**row, "findings": "implant_described;tilted"} if row["center"] == "south" else row for row in rows))

    guard = Criterion(name="no implant", rule="no_implant")
    found = cohort_of(described, labels, question, no_overrides, criteria=(guard,), centers=("north", "south"), given=events())
    assert left_at(found) == {}
    assert left_at(found, center="south") == {"no_implant": 3}
    told = found.guard.select("center", "status", "n_struck", "n_described").sort("center").rows()
    assert told == [("north", "assessed", 0, 0), ("south", "not_assessed", None, 3)]
    assert set(found.struck.select("center", "criterion", "evidence").rows()) == {("south", "no implant", "finding")}
    is_silent = (pl.col("reason") == "no_implant") & (pl.col("center") == "south")
    notes = set(found.attrition.filter(is_silent)["note"])
    assert notes == {"not assessed: the center has no event table; only descriptions of series were read"}


def test_a_center_without_an_event_table_is_said_to_be_not_assessed(series, labels, question, no_overrides):
    found = cohort_of(series, labels, question, no_overrides, criteria=(BETWEEN,), centers=("north", "south"),
                      given=events(("north", "north0", "bone_drug", 3, None)))  # fmt: skip
    told = {row["center"]: row for row in found.guard.to_dicts()}
    assert told["north"]["status"] == "assessed"
    assert told["north"]["n_struck"] == 1
    assert told["south"]["status"] == "not_assessed"
    assert told["south"]["n_struck"] is None
    assert told["south"]["n_persons"] is None
    is_guard = pl.col("reason") == "no_treatment_between"
    notes = found.attrition.filter(is_guard).select("level", "center", "note").sort("level", "center").rows()
    assert notes == [(level, c, n) for level in ("label", "person") for c, n in (("north", None), ("south", NOT_ASSESSED))]
    assert found.attrition.filter(~is_guard)["note"].is_null().all()


def test_a_guard_on_the_image_takes_its_place_among_the_criteria(series, labels, question, no_overrides):
    criteria = (
        Criterion(name="no cement", rule="no_event_before_image", codes=("cement",)),
        Criterion(name="old enough", keep="age_at_image >= 50"),
    )
    happened = events(("north", "north0", "cement", -900, None), ("north", "north1", "cement", 1, None))
    found = cohort_of(series, labels, question, no_overrides, criteria=criteria, given=happened)
    assert left_at(found) == {"no_cement": 1}
    assert hexed("north0") not in found.manifest["patient_key"].to_list()
    first = dict(found.selection.select("patient_key", "first_failed").iter_rows())
    assert first == {hexed("north0"): "no cement", hexed("north1"): None, hexed("north2"): None}


@pytest.mark.parametrize(
    ("start", "end", "within", "struck"),
    [(-40, None, 30, False), (-30, None, 30, True), (-40, -30, 30, True), (-40, None, None, True), (11, None, 30, False)],
)
def test_a_guard_before_the_label_looks_back_from_its_day(  # noqa: PLR0917 -- fixtures
    series, labels, question, no_overrides, start, end, within, struck
):
    guard = Criterion(name="no contrast", rule="no_event_before_label", codes=("contrast_before_dxa",), within_days=within)
    start, end = start + 10, None if end is None else end + 10  # labels lie ten days after DAY
    found = cohort_of(series, labels, question, no_overrides, criteria=(guard,),
                      given=events(("north", "north0", "contrast_before_dxa", start, end)))  # fmt: skip
    assert left_at(found) == ({"no_contrast": 1} if struck else {})


@pytest.mark.parametrize(
    ("criterion", "says"),
    [
        ({"rule": "no_event_between"}, "needs codes"),
        ({"rule": "no_event_between", "codes": ("fractur",)}, "codes has 'fractur'"),
        ({"rule": "no_event_between", "codes": ("fracture",), "within_days": 3}, "takes no within_days"),
        ({"rule": "kvp_120", "codes": ("fracture",)}, "codes and within_days belong to the rules"),
        ({"rule": "no_event_betwen"}, "nearest allowed is 'no_event_between'"),
    ],
)
def test_a_guard_that_cannot_be_is_named(criterion, says):
    with pytest.raises(StudyError, match=says):
        compile_steps([Criterion(name="guard", **criterion)])


days = st.integers(0, 15)


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.tuples(st.sampled_from("AB"), days, days), max_size=6),
    st.lists(st.tuples(st.sampled_from("AB"), days, st.one_of(st.none(), days)), max_size=5),
    st.sampled_from(["no_event_between", "no_event_before_image", "no_event_before_label"]),
    st.one_of(st.none(), st.integers(0, 6)),
)
def test_the_guard_equals_loops_over_events(pairs, happened, rule, within):
    rows = pl.DataFrame(
        [("north", p, DAY + timedelta(i), DAY + timedelta(n)) for p, i, n in pairs],
        schema={"center": pl.String, "patient_key": pl.String, "image_date": pl.Date, "label_date": pl.Date}, orient="row",
    )  # fmt: skip
    lasting = [(p, s, s if e is None else max(s, e)) for p, s, e in happened]
    of = pl.DataFrame(
        [("north", p, "fracture", DAY + timedelta(s), DAY + timedelta(e)) for p, s, e in lasting],
        schema={"center": pl.String, "patient_key": pl.String, "code": pl.String, "start_date": pl.Date, "end_date": pl.Date},
        orient="row",
    )
    guard = Guard("g", rule, ("fracture",), within if rule != "no_event_between" else None)

    def strikes(image: int, label: int, start: int, end: int) -> bool:
        if rule == "no_event_between":
            return min(image, label) <= start <= max(image, label)
        day = image if rule == "no_event_before_image" else label
        return start <= day and (guard.within_days is None or day - end <= guard.within_days)

    expected = [any(q == p and strikes(i, n, s, e) for q, s, e in lasting) for p, i, n in pairs]
    assert with_guards(rows, [guard], events=of, assessed=("north",))[guard.column].to_list() == expected
    assert with_guards(rows, [guard], events=of, assessed=())[guard.column].null_count() == len(pairs)
