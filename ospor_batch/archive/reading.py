"""Read the headers of a partition: one row a file, an instance or a reject, without keys."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import polars as pl

from ospor_batch.archive.header import OF_FRAMES, Header, read_header
from ospor_batch.archive.opening import HeaderSource, header_source
from ospor_batch.archive.partition import Partition, Quick, names_on_disk, read_quickly
from ospor_batch.contracts.table import schema_of
from ospor_batch.errors import ItemRefused
from ospor_batch.sources import content_digest, roots

Listing = tuple[str, int, int]
"""Path as path_text writes it, size in bytes, modification time in nanoseconds."""


@functools.cache
def part_schema() -> pl.Schema:
    """Columns of a staged part: the file, its fate, and the instance's values; keys are added later."""
    file, instance, reject = schema_of("file"), schema_of("instance"), schema_of("reject")
    head = {name: file[name] for name in ("path", "size_bytes", "mtime_ns", "fate", "reason", "content_digest")}
    head |= {name: reject[name] for name in ("detail", "is_transient")}
    rest = {name: dtype for name, dtype in instance.items() if not is_keyed(name) and name not in head}
    return pl.Schema({**head, **rest})


def is_keyed(column: str) -> bool:
    """Whether a column of the instance contract is written by whoever holds the pseudonym key."""
    return column == "center" or column.endswith("_key")


def read_files(items: Sequence[Listing], *, root: str, cache: Path) -> pl.DataFrame:
    """One row a file, in the order given.

    root: the archive as Study.archive_root says. cache: private folder for what must lie on disk to be read.
    """
    paths, sizes = [path for path, _, _ in items], [size for _, size, _ in items]
    source = _Late(lambda: header_source(root, list(zip(paths, sizes, strict=True)), cache=cache))
    if roots.kind_of(root) == "dicomweb":  # a server tells values, not bytes
        return pl.DataFrame([read_alone(item, source) for item in items], schema=part_schema(), orient="row")
    quick = read_quickly(Partition(paths, sizes, source, names_on_disk(paths, root=root)))
    return instance_rows(items, quick.columns) if len(quick.numbers) == len(items) > 0 else _joined(items, quick, source=source)


class _Late:
    """A source that is made when a file is first opened by it, since most are not."""

    def __init__(self, make: Callable[[], HeaderSource]) -> None:
        self._made = functools.cache(make)

    def open(self, path: str) -> AbstractContextManager[BinaryIO]:
        return self._made().open(path)

    def told(self, path: str, header: Header) -> Header:
        return self._made().told(path, header)


def _joined(items: Sequence[Listing], quick: Quick, *, source: HeaderSource) -> pl.DataFrame:
    """The rows of files read together, and of the others, which are read alone, in the order of the files."""
    left = np.setdiff1d(np.arange(len(items)), quick.numbers)
    rows = [read_alone(items[number], source) for number in left.tolist()]
    alone = pl.DataFrame(rows, schema=part_schema(), orient="row")
    if not quick.numbers.size:
        return alone
    together = instance_rows([items[number] for number in quick.numbers.tolist()], quick.columns)
    return pl.concat([together, alone])[np.argsort(np.concatenate([quick.numbers, left]), kind="stable")]


def instance_rows(items: Sequence[Listing], columns: Mapping[str, pl.Series]) -> pl.DataFrame:
    """Rows of files that are instances."""
    paths, sizes, times = zip(*items, strict=True)
    told = {"path": paths, "size_bytes": sizes, "mtime_ns": times}
    same = {"fate": "instance", "reason": None, "content_digest": None, "detail": None, "is_transient": None}
    same |= dict.fromkeys(OF_FRAMES)
    series = []
    for name, dtype in part_schema().items():
        if name in told:
            series.append(pl.Series(name, told[name], dtype))
        elif name in same:
            series.append(pl.Series(name, [same[name]], dtype).new_from_index(0, len(items)))
        else:
            series.append(columns[name])
    return pl.DataFrame(series)


def refused_row(item: Listing, refusal: ItemRefused, *, digest: str | None = None) -> dict[str, Any]:
    """The row of a file that is no instance."""
    empty: dict[str, Any] = dict.fromkeys(part_schema())
    path, size, mtime = item
    is_gone = refusal.reason == "file_missing"  # it went between the listing and the reading
    return empty | {
        "path": path,
        "size_bytes": size,
        "mtime_ns": mtime,
        "fate": "reject",
        "reason": "read_error" if is_gone else refusal.reason,
        "detail": refusal.detail,
        "is_transient": refusal.is_transient,
        "content_digest": digest,
    }


def read_alone(item: Listing, source: HeaderSource) -> dict[str, Any]:
    """The row of one file, by pydicom."""
    path, size, mtime = item
    try:
        with source.open(path) as file:
            try:
                header = source.told(path, read_header(file))
            except ItemRefused as refusal:
                digest = content_digest(file) if refusal.reason == "nifti" else None
                return refused_row(item, refusal, digest=digest)
    except ItemRefused as refusal:
        return refused_row(item, refusal)
    empty: dict[str, Any] = dict.fromkeys(part_schema())
    found = {"path": path, "size_bytes": size, "mtime_ns": mtime, "fate": "instance", "content_digest": header.content_digest}
    return empty | header.values | found
