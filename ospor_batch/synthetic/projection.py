"""Areal density of each material along parallel rays through a body: what a radiograph sees.

Rays cross each part as an interval whose length is known in closed form, so nothing is sampled along them. Soft tissues
differ little and are summed; what lies in the lungs is united ray by ray, so that heart and mediastinum count once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ospor_batch.synthetic.body import END_PLATE_MM, LEVELS_OF_BODY, Body, Vertebra
from ospor_batch.synthetic.parts import Part
from ospor_batch.synthetic.physics import TISSUES

Array = NDArray[Any]
Material = str  # a table of physics.MASS_ATTENUATION: muscle, adipose, cortical_bone, k2hpo4, titanium
SOFT = TISSUES["muscle"].density
BELLY = 1.01  # density of organs and the fat between them, mixed
SHELL_FILL = 0.85  # of cortex where marrow is laid into it
BIG_IN_LUNG_MM = 9.0  # parts with a greater half axis are united ray by ray; smaller ones are added


@dataclass(frozen=True)
class Rays:
    """A detector: positions across (mm, from the body's middle) and heights z of its rows, and the beam's direction.

    turn is the angle from the front-to-back axis, radians: 0 is PA or AP, pi / 2 lateral.
    """

    across: Array
    heights: Array
    turn: float

    @property
    def pixel(self) -> float:
        return float(abs(self.across[1] - self.across[0]))


class Shadow:
    """Areal densities in g/cm2 by material, filled part by part."""

    def __init__(self, rays: Rays, *, bone_share: float) -> None:
        self.rays, self.bone_share = rays, bone_share
        shape = (len(rays.heights), len(rays.across))
        self.areal: dict[Material, Array] = {
            name: np.zeros(shape, dtype=np.float32) for name in ("muscle", "adipose", "cortical_bone", "k2hpo4", "titanium")
        }
        self.lung = np.zeros(shape, dtype=np.float32)  # aerated length, mm

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

    def _lung(self, part: Part, large: Sequence[Part]) -> None:
        rows = _rows(part, self.rays)
        if rows.start == rows.stop:
            return
        low, high = _interval(part, self.rays, rows)
        lows, highs = [], []
        for other in large:
            a, b = _interval(other, self.rays, rows)
            a, b = np.clip(a, low, high), np.clip(b, low, high)
            lows.append(np.where(b > a, a, high))
            highs.append(np.where(b > a, b, high))
        taken = _united(np.stack(lows), np.stack(highs)) if lows else np.zeros_like(low)
        left = np.maximum(high - low - taken, 0)
        self.lung[rows] += left
        self.areal["muscle"][rows] -= (SOFT - TISSUES["lung"].density) * left / 10

    def _add(self, part: Part, *, share_of_lung: bool = False) -> None:
        rows = _rows(part, self.rays)
        if rows.start == rows.stop:
            return
        columns, low, high, ends = _boxed_interval(part, self.rays, rows)
        length = (high - low) * ends * np.float32(part.fill / 10)  # cm
        if share_of_lung:
            length = length * np.minimum(self.lung[rows, columns] / 60, 1)
        where = (rows, columns)
        for tissue, sign in ((part.tissue, 1.0), (part.under, -1.0)):
            self._count(tissue, sign * length, where, shell=part.under == "cortical_bone" and sign < 0)

    def _count(self, tissue: str, length: Array, where: tuple[slice, slice], *, shell: bool) -> None:
        kind = TISSUES[tissue]
        if kind.table == "air":
            return
        if kind.table == "cortical_bone":
            share = self.bone_share * (SHELL_FILL if shell else 1.0)
            self.areal["cortical_bone"][where] += np.float32(kind.density * share) * length
        elif tissue == "visceral_fat":
            self.areal["muscle"][where] += np.float32(BELLY) * length
        else:
            table = kind.table if kind.table in self.areal else "muscle"
            self.areal[table][where] += np.float32(kind.density) * length

    def _vertebra(self, body: Body, v: Vertebra) -> None:
        turn, soft = self.rays.turn, self.areal["muscle"]
        lean = abs(body.tilt_of(v)[1] * np.cos(turn)) + abs(body.tilt_of(v)[0] * np.sin(turn))
        deep = v.half_depth * abs(np.cos(turn)) + v.half_width * abs(np.sin(turn))
        spread = END_PLATE_MM + 1.4 * deep * lean + v.hollow + 1.0
        z = self.rays.heights
        rows = _span(z, v.bottom - spread, v.top + spread)
        if rows.start == rows.stop:
            return
        z = z[rows, None]
        level = 2 * np.clip((z - v.middle) / v.height, -0.5, 0.5)
        waist = 1 - 0.10 * (1 - level**2)
        x, y = (c for c in body.spine_at(z))
        outer = _chord(self.rays, x, y, v.half_width * waist, v.half_depth * waist)
        inner = _chord(self.rays, x, y, v.half_width * waist - body.cortex, v.half_depth * waist - body.cortex)
        top = v.top - 0.5 * v.wedge * v.height
        whole = np.clip((np.minimum(z - v.bottom, top - z) + spread / 2) / spread, 0, 1)
        plates = sum(np.clip(1 - np.abs(z - edge) / spread, 0, 1) for edge in (v.bottom, top)) * END_PLATE_MM / spread
        bone = (outer - inner) * whole + inner * plates
        self.areal["cortical_bone"][rows] += np.asarray(TISSUES["cortical_bone"].density * bone / 10, dtype=np.float32)
        self.areal["k2hpo4"][rows] += np.asarray(v.vbmd_mg_cm3 / 1000 * inner * whole / 10, dtype=np.float32)
        soft[rows] -= np.asarray(SOFT * bone / 10, dtype=np.float32)


def _parted(parts: Sequence[Part]) -> tuple[list[Part], list[Part]]:
    large: list[Part] = []
    small: list[Part] = []
    for part in parts:
        z = np.array([[(part.low + part.high) / 2]], dtype=np.float32)
        _, _, a, b, _ = part.at(z)
        (large if min(float(a[0, 0]), float(b[0, 0])) > BIG_IN_LUNG_MM else small).append(part)
    return large, small


def _rows(part: Part, rays: Rays) -> slice:
    return _span(rays.heights, part.low, part.high)


def _span(heights: Array, low: float, high: float) -> slice:
    """Rows between two heights; rows run from the head downwards."""
    step = abs(float(heights[1] - heights[0]))
    touched = np.flatnonzero((heights > low - step / 2) & (heights < high + step / 2))
    return slice(int(touched[0]), int(touched[-1]) + 1) if touched.size else slice(0, 0)


def _crossing(part: Part, rays: Rays, rows: slice) -> tuple[Array, ...]:
    """Middle across, half width across, middle and half length along the beam, slope of the middle, and share by row."""
    z = rays.heights[rows, None].astype(np.float32)
    half = np.float32(abs(rays.heights[1] - rays.heights[0]) / 2)
    ends = np.clip((np.minimum(z + half, part.high) - np.maximum(z - half, part.low)) / (2 * half), 0, 1)
    x, y, a, b, turn = part.at(np.clip(z, part.low, part.high))
    cos, sin = np.float32(np.cos(rays.turn)), np.float32(np.sin(rays.turn))
    across, along = x * cos + y * sin, y * cos - x * sin
    phi = turn - rays.turn
    a, b = np.maximum(a, 1e-3), np.maximum(b, 1e-3)
    half_across = np.sqrt((a * np.cos(phi)) ** 2 + (b * np.sin(phi)) ** 2)
    half_along = a * b / half_across
    slope = (a**2 - b**2) * np.sin(phi) * np.cos(phi) / half_across**2
    return across, half_across, along, half_along, slope, np.where(np.minimum(a, b) > 0.2, ends, 0)


def _interval(part: Part, rays: Rays, rows: slice) -> tuple[Array, Array]:
    """Where every ray of the rows enters and leaves a part; equal where it misses."""
    across, half, along, deep, slope, ends = _crossing(part, rays, rows)
    u = (rays.across[None, :].astype(np.float32) - across) / half
    reach = deep * np.sqrt(np.maximum(0, 1 - u * u)) * (ends > 0)
    middle = along + slope * u * half
    return middle - reach, middle + reach


def _boxed_interval(part: Part, rays: Rays, rows: slice) -> tuple[slice, Array, Array, Array]:
    """The same for the columns alone that the part can reach, with the share of each row."""
    across, half, along, deep, slope, ends = _crossing(part, rays, rows)
    first, last = np.searchsorted(rays.across, [float((across - half).min()), float((across + half).max())])
    columns = slice(int(max(first - 1, 0)), int(last + 1))
    t = rays.across[None, columns].astype(np.float32) - across
    soft = np.float32(rays.pixel / 2)
    edge = np.clip((half - np.abs(t)) / (2 * soft) + 0.5, 0, 1)  # thin parts keep their mass in wide pixels
    u = np.minimum(np.abs(t) / (half + soft), 1)
    reach = deep * np.sqrt(np.maximum(0, 1 - u * u)) * edge * np.minimum(half / soft, 1)
    middle = along + slope * t
    return columns, middle - reach, middle + reach, ends


def _chord(rays: Rays, x: Array, y: Array, a: Array, b: Array) -> Array:
    """Length of each ray inside upright ellipses, one for each row."""
    cos, sin = np.cos(rays.turn), np.sin(rays.turn)
    half = np.sqrt((a * cos) ** 2 + (b * sin) ** 2)
    u = (rays.across[None, :] - (x * cos + y * sin)) / half
    return np.asarray(2 * a * b / half * np.sqrt(np.maximum(0, 1 - u * u)), dtype=np.float32)


def _united(lows: Array, highs: Array) -> Array:
    """Length of the union of intervals, over the first axis."""
    order = np.argsort(lows, axis=0, kind="stable")
    lows, highs = np.take_along_axis(lows, order, 0), np.take_along_axis(highs, order, 0)
    reached = np.maximum.accumulate(highs, axis=0)
    before = np.concatenate([lows[:1], reached[:-1]])
    return np.asarray(np.maximum(0, highs - np.maximum(lows, before)).sum(axis=0))
