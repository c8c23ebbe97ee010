"""A calibration phantom under the patient: rods of known density in a block of plastic, between the pad and the table.

Which of the QCT exams have one, and in which of these the field of view cuts its rods, is drawn for each person. Sizes in mm,
declared after what such phantoms look like; densities are those of usual ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from ospor_batch.synthetic.body import Body
from ospor_batch.synthetic.faults import NO_FAULT
from ospor_batch.synthetic.labels import exams_of
from ospor_batch.synthetic.painter import Painter
from ospor_batch.synthetic.parts import Part
from ospor_batch.synthetic.physics import solution_hu
from ospor_batch.synthetic.population import Person, center_plan

Material = Literal["k2hpo4", "caha"]
MINERALS: dict[Material, str] = {"k2hpo4": "k2hpo4", "caha": "hydroxyapatite"}  # tables of physics.MASS_ATTENUATION
HALF_WIDTH, HEIGHT, APART = 70.0, 26.0, 32.0  # of the block; from rod to rod
LOW, HIGH = -110.0, 260.0  # from below L5 to above T12, of a phantom that lies under the lumbar spine
PAD, ABOVE_PAD = 8.0, 1.0
SAG = HALF_WIDTH**2 / 900  # the table is a trough, on whose sides the block stands; see anatomy.put_table
CUT_SHARE = 0.15  # of phantoms, whose rods the field of view cuts; declared
PIXEL_MM = 3.125  # at most, of an exam with a phantom: 128 pixels over 400 mm, or no rod can be read


@dataclass(frozen=True)
class Phantom:
    """Rods from right to left: mg/cm3 of the phantom's own material, and one diameter."""

    material: Material
    densities: tuple[float, ...]
    diameter: float

    @property
    def rods(self) -> tuple[str, ...]:
        """As recipes take them."""
        return tuple(f"{density:g} mg/cm3 {self.diameter:g} mm" for density in self.densities)


# Solutions of 0 to 200 mg/cm3 and solid rods of the same densities are what lumbar QCT has been calibrated with most
PHANTOMS: dict[Material, Phantom] = {
    "k2hpo4": Phantom("k2hpo4", (0.0, 50.0, 100.0, 200.0), 18.0),
    "caha": Phantom("caha", (0.0, 50.0, 100.0, 200.0), 18.0),
}


@lru_cache(maxsize=64)
def phantoms_of(person: Person) -> tuple[Phantom, ...]:
    """The phantom under a person, if any: a share of those whose density was read from this very scan."""
    is_qct = center_plan(person.center).exam_kind == "qct" and person.is_ct and person.fault == NO_FAULT
    if not (person.phantom_share and is_qct) or person.is_contrast or _draw(person)[0] >= person.phantom_share:
        return ()
    return (PHANTOMS["k2hpo4"],) if any(exam.gap_days == 0 for exam in exams_of(person)) else ()


def is_cut(person: Person) -> bool:
    """Whether the field of view ends in the rods."""
    return bool(_draw(person)[1] < CUT_SHARE)


def cutting_field_mm(body: Body) -> float:
    """The field of view, about the middle of the table, whose lower edge runs through the rods."""
    return 2 * math.ceil(_top(body) + HEIGHT / 2)


def thickness(phantoms: tuple[Phantom, ...]) -> float:
    """How far the table lies lower than without, mm."""
    return len(phantoms) * HEIGHT + SAG if phantoms else 0.0


def put_phantoms(put: Painter, body: Body, phantoms: tuple[Phantom, ...]) -> None:
    """Lay a pad under the back, and the phantoms below it, one under the other."""
    if phantoms:
        _slab(put, body.half_depth + ABOVE_PAD, PAD, "pad")
    for number, phantom in enumerate(phantoms):
        top = _top(body) + number * HEIGHT
        _slab(put, top, HEIGHT, "phantom_block")
        for place, density in enumerate(phantom.densities):
            x, y = (place - (len(phantom.densities) - 1) / 2) * APART, top + HEIGHT / 2
            _put_rod(put, x, y, phantom.diameter / 2, hu=solution_hu(MINERALS[phantom.material], density, put.look.kvp_kv))


def _top(body: Body) -> float:
    return body.half_depth + ABOVE_PAD + PAD


def _put_rod(put: Painter, x: float, y: float, radius: float, *, hu: float) -> None:
    rod = Part("rod", "phantom_block", LOW, HIGH, lambda _: (x, y, radius, radius), is_flat=True)
    put.lay(rod, hu=hu, code=0)


def _slab(put: Painter, top: float, height: float, tissue: str) -> None:
    """A box as wide as the block, mixed by share at its edges."""
    step_x, step_y, _ = put.grid.step
    across = np.clip(0.5 + (HALF_WIDTH - np.abs(put.x)) / step_x, 0, 1)
    down = np.clip(0.5 + (height / 2 - np.abs(put.y - top - height / 2)) / step_y, 0, 1)
    rows, columns = np.flatnonzero(down), np.flatnonzero(across)
    slices = put.slices(LOW, HIGH)
    if rows.size and columns.size and slices.start < slices.stop:
        where = slices, slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
        share = (down[where[1], None] * across[None, where[2]]).astype(np.float32)[None]
        put.mix(where, put.arrays.on(np.broadcast_to(share, put.hu[where].shape).copy()), put.look.of(tissue), 0)


def _draw(person: Person) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return person.draws("phantom").random(2)
