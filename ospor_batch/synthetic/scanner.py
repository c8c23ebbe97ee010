"""What a CT scanner does to a body: blur of the kernel, beam hardening, noise by dose, motion and metal.

Every number is declared; sizes in mm, CT numbers in HU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from ospor_batch.synthetic.arrays import NUMPY, Array, Arrays, On
from ospor_batch.synthetic.body import Body
from ospor_batch.synthetic.painter import Grid
from ospor_batch.synthetic.physics import attenuation_per_mm

REFERENCE_DIAMETER_MM = 250.0  # of the trunk that the scanner's hardening correction and dose are set for
HARDENING_A_CM = -0.6  # HU in the middle for each cm of trunk beyond the reference
CUPPING_HU = 5.0  # how much higher the rim reads than the middle
CURRENT_FOLLOWS = 0.6  # share of the attenuation that tube current modulation makes up for
NOISE_OF_KVP = {80: 1.35, 100: 1.15, 120: 1.0, 140: 0.9}
NOISE_MIDDLE, NOISE_RIM, NOISE_AIR = 1.12, 0.75, 0.45  # of the mean noise of a trunk
STREAK_HU, STREAK_MM = 180.0, 35.0  # of metal


@dataclass(frozen=True)
class Kernel:
    """Width of the point spread in mm, how far edges overshoot, and the noise beside a standard kernel's."""

    width_mm: float
    overshoot: float
    noise: float


KernelName = Literal["soft", "standard", "bone"]
KERNELS: dict[KernelName, Kernel] = {
    "soft": Kernel(1.75, 0.0, 0.8),
    "standard": Kernel(1.4, 0.0, 1.0),
    "bone": Kernel(0.8, 0.45, 2.4),
}


def diameter_mm(body: Body) -> float:
    """Diameter of the circle with the area of the trunk."""
    return 2 * math.sqrt(body.half_width * body.half_depth)


def noise_hu(body: Body, *, at_reference: float, thickness_mm: float, kvp_kv: int, kernel: Kernel) -> float:
    """Mean noise in a trunk: by dose, slice thickness, tube voltage, kernel and the trunk's size."""
    grown = attenuation_per_mm("muscle", 75.0) * (diameter_mm(body) - REFERENCE_DIAMETER_MM)
    return (
        at_reference * kernel.noise * NOISE_OF_KVP[kvp_kv] * math.sqrt(5 / thickness_mm)
        * math.exp(0.5 * (1 - CURRENT_FOLLOWS) * grown)
    )  # fmt: skip


def blurred(volume: On, grid: Grid, kernel: Kernel, *, arrays: Arrays = NUMPY) -> On:
    """The volume as the kernel shows it, within slices; a pixel wider than the blur needs none."""
    sigma = kernel.width_mm / 2.355 / grid.step[0]
    if sigma < 0.15:
        return volume
    smooth = arrays.blurred(volume, (sigma, sigma))
    if not kernel.overshoot:
        return smooth
    return smooth + (smooth - arrays.blurred(smooth, (2 * sigma, 2 * sigma), truncate=4)) * kernel.overshoot


def radius_in(body: Body, grid: Grid) -> Array:
    """Distance from the middle of the trunk as a share of the way to the skin, for each pixel of a slice."""
    x, y, _ = grid.axes()
    return np.asarray(np.sqrt((x[None, :] / body.half_width) ** 2 + (y[:, None] / body.half_depth) ** 2), dtype=np.float32)


def hardened(volume: On, body: Body, grid: Grid, *, arrays: Arrays = NUMPY) -> On:
    """The volume with what is left of beam hardening after the scanner's correction: trunks beyond the reference read low."""
    radius = np.minimum(radius_in(body, grid), 1)
    at_spine = min(1.0, body.spine_y / body.half_depth)
    bias = HARDENING_A_CM * (diameter_mm(body) - REFERENCE_DIAMETER_MM) / 10 + CUPPING_HU * (radius**2 - at_spine**2)
    return volume + arrays.on(bias.astype(np.float32))[None] * arrays.xp.clip((volume + 1000) / 1000, 0, 1.2)


def noise(draw: np.random.Generator, grid: Grid, *, kernel: Kernel, arrays: Arrays = NUMPY) -> On:
    """Noise of unit spread with the power spectrum of filtered back projection: a ramp under the kernel's curve."""
    _, n_y, n_x = grid.shape
    white = draw.standard_normal(grid.shape, dtype=np.float32)
    f = np.hypot(fft.fftfreq(n_y, grid.step[1])[:, None], fft.rfftfreq(n_x, grid.step[0])[None, :])
    sigma = kernel.width_mm / 2.355
    curve = np.exp(-2 * (np.pi * sigma * f) ** 2) * (1 + kernel.overshoot * (1 - np.exp(-6 * (np.pi * sigma * f) ** 2)))
    gain = np.asarray(np.sqrt(f + 0.004) * curve, dtype=np.float32)
    shaped = arrays.filtered(white, gain)
    if grid.thickness > 1.5 * grid.step[2]:  # overlapping slices share their noise
        n_shared = round(grid.thickness / grid.step[2])
        shaped = sum(arrays.xp.roll(shaped, k, 0) for k in range(n_shared))
    return shaped / (arrays.spread(shaped) or 1.0)


def noise_map(body: Body, grid: Grid) -> Array:
    """Noise of each pixel beside the trunk's mean: most in the middle, least in air."""
    radius = radius_in(body, grid)
    inside = NOISE_MIDDLE + (NOISE_RIM - NOISE_MIDDLE) * np.minimum(radius, 1) ** 2
    return np.asarray(np.where(radius < 1, inside, NOISE_AIR + (NOISE_RIM - NOISE_AIR) * np.exp(-4 * (radius - 1))))


def moved(volume: On, draw: np.random.Generator, *, motion_mm: float, grid: Grid, arrays: Arrays = NUMPY) -> On:
    """The volume of someone who breathed: each slice is two positions of the body, mixed."""
    n, rows = len(volume), np.arange(grid.shape[1])
    for k, (share, shift) in enumerate(zip(draw.uniform(0.2, 0.5, n), draw.normal(0, motion_mm, n), strict=True)):
        up = abs(shift) / grid.step[1]
        near, far = (arrays.on(np.minimum(rows + int(up) + more, len(rows) - 1)) for more in (0, 1))
        other = volume[k][near] * (1 - up % 1) + volume[k][far] * (up % 1)
        volume[k] = volume[k] * (1 - share) + other * share
    return volume


def streaked(volume: Array, metal: NDArray[np.bool_], grid: Grid) -> Array:
    """The volume with dark bands between pieces of metal and bright ones across, in every slice that holds some."""
    out = volume.copy()
    x, y, _ = grid.axes()
    for k in np.flatnonzero(metal.any(axis=(1, 2))):
        pieces, n = ndimage.label(metal[k])
        for j, i in ndimage.center_of_mass(metal[k], pieces, range(1, n + 1)):
            dx, dy = x[None, :] - x[round(i)], y[:, None] - y[round(j)]
            far, angle = np.hypot(dx, dy) + 2, np.arctan2(dy, dx)
            out[k] += STREAK_HU * np.exp(-far / STREAK_MM) * (0.6 * np.cos(7 * angle + j) - np.cos(2 * angle))
    return np.asarray(out, dtype=np.float32)
