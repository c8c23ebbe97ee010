"""From catalog rows to a cohort: who enters, with which label, and where everybody else left."""

from __future__ import annotations

import hashlib
from datetime import date, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ospor_batch.cohort.attrition import check_closed
from ospor_batch.cohort.build import Question, build
from ospor_batch.cohort.criteria import compile_steps
from ospor_batch.cohort.manifest import with_partition
from ospor_batch.cohort.split import assign
from ospor_batch.config import Criterion, Match, Split
from ospor_batch.contracts.table import whole
from tests.cohort.rows import GOOD_LABEL, GOOD_SERIES, completed, hexed

DAY = date(2022, 6, 1)


def steps_of(cohort, level, center="north"):
    """{(step, reason): (n_in, n_excluded, n_out)} of the steps where anybody left."""
    rows = cohort.attrition.filter(pl.col("level") == level, pl.col("center") == center).to_dicts()
    return {r["reason"]: (r["n_in"], r["n_excluded"], r["n_out"]) for r in rows if r["n_excluded"]}


def last_out(cohort, level, center="north"):
    return cohort.attrition.filter(pl.col("level") == level, pl.col("center") == center).sort("step_number")["n_out"][-1]


def manifest_of(cohort, **split):
    return whole(with_partition(cohort.manifest, assign(cohort.index, split=Split(**split))), "manifest")


@pytest.fixture
def people(series, labels):
    """A: paired; B: image only, label too late; C: never labelled; D: scout only; one series of nobody known."""
    found = series(
        {"patient_key": "A", "study_key": "A1", "series_key": "A1a"},
        {"patient_key": "A", "study_key": "A1", "series_key": "A1b", "slice_thickness_mm": 5.0},
        {"patient_key": "A", "study_key": "A2", "series_key": "A2a", "image_date": DAY - timedelta(400)},
        {"patient_key": "B", "study_key": "B1", "series_key": "B1a"},
        {"patient_key": "C", "study_key": "C1", "series_key": "C1a", "sex": "unknown"},
        {"patient_key": "D", "study_key": "D1", "series_key": "D1a", "is_localizer": True},
        {"patient_key": None, "study_key": "X1", "series_key": "X1a"},
    )
    drawn = labels(
        {"patient_key": "A", "label_key": "LA1", "label_date": DAY + timedelta(30)},
        {"patient_key": "A", "label_key": "LA2", "label_date": DAY + timedelta(60)},
        {"patient_key": "B", "label_key": "LB", "label_date": DAY + timedelta(181)},
        {"patient_key": "E", "label_key": "LE"},
    )
    return found, drawn


@pytest.fixture
def built(question, no_overrides):
    return lambda rows, drawn, **more: build(rows, drawn, question=question(**more), overrides=no_overrides)


@pytest.fixture
def cohort(people, built):
    return built(*people)


def test_everyone_eligible_enters_the_manifest_once_for_each_index(cohort):
    rows = manifest_of(cohort)
    told = {
        r["series_key"]: (r["role"], r["is_performance_index"], r["is_prevalence_index"], r["gap_days"])
        for r in rows.to_dicts()
    }
    assert told == {
        hexed("A1a"): ("paired", True, False, 30),
        hexed("A2a"): ("paired", False, True, None),
        hexed("B1a"): ("image_only", False, True, None),
        hexed("C1a"): ("image_only", False, True, None),
    }


def test_label_columns_stand_on_the_performance_index_alone(cohort):
    rows = manifest_of(cohort)
    index, others = rows.filter("is_performance_index"), rows.filter(~pl.col("is_performance_index"))
    of_label = ["label_key", "category", "is_osteoporosis", "label_value", "label_value_unit", "is_same_acquisition"]
    assert index.select(of_label).null_count().sum_horizontal().item() == 0
    assert others.select(of_label).null_count().sum_horizontal().item() == others.height * len(of_label)
    assert set(others.select("densitometer_vendor", "t_source", "t_reference").unpivot()["value"]) == {"unverified"}


@pytest.mark.parametrize(
    ("findings", "declared", "told"),
    [
        ("", "unknown", (None, None)),
        ("phantom_described;tilted", "absent", (True, "description")),
        ("phantom_denied", "in_view", (False, "description")),
        ("", "in_view", (True, "center")),
        ("", "absent", (False, "center")),
        ("cropped_field_of_view", "in_view", (None, None)),
        ("cropped_field_of_view", "absent", (False, "center")),
    ],
)
def test_a_phantom_is_in_view_where_a_description_or_the_center_says_so(request, findings, declared, told):
    series, labels, built = (request.getfixturevalue(name) for name in ("series", "labels", "built"))
    row = series({"patient_key": "A", "series_key": "A1", "findings": findings})
    cohort = built(row, labels(), phantoms={"north": declared})
    assert manifest_of(cohort).select("is_phantom_in_view", "phantom_source").rows() == [told]


def test_item_digest_is_that_of_series_and_mask(cohort):
    row = manifest_of(cohort).row(0, named=True)
    expected = hashlib.sha256(f"{row['series_digest']}|{row['mask_digest'] or ''}".encode()).hexdigest()[:32]
    assert row["item_digest"] == expected


def test_every_exclusion_is_counted_at_its_step(cohort):
    check_closed(cohort.attrition)
    assert steps_of(cohort, "series") == {
        "patient_number_missing": (7, 1, 6),
        "localizer": (6, 1, 5),
        "outranked": (5, 1, 4),
    }
    assert steps_of(cohort, "study") == {"patient_number_missing": (6, 1, 5), "localizer": (5, 1, 4)}
    assert steps_of(cohort, "person") == {
        "localizer": (4, 1, 3),
        "no_label": (3, 1, 2),
        "label_outside_window": (2, 1, 1),
    }
    assert steps_of(cohort, "label") == {
        "no_eligible_image": (4, 1, 3),
        "label_outside_window": (3, 1, 2),
        "not_the_match": (2, 1, 1),
    }


def test_a_series_that_is_index_of_nothing_is_counted(series, labels, built):
    days = [0, 10, 20]
    rows = series(
        *({"patient_key": "A", "study_key": f"S{d}", "series_key": f"s{d}", "image_date": DAY + timedelta(d)} for d in days)
    )
    drawn = labels({"patient_key": "A", "label_key": "L", "label_date": DAY + timedelta(20)})
    cohort = built(rows, drawn)
    assert steps_of(cohort, "series") == {"not_index": (3, 1, 2)}
    assert cohort.candidate.height == 3
    every = built(rows, drawn, match=Match(index_series="all"))
    assert manifest_of(every).height == 3
    assert last_out(every, "person") == 1


def test_selection_holds_the_fate_of_every_series(people, cohort):
    assert cohort.selection.height == people[0].height
    assert dict(cohort.selection["fate"].value_counts().iter_rows()) == {"chosen": 4, "outranked": 1, "excluded": 2}
    assert whole(cohort.selection, "selection").height == people[0].height
    assert whole(cohort.candidate, "candidate").select("lost_by").to_series().to_list().count(None) == 1


def test_label_criteria_and_label_dates_make_people_image_only_and_say_so(people, built):
    young = Criterion(name="label after image", keep="gap_days < 0")
    cohort = built(*people, steps=compile_steps((young,)))
    assert steps_of(cohort, "person") == {"localizer": (4, 1, 3), "no_label": (3, 1, 2), "label_after_image": (2, 2, 0)}
    dated = built(*people, label_dates=(DAY, DAY + timedelta(100)))
    assert steps_of(dated, "person")["outside_label_dates"] == (2, 1, 1)
    assert steps_of(dated, "label")["outside_label_dates"] == (3, 1, 2)
    for each in (cohort, dated):
        check_closed(each.attrition)
        assert manifest_of(each)["patient_key"].n_unique() == 3


def test_an_unknown_value_in_a_label_criterion_is_its_own_step(series, labels, built):
    young = Criterion(name="under 90", keep="age_at_label < 90")
    rows = series({"patient_key": "A", "study_key": "S", "series_key": "s"})
    drawn = labels({"patient_key": "A", "label_key": "L", "age_at_label": None})
    cohort = built(rows, drawn, steps=compile_steps((young,)))
    assert steps_of(cohort, "person") == {"under_90_unknown": (1, 1, 0)}


def test_centers_without_rows_have_the_same_steps_with_zeros(people, built):
    cohort = built(*people, centers=("empty", "north"))
    check_closed(cohort.attrition)
    counted = cohort.attrition.group_by("center").agg(pl.len(), pl.col("n_in").sum()).sort("center")
    assert counted["len"].n_unique() == 1
    assert counted.filter(pl.col("center") == "empty")["n_in"].item() == 0
    assert cohort.linkage.filter(pl.col("center") == "empty")["month"].to_list() == ["all"]


@pytest.mark.parametrize(
    "case",
    [
        ({"accession_number": "7"}, {"exam_accession_number": " 7"}, True),
        ({"accession_number": "7"}, {"exam_accession_number": "8", "standard": "qct"}, False),
        ({"accession_number": None}, {"exam_accession_number": "8", "standard": "qct"}, True),
        ({}, {"standard": "qct"}, True),
        ({}, {"standard": "qct", "label_date": DAY + timedelta(1)}, False),
        ({}, {}, False),
    ],
)
def test_same_acquisition_by_accession_number_else_qct_of_the_day(series, labels, built, case):
    of_series, of_label, same = case
    if of_label.get("standard") == "qct":
        of_label = {"label_site": None, "label_value": 70.0, "label_value_unit": "mg/cm3", **of_label}
    rows = series({"patient_key": "A", "study_key": "S", "series_key": "s", **of_series})
    drawn = labels({"patient_key": "A", "label_key": "L", "label_date": DAY, **of_label})
    cohort = built(rows, drawn)
    assert cohort.manifest["is_same_acquisition"].to_list() == [same]


@pytest.mark.parametrize(
    "case",
    [("male", "female", "male"), ("unknown", "female", "female"), ("unknown", "unknown", "unknown")],
)
def test_sex_is_that_of_the_header_else_of_the_export(series, labels, built, case):
    header, exported, sex = case
    rows = series({"patient_key": "A", "study_key": "S", "series_key": "s", "sex": header})
    drawn = labels({"patient_key": "A", "label_key": "L", "sex": exported, "label_date": DAY + timedelta(999)})
    assert built(rows, drawn).manifest["sex"].to_list() == [sex]


@pytest.mark.parametrize(
    ("age", "band"),
    [(60.0, "60-69"), (69.9, "60-69"), (89.99, "80-89"), (90.0, "90+"), (104.0, "90+"), (None, "unknown"), (7.0, "0-9")],
)
def test_age_bands_and_periods(series, labels, built, age, band):
    rows = series({"patient_key": "A", "age_at_image": age, "image_date": date(2022, 7, 1)})
    row = built(rows, labels()).manifest.row(0, named=True)
    assert (row["age_band"], row["period"], row["window_days"]) == (band, "2022Q3", "from -180 to +180")


def test_linkage_warns_where_few_of_the_labelled_are_imaged(people, built):
    cohort = built(*people, linkage_warning_below=0.9)
    total = whole(cohort.linkage, "linkage").filter(pl.col("month") == "all").row(0, named=True)
    counts = [total[c] for c in ("n_imaged", "n_labelled", "n_both", "n_label_only", "n_in_window")]
    assert counts == [3, 3, 2, 1, 1]
    assert total["linked_fraction"] == pytest.approx(2 / 3)
    assert "fewer than 90%" in total["warning"]
    months = {r["month"]: (r["n_imaged"], r["n_labelled"], r["n_both"], r["warning"]) for r in cohort.linkage.to_dicts()}
    assert months["2021-04"] == (1, 0, 0, None)
    assert months["2022-07"] == (0, 1, 1, None)
    assert built(*people).linkage["warning"].null_count() == cohort.linkage.height


def test_a_shift_of_dates_on_one_side_is_suspected_from_a_gap_that_many_share(series, labels, built):
    """Methods M2: images and labels that were shifted apart match nobody and look like people without labels."""
    people = [f"P{i}" for i in range(12)]
    images = series(*({"patient_key": p, "study_key": f"{p}1", "series_key": f"{p}1a"} for p in people))
    gaps = [400, 402, 404, 398, 401, 5, 9, -3, 0, 12, -900, 700]
    drawn = labels(
        *(
            {"patient_key": p, "label_key": f"L{p}", "label_date": DAY + timedelta(gap)}
            for p, gap in zip(people, gaps, strict=True)
        )
    )
    total = built(images, drawn).linkage.filter(pl.col("month") == "all")["warning"].to_list()
    assert total[0].startswith("42% of those with both have their nearest label about 401 days from the image")
    scattered = labels(
        *({"patient_key": p, "label_key": f"L{p}", "label_date": DAY + timedelta(200 + 40 * i)} for i, p in enumerate(people))
    )
    assert built(images, scattered).linkage["warning"].null_count() == built(images, scattered).linkage.height
    few = built(images.head(6), drawn.head(6)).linkage
    assert few["warning"].null_count() == few.height


def test_the_window_table_holds_the_declared_window_and_each_other(cohort):
    rows = whole(cohort.window, "window")
    assert rows.select("before_days", "is_declared", "n_persons").rows() == [
        (30, False, 1),
        (90, False, 1),
        (180, True, 1),
        (365, False, 2),
    ]


def test_an_empty_catalog_gives_empty_tables_that_keep_their_contracts(series, labels, built):
    cohort = built(series(), labels())
    check_closed(cohort.attrition)
    assert manifest_of(cohort).height == 0
    for name in ("selection", "candidate", "linkage", "window", "attrition"):
        whole(getattr(cohort, name), name)


a_series = st.fixed_dictionaries(
    {
        "center": st.sampled_from(["north", "south"]),
        "patient": st.sampled_from([None, "A", "B", "C"]),
        "study": st.sampled_from(["1", "2"]),
        "modality": st.sampled_from(["CT", "CT", "CT", "MR"]),
        "is_localizer": st.booleans(),
        "age_at_image": st.sampled_from([None, 40.0, 60.0, 70.0]),
        "day": st.integers(0, 20),
    }
)
a_label = st.fixed_dictionaries(
    {
        "center": st.sampled_from(["north", "south"]),
        "patient": st.sampled_from(["A", "B", "D"]),
        "day": st.integers(0, 20),
        "age_at_label": st.sampled_from([None, 40.0, 60.0]),
    }
)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(a_series, max_size=14),
    st.lists(a_label, max_size=8),
    st.sampled_from(["nearest", "first", "last", "random", "all"]),
    st.sampled_from(["first", "random"]),
    st.integers(0, 10),
)
def test_the_flow_closes_and_counts_nobody_twice(series_rows, label_rows, policy, blind, days):
    found, drawn = frames(series_rows, label_rows)
    criteria = (Criterion(name="old", keep="age_at_image >= 50"), Criterion(name="old label", keep="age_at_label >= 50"))
    asked = Question(
        recipe="mean_hu", reference_id="dxa", steps=compile_steps(criteria), centers=("north", "south"), target="osteoporosis",
        match=Match(before_days=days, after_days=days, index_series=policy, prevalence_index=blind),
        label_dates=(DAY, DAY + timedelta(18)), linkage_warning_below=0.5, seed=1, key=b"k",
    )  # fmt: skip
    nothing = pl.DataFrame(schema={"study_key": pl.String, "series_key": pl.String})
    cohort = build(found, drawn, question=asked, overrides=nothing)
    check_closed(cohort.attrition)
    for name in ("selection", "candidate", "linkage", "window", "attrition"):
        whole(getattr(cohort, name), name)
    rows = manifest_of(cohort)
    paired = rows.filter(pl.col("role") == "paired")
    for center in ("north", "south"):
        known = found.filter(pl.col("center") == center, pl.col("patient_key").is_not_null())["patient_key"].n_unique()
        people = cohort.attrition.filter(pl.col("level") == "person", pl.col("center") == center).sort("step_number")
        assert people["n_in"][0] == known
        assert people["n_out"][-1] == paired.filter(pl.col("center") == center)["patient_key"].n_unique()
        eligible = people.filter(pl.col("reason") == "no_label")["n_in"].item()
        assert eligible == rows.filter(pl.col("center") == center)["patient_key"].n_unique()
        assert last_out(cohort, "series", center) == rows.filter(pl.col("center") == center).height
    assert rows.filter("is_prevalence_index").height == rows["patient_key"].n_unique()
    assert (
        build(found.reverse(), drawn.reverse(), question=asked, overrides=nothing)
        .manifest.sort("series_key")
        .equals(cohort.manifest.sort("series_key"))
    )


def frames(series_rows, label_rows):
    """A person of a center is that center's own; positions in the split follow the person."""
    found = []
    for k, r in enumerate(series_rows):
        person = None if r["patient"] is None else f"{r['center']}{r['patient']}"
        more = {c: r[c] for c in ("center", "modality", "is_localizer", "age_at_image")}
        keys = {"patient_key": person, "study_key": f"{person}{r['center']}{r['study']}", "series_key": f"s{k}"}
        found.append({**more, **keys, "image_date": DAY + timedelta(r["day"])})
    drawn = [
        {
            "center": r["center"], "patient_key": f"{r['center']}{r['patient']}", "label_key": f"l{k}", "exam_key": f"e{k}",
            "label_date": DAY + timedelta(r["day"]), "age_at_label": r["age_at_label"],
        }
        for k, r in enumerate(label_rows)
    ]  # fmt: skip
    labels = completed("label", drawn, GOOD_LABEL).with_columns(exam_accession_number=pl.lit(None, pl.String))
    return completed("series", found, GOOD_SERIES), labels
