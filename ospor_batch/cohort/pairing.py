"""Series and labels of one person side by side: every pair, with the gap in whole days (methods M1)."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

GAP = "gap_days"  # of a pair: label date minus image date
PERSON = ("center", "patient_key")
LABEL_CENTER = "label_center"  # where the label was measured; another center only where a crosswalk joins two numbers
WHO, WHOSE = "patient_key", "patient_key_of_label"
SLICE = 2**18  # rows held as text at a time: a row group as Polars writes them


def pair(
    series: pl.DataFrame | pl.LazyFrame, labels: pl.DataFrame | pl.LazyFrame, *, keep: pl.Expr | None = None
) -> pl.DataFrame:
    """Pair every series with every label of the same person, whatever study or center, with the gap in whole days.

    Columns that both have are those of the series; ``keep`` judges the gap alone. People are first found by a 64-bit hash
    of their key, slice by slice, so that text is held for one slice and for the pairs only; then the keys themselves are
    compared, so that two people of one hash never meet.
    """
    left, right = series.lazy(), labels.lazy()
    ours = left.collect_schema().names()
    own = [column for column in right.collect_schema().names() if column not in ours or column in PERSON]
    days = right.select(_hashed(), day=pl.col("label_date").to_physical()).with_row_index("at_label").drop_nulls("who")
    index = days.collect()
    pairs = pl.concat([_near(part, index, keep=keep) for _, part in _slices(left)])
    wanted = pairs["at_label"].unique().sort().cast(pl.Int64)
    given = right.select(own).rename({"center": LABEL_CENTER, WHO: WHOSE}).with_row_index("at_label")
    found = [part[wanted.filter((wanted >= at) & (wanted < at + part.height)) - at] for at, part in _slices(given)]
    whole = pairs.join(pl.concat(found), on="at_label", how="inner")
    return whole.filter(pl.col(WHO) == pl.col(WHOSE)).drop(WHOSE, "at_label")


def in_window(*, before_days: int, after_days: int) -> pl.Expr:
    """True where the label lies inside the window, both ends inclusive."""
    return pl.col(GAP).is_between(-before_days, after_days, closed="both")


def _hashed() -> pl.Expr:
    return pl.when(pl.col(WHO).is_not_null()).then(pl.col(WHO).hash()).alias("who")


def _slices(rows: pl.LazyFrame) -> Iterator[tuple[int, pl.DataFrame]]:
    """Slices of rows with the number of their first; one slice without rows where there are none."""
    n = rows.select(pl.len()).collect().item()
    for start in range(0, max(n, 1), SLICE):
        yield start, rows.slice(start, SLICE).collect()


def _near(series: pl.DataFrame, index: pl.DataFrame, *, keep: pl.Expr | None) -> pl.DataFrame:
    """Series beside the row numbers of the labels that may be of the same person.

    index: who, day and at_label of every label.
    """
    dated = series.select(_hashed(), imaged=pl.col("image_date").to_physical()).with_row_index("at")
    near = dated.join(index, on="who", how="inner").with_columns((pl.col("day") - pl.col("imaged")).cast(pl.Int64).alias(GAP))
    near = near if keep is None else near.filter(keep)
    return series[near["at"]].with_columns(near[GAP], near["at_label"])
