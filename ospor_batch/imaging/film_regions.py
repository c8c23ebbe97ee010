"""Parts of a frontal chest radiograph, for substudies: boxes in shares of the exposed field, and lungs found on the pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ospor_batch.errors import ItemRefused, StudyError
from ospor_batch.imaging.radiograph import Gray

Mask = npt.NDArray[np.bool_]
LUNGS = ("lung_fields", "outside_lungs")
COARSE = 128  # pixels a side on which lungs are looked for
LUNG_AREA = (0.04, 0.35)  # of the field, for each lung
LUNG_BOX = (0.08, 0.85, 0.04, 0.96)  # where the middle of a lung can be


@dataclass(frozen=True)
class FilmBox:
    """Shares of the field: rows from the top, columns from the image's left, where the patient's right is."""

    top: float
    bottom: float
    left: float
    right: float


# Declared; a frontal chest fills its field, so that shares mean nearly the same in everyone. A study may give its own
BOXES: Mapping[str, FilmBox] = {
    "whole": FilmBox(0.0, 1.0, 0.0, 1.0),
    "patient_left": FilmBox(0.0, 1.0, 0.5, 1.0),
    "patient_right": FilmBox(0.0, 1.0, 0.0, 0.5),
    "upper": FilmBox(0.0, 0.5, 0.0, 1.0),
    "lower": FilmBox(0.5, 1.0, 0.0, 1.0),
    "spine_strip": FilmBox(0.0, 1.0, 0.42, 0.58),
    "clavicles": FilmBox(0.05, 0.30, 0.10, 0.90),
    "shoulders_left": FilmBox(0.0, 0.35, 0.70, 1.0),
    "shoulders_right": FilmBox(0.0, 0.35, 0.0, 0.30),
    "upper_abdomen": FilmBox(0.75, 1.0, 0.15, 0.85),
}
REGIONS = (*BOXES, *LUNGS)


def region_mask(image: Gray, name: str, *, boxes: Mapping[str, FilmBox] = BOXES) -> Mask:
    """Pixels of a named region; StudyError names an unknown one, ItemRefused lungs_missing where lungs are not found."""
    if name in boxes:
        return box_mask(image.shape, boxes[name])
    if name not in LUNGS:
        raise StudyError(f"no region of a radiograph is named {name!r}; there are {', '.join((*boxes, *LUNGS))}")
    lungs = lung_fields(image)
    return lungs if name == "lung_fields" else ~lungs


def box_mask(shape: tuple[int, ...], box: FilmBox) -> Mask:
    """Pixels whose centres lie in a box; StudyError when the box is none."""
    ends = (box.top, box.bottom, box.left, box.right)
    if not (all(0 <= end <= 1 for end in ends) and box.top < box.bottom and box.left < box.right):
        raise StudyError(f"region of a radiograph: {ends} are no shares top < bottom, left < right between 0 and 1")
    rows, columns = ((np.arange(n) + 0.5) / n for n in shape)
    inside: Mask = ((rows >= box.top) & (rows < box.bottom))[:, None] & ((columns >= box.left) & (columns < box.right))[None, :]
    return inside


def cut_region(image: Gray, name: str, *, boxes: Mapping[str, FilmBox] = BOXES) -> Gray:
    """The image of a region alone: its box, with what is outside the region at 0."""
    mask = region_mask(image, name, boxes=boxes)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    return np.where(mask[box], image[box], np.float32(0))


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
