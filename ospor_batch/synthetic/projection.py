"""Areal density of each material along the rays of a tube through a body: what a radiograph sees.

Rays cross each part as an interval whose length is known in closed form, so nothing is sampled along them. The beam spreads:
every part is magnified, height by height, as far as its middle lies from the detector, and lengths grow as rays slant. Soft
tissues differ little and are summed; what lies in the lungs is united ray by ray, so that heart and mediastinum count once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ospor_batch.synthetic.arrays import NUMPY, Array, Arrays, On
from ospor_batch.synthetic.body import END_PLATE_MM, LEVELS_OF_BODY, Body, Vertebra
from ospor_batch.synthetic.parts import Along, Part
from ospor_batch.synthetic.physics import TISSUES

Material = str  # a table of physics.MASS_ATTENUATION: muscle, adipose, cortical_bone, k2hpo4, titanium
SOFT = TISSUES["muscle"].density
BELLY = 1.01  # density of organs and the fat between them, mixed
SHELL_FILL = 0.85  # of cortex where marrow is laid into it
BIG_IN_LUNG_MM = 9.0  # parts with a greater half axis are united ray by ray; smaller ones are added
NODES, BEYOND_MM = 7, 60.0  # heights of a part whose magnification is found, and how far it is held beyond the ends


@dataclass(frozen=True)
class Rays:
    """A detector: positions across (mm, from the body's middle) and heights z of its rows, and the beam's direction.

    turn is the angle from the front-to-back axis, radians: 0 is PA or AP, pi / 2 lateral. source_mm: from the tube to the
    detector; infinite where the beam is parallel. detector_mm: place of the detector along the beam's axis (to the back;
    lateral: to the right). is_behind: the detector lies at the end of that axis, not at its beginning.
    """

    across: Array
    heights: Array
    turn: float
    source_mm: float = math.inf
    detector_mm: float = 0.0
    is_behind: bool = False

    @property
    def pixel(self) -> float:
        return float(abs(self.across[1] - self.across[0]))

    @cached_property
    def middle(self) -> tuple[float, float]:
        """Where the central ray meets the detector: across and height."""
        return float(self.across.mean()), float(self.heights.mean())

    def magnified(self, along: Array) -> Array:
        """How much larger than itself something is seen at these places along the beam's axis."""
        off = self.detector_mm - along if self.is_behind else along - self.detector_mm
        return np.asarray(1 / (1 - np.maximum(off, 0) / self.source_mm), dtype=np.float32)

    def slant(self) -> Array:
        """Length of each ray beside that of the central one."""
        u, v = self.across[None, :] - self.middle[0], self.heights[:, None] - self.middle[1]
        return np.asarray(np.sqrt(1 + (u * u + v * v) / self.source_mm**2), dtype=np.float32)

    def height_of(self, z: Array, magnified: Array) -> Array:
        """Where on the detector a height of the body is seen."""
        return np.asarray(self.middle[1] + (z - self.middle[1]) * magnified)


class Shadow:
    """Areal densities in g/cm2 by material, filled part by part."""

    def __init__(self, rays: Rays, *, bone_share: float, muscle_fat: float = 0.0, arrays: Arrays = NUMPY) -> None:
        self.rays, self.bone_share, self.muscle_fat, self.arrays = rays, bone_share, muscle_fat, arrays
        shape = (len(rays.heights), len(rays.across))
        self.areal: dict[Material, On] = {
            name: arrays.full(shape, 0) for name in ("muscle", "adipose", "cortical_bone", "k2hpo4", "titanium")
        }
        self.lung = arrays.full(shape, 0)  # aerated length, mm

    def put(self, parts: Sequence[Part]) -> None:
        """Add parts in their order; everything that lies in the lungs must come with them."""
        lungs = [part for part in parts if part.tissue == "lung"]
        inside = [part for part in parts if part.under in ("lung", "mediastinum") and part.tissue != "air"]
        large, small = _parted(inside)
        for part in lungs:
            self._lung(part, large)
        for part in small:
            self._add(part, share_of_lung=True)
        for part in parts:
            is_soft_organ = part.under == "visceral_fat" and part.tissue != "air"  # the belly counts as one mixture
            if part not in inside and part.tissue != "lung" and not is_soft_organ:
                self._add(part)

    def put_vertebrae(self, body: Body) -> None:
        """Trabecular core as its mineral, cortex as a shell, end-plates spread as far as they tilt along the beam."""
        for level in LEVELS_OF_BODY:
            self._vertebra(body, body.vertebra(level))

    def slanted(self) -> dict[Material, On]:
        """What every ray meets, its slant counted in."""
        slant = self.arrays.on(self.rays.slant())
        return {name: areal * slant for name, areal in self.areal.items()}

    def _lung(self, part: Part, large: Sequence[Part]) -> None:
        sight = _sight(part, self.rays)
        if sight.is_empty:
            return
        xp, rows = self.arrays.xp, sight.rows
        low, high = self._interval(part, sight)
        lows, highs = [], []
        for other in large:
            a, b = self._interval(other, replace(_sight(other, self.rays), rows=rows))
            a, b = xp.clip(a, low, high), xp.clip(b, low, high)
            lows.append(xp.where(b > a, a, high))
            highs.append(xp.where(b > a, b, high))
        taken = self.arrays.united(xp.stack(lows), xp.stack(highs)) if lows else low * 0
        left = xp.clip(high - low - taken, 0, None)
        self.lung[rows] += left
        self.areal["muscle"][rows] -= left * ((SOFT - TISSUES["lung"].density) / 10)

    def _add(self, part: Part, *, share_of_lung: bool = False) -> None:
        sight = _sight(part, self.rays)
        if sight.is_empty:
            return
        rows = sight.rows
        columns, length = self._boxed_length(part, sight)
        length = length * (part.fill / 10)  # cm
        if share_of_lung:
            length = length * self.arrays.xp.clip(self.lung[rows, columns] / 60, None, 1)
        where = (rows, columns)
        for tissue, sign in ((part.tissue, 1.0), (part.under, -1.0)):
            self._count(tissue, length * sign, where, shell=part.under == "cortical_bone" and sign < 0)

    def _count(self, tissue: str, length: On, where: tuple[slice, slice], *, shell: bool) -> None:
        kind = TISSUES[tissue]
        if kind.table == "air":
            return
        if kind.table == "cortical_bone":
            share = self.bone_share * (SHELL_FILL if shell else 1.0)
            self.areal["cortical_bone"][where] += length * (kind.density * share)
        elif tissue == "visceral_fat":
            self.areal["muscle"][where] += length * BELLY
        elif tissue == "muscle":
            self.areal["muscle"][where] += length * (kind.density * (1 - self.muscle_fat))
            self.areal["adipose"][where] += length * (TISSUES["fat"].density * self.muscle_fat)
        else:
            table = kind.table if kind.table in self.areal else "muscle"
            self.areal[table][where] += length * kind.density

    def _interval(self, part: Part, sight: _Sight) -> tuple[On, On]:
        """Where every ray of the rows enters and leaves a part; equal where it misses."""
        xp = self.arrays.xp
        across, half, along, deep, slope, ends = (self.arrays.on(v) for v in _crossing(part, self.rays, sight))
        u = (self.arrays.on(self.rays.across.astype(np.float32))[None, :] - across) / half
        reach = deep * xp.sqrt(xp.clip(1 - u * u, 0, None)) * (ends > 0)
        middle = along + slope * u * half
        return middle - reach, middle + reach

    def _boxed_length(self, part: Part, sight: _Sight) -> tuple[slice, On]:
        """Length of every ray in a part, for the columns alone that it can reach."""
        xp, rays = self.arrays.xp, self.rays
        crossing = _crossing(part, rays, sight)
        first, last = np.searchsorted(
            rays.across, [float((crossing[0] - crossing[1]).min()), float((crossing[0] + crossing[1]).max())]
        )
        columns = slice(int(max(first - 1, 0)), int(last + 1))
        across, half, _, deep, _, ends = (self.arrays.on(v) for v in crossing)
        t = xp.abs(self.arrays.on(rays.across[columns].astype(np.float32))[None] - across)
        soft = rays.pixel / 2
        edge = xp.clip((half - t) / (2 * soft) + 0.5, 0, 1)  # thin parts keep their mass in wide pixels
        u = xp.clip(t / (half + soft), None, 1)
        reach = deep * xp.sqrt(xp.clip(1 - u * u, 0, None)) * edge * xp.clip(half / soft, None, 1)
        return columns, 2 * reach * ends

    def _vertebra(self, body: Body, v: Vertebra) -> None:
        turn, on = self.rays.turn, self.arrays.on
        lean = abs(body.tilt_of(v)[1] * np.cos(turn)) + abs(body.tilt_of(v)[0] * np.sin(turn))
        deep = v.half_depth * abs(np.cos(turn)) + v.half_width * abs(np.sin(turn))
        spread = END_PLATE_MM + 1.4 * deep * lean + v.hollow + 1.0
        x, y = (float(c[0]) for c in body.spine_at(np.array([v.middle])))
        magnified = self.rays.magnified(np.array(y * np.cos(turn) - x * np.sin(turn)))
        edges = self.rays.height_of(np.array([v.bottom - spread, v.top + spread]), magnified)
        rows = _span(self.rays.heights, float(edges.min()), float(edges.max()))
        if rows.start == rows.stop:
            return
        z = self.rays.middle[1] + (self.rays.heights[rows, None] - self.rays.middle[1]) / magnified
        level = 2 * np.clip((z - v.middle) / v.height, -0.5, 0.5)
        waist = 1 - 0.10 * (1 - level**2)
        outer = self._chord(body, z, v.half_width * waist, v.half_depth * waist, magnified)
        inner = self._chord(body, z, v.half_width * waist - body.cortex, v.half_depth * waist - body.cortex, magnified)
        top = v.top - 0.5 * v.wedge * v.height
        whole = np.clip((np.minimum(z - v.bottom, top - z) + spread / 2) / spread, 0, 1)
        plates = sum(np.clip(1 - np.abs(z - edge) / spread, 0, 1) for edge in (v.bottom, top)) * END_PLATE_MM / spread
        whole, plates = (on(np.asarray(share, dtype=np.float32)) for share in (whole, plates))
        bone = (outer - inner) * whole + inner * plates
        self.areal["cortical_bone"][rows] += bone * (TISSUES["cortical_bone"].density / 10)
        self.areal["k2hpo4"][rows] += inner * whole * (v.vbmd_mg_cm3 / 1e4)
        self.areal["muscle"][rows] -= bone * (SOFT / 10)

    def _chord(self, body: Body, z: Array, a: Array, b: Array, magnified: Array) -> On:
        """Length of each ray inside upright ellipses around the middle of the spine, one for each row."""
        rays, on, xp = self.rays, self.arrays.on, self.arrays.xp
        cos, sin = np.cos(rays.turn), np.sin(rays.turn)
        x, y = body.spine_at(z)
        half = np.sqrt((a * cos) ** 2 + (b * sin) ** 2)
        across = rays.middle[0] + (x * cos + y * sin - rays.middle[0]) * magnified
        across, wide, deep = (on(np.asarray(v, dtype=np.float32)) for v in (across, half * magnified, 2 * a * b / half))
        u = (on(rays.across.astype(np.float32))[None, :] - across) / wide
        return deep * xp.sqrt(xp.clip(1 - u * u, 0, None))


def _parted(parts: Sequence[Part]) -> tuple[list[Part], list[Part]]:
    large: list[Part] = []
    small: list[Part] = []
    for part in parts:
        z = np.array([[(part.low + part.high) / 2]], dtype=np.float32)
        _, _, a, b, _ = part.at(z)
        (large if min(float(a[0, 0]), float(b[0, 0])) > BIG_IN_LUNG_MM else small).append(part)
    return large, small


@dataclass(frozen=True)
class _Sight:
    """The rows that can see a part; heights from below it to above it, and where on the detector each is seen."""

    rows: slice
    at: Array
    seen: Array

    @property
    def is_empty(self) -> bool:
        return bool(self.rows.start == self.rows.stop)


def _sight(part: Part, rays: Rays) -> _Sight:
    z = np.linspace(part.low, part.high, NODES, dtype=np.float32)[:, None]
    _, along = _placed(part.shape(z), rays)
    magnified = rays.magnified(np.broadcast_to(along, z.shape))
    z = np.concatenate([z[:1] - BEYOND_MM, z, z[-1:] + BEYOND_MM])
    magnified = np.concatenate([magnified[:1], magnified, magnified[-1:]])
    seen = np.maximum.accumulate(rays.height_of(z, magnified)[:, 0])  # what leans faster than the beam opens is seen edge on
    return _Sight(_span(rays.heights, float(seen[1]), float(seen[-2])), z[:, 0], seen)


def _span(heights: Array, low: float, high: float) -> slice:
    """Rows between two heights; rows run from the head downwards."""
    step = abs(float(heights[1] - heights[0]))
    touched = np.flatnonzero((heights > low - step / 2) & (heights < high + step / 2))
    return slice(int(touched[0]), int(touched[-1]) + 1) if touched.size else slice(0, 0)


def _placed(ellipse: Sequence[Along], rays: Rays) -> tuple[Array, Array]:
    """Middle of an ellipse across and along the beam."""
    x, y, *_ = ellipse
    cos, sin = np.float32(np.cos(rays.turn)), np.float32(np.sin(rays.turn))
    return np.asarray(x * cos + y * sin), np.asarray(y * cos - x * sin)


def _crossing(part: Part, rays: Rays, sight: _Sight) -> tuple[Array, ...]:
    """Middle and half width across, middle and half length along the beam, slope of the middle, and share, by row.

    Across is where the detector has it; along and the half length are the body's own.
    """
    z = np.interp(rays.heights[sight.rows], sight.seen, sight.at).astype(np.float32)[:, None]
    ellipse = part.at(np.clip(z, part.low, part.high))
    _, _, a, b, turn = ellipse
    across, along = _placed(ellipse, rays)
    magnified = rays.magnified(along)
    half = np.float32(abs(rays.heights[1] - rays.heights[0]) / 2) / magnified
    ends = np.clip((np.minimum(z + half, part.high) - np.maximum(z - half, part.low)) / (2 * half), 0, 1)
    phi = turn - rays.turn
    a, b = np.maximum(a, 1e-3), np.maximum(b, 1e-3)
    half_across = np.sqrt((a * np.cos(phi)) ** 2 + (b * np.sin(phi)) ** 2)
    half_along = a * b / half_across
    slope = (a**2 - b**2) * np.sin(phi) * np.cos(phi) / half_across**2 / magnified
    ends = np.where(np.minimum(a, b) > 0.2, ends, 0)
    across = rays.middle[0] + (across - rays.middle[0]) * magnified
    found = (across, half_across * magnified, along, half_along, slope, ends)
    return tuple(np.asarray(v, dtype=np.float32) for v in found)
