"""What is wrong with a file or a column map stops before any work, and says which key and what was found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ospor_batch.errors import ArchiveError, StudyError
from tests.labels.conftest import GOOD, HEADER, Settle, Write, export


def columns(**changes: Any) -> dict[str, Any]:
    return {**export().model_dump()["columns"], **changes}


def test_a_wrong_column_names_export_key_header_and_the_nearest(write: Write, settled: Settle) -> None:
    with pytest.raises(StudyError) as caught:
        settled(write(HEADER, GOOD), columns=columns(lumbar_spine_t={"column": "LS T-score"}, sex={"column": "Gender"}))
    said = str(caught.value)
    assert "dxa.csv: columns.lumbar_spine_t is 'LS T-score'" in said
    assert "the nearest is 'LS T'" in said
    assert "columns.sex is 'Gender'" in said
    assert caught.value.exit_code == 10


def test_a_header_that_stands_twice_is_refused(write: Write, settled: Settle) -> None:
    with pytest.raises(StudyError, match="columns.sex is 'Sex', and the file has 2 columns of that name"):
        settled(write((*HEADER, "Sex"), (*GOOD, "M")))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"height_m": {"column": "Height", "unit": "kg"}}, r"columns\.height_m\.unit is 'kg', which cannot become m; .*cm"),
        ({"lumbar_spine_bmd_g_cm2": {"column": "LS BMD", "unit": "mg/cm3"}}, r"lumbar_spine_bmd_g_cm2\.unit is 'mg/cm3'"),
        ({"sex": {"column": "Sex", "unit": "cm"}}, r"columns\.sex\.unit is 'cm', but sex is no measured column"),
    ],
)
def test_a_unit_that_cannot_become_the_columns_names_the_key(write: Write, settled: Settle, changes: Any, said: str) -> None:
    with pytest.raises(StudyError, match=said):
        settled(write(HEADER, GOOD), columns=columns(**changes))


@pytest.mark.parametrize("form", ["YYYY-MM-DD", "%Y-%m", "%H:%M", ""])
def test_a_date_format_without_year_month_and_day_is_refused(write: Write, settled: Settle, form: str) -> None:
    with pytest.raises(StudyError, match="date_format is"):
        settled(write(HEADER, GOOD), date_format=form)


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("%d.%m.%Y", "4.3.2022"),
        ("%Y%m%d", "20220304"),
        ("%d-%b-%Y", "04-MAR-2022"),
        ("%Y-%m-%d %H:%M:%S", "2022-03-04 09:30:00"),
        ("%Y-%m-%d %H:%M:%S.%f", "2022-03-04 09:30:00.123"),
        ("%Y-%m-%dT%H:%M:%S%z", "2022-03-04T00:30:00+09:00"),
    ],
)
def test_dates_are_read_by_the_declared_form(write: Write, settled: Settle, form: str, text: str) -> None:
    found = settled(write(HEADER, (GOOD[0], text, *GOOD[2:])), date_format=form)
    assert found.exams["exam_date"].cast(str).to_list() == ["2022-03-04"]


def test_a_missing_empty_or_broken_file_is_an_archive_error(tmp_path: Path, write: Write, settled: Settle) -> None:
    with pytest.raises(ArchiveError, match=r"dxa\.csv: no such file") as caught:
        settled(tmp_path / "none.csv")
    assert caught.value.exit_code == 15
    with pytest.raises(ArchiveError, match="cannot be read"):
        settled(tmp_path)
    (tmp_path / "empty.csv").write_bytes(b" \n")
    with pytest.raises(ArchiveError, match="empty"):
        settled(tmp_path / "empty.csv")
    path = write(HEADER, GOOD)
    path.write_text(path.read_text() + '"open,1\n')
    with pytest.raises(ArchiveError, match="row 3 is broken"):
        settled(path)


def test_a_file_with_a_header_alone_has_no_exams(write: Write, settled: Settle) -> None:
    found = settled(write(HEADER))
    assert (found.exams.height, found.rejects.height, found.n_rows) == (0, 0, 0)
