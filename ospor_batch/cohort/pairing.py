"""Series and labels of one person side by side: every pair, with the gap in whole days (methods M1)."""

from __future__ import annotations

from collections.abc import Callable
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
WORKERS = 2  # slices at work at a time: one is read while another is looked up; more would hold more text
BUCKET_BITS = 20  # first bits of the hash, by which labels are looked up: about one label a bucket in a million
SEEN_BITS = 23  # more of them, by which most people without any label are told without a look at a bucket (8 MiB)


@dataclass(frozen=True)
class _Index:
    """Labels in the order of the hash of their person; those of bucket b stand from starts[b] to starts[b + 1].

    seen: whether any label's hash begins with these bits.
    """

    who: NDArray[np.uint64]
    day: NDArray[np.int32]
    at_label: NDArray[np.uint32]
    starts: NDArray[np.int32]
    seen: NDArray[np.bool_]


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
    with ThreadPoolExecutor(1) as indexer:
        index = indexer.submit(_index, right)
        pairs = pl.concat(_over_slices(left, lambda _, part: _near(part, index.result(), keep=keep)))
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
    starts = np.concatenate(([0], np.cumsum(np.bincount(_first(BUCKET_BITS, who), minlength=2**BUCKET_BITS))))
    seen = np.zeros(2**SEEN_BITS, dtype=np.bool_)
    seen[_first(SEEN_BITS, who)] = True
    return _Index(who, rows["day"].to_numpy(), rows["at"].to_numpy(), starts.astype(np.int32), seen)


def _first(bits: int, who: NDArray[np.uint64]) -> NDArray[np.int32]:
    """The first bits of hashes, as numbers."""
    return (who >> np.uint64(64 - bits)).astype(np.int32)


def _over_slices(rows: pl.LazyFrame, work: Callable[[int, pl.DataFrame], pl.DataFrame]) -> list[pl.DataFrame]:
    """What becomes of every slice, given the number of its first row; of one without rows where there are none."""
    n = rows.select(pl.len()).collect().item()
    with ThreadPoolExecutor(WORKERS) as pool:
        return list(pool.map(lambda start: work(start, rows.slice(start, SLICE).collect()), range(0, max(n, 1), SLICE)))


def _near(series: pl.DataFrame, index: _Index, *, keep: pl.Expr | None) -> pl.DataFrame:
    """Series beside the row numbers of the labels that may be of the same person."""
    rows = _hashed(series, day="image_date")
    who = rows["who"].to_numpy()
    rows = rows[np.flatnonzero(index.seen[_first(SEEN_BITS, who)])]  # hardly any but people with labels
    who, day = rows["who"].to_numpy(), rows["day"].to_numpy()
    bucket = _first(BUCKET_BITS, who)
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

    def of_slice(start: int, part: pl.DataFrame) -> pl.DataFrame:
        first, last = np.searchsorted(rows, [start, start + part.height])
        return part[rows[first:last] - start]

    return pl.concat(_over_slices(labels, of_slice))[place]
