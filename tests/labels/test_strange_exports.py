"""Exports as hospitals write them: titles above the header, headers of two rows, day numbers, parted thousands, web pages."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import xlsxwriter

from ospor_batch.config import Export
from ospor_batch.errors import ArchiveError, StudyError
from ospor_batch.labels.proposal import propose
from ospor_batch.labels.table_export import Settled, inspect_export
from tests.labels.conftest import DXA, GOOD, HEADER, Settle, Write, export

EUROPEAN = ("P1", "2022-03-04", "F", "66", "-2,5", "-1,9", "1.061,5", "1.580,0")
DAYS = ("P1", "44624", "F", "66", "-2.5", "-1.9", "0.801", "1.58")
IN_MG_AND_MM: dict[str, Any] = {
    "decimal": ",",
    "columns": {
        **DXA,
        "lumbar_spine_bmd_g_cm2": {"column": "LS BMD", "unit": "mg/cm2"},
        "height_m": {"column": "Height", "unit": "mm"},
    },
}


def workbook(path: Path, *sheets: tuple[str, Sequence[Sequence[object]]]) -> Path:
    book = xlsxwriter.Workbook(str(path))
    for name, rows in sheets:
        sheet = book.add_worksheet(name)
        for number, row in enumerate(rows):
            sheet.write_row(number, 0, row)
    book.close()
    return path


def said_of(found: Settled) -> list[str]:
    return found.rejects["detail"].to_list()


def test_a_title_above_the_header_is_told_with_the_row_that_holds_it(write: Write, settled: Settle) -> None:
    path = write(("DXA of the year 2022",), ("printed by R. Roe",), HEADER, GOOD)
    with pytest.raises(
        StudyError, match=r"row 1, read as utf-8, holds none of the headers.*; row 3 does: header_rows = \[3\]"
    ) as why:
        settled(path)
    assert "Roe" not in str(why.value)
    found = settled(path, header_rows=(3,))
    assert found.exams.select("row_number", "lumbar_spine_t").rows() == [(4, -2.5)]


def test_a_file_of_other_columns_quotes_none_of_its_cells(write: Write, settled: Settle) -> None:
    """Without a header, the first row is a person's."""
    with pytest.raises(StudyError, match="is it another file, another sheet, or another encoding") as why:
        settled(write(("N1000017", "1970-06-15", "Roe"), ("N1000018", "1970-06-16", "Doe")))
    assert not [word for word in ("N1000017", "Roe", "1970") if word in str(why.value)]


def test_a_header_of_two_rows_joins_merged_cells_with_what_stands_below(tmp_path: Path, settled: Settle) -> None:
    above = ["MRN", "Date", "Sex", "Age", "L1-L4", "", "Neck", "Height"]
    below = ["", "", "", "", "T", "BMD", "T", ""]
    path = workbook(tmp_path / "dxa.xlsx", ("DXA", [above, below, ["P1", "2022-03-04", "F", 66, -2.5, 0.801, -1.9, 1.58]]))
    columns = {**DXA, "lumbar_spine_t": "L1-L4 T", "lumbar_spine_bmd_g_cm2": "L1-L4 BMD", "femoral_neck_t": "Neck T"}
    with pytest.raises(
        StudyError, match=r"columns\.femoral_neck_t is 'Neck T'.*if the header has two rows, declare header_rows = \[1, 2\]"
    ):
        settled(path, columns=columns)
    found = settled(path, columns=columns, header_rows=(1, 2))
    said = ("row_number", "lumbar_spine_t", "lumbar_spine_bmd_g_cm2", "femoral_neck_t", "height_m")
    assert found.exams.select(said).rows() == [(3, -2.5, 0.801, -1.9, 1.58)]


def test_day_numbers_are_dates_only_where_they_are_declared(write: Write, tmp_path: Path, settled: Settle) -> None:
    path = write(HEADER, DAYS)
    assert said_of(settled(path)) == [
        "row 2, column 'Date' (exam_date): no date of the form %Y-%m-%d; it looks like the day number of a spreadsheet: "
        'date_format = "excel"'
    ]
    assert settled(path, date_format="excel").exams["exam_date"].to_list() == [date(2022, 3, 4)]
    numbers = ["P1", 44624.75, "F", 66, -2.5, -1.9, 0.801, 1.58]
    book = workbook(tmp_path / "numbers.xlsx", ("DXA", [HEADER, numbers]))
    assert settled(book, date_format="excel").exams["exam_date"].to_list() == [date(2022, 3, 4)]
    assert settled(write(HEADER, ("P1", "2022", *DAYS[2:])), date_format="excel").rejects["reason"].to_list() == [
        "partial_date"
    ]


def test_thousands_are_parted_only_by_a_declared_sign(write: Write, tmp_path: Path, settled: Settle) -> None:
    path = write(HEADER, EUROPEAN, delimiter=";")
    refused = said_of(settled(path, **IN_MG_AND_MM))
    assert refused == [
        "row 2, column 'LS BMD' (lumbar_spine_bmd_g_cm2): no number (decimal = ','); if '.' parts its thousands, declare "
        "thousands = '.'"
    ]
    found = settled(path, **IN_MG_AND_MM, thousands=".")
    assert found.exams.select("lumbar_spine_bmd_g_cm2", "height_m").rows() == [(1.0615, 1.58)]
    # a number cell of a workbook has a point, whatever parts thousands in its text cells
    cells = workbook(tmp_path / "cells.xlsx", ("DXA", [HEADER, ["P1", "2022-03-04", "F", 66, -2.125, -1.9, "1.061,5", 1580]]))
    both = settled(cells, **IN_MG_AND_MM, thousands=".")
    assert both.exams.select("lumbar_spine_t", "lumbar_spine_bmd_g_cm2").rows() == [(-2.125, 1.0615)]
    broken = write(HEADER, (*EUROPEAN[:-2], "1.06,5", "1.580,0"), delimiter=";")
    assert settled(broken, **IN_MG_AND_MM, thousands=".").rejects["reason"].to_list() == ["not_a_number"]
    with pytest.raises(ValueError, match="thousands and decimal are both ','"):
        export(decimal=",", thousands=",")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<html><table><tr><td>MRN</td></tr></table></html>", "holds a web page or XML.*save it as CSV or XLSX"),
        (b"%PDF-1.4\n1 0 obj", "is a PDF"),
    ],
)
def test_what_only_looks_like_a_table_is_told_for_what_it_is(
    tmp_path: Path, settled: Settle, content: bytes, said: str
) -> None:
    path = tmp_path / "dxa.xls"
    path.write_bytes(content)
    with pytest.raises(ArchiveError, match=said):
        settled(path)


def test_an_empty_sheet_names_the_others(tmp_path: Path, settled: Settle) -> None:
    path = workbook(tmp_path / "dxa.xlsx", ("Cover", []), ("Results", [HEADER, GOOD]))
    with pytest.raises(
        ArchiveError, match="sheet 'Cover': the sheet is empty; the workbook has Cover, Results: name one by sheet"
    ):
        settled(path)
    assert settled(path, sheet="Results").n_rows == 1


def test_a_proposal_finds_sheet_header_signs_and_encoding(tmp_path: Path, write: Write) -> None:
    book = workbook(
        tmp_path / "a.xlsx",
        ("Cover", []),
        ("Results", [["Report 2022"], ["MRN", "Exam Date", "Sex", "L1-L4", "", "Neck"], ["", "", "", "BMD", "T", "T"],
                     ["P1", 44624, "F", 0.801, -2.5, -1.9]]),
    )  # fmt: skip
    told = proposed(book)
    for line in ('sheet = "Results"', "header_rows = [2, 3]", 'date_format = "excel"', 'lumbar_spine_t = "L1-L4 T"'):
        assert line in told
    european = proposed(write(("MRN", "Date", "LS BMD", "Height"), ("P1", "2022-03-04", "1.061,5", "1.580,0"), delimiter=";"))
    assert 'decimal = ","\nthousands = "."' in european
    assert 'height_m = { column = "Height", unit = "mm" }' in european
    japanese = write(("患者番号", "検査日", "性別"), ("1", "2022-03-04", "女"), encoding="shift_jis", name="j.csv")
    assert 'encoding = "shift_jis"' in proposed(japanese)
    western = write(("MRN", "Date", "LS BMD", "Größe"), ("Ä1", "2022-03-04", "0,8", "158"), encoding="latin-1", name="w.csv")
    assert 'encoding = "cp1252"' in proposed(western)


def test_a_proposal_of_nothing_names_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_bytes(b"")
    for name, said in (("none.csv", "no such file"), ("empty.csv", "the file is empty"), (".", "cannot be read")):
        with pytest.raises(ArchiveError, match=said):
            propose(tmp_path / name, name=name)


def proposed(path: Path) -> str:
    return propose(path, name=path.name).toml


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_is_read_by_its_mark_or_its_zeros(tmp_path: Path, encoding: str) -> None:
    text = "\n".join(",".join(row) for row in (HEADER, GOOD)) + "\n"
    for mark in ("\ufeff", ""):
        path = tmp_path / f"{encoding}{len(mark)}.csv"
        path.write_bytes((mark + text).encode(encoding))
        report = inspect_export(path, Export(path=path.name, kind="dxa", columns=DXA))
        assert (report.n_rows, report.refused, report.problems) == (1, (), ())
