"""What a study may ask of a cohort: accessions, people of two centers, labels, criteria."""

from __future__ import annotations

from datetime import date, timedelta

import polars as pl

from ospor_batch.cohort.attrition import check_closed
from ospor_batch.cohort.build import build
from ospor_batch.cohort.criteria import compile_steps
from ospor_batch.config import Criterion, Match
from ospor_batch.contracts.table import whole
from tests.cohort.rows import hexed

DAY = date(2022, 6, 1)
from tests.cohort.test_build import last_out, manifest_of, steps_of


def test_labels_of_another_accession_are_left_out_where_the_study_asks_for_it(series, labels, question, no_overrides):
    images = series(
        {"patient_key": "A", "study_key": "A1", "series_key": "A1a", "accession_number": "7"},
        {"patient_key": "B", "study_key": "B1", "series_key": "B1a", "accession_number": "8"},
        {"patient_key": "C", "study_key": "C1", "series_key": "C1a"},
    )
    given = labels(
        {"patient_key": "A", "label_key": "L1", "exam_key": "E1", "exam_accession_number": " 7"},
        {"patient_key": "B", "label_key": "L2", "exam_key": "E2", "exam_accession_number": "9"},
        {"patient_key": "C", "label_key": "L3", "exam_key": "E3", "exam_accession_number": "9"},
    )
    found = build(images, given, question=question(match=Match(linkage="accession")), overrides=no_overrides)
    assert steps_of(found, "person") == {"other_accession": (3, 1, 2), "accession_unknown": (2, 1, 1)}
    assert found.candidate["patient_key"].to_list() == [hexed("A")]
    patients = build(images, given, question=question(), overrides=no_overrides)
    assert patients.candidate.height == 3


def test_a_person_of_two_centers_is_counted_at_one_and_stands_in_one_partition(series, labels, question, no_overrides):
    images = series(
        {"center": "south", "patient_key": "A", "study_key": "A1", "series_key": "A1a", "image_date": DAY},
        {"center": "north", "patient_key": "A", "study_key": "A2", "series_key": "A2a", "image_date": DAY + timedelta(3)},
        {"center": "north", "patient_key": "B", "study_key": "B1", "series_key": "B1a"},
    )
    asked = question(centers=("north", "south"))
    found = build(images, labels({"patient_key": "B", "label_key": "LB", "exam_key": "EB"}), question=asked,
                  overrides=no_overrides)  # fmt: skip
    check_closed(found.attrition)
    assert steps_of(found, "series") == {"counted_at_other_center": (2, 1, 1)}
    rows = manifest_of(found, train=1.0, internal_test=0.0)
    assert rows.select("center", "patient_key").rows() == sorted(
        [("north", hexed("B")), ("south", hexed("A"))], key=lambda r: r[1]
    )
    external = manifest_of(found, train=1.0, internal_test=0.0, external={"center": ("south",)})
    assert dict(external.select("center", "partition").iter_rows()) == {"north": "train", "south": "external"}


def test_a_label_of_another_center_is_matched_and_said_where_a_crosswalk_joins_the_person(
    series, labels, question, no_overrides
):
    images = series({"center": "north", "patient_key": "A", "study_key": "A1", "series_key": "A1a", "sex": "unknown"})
    measured = labels({"center": "south", "patient_key": "A", "label_key": "LA"})
    events = pl.DataFrame(schema={"study_key": pl.String, "series_key": pl.String})
    found = build(images, measured, question=question(centers=("north", "south")), overrides=events)
    check_closed(found.attrition)
    assert whole(found.candidate, "candidate").select("center", "label_center", "is_match").rows() == [("north", "south", True)]
    assert found.manifest.select("center", "role", "sex").rows() == [("north", "paired", "female")]
    assert last_out(found, "person", "north") == 1
    assert last_out(found, "label", "south") == 1
    total = {r["center"]: r for r in whole(found.linkage, "linkage").filter(pl.col("month") == "all").to_dicts()}
    assert [total["south"][c] for c in ("n_imaged", "n_labelled", "n_both", "n_imaged_elsewhere", "n_in_window")] == [
        0,
        1,
        1,
        1,
        1,
    ]
    assert total["south"]["linked_fraction"] == 1
    own = compile_steps((Criterion(name="measured here", keep="label_center = center"),))
    alone = build(images, measured, question=question(centers=("north", "south"), steps=own), overrides=no_overrides)
    assert steps_of(alone, "person", "north") == {"measured_here": (1, 1, 0)}
    assert steps_of(alone, "label", "south") == {"measured_here": (1, 1, 0)}


def test_a_study_may_ask_for_people_with_a_label_alone(series, labels, question, no_overrides):
    images = series(
        *({"patient_key": p, "study_key": f"{p}1", "series_key": f"{p}1a"} for p in "ABC"),
        {"patient_key": "A", "study_key": "A2", "series_key": "A2a", "image_date": DAY - timedelta(400)},
    )
    drawn = labels(
        {"patient_key": "A", "label_key": "LA"}, {"patient_key": "B", "label_key": "LB", "label_date": DAY + timedelta(181)}
    )
    steps = compile_steps((Criterion(name="has a label", rule="label_present"),))
    found = build(images, drawn, question=question(steps=steps), overrides=no_overrides)
    assert steps_of(found, "person") == {"has_a_label": (3, 2, 1)}
    assert steps_of(found, "series") == {"has_a_label": (4, 3, 1)}
    assert found.manifest["role"].to_list() == ["paired"]
    dated = question(steps=steps, label_dates=(DAY + timedelta(100), DAY + timedelta(300)))
    assert build(images, drawn, question=dated, overrides=no_overrides).manifest.height == 0


def test_a_label_for_one_series_only_leaves_the_others_out(series, labels, question, no_overrides):
    days = [0, 10, 20]
    images = series(
        *({"patient_key": "A", "study_key": f"S{d}", "series_key": f"s{d}", "image_date": DAY + timedelta(d)} for d in days)
    )
    drawn = labels({"patient_key": "A", "label_key": "L", "label_date": DAY + timedelta(9)})
    made = {reuse: build(images, drawn, question=question(match=Match(index_series="all", label_reuse=reuse)),
                         overrides=no_overrides) for reuse in ("allow", "forbid")}  # fmt: skip
    assert made["allow"].manifest["is_performance_index"].sum() == 3
    once = made["forbid"]
    assert once.manifest.filter("is_performance_index")["series_key"].to_list() == [hexed("s10")]
    assert sorted(whole(once.candidate, "candidate")["lost_by"].drop_nulls()) == ["label_taken", "label_taken"]
    assert steps_of(once, "series") == {"not_index": (3, 1, 2)}  # s0 is the label-blind index
    check_closed(once.attrition)


def test_a_criterion_may_name_the_quarter_and_a_kernel(series, labels, question, no_overrides):
    images = series(
        {"patient_key": "A", "study_key": "A1", "series_key": "A1a", "kernel_class": "sharp"},
        {"patient_key": "B", "study_key": "B1", "series_key": "B1a", "image_date": date(2021, 12, 31)},
        {"patient_key": "C", "study_key": "C1", "series_key": "C1a", "kernel_class": "unknown"},
        {"patient_key": "D", "study_key": "D1", "series_key": "D1a"},
    )
    steps = compile_steps([
        Criterion(name="in 2022", keep="period >= '2022Q1'"),
        Criterion(name="kernel", rule="soft_or_standard_kernel"),
    ])  # fmt: skip
    found = build(images, labels(), question=question(steps=steps), overrides=no_overrides)
    assert steps_of(found, "series") == {"in_2022": (4, 1, 3), "kernel": (3, 1, 2), "kernel_unknown": (2, 1, 1)}


def test_a_unit_leaves_at_the_step_that_removes_the_last_of_its_rows_and_the_flow_counts_just_that(
    series, labels, question, no_overrides
):
    images = series(
        {"patient_key": "A", "study_key": "A1", "series_key": "A1a", "is_localizer": True},
        {"patient_key": "A", "study_key": "A1", "series_key": "A1b", "grade": "unusable", "grade_reason": "color"},
        {"patient_key": "B", "study_key": "B1", "series_key": "B1a", "modality": "MR"},
        {"patient_key": "C", "study_key": "C1", "series_key": "C1a"},
    )
    found = build(images, labels({"patient_key": "C", "label_key": "LC", "exam_key": "EC"}), question=question(),
                  overrides=no_overrides)  # fmt: skip
    reason = dict(found.attrition.filter(pl.col("level") == "study").select("step_number", "reason").iter_rows())
    studies = found.fate.filter(pl.col("level") == "study").select("item_key", "step_number").rows()
    assert {key: reason.get(at) for key, at in studies} == {
        hexed("A1"): "unusable_stack", hexed("B1"): "not_ct", hexed("C1"): None,
    }  # fmt: skip
    left = found.fate.group_by("level", "center", "step_number").agg(n=pl.len())
    counted = found.attrition.join(left, on=["level", "center", "step_number"], how="left")
    assert (counted["n"].fill_null(0) == counted["n_excluded"]).all()
