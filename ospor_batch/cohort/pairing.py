"""Series and labels of one person side by side: every pair, with the gap in whole days (methods M1)."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

GAP = "gap_days"  # of a pair: label date minus image date
PERSON = ("center", "patient_key")
LABEL_CENTER = "label_center"  # where the label was measured; another center only where a crosswalk joins two numbers
WHO, WHOSE = "patient_key", "patient_key_of_label"
SLICE = 2**18  # rows held as text at a time: a row group as Polars writes them
BUCKET_BITS = 20  # first bits of the hash, by which labels are looked up: about one label a bucket in a million


@dataclass(frozen=True)
class _Index:
    """Labels in the order of the hash of their person; those of bucket b stand from starts[b] to starts[b + 1]."""

    who: NDArray[np.uint64]
    day: NDArray[np.int32]
    at_label: NDArray[np.uint32]
    starts: NDArray[np.int32]


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
    index = _index(right)
    pairs = pl.concat([_near(part, index, keep=keep) for _, part in _slices(left)])
    given = _at(right.select(own).rename({"center": LABEL_CENTER, WHO: WHOSE}), pairs["at_label"])
    return pairs.drop("at_label").hstack(given).filter(pl.col(WHO) == pl.col(WHOSE)).drop(WHOSE)


def in_window(*, before_days: int, after_days: int) -> pl.Expr:
    """True where the label lies inside the window, both ends inclusive."""
    return pl.col(GAP).is_between(-before_days, after_days, closed="both")


def _hashed(rows: pl.DataFrame | pl.LazyFrame, *, day: str) -> pl.DataFrame:
    """Row number (at), hash of the person (who) and day of every row that has both."""
    who, on = pl.col(WHO).hash().alias("who"), pl.col(day).to_physical().alias("day")
    known = pl.col(WHO).is_not_null() & pl.col(day).is_not_null()
    return rows.lazy().select(who, on, known=known).with_row_index("at").filter("known").collect()


def _index(labels: pl.LazyFrame) -> _Index:
    rows = _hashed(labels, day="label_date").sort("who")
    who = rows["who"].to_numpy()
    starts = np.concatenate(([0], np.cumsum(np.bincount(_bucket(who), minlength=2**BUCKET_BITS)))).astype(np.int32)
    return _Index(who, rows["day"].to_numpy(), rows["at"].to_numpy(), starts)


def _bucket(who: NDArray[np.uint64]) -> NDArray[np.int32]:
    return (who >> np.uint64(64 - BUCKET_BITS)).astype(np.int32)


def _slices(rows: pl.LazyFrame) -> Iterator[tuple[int, pl.DataFrame]]:
    """Slices of rows with the number of their first, the next one read meanwhile; one without rows where there are none."""
    n = rows.select(pl.len()).collect().item()
    starts = range(0, max(n, 1), SLICE)
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(rows.slice(0, SLICE).collect)
        for start in starts:
            part = coming.result()
            coming = reader.submit(rows.slice(start + SLICE, SLICE).collect)
            yield start, part


def _near(series: pl.DataFrame, index: _Index, *, keep: pl.Expr | None) -> pl.DataFrame:
    """Series beside the row numbers of the labels that may be of the same person."""
    rows = _hashed(series, day="image_date")
    who, day = rows["who"].to_numpy(), rows["day"].to_numpy()
    bucket = _bucket(who)
    first = index.starts[bucket]
    n = index.starts[bucket + 1] - first
    image = np.repeat(np.arange(len(who), dtype=np.int32), n)
    first -= np.cumsum(n, dtype=np.int32) - n
    label = np.arange(len(image), dtype=np.int32) + np.repeat(first, n)  # the labels of its bucket
    is_same = who[image] == index.who[label]
    image, label = image[is_same], label[is_same]
    gap = pl.Series(GAP, index.day[label] - day[image], dtype=pl.Int64)
    near = pl.DataFrame([gap, pl.Series("at_label", index.at_label[label]), rows["at"][image]])
    near = near if keep is None else near.filter(keep)
    return series[near["at"]].with_columns(near[GAP], near["at_label"])


def _at(labels: pl.LazyFrame, wanted: pl.Series) -> pl.DataFrame:
    """The rows of the wanted numbers, in their order."""
    rows, place = np.unique(wanted.to_numpy(), return_inverse=True)
    found = []
    for start, part in _slices(labels):
        first, last = np.searchsorted(rows, [start, start + part.height])
        found.append(part[rows[first:last] - start])
    return pl.concat(found)[place]
