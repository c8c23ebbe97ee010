"""Overlap of two masks of one vertebra: Dice, and the 95th percentile of surface distances in mm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

CONVENTIONS = ("max_of_directed", "pooled")  # MONAI's and MedPy's; up to 9 mm apart (methods S8)
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Overlap:
    """Null with a reason where a mask is empty; never 0 and never dropped in silence."""

    dice: float | None
    hd95_mm: float | None
    reason: str | None = None


def overlap(
    mask: ArrayLike, other: ArrayLike, *, spacing_mm: tuple[float, float, float], hd95_convention: str = "max_of_directed"
) -> Overlap:
    """Dice and HD95 of two masks in array order; both empty: null, one empty: Dice 0 and no distance."""
    if hd95_convention not in CONVENTIONS:
        raise ValueError(f"hd95_convention is {hd95_convention!r}, expected one of {', '.join(CONVENTIONS)}")
    a, b = np.asarray(mask).astype(bool), np.asarray(other).astype(bool)
    if a.shape != b.shape:
        raise ValueError(f"masks have shapes {a.shape} and {b.shape}; resample one to the other first")
    size = int(a.sum()) + int(b.sum())
    if not a.any() or not b.any():
        return Overlap(0.0 if size else None, None, "one_mask_empty" if size else "both_masks_empty")
    dice = 2 * int((a & b).sum()) / size
    forth, back = _directed(a, b, spacing_mm), _directed(b, a, spacing_mm)
    if hd95_convention == "pooled":
        return Overlap(dice, float(np.percentile(np.concatenate([forth, back]), 95)))
    return Overlap(dice, float(max(np.percentile(forth, 95), np.percentile(back, 95))))


def _directed(a: Mask, b: Mask, spacing_mm: tuple[float, float, float]) -> NDArray[np.float64]:
    """Distance of every surface voxel of a to the surface of b."""
    away = ndimage.distance_transform_edt(~_surface(b), sampling=spacing_mm)
    found: NDArray[np.float64] = away[_surface(a)]
    return found


def _surface(mask: Mask) -> Mask:
    """Voxels of a mask with one of six neighbours outside it, or at the edge of the volume."""
    inner = ndimage.binary_erosion(mask, structure=ndimage.generate_binary_structure(mask.ndim, 1), border_value=0)
    found: Mask = mask & ~inner
    return found
