"""Lay a person's body on a voxel grid: CT numbers, masks of the vertebrae and the tissue of every voxel."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ospor_batch.synthetic.arrays import NUMPY, Array, Arrays, On
from ospor_batch.synthetic.body import MUSCLE_AT_SCALE_1_CM2, Body, body_of
from ospor_batch.synthetic.organs import hull, muscles, organs
from ospor_batch.synthetic.painter import TISSUE_CODES, Box, Grid, Look, Painter
from ospor_batch.synthetic.phantom import phantoms_of, put_phantoms, thickness
from ospor_batch.synthetic.population import Person
from ospor_batch.synthetic.skeleton import metal, skeleton
from ospor_batch.synthetic.vertebrae import FIRST_LABEL, put_vertebrae

LEAST_METAL_HU = 4000.0
MARBLING, MARBLING_MM = 0.6, 4.0  # spread of the fat within muscle as a share of its mean, and the width of streaks; declared
__all__ = ["FIRST_LABEL", "Grid", "Laid", "Look", "fitted", "lay"]


@dataclass(frozen=True)
class Laid:
    """A body on a grid, before any scanner blurs it."""

    hu: On  # float32, where the arithmetic runs
    tissue: NDArray[np.uint8]  # TISSUE_CODES
    core: dict[str, tuple[Box, Array]]  # share of each voxel in the trabecular core of a level, in its box
    body: dict[str, tuple[Box, Array]]  # the same of the whole vertebral body
    metal: NDArray[np.bool_] | None


def lay(person: Person, grid: Grid, *, look: Look, arrays: Arrays = NUMPY) -> Laid:
    """Fill a grid with a person's body."""
    body, put = fitted(person), Painter(grid, look, arrays=arrays)
    phantoms = phantoms_of(person)
    put_table(put, body, lower=thickness(phantoms))
    put_phantoms(put, body, phantoms)
    put.put(organs(body, posture="supine", draw=person.draws("organs")))
    bones = skeleton(body, posture="supine")
    put.put(bones)
    core, whole = put_vertebrae(put, body, person)
    marble(put, body, person)
    implants = metal(body, person.implant)
    put.put(implants)
    found = arrays.off(put.hu > LEAST_METAL_HU) if implants else None
    return Laid(put.hu, arrays.off(put.tissue), core, whole, found)


@lru_cache(maxsize=64)
def fitted(person: Person) -> Body:
    """The body with the muscle area at L3 that the person has: the shapes are scaled until a slice of them measures it."""
    body = body_of(person)
    for _ in range(2):
        found = muscle_area_cm2(body)
        body = replace(body, muscle_scale=float(np.clip(body.muscle_scale * (person.muscle_cm2 / found) ** 0.8, 0.4, 2.2)))
    return body


def muscle_area_cm2(body: Body) -> float:
    """Area of muscle in the slice through the middle of L3."""
    side = 3.0
    n = int(2 * (body.half_width + 12) / side)
    grid = Grid((-side * (n - 1) / 2, -side * (n - 1) / 2, body.vertebra("L3").middle), (side, side, 1.0), (1, n, n), 1.0)
    put = Painter(grid, Look(120, (0.0, 1.0)))
    put.put([*hull(body), *muscles(body)])
    return max(float((put.tissue == TISSUE_CODES["muscle"]).sum()) * side**2 / 100, MUSCLE_AT_SCALE_1_CM2 / 10)


def marble(put: Painter, body: Body, person: Person) -> None:
    """Fat strewn through muscle in streaks: of mean zero over it, so that muscle keeps its share."""
    is_muscle = put.tissue == TISSUE_CODES["muscle"]
    if not is_muscle.any():
        return
    white = person.draws("marbling").standard_normal(put.grid.shape, dtype=np.float32)
    rough = put.arrays.blurred(put.arrays.on(white), [MARBLING_MM / 2 / step for step in put.grid.step[1::-1]], truncate=2)
    rough = rough[is_muscle]
    seen = min(1.0, MARBLING_MM / put.grid.step[0])  # a voxel wider than the streaks averages them away
    spread = MARBLING * body.muscle_fat * put.look.marbled * seen / (put.arrays.spread(rough) or 1.0)
    put.hu[is_muscle] += (rough - rough.mean()) * spread


def put_table(put: Painter, body: Body, *, lower: float = 0.0) -> None:
    """A shallow trough under the back, so much lower than the back needs: a shell around foam."""
    dip = body.half_depth + 9 + lower + put.x[None, :] ** 2 / -900
    for depth, tissue in ((14.0, "table_shell"), (10.0, "table_core")):
        over = np.clip(0.5 + (depth / 2 - np.abs(put.y[:, None] - dip - 7)) / put.grid.step[1], 0, 1)
        share = np.asarray(over * (np.abs(put.x[None, :]) < 205), dtype=np.float32)[None]
        rows = np.flatnonzero(share[0].any(axis=1))
        if rows.size:
            where = slice(int(rows[0]), int(rows[-1]) + 1)
            here = put.hu[:, where]
            here += put.arrays.on(share[:, where]) * (put.look.of(tissue) - here)
