"""A volume turned to the patient's axes without interpolation, the body in it, and the box around that."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ospor_batch.errors import ItemRefused
from ospor_batch.imaging.volume import Volume

Mask = npt.NDArray[np.bool_]
Box = tuple[slice, slice, slice]
BODY_HU = -300.0  # between lung and fat on one side, skin on the other; the usual cut for a body outline
COARSE_MM = 4.0  # grid on which the outline is found: finer than an arm is wide, coarser than noise
OPENING_MM = 7.0  # thinner things that touch the body, such as a couch shell or a sheet, are cut off
LEAST_BODY_ML = 200.0  # less is no trunk


def canonical(volume: Volume, labels: npt.NDArray[Any] | None = None) -> tuple[Volume, npt.NDArray[Any] | None]:
    """Turn axes so that slices climb to the head, rows run to the back and columns to the left; nothing is interpolated.

    An axis goes to the patient axis that it is nearest to; oblique volumes stay oblique. Arrays are views.
    """
    order, flips = _turns(volume)
    shape = np.array(volume.hu.shape)[list(order)]
    turn = np.zeros((4, 4))
    turn[3, 3] = 1
    for axis, source in enumerate(order):
        turn[source, axis] = -1 if flips[axis] else 1
        turn[source, 3] = shape[axis] - 1 if flips[axis] else 0
    turned = replace(
        volume,
        hu=_turned(volume.hu, order, flips),
        affine=volume.affine @ turn,
        is_padding=None if volume.is_padding is None else _turned(volume.is_padding, order, flips),
    )
    return turned, None if labels is None else _turned(labels, order, flips)


def _turns(volume: Volume) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """For the axes z, y, x of the patient: the volume's axis, and whether it runs the other way."""
    direction = volume.direction[[2, 1, 0]]  # rows: z, y, x; columns: axes of the volume
    left, order = [0, 1, 2], []
    for along in np.argsort(-np.abs(direction).max(axis=1), kind="stable"):
        best = max(left, key=lambda axis: abs(direction[along, axis]))
        left.remove(best)
        order.append((int(along), best))
    axes = tuple(axis for _, axis in sorted(order))
    return axes, tuple(bool(direction[along, axis] < 0) for along, axis in enumerate(axes))


def _turned(array: npt.NDArray[Any], order: tuple[int, ...], flips: tuple[bool, ...]) -> npt.NDArray[Any]:
    return np.flip(array.transpose(order), tuple(axis for axis, is_flipped in enumerate(flips) if is_flipped))


def body_mask(volume: Volume) -> Mask:
    """The trunk without couch and air, holes of the lungs and bowel filled slice by slice; found on a grid of 4 mm.

    ItemRefused body_missing when nothing in the volume is large enough to be one.
    """
    strides = tuple(max(1, round(COARSE_MM / step)) for step in volume.spacing)
    strides = (1, *strides[1:])  # every slice keeps its own outline
    spacing = np.array(volume.spacing) * strides
    inside = _block_means(volume.hu, strides[1], strides[2]) > BODY_HU
    opened = np.stack([_opened(one, spacing[1:]) for one in inside])
    pieces, n_pieces = ndimage.label(opened)
    sizes = np.bincount(pieces.ravel(), minlength=2)[1:]
    if not n_pieces or sizes.max() * np.prod(spacing) / 1000 < min(LEAST_BODY_ML, 20 * spacing[0]):
        raise ItemRefused("body_missing", "no trunk in the images")
    body = np.stack([ndimage.binary_fill_holes(one) for one in pieces == sizes.argmax() + 1])
    n_rows, n_columns = volume.hu.shape[1:]
    fine: Mask = body.repeat(strides[1], axis=1).repeat(strides[2], axis=2)
    short = ((0, 0), (0, max(0, n_rows - fine.shape[1])), (0, max(0, n_columns - fine.shape[2])))
    return np.pad(fine, short, mode="edge")[:, :n_rows, :n_columns]


def _block_means(hu: npt.NDArray[np.float32], rows: int, columns: int) -> npt.NDArray[np.float32]:
    n_rows, n_columns = max(1, hu.shape[1] // rows), max(1, hu.shape[2] // columns)
    whole = hu[:, : n_rows * rows, : n_columns * columns]
    if whole.shape[1] < n_rows * rows or whole.shape[2] < n_columns * columns:
        return hu
    means: npt.NDArray[np.float32] = whole.reshape(len(hu), n_rows, rows, n_columns, columns).mean(axis=(2, 4))
    return means


def _opened(one: Mask, spacing: npt.NDArray[Any]) -> Mask:
    """Opening by a disc in mm through distances, so that it costs the same at every size."""
    padded = np.pad(one, 1, mode="edge")  # the border of the image is no border of the body
    kept = ndimage.distance_transform_edt(padded, sampling=spacing) > OPENING_MM
    opened = ndimage.distance_transform_edt(~kept, sampling=spacing) <= OPENING_MM if kept.any() else kept
    found: Mask = (opened & padded)[1:-1, 1:-1]
    return found


def body_box(body: Mask, *, spacing: tuple[float, float, float], margin_mm: float = 10.0) -> Box:
    """The box around a mask and a margin, cut to the volume; ItemRefused body_missing when the mask is empty."""
    if not body.any():
        raise ItemRefused("body_missing", "no trunk in the images")
    found = []
    for axis, step in enumerate(spacing):
        on = np.flatnonzero(body.any(axis=tuple({0, 1, 2} - {axis})))
        margin = int(np.ceil(margin_mm / step))
        found.append(slice(max(0, int(on[0]) - margin), min(body.shape[axis], int(on[-1]) + 1 + margin)))
    return found[0], found[1], found[2]


def cropped(volume: Volume, box: Box) -> Volume:
    """The part of a volume in a box; its place in the patient stays."""
    affine = volume.affine.copy()
    affine[:3, 3] = (volume.affine @ [*(part.start or 0 for part in box), 1])[:3]
    padding = None if volume.is_padding is None else volume.is_padding[box]
    return replace(volume, hu=volume.hu[box], affine=affine, is_padding=padding)
