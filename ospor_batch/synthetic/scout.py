"""The frontal scout of a CT examination: line integrals of attenuation in the fan beam of a tube that stands still.

The fan opens across the table alone; along it each line is its own projection, so that heights are not magnified.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ospor_batch.synthetic.ct import Scan

SOURCE_MM = 541.0  # from the focus, over the patient, to the middle of the gantry; a usual scanner's, declared
VALUE_OF_AIR = -1024.0
VALUE_A_CM = 60.0  # stored value that each cm of water adds; scanners scale scouts as they please, declared


def scout(scanned: Scan) -> NDArray[np.int16]:
    """Rows from the head down, stretched to a square matrix; pixels are as wide as the volume's at the middle of the gantry."""
    rays = water_path_cm(scanned)[::-1]
    n_rows = scanned.hu.shape[1]
    at = np.linspace(0, len(rays) - 1, n_rows)
    below = np.minimum(at.astype(int), max(len(rays) - 2, 0))
    share = (at - below)[:, None]
    stretched = rays[below] * (1 - share) + rays[np.minimum(below + 1, len(rays) - 1)] * share
    return np.asarray(np.clip(np.rint(VALUE_OF_AIR + VALUE_A_CM * stretched), -1024, 3071), dtype=np.int16)


def water_path_cm(scanned: Scan) -> NDArray[np.float64]:
    """Water that weakens each ray as much as what lies on its way, by slice and column.

    The middle of the gantry is the middle of the volume; a tilted volume is read at the heights that its rows have.
    """
    grid = scanned.grid
    x, y, z = grid.axes()
    middle_x, middle_y = float(x.mean()), float(y.mean())
    columns, slices = np.arange(len(x)), np.arange(len(scanned.hu), dtype=np.float64)
    across = x.astype(np.float64) - middle_x
    found = np.zeros((len(slices), len(x)))
    climbed = np.zeros(len(y)) if z.shape[1] == 1 else (z[0, :, 0] - z[0, len(y) // 2, 0]) / grid.step[2]
    for j in range(len(y)):
        plane = np.maximum(1 + scanned.hu[:, j].astype(np.float64) / 1000, 0)
        if climbed[j]:
            at = np.clip(slices - climbed[j], 0, len(slices) - 1)
            low = np.minimum(at.astype(int), max(len(slices) - 2, 0))
            share = (at - low)[:, None]
            plane = plane[low] * (1 - share) + plane[np.minimum(low + 1, len(slices) - 1)] * share
        wide = (SOURCE_MM + float(y[j]) - middle_y) / SOURCE_MM  # how far the fan has opened at this depth
        place = np.clip((across * wide + middle_x - float(x[0])) / grid.step[0], 0, len(x) - 1)
        left = np.minimum(place.astype(int), len(columns) - 2)
        found += plane[:, left] * (1 - (place - left)) + plane[:, left + 1] * (place - left)
    step_cm = abs(float(y[1] - y[0])) / 10
    return np.asarray(found * step_cm * np.sqrt(1 + (across / SOURCE_MM) ** 2))
