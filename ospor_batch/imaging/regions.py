"""What is measured inside a labelled region."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ospor_batch.imaging.volume import Volume


@dataclass(frozen=True)
class Region:
    """One vertebra: size and plain HU statistics; padding and missing slices are left out.

    sd_hu: over the voxels of the region (divisor n). is_touching_edge: the region reaches the first or last slice.
    dice, hd95_mm: overlap of a segmented level with the mask beside the images; null where there is none.
    """

    level: str
    n_voxels: int
    volume_ml: float
    mean_hu: float
    sd_hu: float
    is_touching_edge: bool
    dice: float | None = None
    hd95_mm: float | None = None


def measure(volume: Volume, labels: npt.NDArray[np.int32], *, levels: Mapping[str, int]) -> tuple[Region, ...]:
    """Measure every level that has voxels, from head to foot.

    labels: on the volume's grid. levels: vertebral level to label.
    """
    is_measured = labels != 0
    if volume.is_padding is not None:
        is_measured &= ~volume.is_padding
    label, hu = labels[is_measured], volume.hu[is_measured].astype(np.float64)
    on_edge = set(labels[0][is_measured[0]].tolist()) | set(labels[-1][is_measured[-1]].tolist())
    found = []
    for level in sorted(levels, key=anatomical_order):
        values = hu[label == levels[level]]
        if len(values):
            found.append(
                Region(
                    level=level,
                    n_voxels=len(values),
                    volume_ml=len(values) * volume.voxel_ml,
                    mean_hu=float(values.mean()),
                    sd_hu=float(values.std()),
                    is_touching_edge=levels[level] in on_edge,
                )
            )
    return tuple(found)


def trabecular_roi(
    volume: Volume, labels: npt.NDArray[np.int32], *, levels: Mapping[str, int], erosion_mm: float
) -> npt.NDArray[np.int32]:
    """Labels without the outermost millimetres of each level, in all three directions; a level may vanish.

    The distance is from a voxel's centre to the nearest centre outside, less half the finest step; tilt is not corrected
    for. The first and last slice of the images are no border of the bone.
    """
    if erosion_mm <= 0:
        return labels
    kept = np.zeros_like(labels)
    for label in levels.values():
        index = np.argwhere(labels == label)
        if not len(index):
            continue
        low, high = index.min(axis=0), index.max(axis=0) + 1
        box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        inside = np.pad(labels[box] == label, 1)
        for end, is_cut in ((0, low[0] == 0), (-1, high[0] == len(labels))):
            if is_cut:
                inside[end] = inside[1 if end == 0 else -2]
        depth = ndimage.distance_transform_edt(inside, sampling=volume.spacing)[1:-1, 1:-1, 1:-1]
        kept[box][(labels[box] == label) & (depth - min(volume.spacing) / 2 >= erosion_mm)] = label
    return kept


def anatomical_order(level: str) -> tuple[int, int]:
    """Sort key of a vertebral level, from head to foot."""
    return "CTLS".index(level[0]), int(level[1:])
