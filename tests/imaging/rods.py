"""A made trunk on a table, with or without a calibration phantom under it; CT numbers of the rods from their attenuation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import ndimage

from ospor_batch.imaging.orientation import canonical
from ospor_batch.imaging.phantom import Rod, rods_of
from ospor_batch.imaging.volume import Volume
from ospor_batch.synthetic.physics import EFFECTIVE_KEV, mineral_slope, trabecular_line
from tests.imaging.series import affine

LEVELS = {"L1": 20, "L2": 21}
TEXTS = ("0 mg/cm3 18 mm", "50 mg/cm3 18 mm", "100 mg/cm3 18 mm", "200 mg/cm3 18 mm")
RODS = rods_of(TEXTS)
MINERALS = {"k2hpo4": "k2hpo4", "caha": "hydroxyapatite"}
PIXEL_MM, SLICE_MM = 1.5, 5.0
BASE_HU, SHELL_HU, FOAM_HU = -40.0, 60.0, -880.0


def rod_hu(rod: Rod, *, kvp: int = 120, material: str = "k2hpo4") -> float:
    """CT number of a rod of water with so much mineral."""
    return mineral_slope(MINERALS[material], EFFECTIVE_KEV[kvp]) * rod.density_mg_cm3


def paint(plane: np.ndarray, y: np.ndarray, x: np.ndarray, *, hu: Mapping[Rod, float]) -> None:
    """A block of 25 mm with its rods, from right to left; y: mm below its top, x: mm from its middle."""
    if hu:
        plane[(y > 0) & (y < 25) & (np.abs(x) < 100)] = BASE_HU
    for number, (rod, value) in enumerate(hu.items()):
        middle = (number - (len(hu) - 1) / 2) * 34
        plane[np.hypot(y - 12.5, x - middle) < rod.diameter_mm / 2] = value


def under(volume: Volume, labels: np.ndarray, *, rods: Sequence[Rod] = RODS) -> tuple[Volume, np.ndarray]:
    """The same patient with a phantom drawn under the last row, and labels to match."""
    turned, own = canonical(volume, labels)
    assert own is not None
    _, rows, columns = turned.spacing
    more = round(40 / rows)
    y, x = np.meshgrid(
        np.arange(more) * rows - 6, (np.arange(turned.hu.shape[2]) - turned.hu.shape[2] / 2) * columns, indexing="ij"
    )
    plane = np.full(y.shape, -1000.0)
    paint(plane, y, x, hu={rod: rod_hu(rod) for rod in rods})
    plane = ndimage.gaussian_filter(plane, (0.8 / rows, 0.8 / columns))
    hu = np.concatenate([turned.hu, np.repeat(plane[None], len(turned.hu), axis=0)], axis=1).astype(np.float32)
    return Volume(hu, turned.affine), np.pad(own, ((0, 0), (0, more), (0, 0)))


def lying(
    vbmd: float,
    *,
    rods: Sequence[Rod] = RODS,
    kvp: int = 120,
    material: str = "k2hpo4",
    seed: int = 0,
    noise_hu: float = 15.0,
    gap_mm: float = 6.0,
    scale: float = 1.0,
    offset_hu: float = 0.0,
    pixel_mm: float = PIXEL_MM,
) -> tuple[Volume, np.ndarray]:
    """L1 and L2 of a density in a trunk on a table, and their labels; slice 0 lies next to the feet.

    rods: under the back, from right to left; none for a table without phantom. scale, offset_hu: of a scanner out of tune.
    """
    side = round(360 / pixel_mm)
    row, column = ((np.arange(side) - side / 2) * pixel_mm for _ in range(2))
    y, x = np.meshgrid(row, column, indexing="ij")
    plane = np.full((side, side), -1000.0)
    inside = (y / 95) ** 2 + (x / 140) ** 2 < 1
    plane[inside] = -100
    plane[((y / 80) ** 2 + (x / 125) ** 2 < 1)] = 55
    top = 95 + gap_mm
    plane[(y > top + 26) & (y < top + 60)] = FOAM_HU
    plane[(y > top + 26) & (y < top + 28)] = SHELL_HU
    paint(plane, y - top, x, hu={rod: rod_hu(rod, kvp=kvp, material=material) for rod in rods})
    hu = np.repeat(plane[None], 24, axis=0)
    labels = np.zeros(hu.shape, np.int32)
    is_body = np.hypot(y - 35, x) < 18
    intercept, slope = trabecular_line(kvp)
    for label, at in ((21, 6), (20, 16)):
        labels[at - 3 : at + 4, is_body] = label
    hu[labels > 0] = intercept + slope * vbmd
    blurred = ndimage.gaussian_filter(hu, (0, 0.8 / pixel_mm, 0.8 / pixel_mm))
    noisy = blurred + np.random.default_rng(seed).normal(0, noise_hu, hu.shape)
    to_lps = affine(spacing=(SLICE_MM, pixel_mm, pixel_mm), origin=(-180, -180, 0))
    return Volume((scale * noisy + offset_hu).astype(np.float32), to_lps, kvp_kv=float(kvp)), labels
