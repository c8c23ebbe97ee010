"""What a crawl counts: files by what became of them, as a ledger that closes."""

from __future__ import annotations

from dataclasses import dataclass, fields

import polars as pl

from ospor_batch.archive.changes import TRANSIENT, Verdicts
from ospor_batch.stages.summary import StageSummary
from ospor_batch.store import SweepCounts


@dataclass
class Tally:
    """Counts of a crawl, summed over groups of buckets."""

    n_new: int = 0
    n_changed: int = 0
    n_vanished: int = 0
    n_unchanged: int = 0
    n_read: int = 0
    waiting: int = 0
    unreadable_folders: int = 0
    files: int = 0
    done: int = 0
    transient: int = 0

    def add(self, other: Tally) -> None:
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))


def as_they_were(quiet: pl.DataFrame) -> Tally:
    """Counts of buckets in which nothing had to be compared."""
    n_files, n_instances = (int(quiet[name].sum()) for name in ("n_files", "n_instances"))
    return Tally(n_unchanged=n_files, files=n_files, done=n_instances)


def counted(verdicts: Verdicts) -> Tally:
    """Counts that a group's verdicts give before anything is read."""
    fresh = pl.concat([verdicts.read, verdicts.refused, verdicts.waiting])
    is_new, is_same = pl.col("is_known").not_(), pl.col("is_same").fill_null(value=False)
    stay = pl.concat([verdicts.unchanged, verdicts.kept])
    return Tally(
        n_new=fresh.filter(is_new).height,
        n_changed=fresh.filter(~is_new & ~is_same).height,
        n_vanished=verdicts.vanished.height,
        n_unchanged=stay.height + fresh.filter(~is_new & is_same).height,
        n_read=verdicts.read.height,
        waiting=verdicts.waiting.height,
        unreadable_folders=verdicts.refused.filter("is_folder").height,
        files=stay.height,
        done=stay.filter(pl.col("fate") == "instance").height,
        transient=verdicts.kept.filter(pl.col("reason").is_in(TRANSIENT)).height,
    )


def counted_anew(fresh: pl.DataFrame) -> Tally:
    """Counts of files that were judged tonight."""
    is_transient = (pl.col("fate") == "reject") & pl.col("is_transient")
    return Tally(
        files=fresh.height,
        done=fresh.filter(pl.col("fate") == "instance").height,
        transient=fresh.filter(is_transient).height,
    )


def sweep_counts(tally: Tally, *, n_moved: int) -> SweepCounts:
    return SweepCounts(
        n_new=tally.n_new - n_moved,
        n_changed=tally.n_changed,
        n_moved=n_moved,
        n_vanished=tally.n_vanished - n_moved,
        n_unchanged=tally.n_unchanged,
        n_read=tally.n_read,
    )


def crawl_summary(center: str, tally: Tally, *, n_moved: int) -> StageSummary:
    """The whole catalog's ledger; failed: what may succeed on another try."""
    counts = sweep_counts(tally, n_moved=n_moved)
    notes = {
        "new": counts.n_new,
        "changed": counts.n_changed,
        "moved": counts.n_moved,
        "vanished": counts.n_vanished,
        "unchanged": counts.n_unchanged,
        "read": counts.n_read,
        "waiting": tally.waiting,
        "unreadable folders": tally.unreadable_folders,
    }
    excluded = tally.files - tally.done - tally.transient
    return StageSummary("crawl", center, "file", tally.files, tally.done, excluded, tally.transient, tuple(notes.items()))
