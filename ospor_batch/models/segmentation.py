"""Segmentation of vertebral bodies with their level, muscle and fat in CT by one U-Net on an isotropic grid."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from ospor_batch.errors import ItemRefused, StudyError
from ospor_batch.imaging.volume import AIR_HU, Array, Volume
from ospor_batch.models.segmentation_classes import DISC, FILE_VALUES, KINDS, LEVELS, RIB, SACRUM, STRUCTURES
from ospor_batch.models.segmentation_levels import Body, labelled_bodies
from ospor_batch.models.spec import Parameter

VERSION = "3"  # raise it with every change that can move a label: windows, resampling, order of levels
DEFAULTS: dict[str, Parameter] = {
    "spacing_mm": 3.0,  # of the isotropic grid on which the network sees the body: a lumbar disc is three voxels high
    # voxels (z, y, x) of a window: 144 x 96 x 144 mm, four vertebrae with the ribs or transverse processes beside them
    "patch": ("48", "32", "48"),
    # at half the grid, a quarter, ...: no convolution on all voxels, so that a step costs a CPU 0.15 s; multiples of 16, since
    # fewer are computed no faster
    "features": ("32", "64", "96", "96"),
    "overlap": 0.5,  # of sliding windows
    "needs_landmark": True,  # levels that can be counted from no last rib and no sacrum are refused
}
# two views of the CT numbers: everything from air to metal, and soft tissue alone; (centre, half width) HU
WINDOWS = ((0.0, 1000.0), (50.0, 250.0))
SLAB = 24  # slices that are brought back to the volume's grid at once: bounds the memory
PLACE_UNIT = 6.0  # levels that the network sees as 1, counted from PLACE_ZERO: keeps its numbers near those of the logits
PLACE_ZERO = LEVELS.index("L1")
SPREADS = (0.05, 8.0)  # levels: bounds of the spread that the network states for its number
N_OUTPUTS = len(KINDS) + 2  # a logit a kind; place of the level; logarithm of the place's spread
MAX_VOXELS = 60_000_000  # of the coarse grid: 1.6 m3 at 3 mm; more is a broken geometry


@dataclass(frozen=True)
class Segmented:
    """Labels on the volume's grid by segmentation_classes.FILE_VALUES, and the bodies from head to foot."""

    labels: npt.NDArray[np.int32]
    bodies: tuple[Body, ...]


def network_of(parameters: Mapping[str, Parameter]) -> nn.Module:
    """Build the untrained network (MONAI's U-Net): two views in; a logit a kind, the level and its spread out."""
    from monai.networks.nets import UNet

    features = _numbers(parameters, "features")
    return UNet(3, len(WINDOWS), N_OUTPUTS, features, (2,) * (len(features) - 1))


def patch_of(parameters: Mapping[str, Parameter]) -> tuple[int, int, int]:
    """Voxels of a window; StudyError where the network cannot halve it often enough."""
    patch, halved = _numbers(parameters, "patch"), 2 ** (len(_numbers(parameters, "features")) - 1)
    if len(patch) != 3 or any(side % halved or side < 2 * halved for side in patch):
        raise StudyError(f"segmentation: patch is {patch}, expected three multiples of {halved}, from {2 * halved}")
    return patch[0], patch[1], patch[2]


def _numbers(parameters: Mapping[str, Parameter], name: str) -> tuple[int, ...]:
    given = parameters[name]
    if not isinstance(given, tuple) or not given or not all(str(entry).isdigit() and int(entry) for entry in given):
        raise StudyError(f"segmentation: {name} is {given!r}, expected whole numbers above 0")
    return tuple(int(entry) for entry in given)


def views(hu: Tensor) -> Tensor:
    """HU (..., z, y, x) to the channels that the network sees: (..., view, z, y, x), each within -1 and 1."""
    return torch.stack([((hu - middle) / half).clamp(-1, 1) for middle, half in WINDOWS], dim=-4)


def segment(volume: Volume, network: nn.Module, *, parameters: Mapping[str, Parameter], device: str = "cpu") -> Segmented:
    """Segment one volume.

    ItemRefused: no_vertebra where no body is found, levels_uncertain where nothing in view tells their levels,
    volume_too_large where the geometry is broken.
    """
    spacing = float(str(parameters["spacing_mm"]))
    coarse, affine = to_grid(volume, spacing_mm=spacing)
    with torch.inference_mode():
        probability, place, spread = outputs(coarse.to(device), network, parameters=parameters)
        others = {kind: probability[KINDS.index(kind)].numpy() for kind in (DISC, RIB, SACRUM)}
        structures, bodies = labelled_bodies(
            probability[1].numpy(), place.numpy(), spread.numpy(), spacing_mm=spacing, others=others
        )
        if not bodies:
            raise ItemRefused("no_vertebra", "the segmentation found no vertebral body")
        if parameters["needs_landmark"] and not bodies[0].counted_from:
            raise ItemRefused(
                "levels_uncertain",
                f"{len(bodies)} vertebral bodies, and no last rib or sacrum that agrees to count from",
            )
        return Segmented(_back(volume, probability, structures, affine=affine), bodies)


def outputs(coarse: Tensor, network: nn.Module, *, parameters: Mapping[str, Parameter]) -> tuple[Tensor, Tensor, Tensor]:
    """Probabilities (kind, z, y, x), place of the level (T1 being 0) and its spread in levels, on the network's grid."""
    from monai.inferers import sliding_window_inference

    found = sliding_window_inference(
        views(coarse)[None], roi_size=patch_of(parameters), sw_batch_size=1, predictor=network,
        overlap=float(str(parameters["overlap"])), mode="gaussian", cval=-1.0,
    )  # fmt: skip
    assert isinstance(found, Tensor)
    place, spread = level_of(found)
    return found[0, : len(KINDS)].softmax(dim=0).cpu(), place[0].cpu(), spread[0].cpu()


def level_of(found: Tensor) -> tuple[Tensor, Tensor]:
    """Place (n, z, y, x) of the level, T1 being 0, and its spread in levels, from what the network puts out."""
    # bounded before the exponential: the slope of an infinite one is no number
    spread = found[:, len(KINDS) + 1].clamp(*(math.log(bound) for bound in SPREADS)).exp()
    return found[:, len(KINDS)] * PLACE_UNIT + PLACE_ZERO, spread


def to_grid(volume: Volume, *, spacing_mm: float) -> tuple[Tensor, npt.NDArray[np.float64]]:
    """HU on an isotropic grid along the patient's axes (head, back, left) over all the volume, with its affine to LPS.

    Voxels much finer than the grid are averaged first, so that noise does not alias; beyond the volume lies air.
    """
    hu, source = _averaged(volume, spacing_mm)
    corners = np.array(np.meshgrid(*([0, n - 1] for n in hu.shape), indexing="ij")).reshape(3, -1)
    places = source[:3, :3] @ corners + source[:3, 3:]
    low, high = places.min(axis=1), places.max(axis=1)
    shape = [int(n) for n in (np.floor((high - low) / spacing_mm)[::-1] + 1)]
    if int(np.prod(shape)) > MAX_VOXELS:
        raise ItemRefused("volume_too_large", f"{'x'.join(map(str, shape))} voxels of {spacing_mm:g} mm")
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[::-1] * spacing_mm  # index (z, y, x) to LPS (x, y, z)
    affine[:3, 3] = low
    return _sampled(hu, np.linalg.solve(source, affine), shape, fill=AIR_HU), affine


def _averaged(volume: Volume, spacing_mm: float) -> tuple[Tensor, npt.NDArray[np.float64]]:
    hu = torch.as_tensor(np.ascontiguousarray(volume.hu, dtype=np.float32))
    factors = [min(n, max(1, int(spacing_mm / step + 0.01))) for step, n in zip(volume.spacing, hu.shape, strict=True)]
    hu = functional.avg_pool3d(hu[None], tuple(factors))[0] if max(factors) > 1 else hu
    affine = volume.affine.astype(np.float64).copy()
    affine[:3, 3] += affine[:3, :3] @ ((np.array(factors) - 1) / 2)
    affine[:3, :3] *= factors
    return hu, affine


def _sampled(source: Tensor, mapping: Array, shape: list[int], *, fill: float, mode: str = "bilinear") -> Tensor:
    """Values of (..., z, y, x) at the indices that the mapping gives to a grid of the shape; fill beyond the source."""
    axes = [torch.arange(n, dtype=torch.float32) for n in shape]
    index = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    turned = torch.as_tensor(mapping[:3, :3].T.copy(), dtype=torch.float32)
    index = index @ turned + torch.as_tensor(mapping[:3, 3].copy(), dtype=torch.float32)
    span = torch.tensor(source.shape[-3:], dtype=torch.float32)
    # without a neighbour along an axis (one slice) every place within half a voxel is that slice
    where = ((2 * index + 1) / span - 1).flip(-1)[None]
    channels = source.reshape(1, -1, *source.shape[-3:]) - fill
    found = functional.grid_sample(channels, where, mode=mode, padding_mode="zeros", align_corners=False)[0] + fill
    return found.reshape(*source.shape[:-3], *shape)


def _back(
    volume: Volume, probability: Tensor, structures: npt.NDArray[np.uint8], *, affine: npt.NDArray[np.float64]
) -> npt.NDArray[np.int32]:
    """Labels on the volume's grid: the kind by interpolated probability, the level of a body by its component."""
    level = torch.as_tensor(_spread(structures).astype(np.float32))
    values = torch.tensor([FILE_VALUES.get(name, 0) for name in STRUCTURES], dtype=torch.int32)
    tissue = torch.tensor([FILE_VALUES.get(name, 0) for name in KINDS], dtype=torch.int32)
    labels = np.zeros(volume.hu.shape, np.int32)
    for first in range(0, len(labels), SLAB):
        shape = [min(SLAB, len(labels) - first), *labels.shape[1:]]
        start = np.eye(4)
        start[0, 3] = first
        mapping = np.linalg.solve(affine, volume.affine.astype(np.float64) @ start)
        kind = _sampled(probability, mapping, shape, fill=0.0).argmax(dim=0)
        nearest = _sampled(level, mapping, shape, fill=0.0, mode="nearest").long()
        labels[first : first + shape[0]] = torch.where(kind == 1, values[nearest], tissue[kind]).numpy()
    return labels


def _spread(structures: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Each voxel near a body takes its level, so that a border that is interpolated outwards finds it."""
    from scipy import ndimage

    away, nearest = ndimage.distance_transform_edt(structures == 0, return_indices=True)
    found: npt.NDArray[np.uint8] = np.where(away <= 2, structures[tuple(nearest)], 0).astype(np.uint8)
    return found


def state_of(network: nn.Module) -> dict[str, npt.NDArray[Any]]:
    """Weights by name, for a model folder."""
    return {name: weight.detach().cpu().numpy() for name, weight in network.state_dict().items()}
