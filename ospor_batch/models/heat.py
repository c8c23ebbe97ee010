"""Heat maps in the common frame: the share of each region; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

Heat = npt.NDArray[np.float32]
Box = tuple[float, float, float, float]
"""Top, bottom, left and right of a region as shares of the frame."""
FRAME = 64  # pixels a side of the common frame; the maps of the networks are coarser


def region_shares(heat: Heat, regions: Mapping[str, Box]) -> dict[str, float]:
    """Share of the heat within each region; 0 everywhere for a map without heat."""
    total = float(heat.sum(dtype=np.float64))
    found = {}
    for name, box in regions.items():
        top, bottom, left, right = edges(box)
        inside = float(heat[top:bottom, left:right].sum(dtype=np.float64))
        found[name] = inside / total if total > 0 else 0.0
    return found


def area_share(box: Box) -> float:
    """Share of the frame that a region covers: what its share of the heat would be by chance."""
    top, bottom, left, right = edges(box)
    return (bottom - top) * (right - left) / FRAME**2


def edges(box: Box) -> tuple[int, int, int, int]:
    """First and last (exclusive) row and column of a region in the frame."""
    top, bottom, left, right = (round(end * FRAME) for end in box)
    return top, bottom, left, right
