"""One Delta table on disk, appended to in buckets; deltalake is imported here, late, and nowhere else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from ospor_batch.store.buckets import BUCKET

if TYPE_CHECKING:
    from deltalake import DeltaTable

# a version named by a kept run must stay readable for years: the log of a table is never cut
CONFIGURATION = {
    "delta.enableExpiredLogCleanup": "false",
    "delta.logRetentionDuration": "interval 36500 days",
    "delta.dataSkippingNumIndexedCols": "0",  # bounds stand in the data files: in the log they made it four times as long
}
COMPACT_BYTES = 256 * 1024 * 1024  # files that large are left as they are


class DeltaDoor:
    """One table; a version is null for the newest."""

    def __init__(self, folder: Path, *, name: str, is_bucketed: bool) -> None:
        self.folder = folder
        self.name = name
        self.is_bucketed = is_bucketed

    @property
    def exists(self) -> bool:
        return (self.folder / "_delta_log").is_dir()

    def version(self) -> int:
        return int(self._open(None).version())

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
        if not self.exists:
            self.folder.mkdir(parents=True, exist_ok=True)
            DeltaTable.create(
                str(self.folder), schema=arrow.schema, name=self.name, description=description, partition_by=by,
                configuration=CONFIGURATION,
            )  # fmt: skip
        write_deltalake(str(self.folder), arrow, mode="append", schema_mode="merge", partition_by=by)
        return self.version()

    def put_back(self, version: int) -> int:
        """Restore a version when the table stands ahead of it; return the version that then holds its rows."""
        at = self._open(None)
        if at.version() <= version:
            return version
        at.restore(version)
        return self.version()

    def compact(self, *, most_files: int) -> int:
        """Merge the files of every bucket that has more than so many; return how many files were merged."""
        crowded = [bucket for bucket, n in sorted(self._n_files().items()) if n > most_files]
        merged = 0
        for bucket in crowded:
            filters = [(BUCKET, "=", bucket)] if self.is_bucketed else None
            told = self._open(None).optimize.compact(partition_filters=filters, target_size=COMPACT_BYTES)
            merged += int(told["numFilesRemoved"])
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


def _bucket(file: str) -> str | None:
    """The bucket that stands in a file's name, as ``.../bucket=north-07/part-....parquet``."""
    parts = file.split("/")  # the names of centers, and so of buckets, need no quoting
    return next((part.partition("=")[2] for part in reversed(parts) if part.startswith(f"{BUCKET}=")), None)
