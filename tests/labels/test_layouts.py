"""The same exams, written as hospitals write them: encodings, delimiters, decimal commas, workbooks, a row per site."""

from __future__ import annotations

import datetime
from pathlib import Path

import polars as pl
import pytest
import xlsxwriter

from ospor_batch.errors import ArchiveError, StudyError
from tests.labels.conftest import GOOD, HEADER, Settle, Write, changed, export, reasons

MEASURED = ["exam_date", "sex", "lumbar_spine_t", "femoral_neck_t", "total_hip_t", "lumbar_spine_bmd_g_cm2", "height_m"]
ROW = (datetime.date(2022, 3, 4), "female", -2.5, -1.9, None, 0.801, 1.58)
KOREAN = {
    "patient_id": "환자 번호",
    "exam_date": "검사일",
    "sex": "성별",
    "lumbar_spine_t": "요추 T점수",
    "femoral_neck_t": "대퇴경부 T점수",
    "lumbar_spine_bmd_g_cm2": {"column": "요추 골밀도", "unit": "mg/cm²"},
    "height_m": {"column": "키", "unit": "cm"},
}
CHINESE = {
    "patient_id": "病历号",
    "exam_date": "检查日期",
    "sex": "性别",
    "lumbar_spine_t": "腰椎T值",
    "femoral_neck_t": "股骨颈T值",
    "lumbar_spine_bmd_g_cm2": "腰椎骨密度",
    "height_m": "身高",
}


def headers(columns: dict[str, object]) -> tuple[str, ...]:
    return tuple(c["column"] if isinstance(c, dict) else str(c) for c in columns.values())


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp949", "euc-kr", "gb18030"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_plain_exports_read_alike_in_every_encoding_and_delimiter(
    write: Write, settled: Settle, encoding: str, delimiter: str
) -> None:
    found = settled(write(HEADER, GOOD, encoding=encoding, delimiter=delimiter))
    assert found.exams.select(MEASURED).rows() == [ROW]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp949"])
def test_a_korean_export_with_decimal_comma_milligrams_and_centimetres(write: Write, settled: Settle, encoding: str) -> None:
    row = ("김-01", "2022/3/4", "여", "-2,5", "−1,9", "801", "158,0")
    path = write(headers(KOREAN), row, encoding=encoding if encoding != "cp949" else "utf-8", delimiter=";")
    if encoding == "cp949":  # it has no U+2212
        path = write(headers(KOREAN), tuple(c.replace("−", "-") for c in row), encoding=encoding, delimiter=";")
    found = settled(path, columns=KOREAN, decimal=",", date_format="%Y/%m/%d")
    assert found.exams.select(MEASURED).rows() == [ROW]


def test_a_chinese_export_in_gb18030_is_told_from_a_korean_one_by_its_headers(write: Write, settled: Settle) -> None:
    path = write(headers(CHINESE), ("１２３", "2022年03月04日", "女", "-2.5", "-1.9", "0.801", "1.58"), encoding="gb18030")
    found = settled(path, columns=CHINESE, date_format="%Y年%m月%d日")
    assert found.exams.select(MEASURED).rows() == [ROW]


def test_an_encoding_that_would_change_a_mapped_value_must_be_declared(write: Write, settled: Settle) -> None:
    path = write(HEADER, changed(MRN="김영희"), encoding="cp949")
    with pytest.raises(StudyError, match=r"dxa\.csv: .*cp949.*gb18030.*encoding"):
        settled(path)
    assert settled(path, encoding="cp949").exams.height == 1


def test_latin_1_is_read_only_when_declared(write: Write, settled: Settle) -> None:
    columns = {**export().model_dump()["columns"], "height_m": {"column": "Größe"}}
    path = write((*HEADER[:-1], "Größe"), GOOD, encoding="latin-1")
    with pytest.raises(StudyError, match="height_m"):
        settled(path, columns=columns)
    assert settled(path, columns=columns, encoding="latin-1").exams.select(MEASURED).rows() == [ROW]
    with pytest.raises(StudyError, match="row 1 is no utf-8 text"):
        settled(path, columns=columns, encoding="utf-8")
    with pytest.raises(StudyError, match="encoding is 'klingon'"):
        settled(path, columns=columns, encoding="klingon")


def test_quoted_commas_line_breaks_and_blank_lines_keep_their_row_numbers(write: Write, settled: Settle) -> None:
    columns = {**export().model_dump()["columns"], "sex": {"column": "Sex(M=1, W=2)"}}
    header = tuple("Sex(M=1, W=2)" if name == "Sex" else name for name in HEADER)
    path = write((*header, "Note"), (*GOOD, "a, b\nc"), (), (*changed(MRN="P2", Age="x"), '"'))
    found = settled(path, columns=columns)
    assert found.exams["row_number"].to_list() == [2]
    assert reasons(found) == {"4": "not_a_number"}


def workbook(path: Path, *rows: tuple[object, ...], sheet: str = "DXA", skip: int = 0) -> Path:
    book = xlsxwriter.Workbook(str(path))
    book.add_worksheet("표지").write(0, 0, "cover")
    page = book.add_worksheet(sheet)
    as_date = book.add_format({"num_format": "yyyy-mm-dd"})
    for i, row in enumerate(rows):
        for j, cell in enumerate(row):
            if isinstance(cell, datetime.date):
                page.write_datetime(i + skip, j, datetime.datetime.combine(cell, datetime.time()), as_date)
            elif cell is not None:
                page.write(i + skip, j, cell)
    book.close()
    return path


def test_a_workbook_in_centimetres_and_milligrams_with_true_dates(tmp_path: Path, settled: Settle) -> None:
    day = datetime.date(2022, 3, 4)
    path = workbook(
        tmp_path / "dxa.xlsx",
        headers(KOREAN),
        ("0012", day, "여", -2.5, -1.9, 801, 158),
        (13, "2022-03-04", "여", "-2,5", "-1,9", 801, 158),
        (),
        ("0014", day, "여", -2.5, -1.9, 0.801, 158),
        ("0015", "4.3.2022", "여", -2.5, -1.9, 801, 158),
    )
    found = settled(path, columns=KOREAN, decimal=",", sheet="DXA")
    assert found.exams.select(MEASURED).rows() == [ROW, ROW]
    assert sorted(found.exams["row_number"]) == [2, 3]
    assert reasons(found) == {"5": "unit_mismatch", "6": "invalid_date"}
    with pytest.raises(StudyError, match="sheet is 'dxa', expected one of 표지, DXA"):
        settled(path, columns=KOREAN, sheet="dxa")


def test_a_workbook_that_starts_lower_keeps_its_row_numbers(tmp_path: Path, settled: Settle) -> None:
    path = workbook(tmp_path / "dxa.xlsx", headers(KOREAN), ("1", "2022-03-04", "여", -99, 0, 801, 158), skip=3)
    assert reasons(settled(path, columns=KOREAN, sheet="DXA")) == {"5": "impossible_value"}


def test_a_broken_workbook_is_an_archive_error(tmp_path: Path, settled: Settle) -> None:
    path = tmp_path / "dxa.xlsx"
    path.write_bytes(b"PK\x03\x04 and then nothing")
    with pytest.raises(ArchiveError, match=r"dxa\.csv: cannot be read as a workbook"):
        settled(path)


LONG = {
    "patient_id": "ID",
    "exam_date": "Date",
    "sex": "Sex",
    "site": "Region",
    "t_score": "T",
    "bmd_g_cm2": {"column": "BMD", "unit": "mg/cm2"},
    "height_m": {"column": "Height", "unit": "cm"},
}
SITES = {"lumbar_spine": ["L1-L4"], "femoral_neck": ["Neck L", "Neck R"], "total_hip": ["Total"]}
LONG_HEADER = ("ID", "Date", "Sex", "Region", "T", "BMD", "Height")


def long_row(region: str, t: str, bmd: str, *, patient: str = "P1", sex: str = "F", height: str = "158") -> tuple[str, ...]:
    return (patient, "2022-03-04", sex, region, t, bmd, height)


def test_a_row_per_site_folds_into_the_exam_of_the_wide_layout(write: Write, settled: Settle) -> None:
    path = write(LONG_HEADER, long_row("L1-L4", "-2.5", "801"), long_row("neck  l", "-1.9", ""), long_row("Ward", "-9", "1"))
    found = settled(path, columns=LONG, layout="long", sites=SITES)
    assert found.exams.select(MEASURED).rows() == [ROW]
    assert found.exams.select("row_number", "n_export_rows", "flags").rows() == [(2, 2, "")]
    assert reasons(found) == {"4": "unknown_site"}
    wide = settled(write(HEADER, GOOD))
    assert found.exams["exam_key"].to_list() == wide.exams["exam_key"].to_list()


def test_of_left_and_right_hip_the_lower_counts(write: Write, settled: Settle) -> None:
    rows = [long_row("Neck L", "-1.1", "750", height=""), long_row("Neck R", "-1.9", "690"), long_row("L1-L4", "0.1", "")]
    exam = settled(write(LONG_HEADER, *rows), columns=LONG, layout="long", sites=SITES).exams.row(0, named=True)
    assert (exam["femoral_neck_t"], exam["femoral_neck_bmd_g_cm2"], exam["flags"]) == (-1.9, 0.69, "lowest_of_two:femoral_neck")
    assert exam["height_m"] == 1.58


@pytest.mark.parametrize(
    ("rows", "expected", "n_exams"),
    [
        # the same site twice, identical: the first stays
        ([("L1-L4", "-1", "900"), ("L1-L4", "-1", "900"), ("Total", "0", "900")], {"3": "duplicate_exam"}, 1),
        # the same site twice, different: the exam is refused, as it would be in a wide layout
        ([("L1-L4", "-1", "900"), ("L1-L4", "-2", "900"), ("Total", "0", "900")], dict.fromkeys("234", "conflicting_exam"), 0),
        # one impossible value refuses the exam
        ([("L1-L4", "-1", "900"), ("Total", "0", "9000")], dict.fromkeys("23", "impossible_value"), 0),
        # a site without values is no harm
        ([("L1-L4", "-1", "900"), ("Total", "", "")], {}, 1),
        ([("Total", "", "")], {"2": "no_measurement"}, 0),
    ],
)
def test_what_refuses_a_site_row(
    write: Write, settled: Settle, rows: list[tuple[str, str, str]], expected: dict[str, str], n_exams: int
) -> None:
    found = settled(write(LONG_HEADER, *(long_row(*row) for row in rows)), columns=LONG, layout="long", sites=SITES)
    assert reasons(found) == expected
    assert found.exams.height == n_exams


def test_conflicting_sites_keep_the_first_when_the_study_says_so(write: Write, settled: Settle) -> None:
    path = write(LONG_HEADER, long_row("L1-L4", "-1", "900"), long_row("L1-L4", "-2", "900"))
    found = settled(path, columns=LONG, layout="long", sites=SITES, conflicts="first")
    assert reasons(found) == {"3": "conflicting_exam"}
    assert found.exams["lumbar_spine_t"].to_list() == [-1.0]


def test_rows_of_one_exam_must_agree_about_the_person(write: Write, settled: Settle) -> None:
    path = write(LONG_HEADER, long_row("L1-L4", "-1", "900", sex="M"), long_row("Total", "-1", "900"))
    found = settled(path, columns=LONG, layout="long", sites=SITES)
    assert reasons(found) == dict.fromkeys("23", "conflicting_exam")
    assert "differ in sex" in found.rejects["detail"][0]


def test_two_sites_may_not_share_a_written_name(write: Write, settled: Settle) -> None:
    with pytest.raises(StudyError, match="names 'Total' twice"):
        settled(write(LONG_HEADER), columns=LONG, layout="long", sites={**SITES, "lumbar_spine": ["Total"]})


def test_the_many_rows_of_a_long_export_all_stay_accounted_for(write: Write, settled: Settle) -> None:
    rows = [long_row(site, "-1.0", "900", patient=f"P{i}") for i in range(50) for site in ("L1-L4", "Total", "Ward")]
    found = settled(write(LONG_HEADER, *rows), columns=LONG, layout="long", sites=SITES)
    assert (found.exams.height, found.rejects.height, found.n_rows) == (50, 50, 150)
    assert found.exams.select(pl.col("n_export_rows").sum()).item() == 100
