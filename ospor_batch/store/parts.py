"""Whole files or none: Parquet parts held against their contract, and text."""

from __future__ import annotations

import contextlib
import errno
import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import polars as pl

from ospor_batch.contracts import contract
from ospor_batch.contracts.table import conform, refuse_shared_keys, whole
from ospor_batch.errors import ContractError, StorageError

FULL_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
FULL_DISK_WORDS = (
    "no space left",
    "os error 28",
    "file too large",
    "disk quota",
    "read-only file system",
    "invalid thrift: transport error",  # how the Parquet writer reports that it could not write
)


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
    write_whole(content.getbuffer(), target=target)


def write_staged(rows: pl.DataFrame, *, target: Path) -> None:
    """Write rows that are read back once and then deleted, whole or not at all: as Arrow, a quarter of what Parquet costs."""
    content = io.BytesIO()
    rows.write_ipc(content, compression="lz4")
    write_whole(content.getbuffer(), target=target)


def read_staged(source: Path) -> pl.DataFrame:
    """Read rows that write_staged wrote."""
    return pl.read_ipc(source.read_bytes())


def write_text(text: str, *, target: Path) -> None:
    """Write a whole text file, or nothing."""
    write_whole(text.encode(), target=target)


def write_whole(content: bytes | memoryview, *, target: Path) -> None:
    """Write a whole file, or nothing."""
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
