"""Images of one vertebra, cut from a volume along the patient's axes: sagittal and axial planes, and boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ospor_batch.imaging.volume import AIR_HU, Volume

Array = npt.NDArray[Any]
Plane = Literal["axial", "coronal", "sagittal"]
# rows and columns of each plane in LPS: sagittal images show the head above and the front at the left, axial ones the
# front above and the patient's right at the left, as on a workstation
AXES: dict[Plane, tuple[Array, Array]] = {
    "sagittal": (np.array([0.0, 0, -1]), np.array([0.0, 1, 0])),
    "coronal": (np.array([0.0, 0, -1]), np.array([1.0, 0, 0])),
    "axial": (np.array([0.0, 1, 0]), np.array([1.0, 0, 0])),
}
NORMAL: dict[Plane, Array] = {
    "sagittal": np.array([1.0, 0, 0]), "coronal": np.array([0.0, 1, 0]), "axial": np.array([0.0, 0, 1]),
}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Where a labelled vertebra lies.

    center: LPS in mm, the middle of its voxels. box: its voxels' bounds in the volume (slice, row, column).
    is_cut: it reaches the first or last slice, so that a part of it may be out of view.
    """

    center: Array
    box: tuple[slice, slice, slice]
    n_voxels: int
    is_cut: bool


def place_of(volume: Volume, labels: npt.NDArray[np.int32], *, label: int) -> Place | None:
    """Find a labelled vertebra; null when the label has no voxel."""
    index = np.argwhere(labels == label)
    if not len(index):
        return None
    low, high = index.min(axis=0), index.max(axis=0)
    box = tuple(slice(int(a), int(b) + 1) for a, b in zip(low, high, strict=True))
    is_cut = bool(low[0] == 0 or high[0] == labels.shape[0] - 1) and labels.shape[0] > 1
    center = volume.affine[:3, :3] @ index.mean(axis=0) + volume.affine[:3, 3]
    return Place(center, (box[0], box[1], box[2]), len(index), is_cut)


def plane_images(
    volume: Volume, center: Array, *, plane: Plane, offsets_mm: Sequence[float] = (0.0,), side_mm: float, pixels: int
) -> npt.NDArray[np.float32]:
    """HU (offset, row, column) of square images around a point of the patient, parallel at the offsets; air beyond the volume.

    offsets_mm: along the normal of the plane: sagittal to the patient's left, coronal to the back, axial to the head.
    """
    images = [
        sampled(volume, center + NORMAL[plane] * offset, axes=AXES[plane], side_mm=side_mm, pixels=pixels)
        for offset in offsets_mm
    ]
    return np.stack(images)


def box_image(volume: Volume, center: Array, *, side_mm: float, pixels: int) -> npt.NDArray[np.float32]:
    """HU (z, y, x) of a cube around a point: from foot to head, front to back, right to left; air beyond the volume."""
    axes = (np.array([0.0, 0, 1]), np.array([0.0, 1, 0]), np.array([1.0, 0, 0]))
    return sampled(volume, center, axes=axes, side_mm=side_mm, pixels=pixels)


def sampled(
    volume: Volume, center: Array, *, axes: Sequence[Array], side_mm: float, pixels: int, fill: float = AIR_HU
) -> npt.NDArray[np.float32]:
    """Values on a square or cubic grid around a point, linear between voxels; axes are unit vectors in LPS.

    Where voxels are finer than the grid they are averaged before, so that noise does not alias.
    """
    return _on_grid(volume.hu, volume, center, axes=axes, side_mm=side_mm, pixels=pixels, fill=fill)


def share_of(
    is_inside: npt.NDArray[np.bool_], volume: Volume, center: Array, *, axes: Sequence[Array], side_mm: float, pixels: int
) -> npt.NDArray[np.float32]:
    """Share of a mask on the volume's grid, 0 to 1, on the grid of ``sampled``."""
    return _on_grid(is_inside, volume, center, axes=axes, side_mm=side_mm, pixels=pixels, fill=0.0)


def _on_grid(
    values: Array, volume: Volume, center: Array, *, axes: Sequence[Array], side_mm: float, pixels: int, fill: float
) -> npt.NDArray[np.float32]:
    step = side_mm / pixels
    along = (np.arange(pixels) - (pixels - 1) / 2) * step
    places = center[:, None] + sum(
        np.asarray(axis)[:, None] * grid.ravel()
        for axis, grid in zip(axes, np.meshgrid(*[along] * len(axes), indexing="ij"), strict=True)
    )
    to_index = np.linalg.inv(volume.affine)
    index = to_index[:3, :3] @ places + to_index[:3, 3:]
    block, first = _block(values, index)
    if not block.size:
        return np.full((pixels,) * len(axes), fill, np.float32)
    sigma = [max(0.0, step / spacing - 1) / 2 for spacing in volume.spacing]
    smooth = ndimage.gaussian_filter(block.astype(np.float32), sigma) if max(sigma) > 0.3 else block.astype(np.float32)
    found = ndimage.map_coordinates(smooth - fill, index - first[:, None], order=1, mode="constant", cval=0.0) + fill
    # a place within half a voxel of the outermost centres still lies in the volume
    outer = np.clip(index, 0, np.array(values.shape)[:, None] - 1)
    is_rim = (np.abs(outer - index).max(axis=0) <= 0.5) & (outer != index).any(axis=0)
    if is_rim.any():
        found[is_rim] = ndimage.map_coordinates(smooth, outer[:, is_rim] - first[:, None], order=1, mode="nearest")
    result: npt.NDArray[np.float32] = found.astype(np.float32).reshape((pixels,) * len(axes))
    return result


def _block(values: Array, index: Array) -> tuple[Array, Array]:
    """The part of the volume that the places lie in, with a margin for blur; its first voxel."""
    low = np.clip(np.floor(index.min(axis=1)) - 4, 0, np.array(values.shape)).astype(int)
    high = np.clip(np.ceil(index.max(axis=1)) + 5, 0, np.array(values.shape)).astype(int)
    return values[tuple(slice(a, b) for a, b in zip(low, high, strict=True))], low
