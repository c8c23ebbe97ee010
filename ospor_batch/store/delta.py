"""One Delta table on disk, appended to in buckets; deltalake is imported here, late, and nowhere else."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Iterable
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

    def scan(self, schema: pl.Schema, *, version: int | None, buckets: Collection[str] | None = None) -> pl.LazyFrame:
        """Rows of a version, of some buckets only; columns that older files do not have are null."""
        files = self._files(version, buckets=buckets)
        if not files:
            return pl.LazyFrame(schema=schema)
        return pl.scan_parquet(
            files, schema=schema, missing_columns="insert", extra_columns="ignore", hive_partitioning=False, glob=False
        )

    def n_rows(self, version: int | None) -> dict[str | None, int]:
        """Rows of every bucket, read from the log alone."""
        added = pl.DataFrame(self._open(version).get_add_actions(flatten=True))
        found: Counter[str | None] = Counter()
        for file, n in added.select("path", "num_records").iter_rows():
            found[_bucket(file)] += n
        return found

    def append(self, rows: pl.DataFrame, *, description: str) -> int:
        """Append rows in one Delta commit and return its version."""
        from deltalake import DeltaTable, write_deltalake  # late: 0.2 s

        by = [BUCKET] if self.is_bucketed else None
        arrow = rows.to_arrow(compat_level=pl.CompatLevel.oldest())
        if self.exists:
            table = self._open(None)
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            table = DeltaTable.create(
                str(self.folder), schema=arrow.schema, name=self.name, description=description, partition_by=by,
                configuration=CONFIGURATION,
            )  # fmt: skip
        write_deltalake(table, arrow, mode="append", schema_mode="merge", partition_by=by)
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

    def _open(self, version: int | None) -> DeltaTable:
        from deltalake import DeltaTable

        return DeltaTable(str(self.folder), version=version)

    def _files(self, version: int | None, *, buckets: Collection[str] | None) -> list[str]:
        # not file_uris(): it writes the workspace as a URL, and a folder may hold blanks, brackets and letters of any kind
        added = pl.DataFrame(self._open(version).get_add_actions(flatten=True))["path"].sort()
        return [str(self.folder / path) for path in added if buckets is None or _bucket(path) in buckets]

    def _n_files(self) -> dict[str | None, int]:
        return Counter(_bucket(file) if self.is_bucketed else None for file in self._files(None, buckets=None))


def _merged(table: DeltaTable, **how: Any) -> int:
    return int(table.optimize.compact(**how)["numFilesRemoved"])


def _bucket(file: str) -> str | None:
    """The bucket that stands in a file's name, as ``.../bucket=north-07/part-....parquet``."""
    parts = file.split("/")  # the names of centers, and so of buckets, need no quoting
    return next((part.partition("=")[2] for part in reversed(parts) if part.startswith(f"{BUCKET}=")), None)
