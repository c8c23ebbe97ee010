"""The only door to tables on disk: Delta tables for the catalog, atomic Parquet parts for runs."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from ospor_batch import __version__
from ospor_batch.contracts import contract, contract_names
from ospor_batch.contracts.table import conform, empty, refuse_shared_keys, schema_of, whole
from ospor_batch.errors import ContractError, LockedError, StorageError

if TYPE_CHECKING:
    from deltalake import DeltaTable

HISTORY = schema_of("history")
FULL_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
FULL_DISK_WORDS = ("no space left", "os error 28", "file too large", "disk quota", "read-only file system")


@dataclass(frozen=True)
class Change:
    """What a commit does to one catalog table.

    rows: new or changed rows in the contract's columns; retired: primary keys of rows that are gone.
    """

    rows: pl.DataFrame
    retired: pl.DataFrame | None = None

    @property
    def is_empty(self) -> bool:
        return self.rows.height == 0 and (self.retired is None or self.retired.height == 0)


@dataclass(frozen=True)
class SweepCounts:
    """What a stage found: items new, changed, vanished and unchanged, and files opened."""

    n_new: int = 0
    n_changed: int = 0
    n_vanished: int = 0
    n_unchanged: int = 0
    n_read: int = 0


class Store:
    """The tables of one workspace; private tables lie under ``private/``, mode 0700."""

    def __init__(self, workspace: Path) -> None:
        self.workspace = workspace
        self.private = workspace / "private"
        self._locks = 0
        with storage_errors():
            self.private.mkdir(parents=True, exist_ok=True)
            self.private.chmod(0o700)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the writer lock of the workspace; readers are never kept out. LockedError when it is taken."""
        if self._locks:
            self._locks += 1
            try:
                yield
            finally:
                self._locks -= 1
            return
        with (self.private / "writer.lock").open("a") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise LockedError(
                    f"{self.workspace}: another run or sweep is writing to this workspace; wait until it ends"
                ) from None
            self._locks = 1
            try:
                yield
            finally:
                self._locks = 0

    def snapshot(self) -> dict[str, int]:
        """Version of every catalog table as the last commit left it; empty before the first."""
        last = self._last_sweep()
        return {} if last is None else dict(sorted(json.loads(last[1]).items()))

    def sweeps(self) -> pl.DataFrame:
        """Every commit of the catalog, oldest first."""
        if not self._exists("sweep"):
            return empty("sweep")
        return conform(self._rows("sweep", None).select(contract("sweep").columns), "sweep").sort("sweep_number")

    def current(
        self,
        table: str,
        *,
        center: str | None = None,
        snapshot: Mapping[str, int] | None = None,
        columns: Sequence[str] | None = None,
    ) -> pl.DataFrame:
        """Rows of a catalog table as of a snapshot (default: the last commit), sorted by primary key."""
        of = contract(table)
        if not of.is_catalog:
            raise ContractError(f"{table} is no catalog table")
        version = (self.snapshot() if snapshot is None else snapshot).get(table)
        if version is None:
            return empty(table).select(columns or of.columns)
        rows = self._rows(table, version)
        if center is not None:
            rows = rows.filter(pl.col("center") == center)
        key = list(of.primary_key)
        last = rows.sort("sweep_number", maintain_order=True).unique(subset=key, keep="last", maintain_order=True)
        return last.filter(~pl.col("is_retired")).sort(key).select(columns or of.columns)

    def difference(self, table: str, rows: pl.DataFrame, *, scope: pl.Expr) -> Change:
        """The change after which the rows of the table within scope are exactly these."""
        rows = conform(rows, table)
        key = list(contract(table).primary_key)
        known = self.current(table).filter(scope)
        changed = rows.join(known, on=rows.columns, how="anti", nulls_equal=True)
        return Change(changed, known.select(key).join(rows.select(key), on=key, how="anti", nulls_equal=True))

    def commit(self, changes: Mapping[str, Change], *, stage: str, center: str, counts: SweepCounts) -> int | None:
        """Append every change, then the sweep row that makes them visible; None when nothing changed.

        A crash before the sweep row leaves tables that stand ahead of it; the next commit first puts them back.
        """
        changes = {table: change for table, change in changes.items() if not change.is_empty}
        if not changes:
            return None
        started = datetime.now(UTC)
        with self.lock(), storage_errors():
            last = self._last_sweep()
            number = 1 if last is None else last[0] + 1
            versions = {} if last is None else dict(json.loads(last[1]))
            self._put_back(versions)
            for table in sorted(changes):
                versions[table] = self._append(table, changes[table], number=number)
            row = {
                "sweep_number": number,
                "stage": stage,
                "center": center,
                "versions": json.dumps(versions, sort_keys=True),
                "n_new": counts.n_new,
                "n_changed": counts.n_changed,
                "n_vanished": counts.n_vanished,
                "n_unchanged": counts.n_unchanged,
                "n_read": counts.n_read,
                "started_at": started,
                "finished_at": datetime.now(UTC),
                "code_version": __version__,
            }
            self._write("sweep", whole(pl.DataFrame([row], schema=schema_of("sweep")), "sweep"))
        return number

    def _folder(self, table: str) -> Path:
        door = self.private if contract(table).access == "private" else self.workspace
        return door / "catalog" / table

    def _exists(self, table: str) -> bool:
        return (self._folder(table) / "_delta_log").is_dir()

    def _open(self, table: str, version: int | None) -> DeltaTable:
        from deltalake import DeltaTable  # late: 0.2 s

        return DeltaTable(str(self._folder(table)), version=version)

    def _rows(self, table: str, version: int | None) -> pl.DataFrame:
        rows = pl.from_arrow(self._open(table, version).to_pyarrow_table())
        assert isinstance(rows, pl.DataFrame)
        wanted = {**schema_of(table), **({} if table == "sweep" else HISTORY)}
        return rows.with_columns(pl.lit(None, dtype).alias(c) for c, dtype in wanted.items() if c not in rows.columns)

    def _last_sweep(self) -> tuple[int, str] | None:
        rows = self.sweeps()
        return None if rows.height == 0 else (rows["sweep_number"][-1], rows["versions"][-1])

    def _put_back(self, versions: Mapping[str, int]) -> None:
        for table in contract_names():
            if contract(table).is_catalog and table != "sweep" and self._exists(table):
                at = self._open(table, None)
                if at.version() > versions.get(table, 0):
                    at.restore(versions.get(table, 0))

    def _append(self, table: str, change: Change, *, number: int) -> int:
        rows = whole(change.rows, table).with_columns(sweep_number=pl.lit(number, pl.Int64), is_retired=pl.lit(value=False))
        if change.retired is not None and change.retired.height:
            key = list(contract(table).primary_key)
            gone = change.retired.select(key).join(change.rows.select(key), on=key, how="anti")
            tombs = gone.with_columns(sweep_number=pl.lit(number, pl.Int64), is_retired=pl.lit(value=True))
            rows = pl.concat([rows, tombs], how="diagonal")
        return self._write(table, rows.select(*schema_of(table), *HISTORY))

    def _write(self, table: str, rows: pl.DataFrame) -> int:
        from deltalake import DeltaTable, write_deltalake

        folder = self._folder(table)
        if not self._exists(table):
            folder.mkdir(parents=True, exist_ok=True)
            empty_rows = rows.clear().to_arrow(compat_level=pl.CompatLevel.oldest())
            description = f"{contract(table).id} {contract(table).digest}"
            DeltaTable.create(str(folder), schema=empty_rows.schema, name=table, description=description)
        write_deltalake(str(folder), rows.to_arrow(compat_level=pl.CompatLevel.oldest()), mode="append", schema_mode="merge")
        return int(self._open(table, None).version())


def write_part(rows: pl.DataFrame, name: str, *, target: Path, stamp: Mapping[str, str] | None = None) -> None:
    """Write a whole part, or nothing: checked, stamped, and renamed only when its bytes are complete."""
    write_rows(whole(rows, name), target=target, metadata=contract(name).stamp(**(stamp or {})))


def read_part(name: str, *, source: Path) -> pl.DataFrame:
    """Read a part and hold its columns and key against the contract."""
    if not source.is_file():
        raise ContractError(f"{name}: no part {source.name} in {source.parent.name}; run the stage that writes it")
    rows = conform(pl.read_parquet(source), name)
    refuse_shared_keys(rows, name)
    return rows


def write_rows(rows: pl.DataFrame, *, target: Path, metadata: dict[str, str] | None = None) -> None:
    """Write rows of no contract as Parquet, whole or not at all; for what a stage stages for itself."""
    # by way of memory: the Parquet writer hides a full disk behind an error of its own
    content = io.BytesIO()
    rows.write_parquet(content, metadata=metadata)
    _write_whole(content.getbuffer(), target)


def write_text(text: str, *, target: Path) -> None:
    """Write a whole text file, or nothing."""
    _write_whole(text.encode(), target)


def _write_whole(content: bytes | memoryview, target: Path) -> None:
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.unfinished")
    with storage_errors(remove=unfinished):
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(content)
        unfinished.replace(target)


@contextlib.contextmanager
def storage_errors(*, remove: Path | None = None) -> Iterator[None]:
    """Turn a full or refusing disk into StorageError; remove an unfinished file on any failure."""
    try:
        yield
    except BaseException as error:
        if remove is not None:
            with contextlib.suppress(OSError):
                remove.unlink(missing_ok=True)
        if _is_full_disk(error):
            raise StorageError(
                "the disk that holds the workspace is full or refuses to write; free space and run again: finished work is kept"
            ) from None
        raise


def _is_full_disk(error: BaseException) -> bool:
    if isinstance(error, StorageError):
        return False
    if isinstance(error, OSError) and error.errno in FULL_DISK:
        return True
    # deltalake and polars wrap the system's error in text of their own
    return isinstance(error, Exception) and any(word in str(error).lower() for word in FULL_DISK_WORDS)
