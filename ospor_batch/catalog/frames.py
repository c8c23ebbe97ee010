"""Where every frame of a series' images lies: one frame a file, or many in an enhanced multi-frame image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

POSITION = ["position_x_mm", "position_y_mm", "position_z_mm"]
COSINES = [f"{line}_cosine_{axis}" for line in ("row", "column") for axis in "xyz"]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Placed:
    """Positions (n, 3) in mm and cosines (n, 6) of all frames, file by file; starts: the first frame of each file, and n."""

    positions: Floats
    cosines: Floats
    starts: npt.NDArray[np.int64]

    def of(self, files: slice) -> slice:
        """The frames of a run of files."""
        return slice(int(self.starts[files.start]), int(self.starts[files.stop]))

    def order_of(self, files: slice, frames: Sequence[int] | None) -> npt.NDArray[np.int64]:
        """The place of each file of a run, by its lowest frame; frames: the place of each frame, null: as they come."""
        n = files.stop - files.start
        if frames is None:
            return np.arange(n)
        starts = self.starts[files] - self.starts[files.start]
        lowest = np.minimum.reduceat(np.asarray(frames, np.int64), starts)
        return np.argsort(np.argsort(lowest, kind="stable"), kind="stable")


def placed(images: pl.DataFrame) -> Placed:
    """The frames of instances in their order; NaN where one has no position."""
    positions, cosines = _matrix(images, POSITION), _matrix(images, COSINES)
    counts = np.ones(images.height, np.int64)
    told = {
        number: (_numbers(where, 3), turned)
        for number, where, turned in images.with_row_index().select("index", "frame_positions_mm", "frame_cosines").iter_rows()
        if where is not None
    }
    for number, (where, _) in told.items():
        counts[number] = len(where)
    starts = np.concatenate([np.zeros(1, np.int64), counts.cumsum()])
    if told:
        positions, cosines = np.repeat(positions, counts, axis=0), np.repeat(cosines, counts, axis=0)
        for number, (where, turned) in told.items():
            frames = slice(starts[number], starts[number + 1])
            positions[frames] = where
            if turned is not None:
                cosines[frames] = _numbers(turned, 6)
    return Placed(positions, cosines, starts)


def _matrix(rows: pl.DataFrame, columns: list[str]) -> Floats:
    return rows.select(pl.col(columns).fill_null(float("nan"))).to_numpy().copy()


def _numbers(text: str, n: int) -> Floats:
    return np.array(text.split("\\"), np.float64).reshape(-1, n)
