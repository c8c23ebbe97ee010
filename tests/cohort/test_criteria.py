"""Given series, which step does each leave at, and what does a bad criterion say?"""

from __future__ import annotations

from datetime import date

import polars as pl
import pytest

from ospor_batch.cohort.criteria import CT_BASE, RULES, compile_steps, judge
from ospor_batch.config import Criterion
from ospor_batch.errors import StudyError

OLD = Criterion(name="age 50 or older", keep="age_at_image >= 50")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"patient_key": None}, "patient_number_missing"),
        ({"sop_class": "secondary_capture"}, "not_an_image"),
        ({"is_secondary": True}, "not_an_image"),
        ({"is_dose_report": True}, "not_an_image"),
        ({"modality": "DX"}, "not_ct"),
        ({"is_identity_collision": True}, "identity_collision"),
        ({"is_human": False}, "not_human"),
        ({"is_localizer": True}, "localizer"),
        ({"is_derived": True}, "derived_or_not_axial"),
        ({"orientation": "coronal"}, "derived_or_not_axial"),
        ({"image_date": None, "image_date_source": "none"}, "image_date_missing"),
        ({"grade": "unusable", "grade_reason": "no_positions"}, "unusable_stack"),
    ],
)
def test_every_base_step_removes_what_it_names(series, change, reason):
    rows = series({"series_key": "bad", "patient_key": "A", **change}, {"series_key": "good", "patient_key": "B"})
    steps = compile_steps(()).series
    judged = judge(rows, steps)
    left = judged.filter(pl.col("first_failed").is_not_null())
    assert left.height == 1
    assert [s.reason for s in steps if s.name == left["first_failed"][0]] == [reason]


def test_the_first_failed_step_and_all_failed_steps_are_kept_in_order(series):
    rows = series({"patient_key": "A", "modality": "MR", "is_localizer": True, "age_at_image": 30.0})
    judged = judge(rows, compile_steps((OLD,)).series)
    assert judged["first_failed"].to_list() == ["CT"]
    assert judged["all_failed"].to_list() == ["CT;no localizer;age 50 or older"]
    assert judged["leaves_at"].to_list() == [4]


def test_a_series_that_passes_has_no_failed_step(series):
    judged = judge(series({"patient_key": "A"}), compile_steps((OLD,)).series)
    assert judged.select("first_failed", "all_failed", "leaves_at").row(0) == (None, "", len(CT_BASE) + 3)


def test_null_is_a_step_of_its_own_right_after_its_criterion(series):
    steps = compile_steps((OLD, Criterion(name="plain", rule="unenhanced"))).series
    names = [(s.name, s.reason) for s in steps[len(CT_BASE) :]]
    assert names == [
        ("age 50 or older", "age_50_or_older"),
        ("age 50 or older: unknown", "age_50_or_older_unknown"),
        ("plain", "plain"),
        ("plain: unknown", "plain_unknown"),
    ]
    judged = judge(series({"patient_key": "A", "age_at_image": None, "age_source": "none"}), steps)
    assert judged["first_failed"].to_list() == ["age 50 or older: unknown"]


def test_image_dates_bound_the_study_period_inclusively(series):
    days = [date(2021, 12, 31), date(2022, 1, 1), date(2022, 12, 31), date(2023, 1, 1)]
    rows = series(*({"series_key": str(day), "patient_key": "A", "image_date": day} for day in days))
    judged = judge(rows, compile_steps((), image_dates=(date(2022, 1, 1), date(2022, 12, 31))).series)
    outside = judged.filter(pl.col("first_failed") == "image date in the study period").sort("image_date")
    assert outside["image_date"].to_list() == [days[0], days[-1]]


@pytest.mark.parametrize(
    ("rule", "kept", "unknown"),
    [
        ("unenhanced", {"declared_plain", "tag_absent"}, {"tag_empty"}),
        ("unenhanced_declared_only", {"declared_plain"}, {"tag_absent", "tag_empty"}),
    ],
)
def test_contrast_rules_part_plain_given_and_unknown(series, rule, kept, unknown):
    evidence = ["given", "declared_plain", "tag_absent", "tag_empty", "conflicting"]
    rows = series(*({"series_key": kind, "patient_key": "A", "contrast_evidence": kind} for kind in evidence))
    judged = judge(rows, compile_steps((Criterion(name="plain", rule=rule),)).series)
    assert set(judged.filter(pl.col("first_failed").is_null())["contrast_evidence"]) == kept
    assert set(judged.filter(pl.col("first_failed") == "plain: unknown")["contrast_evidence"]) == unknown


@pytest.mark.parametrize(
    ("rule", "change", "failed"),
    [
        ("kvp_120", {"kvp_kv": 100.0}, "r"),
        ("kvp_120", {"kvp_kv": None, "kvp_status": "mixed"}, "r: unknown"),
        ("usable_only", {"grade": "doubtful", "grade_reason": "uneven_gaps"}, "r"),
        ("no_missing_slices", {"n_missing_slices": 2}, "r"),
        ("not_lossy", {"is_lossy": True}, "r"),
    ],
)
def test_named_rules(series, rule, change, failed):
    rows = series({"series_key": "bad", "patient_key": "A", **change}, {"series_key": "good", "patient_key": "A"})
    judged = judge(rows, compile_steps((Criterion(name="r", rule=rule),)).series)
    assert judged["first_failed"].drop_nulls().to_list() == [failed]


def test_every_named_rule_compiles():
    assert compile_steps(tuple(Criterion(name=rule, rule=rule) for rule in RULES)).series


@pytest.mark.parametrize(
    ("criterion", "change", "is_unknown"),
    [
        ({"keep": "age_at_image BETWEEN 50 AND 89"}, {"age_at_image": 49.9}, False),
        ({"keep": "age_at_image BETWEEN 50 AND 89"}, {"age_at_image": None, "age_source": "none"}, True),
        ({"rule": "adult"}, {"age_at_image": 17.0}, False),
        ({"keep": "sex = 'female'"}, {"sex": "male"}, False),
        ({"keep": "modality IN ('CT')"}, {"modality": "MR"}, False),
        ({"keep": "body_region IN ('chest', 'abdomen')"}, {"body_region": "pelvis"}, False),
        ({"rule": "spine_in_region"}, {"body_region": "pelvis"}, False),
        ({"rule": "spine_in_region"}, {"body_region": "unknown"}, True),
        ({"rule": "unenhanced"}, {"contrast_evidence": "given"}, False),
        ({"keep": "contrast_phase = 'plain'"}, {"contrast_phase": "portal_venous", "contrast_evidence": "given"}, False),
        ({"rule": "thin_slices"}, {"slice_thickness_mm": 5.0}, False),
        ({"keep": "slice_thickness_mm <= 2.5"}, {"slice_thickness_mm": None}, True),
        ({"keep": "kernel_class = 'soft'"}, {"kernel_class": "sharp"}, False),
        ({"keep": "kernel_raw NOT LIKE 'B7%'"}, {"kernel_raw": "B70f"}, False),
        ({"keep": "kvp_kv IN (110, 120)"}, {"kvp_kv": 80.0}, False),
        ({"keep": "scanner_vendor IN ('siemens', 'ge')"}, {"scanner_vendor": "canon"}, False),
        ({"keep": "center <> 'south'"}, {"center": "south"}, False),
        ({"keep": "period BETWEEN '2022Q1' AND '2022Q4'"}, {"period": "2021Q4"}, False),
        ({"rule": "label_present"}, {"has_label": False}, False),
        ({"rule": "no_implant"}, {"guard c": True}, False),
        ({"rule": "without_findings", "findings": ("tilted", "padding")}, {"findings": "derived;tilted"}, False),
        ({"keep": "grade = 'usable' AND n_missing_slices = 0"}, {"grade": "doubtful", "grade_reason": "tilted"}, False),
        ({"keep": "POWER(field_of_view_mm, 2) > 90000 OR extent_mm / n_slices < 5"}, {"extent_mm": 900.0}, False),
    ],
)
def test_every_kind_of_criterion_keeps_the_good_and_removes_the_bad(series, criterion, change, is_unknown):
    made = {"period", "has_label", "guard c"}
    good = {"patient_key": "A", "kernel_raw": "Br40", "contrast_phase": "plain", "field_of_view_mm": 300.0}
    rows = series(
        {**good, "series_key": "good"}, {**good, "series_key": "bad"} | {k: v for k, v in change.items() if k not in made}
    )
    extra = {"period": "2022Q2", "has_label": True, "guard c": None}
    is_bad = pl.int_range(pl.len()) == 1
    rows = rows.with_columns(
        pl.when(is_bad).then(pl.lit(change.get(k, v), type_of(v))).otherwise(pl.lit(v, type_of(v))).alias(k)
        for k, v in extra.items()
    )
    steps = compile_steps((Criterion(name="c", **criterion),), findings=("tilted", "padding")).series
    judged = judge(rows, [step for step in steps if step.name.startswith("c")])
    assert judged["first_failed"].to_list() == [None, "c: unknown" if is_unknown else "c"]


def type_of(value):
    return pl.String if isinstance(value, str) else pl.Boolean


def test_a_finding_is_a_whole_word_and_one_that_the_catalog_has(series):
    rows = series({"series_key": "a", "patient_key": "A", "findings": "padding_written_unsigned"})
    steps = compile_steps((Criterion(name="c", rule="without_findings", findings=("padding",)),)).series
    assert judge(rows, steps)["first_failed"].to_list() == [None]
    for given, says in (
        ({"findings": ("tiltet",)}, "the catalog has no finding 'tiltet'; the nearest allowed is 'tilted'"),
        ({}, "without_findings needs findings"),
        ({"findings": ("tilted",), "codes": ("fracture",)}, "codes and within_days belong to the rules"),
    ):
        with pytest.raises(StudyError, match=says):
            compile_steps((Criterion(name="c", rule="without_findings", **given),), findings=("tilted",))
    with pytest.raises(StudyError, match="findings belong to the rule without_findings"):
        compile_steps((Criterion(name="c", rule="kvp_120", findings=("tilted",)),))


@pytest.mark.parametrize(
    ("criterion", "says"),
    [
        (Criterion(name="c", keep="age_at_imag >= 50"), "'c': no column 'age_at_imag'; the nearest allowed is 'age_at_image'"),
        (Criterion(name="c", keep="image_date > 5"), "'image_date' is private and may not be named; use analysis.image_dates"),
        (Criterion(name="c", keep="label_date > 5"), "'label_date' is private and may not be named; use analysis.label_dates"),
        (Criterion(name="c", keep="age_at_image >="), "keep is no SQL condition"),
        (Criterion(name="c", keep="age_at_image >= 'x'"), "keep cannot be computed"),
        (Criterion(name="c", keep="age_at_image"), "expected true or false"),
        (Criterion(name="c", keep="TRUE"), "found a constant or an aggregate"),
        (Criterion(name="c", keep="MAX(age_at_image) > 50"), "found a constant or an aggregate"),
        (Criterion(name="c", keep="SUM(age_at_image) OVER (PARTITION BY sex) > 50"), "found a constant or an aggregate"),
        (Criterion(name="c", rule="unenhansed"), "no rule named 'unenhansed'; the nearest allowed is 'unenhanced'"),
        (Criterion(name="a;b", rule="unenhanced"), "must not hold ';'"),
        (Criterion(name="CT", rule="unenhanced"), "have the same name 'CT'"),
    ],
)
def test_a_bad_criterion_is_named_with_what_was_found_and_expected(criterion, says):
    with pytest.raises(StudyError) as caught:
        compile_steps((criterion,))
    assert says in str(caught.value)
    assert criterion.name in str(caught.value)


def test_two_criteria_may_not_share_a_reason():
    with pytest.raises(StudyError, match="'age > 50' and 'age >= 50' have the same reason 'age_50'"):
        compile_steps(
            (Criterion(name="age > 50", keep="age_at_image > 50"), Criterion(name="age >= 50", keep="age_at_image >= 50"))
        )


def test_a_criterion_that_names_a_label_column_judges_pairs():
    steps = compile_steps(
        (Criterion(name="after", keep="gap_days >= 0"), OLD, Criterion(name="年龄", keep="age_at_label < 90"))
    )
    assert [s.reason for s in steps.pairs] == ["after", "after_unknown", "criterion_3", "criterion_3_unknown"]
    assert [s.name for s in steps.series][-2:] == ["age 50 or older", "age 50 or older: unknown"]
