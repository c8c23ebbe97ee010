"""Tonight's listing, spilled to disk by bucket of the folder, so that memory follows a bucket and not the archive."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ospor_batch.archive.walk import Folder, Listed
from ospor_batch.contracts.table import schema_of
from ospor_batch.store import bucket_groups, n_buckets, number_of, storage_errors

CHUNK_FILES = 100_000  # listed names held as Python objects: 40 MB
GROUP_FILES = 200_000  # files compared at once: 0.2 GB with what is known of them
ROW_GROUP = 8192  # a chunk is sorted by bucket: a group then skips most of it
LISTING = pl.Schema(
    {name: schema_of("file")[name] for name in ("archive", "path", "size_bytes", "mtime_ns")}
    | {"refusal": pl.String(), "detail": pl.String(), "is_folder": pl.Boolean()}
)
FolderKey = Callable[[str, str], str]
"""The keyed hash of (archive, folder)."""


class Spilled:
    """A listing on disk.

    n_files: listed names; hidden: archive and path of the folders that could not be listed.
    """

    def __init__(self, folder: Path, *, folder_key: FolderKey) -> None:
        self._folder = folder
        self._folder_key = folder_key
        self._chunks: list[Path] = []
        self._sizes = [0] * n_buckets("file")
        self.n_files = 0
        self.hidden = pl.DataFrame(schema={"archive": pl.String(), "path": pl.String()})

    def take(self, listed: Iterable[tuple[str, Folder | Listed]]) -> None:
        """Take every listed name; the walk is never held as a whole."""
        shutil.rmtree(self._folder, ignore_errors=True)
        chunk = _Chunk("")
        for archive, item in listed:
            if archive != chunk.archive or len(chunk.paths) >= CHUNK_FILES:
                self._spill(chunk)
                chunk = _Chunk(archive)
            chunk.add(item)
        self._spill(chunk)

    def groups(self, known_sizes: Sequence[int]) -> list[range]:
        """Runs of bucket numbers with about GROUP_FILES names, listed or known, in each."""
        sizes = [max(pair) for pair in zip(self._sizes, known_sizes, strict=True)]
        return bucket_groups(sizes, most=GROUP_FILES)

    def read(self, group: range) -> pl.DataFrame:
        """Names of a group, with folder_key."""
        if not self._chunks:
            return pl.DataFrame(schema={**LISTING, "folder_key": pl.String()})
        rows = pl.scan_parquet(self._chunks).filter(pl.col("number").is_between(group.start, group.stop - 1))
        return rows.drop("number").collect()

    def _spill(self, chunk: _Chunk) -> None:
        if not chunk.paths:
            return
        rows = chunk.rows(self._folder_key).with_columns(number=number_of(pl.col("folder_key"), "file")).sort("number")
        for number, n in rows["number"].value_counts().iter_rows():
            self._sizes[number] += n
        self.n_files += rows.height
        self.hidden = pl.concat([self.hidden, rows.filter("is_folder").select("archive", "path")])
        target = self._folder / f"{len(self._chunks):06d}.parquet"
        with storage_errors(remove=target):
            self._folder.mkdir(parents=True, exist_ok=True)
            rows.write_parquet(target, compression="lz4", row_group_size=ROW_GROUP)
        self._chunks.append(target)


class _Chunk:
    """Listed names of one archive, as columns; folders stand once for all their files."""

    def __init__(self, archive: str) -> None:
        self.archive = archive
        self.paths: list[str] = []
        self._sizes: list[int] = []
        self._mtimes: list[int] = []
        self._folders: list[str] = []
        self._counts: list[int] = []
        self._odd: dict[int, Listed] = {}

    def add(self, item: Folder | Listed) -> None:
        if isinstance(item, Folder):
            self._folders.append(item.path)
            self._counts.append(len(item.names))
            start = f"{item.path}/" if item.path else ""
            self.paths += [start + name for name in item.names]
            self._sizes += item.sizes
            self._mtimes += item.mtimes_ns
            return
        if item.refusal is not None or item.is_folder:
            self._odd[len(self.paths)] = item
        self._folders.append(item.path.rpartition("/")[0])
        self._counts.append(1)
        self.paths.append(item.path)
        self._sizes.append(item.size_bytes)
        self._mtimes.append(item.mtime_ns)

    def rows(self, folder_key: FolderKey) -> pl.DataFrame:
        """Rows of the listing with folder_key; every distinct folder is hashed once."""
        known = {folder: folder_key(self.archive, folder) for folder in dict.fromkeys(self._folders)}
        keys = pl.Series([known[folder] for folder in self._folders], dtype=pl.String)
        columns: dict[str, list[Any]] = {
            "path": self.paths,
            "size_bytes": self._sizes,
            "mtime_ns": self._mtimes,
            "refusal": [None] * len(self.paths),
            "detail": [""] * len(self.paths),
            "is_folder": [False] * len(self.paths),
        }
        for place, item in self._odd.items():
            for name in ("refusal", "detail", "is_folder"):
                columns[name][place] = getattr(item, name)
        schema = {name: dtype for name, dtype in LISTING.items() if name != "archive"}
        rows = pl.DataFrame(columns, schema=schema).with_columns(archive=pl.lit(self.archive))
        which = np.repeat(np.arange(len(keys)), self._counts)
        return rows.select(*LISTING.names(), folder_key=keys.gather(which))


def in_slices(items: Sequence[Path], *, size: int) -> Iterator[Sequence[Path]]:
    """Runs of so many items; one empty run when there is none."""
    for start in range(0, max(1, len(items)), size):
        yield items[start : start + size]
