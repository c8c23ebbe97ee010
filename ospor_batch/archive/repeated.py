"""Columns whose values repeat from file to file: a value is kept once, with the place where it begins."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ospor_batch.archive.heads import Places
from ospor_batch.contracts.table import schema_of

Item = TypeVar("Item", bound=np.generic)
STEADY = 16  # files a value, on average, in columns that are put together by their changes
FEW = 64  # values up to which a loop over them takes less time than Polars
FIRST: Places = np.zeros(1, np.int64)


@functools.cache
def types() -> dict[str, pl.DataType]:
    """The type of every column of an instance."""
    return dict(schema_of("instance"))


def _counts(begin: Places, *, n: int) -> Places:
    """How many files each value holds for, by the places where it begins."""
    return np.diff(begin, append=n)


def united(places: Sequence[Places], *, n: int) -> Places:
    """All places below n that are in one of the lists, in order."""
    is_there = np.zeros(n, np.bool_)
    for some in places:
        is_there[some] = True
    return is_there.nonzero()[0]


@functools.lru_cache(maxsize=1024)
def single(name: str, value: Any) -> pl.Series:
    """One value as the column of that name; most are the same from partition to partition."""
    return pl.Series(name, [value], dtype=types()[name])


Values = list[Any] | pl.Series


@dataclass
class Column:
    """Values, each with the place where it begins: it holds up to the next one's."""

    parts: list[tuple[Values, Places]] = field(default_factory=list)

    def add(self, values: Values, begin: Places) -> None:
        """Go on with more values."""
        self.parts.append((values, begin))

    @property
    def n_values(self) -> int:
        """How many there are, each counted where it begins."""
        return sum(len(begin) for _, begin in self.parts)

    def is_steady(self, n: int) -> bool:
        """Whether values change seldom, among so many files."""
        return self.n_values * STEADY <= n

    def begins(self) -> Places:
        """Where each value begins."""
        return self.parts[0][1] if len(self.parts) == 1 else np.concatenate([begin for _, begin in self.parts])

    def at(self, which: Places, *, dtype: pl.DataType) -> pl.Series:
        """Values by their number, in the order of their beginnings."""
        if all(isinstance(values, list) for values, _ in self.parts):
            values = [value for part, _ in self.parts for value in part]
            return pl.Series(values * len(which) if len(values) == 1 else [values[at] for at in which.tolist()], dtype=dtype)
        return self._series(dtype)[which]

    def whole(self, n: int, *, name: str) -> pl.Series:
        """A value for every file of n, as the column of that name."""
        dtype = types()[name]
        if self.n_values == 1 and isinstance(held := self.parts[0][0], list):
            make = single if held[0] is None or isinstance(held[0], str | int) else single.__wrapped__  # -0.0 equals 0.0
            return make(name, held[0]).new_from_index(0, n)
        values, begin = self._series(dtype), self.begins()
        values = values if len(begin) == n else values[np.repeat(np.arange(len(begin), dtype=np.uint32), _counts(begin, n=n))]
        return values.alias(name)

    def numbers(self, n: int) -> NDArray[np.float64]:
        """A number for every file; NaN: null."""
        return self._spread(self.floats(), n=n)

    def floats(self) -> NDArray[np.float64]:
        """Each value as a number; NaN: null."""
        if len(self.parts) == 1 and isinstance(values := self.parts[0][0], list) and len(values) <= FEW:
            return np.array([np.nan if value is None else value for value in values], np.float64)
        return self._series(pl.Float64()).to_numpy()

    def is_told(self, n: int) -> NDArray[np.bool_]:
        """For every file, whether it says something."""
        found = [
            (values != "").to_numpy() if isinstance(values, pl.Series) and not values.null_count() else list(map(bool, values))
            for values, _ in self.parts
        ]
        return self._spread(np.concatenate(found).astype(np.bool_, copy=False), n=n)

    def is_among(self, values: Sequence[str], *, n: int) -> NDArray[np.bool_]:
        """For every file, whether it says one of these values."""
        return self._spread(np.array([value in values for value in self._series(pl.String()).to_list()], np.bool_), n=n)

    def _series(self, dtype: pl.DataType) -> pl.Series:
        found = [
            values.cast(dtype) if isinstance(values, pl.Series) else pl.Series(values, dtype=dtype) for values, _ in self.parts
        ]
        return found[0] if len(found) == 1 else pl.concat(found)

    def _spread(self, values: NDArray[Item], *, n: int) -> NDArray[Item]:
        if len(values) == n:
            return values
        return np.full(n, values[0]) if len(values) == 1 else np.repeat(values, _counts(self.begins(), n=n))


def numbers_of(columns: Sequence[Column], *, n: int) -> NDArray[np.float64]:
    """A row of numbers for every file of n; NaN: null."""
    steady = [column for column in columns if column.is_steady(n)]
    begins = [column.begins() for column in steady]
    places = united([FIRST, *begins], n=n)
    rows = np.full((len(places), len(columns)), np.nan)
    told = iter(begins)
    for number, column in enumerate(columns):
        if column.is_steady(n):
            rows[:, number] = column.floats()[next(told).searchsorted(places, side="right") - 1]
    numbers = np.repeat(rows, _counts(places, n=n), axis=0)
    for number, column in enumerate(columns):
        if not column.is_steady(n):
            numbers[:, number] = column.numbers(n)
    return numbers


class Steady:
    """Columns that change seldom: a table with a row for every place where one of them does; its rows are repeated."""

    def __init__(self, columns: Mapping[str, Column], *, n: int) -> None:
        begins = {name: column.begins() for name, column in columns.items()}
        places = united([FIRST, *begins.values()], n=n)
        self.rows: dict[str, pl.Series] = {}
        for name, column in columns.items():
            which = begins[name].searchsorted(places, side="right") - 1
            self.rows[name] = column.at(which, dtype=types()[name])
        self.repeats = np.repeat(np.arange(len(places), dtype=np.uint32), np.diff(places, append=n))

    def series(self) -> dict[str, pl.Series]:
        """The columns with a value for every file."""
        rows = pl.DataFrame(self.rows)
        return {column.name: column for column in rows[self.repeats].get_columns()} if self.rows else {}
