"""CT of a generated body: protocols, contrast phases, the line from density to CT number, and the masks that belong to it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ospor_batch.synthetic.anatomy import Grid, Laid, Look, fitted, lay
from ospor_batch.synthetic.arrays import NUMPY, Arrays
from ospor_batch.synthetic.body import Body
from ospor_batch.synthetic.physics import EFFECTIVE_KEV, iodine_hu, trabecular_line
from ospor_batch.synthetic.population import LEVELS, Person
from ospor_batch.synthetic.scanner import (
    KERNELS,
    Kernel,
    KernelName,
    blurred,
    hardened,
    moved,
    noise,
    noise_hu,
    noise_map,
    streaked,
)
from ospor_batch.synthetic.vertebrae import VERSE

# CT number of the trabecular core in HU = intercept + slope * vBMD (mg/cm3, K2HPO4), keyed by tube voltage in kV: from the
# composition of marrow and mineral at the effective energy of each voltage
LINES: dict[int, tuple[float, float]] = {kvp: trabecular_line(kvp) for kvp in EFFECTIVE_KEV}
Phase = Literal["plain", "arterial", "portal_venous", "delayed"]
# Iodine in each tissue, mg/mL; usual values of a triphasic liver protocol, declared
IODINE: dict[Phase, Mapping[str, float]] = {
    "plain": {},
    "arterial": {"blood": 11.5, "vein": 3.0, "kidney": 5.5, "liver": 0.7, "spleen": 3.0, "muscle": 0.35, "bowel": 0.9},
    "portal_venous": {"blood": 5.4, "vein": 5.2, "kidney": 6.5, "liver": 2.3, "spleen": 2.9, "muscle": 0.75, "bowel": 1.4},
    "delayed": {"blood": 3.2, "vein": 3.1, "kidney": 4.2, "liver": 1.6, "spleen": 1.8, "muscle": 0.7, "bowel": 1.0},
}
# HU that contrast adds to the trabecular core at 120 kV: methods I4; the delayed phase is declared
TRABECULAR_GAIN: dict[Phase, float] = {"plain": 0.0, "arterial": 14.4, "portal_venous": 25.7, "delayed": 20.0}
WHOLLY = 0.999  # share of the core, as the kernel shows it, from which a voxel belongs to the mask
METAL_CLEAR_MM = 2.0  # from metal, within which no voxel counts as trabecular core
DEPTH_OF_SPINE_MM = 50.0  # of bodies and lordosis, which a tilted stack must cover at either end
ProtocolName = Literal["lumbar", "spine", "abdomen", "chest", "low_dose_chest"]


@dataclass(frozen=True)
class Protocol:
    """What is covered, and how noisy and how sharp the image is; all declared."""

    top: str  # vertebra, and mm beyond its upper end-plate
    above: float
    bottom: str
    below: float
    noise_hu: float  # in a trunk of the reference size at 5 mm, 120 kV and a standard kernel
    kernel: KernelName
    ctdivol_mgy: float


PROTOCOLS: dict[ProtocolName, Protocol] = {
    "lumbar": Protocol("L1", 6, "L4", 6, 10.0, "standard", 14.0),
    "spine": Protocol("T12", 10, "S1", 0, 9.5, "standard", 18.0),
    "abdomen": Protocol("T10", 20, "S1", 0, 10.0, "standard", 12.0),
    "chest": Protocol("T1", 15, "L2", 10, 12.0, "standard", 8.0),
    "low_dose_chest": Protocol("T1", 15, "L2", 10, 22.0, "soft", 1.5),
}


@dataclass(frozen=True)
class Sampling:
    """How finely a preset samples the trunk; the field of view is the same for all."""

    matrix: int
    field_mm: float = 400.0

    @property
    def pixel_mm(self) -> float:
        return self.field_mm / self.matrix


@dataclass(frozen=True)
class Scan:
    """One CT volume with its masks; slices go from the feet to the head."""

    grid: Grid
    hu: NDArray[np.int16]
    labels: NDArray[np.uint8]  # trabecular cores of L1-L4, 20 to 23
    kvp_kv: int
    is_contrast: bool
    bodies: NDArray[np.uint8]  # whole vertebral bodies of every level in view, VerSe numbers
    tissue: NDArray[np.uint8]  # painter.TISSUE_CODES
    protocol: ProtocolName
    phase: Phase
    ctdivol_mgy: float  # in a person of 65 kg at 120 kV


def expected_hu(vbmd_mg_cm3: float, *, kvp_kv: int) -> float:
    """CT number that the declared line gives to a density without contrast."""
    intercept, slope = LINES[kvp_kv]
    return intercept + slope * vbmd_mg_cm3


def scan(
    person: Person,
    *,
    sampling: Sampling,
    spacing_mm: float,
    thickness_mm: float,
    is_contrast: bool,
    is_noisy: bool = True,
    protocol: ProtocolName = "lumbar",
    phase: Phase | None = None,
    kernel: KernelName | None = None,
    tilt_deg: float | None = None,
    ctdivol_mgy: float | None = None,
    arrays: Arrays = NUMPY,
) -> Scan:
    """Image a person's trunk; without noise there is no motion either, but hardening, blur and partial volume remain.

    The phase is portal venous where contrast is given and none is named; the gantry tilts as for the person where no tilt is;
    the dose is the protocol's where none is named, and noise falls with its root.
    """
    body, asked = fitted(person), PROTOCOLS[protocol]
    seen: Phase = phase or ("portal_venous" if is_contrast else "plain")
    tilt = person.tilt_deg if tilt_deg is None else tilt_deg
    dose = asked.ctdivol_mgy if ctdivol_mgy is None else ctdivol_mgy
    inner, table = _grid(
        person, body, asked, sampling=sampling, spacing_mm=spacing_mm, thickness_mm=thickness_mm, tilt_deg=tilt
    )
    laid = lay(person, inner, look=_look(person.kvp_kv, seen, muscle_fat=body.muscle_fat), arrays=arrays)
    sharpness = KERNELS[kernel or asked.kernel]
    volume = hardened(blurred(laid.hu, inner, sharpness, arrays=arrays), body, inner, arrays=arrays)
    if laid.metal is not None:
        volume = arrays.on(streaked(arrays.off(volume), laid.metal, inner))
    if is_noisy:
        quiet = asked.noise_hu * math.sqrt(asked.ctdivol_mgy / dose)  # Brooks & Di Chiro 1976, Phys Med Biol 21:689
        level = noise_hu(body, at_reference=quiet, thickness_mm=thickness_mm, kvp_kv=person.kvp_kv, kernel=sharpness)
        draw = person.draws("noise", is_contrast) if protocol == "lumbar" else person.draws("noise", protocol, seen)
        if person.motion_mm:
            volume = moved(volume, draw, motion_mm=person.motion_mm, grid=inner, arrays=arrays)
        volume += noise(draw, inner, kernel=sharpness, arrays=arrays) * arrays.on(
            (level * noise_map(body, inner)).astype(np.float32)
        )
    origin = (round(inner.origin[0], 4), round(inner.origin[1], 4), round(inner.origin[2] + table, 4))
    hu = arrays.off(arrays.xp.round(arrays.xp.clip(volume, -1024, 3071))).astype(np.int16)
    return Scan(
        grid=replace(inner, origin=origin), hu=hu,
        labels=_cores(laid, inner, sharpness), kvp_kv=person.kvp_kv, is_contrast=is_contrast, bodies=_bodies(laid, inner),
        tissue=laid.tissue, protocol=protocol, phase=seen, ctdivol_mgy=dose,
    )  # fmt: skip


def _look(kvp_kv: int, phase: Phase, *, muscle_fat: float) -> Look:
    gain = iodine_hu(kvp_kv)
    added = {tissue: amount * gain for tissue, amount in IODINE[phase].items()}
    added["trabecular"] = TRABECULAR_GAIN[phase] * gain / iodine_hu(120)
    return Look(kvp_kv, LINES[kvp_kv], added, muscle_fat)


def _grid(
    person: Person, body: Body, asked: Protocol, *, sampling: Sampling, spacing_mm: float, thickness_mm: float, tilt_deg: float
) -> tuple[Grid, float]:
    """The grid in the body's coordinates, and how far the scanner's z lies from the body's.

    A tilted stack covers the asked levels at the depth of the vertebral bodies.
    """
    draw = person.draws("position")  # the same for every series of one visit
    lean = math.radians(tilt_deg)
    beyond = DEPTH_OF_SPINE_MM / 2 * abs(math.sin(lean))
    low, high = body.vertebra(asked.bottom).bottom - asked.below - beyond, body.top(asked.top) + asked.above + beyond
    n_slices = math.ceil((high - low) / spacing_mm)
    pixel = sampling.pixel_mm
    half = (sampling.matrix - 1) / 2 * pixel
    shift = draw.uniform(-6, 6, size=2)  # the patient does not lie in the middle of the field
    table = float(np.round(draw.uniform(-900, 300), 1))  # z of L4 in the scanner's coordinates
    first = low - float(draw.uniform(0, 1)) * (n_slices * spacing_mm - (high - low))
    shape, x, y = (n_slices, sampling.matrix, sampling.matrix), -half + shift[0], -half + shift[1]
    first -= math.tan(lean) * (body.spine_y - body.lordosis / 2 - y)  # the height of the first row
    return Grid((x, y, first), (pixel, pixel, spacing_mm), shape, thickness_mm, tilt_deg), table


def _cores(laid: Laid, grid: Grid, kernel: Kernel) -> NDArray[np.uint8]:
    """Voxels of L1-L4 that show nothing but trabecular core, the blur of the kernel counted in."""
    labels = np.zeros(grid.shape, dtype=np.uint8)
    sigma = kernel.width_mm / 2.355 / grid.step[0]
    for level in LEVELS:
        if level in laid.core:
            where, share = laid.core[level]
            seen = share if sigma < 0.15 else ndimage.gaussian_filter(share, (0, sigma, sigma), truncate=3, mode="constant")
            labels[where][seen > WHOLLY] = VERSE[level]
    if laid.metal is not None:
        labels[ndimage.binary_dilation(laid.metal, iterations=1 + round(METAL_CLEAR_MM / grid.step[0]))] = 0
    return labels


def _bodies(laid: Laid, grid: Grid) -> NDArray[np.uint8]:
    labels = np.zeros(grid.shape, dtype=np.uint8)
    for level, (where, share) in laid.body.items():
        labels[where][share > 0.5] = VERSE[level]
    return labels
