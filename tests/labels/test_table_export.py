"""Given these rows of an export, these exams are kept, these rows refused, for these reasons."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ospor_batch.contracts.table import whole
from ospor_batch.labels.raw_table import RawTable
from ospor_batch.labels.table_export import adapt, inspect_export, settle
from tests.labels.conftest import GOOD, HEADER, TODAY, Settle, Write, changed, export, reasons


def test_a_good_row_becomes_an_exam_with_every_value_as_measured(write: Write, settled: Settle) -> None:
    found = settled(write(HEADER, GOOD))
    exam = found.exams.row(0, named=True)
    assert found.rejects.height == 0
    assert exam["exam_date"] == date(2022, 3, 4)
    assert (exam["sex"], exam["age_at_label"], exam["menopause"]) == ("female", 66, "unknown")
    assert (exam["lumbar_spine_t"], exam["femoral_neck_t"], exam["total_hip_t"]) == (-2.5, -1.9, None)
    assert (exam["lumbar_spine_bmd_g_cm2"], exam["height_m"]) == (0.801, 1.58)
    assert (exam["row_number"], exam["n_export_rows"], exam["flags"], exam["t_reference"]) == (2, 1, "", "unknown")
    assert exam["phantom_material"] == "not_applicable"
    whole(found.exams, "exam")


@pytest.mark.parametrize(
    ("cells", "reason", "said"),
    [
        ({"MRN": " "}, "missing_patient_id", "row 2"),
        ({"Date": ""}, "missing_date", "'Date'"),
        ({"Date": "2022-02-30"}, "invalid_date", "%Y-%m-%d"),
        ({"Date": "20220304"}, "invalid_date", "'Date'"),
        ({"Date": "22-03-04"}, "invalid_date", "'Date'"),
        ({"Date": "2022-03-04 10:00"}, "invalid_date", "'Date'"),
        ({"Date": "0000-00-00"}, "invalid_date", "'Date'"),
        ({"Date": "2024-01-02"}, "exam_in_future", "row 2"),
        ({"LS_T": "-2,5"}, "not_a_number", "'LS T'"),
        ({"LS_T": "<-4"}, "not_a_number", "'LS T'"),
        ({"LS_T": "nan"}, "not_a_number", "'LS T'"),
        ({"LS_T": "inf"}, "not_a_number", "'LS T'"),
        ({"LS_T": "-25"}, "impossible_value", "-25.0 is outside -8 to 8"),
        ({"LS_BMD": "3.091"}, "impossible_value", "3.091 is outside 0.2 to 2.5 g/cm2"),
        ({"LS_BMD": "0"}, "impossible_value", "'LS BMD'"),
        ({"LS_BMD": "801"}, "unit_mismatch", "mg/cm2"),
        ({"Height": "158"}, "unit_mismatch", "158.0 m looks like cm"),
        ({"Height": "0"}, "impossible_value", "'Height'"),
        ({"Age": "661"}, "impossible_value", "'Age'"),
        ({"LS_T": "", "FN_T": "", "LS_BMD": ""}, "no_measurement", "row 2"),
    ],
)
def test_a_broken_row_is_refused_with_row_column_and_rule(
    write: Write, settled: Settle, cells: dict[str, str], reason: str, said: str
) -> None:
    found = settled(write(HEADER, changed(**cells), changed(MRN="P2")))
    assert reasons(found) == {"2": reason}
    assert found.rejects["item_key"].to_list() == ["dxa.csv:2"]
    assert said in found.rejects["detail"][0]
    assert found.exams.height == 1


def test_identifiers_and_dates_never_stand_in_a_reject(write: Write, settled: Settle) -> None:
    rows = [
        changed(MRN=f"MRN{i}", **cells)
        for i, cells in enumerate([{"Date": "1931-02-31"}, {"LS_T": "Kim"}, {"Age": "12345678"}])
    ]
    found = settled(write(HEADER, *rows))
    said = " ".join(found.rejects["detail"])
    assert found.rejects.height == 3
    assert not any(word in said for word in ("MRN0", "1931", "Kim", "12345678"))


def test_one_impossible_value_refuses_the_whole_row(write: Write, settled: Settle) -> None:
    found = settled(write(HEADER, changed(LS_BMD="3.1")))
    assert found.exams.height == 0


def test_a_missing_height_is_null_and_flagged(write: Write, settled: Settle) -> None:
    found = settled(write(HEADER, changed(Height=""), changed(MRN="P2", Height="N/A"), changed(MRN="P3")))
    assert found.exams.sort("row_number").select("height_m", "flags").rows() == [
        (None, "missing_height"),
        (None, "missing_height"),
        (1.58, ""),
    ]


def test_values_that_are_rare_but_possible_are_kept_and_flagged(write: Write, settled: Settle) -> None:
    found = settled(write(HEADER, changed(LS_T="6.6", LS_BMD="1.807")))
    assert found.exams["flags"].to_list() == ["unusual_value:lumbar_spine_t"]


def test_an_identical_repeat_keeps_the_first_row(write: Write, settled: Settle) -> None:
    found = settled(write(HEADER, GOOD, GOOD, changed(MRN=" p1 "), changed(LS_BMD="0.8010")))
    assert reasons(found) == {"3": "duplicate_exam", "4": "duplicate_exam", "5": "duplicate_exam"}
    assert found.exams["row_number"].to_list() == [2]


def test_conflicting_repeats_are_all_refused_and_say_what_differs(write: Write, settled: Settle) -> None:
    path = write(HEADER, GOOD, GOOD, changed(LS_T="-2.4"), changed(MRN="P2"))
    found = settled(path)
    assert reasons(found) == {"2": "conflicting_exam", "3": "duplicate_exam", "4": "conflicting_exam"}
    assert "differing: lumbar_spine_t" in found.rejects["detail"][0]
    assert reasons(settled(path, conflicts="first")) == {"3": "duplicate_exam", "4": "conflicting_exam"}


def test_two_devices_or_two_exam_numbers_on_one_day_are_two_exams(write: Write, settled: Settle, key: bytes) -> None:
    header = (*HEADER, "Device", "No")
    path = write(header, (*GOOD, "A", "1"), (*changed(LS_T="-2.4"), "B", "1"), (*changed(LS_T="-2.3"), "B", "2"))
    by_device = {**export().model_dump()["columns"], "device_model": {"column": "Device"}}
    assert settled(path, columns=by_device).exams.height == 1
    by_number = {**by_device, "exam_number": {"column": "No"}}
    assert reasons(settled(path, columns=by_number)) == {"2": "conflicting_exam", "3": "conflicting_exam"}
    del by_number["device_model"]
    assert settled(path, columns=by_number).exams.height == 1


def test_repeats_are_found_across_the_exports_of_a_center(write: Write, key: bytes) -> None:
    first = write(HEADER, GOOD, changed(MRN="P2"))
    second = write(HEADER, changed(MRN="P3"), GOOD, changed(MRN="P2", LS_T="1.0"), name="more.csv")
    from ospor_batch.labels.table_export import read_export

    read = [read_export(path, export(path=path.name), center="north", key=key, today=TODAY) for path in (first, second)]
    found = settle(read, center="north")
    assert dict(found.rejects.select("item_key", "reason").iter_rows()) == {
        "more.csv:3": "duplicate_exam",
        "dxa.csv:3": "conflicting_exam",
        "more.csv:4": "conflicting_exam",
    }
    assert (found.exams.height, found.n_rows) == (2, 5)


def test_age_is_counted_in_completed_years_from_the_birth_date(write: Write, settled: Settle) -> None:
    columns = {**export().model_dump()["columns"], "birth_date": {"column": "Born"}}
    rows = [
        (*changed(MRN="P1", Age=""), "1972-03-05"),
        (*changed(MRN="P2", Age=""), "1972-03-04"),
        (*changed(MRN="P3", Age="50"), "1952-03-04"),
        (*changed(MRN="P4"), "2022-03-05"),
        (*changed(MRN="P5"), "1952-13-01"),
    ]
    found = settled(write((*HEADER, "Born"), *rows), columns=columns)
    ages = found.exams.sort("row_number").select("age_at_label", "flags").rows()
    assert ages == [(49, ""), (50, ""), (70, "age_contradicts_birth_date")]
    assert reasons(found) == {"5": "exam_before_birth", "6": "invalid_date"}


@pytest.mark.parametrize(
    ("written", "sex", "flags"),
    [
        ("w", "female", ""), ("여", "female", ""), ("女", "female", ""), ("ＦＥＭＡＬＥ", "female", ""),
        ("M", "male", ""), ("남자", "male", ""), ("男性", "male", ""), ("", "unknown", ""),
        ("1", "unknown", "sex_not_recognised"), ("?", "unknown", "sex_not_recognised"),
    ],
)  # fmt: skip
def test_sex_is_read_in_the_words_of_the_hospital(write: Write, settled: Settle, written: str, sex: str, flags: str) -> None:
    exam = settled(write(HEADER, changed(Sex=written))).exams.row(0, named=True)
    assert (exam["sex"], exam["flags"]) == (sex, flags)


def test_a_coded_sex_is_declared_in_the_study_file(write: Write, settled: Settle) -> None:
    found = settled(write(HEADER, changed(Sex="1"), changed(MRN="P2", Sex="2")), sex_values={"male": ("1",), "female": ("2",)})
    assert found.exams.sort("row_number")["sex"].to_list() == ["male", "female"]
    assert found.exams.sort("row_number")["menopause"].to_list() == ["not_applicable", "unknown"]


def test_a_t_score_that_contradicts_its_bmd_is_refused_only_under_a_declared_reference(write: Write, settled: Settle) -> None:
    columns = {**export().model_dump()["columns"], "densitometer_vendor": {"value": "hologic"}}
    # (0.801 - 1.047) / 0.110 = -2.24
    path = write(HEADER, changed(LS_T="-2.2"), changed(MRN="P2", LS_T="-1.0"), changed(MRN="P3", LS_T="4.0"))
    unknown = settled(path, columns=columns)
    assert unknown.exams.sort("row_number")["flags"].to_list() == ["", "", "t_contradicts_bmd:lumbar_spine"]
    declared = settled(path, columns=columns, t_reference="nhanes3_white_female")
    assert reasons(declared) == {"3": "t_contradicts_bmd", "4": "t_contradicts_bmd"}
    elsewhere = settled(path, columns=columns, t_reference="korea_2010")
    assert elsewhere.exams["t_reference"].unique().to_list() == ["korea_2010"]
    assert reasons(elsewhere) == {}


def test_qct_exports_carry_their_phantom_and_notice_a_slip_of_the_unit(write: Write, settled: Settle) -> None:
    columns = {"patient_id": "ID", "exam_date": "Date", "vbmd_mg_cm3": "BMD", "n_vertebrae": "n"}
    path = write(("ID", "Date", "BMD", "n"), ("1", "2022-01-01", "81.5", "2"), ("2", "2022-01-01", "0.0815", "2"),
                 ("3", "2022-01-01", "", "2"), ("4", "2022-01-01", "90", "2.5"), ("5", "2022-01-01", "-20", ""))  # fmt: skip
    found = settled(path, kind="qct", columns=columns, phantom_material="k2hpo4")
    assert reasons(found) == {"3": "unit_mismatch", "4": "no_measurement", "5": "not_a_number"}
    assert found.exams.sort("row_number").select("vbmd_mg_cm3", "n_vertebrae", "phantom_material").rows() == [
        (81.5, 2, "k2hpo4"),
        (-20.0, None, "k2hpo4"),
    ]
    in_grams = {**columns, "vbmd_mg_cm3": {"column": "BMD", "unit": "g/cm³"}}
    assert settled(path, kind="qct", columns=in_grams).exams["vbmd_mg_cm3"].to_list() == [81.5]


def test_a_body_export_needs_its_muscle_area(write: Write, settled: Settle) -> None:
    columns = {"patient_id": "ID", "exam_date": "Date", "muscle_area_cm2": {"column": "A", "unit": "mm2"}, "height_m": "H"}
    path = write(("ID", "Date", "A", "H"), ("1", "2022-01-01", "12000", "1.7"), ("2", "2022-01-01", "", "1.7"))
    found = settled(path, kind="body", columns=columns)
    assert found.exams["muscle_area_cm2"].to_list() == [120.0]
    assert reasons(found) == {"3": "no_measurement"}


def test_a_row_with_another_number_of_cells_is_refused(write: Write, settled: Settle) -> None:
    found = settled(write(HEADER, GOOD[:-1], (*changed(MRN="P2"), "x"), (*changed(MRN="P3"), ""), (), changed(MRN="P4")))
    assert reasons(found) == {"2": "contract", "3": "contract"}
    assert found.exams["row_number"].sort().to_list() == [4, 6]


def test_keys_are_pseudonyms_that_depend_on_center_and_key(write: Write, key: bytes) -> None:
    from ospor_batch.labels.table_export import read_export

    path = write(HEADER, GOOD)
    keys = [
        tuple(
            settle([read_export(path, export(), center=c, key=k, today=TODAY)], center=c)
            .exams.select("exam_key", "patient_key")
            .row(0)
        )
        for c, k in (("north", key), ("south", key), ("north", key + b"x"), ("north", key))
    ]
    assert keys[0] == keys[3]
    assert len({k for pair in keys[:3] for k in pair}) == 6


def test_inspect_says_what_each_column_becomes(write: Write) -> None:
    columns = {**export().model_dump()["columns"], "height_m": {"column": "Height", "unit": "cm"}}
    path = write(HEADER, changed(Height="158"), changed(MRN="P2", Height=""), changed(MRN="P3", Height="158", LS_BMD="9"))
    report = inspect_export(path, export(columns=columns), today=TODAY)
    assert report.n_rows == 3
    assert "height_m <- 'Height', cm -> m: 2 of 3 rows filled" in report.columns
    assert [(reason, n) for reason, n, _ in report.refused] == [("impossible_value", 1)]
    missing = inspect_export(path.with_name("none.csv"), export())
    assert missing.problems == ("dxa.csv: no such file; mend its path in the study file",)


cells = st.sampled_from(
    ["", "-", "P1", "p 1", "P2", "2022-01-01", "2022-02-30", "F", "1", "-2.5", "0.8", "800", "1e9", "x", "김", "9" * 30]
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.lists(cells, min_size=7, max_size=9), max_size=8), layout=st.sampled_from(["wide", "long"]))
def test_every_row_ends_in_exactly_one_exam_or_one_reject(key: bytes, rows: list[list[str]], layout: str) -> None:
    header = ("MRN", "Date", "Sex", "Age", "T", "BMD", "Height", "Site")
    shared = {"patient_id": "MRN", "exam_date": "Date", "sex": "Sex", "age_at_label": "Age", "height_m": "Height"}
    wide = {"lumbar_spine_t": "T", "lumbar_spine_bmd_g_cm2": "BMD"}
    long = {"site": "Site", "t_score": "T", "bmd_g_cm2": "BMD"}
    changes: dict[str, Any] = {"columns": {**shared, **(wide if layout == "wide" else long)}, "layout": layout}
    source = export(**changes, sites={"lumbar_spine": ("F", "1"), "total_hip": ("x",)})
    # most rows good enough to reach the later rules
    filled = [
        [
            a or b
            for a, b in zip(row + [""] * (8 - len(row)), ("P1", "2022-01-01", "F", "66", "-1", "0.9", "1.6", "F"), strict=False)
        ]
        for row in rows
    ]
    raw = RawTable(header, tuple(tuple(r) for r in filled), tuple(range(2, len(rows) + 2)), "test")
    read = adapt(raw, source, center="north", key=key, today=TODAY)
    found = settle([read], center="north")
    assert int(found.exams["n_export_rows"].sum()) + found.rejects.height == len(rows) == found.n_rows
    whole(found.exams, "exam")
    whole(found.rejects, "reject")


def test_the_order_of_rows_does_not_change_the_exams(write: Write, settled: Settle) -> None:
    rows = [changed(MRN=f"P{i}", Date=str(TODAY - timedelta(days=i)), LS_T=f"{-i / 10}") for i in range(1, 30)]
    forth, back = settled(write(HEADER, *rows)).exams, settled(write(HEADER, *rows[::-1], name="back.csv")).exams
    assert forth.drop("row_number").equals(back.drop("row_number"))
    assert forth["exam_key"].is_sorted()
    assert forth.select(pl.col("exam_key").n_unique()).item() == 29
