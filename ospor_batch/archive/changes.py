"""Tonight's listing against the files already known: what must be read, what stays, what is gone."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from ospor_batch.archive.walk import LISTING_REFUSALS

TRANSIENT = ("permission_denied", "read_error")
NAME = ["archive", "path"]


@dataclass(frozen=True)
class Verdicts:
    """Every listed file in one of read, refused, waiting, unchanged; every known one not listed in kept or vanished.

    read, refused and waiting are listing rows with ``is_known``; the others are rows of the file contract. kept:
    files below a folder that could not be listed.
    """

    read: pl.DataFrame
    refused: pl.DataFrame
    waiting: pl.DataFrame
    unchanged: pl.DataFrame
    kept: pl.DataFrame
    vanished: pl.DataFrame


def compare(listing: pl.DataFrame, known: pl.DataFrame, *, reader_version: str, settled_before_ns: int | None) -> Verdicts:
    """Sort the listed and the known files; with settled_before_ns, files changed after it wait."""
    of = known.select(
        *NAME, "fate", "reason", "reader_version", known_size=pl.col("size_bytes"), known_mtime=pl.col("mtime_ns")
    )
    judged = listing.join(of, on=NAME, how="left", maintain_order="left").with_columns(
        is_known=pl.col("known_size").is_not_null(),
        is_same=(pl.col("known_size") == pl.col("size_bytes")) & (pl.col("known_mtime") == pl.col("mtime_ns")),
    )
    may_stay = (
        pl.col("is_same")
        & (pl.col("fate") != "waiting")
        & (pl.col("reader_version") == reader_version)
        & ~pl.col("reason").is_in([*LISTING_REFUSALS, *TRANSIENT]).fill_null(value=False)
    )
    must_wait = pl.lit(value=False) if settled_before_ns is None else pl.col("mtime_ns") > settled_before_ns
    judged = judged.with_columns(
        verdict=pl.when(pl.col("refusal").is_not_null())
        .then(pl.lit("refused"))
        .when(may_stay.fill_null(value=False))
        .then(pl.lit("unchanged"))
        .when(must_wait)
        .then(pl.lit("waiting"))
        .otherwise(pl.lit("read"))
    )
    absent = known.join(listing, on=NAME, how="anti", maintain_order="left")
    is_hidden = _below(absent, listing.filter(pl.col("is_folder")))
    same = judged.filter(pl.col("verdict") == "unchanged")
    columns = [*listing.columns, "is_known", "is_same"]
    read, refused, waiting = (judged.filter(verdict=name).select(columns) for name in ("read", "refused", "waiting"))
    return Verdicts(
        read=read,
        refused=refused,
        waiting=waiting,
        unchanged=known.join(same, on=NAME, how="semi", maintain_order="left"),
        kept=absent.filter(is_hidden),
        vanished=absent.filter(~is_hidden),
    )


def _below(rows: pl.DataFrame, folders: pl.DataFrame) -> pl.Series:
    """Whether each file lies below one of the folders that could not be listed."""
    hidden = pl.lit(value=False)
    for archive, path in folders.select(NAME).iter_rows():
        hidden = hidden | ((pl.col("archive") == archive) & pl.col("path").str.starts_with(f"{path}/"))
    return rows.select(is_hidden=pl.repeat(value=False, n=pl.len()) | hidden)["is_hidden"]
