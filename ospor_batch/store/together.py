"""Rows of any bucket that lie together, so that small commits write few files; parted over buckets when they are many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl

from ospor_batch.contracts import contract
from ospor_batch.contracts.table import schema_of
from ospor_batch.store.buckets import TOGETHER, together, with_bucket
from ospor_batch.store.change import HISTORY
from ospor_batch.store.delta import DeltaDoor

MOST_TOGETHER = 200_000  # rows of a center that lie together, whatever their bucket: whoever reads buckets sifts them all
RUN_ROWS = 24_000  # parted at once: 0.2 GB
DataFile = tuple[Path, int]
"""A data file that write_data wrote, and its number of rows."""


def append(door: DeltaDoor, rows: pl.DataFrame) -> int:
    """Append rows with their history, each to its bucket; the version that then stands."""
    return door.append(_in_buckets(rows, door.name), description=description(door.name))


def adopt(door: DeltaDoor, files: Sequence[DataFile], *, center: str) -> int:
    """Take data files as they are, or part their rows over the buckets where too many would lie together."""
    table, name = door.name, together(door.name, center)
    held = door.n_rows(None).get(name, 0) if door.exists else 0
    if contract(table).bucket_by is not None and held + sum(n for _, n in files) > MOST_TOGETHER:
        return _part(door, files)
    schema = pl.Schema(schema_of(table) | HISTORY)
    return door.adopt(files, schema=schema, bucket=name, description=description(table))


def part_again(door: DeltaDoor) -> int:
    """Part what lies together in a table over its buckets, where it is much; return how many files it had."""
    if contract(door.name).bucket_by is None:
        return 0
    n_files = 0
    for name, n_rows in door.n_rows(None).items():
        if name is not None and name.endswith(f"-{TOGETHER}") and n_rows > MOST_TOGETHER // 2:
            files = door.files_of(name)
            _part(door, files)
            door.drop(name)
            n_files += len(files)
    return n_files


def description(table: str) -> str:
    return f"{contract(table).id} {contract(table).digest}"


def _part(door: DeltaDoor, files: Sequence[DataFile]) -> int:
    version = -1
    for run in _runs(files):
        version = append(door, pl.concat([pl.read_parquet(path) for path in run], how="diagonal"))
    return version


def _in_buckets(rows: pl.DataFrame, table: str) -> pl.DataFrame:
    return with_bucket(rows, table).select(*schema_of(table), *HISTORY)


def _runs(files: Sequence[DataFile]) -> Iterator[list[Path]]:
    """Files with at most RUN_ROWS rows at a time, or one file that alone has more."""
    run, n = list[Path](), 0
    for path, n_rows in files:
        if run and n + n_rows > RUN_ROWS:
            yield run
            run, n = [], 0
        run.append(path)
        n += n_rows
    if run:
        yield run
