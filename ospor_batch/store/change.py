"""What a commit does to one catalog table, and how that is written: with its history, and as a data file of its own."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from ospor_batch.contracts.table import conform, schema_of, whole
from ospor_batch.store.buckets import BUCKET, full_key
from ospor_batch.store.parts import write_whole

HISTORY = schema_of("history")
VERSIONED = [name for name in HISTORY if name != BUCKET]


@dataclass(frozen=True)
class Change:
    """What a commit does to one catalog table.

    rows: new or changed rows in the contract's columns; retired: keys of rows that are gone (full_key: the primary
    key and, in a bucketed table, the column that it is bucketed by); is_parted: the rows are what contracts.table.part
    kept, so that their values need no second look.
    """

    rows: pl.DataFrame
    retired: pl.DataFrame | None = None
    is_parted: bool = False

    @property
    def is_empty(self) -> bool:
        return self.rows.height == 0 and (self.retired is None or self.retired.height == 0)


def stamped(table: str, change: Change, *, number: int) -> pl.DataFrame:
    """The rows of a change and the tombs of what it retires, with their history; number: of the commit."""
    stamp = {"sweep_number": pl.lit(number, pl.Int64)}
    sound = conform(change.rows, table) if change.is_parted else whole(change.rows, table)
    rows = sound.with_columns(**stamp, is_retired=pl.lit(value=False))
    if change.retired is not None and change.retired.height:
        key = full_key(table)
        gone = change.retired.select(key).unique(maintain_order=True)
        tombs = gone.join(change.rows.select(key), on=key, how="anti").with_columns(**stamp, is_retired=pl.lit(value=True))
        rows = pl.concat([rows, tombs], how="diagonal")
    return rows[[*schema_of(table), *VERSIONED]]


def write_data(table: str, change: Change, *, number: int, target: Path) -> int:
    """Write a change as a data file that a commit of that number can take as it is; return its rows.

    Whole or not at all; deltalake and the catalog are not needed for it, so a worker can.
    """
    rows = stamped(table, change, number=number)
    write_data_rows(rows, target=target)
    return rows.height


def write_data_rows(rows: pl.DataFrame, *, target: Path) -> None:
    """Write rows with their history as a data file."""
    content = io.BytesIO()
    rows.write_parquet(content, compression="zstd", compression_level=1)  # half the bytes of lz4, for a twentieth more time
    write_whole(content.getbuffer(), target=target)
