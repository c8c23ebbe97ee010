"""Tonight's listing, spilled to disk by bucket of the folder, so that memory follows a bucket and not the archive."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ospor_batch.archive.changes import hiding
from ospor_batch.archive.walk import Folder, Listed
from ospor_batch.contracts.table import schema_of
from ospor_batch.stages.same_folders import Group, SameFolders
from ospor_batch.store import bucket_groups, n_buckets, number_of, storage_errors

CHUNK_FILES = 100_000  # listed names held as Python objects: 40 MB
GROUP_FILES = 40_000  # files compared at once, if one bucket has no more: as many as are appended at once, in few buckets then
ROW_GROUP = 8192  # a chunk is sorted by bucket: a group then skips most of it
LISTING = pl.Schema(
    {name: schema_of("file")[name] for name in ("archive", "path", "size_bytes", "mtime_ns")}
    | {"refusal": pl.String(), "detail": pl.String(), "is_folder": pl.Boolean()}
)
FolderKey = Callable[[str, str], str]
"""The keyed hash of (archive, folder)."""


class Spilled:
    """A listing on disk, without the folders that are listed as they were.

    hidden: archive and path of the folders that could not be listed.
    """

    def __init__(self, folder: Path, *, folder_key: FolderKey, same: SameFolders) -> None:
        self._folder = folder
        self._folder_key = folder_key
        self._same = same
        self._chunks: list[Path] = []
        self.sizes = [0] * n_buckets("file")
        self.hidden = pl.DataFrame(schema={"archive": pl.String(), "path": pl.String()})

    def take(self, listed: Iterable[tuple[str, Folder | Listed]]) -> None:
        """Take every listed name; the walk is never held as a whole."""
        shutil.rmtree(self._folder, ignore_errors=True)
        for chunk in _chunks(listed, size=CHUNK_FILES):
            self._spill(chunk)

    def groups(self, known_sizes: Sequence[int], *, quiet: Collection[int] = ()) -> list[Group]:
        """Groups of buckets with about GROUP_FILES names, listed or known, in each; without the quiet ones."""
        pairs = enumerate(zip(self.sizes, known_sizes, strict=True))
        sizes = [0 if number in quiet else max(pair) for number, pair in pairs]
        groups = (tuple(number for number in run if sizes[number]) for run in bucket_groups(sizes, most=GROUP_FILES))
        return [group for group in groups if group]

    def read(self, group: Group) -> pl.DataFrame:
        """Names of a group, with folder_key."""
        if not self._chunks:
            return pl.DataFrame(schema={**LISTING, "folder_key": pl.String()})
        is_near, is_in = pl.col("number").is_between(group[0], group[-1]), pl.col("number").is_in(group)
        return pl.scan_parquet(self._chunks).filter(is_near & is_in).drop("number").collect()

    def _spill(self, chunk: _Chunk) -> None:
        folders = self._same.sift(chunk.archive, chunk.folders, folder_key=self._folder_key)
        if not (folders or chunk.odd):
            return
        rows = chunk.rows(folders, folder_key=self._folder_key)
        rows = rows.with_columns(number=number_of(pl.col("folder_key"), "file")).sort("number")
        for number, n in rows["number"].value_counts().iter_rows():
            self.sizes[number] += n
        self.hidden = pl.concat([self.hidden, rows.filter(hiding()).select("archive", "path")])
        target = self._folder / f"{len(self._chunks):06d}.parquet"
        with storage_errors(remove=target):
            self._folder.mkdir(parents=True, exist_ok=True)
            rows.write_parquet(target, compression="lz4", row_group_size=ROW_GROUP)
        self._chunks.append(target)


def as_found(listed: Iterable[tuple[str, Folder | Listed]], *, size: int) -> Iterator[pl.DataFrame]:
    """Listed names of one archive, about so many at a time, while others are being found."""
    for chunk in _chunks(listed, size=size):
        yield chunk.rows([(folder, "") for folder in chunk.folders], folder_key=lambda *_: "").drop("folder_key")


def _chunks(listed: Iterable[tuple[str, Folder | Listed]], *, size: int) -> Iterator[_Chunk]:
    chunk = _Chunk("")
    for archive, item in listed:
        if archive != chunk.archive or chunk.n_files >= size:
            if chunk.n_files:
                yield chunk
            chunk = _Chunk(archive)
        chunk.add(item)
    if chunk.n_files:
        yield chunk


class _Chunk:
    """Listed names of one archive: folders of plain files, and what is told one by one."""

    def __init__(self, archive: str) -> None:
        self.archive = archive
        self.folders: list[Folder] = []
        self.odd: list[Listed] = []
        self.n_files = 0

    def add(self, item: Folder | Listed) -> None:
        if isinstance(item, Folder):
            self.folders.append(item)
            self.n_files += len(item.names)
        else:
            self.odd.append(item)
            self.n_files += 1

    def rows(self, folders: Sequence[tuple[Folder, str]], *, folder_key: FolderKey) -> pl.DataFrame:
        """Rows of some of the folders, given with their keys, and of what was told one by one."""
        parents = [item.path.rpartition("/")[0] for item in self.odd]
        known = {parent: folder_key(self.archive, parent) for parent in dict.fromkeys(parents)}
        paths, sizes, mtimes = list[str](), list[int](), list[int]()
        for folder, _ in folders:
            start = f"{folder.path}/" if folder.path else ""
            paths += [start + name for name in folder.names]
            sizes += folder.sizes
            mtimes += folder.mtimes_ns
        plain = [None] * len(paths)
        columns: dict[str, list[Any]] = {
            "path": paths + [item.path for item in self.odd],
            "size_bytes": sizes + [item.size_bytes for item in self.odd],
            "mtime_ns": mtimes + [item.mtime_ns for item in self.odd],
            "refusal": plain + [item.refusal for item in self.odd],
            "detail": plain + [item.detail for item in self.odd],
            "is_folder": plain + [item.is_folder for item in self.odd],
        }
        schema = {name: dtype for name, dtype in LISTING.items() if name != "archive"}
        keys = pl.Series([*(key for _, key in folders), *(known[parent] for parent in parents)], dtype=pl.String)
        counts = [*(len(folder.names) for folder, _ in folders), *([1] * len(parents))]
        rows = pl.DataFrame(columns, schema=schema).with_columns(
            pl.col("detail").fill_null(""), pl.col("is_folder").fill_null(value=False), archive=pl.lit(self.archive)
        )
        return rows.select(*LISTING.names(), folder_key=keys.gather(np.repeat(np.arange(len(keys)), counts)))


def in_slices(items: Sequence[Path], *, size: int) -> Iterator[Sequence[Path]]:
    """Runs of so many items; one empty run when there is none."""
    for start in range(0, max(1, len(items)), size):
        yield items[start : start + size]
