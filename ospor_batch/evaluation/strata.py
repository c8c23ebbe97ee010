"""Which columns part the people of a table."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from ospor_batch.contracts import contract
from ospor_batch.errors import StudyError

EVERYONE = "all"
OVERALL = "overall"
ACQUISITION = "is_same_acquisition"


@dataclass(frozen=True)
class Stratum:
    """A declared crossing; no column means everyone."""

    name: str
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Cell:
    """One group of a stratum: a value for every stratum column, ``all`` where it does not part the people."""

    stratum: str
    values: tuple[tuple[str, str], ...]
    frames: tuple[pl.DataFrame, ...]


def stratum_columns() -> tuple[str, ...]:
    """Columns that a stratum may name, in the order of the performance contract."""
    key = contract("performance").primary_key
    return key[key.index("stratum") + 1 : key.index("metric")]


def parse_strata(declared: Sequence[str]) -> tuple[Stratum, ...]:
    """Read declared strata such as ``center*scanner_vendor``; ``overall`` always comes first, repeats count once.

    StudyError names the stratum and the nearest known column.
    """
    found: dict[tuple[str, ...], Stratum] = {(): Stratum(OVERALL, ())}
    for text in declared:
        columns = () if text.strip() == OVERALL else tuple(part.strip() for part in text.split("*"))
        for column in columns:
            _refuse_unknown(column, text)
        if len(set(columns)) != len(columns):
            raise StudyError(f"tables.strata: {text!r} names a column twice")
        found.setdefault(tuple(sorted(columns)), Stratum("*".join(columns), columns))
    return tuple(found.values())


def cells(frames: Sequence[pl.DataFrame], stratum: Stratum, *, expected: Sequence[Sequence[str]] = ()) -> list[Cell]:
    """Part several tables of people by one stratum, alike; sorted by value.

    A group is there when any table or ``expected`` has it; a table without it gives an empty part. Rows with a null in
    a stratum column are in no group.
    """
    columns = list(stratum.columns)
    if not columns:
        return [Cell(stratum.name, _values({}), tuple(frames))]
    parted = [_parted(frame, columns) for frame in frames]
    groups = sorted({group for parts in parted for group in parts} | {tuple(group) for group in expected})
    return [
        Cell(
            stratum.name,
            _values(dict(zip(columns, group, strict=True))),
            tuple(parts.get(group, frame.clear()) for parts, frame in zip(parted, frames, strict=True)),
        )
        for group in groups
    ]


def _parted(frame: pl.DataFrame, columns: Sequence[str]) -> dict[tuple[str, ...], pl.DataFrame]:
    parts = frame.partition_by(columns, as_dict=True).items()
    return {tuple(str(value) for value in key): rows for key, rows in parts if None not in key}


def _values(given: dict[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple((column, given.get(column, EVERYONE)) for column in stratum_columns())


def _refuse_unknown(column: str, text: str) -> None:
    if column in stratum_columns():
        return
    near = difflib.get_close_matches(column, stratum_columns(), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else f"; expected one of {', '.join(stratum_columns())}, joined by *"
    raise StudyError(f"tables.strata: {text!r} names no column of people: {column!r}{hint}")
