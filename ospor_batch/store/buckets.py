"""Which bucket of a catalog table a row lies in: its center, and for large tables a share of a keyed hash."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import polars as pl

from ospor_batch.contracts import contract

BUCKET = "bucket"
TOGETHER = "all"  # in place of a number: data files with rows of any bucket, of commits too small to be parted


def full_key(table: str) -> list[str]:
    """The primary key, with the column that a table is bucketed by: versions of a row are sought in one bucket only."""
    of = contract(table)
    by = [] if of.bucket_by is None or of.bucket_by in of.primary_key else [of.bucket_by]
    return [*of.primary_key, *by]


def n_buckets(table: str) -> int:
    """Buckets that a center's rows of a table are spread over."""
    return contract(table).n_buckets


def number_of(key: pl.Expr, table: str) -> pl.Expr:
    """Bucket number of a keyed hash, from 0: its first two digits, modulo the number of buckets."""
    return key.str.head(2).str.to_integer(base=16, strict=False) % n_buckets(table)


def with_bucket(rows: pl.DataFrame, table: str) -> pl.DataFrame:
    """Add the column ``bucket``: ``center``, or ``center-NN``."""
    by = contract(table).bucket_by
    if by is None:
        return rows.with_columns(pl.col("center").alias(BUCKET))
    number = number_of(pl.col(by), table).cast(pl.String).str.zfill(2)
    return rows.with_columns(pl.concat_str("center", pl.lit("-"), number).alias(BUCKET))


def names_of(table: str, center: str, numbers: Iterable[int] | None = None) -> list[str]:
    """Names of some buckets of a center, in the order given; of all where none are named."""
    if contract(table).bucket_by is None:
        return [center]
    return [f"{center}-{number:02d}" for number in (range(n_buckets(table)) if numbers is None else numbers)]


def together(table: str, center: str) -> str:
    """Name of what holds rows of any bucket of a center."""
    return center if contract(table).bucket_by is None else f"{center}-{TOGETHER}"


def bucket_groups(sizes: Sequence[int], *, most: int) -> list[range]:
    """Runs of bucket numbers with no more than so many rows in each, or with one bucket that alone has more."""
    groups, first, total = [], 0, 0
    for number, size in enumerate(sizes):
        if total and total + size > most:
            groups.append(range(first, number))
            first, total = number, 0
        total += size
    return [*groups, range(first, len(sizes))]
