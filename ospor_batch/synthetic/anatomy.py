"""A parametric trunk from L1 to L4: where each tissue lies and what CT number it has without contrast.

Coordinates are DICOM's (LPS, mm): x to the left, y to the back, z to the head; volumes are ordered (z, y, x).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ospor_batch.synthetic.population import Person

Array = NDArray[np.float32]
Along = Array | float  # a number, or one number a slice
Box = tuple[slice, slice, slice]
FIRST_LABEL = 20  # L1; L2 to L4 are 21 to 23 (numbering of the VerSe challenge)
# Body heights of L1-L4 and the discs below L1-L3 at scale 1, mm; rounded textbook anatomy, declared
BODY_HEIGHT_MM = (26.0, 27.0, 27.5, 27.5)
DISC_HEIGHT_MM = (9.0, 10.0, 11.0)
BODY_HALF_WIDTH_MM, BODY_HALF_DEPTH_MM = 22.0, 16.5
CORTEX_MM, END_PLATE_MM = 1.6, 1.2
# CT numbers in HU without contrast; usual textbook values, declared
AIR, FAT, MUSCLE, VISCERA, LIVER, KIDNEY, BLOOD, DISC, CANAL = -1000, -100, 55, -20, 58, 32, 42, 80, 15
CORTICAL, POSTERIOR, RIB = 700, 260, 300
TABLE_SHELL, TABLE_CORE = -150, -880


@dataclass(frozen=True)
class Grid:
    """Voxel centers of a volume: first center and step along x, y, z in mm, and the slice thickness."""

    origin: tuple[float, float, float]
    step: tuple[float, float, float]
    shape: tuple[int, int, int]  # slices, rows, columns
    thickness: float

    def axes(self) -> tuple[Array, Array, Array]:
        """Centers along x, y and z."""
        x, y, z = (
            o + s * np.arange(n, dtype=np.float32) for o, s, n in zip(self.origin, self.step, self.shape[::-1], strict=True)
        )
        return x, y, z


@dataclass(frozen=True)
class Enhancement:
    """CT numbers in HU that contrast adds to tissues; all 0 without contrast."""

    blood: float = 0.0
    kidney: float = 0.0
    liver: float = 0.0
    trabecular: float = 0.0


@dataclass(frozen=True)
class Trunk:
    """The proportions of one person, mm."""

    half_width: float
    half_depth: float
    fat: float
    spine_y: float
    curve: float  # depth of the lumbar lordosis
    scale: float
    tops: tuple[float, ...]  # z of the upper end-plates of L1-L4
    bottoms: tuple[float, ...]

    @property
    def extent(self) -> tuple[float, float]:
        return self.bottoms[-1], self.tops[0]


def trunk_of(person: Person) -> Trunk:
    """Derive a person's proportions; L4 ends at z = 0 below."""
    draw, scale = person.draws("trunk"), person.size
    bmi = person.weight_kg / person.height_m**2
    half_width = float(np.clip(150 * np.sqrt(bmi / 24) * scale, 115, 168))
    half_depth = half_width * float(draw.uniform(0.66, 0.74))
    heights = np.array(BODY_HEIGHT_MM) * scale
    discs = np.array(DISC_HEIGHT_MM) * scale * draw.uniform(0.85, 1.05)
    top = float(heights.sum() + discs.sum()) - np.concatenate([[0.0], np.cumsum(heights[:-1] + discs)])
    fat = float(np.clip(9 + 1.9 * (bmi - 20) + (4 if person.sex == "female" else 0) + draw.normal(0, 2), 5, 32))
    return Trunk(
        half_width=half_width,
        half_depth=half_depth,
        fat=fat,
        spine_y=half_depth - 0.8 * fat - 62 * scale,  # the spinous processes end under the fat of the back
        curve=float(draw.uniform(4, 12)),
        scale=scale,
        tops=tuple(float(t) for t in top),
        bottoms=tuple(float(t) for t in top - heights),
    )


class _Painter:
    """Lays ellipses over a volume slice by slice, mixing CT numbers at their edges."""

    def __init__(self, volume: Array, grid: Grid) -> None:
        self.volume, self.grid = volume, grid
        self.x, self.y, self.z = grid.axes()

    def ellipse(self, center: tuple[Along, Along], half: tuple[Along, Along], value: float, *, share: Along = 1.0) -> None:
        """Center, half axes and share are numbers, or arrays along z."""
        where, covered = self.cover(center, half, share=share)
        self.volume[where] += covered * (np.float32(value) - self.volume[where])

    def cover(self, center: tuple[Along, Along], half: tuple[Along, Along], *, share: Along = 1.0) -> tuple[Box, Array]:
        """Share of each voxel inside the ellipse, from the first-order distance to its edge, and the box it is given for."""
        given = (*center, *half, share)
        n = 1 if all(np.ndim(v) == 0 for v in given) else len(self.z)
        cx, cy, a, b, s = (np.broadcast_to(np.asarray(v, dtype=np.float32), (n,)) for v in given)
        live = np.flatnonzero((s > 0) & (a > 1) & (b > 1))  # ellipses of less than 1 mm are nothing
        if not live.size:
            return (slice(0, 0), slice(0, 0), slice(0, 0)), np.zeros((0, 0, 0), dtype=np.float32)
        z = slice(int(live[0]), int(live[-1]) + 1)
        cx, cy, a, b, s = (v[z, None, None] for v in (cx, cy, np.maximum(a, 1), np.maximum(b, 1), s))
        xs, ys = _between(self.x, cx, a, self.grid.step[0]), _between(self.y, cy, b, self.grid.step[1])
        x, y = self.x[None, None, xs] - cx, self.y[None, ys, None] - cy
        radius = np.sqrt((x / a) ** 2 + (y / b) ** 2) + np.float32(1e-6)
        steep = np.sqrt((x / a**2) ** 2 + (y / b**2) ** 2) / radius + np.float32(1e-6)
        inside = np.clip(0.5 - (radius - 1) / (steep * np.float32(self.grid.step[0])), 0, 1)
        return (z if n > 1 else slice(None), ys, xs), np.asarray(inside * s, dtype=np.float32)


def tissues(
    trunk: Trunk, grid: Grid, *, core_hu: tuple[float, ...], enhancement: Enhancement
) -> tuple[Array, NDArray[np.uint8]]:
    """Fill a grid: CT numbers without noise, and labels of the voxels that lie wholly in the trabecular core of L1-L4."""
    volume = np.full(grid.shape, AIR, dtype=np.float32)
    put = _Painter(volume, grid)
    _table(put, trunk)
    _soft_tissue(put, trunk, enhancement)
    _ribs(put, trunk)
    spine = trunk.spine_y - _lordosis(trunk, put.z)
    put.ellipse((0, spine), _half(trunk, less=1.0), DISC)  # discs; the bodies are laid over them
    _posterior(put, trunk, back=spine + BODY_HALF_DEPTH_MM * trunk.scale)
    return volume, _bodies(put, trunk, spine=spine, core_hu=core_hu)


def _soft_tissue(put: _Painter, trunk: Trunk, more: Enhancement) -> None:
    z, a, b, s = put.z, trunk.half_width, trunk.half_depth, trunk.scale
    low, high = trunk.extent
    spine = trunk.spine_y - _lordosis(trunk, z)
    wall = trunk.fat + 14 * s
    put.ellipse((0, 0), (a, b), FAT)  # skin and subcutaneous fat
    put.ellipse((0, 0), (a - trunk.fat, b - trunk.fat), MUSCLE)  # abdominal wall
    put.ellipse((0, -6), (a - wall, b - wall), VISCERA)  # bowel and fat, mixed
    for side in (-1, 1):
        depth = (b - 0.6 * trunk.fat - spine) * 0.42
        put.ellipse((side * 33 * s, spine + 1.25 * depth), (28 * s, depth), MUSCLE)  # paraspinal
        taper = s * (1 - 0.5 * np.clip((z - low) / (high - low), 0, 1))  # psoas grows downwards
        put.ellipse((side * 34 * s, spine + 8), (17 * taper, 20 * taper), MUSCLE)
        kidney = _dome(z, (low + high) / 2 + 30, 52 * s)
        put.ellipse((side * 68 * s, spine), (25 * s * kidney, 27 * s * kidney), KIDNEY + more.kidney)
    liver = _dome(z, high + 30, 95 * s)
    put.ellipse(((wall - a) * 0.5, -12), (a * 0.34 * liver, (b - wall) * 0.62 * liver), LIVER + more.liver)
    put.ellipse((9 * s, spine - 28 * s), (9.5 * s, 9.5 * s), BLOOD + more.blood)  # aorta, left of the midline
    put.ellipse((-17 * s, spine - 26 * s), (11 * s, 9 * s), BLOOD + more.blood * 0.8)  # inferior vena cava


def _bodies(put: _Painter, trunk: Trunk, *, spine: Array, core_hu: tuple[float, ...]) -> NDArray[np.uint8]:
    """Vertebral bodies L1-L4: a shell of cortex and end-plates around the trabecular core."""
    labels = np.zeros(put.volume.shape, dtype=np.uint8)
    thickness = put.grid.thickness
    for i, (top, bottom) in enumerate(zip(trunk.tops, trunk.bottoms, strict=True)):
        whole = _overlap(put.z, bottom, top, thickness)
        inner = _overlap(put.z, bottom + END_PLATE_MM, top - END_PLATE_MM, thickness)
        where, share = put.cover((0, spine), _half(trunk), share=whole)
        core = np.zeros_like(put.volume)
        core_where, core_share = put.cover((0, spine), _half(trunk, less=CORTEX_MM), share=inner)
        core[core_where] = core_share
        # the core replaces cortex inside the body: a voxel wholly in it has exactly the core's CT number
        part = np.minimum(core[where], share)
        part_of_body = np.divide(part, share, out=np.zeros_like(share), where=share > 0)
        value = CORTICAL + part_of_body * (np.float32(core_hu[i]) - CORTICAL)
        put.volume[where] += share * (value - put.volume[where])
        labels[core > 0.9999] = FIRST_LABEL + i
    return labels


def _posterior(put: _Painter, trunk: Trunk, *, back: Array) -> None:
    """Pedicles, transverse and spinous processes and laminae around the canal."""
    s = trunk.scale
    for top, bottom in zip(trunk.tops, trunk.bottoms, strict=True):
        height = top - bottom
        pedicle = _overlap(put.z, bottom + 0.45 * height, bottom + 0.95 * height, put.grid.thickness)
        arch = _overlap(put.z, bottom - 0.15 * height, bottom + 0.60 * height, put.grid.thickness)
        for side in (-1, 1):
            put.ellipse((side * 15 * s, back + 6 * s), (5 * s, 9 * s), POSTERIOR, share=pedicle)
            put.ellipse((side * 34 * s, back + 10 * s), (15 * s, 3.5 * s), POSTERIOR, share=pedicle * 0.8)
            put.ellipse((side * 11 * s, back + 18 * s), (10 * s, 4.5 * s), POSTERIOR, share=arch)
        put.ellipse((0, back + 32 * s), (3.5 * s, 14 * s), POSTERIOR, share=arch)
    put.ellipse((0, back + 9 * s), (9.5 * s, 7.5 * s), CANAL)


def _ribs(put: _Painter, trunk: Trunk) -> None:
    """The last ribs: short pieces inside the wall beside L1 and L2."""
    a, b = trunk.half_width - trunk.fat - 7, trunk.half_depth - trunk.fat - 7
    for turn in (0.35, 0.55, 0.75):
        level = trunk.tops[0] - (turn - 0.3) * 90
        share = _overlap(put.z, level - 9, level + 9, put.grid.thickness)
        for side in (-1, 1):
            put.ellipse((side * a * np.cos(turn), b * np.sin(turn)), (7.0, 5.0), RIB, share=share)


def _table(put: _Painter, trunk: Trunk) -> None:
    dip = trunk.half_depth + 9 - put.x[None, :] ** 2 / 900  # a shallow trough under the back
    for depth, value in ((14.0, TABLE_SHELL), (9.0, TABLE_CORE)):
        over = np.clip(0.5 + (depth / 2 - np.abs(put.y[:, None] - dip - 7)) / put.grid.step[1], 0, 1)
        share = np.asarray(over * (np.abs(put.x[None, :]) < 165), dtype=np.float32)[None]
        put.volume += share * (np.float32(value) - put.volume)


def _half(trunk: Trunk, *, less: float = 0.0) -> tuple[float, float]:
    return BODY_HALF_WIDTH_MM * trunk.scale - less, BODY_HALF_DEPTH_MM * trunk.scale - less


def _lordosis(trunk: Trunk, z: Array) -> Array:
    low, high = trunk.extent
    return np.asarray(trunk.curve * np.sin(np.pi * np.clip((z - low) / (high - low), 0, 1)), dtype=np.float32)


def _dome(z: Array, middle: float, half: float) -> Array:
    """Radius of an ellipsoid at each height, as a share of its greatest."""
    return np.asarray(np.sqrt(np.maximum(0, 1 - ((z - middle) / half) ** 2)), dtype=np.float32)


def _overlap(z: Array, low: float, high: float, thickness: float) -> Array:
    """Share of each slice's thickness that lies between two heights."""
    reach = np.minimum(z + thickness / 2, high) - np.maximum(z - thickness / 2, low)
    return np.asarray(np.clip(reach / thickness, 0, 1), dtype=np.float32)


def _between(axis: Array, center: Array, half: Array, step: float) -> slice:
    low, high = float((center - half).min()) - step, float((center + half).max()) + step
    return slice(int(np.searchsorted(axis, low)), int(np.searchsorted(axis, high, side="right")))
