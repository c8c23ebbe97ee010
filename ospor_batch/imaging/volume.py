"""A CT volume in HU, its place in the patient, and grids of labels that are laid over it.

Axes are (slice, row, column). Coordinates are LPS in mm: x to the patient's left, y to the back, z to the head.
The affine takes (slice, row, column, 1) to LPS.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ospor_batch.errors import ItemRefused

AIR_HU = -1024.0  # what padding and slices that are not there are set to
SAME_GRID = 0.05  # voxels of drift over the whole volume below which two axes are parallel
STEP_TOLERANCE = 0.1  # share of the slice step by which a slice may stand off the regular grid
EDGE = 0.5  # voxels: a voxel centre may lie up to half a voxel beyond the outermost centres
LEAST_INSIDE = 0.95  # share of the labelled voxels that must lie inside the volume; the rest may be cut off at its border

Array = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Volume:
    """HU on a regular grid.

    hu: float32 (slice, row, column). affine: 4x4, index to LPS mm; its slice column is not at right angles to the other
    two under gantry tilt. is_padding: voxels outside the reconstruction and slices that are missing; null when there
    are none. n_missing_slices: slices that the regular grid has and the series has not, or that show one value alone
    between others that show more. kvp_kv: tube voltage of every
    slice; null when the header has none, zero, or several. height_m, sex (female, male): of the patient, null where the
    header does not say them plausibly.
    """

    hu: npt.NDArray[np.float32]
    affine: Array
    is_padding: npt.NDArray[np.bool_] | None = None
    n_missing_slices: int = 0
    kvp_kv: float | None = None
    height_m: float | None = None
    sex: str | None = None

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between slices, rows and columns in mm; between slices along the step, which tilt makes oblique."""
        slices, rows, columns = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(slices), float(rows), float(columns)

    @property
    def direction(self) -> Array:
        """3x3; column i is the unit vector of axis i in LPS."""
        step: Array = self.affine[:3, :3]
        unit: Array = step / np.linalg.norm(step, axis=0)
        return unit

    @property
    def origin(self) -> Array:
        """LPS of the centre of voxel (0, 0, 0)."""
        first: Array = self.affine[:3, 3]
        return first

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel; the determinant, so that tilt is right too."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000  # mm3 to ml


@dataclass(frozen=True)
class LabelGrid:
    """Whole numbers on a grid of their own; 0 is background."""

    labels: npt.NDArray[np.integer]
    affine: Array


@dataclass(frozen=True)
class Stack:
    """Where slices stand on a regular grid: first position, step from slice to slice, place of each slice."""

    first: Array
    step: Array
    places: npt.NDArray[np.int64]
    n_slices: int


def regular_stack(positions: Array, normal: Array, *, thickness: float | None, steps: tuple[float, ...] = ()) -> Stack:
    """Lay slices on a regular grid along the normal, in ascending order; gaps of whole steps stay open.

    positions: one row per slice, LPS of its first voxel. thickness: the step where there is one slice only.
    steps: declared distances to try first. ItemRefused geometry_changed when no regular grid holds the slices.
    """
    heights = positions @ normal
    order = np.argsort(heights, kind="stable")
    gaps = np.diff(heights[order])
    if not len(gaps):
        if thickness is None or not thickness > 0:
            raise ItemRefused("geometry_changed", "one slice without a thickness")
        return Stack(positions[0], normal * thickness, np.zeros(1, np.int64), 1)
    if gaps.min() <= STEP_TOLERANCE * max(float(np.median(gaps)), np.finfo(float).tiny):
        raise ItemRefused("geometry_changed", "two slices at one position")
    # the mean step bears positions rounded to 0.1 mm; the median and the least one bear gaps
    for height in (*(step for step in steps if step > 0), float(gaps.mean()), float(np.median(gaps)), float(gaps.min())):
        climbed = (heights - heights[order[0]]) / height
        places = np.rint(climbed).astype(np.int64)
        if len(set(places.tolist())) == len(places) and np.abs(climbed - places).max() <= STEP_TOLERANCE:
            return _fitted(positions, places, first=int(order[0]), last=int(order[-1]), height=height)
    raise ItemRefused("geometry_changed", "slices at uneven distances")


def _fitted(positions: Array, places: npt.NDArray[np.int64], *, first: int, last: int, height: float) -> Stack:
    step = (positions[last] - positions[first]) / places[last]
    expected = positions[first] + places[:, None] * step
    if np.linalg.norm(positions - expected, axis=1).max() > STEP_TOLERANCE * max(height, 1.0):  # 0.1 mm for thin slices
        raise ItemRefused("geometry_changed", "slices do not stand in a line")
    return Stack(positions[first], step, places, int(places[last]) + 1)


def affine_of(stack: Stack, *, rows: Array, columns: Array) -> Array:
    """Index to LPS; rows: the step from row to row in mm, columns: from column to column."""
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2], affine[:3, 3] = stack.step, rows, columns, stack.first
    return affine


def onto_volume(grid: LabelGrid, volume: Volume) -> npt.NDArray[np.int32]:
    """Labels on the volume's grid: for each of its voxels the nearest voxel of the grid, 0 outside.

    Where axes agree up to order, flips and spacing, each axis is looked up on its own: on equal voxels the result is
    exact. ItemRefused mask_geometry_mismatch when labelled voxels lie outside the volume.
    """
    found = np.zeros(volume.hu.shape, np.int32)
    if not np.isfinite(grid.affine).all() or abs(np.linalg.det(grid.affine[:3, :3])) < np.finfo(np.float32).tiny:
        raise ItemRefused("mask_geometry_mismatch", "the mask's affine is singular")
    grid = _cropped(grid)
    if not grid.labels.any():
        return found
    _refuse_elsewhere(grid, volume)
    block = _reached(grid, volume)
    first = np.eye(4)
    first[:3, 3] = [part.start for part in block]
    mapping = np.linalg.solve(grid.affine, volume.affine @ first)
    axes = _own_axes(mapping, volume.hu.shape)
    if axes is None:
        _look_up_oblique(grid, mapping, found=found[block])
    else:
        _look_up_by_axis(grid, mapping, axes=axes, found=found[block])
    return found


def _cropped(grid: LabelGrid) -> LabelGrid:
    """The box that holds all labels; a spine is a small part of its images."""
    is_label = grid.labels != 0
    spans = [np.flatnonzero(is_label.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    if not all(len(span) for span in spans):
        return LabelGrid(grid.labels[:0], grid.affine)
    affine = grid.affine.copy()
    affine[:3, 3] = (grid.affine @ [*(span[0] for span in spans), 1])[:3]
    return LabelGrid(grid.labels[tuple(slice(span[0], span[-1] + 1) for span in spans)], affine)


def _reached(grid: LabelGrid, volume: Volume) -> tuple[slice, slice, slice]:
    """The block of the volume that voxels of the grid can be nearest to."""
    there = np.linalg.solve(volume.affine, grid.affine)
    ends = np.array(np.meshgrid(*([-1, size] for size in grid.labels.shape))).reshape(3, -1)
    corners = there[:3, :3] @ ends + there[:3, 3:]
    low = np.clip(np.floor(corners.min(axis=1)), 0, volume.hu.shape).astype(int)
    high = np.clip(np.ceil(corners.max(axis=1)) + 1, 0, volume.hu.shape).astype(int)
    slices, rows, columns = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return slices, rows, columns


def _refuse_elsewhere(grid: LabelGrid, volume: Volume) -> None:
    labelled = np.argwhere(grid.labels)
    there = np.linalg.solve(volume.affine, grid.affine)
    index = labelled @ there[:3, :3].T + there[:3, 3]
    # a coarse mask may stand over the border by half a voxel of its own
    margin = EDGE + np.abs(there[:3, :3]).sum(axis=1) / 2
    inside = ((index >= -margin) & (index <= np.array(volume.hu.shape) - 1 + margin)).all(axis=1).mean()
    if inside < LEAST_INSIDE:
        raise ItemRefused("mask_geometry_mismatch", f"{100 * (1 - inside):.0f} % of the mask lies outside the images")


def _own_axes(mapping: Array, shape: tuple[int, ...]) -> list[int] | None:
    """For each axis of the grid the one volume axis that moves it; null when the axes are oblique to each other."""
    drift = np.abs(mapping[:3, :3]) * np.array(shape)
    axes = [int(axis) for axis in drift.argmax(axis=1)]
    if sorted(axes) != [0, 1, 2]:
        return None
    drift[range(3), axes] = 0
    return axes if drift.sum(axis=1).max() < SAME_GRID else None


def _nearest(index: Array) -> npt.NDArray[np.int64]:
    # half goes up everywhere; rounding half to even would alternate along a mask that is shifted by half a voxel.
    # The grain keeps floating-point noise from deciding which side a half falls on.
    nearest: npt.NDArray[np.int64] = np.floor(np.round(index, 3) + 0.5).astype(np.int64)
    return nearest


def _look_up_by_axis(grid: LabelGrid, mapping: Array, *, axes: list[int], found: npt.NDArray[np.int32]) -> None:
    """Fill the block axis by axis; axes: for each axis of the grid the axis of the volume."""
    looked_up, filled = [], []
    for axis, own in enumerate(axes):
        index = _nearest(mapping[axis, own] * np.arange(found.shape[own]) + mapping[axis, 3])
        inside = np.flatnonzero((index >= 0) & (index < grid.labels.shape[axis]))
        looked_up.append(index[inside])
        filled.append(inside)
    order = [axes.index(own) for own in range(3)]
    found[np.ix_(*(filled[axis] for axis in order))] = grid.labels[np.ix_(*looked_up)].transpose(order)


def _look_up_oblique(grid: LabelGrid, mapping: Array, *, found: npt.NDArray[np.int32]) -> None:
    """Fill the block voxel by voxel, one slice at a time, so that coordinates need the memory of one slice."""
    rows, columns = np.meshgrid(np.arange(found.shape[1]), np.arange(found.shape[2]), indexing="ij")
    in_plane = rows[..., None] * mapping[:3, 1] + columns[..., None] * mapping[:3, 2] + mapping[:3, 3]
    extent = np.array(grid.labels.shape)
    for place in range(found.shape[0]):
        index = _nearest(in_plane + place * mapping[:3, 0])
        inside = ((index >= 0) & (index < extent)).all(axis=-1)
        found[place][inside] = grid.labels[tuple(index[inside].T)]
