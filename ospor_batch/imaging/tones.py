"""An image as codes and a table: what a gray value becomes is worked out once for every value, not for every pixel.

A radiograph has millions of pixels and at most 65,536 gray values. Windows, look-up tables and logarithms change the table;
percentiles and extremes are those of the codes, since the table never falls.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

MOST_CODES = 2**16
ROWS = 64  # mapped at a time, so that what lies between stays in the processor's cache
Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Tones:
    """codes: (row, column), places in levels. levels: what each code stands for; never falls."""

    codes: npt.NDArray[np.integer]
    levels: Floats

    def quantiles(self, codes: npt.NDArray[np.integer], shares: tuple[float, ...], *, axis: int = 0) -> Floats:
        """Quantiles of some codes along an axis, linear between neighbours as numpy.quantile has it; shares first."""
        ordered, n = _in_order(codes, axis), codes.shape[axis]
        found = []
        for share in shares:
            at = (n - 1) * share
            below = int(at)
            low = self.levels[ordered(below)]
            high = self.levels[ordered(min(below + 1, n - 1))]
            way = np.float64(at - below)
            found.append(low + (high - low) * way if way < 0.5 else high - (high - low) * (1 - way))
        return np.stack(found)

    def n_levels(self, codes: npt.NDArray[np.integer]) -> int:
        """Different levels among some codes."""
        counts = np.bincount(codes.reshape(-1))
        return len(np.unique(self.levels[: len(counts)][counts > 0]))

    def share_at_an_end(self, codes: npt.NDArray[np.integer]) -> float:
        """Share of some codes at the more crowded end of their range; 1 of none."""
        if not codes.size:
            return 1.0
        ends = self.levels[[codes.min(), codes.max()]]
        last_low = int(np.searchsorted(self.levels, ends[0], side="right")) - 1
        first_high = int(np.searchsorted(self.levels, ends[1], side="left"))
        return float(max(np.count_nonzero(codes <= last_low), np.count_nonzero(codes >= first_high)) / codes.size)


def _in_order(codes: npt.NDArray[np.integer], axis: int) -> Callable[[int], Any]:
    """The codes at a place of their order along an axis; many in a row are counted, which takes a fifth of sorting them."""
    if codes.ndim > 1 or codes.size < MOST_CODES:
        ordered = np.sort(np.moveaxis(codes, axis, -1), axis=-1)
        return lambda place: ordered[..., place]
    up_to = np.cumsum(np.bincount(codes))
    return lambda place: np.searchsorted(up_to, place, side="right")


def coded(values: npt.NDArray[Any]) -> tuple[npt.NDArray[np.integer], npt.NDArray[Any]]:
    """Codes of an image, and the value that each stands for, ascending; the values of a narrow range need no sorting."""
    if values.dtype in (np.uint8, np.uint16):
        return values, np.arange(int(values.max()) + 1).astype(values.dtype)
    if values.dtype.kind in "iu" and int(values.max()) - (least := int(values.min())) < MOST_CODES:
        # wraps around in narrow types and comes right again
        codes = (values - values.dtype.type(least)).astype(np.uint16)
        return codes, np.arange(least, int(values.max()) + 1).astype(values.dtype)
    found, places = np.unique(values, return_inverse=True)
    return places.reshape(values.shape).astype(np.int32), found


def toned(codes: npt.NDArray[np.integer], values: Floats) -> Tones:
    """Codes in the order of what they stand for; a falling table is turned around, any other is sorted."""
    steps = np.diff(values)
    if (steps >= 0).all():
        return Tones(codes, values)
    if (steps <= 0).all():
        return Tones(codes.dtype.type(len(values) - 1) - codes, values[::-1])
    order = np.argsort(values, kind="stable")
    places = np.empty(len(order), codes.dtype)
    places[order] = np.arange(len(order))
    return Tones(mapped(codes, places), values[order])


def mapped(codes: npt.NDArray[np.integer], table: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """What the table has for every code, of an image (row, column)."""
    made = np.empty(codes.shape, table.dtype)
    for first in range(0, len(codes), ROWS):
        # clip: codes are places of the table anyhow, and NumPy then writes without a copy between
        np.take(table, codes[first : first + ROWS], out=made[first : first + ROWS], mode="clip")
    return made
