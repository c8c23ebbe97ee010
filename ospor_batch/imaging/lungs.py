"""The lung fields of a frontal chest radiograph, found on the pixels by a simple rule, for substudies."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ospor_batch.errors import ItemRefused
from ospor_batch.imaging.radiograph import Gray

Mask = npt.NDArray[np.bool_]
LUNG_REGIONS = ("lung_fields", "outside_lungs")
COARSE = 128  # pixels a side on which lungs are looked for
LUNG_AREA = (0.04, 0.35)  # of the field, for each lung
LUNG_BOX = (0.08, 0.85, 0.04, 0.96)  # where the middle of a lung can be


def lung_region(image: Gray, name: str) -> Gray:
    """The image with what lies outside the region at 0: ``lung_fields`` cut to their box, ``outside_lungs`` whole.

    ItemRefused lungs_missing.
    """
    lungs = lung_fields(image)
    if name == "outside_lungs":
        return np.where(lungs, np.float32(0), image)
    rows, columns = np.flatnonzero(lungs.any(axis=1)), np.flatnonzero(lungs.any(axis=0))
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    return np.where(lungs[box], image[box], np.float32(0))


def lung_fields(image: Gray) -> Mask:
    """Both lungs: the two large dark places that the border does not touch, one on either side of the middle.

    A threshold is tried from dark to bright until there are two; a simple rule that fails on white lungs. ItemRefused
    lungs_missing.
    """
    zoom = COARSE / np.array(image.shape)
    coarse = ndimage.gaussian_filter(ndimage.zoom(image, zoom, order=1, grid_mode=True, mode="nearest"), 1.5)
    best: Mask | None = None
    for level in np.quantile(coarse, np.arange(0.10, 0.66, 0.03)):
        found = _pair(coarse < level)
        if found is not None and (best is None or found.sum() > best.sum()):
            best = found
    if best is None:
        raise ItemRefused("lungs_missing", "no pair of lungs was found on the radiograph")
    rows, columns = (np.minimum(np.arange(n) * COARSE // n, COARSE - 1) for n in image.shape)
    return best[np.ix_(rows, columns)]


def _pair(dark: Mask) -> Mask | None:
    pieces, n_pieces = ndimage.label(dark)
    border = np.unique(np.concatenate([pieces[0], pieces[-1], pieces[:, 0], pieces[:, -1]]))
    sides: dict[bool, tuple[int, int]] = {}
    for piece in set(range(1, n_pieces + 1)) - set(border.tolist()):
        inside = pieces == piece
        area = int(inside.sum())
        row, column = (float(axis.mean()) / COARSE for axis in np.nonzero(inside))
        top, bottom, left, right = LUNG_BOX
        is_placed = top < row < bottom and left < column < right
        if is_placed and LUNG_AREA[0] < area / dark.size < LUNG_AREA[1] and area > sides.get(column > 0.5, (0, 0))[1]:
            sides[column > 0.5] = piece, area
    if len(sides) < 2:
        return None
    joined = np.isin(pieces, [piece for piece, _ in sides.values()])
    return np.asarray(ndimage.binary_fill_holes(ndimage.binary_closing(joined, iterations=2)))
