"""One Delta table on disk, appended to in buckets; deltalake is imported here, late, and nowhere else."""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from ospor_batch.store.buckets import BUCKET

if TYPE_CHECKING:
    from deltalake import DeltaTable

# a version named by a kept run must stay readable for years: the log of a table is never cut
CONFIGURATION = {
    "delta.enableExpiredLogCleanup": "false",
    "delta.logRetentionDuration": "interval 36500 days",
    "delta.dataSkippingNumIndexedCols": "0",  # bounds stand in the data files: in the log they made it four times as long
    "delta.checkpointInterval": "10",  # commits that a reader takes one by one: Delta's own default; deltalake's is 100
}
COMPACT_BYTES = 256 * 1024 * 1024  # files that large are left as they are
SMALL_BYTES = 8 * 1024 * 1024  # files below may be merged often: a whole table of such buckets is written within seconds
ENTRY = re.compile(r"^(\d{20})\.json$")


class DeltaDoor:
    """One table; a version is null for the newest."""

    def __init__(self, folder: Path, *, name: str, is_bucketed: bool) -> None:
        self.folder = folder
        self.name = name
        self.is_bucketed = is_bucketed

    @property
    def exists(self) -> bool:
        return self.version() >= 0

    def version(self) -> int:
        """The newest version, by the names of the log alone, which is never cut; -1 where there is none."""
        try:
            entries = map(ENTRY.match, os.listdir(self.folder / "_delta_log"))  # noqa: PTH208 -- hundreds of names at each look
        except FileNotFoundError:
            return -1
        return max((int(entry.group(1)) for entry in entries if entry), default=-1)

    def scan(
        self,
        schema: pl.Schema,
        *,
        version: int | None,
        buckets: Collection[str] | None = None,
        also: tuple[str, pl.Expr] | None = None,
    ) -> pl.LazyFrame:
        """Rows of a version, of some buckets only; columns that older files do not have are null.

        also: one more bucket, of which only some rows are wanted.
        """
        added = self._added(version)
        found = [_scan(self._at(path for path in added if buckets is None or _bucket(path) in buckets), schema)]
        if also is not None and (files := self._at(path for path in added if _bucket(path) == also[0])):
            found.append(_scan(files, schema).filter(also[1]))
        return pl.concat(found)

    def n_rows(self, version: int | None) -> dict[str | None, int]:
        """Rows of every bucket, read from the log alone."""
        added = pl.DataFrame(self._open(version).get_add_actions(flatten=True))
        found: Counter[str | None] = Counter()
        for file, n in added.select("path", "num_records").iter_rows():
            found[_bucket(file)] += n
        return found

    def append(self, rows: pl.DataFrame, *, description: str) -> int:
        """Append rows in one Delta commit and return its version."""
        from deltalake import write_deltalake  # late: 0.2 s

        table = self._open(None) if self.exists else self._create(rows.schema, description=description)
        arrow = rows.to_arrow(compat_level=pl.CompatLevel.oldest())
        write_deltalake(table, arrow, mode="append", schema_mode="merge", partition_by=self._by)
        return int(table.version())

    def adopt(self, files: Sequence[tuple[Path, int]], *, schema: pl.Schema, bucket: str, description: str) -> int:
        """Take data files and their numbers of rows as they are, in one Delta commit, and return its version.

        They stay where they lie; the table gets names of its own for them, which sort in the order given.
        """
        from deltalake.transaction import AddAction

        table = self._ready(schema, description=description)
        mark, actions = uuid.uuid4().hex, []
        (self.folder / f"{BUCKET}={bucket}").mkdir(exist_ok=True)
        for number, (source, n_rows) in enumerate(files):
            path = f"{BUCKET}={bucket}/part-{number:06d}-{mark}.parquet"
            _link(source, self.folder / path)
            told = (self.folder / path).stat()
            stats = f'{{"numRecords": {n_rows}}}'
            actions.append(AddAction(path, told.st_size, {BUCKET: bucket}, told.st_mtime_ns // 10**6, True, stats))  # noqa: FBT003
        table.create_write_transaction(actions, "append", table.schema(), [BUCKET])
        return self.version()

    def drop(self, bucket: str) -> int:
        """Take all data files of a bucket out of the table and return the version that has none."""
        table = self._open(None)
        table.delete(f"{BUCKET} = '{bucket}'")
        return int(table.version())

    def put_back(self, version: int) -> int:
        """Restore a version when the table stands ahead of it; return the version that then holds its rows."""
        if self.version() <= version:
            return version
        self._open(None).restore(version)
        return self.version()

    def compact(self, *, most_files: int) -> int:
        """Merge the files of every bucket that has more than so many; return how many files were merged.

        Small files are merged sooner, all in one commit: when there are half as many more than buckets, and so many.
        """
        merged = 0
        for bucket, n in sorted(self._n_files().items()):
            if n > most_files:
                filters = [(BUCKET, "=", bucket)] if self.is_bucketed else None
                merged += _merged(self._open(None), target_size=COMPACT_BYTES, partition_filters=filters)
        held = self._n_files()
        if sum(held.values()) > len(held) * 3 // 2 + most_files:
            merged += _merged(self._open(None), target_size=SMALL_BYTES)
        return merged

    def vacuum(self, *, keep: Iterable[int], grace_hours: int) -> None:
        """Delete files that no kept version names and that left the table before the grace."""
        self._open(None).vacuum(
            retention_hours=grace_hours, dry_run=False, enforce_retention_duration=False, keep_versions=sorted(keep)
        )

    @property
    def _by(self) -> list[str] | None:
        return [BUCKET] if self.is_bucketed else None

    def _create(self, schema: pl.Schema, *, description: str) -> DeltaTable:
        from deltalake import DeltaTable

        self.folder.mkdir(parents=True, exist_ok=True)
        return DeltaTable.create(
            str(self.folder), schema=_arrow(schema), name=self.name, description=description, partition_by=self._by,
            configuration=CONFIGURATION,
        )  # fmt: skip

    def _ready(self, schema: pl.Schema, *, description: str) -> DeltaTable:
        """The table, with every column of a schema."""
        if not self.exists:
            return self._create(schema, description=description)
        from deltalake import Schema

        table = self._open(None)
        held = {field.name for field in table.schema().fields}
        if lacking := [field for field in Schema.from_arrow(_arrow(schema)).fields if field.name not in held]:
            table.alter.add_columns(lacking)
            table = self._open(None)
        return table

    def _open(self, version: int | None) -> DeltaTable:
        from deltalake import DeltaTable

        return DeltaTable(str(self.folder), version=version)

    def files_of(self, bucket: str) -> list[tuple[Path, int]]:
        """Data files of a bucket in the newest version, with their numbers of rows."""
        added = pl.DataFrame(self._open(None).get_add_actions(flatten=True)).sort("path")
        return [
            (self.folder / path, n) for path, n in added.select("path", "num_records").iter_rows() if _bucket(path) == bucket
        ]

    def _files(self, version: int | None, *, buckets: Collection[str] | None) -> list[str]:
        # not file_uris(): it writes the workspace as a URL, and a folder may hold blanks, brackets and letters of any kind
        return self._at(path for path in self._added(version) if buckets is None or _bucket(path) in buckets)

    def _added(self, version: int | None) -> pl.Series:
        return pl.DataFrame(self._open(version).get_add_actions(flatten=True))["path"].sort()

    def _at(self, paths: Iterable[str]) -> list[str]:
        return [str(self.folder / path) for path in paths]

    def _n_files(self) -> dict[str | None, int]:
        return Counter(_bucket(file) if self.is_bucketed else None for file in self._files(None, buckets=None))


def _scan(files: list[str], schema: pl.Schema) -> pl.LazyFrame:
    if not files:
        return pl.LazyFrame(schema=schema)
    return pl.scan_parquet(
        files, schema=schema, missing_columns="insert", extra_columns="ignore", hive_partitioning=False, glob=False
    )


def _arrow(schema: pl.Schema) -> Any:
    return pl.DataFrame(schema=schema).to_arrow(compat_level=pl.CompatLevel.oldest()).schema


def _link(source: Path, target: Path) -> None:
    """A second name for a file; a copy where the file system has none."""
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, target)


def _merged(table: DeltaTable, **how: Any) -> int:
    return int(table.optimize.compact(**how)["numFilesRemoved"])


def _bucket(file: str) -> str | None:
    """The bucket that stands in a file's name, as ``.../bucket=north-07/part-....parquet``."""
    parts = file.split("/")  # the names of centers, and so of buckets, need no quoting
    return next((part.partition("=")[2] for part in reversed(parts) if part.startswith(f"{BUCKET}=")), None)
