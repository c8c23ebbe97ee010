"""Resampling of volumes and labels in torch: one implementation for CPU and GPU.

A place within half a voxel of the outermost centres lies in the volume and takes the nearest value there; beyond it is
filled. That is what ITK does, and what the tests compare with.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from ospor_batch.errors import ItemRefused
from ospor_batch.imaging.volume import AIR_HU, Array

SLAB = 2**22  # places at a time, so that coordinates stay small beside the volume
SAME_AXES = 1e-6  # voxels of drift over the grid below which two grids have the same directions
Order = Literal[0, 1]  # nearest voxel, or linear between voxels


def resample(
    values: npt.NDArray[Any],
    affine: Array,
    *,
    spacing_mm: tuple[float, float, float],
    shape: tuple[int, int, int] | None = None,
    order: Order = 1,
    fill: float = AIR_HU,
    device: str = "cpu",
) -> tuple[npt.NDArray[Any], Array]:
    """Values on a grid of the same directions and center with other steps (slice, row, column), and its affine.

    shape: of the answer, filled or cut around the center; by default what covers the same field. Labels want order 0 and
    fill 0 and keep their type; linear values are float32.
    """
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    wanted = np.asarray(spacing_mm, np.float64)
    if not (np.isfinite(wanted).all() and (wanted > 0).all() and (steps > 0).all()):
        raise ItemRefused("geometry_changed", "spacing is no positive number")
    extent = steps * values.shape
    size = tuple(shape) if shape is not None else tuple(int(max(1, n)) for n in np.floor(extent / wanted + 0.5))
    to_affine = affine.astype(np.float64).copy()
    to_affine[:3, :3] = affine[:3, :3] / steps * wanted
    center = affine[:3, :3] @ ((np.array(values.shape) - 1) / 2) + affine[:3, 3]
    to_affine[:3, 3] = center - to_affine[:3, :3] @ ((np.array(size) - 1) / 2)
    found = onto_grid(
        values, affine, to_affine=to_affine, shape=(size[0], size[1], size[2]), order=order, fill=fill, device=device
    )
    return found, to_affine


def onto_grid(
    values: npt.NDArray[Any],
    affine: Array,
    *,
    to_affine: Array,
    shape: tuple[int, int, int],
    order: Order = 1,
    fill: float = AIR_HU,
    device: str = "cpu",
) -> npt.NDArray[Any]:
    """Values at the places of another grid; affines take an index to the same coordinates in mm.

    A half goes up where a place lies midway between two voxels (order 0).
    """
    mapping = torch.from_numpy(np.linalg.solve(affine, to_affine)).to(device)
    given = torch.from_numpy(np.ascontiguousarray(values if order == 0 else values.astype(np.float32))).to(device)
    if not (mapping[:3, :3] - torch.diag(torch.diagonal(mapping)[:3])).abs().max() * max(shape) > SAME_AXES:
        found: npt.NDArray[Any] = _by_axis(given, mapping, shape, order=order, fill=fill).cpu().numpy()
        return found
    plane = shape[1] * shape[2]
    at_once = max(1, SLAB // max(plane, 1))
    parts = []
    for first in range(0, shape[0], at_once):
        places = _places(mapping, shape, slices=range(first, min(first + at_once, shape[0])))
        parts.append(_sampled(given, places, order=order, fill=fill).cpu().numpy())
    return np.concatenate(parts).reshape(shape) if parts else np.zeros(shape, values.dtype)


def _by_axis(
    given: torch.Tensor, mapping: torch.Tensor, shape: tuple[int, int, int], *, order: Order, fill: float
) -> torch.Tensor:
    """Grids of the same directions: one axis after the other, which costs a tenth of doing all at once."""
    is_inside = []
    for axis, n in enumerate(shape):
        at = torch.arange(n, device=mapping.device, dtype=torch.float64) * mapping[axis, axis] + mapping[axis, 3]
        low, high, share, inside = _between(at, given.shape[axis])
        is_inside.append(inside)
        if order == 0:
            given = given.index_select(axis, torch.where(share >= 0.5, high, low))
        else:
            form = [n if own == axis else 1 for own in range(3)]
            given = torch.lerp(
                given.index_select(axis, low), given.index_select(axis, high), share.to(given.dtype).reshape(form)
            )
    inside = is_inside[0][:, None, None] & is_inside[1][None, :, None] & is_inside[2][None, None, :]
    return torch.where(inside, given, torch.as_tensor(fill, device=given.device).to(given.dtype))


def _between(at: torch.Tensor, n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The two voxels of an axis that a place lies between, its share of the way, and whether it lies in the volume."""
    at = torch.round(at, decimals=6)  # the noise of products does not decide on which side of a half a place lies
    held = at.clamp(0, n - 1)
    low = torch.floor(held).long()
    return low, (low + 1).clamp(max=n - 1), held - low, (at >= -0.5) & (at <= n - 0.5)


def _places(mapping: torch.Tensor, shape: tuple[int, int, int], *, slices: range) -> torch.Tensor:
    """Index in the given volume, float64 (3, place), of every voxel of some slices."""
    axes = [torch.arange(len(slices), device=mapping.device, dtype=torch.float64) + slices.start]
    axes += [torch.arange(n, device=mapping.device, dtype=torch.float64) for n in shape[1:]]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij")).reshape(3, -1)
    return mapping[:3, :3] @ grid + mapping[:3, 3:]


def _sampled(given: torch.Tensor, places: torch.Tensor, *, order: Order, fill: float) -> torch.Tensor:
    ends = [_between(at, n) for at, n in zip(places, given.shape, strict=True)]
    inside = ends[0][3] & ends[1][3] & ends[2][3]
    strides, flat = (given.shape[1] * given.shape[2], given.shape[2], 1), given.reshape(-1)
    if order == 0:
        found = flat[sum(torch.where(s >= 0.5, high, low) * n for (low, high, s, _), n in zip(ends, strides, strict=True))]
        return torch.where(inside, found, torch.as_tensor(fill, device=found.device).to(found.dtype))
    linear = torch.zeros(places.shape[1], device=places.device, dtype=torch.float32)
    for corner in range(8):
        weight, where = torch.ones_like(linear), torch.zeros_like(ends[0][0])
        for axis, (low, high, share, _) in enumerate(ends):
            is_high = bool(corner >> axis & 1)
            weight = weight * (share if is_high else 1 - share).to(torch.float32)
            where = where + (high if is_high else low) * strides[axis]
        linear += weight * flat[where]
    return torch.where(inside, linear, torch.full_like(linear, fill))
