"""CT numbers of the patient's own tissues beside the labelled vertebrae: the inputs of an internal calibration.

Everything is measured in mm, so that the matrix does not decide. Windows of muscle and fat: methods I1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ospor_batch.errors import ItemRefused
from ospor_batch.imaging.orientation import Mask, body_mask, canonical
from ospor_batch.imaging.volume import Array, Volume

Tissue = Literal["muscle", "fat", "air", "blood"]
TISSUES: tuple[Tissue, ...] = get_args(Tissue)
MUSCLE_HU, FAT_HU = (-29.0, 150.0), (-190.0, -30.0)  # methods I1
# Where tissues are looked for; judgement, declared here
REACH_MM = 9.0  # slices above and below the middle of a level
SMOOTH_MM = 1.5  # spread of the filter on which tissue is told from tissue; values are those of the images
BONE_HU, BONE_CLEAR_MM = 160.0, 3.0  # muscle keeps away from cortex
BEHIND_MM, DEEPEST_MM, NARROWEST_MM, WIDEST_MM = 16.0, 70.0, 8.0, 60.0  # of paraspinal muscle from the middle of the body
SKIN_MM, UNDER_SKIN_MM = 3.0, 40.0  # depth of subcutaneous fat
FROM_BODY_MM, MOST_AIR_HU = 15.0, -900.0
BLOOD_HU = (15.0, 90.0)  # plain blood, with haematocrit and noise to spare
IN_FRONT_MM, ASIDE_MM, LEAST_VESSEL_MM = (12.0, 55.0), (-15.0, 35.0), 5.0  # the aorta: in front and to the left
CORE_MM = 3.0  # voxels lie so deep in their tissue where it is thick enough
LEAST_ML = 0.7  # less is not a tissue but a border


@dataclass(frozen=True)
class Sample:
    """One tissue of one series. hu: median, so that vessels and fat strands hardly move it; sd_hu: spread of the voxels."""

    tissue: Tissue
    hu: float
    sd_hu: float
    volume_ml: float


def sample_tissues(
    volume: Volume, labels: npt.NDArray[np.int32], *, levels: Mapping[str, int], tissues: Sequence[Tissue]
) -> dict[Tissue, Sample]:
    """Sample the tissues in the slices of the levels that are in view; order of the answer is that of ``tissues``.

    ItemRefused: levels_missing, body_missing, muscle_missing, fat_missing, air_missing, blood_missing.
    """
    turned, own = canonical(volume, labels)
    assert own is not None
    slabs = [
        slab
        for slab in (_slab(turned, own, label=label, bones=list(levels.values())) for label in levels.values())
        if slab is not None
    ]
    if not slabs:
        raise ItemRefused("levels_missing", f"none of {', '.join(levels)} in the images")
    return {tissue: _sample(tissue, slabs) for tissue in tissues}


@dataclass(frozen=True)
class _Slab:
    """The slices of one level: CT numbers, their smoothed copy, what is body, and mm from the middle of the vertebra."""

    hu: npt.NDArray[np.float32]
    smooth: npt.NDArray[np.float32]
    body: Mask
    usable: Mask
    behind: Array
    aside: Array
    spacing: tuple[float, float, float]

    @property
    def voxel_ml(self) -> float:
        return float(np.prod(self.spacing)) / 1000


def _slab(volume: Volume, labels: npt.NDArray[np.int32], *, label: int, bones: list[int]) -> _Slab | None:
    index = np.argwhere(labels == label)
    if not len(index):
        return None
    middle, step = index.mean(axis=0), volume.spacing
    half = max(0.5, REACH_MM / step[0])
    low, high = max(0, int(np.ceil(middle[0] - half))), int(middle[0] + half) + 1
    hu = volume.hu[low:high]
    sigma = [SMOOTH_MM / s if s < 2 * SMOOTH_MM else 0.0 for s in step]
    usable = ~np.isin(labels[low:high], bones)
    if volume.is_padding is not None:
        usable = usable & ~volume.is_padding[low:high]
    part = Volume(hu, volume.affine)
    return _Slab(
        hu=hu,
        smooth=ndimage.gaussian_filter(hu, sigma, mode="nearest"),
        body=body_mask(part),
        usable=usable,
        behind=((np.arange(hu.shape[1]) - middle[1]) * step[1])[None, :, None],
        aside=((np.arange(hu.shape[2]) - middle[2]) * step[2])[None, None, :],
        spacing=step,
    )


def _sample(tissue: Tissue, slabs: Sequence[_Slab]) -> Sample:
    finders = {"muscle": _muscle, "fat": _fat, "air": _air, "blood": _blood}
    masks = [finders[tissue](slab) & slab.usable for slab in slabs]
    values = np.concatenate([slab.hu[mask] for slab, mask in zip(slabs, masks, strict=True)]).astype(np.float64)
    volume_ml = len(values) * slabs[0].voxel_ml
    if volume_ml < LEAST_ML:
        raise ItemRefused(
            f"{tissue}_missing", f"{volume_ml:.1f} ml of {tissue} beside the vertebrae, expected {LEAST_ML} or more"
        )
    return Sample(tissue, float(np.median(values)), float(values.std()), volume_ml)


def _muscle(slab: _Slab) -> Mask:
    """Paraspinal muscle: behind the vertebral body, beside the arches, away from bone."""
    where = (slab.behind > BEHIND_MM) & (slab.behind < DEEPEST_MM)
    where = where & (np.abs(slab.aside) > NARROWEST_MM) & (np.abs(slab.aside) < WIDEST_MM)
    is_near_bone = _distance(slab.smooth <= BONE_HU, slab) < BONE_CLEAR_MM
    return _deep(_within(slab.smooth, MUSCLE_HU) & slab.body & where & ~is_near_bone, slab)


def _fat(slab: _Slab) -> Mask:
    """Subcutaneous fat: near the skin, where skin is in view."""
    if slab.body.all():
        return np.zeros_like(slab.body)
    depth = _distance(slab.body, slab)
    return _deep(_within(slab.smooth, FAT_HU) & slab.body & (depth > SKIN_MM) & (depth < UNDER_SKIN_MM), slab)


def _air(slab: _Slab) -> Mask:
    return (_distance(~slab.body, slab) > FROM_BODY_MM) & (slab.smooth < MOST_AIR_HU)


def _blood(slab: _Slab) -> Mask:
    """The widest round thing of blood's CT number in front of the vertebra: the aorta where it lies as usual."""
    where = (-slab.behind > IN_FRONT_MM[0]) & (-slab.behind < IN_FRONT_MM[1])
    where = where & (slab.aside > ASIDE_MM[0]) & (slab.aside < ASIDE_MM[1])
    depth = _distance(_within(slab.smooth, BLOOD_HU) & slab.body & where, slab)
    found = np.zeros_like(slab.body)
    for at, one in enumerate(depth):
        if one.max() >= LEAST_VESSEL_MM:
            row, column = np.unravel_index(int(one.argmax()), one.shape)
            down, across = (np.arange(n) - place for n, place in zip(one.shape, (row, column), strict=True))
            away = np.hypot(down[:, None] * slab.spacing[1], across[None, :] * slab.spacing[2])
            found[at] = away < one.max() - CORE_MM / 2
    return found


def _within(hu: npt.NDArray[np.float32], window: tuple[float, float]) -> Mask:
    inside: Mask = (hu >= window[0]) & (hu <= window[1])
    return inside


def _distance(mask: Mask, slab: _Slab) -> Array:
    """Distance in mm, within the slice, from the edge of a mask, 0 outside; the border of the image is no edge."""
    if mask.all():
        return np.full(mask.shape, np.inf)
    sampling = slab.spacing[1:]
    found = np.stack(
        [
            ndimage.distance_transform_edt(one, sampling=sampling) if not one.all() else np.full(one.shape, np.inf)
            for one in mask
        ]
    )
    return np.asarray(np.maximum(found - min(sampling) / 2, 0) * mask)


def _deep(mask: Mask, slab: _Slab) -> Mask:
    """The voxels CORE_MM, and one whole voxel, deep in their tissue; where it is thinner, half as deep as its thickest part."""
    depth = _distance(mask, slab)
    deepest = float(depth.max(initial=0.0))
    kept: Mask = mask & (depth >= min(max(CORE_MM, *slab.spacing[1:]), deepest / 2))
    return kept
