"""Dates for release: every interval within a person is kept, none of a person's dates is."""

from __future__ import annotations

from datetime import date, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ospor_batch.cohort.date_shift import LARGEST, shift_days, shifted
from ospor_batch.errors import ContractError

KEY = b"release-key-of-this-study"
DAY = date(2022, 6, 1)
SCHEMA = {"patient_key": pl.String, "image_date": pl.Date, "label_date": pl.Date}


def rows_of(rows):
    made = [(p, None if a is None else DAY + timedelta(a), None if b is None else DAY + timedelta(b)) for p, a, b in rows]
    return pl.DataFrame(made, schema=SCHEMA, orient="row")


def moved(rows, key=KEY):
    return shifted(rows, columns=("image_date", "label_date"), person="patient_key", key=key)


days = st.one_of(st.none(), st.integers(-20_000, 20_000))


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.sampled_from("ABCD"), days, days), max_size=12))
def test_intervals_within_a_person_are_kept_and_every_date_moves(rows):
    before = rows_of(rows)
    after = moved(before)
    assert after["patient_key"].equals(before["patient_key"])
    gap = (pl.col("label_date") - pl.col("image_date")).dt.total_days()
    assert after.select(gap).equals(before.select(gap))
    for column in ("image_date", "label_date"):
        by = (after[column] - before[column]).dt.total_days()
        assert by.null_count() == before[column].null_count()
        known = pl.DataFrame({"person": before["patient_key"], "by": by}).drop_nulls()
        assert (known["by"].abs().is_between(1, LARGEST)).all()
        assert known.n_unique() == known["person"].n_unique()


def test_the_shift_is_the_same_tonight_and_next_year_and_another_under_another_key():
    once = [shift_days(f"p{i}", key=KEY) for i in range(4000)]
    assert once == [shift_days(f"p{i}", key=KEY) for i in range(4000)]
    other = [shift_days(f"p{i}", key=b"another") for i in range(4000)]
    assert sum(a == b for a, b in zip(once, other, strict=True)) < 20  # 1 in 730 by chance
    assert min(once) < -350
    assert max(once) > 350
    assert abs(sum(once) / len(once)) < 4 * LARGEST / 3**0.5 / len(once) ** 0.5  # four standard errors of a uniform draw
    assert 0 not in once


def test_a_date_of_nobody_is_not_released():
    with pytest.raises(ContractError, match="1 rows have a date and no patient_key"):
        moved(pl.DataFrame([(None, DAY, None), (None, None, None)], schema=SCHEMA, orient="row"))
