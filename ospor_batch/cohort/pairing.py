"""Series and labels of one person side by side: every pair, with the gap in whole days (methods M1)."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

GAP = "gap_days"  # of a pair: label date minus image date
PERSON = ("center", "patient_key")
LABEL_CENTER = "label_center"  # where the label was measured; another center only where a crosswalk joins two numbers
WHO, WHOSE = "patient_key", "patient_key_of_label"
SLICE = 250_000  # rows held as text at a time: whole row groups, as Polars cuts large files, so that none is decoded twice
BUCKET_BITS = 20  # first bits of the hash, by which labels are looked up: about one label a bucket in a million
SEEN_BITS = 23  # more of them, by which most people without any label are told without a look at a bucket (1 MiB)


@dataclass(frozen=True)
class _Index:
    """Labels in the order of the hash of their person; those of bucket b stand from starts[b] to starts[b + 1].

    seen: a bit for every beginning of a hash, set where a label's begins so.
    """

    who: NDArray[np.uint64]
    day: NDArray[np.int32]
    at_label: NDArray[np.uint32]
    starts: NDArray[np.int32]
    seen: NDArray[np.uint8]


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
    pairs = pl.concat(_over_slices(left, lambda _, part: _near(part, index, keep=keep)))
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
    packed = np.packbits(seen, bitorder="little")
    return _Index(who, rows["day"].to_numpy(), rows["at"].to_numpy(), starts.astype(np.int32), packed)


def _first(bits: int, who: NDArray[np.uint64]) -> NDArray[np.int32]:
    """The first bits of hashes, as numbers."""
    return (who >> np.uint64(64 - bits)).astype(np.int32)


def _is_seen(who: NDArray[np.uint64], index: _Index) -> NDArray[np.bool_]:
    """True where a label's hash begins as this one; the table is small enough to stay near the processor."""
    bits = _first(SEEN_BITS, who)
    found = (index.seen[bits >> 3] >> (bits & 7).astype(np.uint8)) & 1
    is_seen: NDArray[np.bool_] = found.view(np.bool_)
    return is_seen


def _over_slices(rows: pl.LazyFrame, work: Callable[[int, pl.DataFrame], pl.DataFrame]) -> list[pl.DataFrame]:
    """What becomes of every slice, given the number of its first row; the next one is read meanwhile.

    One slice without rows where there are none. Two slices at work would be slower: they share the threads of Polars.
    """
    n = rows.select(pl.len()).collect().item()
    done = []
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(rows.slice(0, SLICE).collect)
        for start in range(0, max(n, 1), SLICE):
            part = coming.result()
            if start + SLICE < n:
                coming = reader.submit(rows.slice(start + SLICE, SLICE).collect)
            done.append(work(start, part))
    return done


def _near(series: pl.DataFrame, index: _Index, *, keep: pl.Expr | None) -> pl.DataFrame:
    """Series beside the row numbers of the labels that may be of the same person."""
    rows = _hashed(series, day="image_date")
    who = rows["who"].to_numpy()
    rows = rows.filter(_is_seen(who, index)).rechunk()  # hardly any but people with labels
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
    return _taken(series, near["at"].to_numpy()).with_columns(near[GAP], near["at_label"])


def _at(labels: pl.LazyFrame, wanted: pl.Series) -> pl.DataFrame:
    """The rows of the wanted numbers, in their order."""
    rows = np.unique(wanted.to_numpy())

    def of_slice(start: int, part: pl.DataFrame) -> pl.DataFrame:
        first, last = np.searchsorted(rows, [start, start + part.height])
        return _taken(part, rows[first:last] - start)

    return pl.concat(_over_slices(labels, of_slice), rechunk=True)[np.searchsorted(rows, wanted.to_numpy())]


def _taken(rows: pl.DataFrame, at: NDArray[Any]) -> pl.DataFrame:
    """Rows by number, which may repeat; by way of a mask, since text of several chunks is slow to gather by number.

    Text is written anew: as it stands it would hold the text of all rows in memory.
    """
    is_wanted = np.zeros(rows.height, dtype=np.bool_)
    is_wanted[at] = True
    place = np.cumsum(is_wanted, dtype=np.int32) - 1
    kept = rows.filter(is_wanted).with_columns(pl.col(pl.String) + "").rechunk()
    return kept[pl.Series(place[at])]
