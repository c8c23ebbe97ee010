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
    fresh = [of.select("is_known", "is_same") for of in (verdicts.read, verdicts.refused, verdicts.waiting) if of.height]
    told = pl.concat(fresh) if fresh else verdicts.read
    is_known, is_same = told["is_known"], told["is_same"].fill_null(value=False)
    n_same = int((is_known & is_same).sum())
    stay = pl.concat([verdicts.unchanged, verdicts.kept])
    return Tally(
        n_new=told.height - int(is_known.sum()),
        n_changed=int(is_known.sum()) - n_same,
        n_vanished=verdicts.vanished.height,
        n_unchanged=stay.height + n_same,
        n_read=verdicts.read.height,
        waiting=verdicts.waiting.height,
        unreadable_folders=int(verdicts.refused["is_folder"].sum()),
        files=stay.height,
        done=int((stay["fate"] == "instance").sum()),
        transient=int(verdicts.kept["reason"].is_in(TRANSIENT).sum()),
    )


def counted_anew(fresh: pl.DataFrame) -> Tally:
    """Counts of files that were judged tonight."""
    return Tally(
        files=fresh.height,
        done=int((fresh["fate"] == "instance").sum()),
        transient=int(((fresh["fate"] == "reject") & fresh["is_transient"]).sum()),
    )


def instance_archives(files: pl.DataFrame) -> dict[str, int]:
    """Instances among some files, by archive."""
    return dict(files.filter(pl.col("fate") == "instance").group_by("archive").len().iter_rows())


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
