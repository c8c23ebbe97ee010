"""Parquet files, OMOP measurement rows, MEDS labels and DICOM reports become the same exams as a table would."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from ospor_batch.config import Export
from ospor_batch.errors import ArchiveError, StudyError
from ospor_batch.labels.table_export import Settled, inspect_export, read_export, settle

TODAY = date(2024, 1, 1)
OMOP = {
    "patient_id": "person_id", "exam_date": "measurement_date", "code": "measurement_concept_id", "value": "value_as_number",
}  # fmt: skip
CODES = {"lumbar_spine_t": ("3036277",), "femoral_neck_t": ("3037532", "40771967"), "height_m": ("3036278",)}


def read(path: Path, key: bytes, **export: Any) -> Settled:
    of = Export(**{"path": path.name, "kind": "dxa", **export})
    return settle([read_export(path, of, center="c", key=key, today=TODAY)], center="c")


def reasons(found: Settled) -> dict[int, str]:
    return {int(k.rsplit(":", 1)[1]): r for k, r in found.rejects.select("item_key", "reason").iter_rows()}


def test_parquet_knows_its_numbers_and_dates_whatever_the_study_says_of_text(tmp_path: Path, key: bytes) -> None:
    rows = pl.DataFrame({
        "MRN": [101, 102, 103], "when": [date(2022, 3, 4), date(2022, 3, 5), None], "T": [-2.5, None, -1.0],
        "BMD": [0.801, 0.9, 1.0],
    })  # fmt: skip
    path = tmp_path / "e.parquet"
    rows.write_parquet(path)
    columns = {"patient_id": "MRN", "exam_date": "when", "lumbar_spine_t": "T", "lumbar_spine_bmd_g_cm2": "BMD"}
    found = read(path, key, columns=columns, date_format="%d.%m.%Y", decimal=",")
    assert reasons(found) == {4: "missing_date"}
    assert found.exams.sort("row_number").select("exam_date", "lumbar_spine_t", "lumbar_spine_bmd_g_cm2").rows() == [
        (date(2022, 3, 4), -2.5, 0.801), (date(2022, 3, 5), None, 0.9),
    ]  # fmt: skip


def test_parquet_has_local_days_and_numbers_of_patients_without_a_point(tmp_path: Path, key: bytes) -> None:
    """A night exam in Seoul is of the day before in Greenwich; a missing number makes a column of numbers one of floats."""
    night = pl.Series([datetime(2022, 3, 4, 0, 30)] * 2).dt.replace_time_zone("Asia/Seoul")
    pl.DataFrame({"id": [12345678.0, None], "day": night, "T": [-1.5, -2.0]}).write_parquet(tmp_path / "e.parquet")
    columns = {"patient_id": "id", "exam_date": "day", "lumbar_spine_t": "T"}
    found = read(tmp_path / "e.parquet", key, columns=columns)
    assert found.exams.select("exam_date", "lumbar_spine_t").rows() == [(date(2022, 3, 4), -1.5)]
    assert reasons(found) == {3: "missing_patient_id"}
    (tmp_path / "e.csv").write_text("id,day,T\n12345678,2022-03-04,-1.5\n")
    same = read(tmp_path / "e.csv", key, columns=columns)
    assert same.exams["patient_key"].to_list() == found.exams["patient_key"].to_list()


def test_a_broken_or_nested_parquet_file_is_named(tmp_path: Path, key: bytes) -> None:
    (tmp_path / "e.parquet").write_bytes(b"PAR1 and nothing more")
    columns = {"patient_id": "MRN", "exam_date": "when"}
    with pytest.raises(ArchiveError, match="cannot be read as Parquet"):
        read(tmp_path / "e.parquet", key, columns=columns)
    pl.DataFrame({"MRN": ["1"], "when": [["2022-01-01"]]}).write_parquet(tmp_path / "e.parquet")
    with pytest.raises(ArchiveError, match="'when' holds lists"):
        read(tmp_path / "e.parquet", key, columns=columns)


def test_omop_measurement_rows_become_exams_and_every_other_row_a_reject(tmp_path: Path, key: bytes) -> None:
    lines = [
        "person_id,measurement_date,measurement_concept_id,value_as_number",
        "1,2022-03-04,3036277,-2.6",
        "1,2022-03-04,3037532,-1.9",
        "1,2022-03-04,3036278,158",
        "1,2022-03-04,9999999,7",  # another laboratory value
        "2,2022-03-04,3036277,-2.6",
        "2,2022-03-04,3036277,-2.6",  # the same twice
        "3,2022-03-04,3036277,-2.6",
        "3,2022-03-04,3036277,-1.6",  # and contradicting
        "4,2022-03-04,40771967,-1.2",
        "4,2022-03,3036277,-3.2",
        "5,2022-03-04,3036277,-26",
        "5,2022-03-04,3037532,-1.0",
    ]
    path = tmp_path / "measurement.csv"
    path.write_text("\n".join(lines))
    found = read(path, key, layout="coded", columns=OMOP, codes=CODES, units={"height_m": "cm"})
    assert reasons(found) == {
        5: "unknown_code", 7: "duplicate_exam", 8: "conflicting_exam", 9: "conflicting_exam", 11: "partial_date",
        12: "impossible_value", 13: "impossible_value",
    }  # fmt: skip
    kept = found.exams.sort("row_number")
    assert kept.select("row_number", "n_export_rows", "lumbar_spine_t", "femoral_neck_t", "height_m").rows() == [
        (2, 3, -2.6, -1.9, 1.58), (6, 1, -2.6, None, None), (10, 1, None, -1.2, None),
    ]  # fmt: skip


def test_meds_labels_are_a_parquet_file_whose_value_is_named(tmp_path: Path, key: bytes) -> None:
    rows = pl.DataFrame(
        {
            "subject_id": [7, 8],
            "prediction_time": [datetime(2022, 3, 4, 9, 30), datetime(2022, 3, 5)],
            "float_value": [-2.6, -0.4],
        }
    )
    path = tmp_path / "labels.parquet"
    rows.write_parquet(path)
    columns = {"patient_id": "subject_id", "exam_date": "prediction_time", "femoral_neck_t": "float_value"}
    found = read(path, key, columns=columns)
    assert found.exams.sort("row_number").select("exam_date", "femoral_neck_t").rows() == [
        (date(2022, 3, 4), -2.6), (date(2022, 3, 5), -0.4),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"codes": {"sex": ("1",)}}, "'sex', which is no measured column"),
        ({"codes": {"lumbar_spine_t": ("1",), "femoral_neck_t": ("1",)}}, "names '1' twice"),
        ({"codes": {"height_m": ("1",)}, "units": {"height_m": "kg"}}, "cannot become m"),
        ({"codes": {"height_m": ("1",)}, "units": {"weight_kg": "kg"}}, "units has 'weight_kg'"),
    ],
)
def test_codes_that_cannot_be_are_named(tmp_path: Path, key: bytes, given: dict[str, Any], says: str) -> None:
    (tmp_path / "m.csv").write_text("person_id,measurement_date,measurement_concept_id,value_as_number\n1,2022-01-01,1,2\n")
    with pytest.raises(StudyError, match=says):
        read(tmp_path / "m.csv", key, layout="coded", columns=OMOP, **given)


def item(kind: str, name: tuple[str, str], **more: Any) -> Dataset:
    node = Dataset()
    node.ValueType = kind
    node.ConceptNameCodeSequence = [coded(*name)]
    for keyword, value in more.items():
        setattr(node, keyword, value)
    return node


def coded(value: str, meaning: str) -> Dataset:
    of = Dataset()
    of.CodeValue, of.CodingSchemeDesignator, of.CodeMeaning = value, "99TEST", meaning
    return of


def number(code: str, value: float) -> Dataset:
    measured = Dataset()
    measured.NumericValue = str(value)
    measured.MeasurementUnitsCodeSequence = [coded("1", "no units")]
    return item("NUM", (code, code), MeasuredValueSequence=[measured])


def report(path: Path, *, patient: str, sites: dict[str, dict[str, float]]) -> None:
    of = Dataset()
    of.file_meta = FileMetaDataset()
    of.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    of.file_meta.MediaStorageSOPClassUID = of.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.33"
    of.file_meta.MediaStorageSOPInstanceUID = of.SOPInstanceUID = generate_uid()
    of.PatientID, of.ContentDate, of.PatientSex, of.Modality = patient, "20220304", "F", "SR"
    of.ValueType = "CONTAINER"
    of.ContentSequence = [
        item("CONTAINER", ("findings", "Findings"), ContentSequence=[
            item("CODE", ("363698007", "Finding site"), ConceptCodeSequence=[coded(site, site)]),
            *(number(code, value) for code, value in values.items()),
        ])
        for site, values in sites.items()
    ]  # fmt: skip
    pydicom.dcmwrite(path, of, enforce_file_format=True)


def test_dicom_reports_are_rows_by_code_and_finding_site(tmp_path: Path, key: bytes) -> None:
    folder = tmp_path / "reports"
    folder.mkdir()
    report(folder / "a.dcm", patient="P1", sites={"SPINE": {"BMD": 0.801, "T": -2.5}, "NECK": {"BMD": 0.66, "T": -1.8}})
    report(folder / "b.dcm", patient="P2", sites={"SPINE": {"BMD": 1.0, "T": -0.4, "AREA": 55}})
    (folder / "c.txt").write_text("no report")
    columns = {"patient_id": "PatientID", "exam_date": "ContentDate", "sex": "PatientSex", "code": "Code", "value": "Value"}
    codes = {
        "lumbar_spine_bmd_g_cm2": ("BMD@SPINE",), "lumbar_spine_t": ("T@SPINE",),
        "femoral_neck_bmd_g_cm2": ("BMD@NECK",), "femoral_neck_t": ("T@NECK",),
    }  # fmt: skip
    found = read(folder, key, layout="coded", columns=columns, codes=codes, date_format="%Y%m%d")
    read_as = found.exams.sort("row_number").select("sex", "lumbar_spine_t", "femoral_neck_t", "femoral_neck_bmd_g_cm2")
    assert read_as.rows() == [
        ("female", -2.5, -1.8, 0.66), ("female", -0.4, None, None),
    ]  # fmt: skip
    assert reasons(found) == {8: "unknown_code", 9: "missing_patient_id"}
    assert found.n_rows == 8
    of = Export(path="reports", kind="dxa", layout="coded", columns=columns, codes=codes, date_format="%Y%m%d")
    assert inspect_export(folder, of, today=TODAY).problems == ()


XML = """<?xml version="1.0"?><Analysis version="4.6"><Scan type="Lumbar Spine">
<Region name="L1-L4"><BMD units="g/cm2">0.801</BMD><TScore>-2.2</TScore></Region><Region name="L1"><BMD>0.777</BMD></Region>
</Scan><Comment>2 of 4</Comment></Analysis>"""


def capture(path: Path, *, patient: str, xml: str | None = None, comments: str | None = None) -> None:
    of = Dataset()
    of.file_meta = FileMetaDataset()
    of.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    of.file_meta.MediaStorageSOPClassUID = of.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    of.file_meta.MediaStorageSOPInstanceUID = of.SOPInstanceUID = generate_uid()
    of.PatientID, of.StudyDate, of.PatientSex, of.Manufacturer = patient, "20220304", "F", "Hologic"
    if xml is not None:
        of.private_block(0x0021, "HOLOGIC", create=True).add_new(0x01, "LT", xml)
    if comments is not None:
        of.ImageComments = comments
    pydicom.dcmwrite(path, of, enforce_file_format=True)


def test_numbers_in_the_header_of_a_secondary_capture_are_rows_as_those_of_a_report(tmp_path: Path, key: bytes) -> None:
    folder = tmp_path / "captures"
    folder.mkdir()
    capture(folder / "a.dcm", patient="P1", xml=XML)
    capture(folder / "b.dcm", patient="P2", comments="AP Spine report\nL1-L4 BMD: 0.950 g/cm2\nL1-L4 T = -1,4\nPage 1")
    capture(folder / "c.dcm", patient="P3")
    capture(folder / "d.dcm", patient="P4", xml='<!DOCTYPE a [<!ENTITY b "1">]><a><BMD>&b;</BMD></a>')
    capture(folder / "e.dcm", patient="P5", xml="<a><BMD>1</BMD>")
    columns = {"patient_id": "PatientID", "exam_date": "StudyDate", "sex": "PatientSex", "densitometer_vendor": "Manufacturer"}
    columns |= {"code": "Code", "value": "Value"}
    codes = {
        "lumbar_spine_bmd_g_cm2": ("Scan=Lumbar Spine/Region=L1-L4/BMD", "L1-L4 BMD"),
        "lumbar_spine_t": ("Scan=Lumbar Spine/Region=L1-L4/TScore", "L1-L4 T"),
    }
    found = read(folder, key, layout="coded", columns=columns, codes=codes, date_format="%Y%m%d", decimal=".")
    kept = found.exams.sort("row_number").select("densitometer_vendor", "lumbar_spine_bmd_g_cm2", "lumbar_spine_t")
    assert kept.rows() == [("hologic", 0.801, -2.2)]
    # the number of another element, a decimal comma that the study does not declare, and captures that hold no number
    assert reasons(found) == {
        2: "unknown_code", 5: "unknown_code", 6: "not_a_number", 7: "not_a_number",
        8: "no_measurement", 9: "no_measurement", 10: "no_measurement",
    }  # fmt: skip
    assert "P3" not in str(found.rejects.to_dicts())


@pytest.mark.parametrize("text", ["2022", "2022-03", "2022.3", "202203", "20220300", "2022-03-00", "2022년 3월", "2022年3月"])
def test_a_date_of_only_year_or_month_is_refused_by_its_own_reason(tmp_path: Path, key: bytes, text: str) -> None:
    (tmp_path / "e.csv").write_text(f"id,day,T\n1,{text},-1\n2,2022-03-04,-1\n", encoding="utf-8")
    found = read(tmp_path / "e.csv", key, columns={"patient_id": "id", "exam_date": "day", "lumbar_spine_t": "T"})
    assert reasons(found) == {2: "partial_date"}
    assert text not in found.rejects["detail"][0]
