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


@dataclass
class Column:
    """Values, each with the place where it begins: it holds up to the next one's."""

    values: list[Any] = field(default_factory=list)
    places: list[Places] = field(default_factory=list)

    def begins(self) -> Places:
        """Where each value begins."""
        return self.places[0] if len(self.places) == 1 else np.concatenate(self.places)

    def whole(self, n: int) -> list[Any]:
        """A value for every file of n."""
        if len(self.values) == n:
            return self.values
        repeated = np.empty(len(self.values), np.object_)
        repeated[:] = self.values
        return list(np.repeat(repeated, _counts(self.begins(), n=n)))

    def numbers(self, n: int) -> NDArray[np.float64]:
        """A number for every file; NaN: null."""
        return self._spread(np.array(self.values, np.float64), n=n)

    def is_told(self, n: int) -> NDArray[np.bool_]:
        """For every file, whether it says something."""
        return self._spread(np.array(list(map(bool, self.values)), np.bool_), n=n)

    def is_among(self, values: Sequence[Any], *, n: int) -> NDArray[np.bool_]:
        """For every file, whether it says one of these values."""
        return self._spread(np.array([value in values for value in self.values], np.bool_), n=n)

    def _spread(self, values: NDArray[Item], *, n: int) -> NDArray[Item]:
        return values if len(values) == n else np.repeat(values, _counts(self.begins(), n=n))


class Steady:
    """Columns that change seldom: a table with a row for every place where one of them does; its rows are repeated."""

    def __init__(self, columns: Mapping[str, Column], *, n: int) -> None:
        begins = {name: column.begins() for name, column in columns.items()}
        places = united([FIRST, *begins.values()], n=n)
        self.columns: dict[str, list[Any]] = {}
        for name, column in columns.items():
            if len(column.values) == 1:
                self.columns[name] = column.values * len(places)
            else:
                which = begins[name].searchsorted(places, side="right") - 1
                self.columns[name] = [column.values[at] for at in which.tolist()]
        self.repeats = np.repeat(np.arange(len(places), dtype=np.uint32), np.diff(places, append=n))

    def series(self) -> dict[str, pl.Series]:
        """The columns with a value for every file."""
        rows = pl.DataFrame([pl.Series(name, values, types()[name]) for name, values in self.columns.items()])
        return {column.name: column for column in rows[self.repeats].get_columns()} if self.columns else {}
