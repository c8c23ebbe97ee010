"""Tonight's listing against the files already known: what must be read, what stays, what is gone."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import polars as pl

from ospor_batch.archive.walk import LISTING_REFUSALS, MOST_AHEAD_NS

TRANSIENT = ("permission_denied", "read_error")
NAME = ["archive", "path"]
NEEDED = ("archive", "path", "size_bytes", "mtime_ns", "fate", "reason", "reader_version")
"""Columns of the known files that compare looks at."""


@dataclass(frozen=True)
class Verdicts:
    """Every listed file in one of read, refused, waiting, unchanged; every known one not listed in kept or vanished.

    read, refused and waiting are listing rows with ``is_known`` and ``is_same``; the others are rows of the known
    files. read, refused and waiting are in the order of their names. kept: files below a folder that could not be listed.
    """

    read: pl.DataFrame
    refused: pl.DataFrame
    waiting: pl.DataFrame
    unchanged: pl.DataFrame
    kept: pl.DataFrame
    vanished: pl.DataFrame

    @property
    def is_quiet(self) -> bool:
        """Whether nothing of the catalog can change: every file is unchanged or hidden."""
        return not (self.read.height or self.refused.height or self.waiting.height or self.vanished.height)


def compare(
    listing: pl.DataFrame,
    known: pl.DataFrame,
    *,
    reader_version: str,
    settled_before_ns: int | None,
    hidden: pl.DataFrame | None = None,
) -> Verdicts:
    """Sort the listed and the known files of one share of the folders.

    settled_before_ns: files changed after it wait; null: none does. hidden: archive and path of the folders that
    could not be listed anywhere in the tree; null: those of the listing.
    """
    if known.height == 0:
        return _all_new(listing, nobody=known, settled_before_ns=settled_before_ns)
    of = known.select(
        *NAME, "fate", "reason", "reader_version", known_size=pl.col("size_bytes"), known_mtime=pl.col("mtime_ns")
    )
    judged = listing.join(of, on=NAME, how="left", maintain_order="left").with_columns(
        is_known=pl.col("known_size").is_not_null(),
        is_same=(pl.col("known_size") == pl.col("size_bytes")) & (pl.col("known_mtime") == pl.col("mtime_ns")),
    )
    judged = judged.with_columns(verdict=_verdict(reader_version, settled_before_ns=settled_before_ns))
    columns = [*listing.columns, "is_known", "is_same"]
    if _is_as_known(judged, known):
        none, nobody = judged.select(columns).clear(), known.clear()
        return Verdicts(read=none, refused=none, waiting=none, unchanged=known, kept=nobody, vanished=nobody)
    judged = judged.sort(NAME, maintain_order=True)
    absent = known.join(listing, on=NAME, how="anti", maintain_order="left")
    is_hidden = _below(absent, listing.filter(hiding()) if hidden is None else hidden)
    same = judged.filter(pl.col("verdict") == "unchanged")
    read, refused, waiting = (judged.filter(verdict=name).select(columns) for name in ("read", "refused", "waiting"))
    return Verdicts(
        read=read,
        refused=refused,
        waiting=waiting,
        unchanged=known.join(same, on=NAME, how="semi", maintain_order="left"),
        kept=absent.filter(is_hidden),
        vanished=absent.filter(~is_hidden),
    )


def _all_new(listing: pl.DataFrame, *, nobody: pl.DataFrame, settled_before_ns: int | None) -> Verdicts:
    """The verdicts where nothing is known: without joins, since that is every file of a first crawl."""
    rows = listing.sort(NAME, maintain_order=True).with_columns(is_known=pl.lit(value=False), is_same=pl.lit(None, pl.Boolean))
    is_refused = rows["refusal"].is_not_null()
    must_wait = rows.select(must_wait=_must_wait(settled_before_ns) & pl.col("mtime_ns").is_not_null())["must_wait"]
    is_plain = not (is_refused.any() or must_wait.any())  # as nearly every folder is
    return Verdicts(
        read=rows if is_plain else rows.filter(~is_refused & ~must_wait),
        refused=rows.clear() if is_plain else rows.filter(is_refused),
        waiting=rows.clear() if is_plain else rows.filter(~is_refused & must_wait),
        unchanged=nobody,
        kept=nobody,
        vanished=nobody,
    )


def _is_as_known(judged: pl.DataFrame, known: pl.DataFrame) -> bool:
    """Whether every listed file is unchanged and no known one is missing; most nights that is so for most folders.

    Both name a file once: what is listed twice is refused, and then not unchanged.
    """
    return judged.height == known.height and bool((judged["verdict"] == "unchanged").all())


def count_moved(gone: pl.Series, come: pl.Series) -> int:
    """How many that came are among those that are gone; each stands for one other at most."""
    if len(gone) == 0 or len(come) == 0:
        return 0
    left = gone.alias("what").value_counts(name="n_gone")
    both = left.join(come.alias("what").value_counts(name="n_come"), on="what")
    return int(both.select(pl.min_horizontal("n_gone", "n_come").sum()).item())


def _verdict(reader_version: str, *, settled_before_ns: int | None) -> pl.Expr:
    may_stay = (
        pl.col("is_same")
        & (pl.col("fate") != "waiting")
        & (pl.col("reader_version") == reader_version)
        & ~pl.col("reason").is_in([*LISTING_REFUSALS, *TRANSIENT]).fill_null(value=False)
    )
    return (
        pl.when(pl.col("refusal").is_not_null())
        .then(pl.lit("refused"))
        .when(may_stay.fill_null(value=False))
        .then(pl.lit("unchanged"))
        .when(_must_wait(settled_before_ns))
        .then(pl.lit("waiting"))
        .otherwise(pl.lit("read"))
    )


def _must_wait(settled_before_ns: int | None) -> pl.Expr:
    """What walk.waits says of one file, of a column."""
    if settled_before_ns is None:
        return pl.lit(value=False)
    return pl.col("mtime_ns").is_between(settled_before_ns, settled_before_ns + MOST_AHEAD_NS, closed="right")


def hiding() -> pl.Expr:
    """Which listed names may hide files below them: folders that could not be listed, and links to what is not there now."""
    return pl.col("is_folder") | (pl.col("refusal") == "broken_link").fill_null(value=False)


def _below(rows: pl.DataFrame, folders: pl.DataFrame) -> pl.Series:
    """Whether each file lies below one of the folders that could not be listed; there may be as many of these as folders."""
    closed = set(folders.select(NAME).iter_rows())
    names = rows.select(NAME).iter_rows() if closed else ()
    places = [(archive, path.rpartition("/")[0]) for archive, path in names]
    below = {place: _is_below(*place, closed=closed) for place in dict.fromkeys(places)}
    return pl.Series("is_hidden", [below[place] for place in places] if closed else [False] * rows.height, pl.Boolean)


def _is_below(archive: str, folder: str, *, closed: Collection[tuple[str, str]]) -> bool:
    while folder and (archive, folder) not in closed:
        folder = folder.rpartition("/")[0]
    return bool(folder)
