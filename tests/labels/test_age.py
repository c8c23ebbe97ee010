"""Age at the exam is in completed years, on every day of the year."""

from __future__ import annotations

from datetime import date

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from ospor_batch.labels.typed_rows import with_age

DAYS = st.dates(date(1920, 1, 1), date(2025, 12, 31))


@given(DAYS, DAYS)
def test_age_is_counted_in_completed_years(one: date, other: date) -> None:
    birth, exam = sorted((one, other))
    rows = pl.DataFrame({"birth_date": [birth], "exam_date": [exam]})
    completed = exam.year - birth.year - ((exam.month, exam.day) < (birth.month, birth.day))
    assert with_age(rows)["age_at_label"].to_list() == [completed]
