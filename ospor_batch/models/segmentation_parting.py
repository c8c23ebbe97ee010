"""Bodies that hang together, parted where the column of bone is thinnest and the network least sure of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
TALL_MM = 42.0  # from head to foot, above which a component may be two bodies; a tilted lumbar one reaches it; judgement
PIECE_MM = 12.0  # no body is lower; T1 has 15; judgement
# Bone across the spine at a disc as a share of that of the weaker of its neighbours; the waist of a body has 0.8; judgement
VALLEY = 0.6
TILTS_DEG = (-45.0, -30.0, -15.0, 0.0, 15.0, 30.0, 45.0)  # of the disc in the sagittal plane


def parted(parts: npt.NDArray[np.int32], surely: Array, *, spacing_mm: float) -> npt.NDArray[np.int32]:
    """Components (z, y, x) with the tall ones cut at their discs; new numbers follow the last.

    surely: by how much each voxel is likelier vertebra than disc; below 0 counts as 0.
    """
    found, waiting, last = parts.copy(), list(range(1, int(parts.max(initial=0)) + 1)), int(parts.max(initial=0))
    while waiting:
        number = waiting.pop()
        index = np.argwhere(found == number)
        if np.ptp(index[:, 0]) * spacing_mm <= TALL_MM:
            continue
        is_below = _cut(index * spacing_mm, np.maximum(surely[tuple(index.T)], 0), step_mm=spacing_mm)
        if is_below is not None:
            last += 1
            found[tuple(index[is_below].T)] = last
            waiting += [number, last]
    return found


def _cut(places: Array, weights: Array, *, step_mm: float) -> npt.NDArray[np.bool_] | None:
    """Which voxels lie below the deepest valley across the spine; null where none is deep."""
    best, is_below = VALLEY, None
    for degrees in TILTS_DEG:
        along = places[:, 0] * np.cos(np.radians(degrees)) + places[:, 1] * np.sin(np.radians(degrees))
        bins = np.floor((along - along.min()) / step_mm).astype(int)
        profile = np.convolve(np.pad(np.bincount(bins, weights), 1, mode="edge"), (0.25, 0.5, 0.25), mode="valid")
        least = int(np.ceil(PIECE_MM / step_mm))
        for at in range(least, len(profile) - least):
            depth = profile[at] / max(min(profile[:at].max(), profile[at + 1 :].max()), 1e-6)
            if depth < best:
                best, is_below = float(depth), bins <= at
    return is_below
