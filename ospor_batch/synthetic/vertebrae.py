"""Vertebral bodies and discs on a voxel grid: cortex, end-plates, trabecular core, wedges, spurs and cement."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ospor_batch.synthetic.arrays import Array
from ospor_batch.synthetic.body import END_PLATE_MM, LEVELS_OF_BODY, Body, Vertebra
from ospor_batch.synthetic.painter import Box, Painter
from ospor_batch.synthetic.population import Person

FIRST_LABEL = 20  # L1; L2 to L4 are 21 to 23 (numbering of the VerSe challenge: T1 8 to T12 19, L1 20 to L5 24, S1 26)
VERSE = {**{f"T{i}": 7 + i for i in range(1, 13)}, **{f"L{i}": 19 + i for i in range(1, 6)}, "S1": 26}
WAIST = 0.10  # how much narrower a body is at half its height; declared
TEXTURE = 0.13  # spread of the trabecular core around its mean, as a share of its mineral, at 2 mm; declared
TEXTURE_MM = 2.5
SPUR_MM = 2.0  # how far the beaks of osteophytes reach beyond the rim for each grade, at the sides and the front; declared
CEMENT_HU = 1600.0  # of bone cement with barium; declared
BONE_CODE = 7
Shares = dict[str, tuple[Box, Array]]


def put_vertebrae(put: Painter, body: Body, person: Person) -> tuple[Shares, Shares]:
    """Lay discs, then bodies; shares of the trabecular core and of the whole body by level."""
    for level in LEVELS_OF_BODY:
        _put_disc(put, body, body.vertebra(level))
    core, whole = {}, {}
    for level in LEVELS_OF_BODY:
        made = _put_body(put, body, body.vertebra(level), person)
        if made is not None:
            core[level], whole[level] = made
    return core, whole


class _Place:
    """The voxels around one vertebra, in its own coordinates: across, back and along the spine's axis."""

    def __init__(self, put: Painter, body: Body, v: Vertebra, *, beyond: float) -> None:
        self.sideways, self.back = body.tilt_of(v)
        x, y = (float(c[0]) for c in body.spine_at(np.array([v.middle], dtype=np.float32)))
        wide, deep = v.half_width + SPUR_MM * v.spur + 4, v.half_depth + SPUR_MM * v.spur + 4
        reach = v.height / 2 + beyond + abs(self.back) * deep + abs(self.sideways) * wide
        lean = abs(self.back) * reach
        self.where = put.box((x - wide, x + wide), (y - deep - lean, y + deep + lean), (v.middle - reach, v.middle + reach))
        k, rows, columns = self.where
        self.z = put.z[k] - np.float32(v.middle) if put.z.shape[1] == 1 else put.z[k][:, rows] - np.float32(v.middle)
        self.x = put.x[None, None, columns] - np.float32(x) - np.float32(self.sideways) * self.z
        self.y = put.y[None, rows, None] - np.float32(y) - np.float32(self.back) * self.z
        self.pixel, self.thickness = np.float32(put.grid.step[0]), np.float32(put.grid.thickness)

    @property
    def is_empty(self) -> bool:
        return any(s.start >= s.stop for s in self.where)

    def across(self, half_width: Array | float, half_depth: Array | float) -> Array:
        """Share inside the outline of the body."""
        u, w = self.x / half_width, self.y / half_depth
        radius = np.sqrt(u * u + w * w) + np.float32(1e-6)
        steep = np.sqrt((u / half_width) ** 2 + (w / half_depth) ** 2) / radius + np.float32(1e-6)
        return np.asarray(np.clip(0.5 - (radius - 1) / (steep * self.pixel), 0, 1), dtype=np.float32)

    def along(self, low: Array | float, high: Array | float) -> Array:
        """Share of each slice's thickness between two surfaces."""
        half = self.thickness / 2
        reach = np.minimum(self.z + half, high) - np.maximum(self.z - half, low)
        return np.asarray(np.clip(reach / self.thickness, 0, 1), dtype=np.float32)

    def plates(self, v: Vertebra, *, less: float = 0.0) -> tuple[Array, Array]:
        """Lower and upper surface: tilted with the spine, hollow in the middle, the upper one wedged to the front."""
        lean = -np.float32(self.back) * self.y - np.float32(self.sideways) * self.x
        middle = np.maximum(0, 1 - (self.x / v.half_width) ** 2 - (self.y / v.half_depth) ** 2)
        front = np.clip(0.5 - self.y / (2 * v.half_depth), 0, 1)
        half = np.float32(v.height / 2 - less)
        high = half + lean - v.hollow * middle - v.wedge * v.height * front
        return np.asarray(lean - half + v.hollow * middle), np.asarray(high)


def _put_disc(put: Painter, body: Body, v: Vertebra) -> None:
    if v.level == "S1":
        return
    place = _Place(put, body, v, beyond=14)
    if place.is_empty:
        return
    share = place.across(v.half_width - 0.5, v.half_depth - 0.5) * place.along(-v.height / 2 - 12, v.height / 2 + 2)
    put.mix(place.where, put.arrays.on(share), put.look.of("disc"), 0)


def _put_body(put: Painter, body: Body, v: Vertebra, person: Person) -> tuple[tuple[Box, Array], tuple[Box, Array]] | None:
    place = _Place(put, body, v, beyond=3)
    if place.is_empty:
        return None
    level = 2 * np.clip(place.z / v.height, -0.5, 0.5)
    waist = 1 - WAIST * (1 - level**2)
    beak = np.float32(SPUR_MM * v.spur) * np.clip(np.abs(level) * 3 - 2, 0, 1)
    front = np.clip(0.5 - place.y / (2 * v.half_depth), 0, 1)
    low, high = place.plates(v)
    outer = place.across(v.half_width * waist + beak, v.half_depth * (0.5 + 0.5 * waist) + beak * front)
    share = outer * place.along(low, high)
    low, high = place.plates(v, less=END_PLATE_MM)
    inner = place.across(v.half_width * waist - body.cortex, v.half_depth * (0.5 + 0.5 * waist) - body.cortex)
    core = np.minimum(inner * place.along(low, high), share)
    part = np.divide(core, share, out=np.zeros_like(share), where=share > 0)
    cortical = np.float32(put.look.of("cortical_bone"))
    value = cortical + part * (np.float32(put.look.core(v.vbmd_mg_cm3)) - cortical)
    on = put.arrays.on
    put.mix(place.where, on(share), on(value), BONE_CODE)
    put.hu[place.where] += on(core * _texture(put, v, person, core=core))
    if person.implant == "cement" and v.level == "T12":
        blob = np.clip(1.6 - np.hypot(place.x / 7, place.y / 6) - np.abs(place.z / 7), 0, 1)
        put.mix(place.where, on(np.asarray(blob * core, dtype=np.float32)), CEMENT_HU, BONE_CODE)
    return (place.where, core), (place.where, share)


def _texture(put: Painter, v: Vertebra, person: Person, *, core: Array) -> Array:
    """Uneven density of the core, of mean zero over it, so that the level keeps its declared CT number."""
    draw = person.draws("texture", v.level)
    rough = draw.standard_normal(core.shape, dtype=np.float32)
    sigma = [TEXTURE_MM / 2 / step for step in (put.grid.step[2], put.grid.step[1], put.grid.step[0])]
    if max(sigma) > 0.3:
        rough = ndimage.gaussian_filter(rough, sigma)
    inside = core > 0.5
    if not inside.any():
        return np.zeros_like(core)
    spread = float(rough[inside].std()) or 1.0
    # a voxel wider than the structure averages it away
    seen = min(1.0, (TEXTURE_MM / max(TEXTURE_MM, put.grid.step[0]))) * min(1.0, (TEXTURE_MM / put.grid.thickness) ** 0.5)
    return np.asarray((rough - rough[inside].mean()) / spread * np.float32(TEXTURE * put.look.line[1] * v.vbmd_mg_cm3 * seen))
