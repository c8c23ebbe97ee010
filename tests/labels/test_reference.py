"""One label per exam and reference, or one reason why there is none."""

from __future__ import annotations

import datetime
from typing import Any

import polars as pl
import pytest

from ospor_batch.config import Reference
from ospor_batch.contracts.table import schema_of, whole
from ospor_batch.errors import StudyError
from ospor_batch.labels.reference import Drawn, draw

EXAM: dict[str, Any] = {
    "center": "north", "patient_key": "a" * 32, "export": "dxa.csv", "n_export_rows": 1, "exam_kind": "dxa",
    "exam_date": datetime.date(2022, 3, 4), "sex": "female", "age_at_label": 66.0, "menopause": "post",
    "densitometer_vendor": "hologic", "t_reference": "unknown", "phantom_material": "not_applicable", "flags": "",
}  # fmt: skip
QCT = {"exam_kind": "qct", "phantom_material": "k2hpo4", "n_vertebrae": 2}


def exams(*rows: dict[str, Any]) -> pl.DataFrame:
    filled = [{**EXAM, "exam_key": f"{i:032x}", "row_number": i + 2, **row} for i, row in enumerate(rows)]
    return whole(pl.DataFrame(filled, schema=schema_of("exam")), "exam")


def drawn(*rows: dict[str, Any], key: bytes = b"k" * 16, **settings: Any) -> Drawn:
    found = draw(exams(*rows), Reference(**{"id": "any_site", "standard": "dxa_who", **settings}), key=key)
    whole(found.labels, "label")
    whole(found.rejects, "reject")
    assert found.labels.height + found.rejects.height == found.n_exams
    return found


def one(row: dict[str, Any], **settings: Any) -> dict[str, Any]:
    found = drawn(row, **settings)
    assert found.labels.height == 1, found.rejects.to_dicts()
    return found.labels.row(0, named=True)


def test_the_lowest_t_score_of_the_declared_sites_decides() -> None:
    exam = {"lumbar_spine_t": -0.3, "femoral_neck_t": -2.6, "total_hip_t": -1.4}
    label = one(exam)
    assert (label["label_site"], label["label_value"], label["category"]) == ("femoral_neck", -2.6, "osteoporosis")
    assert (label["is_osteoporosis"], label["is_low_bone_mass"]) == (True, True)
    assert (label["n_sites_valid"], label["label_sites_available"]) == (3, "lumbar_spine+femoral_neck+total_hip")
    label = one(exam, sites=["lumbar_spine", "total_hip"])
    assert (label["label_site"], label["category"], label["label_sites_available"]) == (
        "total_hip",
        "low_bone_mass",
        "lumbar_spine+total_hip",
    )
    label = one({"total_hip_t": -1.0})
    assert (label["category"], label["n_sites_valid"], label["t_source"], label["t_reference"]) == (
        "normal",
        1,
        "reported",
        "unknown",
    )


@pytest.mark.parametrize(
    ("t", "rounded", "as_is"),
    [
        (-2.5, "osteoporosis", "osteoporosis"),
        (-2.4999999999999996, "osteoporosis", "osteoporosis"),
        (-2.45, "osteoporosis", "low_bone_mass"),
        (-2.4499, "low_bone_mass", "low_bone_mass"),
        (-1.05, "low_bone_mass", "low_bone_mass"),
        (-1.04, "normal", "low_bone_mass"),
        (-1.0, "normal", "normal"),
        (-0.95, "normal", "normal"),
        (2.45, "normal", "normal"),
    ],
)  # fmt: skip
def test_bounds_and_rounding_half_away_from_zero(t: float, rounded: str, as_is: str) -> None:
    label = one({"lumbar_spine_t": t})
    assert label["category"] == rounded
    assert label["flags"] == ("" if rounded == as_is else "rounding_decides_class")
    assert label["label_value"] == pytest.approx(t, abs=1e-6)  # stored unrounded
    assert one({"lumbar_spine_t": t}, t_rounding="none")["category"] == as_is


def test_a_computed_t_score_has_no_binary_noise() -> None:
    assert (0.558 - 0.858) / 0.120 > -2.5  # the trap: -2.4999999999999996
    settings = {"t_source": "computed", "t_reference": "nhanes3_white_female", "t_rounding": "none"}
    label = one({"femoral_neck_bmd_g_cm2": 0.558}, **settings)
    assert (label["label_value"], label["category"]) == (-2.5, "osteoporosis")
    assert (label["t_source"], label["t_reference"]) == ("computed", "nhanes3_white_female")


def test_a_computed_t_score_follows_device_and_sex() -> None:
    settings = {"t_source": "computed", "t_reference": "nhanes3_white_same_sex"}
    exam = {"total_hip_bmd_g_cm2": 0.820}
    assert one(exam, **settings)["label_value"] == -1.0
    assert one({**exam, "sex": "male", "menopause": "not_applicable"}, **settings)["label_value"] == pytest.approx(-221 / 144)
    assert one({**exam, "densitometer_vendor": "lunar"}, **settings)["label_value"] == pytest.approx(-188 / 126)
    found = drawn({**exam, "densitometer_vendor": "unknown"}, **settings)
    assert found.rejects["reason"].to_list() == ["no_valid_site"]
    assert "no population for device unknown" in found.rejects["detail"][0]


@pytest.mark.parametrize(
    ("person", "reason", "flags"),
    [
        ({"sex": "female", "menopause": "post", "age_at_label": 44.0}, None, ""),
        ({"sex": "female", "menopause": "pre", "age_at_label": 60.0}, "who_not_applicable", None),
        ({"sex": "female", "menopause": "unknown", "age_at_label": 50.0}, None, "menopause_assumed"),
        ({"sex": "female", "menopause": "unknown", "age_at_label": 49.9}, "who_not_applicable", None),
        ({"sex": "female", "menopause": "unknown", "age_at_label": None}, None, "who_applicability_unknown"),
        ({"sex": "female", "menopause": "post", "age_at_label": None}, None, ""),
        ({"sex": "male", "menopause": "not_applicable", "age_at_label": 50.0}, None, ""),
        ({"sex": "male", "menopause": "not_applicable", "age_at_label": 49.0}, "who_not_applicable", None),
        ({"sex": "male", "menopause": "not_applicable", "age_at_label": None}, None, "who_applicability_unknown"),
        ({"sex": "unknown", "menopause": "unknown", "age_at_label": 70.0}, None, ""),
        ({"sex": "unknown", "menopause": "unknown", "age_at_label": 30.0}, "who_not_applicable", None),
        ({"sex": "unknown", "menopause": "post", "age_at_label": 45.0}, None, "who_applicability_unknown"),
        ({"sex": "other", "menopause": "unknown", "age_at_label": None}, None, "who_applicability_unknown"),
    ],
)  # fmt: skip
def test_who_criteria_are_for_women_after_menopause_and_men_from_50(
    person: dict[str, Any], reason: str | None, flags: str | None
) -> None:
    found = drawn({"lumbar_spine_t": -1.5, **person})
    assert found.rejects["reason"].to_list() == ([] if reason is None else [reason])
    assert found.labels["flags"].to_list() == ([] if flags is None else [flags])


def test_the_proxy_age_of_menopause_is_a_setting() -> None:
    person = {"lumbar_spine_t": -1.5, "menopause": "unknown", "age_at_label": 52.0}
    assert drawn(person, menopause_proxy_age=55).rejects["reason"].to_list() == ["who_not_applicable"]


def test_one_vertebra_is_no_spine() -> None:
    exam = {"lumbar_spine_t": -3.0, "femoral_neck_t": -1.2, "n_vertebrae": 1}
    label = one(exam, minimum_vertebrae=1)
    assert (label["label_site"], label["flags"]) == ("femoral_neck", "lumbar_spine_too_few_vertebrae")
    assert drawn({**exam, "femoral_neck_t": None}).rejects["reason"].to_list() == ["no_valid_site"]
    assert one({**exam, "n_vertebrae": 2})["label_site"] == "lumbar_spine"
    assert one({**exam, "n_vertebrae": 2}, minimum_vertebrae=3)["label_site"] == "femoral_neck"


@pytest.mark.parametrize(
    ("vbmd", "category"),
    [(79.999, "osteoporosis"), (80.0, "low_bone_mass"), (120.0, "low_bone_mass"), (120.001, "normal"), (-5.0, "osteoporosis")],
)
def test_qct_classes_include_both_bounds_in_low_bone_mass(vbmd: float, category: str) -> None:
    label = one({**QCT, "vbmd_mg_cm3": vbmd}, standard="qct")
    assert (label["category"], label["label_value"], label["label_value_unit"]) == (category, vbmd, "mg/cm3")
    assert (label["t_source"], label["t_reference"], label["phantom_material"]) == (
        "not_applicable",
        "not_applicable",
        "k2hpo4",
    )


def test_qct_needs_its_vertebrae_and_says_who_it_was_not_made_for() -> None:
    found = drawn({**QCT, "vbmd_mg_cm3": 90.0, "n_vertebrae": 1}, standard="qct")
    assert found.rejects["reason"].to_list() == ["vertebrae_too_few"]
    assert one({**QCT, "vbmd_mg_cm3": 90.0, "n_vertebrae": None}, standard="qct")["flags"] == "n_vertebrae_unknown"
    assert one({**QCT, "vbmd_mg_cm3": 90.0, "age_at_label": 40.0}, standard="qct")["flags"] == "outside_acr_population"


def test_tbs_has_classes_of_its_own_and_no_osteoporosis() -> None:
    settings = {"standard": "tbs"}
    label = one({"lumbar_spine_t": 0.0, "tbs": 1.30}, **settings)
    assert (label["category"], label["is_osteoporosis"], label["is_low_bone_mass"]) == ("tbs_partially_degraded", None, None)
    assert (
        one({"lumbar_spine_t": 0.0, "tbs": 1.34}, tbs_cut_offs="postmenopausal_1200_1350", **settings)["category"]
        == "tbs_partially_degraded"
    )
    assert drawn({"lumbar_spine_t": 0.0}, **settings).rejects["reason"].to_list() == ["category_not_defined"]
    heavy = {"lumbar_spine_t": 0.0, "tbs": 1.3, "height_m": 1.5, "weight_kg": 90.0}
    assert "tbs_not_valid" in drawn(heavy, **settings).rejects["detail"][0]
    assert one({**heavy, "tbs_software_version": "v4.0.2"}, **settings)["category"] == "tbs_partially_degraded"


def test_a_reference_asks_only_exams_of_its_kind() -> None:
    both = ({"lumbar_spine_t": -1.0}, {**QCT, "vbmd_mg_cm3": 90.0})
    assert [drawn(*both, standard=s).n_exams for s in ("dxa_who", "qct", "tbs")] == [1, 1, 1]
    assert drawn(both[0], standard="qct").labels.height == 0


def test_remarks_on_the_exam_go_with_the_label_and_keys_differ_by_reference() -> None:
    exam = {"lumbar_spine_t": -1.0, "flags": "t_contradicts_bmd:lumbar_spine"}
    first, second = one(exam), one(exam, id="other", sites=["lumbar_spine"])
    assert first["flags"] == "t_contradicts_bmd:lumbar_spine"
    assert first["label_key"] != second["label_key"]
    assert first["exam_key"] == second["exam_key"]


def test_a_table_that_does_not_exist_is_a_study_error() -> None:
    with pytest.raises(StudyError, match=r"references\.any_site\.t_reference is 'mars', expected one of nhanes3"):
        drawn({"lumbar_spine_t": -1.0}, t_source="computed", t_reference="mars")
    with pytest.raises(StudyError, match=r"references\.any_site\.tbs_cut_offs is 'mine'"):
        drawn({"lumbar_spine_t": -1.0}, standard="tbs", tbs_cut_offs="mine")
