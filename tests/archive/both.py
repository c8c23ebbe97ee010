"""Files held in memory, read together and alone: the two must say the same."""

from __future__ import annotations

import functools
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

import polars as pl

from ospor_batch.archive.header import Header
from ospor_batch.archive.partition import Partition, read_quickly
from ospor_batch.archive.reading import part_schema, read_alone


class Held:
    """A source of files that are in memory, by number."""

    def __init__(self, contents: Sequence[bytes]) -> None:
        self.contents = contents

    @contextmanager
    def open(self, path: str) -> Iterator[BinaryIO]:
        yield io.BytesIO(self.contents[int(path)])

    def told(self, path: str, header: Header) -> Header:
        return header


def alone(contents: Sequence[bytes]) -> list[dict[str, Any]]:
    """Every file as pydicom reads it."""
    source = Held(contents)
    return [read_alone((str(number), len(content), 0), source) for number, content in enumerate(contents)]


@functools.lru_cache(maxsize=256)
def _alone(content: bytes) -> dict[str, Any]:
    return alone([content])[0]


def together(contents: Sequence[bytes]) -> dict[int, dict[str, Any]]:
    """The files that are read together, by number."""
    names, sizes = [str(number) for number in range(len(contents))], [len(content) for content in contents]
    quick = read_quickly(Partition(names, sizes, Held(contents)))
    rows = pl.DataFrame(list(quick.columns.values())).rows(named=True) if quick.columns else []
    return dict(zip(quick.numbers.tolist(), rows, strict=True))


def differences(contents: Sequence[bytes]) -> list[tuple[int, str, Any, Any]]:
    """Number, column, and both values wherever a file that is read together says something else than alone."""
    by_pydicom = [_alone(content) for content in contents]
    found: list[tuple[int, str, Any, Any]] = []
    for number, row in together(contents).items():
        other = by_pydicom[number]
        if other["fate"] != "instance":
            found.append((number, "reason", "read together", (other["reason"], other["detail"])))
            continue
        names = [name for name in row if name in part_schema()]
        found += [(number, name, row[name], other[name]) for name in names if not same(row[name], other[name])]
        assert set(names) >= {name for name, value in other.items() if value is not None} - {
            "path", "size_bytes", "mtime_ns", "fate",
        }  # fmt: skip
    return found


def same(one: Any, other: Any) -> bool:
    """Equal and of one type; no column holds NaN."""
    return type(one) is type(other) and bool(one == other)
