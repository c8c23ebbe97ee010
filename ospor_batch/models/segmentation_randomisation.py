"""Label-to-image synthesis: from a labelled volume, a patch whose contrast, shape, resolution, noise, field of view and
artefacts are drawn anew each time (after SynthSeg, Billot et al., Med Image Anal 2023, doi 10.1016/j.media.2023.102789).

What the labels leave open (organs, ribs, lungs) is told apart by bands of CT number, so that these get a contrast of
their own too. Everything follows from the generator that is handed in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ospor_batch.models.segmentation_classes import LEVELS, RIB, SACRUM, STRUCTURES

AIR_HU = -1000.0
BAND_EDGES = (-700.0, -300.0, -150.0, -40.0, 15.0, 65.0, 130.0, 300.0, 900.0)  # HU; rounded borders between tissues
N_BANDS = len(BAND_EDGES) + 1
SPONGY_HU, CORTEX_HU = 90.0, 300.0  # from where bone is told from soft tissue, and cortex from spongy bone
BONE_BAND, SOFT_BAND, LUNG_BAND = 6, 4, 1  # first band of bone, of soft tissue, of lung
FIRST_VERTEBRA, LAST_VERTEBRA = STRUCTURES.index(LEVELS[0]), STRUCTURES.index(LEVELS[-1])
FIRST_LANDMARK = STRUCTURES.index(RIB)
# CT numbers between which a rib or a sacrum without a shell lies at 3 mm: the ribs of real CT read 140 to 400 HU there, the
# sacrum 90 to 480, while the generated ones are a bright shell around dark marrow
EVEN_HU = {RIB: (120.0, 480.0), SACRUM: (80.0, 400.0)}


@dataclass(frozen=True)
class Randomisation:
    """How far each draw may go; chances are per patch. All are judgement, declared.

    patch: voxels of a patch (z, y, x). spacing_mm: of the voxels.
    """

    patch: tuple[int, int, int] = (48, 32, 32)
    spacing_mm: float = 3.0
    rotation_deg: float = 12.0
    sagittal_deg: float = 22.0  # lumbar spines bend further than generated ones
    bend_per_mm: float = 1 / 170  # curvature of the spine in the sagittal plane, beyond its own
    scale: float = 0.18
    stretch: float = 0.10  # of each axis on its own
    elastic_mm: float = 12.0
    elastic_cells: int = 6
    random_contrast: float = 0.06  # chance that every tissue gets any CT number at all
    contrast: float = 1.0  # strength of the offsets below, which are drawn for tissues as CT shows them
    soft_hu: float = 35.0
    bone_hu: float = 70.0
    porous: float = 0.4  # chance that bodies are darker than generated ones by so many HU, down to muscle and below
    porous_hu: tuple[float, float] = (20.0, 130.0)
    spongy: tuple[float, float] = (0.2, 1.3)  # contrast of spongy bone against soft tissue, as a share of the generated one
    cortex: tuple[float, float] = (0.12, 1.1)  # the same of cortex: 3 mm show little of a shell of half a millimetre
    even: float = 1.0  # how much of the difference between shell and marrow ribs and sacrum may lose
    texture_hu: float = 60.0
    enhancement_hu: float = 160.0
    blobs: int = 8
    blur_voxels: float = 0.9
    sharpen: float = 0.8
    noise_hu: float = 45.0
    shading_hu: float = 25.0
    metal: float = 0.06
    anywhere: float = 0.15  # chance that a patch lies anywhere in the volume instead of near the spine
    cut_z: float = 0.3
    cut_box: float = 0.25  # small reconstruction fields around the spine
    cut_circle: float = 0.1

    def of_strength(self, strength: float) -> Randomisation:
        """All that is drawn, so many times as far and as often; where a patch lies is drawn as ever."""
        kept = {"patch", "spacing_mm", "anywhere", "elastic_cells", "blobs", "spongy", "cortex", "porous_hu"}
        changed: dict[str, Any] = {
            field.name: getattr(self, field.name) * strength for field in fields(self) if field.name not in kept
        }
        changed["blobs"] = round(self.blobs * strength)
        for name in ("spongy", "cortex"):
            low, high = getattr(self, name)
            changed[name] = 1 + (low - 1) * strength, 1 + (high - 1) * strength
        return replace(self, **changed)


class Drawn:
    """Draws of one patch, all from one generator."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def even(self, low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=self.generator))

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator)

    def chance(self, share: float) -> bool:
        return self.even(0, 1) < share


@dataclass(frozen=True)
class Source:
    """A volume that patches are drawn from.

    hu, structures: (z, y, x), axes towards head, back and left, voxels of Randomisation.spacing_mm; structures by
    STRUCTURES. spine: indices (n, 3) of the voxels of bodies and of the sacrum, near which most patches lie. has_landmarks:
    whether ribs or the sacrum are labelled; where they are not, as in masks of hospitals, they are background.
    """

    hu: Tensor
    structures: Tensor
    spine: Tensor
    has_landmarks: bool = True

    @classmethod
    def of(cls, hu: Tensor, structures: Tensor) -> Source:
        """Find the bodies and the sacrum once for all patches."""
        is_spine = (structures >= FIRST_VERTEBRA) & (structures <= LAST_VERTEBRA)
        spine = (is_spine | (structures == STRUCTURES.index(SACRUM))).nonzero()
        return cls(hu, structures, spine, bool((structures >= FIRST_LANDMARK).any()))


def random_patch(source: Source, *, rule: Randomisation, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw one patch: HU float32 and structures int64, both (z, y, x) of rule.patch."""
    draw = Drawn(generator)
    image, label = _warped(source, rule, draw)
    image = _with_new_bone(image, label, rule, draw)
    image = _with_even_bone(image, label, rule, draw)
    image = image + _new_contrast(image, label, rule, draw)
    image = _with_blobs(image, label, rule, draw)
    if draw.chance(rule.metal):
        image = _with_metal(image, label, draw)
    image = _resolved(image, rule, draw)
    image = image + _noise(image, rule, draw) + _shading(rule, draw)
    return _cut(image, label, rule, draw)


def _warped(source: Source, rule: Randomisation, draw: Drawn) -> tuple[Tensor, Tensor]:
    """Rotate, scale, bend and crop in one resampling; beyond the volume lies air."""
    index = _places(_center(source, rule, draw), rule, draw)
    size = torch.tensor(source.hu.shape)
    low = torch.minimum(index.amin(dim=(0, 1, 2)).floor().long().clamp(min=0), size - 2)
    high = torch.maximum(torch.minimum(index.amax(dim=(0, 1, 2)).ceil().long() + 1, size), low + 2)
    where = tuple(slice(first, last) for first, last in zip(low.tolist(), high.tolist(), strict=True))
    at = (2 * (index - low) / (high - low - 1) - 1).flip(-1)[None]
    hu, structures = source.hu[where].float() - AIR_HU, source.structures[where].float()
    image = functional.grid_sample(hu[None, None], at, mode="bilinear", align_corners=True)[0, 0] + AIR_HU
    return image, functional.grid_sample(structures[None, None], at, mode="nearest", align_corners=True)[0, 0].long()


def _center(source: Source, rule: Randomisation, draw: Drawn) -> Tensor:
    """Where in the volume (voxels) the middle of the patch lies: near the spine, or anywhere."""
    if draw.chance(rule.anywhere) or not len(source.spine):
        return draw.uniform(3) * (torch.tensor(source.hu.shape) - 1)
    picked = source.spine[int(draw.even(0, len(source.spine) - 0.001))].float()
    return picked + (draw.uniform(3) - 0.5) * torch.tensor(rule.patch) * torch.tensor([0.8, 0.5, 0.5])


def _places(center: Tensor, rule: Randomisation, draw: Drawn) -> Tensor:
    """Index in the volume (z, y, x, 3) of every voxel of the patch."""
    axes = [torch.arange(n, dtype=torch.float32) - (n - 1) / 2 for n in rule.patch]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    scale = (1 + rule.scale * (2 * draw.even(0, 1) - 1)) * (1 + rule.stretch * (2 * draw.uniform(3) - 1))
    grid = bent(grid * scale, draw.even(-1, 1) * rule.bend_per_mm * rule.spacing_mm) @ _rotation(rule, draw).T
    cells = (rule.elastic_cells,) * 3
    waves = draw.normal(1, 3, *cells) * draw.even(0, rule.elastic_mm) / rule.spacing_mm / 2
    smooth = functional.interpolate(waves, size=rule.patch, mode="trilinear", align_corners=True)[0].permute(1, 2, 3, 0)
    return grid + smooth + center


def bent(grid: Tensor, curvature: float) -> Tensor:
    """Bend a straight spine into a part of a circle in the sagittal plane; curvature per voxel, with its sign."""
    if abs(curvature) < 1e-5:
        return grid
    radius = 1 / curvature
    side, z = math.copysign(1, radius), grid[..., 0]
    away = (grid[..., 1] + radius) * side
    along, back = abs(radius) * torch.atan2(z, away), (torch.hypot(z, away) - abs(radius)) * side
    return torch.stack([along, back, grid[..., 2]], dim=-1)


def _rotation(rule: Randomisation, draw: Drawn) -> Tensor:
    turned = torch.eye(3)
    reach = {(0, 1): rule.sagittal_deg, (0, 2): rule.rotation_deg, (1, 2): rule.rotation_deg}
    for (first, second), degrees in reach.items():
        angle = math.radians(degrees) * draw.even(-1, 1)
        about = torch.eye(3)
        about[first, first] = about[second, second] = math.cos(angle)
        about[first, second], about[second, first] = -math.sin(angle), math.sin(angle)
        turned = turned @ about
    return turned


def _with_new_bone(image: Tensor, label: Tensor, rule: Randomisation, draw: Drawn) -> Tensor:
    """Another contrast of spongy bone and of cortex, with their partial volume, and a texture of the bodies' inside."""
    spongy, cortex = draw.even(*rule.spongy), draw.even(*rule.cortex)
    over = (image - SPONGY_HU).clamp(min=0)
    changed = (1 - spongy) * over.clamp(max=CORTEX_HU - SPONGY_HU) + (1 - cortex) * (over - CORTEX_HU + SPONGY_HU).clamp(min=0)
    spine = (label >= FIRST_VERTEBRA) & (label <= LAST_VERTEBRA)
    rough = smoothed(draw.normal(*image.shape), (0.6, 0.6, 0.6)) * 2 * draw.even(0, rule.texture_hu)
    return image - changed + torch.where(spine, rough, torch.tensor(0.0))


def _with_even_bone(image: Tensor, label: Tensor, rule: Randomisation, draw: Drawn) -> Tensor:
    """Ribs and sacrum as coarse voxels show them: shell and marrow blended, as bright as the draw says."""
    for kind, (low, high) in EVEN_HU.items():
        share, value = draw.even(0, rule.even), draw.even(low, high)
        image = torch.where(label == STRUCTURES.index(kind), image + share * (value - image), image)
    return image


def _new_contrast(image: Tensor, label: Tensor, rule: Randomisation, draw: Drawn) -> Tensor:
    """Offsets of every (structure, band) of this patch, smoothed over a voxel so that edges stay edges of one voxel."""
    band = torch.bucketize(image.contiguous(), torch.tensor(BAND_EDGES))
    table = _any_contrast(draw) if draw.chance(rule.random_contrast) else _like_ct(rule, draw)
    return smoothed(table[label * N_BANDS + band], (0.6, 0.6, 0.6))


def _like_ct(rule: Randomisation, draw: Drawn) -> Tensor:
    """Offsets that tissues can have in CT: contrast agents brighten what is soft, bone density varies, fat hardly moves."""
    strength = draw.even(0, rule.contrast)
    table = torch.zeros(len(STRUCTURES), N_BANDS)
    table[:, SOFT_BAND:BONE_BAND] = draw.normal(len(STRUCTURES), BONE_BAND - SOFT_BAND) * rule.soft_hu * 0.5
    table[0, SOFT_BAND:BONE_BAND] += draw.uniform(BONE_BAND - SOFT_BAND) ** 2 * rule.enhancement_hu  # organs and vessels
    table[:, BONE_BAND:] = draw.normal(len(STRUCTURES), N_BANDS - BONE_BAND) * rule.bone_hu * 0.6
    table[:, LUNG_BAND] = draw.normal(len(STRUCTURES)) * 60
    table[:, LUNG_BAND + 1 : SOFT_BAND] += draw.normal(len(STRUCTURES), SOFT_BAND - LUNG_BAND - 1) * 8
    spine = slice(FIRST_VERTEBRA, LAST_VERTEBRA + 1)
    table[spine] = draw.normal(1, 1) * rule.bone_hu + draw.normal(len(LEVELS), 1) * 20  # one density a person, nearly
    table[STRUCTURES.index("muscle")] = draw.normal(1) * rule.soft_hu * 0.7
    table = table * strength
    if draw.chance(rule.porous):
        table[spine, SOFT_BAND:] -= draw.even(*rule.porous_hu)
    return table.flatten()


def _any_contrast(draw: Drawn) -> Tensor:
    """Offsets that turn bright to dark and back; the network must then know the place and the shape."""
    table = (draw.uniform(len(STRUCTURES), N_BANDS) - 0.4) * 500
    table[:, :SOFT_BAND] *= 0.2
    return table.flatten()


def _with_blobs(image: Tensor, label: Tensor, rule: Randomisation, draw: Drawn) -> Tensor:
    """Ellipsoids of any CT number outside the vertebrae: bowel with contrast agent or gas, calcified vessels, masses."""
    spared = ((label >= FIRST_VERTEBRA) & (label <= LAST_VERTEBRA)) | (label >= FIRST_LANDMARK) | (image < -800)
    for _ in range(int(draw.even(0, rule.blobs + 0.999))):
        center = draw.uniform(3) * torch.tensor(rule.patch)
        half = (4 + 24 * draw.uniform(3) ** 2) / rule.spacing_mm
        value = draw.even(-150, 450) if draw.chance(0.85) else AIR_HU
        axes = [((torch.arange(n) - c) / h) ** 2 for n, c, h in zip(rule.patch, center, half, strict=True)]
        inside = (axes[0][:, None, None] + axes[1][None, :, None] + axes[2][None, None, :]) < 1
        share = draw.even(0.4, 1)
        image = torch.where(inside & ~spared, image + share * (value - image), image)
    return image


def _with_metal(image: Tensor, label: Tensor, draw: Drawn) -> Tensor:
    """A bright rod near the spine with streaks in its slices."""
    spine = ((label >= FIRST_VERTEBRA) & (label <= LAST_VERTEBRA)).nonzero()
    if not len(spine):
        return image
    z, y, x = (spine[int(draw.even(0, len(spine) - 0.001))] + (draw.normal(3) * 4).long()).tolist()
    rows, columns = torch.arange(image.shape[1]) - y, torch.arange(image.shape[2]) - x
    radius = torch.sqrt((rows[:, None] ** 2 + columns[None, :] ** 2).float()) + 0.7
    angle = torch.atan2(rows[:, None].float(), columns[None, :].float())
    streak = 500 * torch.cos(draw.even(4, 12) * angle + draw.even(0, 6.3)) / radius
    streak = torch.where(radius < 1.8, torch.tensor(2500.0), streak)
    found = image.clone()
    reach = int(draw.even(1, 5))
    found[max(0, z - reach) : max(0, z + reach)] += streak
    return found


def _resolved(image: Tensor, rule: Randomisation, draw: Drawn) -> Tensor:
    """Thick slices and soft kernels blur; sharp kernels lift edges."""
    if rule.blur_voxels and draw.chance(0.7):
        image = smoothed(image, tuple(draw.even(0, rule.blur_voxels) for _ in range(3)))  # type: ignore[arg-type]
    if draw.chance(0.4):
        image = image + draw.even(0, rule.sharpen) * (image - smoothed(image, (0.7, 0.7, 0.7)))
    return image


def _noise(image: Tensor, rule: Randomisation, draw: Drawn) -> Tensor:
    """White and correlated noise, mixed; its level is drawn evenly in its logarithm."""
    level = 2 * math.exp(draw.even(0, math.log(max(rule.noise_hu, 2.0) / 2)))
    white, share = draw.normal(*image.shape), draw.even(0, 1)
    if share > 0.5:
        white = smoothed(white, (0.5, 0.8, 0.8)) * 2
    return level * white


def _shading(rule: Randomisation, draw: Drawn) -> Tensor:
    """Slow change over the image, as beam hardening and scatter leave it."""
    field = draw.normal(1, 1, 3, 3, 3) * draw.even(0, rule.shading_hu)
    return functional.interpolate(field, size=rule.patch, mode="trilinear", align_corners=True)[0, 0]


def _cut(image: Tensor, label: Tensor, rule: Randomisation, draw: Drawn) -> tuple[Tensor, Tensor]:
    """Less is in view: fewer slices, a small box or a round field; beyond it lies air."""
    inside = torch.ones(rule.patch, dtype=torch.bool)
    if draw.chance(rule.cut_z):
        first, last = sorted((draw.even(-0.4, 0.5), draw.even(0.5, 1.4)))
        axis = torch.arange(rule.patch[0]) / rule.patch[0]
        inside &= ((axis >= first) & (axis <= last))[:, None, None]
    if draw.chance(rule.cut_box):
        for axis_number in (1, 2):
            middle, half = 0.5 + draw.even(-0.3, 0.3), draw.even(0.2, 0.6)
            axis = torch.arange(rule.patch[axis_number]) / rule.patch[axis_number]
            shape = [1, 1, 1]
            shape[axis_number] = -1
            inside &= ((axis - middle).abs() < half).view(shape)
    elif draw.chance(rule.cut_circle):
        rows, columns = (torch.arange(n) - n / 2 + draw.even(-8, 8) for n in rule.patch[1:])
        radius = draw.even(50, 150) / rule.spacing_mm
        inside &= ((rows[:, None] ** 2 + columns[None, :] ** 2) < radius**2)[None]
    return torch.where(inside, image, torch.tensor(AIR_HU)), torch.where(inside, label, torch.tensor(0))


def smoothed(image: Tensor, sigma: tuple[float, float, float]) -> Tensor:
    """Blur (z, y, x) with a Gaussian of so many voxels along each axis; edges repeat."""
    found = image[None, None]
    for axis, width in enumerate(sigma):
        if width < 0.1:
            continue
        reach = max(1, round(2.5 * width))
        weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / width) ** 2)
        shape, pad = [1, 1, 1, 1, 1], [0] * 6
        shape[2 + axis] = -1
        pad[2 * (2 - axis)] = pad[2 * (2 - axis) + 1] = reach
        found = functional.conv3d(functional.pad(found, pad, mode="replicate"), (weights / weights.sum()).view(shape))
    return found[0, 0]
