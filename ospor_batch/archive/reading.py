"""Read the headers of a partition: one row a file, an instance or a reject, without keys."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl

from ospor_batch.archive.header import read_header
from ospor_batch.contracts.table import schema_of
from ospor_batch.errors import ItemRefused
from ospor_batch.sources import content_digest, local_path, open_bytes

Listing = tuple[str, int, int]
"""Path as path_text writes it, size in bytes, modification time in nanoseconds."""


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


def read_files(items: Iterable[Listing], *, root: Path) -> pl.DataFrame:
    """One row a file, in the order given."""
    rows = [_read(item, root=root) for item in items]
    return pl.DataFrame(rows, schema=part_schema(), orient="row")


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


def _read(item: Listing, *, root: Path) -> dict[str, Any]:
    path, size, mtime = item
    try:
        with open_bytes(local_path(root, path)) as file:
            try:
                header = read_header(file)
            except ItemRefused as refusal:
                digest = content_digest(file) if refusal.reason == "nifti" else None
                return refused_row(item, refusal, digest=digest)
    except ItemRefused as refusal:
        return refused_row(item, refusal)
    empty: dict[str, Any] = dict.fromkeys(part_schema())
    found = {"path": path, "size_bytes": size, "mtime_ns": mtime, "fate": "instance", "content_digest": header.content_digest}
    return empty | header.values | found
