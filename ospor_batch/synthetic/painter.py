"""A voxel grid and the brush that lays parts on it, mixing CT numbers at their edges."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ospor_batch.synthetic.arrays import NUMPY, Array, Arrays, On
from ospor_batch.synthetic.parts import Part
from ospor_batch.synthetic.physics import tissue_hu

Box = tuple[slice, slice, slice]
AIR_HU = -1000.0
LEAST_SOFT_HU = -150.0
# What the tissue map says of a voxel; 0 is everything else
TISSUE_CODES = {"muscle": 1, "fat": 2, "visceral_fat": 3, "lung": 4, "blood": 5, "liver": 6, "bone": 7}
CODE_OF = {
    **TISSUE_CODES, "cortical_bone": 7, "spongy_bone": 7, "rib_marrow": 7, "vein": 5, "skin": 0,
}  # fmt: skip
WALL = tuple(TISSUE_CODES[name] for name in ("muscle", "fat", "bone"))


@dataclass(frozen=True)
class Grid:
    """Voxel centers of a volume: first center and step along x, y and z in mm, and the slice thickness.

    With a tilted gantry rows climb: the center of row j lies j * step_y * sin(tilt) higher and step_y * cos(tilt) further back.
    """

    origin: tuple[float, float, float]
    step: tuple[float, float, float]
    shape: tuple[int, int, int]  # slices, rows, columns
    thickness: float
    tilt_deg: float = 0.0

    @property
    def row_cosines(self) -> tuple[float, float, float, float, float, float]:
        """ImageOrientationPatient: along a row, then from row to row."""
        lean = math.radians(self.tilt_deg)
        return 1.0, 0.0, 0.0, 0.0, math.cos(lean), math.sin(lean)

    @property
    def affine(self) -> NDArray[np.float64]:
        """(column, row, slice, 1) to LPS in mm; slices follow the table, so that a tilted stack is sheared."""
        affine = np.diag([*self.step, 1.0])
        affine[:3, 1] = self.step[1] * np.array(self.row_cosines[3:])
        affine[:3, 3] = self.origin
        return affine

    @property
    def voxel_ml(self) -> float:
        return float(np.linalg.det(self.affine[:3, :3])) / 1000

    def axes(self) -> tuple[Array, Array, Array]:
        """Centers along x (columns), y (rows) and z (slices, by rows where the gantry is tilted; ordered slice, row, 1)."""
        (ox, oy, oz), (sx, sy, sz), (nz, ny, nx) = self.origin, self.step, self.shape
        lean = np.deg2rad(self.tilt_deg)
        x = ox + sx * np.arange(nx, dtype=np.float32)
        rows = sy * np.arange(ny, dtype=np.float32)
        z = (oz + sz * np.arange(nz, dtype=np.float32))[:, None, None]
        climb = np.float32(np.sin(lean)) * rows[None, :, None] if self.tilt_deg else np.zeros((1, 1, 1), dtype=np.float32)
        return x, np.asarray(oy + rows * np.float32(np.cos(lean)), dtype=np.float32), np.asarray(z + climb, dtype=np.float32)


@dataclass(frozen=True)
class Look:
    """CT numbers of a scan: the tube voltage's, what contrast adds to each tissue, and the line of the trabecular core.

    muscle_fat: share of muscle that is fat.
    """

    kvp_kv: int
    line: tuple[float, float]
    enhancement: Mapping[str, float] = field(default_factory=dict)
    muscle_fat: float = 0.0

    def of(self, tissue: str) -> float:
        lean = tissue_hu(tissue, self.kvp_kv) + self.enhancement.get(tissue, 0.0)
        return lean + self.muscle_fat * self.marbled if tissue == "muscle" else lean

    @property
    def marbled(self) -> float:
        """HU that muscle gains when all of it turns to fat; below zero."""
        return tissue_hu("fat", self.kvp_kv) - tissue_hu("muscle", self.kvp_kv) - self.enhancement.get("muscle", 0.0)

    def core(self, vbmd_mg_cm3: float) -> float:
        return self.line[0] + self.line[1] * vbmd_mg_cm3 + self.enhancement.get("trabecular", 0.0)


class Painter:
    """Lays parts over a volume slice by slice, mixing CT numbers at their edges."""

    def __init__(self, grid: Grid, look: Look, *, arrays: Arrays = NUMPY) -> None:
        self.grid, self.look, self.arrays = grid, look, arrays
        self.hu = arrays.full(grid.shape, AIR_HU)
        self.tissue = arrays.on(np.zeros(grid.shape, dtype=np.uint8))
        self.x, self.y, self.z = grid.axes()
        self._across, self._back = arrays.on(self.x)[None, None, :], arrays.on(self.y)[None, :, None]
        half = grid.thickness / 2
        self._low, self._high = self.z.min(axis=(1, 2)) - half, self.z.max(axis=(1, 2)) + half

    def put(self, parts: Sequence[Part]) -> None:
        for part in parts:
            self.lay(part, hu=self.look.of(part.tissue), code=CODE_OF.get(part.tissue, 0))

    def lay(self, part: Part, *, hu: float, code: int) -> None:
        """Lay one part with a CT number and a code of its own."""
        for where, share in self._shares(part):
            self.mix(where, self._kept_off_wall(where, share) if part.under == "lung" else share, hu, code)

    def _kept_off_wall(self, where: Box, share: On) -> On:
        """What lies in the lungs stops at the chest wall."""
        tissue = self.tissue[where]
        is_wall = (tissue == WALL[0]) | (tissue == WALL[1]) | (tissue == WALL[2])
        return share * ~(is_wall & (self.hu[where] > LEAST_SOFT_HU))

    def mix(self, where: Box, share: On, value: On, code: int) -> None:
        """Lay a value, or one value a voxel, over a box by the share of each voxel."""
        here = self.hu[where]
        here += share * (value - here)
        self.tissue[where][share > 0.5] = code

    def slices(self, low: float, high: float) -> slice:
        """The slices that touch a range of heights."""
        first = int(np.searchsorted(self._high, low, side="right"))
        return slice(first, max(first, int(np.searchsorted(self._low, high, side="left"))))

    def _shares(self, part: Part) -> Iterator[tuple[Box, On]]:
        k = self.slices(part.low, part.high)
        if k.start == k.stop:
            return
        z = self.z[k]
        half = np.float32(self.grid.thickness / 2)
        ends = np.clip((np.minimum(z + half, part.high) - np.maximum(z - half, part.low)) / (2 * half), 0, 1)
        x, y, a, b, turn = part.at(np.clip(z, part.low, part.high) if part.is_flat else z)
        share = np.asarray(ends if part.is_flat else ends > 0, dtype=np.float32) * np.float32(part.fill)
        share = share * ((a > 0.3) & (b > 0.3))
        a, b = np.maximum(a, 0.3), np.maximum(b, 0.3)
        reach = np.hypot(a * np.cos(turn), b * np.sin(turn)), np.hypot(a * np.sin(turn), b * np.cos(turn))
        columns, rows = _between(self.x, x - reach[0], x + reach[0]), _between(self.y, y - reach[1], y + reach[1])
        n = k.stop - k.start
        if n * (columns.stop - columns.start) * (rows.stop - rows.start) <= self.arrays.most_voxels:
            yield (k, rows, columns), self._cover((x, y, a, b, turn), share, rows, columns)
            return
        for i in range(n):
            one = slice(i, i + 1)
            if not share[one].any():
                continue
            columns = _between(self.x, (x - reach[0])[one], (x + reach[0])[one])
            rows = _between(self.y, (y - reach[1])[one], (y + reach[1])[one])
            cut = tuple(v[one] for v in (x, y, a, b, turn))
            yield (slice(k.start + i, k.start + i + 1), rows, columns), self._cover(cut, share[one], rows, columns)

    def _cover(self, ellipse: tuple[Array, ...], share: Array, rows: slice, columns: slice) -> On:
        """Share of each voxel inside the ellipse, from the first-order distance to its edge."""
        xp, on = self.arrays.xp, self.arrays.on
        *place, turn = (v[:, rows] if v.shape[1] > 1 else v for v in ellipse)
        cx, cy, a, b = (on(v) for v in place)
        x, y = self._across[:, :, columns] - cx, self._back[:, rows] - cy
        if turn.any():
            cos, sin = on(np.cos(turn)), on(np.sin(turn))
            x, y = x * cos + y * sin, y * cos - x * sin
        u, v = x / a, y / b
        radius = xp.sqrt(u * u + v * v) + 1e-6
        u /= a
        v /= b
        steep = xp.sqrt(u * u + v * v) / radius + 1e-6
        inside = xp.clip(0.5 - (radius - 1) / (steep * float(np.float32(self.grid.step[0]))), 0, 1)
        return inside * on(share[:, rows] if share.shape[1] > 1 else share)

    def box(self, x: tuple[float, float], y: tuple[float, float], z: tuple[float, float]) -> Box:
        ends = [np.array([edge]) for edge in (*x, *y)]
        return self.slices(*z), _between(self.y, ends[2], ends[3]), _between(self.x, ends[0], ends[1])


def _between(axis: Array, low: Array, high: Array) -> slice:
    step = float(axis[1] - axis[0])
    first, last = float(low.min()) - step, float(high.max()) + step
    return slice(int(np.searchsorted(axis, first)), int(np.searchsorted(axis, last, side="right")))
