"""Series and labels of one person side by side: every pair, with the gap in whole days (methods M1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

GAP = "gap_days"  # of a pair: label date minus image date
PERSON = ("center", "patient_key")
LABEL_CENTER = "label_center"  # where the label was measured; another center only where a crosswalk joins two numbers
WHO = "patient_key"
Days = tuple[int, int]  # before and after, both inclusive

BUCKET_BITS = (4, 22)  # least and most first bits of the hash, by which entries are looked up: about one or two a bucket
DAY_BITS = 24  # last bits of an entry; the others are the first 40 of the hash, and collisions are settled by the keys
EPOCH = 2 ** (DAY_BITS - 1)  # 1970-01-01 as a day of an entry
EVER = 2**22  # days; dates of the years 1 to 9999 lie nearer to each other and to 1970
ROUNDS = 16  # steps to the first entry that is not too early, before it is looked for by halves: most people have few


@dataclass(frozen=True)
class _Index:
    """Who was seen when: entries (hash of the person, then the day) in order, and behind them the greatest number.

    bits: of the hash that name a bucket; starts: where its entries begin; tags: a byte a bucket, whose bits tell most hashes
    that it lacks.
    """

    bits: int
    entries: NDArray[np.uint64]
    starts: NDArray[np.int32]
    tags: NDArray[np.uint8]

    def is_near(self, rows: pl.Series, days: Days) -> pl.Series:
        """Whether an entry of the person lies within so many days before and after; of another one with luck of the hash.

        rows: structs of who and day. Works on numbers alone, outside the lock of Python, so that slices run side by side.
        """
        who, day = (rows.struct.field(name).to_numpy() for name in ("who", "day"))
        left = np.flatnonzero(self.tags.take(_bucket(who, self.bits)) & _tag(who))
        earliest, width = _entry(who.take(left), day.take(left) - np.int32(days[0])), np.uint64(sum(days))
        at = self.starts.take(_bucket(earliest, self.bits)).astype(np.int64)
        found = np.zeros(len(rows), dtype=np.bool_)
        for _ in range(ROUNDS):
            entry = self.entries.take(at)
            found[left[entry - earliest <= width]] = True
            early = np.flatnonzero(entry < earliest)
            at, earliest, left = at.take(early) + 1, earliest.take(early), left.take(early)
            if not len(left):
                break
        entry = self.entries.take(np.searchsorted(self.entries, earliest))
        found[left[entry - earliest <= width]] = True
        return pl.Series(found)


def pair(
    series: pl.DataFrame | pl.LazyFrame, labels: pl.DataFrame | pl.LazyFrame, *, within: Days | None = None
) -> pl.DataFrame:
    """Pair every series with every label of the same person, whatever study or center, with the gap in whole days.

    Columns that both have are those of the series; within: days of the label before and after the image, any number where it
    is None. Series near a label are found by a hash of their person while they are read, then labels near one of these, so
    that no more than these are held as text; then the keys themselves are joined, so that two people of one hash never meet.
    """
    left, right = series.lazy(), labels.lazy()
    ours = left.collect_schema().names()
    own = [column for column in right.collect_schema().names() if column not in ours or column in PERSON]
    before, after = (min(days, EVER) for days in within or (EVER, EVER))
    images = _near(left, "image_date", of=_index(right, "label_date"), days=(before, after))
    drawn = _near(right.select(own), "label_date", of=_index(images.lazy(), "image_date"), days=(after, before))
    found = _joined(images, drawn).filter(in_window(before_days=before, after_days=after))
    given = drawn.drop(WHO).rename({"center": LABEL_CENTER})[found["label"]]
    return images[found["image"]].hstack([found[GAP]]).hstack(given)


def in_window(*, before_days: int, after_days: int) -> pl.Expr:
    """True where the label lies inside the window, both ends inclusive."""
    return pl.col(GAP).is_between(-before_days, after_days, closed="both")


def _near(rows: pl.LazyFrame, day: str, *, of: _Index, days: Days) -> pl.DataFrame:
    """The rows near an entry; the others are left out by the reader before their other columns become text.

    Text is written anew: as it stands it would hold all that was read in memory.
    """
    seen = pl.struct(who=_who(), day=pl.col(day).to_physical().fill_null(0))
    is_near = seen.map_batches(lambda part: of.is_near(part, days), return_dtype=pl.Boolean, is_elementwise=True)
    return rows.filter(is_near).with_columns(pl.col(pl.String) + "").collect(engine="streaming").rechunk()


def _joined(images: pl.DataFrame, labels: pl.DataFrame) -> pl.DataFrame:
    """Row numbers of image and label of every pair, in order, with the gap."""
    mine = images.lazy().select(WHO, "image_date").with_row_index("image")
    theirs = labels.lazy().select(WHO, "label_date").with_row_index("label")
    gap = (pl.col("label_date") - pl.col("image_date")).dt.total_days()
    pairs = mine.join(theirs, on=WHO, maintain_order="left_right")
    return pairs.select("image", "label", gap.alias(GAP)).collect()


def _index(rows: pl.LazyFrame, day: str) -> _Index:
    known = rows.filter(pl.col(WHO).is_not_null(), pl.col(day).is_not_null())
    seen = known.select(who=_who(), day=pl.col(day).to_physical()).collect(engine="streaming")
    entries = pl.Series(_entry(seen["who"].to_numpy(), seen["day"].to_numpy()), dtype=pl.UInt64).sort().to_numpy()
    bits = min(max(len(entries).bit_length(), BUCKET_BITS[0]), BUCKET_BITS[1])
    bucket, tags = _bucket(entries, bits), np.zeros(2**bits, dtype=np.uint8)
    np.bitwise_or.at(tags, bucket, _tag(entries))
    starts = np.zeros(2**bits + 1, dtype=np.int32)
    np.cumsum(np.bincount(bucket, minlength=2**bits), out=starts[1:])
    return _Index(bits, np.append(entries, ~np.uint64(0)), starts, tags)


def _who() -> pl.Expr:
    return pl.col(WHO).hash()


def _entry(who: NDArray[np.uint64], day: NDArray[np.int32]) -> NDArray[np.uint64]:
    return (who & ~np.uint64(2**DAY_BITS - 1)) | (day + np.int32(EPOCH)).astype(np.uint64)


def _bucket(who: NDArray[np.uint64], bits: int) -> NDArray[np.int64]:
    return (who >> np.uint64(64 - bits)).view(np.int64)


def _tag(who: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """One of eight bits, by bits of the hash that the bucket does not depend on."""
    tag: NDArray[np.uint8] = np.left_shift(np.uint8(1), (who >> np.uint64(DAY_BITS)).astype(np.uint8) & np.uint8(7))
    return tag
