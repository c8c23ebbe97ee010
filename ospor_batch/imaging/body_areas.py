"""Areas of muscle and fat in the axial image of a vertebral level, by windows of CT numbers (methods I1).

A window alone counts bowel and liver as muscle. Muscle is therefore taken from the body wall: what lies so deep under the
subcutaneous fat, and what lies beside and behind the vertebra. That is an estimate: organs that touch the wall are counted
up to its depth, and a thicker wall is cut. Where a mask of muscle is at hand, use that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ospor_batch.errors import ItemRefused
from ospor_batch.imaging.orientation import Mask, body_mask, canonical
from ospor_batch.imaging.tissues import FAT_HU, MUSCLE_HU
from ospor_batch.imaging.volume import Volume

SLAB_MM = 5.0  # slices that are averaged around the middle of the level
SKIN_MM = 2.0
BRIDGE_MM = 12.0  # half of the widest gap in the wall, as between quadratus lumborum and the obliques; judgement
LEAST_PIECE_CM2 = 1.0  # smaller things of muscle's CT number in the fat are vessels; judgement
# By part of the spine, judgement: depth of the wall under subcutaneous fat (obliques and rectus; intercostals), and how far
# aside of and in front of the middle of the vertebra its own muscles reach (psoas and quadratus lumborum; erectors alone)
WALL_MM = {"L": 14.0, "T": 7.0}
SPINE_ASIDE_MM, SPINE_FRONT_MM = {"L": 65.0, "T": 45.0}, {"L": 12.0, "T": -8.0}


@dataclass(frozen=True)
class Areas:
    """cm2 at one level. muscle_hu: mean over the muscle. is_cut_off: the body reaches the border of the image."""

    level: str
    muscle_cm2: float
    subcutaneous_fat_cm2: float
    visceral_fat_cm2: float
    muscle_hu: float
    is_cut_off: bool


def muscle_and_fat_areas(volume: Volume, labels: npt.NDArray[np.int32], *, level: str, levels: Mapping[str, int]) -> Areas:
    """Areas at the middle of a level; ItemRefused levels_missing, body_missing, muscle_missing."""
    hu, body, middle, step = axial_image(volume, labels, level=level, levels=levels)
    fat = _within(hu, FAT_HU) & body
    trunk = _trunk(hu, body, step)
    muscle = wall_muscle(hu, body, middle=middle, step=step, level=level)
    if not muscle.any():
        raise ItemRefused("muscle_missing", f"no voxel of muscle's CT number at {level}")
    cm2 = step[0] * step[1] / 100
    return Areas(
        level=level,
        muscle_cm2=float(muscle.sum()) * cm2,
        subcutaneous_fat_cm2=float((fat & ~trunk).sum()) * cm2,
        visceral_fat_cm2=float((fat & trunk).sum()) * cm2,
        muscle_hu=float(hu[muscle].mean()),
        is_cut_off=bool(body[[0, -1]].any() or body[:, [0, -1]].any()),
    )


def wall_muscle(
    hu: npt.NDArray[np.float32], body: Mask, *, middle: tuple[float, float], step: tuple[float, float], level: str
) -> Mask:
    """Muscle of the body wall and beside the vertebra in an axial image; middle: of the vertebra. Empty where there is none."""
    trunk = _trunk(hu, body, step)
    depth = ndimage.distance_transform_edt(np.pad(trunk, 1), sampling=step)[1:-1, 1:-1]
    behind = ((np.arange(hu.shape[0]) - middle[0]) * step[0])[:, None]
    aside = np.abs((np.arange(hu.shape[1]) - middle[1]) * step[1])[None, :]
    part = "L" if level.startswith("L") else "T"
    is_spinal = (behind > -SPINE_FRONT_MM[part]) & (aside < SPINE_ASIDE_MM[part])
    found: Mask = _within(hu, MUSCLE_HU) & trunk & ((depth <= WALL_MM[part]) | is_spinal)
    return found


def axial_image(
    volume: Volume, labels: npt.NDArray[np.int32], *, level: str, levels: Mapping[str, int], slab_mm: float = SLAB_MM
) -> tuple[npt.NDArray[np.float32], Mask, tuple[float, float], tuple[float, float]]:
    """The mean of the slices around the middle of a level, on the volume's own pixels: rows to the back, columns to the left.

    Returns HU, the body in it, the middle of the vertebra (row, column) and the steps in mm. ItemRefused levels_missing.
    """
    turned, own = canonical(volume, labels)
    assert own is not None
    index = np.argwhere(own == levels[level])
    if not len(index):
        raise ItemRefused("levels_missing", f"{level} is not in the images")
    middle, half = index.mean(axis=0), max(0.5, slab_mm / 2 / turned.spacing[0])
    low, high = max(0, int(np.ceil(middle[0] - half))), int(middle[0] + half) + 1
    slab = turned.hu[low:high]
    body = body_mask(Volume(slab.mean(axis=0, keepdims=True, dtype=np.float64).astype(np.float32), turned.affine))[0]
    _, rows, columns = turned.spacing
    return slab.mean(axis=0, dtype=np.float64).astype(np.float32), body, (float(middle[1]), float(middle[2])), (rows, columns)


def _trunk(hu: npt.NDArray[np.float32], body: Mask, step: tuple[float, float]) -> Mask:
    """What the wall of muscle and bone encloses, the wall included; gaps in it are bridged, skin and vessels left out."""
    under_skin = ndimage.distance_transform_edt(np.pad(body, 1), sampling=step)[1:-1, 1:-1] > SKIN_MM + min(step) / 2
    pieces, _ = ndimage.label((hu >= MUSCLE_HU[0]) & body & under_skin)
    sizes = np.bincount(pieces.ravel()) * step[0] * step[1] / 100
    sizes[0] = 0
    wall: Mask = np.isin(pieces, np.flatnonzero(sizes >= LEAST_PIECE_CM2))
    if not wall.any():
        return wall
    wide = int(np.ceil(BRIDGE_MM / min(step))) + 1
    near = ndimage.distance_transform_edt(np.pad(~wall, wide, constant_values=True), sampling=step) <= BRIDGE_MM
    closed = ndimage.distance_transform_edt(ndimage.binary_fill_holes(near), sampling=step) > BRIDGE_MM
    found: Mask = (closed[wide:-wide, wide:-wide] | wall) & body
    return found


def _within(hu: npt.NDArray[np.float32], window: tuple[float, float]) -> Mask:
    inside: Mask = (hu >= window[0]) & (hu <= window[1])
    return inside
