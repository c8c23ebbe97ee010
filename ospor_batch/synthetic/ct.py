"""CT of a generated trunk: the declared line from density to CT number, noise, and the masks that belong to it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ospor_batch.synthetic.anatomy import Enhancement, Grid, tissues, trunk_of
from ospor_batch.synthetic.population import Person

# CT number of the trabecular core in HU = intercept + slope * vBMD (mg/cm3, K2HPO4), keyed by tube voltage in kV.
# 120 kV is declared, so that the decline by age follows methods I2; 100 and 140 kV follow from it by the
# ratios of methods I3 (HU at 120 kV = 0.927 * HU at 100 kV = 1.053 * HU at 140 kV).
LINES: dict[int, tuple[float, float]] = {
    100: (5.0, 1.25 / 0.927),
    120: (5.0, 1.25),
    140: (5.0, 1.25 / 1.053),
}
# Contrast in the portal venous phase: trabecular +25.7 HU (methods I4); blood and organs are usual values, declared
PORTAL_VENOUS = Enhancement(blood=120.0, kidney=130.0, liver=50.0, trabecular=25.7)
PLAIN = Enhancement()
NOISE_SD_HU = 12.0  # at 65 kg and 5 mm; declared
NOISE_TAPS = (0.15, 0.70, 0.15)  # a soft kernel joins the noise of neighbouring pixels; declared


@dataclass(frozen=True)
class Sampling:
    """How finely a preset samples the trunk; the field of view is the same for all."""

    matrix: int
    field_mm: float = 360.0

    @property
    def pixel_mm(self) -> float:
        return self.field_mm / self.matrix


@dataclass(frozen=True)
class Scan:
    """One CT volume with its masks; slices go from the feet to the head."""

    grid: Grid
    hu: NDArray[np.int16]
    labels: NDArray[np.uint8]
    kvp_kv: int
    is_contrast: bool


def expected_hu(vbmd_mg_cm3: float, *, kvp_kv: int) -> float:
    """CT number that the declared line gives to a density without contrast."""
    intercept, slope = LINES[kvp_kv]
    return intercept + slope * vbmd_mg_cm3


def scan(
    person: Person, *, sampling: Sampling, spacing_mm: float, thickness_mm: float, is_contrast: bool, is_noisy: bool = True
) -> Scan:
    """Image a person's trunk from below L4 to above L1."""
    trunk, draw = trunk_of(person), person.draws("position")  # the same for every series of one visit
    more = PORTAL_VENOUS if is_contrast else PLAIN
    low, high = trunk.extent
    n_slices = math.ceil((high - low + 12) / spacing_mm)  # 6 mm beyond the end-plates on either side, at least
    pixel = sampling.pixel_mm
    half = (sampling.matrix - 1) / 2 * pixel
    shift = draw.uniform(-6, 6, size=2)  # the patient does not lie in the middle of the field
    table = float(np.round(draw.uniform(-900, 300), 1))  # z of L4 in the scanner's coordinates
    first = low - 6 - float(draw.uniform(0, 1)) * (n_slices * spacing_mm - (high - low + 12))
    inner = Grid(
        (-half + shift[0], -half + shift[1], first), (pixel, pixel, spacing_mm), _shape(n_slices, sampling), thickness_mm
    )
    core = tuple(expected_hu(v, kvp_kv=person.kvp_kv) + more.trabecular for v in person.level_vbmd)
    volume, labels = tissues(trunk, inner, core_hu=core, enhancement=more)
    if is_noisy:
        noise = _noise(person.draws("noise", is_contrast), volume.shape)
        volume += noise * np.float32(NOISE_SD_HU * math.sqrt(person.weight_kg / 65 * 5 / thickness_mm))
    origin = (round(inner.origin[0], 4), round(inner.origin[1], 4), round(inner.origin[2] + table, 4))
    return Scan(
        grid=Grid(origin, inner.step, inner.shape, thickness_mm),
        hu=np.rint(np.clip(volume, -1024, 3000)).astype(np.int16),
        labels=labels,
        kvp_kv=person.kvp_kv,
        is_contrast=is_contrast,
    )


def scout(scanned: Scan) -> NDArray[np.int16]:
    """A frontal scout of the same trunk: mean CT number along y, stretched to a square matrix."""
    flat = scanned.hu.astype(np.float32).mean(axis=1)[::-1]
    rows = np.linspace(0, flat.shape[0] - 1, flat.shape[1]).round().astype(int)
    return np.asarray(np.rint(flat[rows]), dtype=np.int16)


def _shape(n_slices: int, sampling: Sampling) -> tuple[int, int, int]:
    return n_slices, sampling.matrix, sampling.matrix


def _noise(draw: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Noise of unit standard deviation, joined within slices by a three-tap kernel."""
    white = draw.standard_normal(shape, dtype=np.float32)
    side, middle, _ = (np.float32(tap) for tap in NOISE_TAPS)
    for axis in (1, 2):
        white = middle * white + side * (np.roll(white, 1, axis) + np.roll(white, -1, axis))
    return np.asarray(white / np.float32(sum(tap**2 for tap in NOISE_TAPS)), dtype=np.float32)
