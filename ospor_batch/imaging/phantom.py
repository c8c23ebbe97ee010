"""Rods of a calibration phantom that lies under the patient: found by their diameter, with the CT number of each.

Where a phantom lies is not declared, and which rod is which is told by brightness: a phantom may be turned round. Numbers
without a source are judgement, declared here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ospor_batch.errors import ItemRefused, StudyError
from ospor_batch.imaging.calibration import phantom_line
from ospor_batch.imaging.orientation import canonical
from ospor_batch.imaging.volume import Array, Volume

MATERIALS = ("k2hpo4", "caha")  # methods L8: densities of one are not those of the other
WRITTEN = re.compile(r"\s*(-?\d+(?:\.\d+)?)\s*mg/cm3\s+(\d+(?:\.\d+)?)\s*mm\s*")
LEAST_RODS = 3  # two make a line of any two numbers
REACH_MM = 12.0  # slices above and below the middle of a level, over which a rod is averaged
BEHIND_MM = 35.0  # from the middle of the vertebral bodies to where rods are looked for
EDGE_MM, RIM_MM = 1.5, 2.5  # kept away from the wall of a rod on both sides; width of the ring around it
CORE = 0.65  # share of that radius in which a rod is read
SECTORS = 8  # of the ring: a rod stands out on all sides
LEAST_CONTRAST_HU = 12.0
ROD_HU = (-200.0, 1200.0)
LEAST_PIXELS = 9  # inside a rod
OFF_ROW_MM = 20.0  # rods lie in a row, which may be bent
MOST_CANDIDATES = 12
MG_PER_HU = (0.4, 1.3)  # K2HPO4 is 0.7 to 0.9, hydroxyapatite 0.6 to 0.8 between 80 and 140 kV
WATER_MG_CM3 = 60.0  # the line passes so near to water at 0 HU
MOST_RESIDUAL_MG_CM3 = 25.0
ALIKE_MG_CM3, APART_MG_CM3, AT_HU = 3.0, 8.0, 150.0  # two choices fit alike, and say different things of bone


@dataclass(frozen=True)
class Rod:
    """A rod as it is declared: density in mg/cm3 of the phantom's own material, diameter in mm."""

    density_mg_cm3: float
    diameter_mm: float

    @property
    def name(self) -> str:
        return f"rod_{self.density_mg_cm3:g}"


@dataclass(frozen=True)
class RodSample:
    """A rod that was found: mean and spread of the CT numbers inside it, and its middle in mm from the first pixel."""

    rod: Rod
    hu: float
    sd_hu: float
    row_mm: float
    column_mm: float


@dataclass(frozen=True)
class _Disc:
    """A round thing of a declared diameter."""

    diameter_mm: float
    hu: float
    sd_hu: float
    row_mm: float
    column_mm: float


def rods_of(texts: Sequence[str]) -> tuple[Rod, ...]:
    """Read rods written as ``100 mg/cm3 18 mm``; StudyError when they cannot make a line."""
    found = []
    for text in texts:
        words = WRITTEN.fullmatch(text)
        if words is None or not float(words[2]) > 0:
            raise StudyError(f'phantom_rods: {text!r} is no rod; expected density and diameter, such as "100 mg/cm3 18 mm"')
        found.append(Rod(float(words[1]), float(words[2])))
    if len(found) < LEAST_RODS or len({rod.density_mg_cm3 for rod in found}) < len(found):
        raise StudyError(f"phantom_rods: expected {LEAST_RODS} or more, each of another density; found {len(found)}")
    return tuple(found)


def find_rods(
    volume: Volume, labels: npt.NDArray[np.int32], *, levels: Mapping[str, int], rods: Sequence[Rod]
) -> tuple[RodSample, ...]:
    """Find the rods behind the labelled vertebrae; the answer is in the order of ``rods``.

    ItemRefused: levels_missing; phantom_unresolved where pixels are too large for a rod; phantom_missing where not all
    are found; phantom_ambiguous where other round things fit as well and would give another density.
    """
    views, step = _views(volume, labels, levels=levels)
    found: list[_Disc] = []
    for diameter in sorted({rod.diameter_mm for rod in rods}):
        found += _discs(views, step, diameter=diameter)[:MOST_CANDIDATES]
    fits = sorted(_fits(found, rods), key=lambda fit: fit[0])
    if not fits:
        raise ItemRefused(
            "phantom_missing", f"{len(rods)} rods declared, {len(found)} round things of their size found, no line"
        )
    best = fits[0]
    for misfit, at, _ in fits[1:]:
        if misfit < best[0] + ALIKE_MG_CM3 and abs(at - best[1]) > APART_MG_CM3:
            raise ItemRefused("phantom_ambiguous", "other round things behind the patient make a line as well as the rods do")
    return best[2]


def _views(
    volume: Volume, labels: npt.NDArray[np.int32], *, levels: Mapping[str, int]
) -> tuple[list[Array], tuple[float, float]]:
    """What lies behind the spine, averaged over the slices of each level; pixel spacing in mm."""
    turned, own = canonical(volume, labels)
    assert own is not None
    middles = [np.argwhere(own == label).mean(axis=0) for label in levels.values() if (own == label).any()]
    if not middles:
        raise ItemRefused("levels_missing", f"none of {', '.join(levels)} in the images")
    slices, rows, columns = turned.spacing
    first = round(max(middle[1] for middle in middles) + BEHIND_MM / rows)
    views = []
    for middle in middles:
        reach = max(0.5, REACH_MM / slices)
        part = turned.hu[max(0, int(np.ceil(middle[0] - reach))) : int(middle[0] + reach) + 1, first:]
        views.append(np.clip(part, -1000, 2000).mean(axis=0, dtype=np.float64))
    return views, (rows, columns)


def _discs(views: Sequence[Array], step: tuple[float, float], *, diameter: float) -> list[_Disc]:
    """Round things of a diameter, those that stand out most first."""
    kernels = _kernels(step, diameter=diameter)
    half = tuple(side // 2 for side in kernels["inner"].shape)
    if any(side <= 2 * part for side, part in zip(views[0].shape, half, strict=True)):
        return []
    measured = [{name: _mean(view, kernel) for name, kernel in kernels.items()} for view in views]
    stands_out = np.min([_standing_out(one) for one in measured], axis=0)
    inside = np.zeros_like(stands_out)
    inside[half[0] : -half[0], half[1] : -half[1]] = 1
    stands_out = stands_out * inside
    hu = np.mean([one["core"] for one in measured], axis=0)  # away from the wall, which a soft kernel blurs far into the rod
    spread = np.mean([_spread(view, kernels["core"], one["core"]) for view, one in zip(views, measured, strict=True)], axis=0)
    size = tuple(max(3, round(diameter / spacing)) for spacing in step)
    peaks = np.argwhere((stands_out >= LEAST_CONTRAST_HU) & (stands_out == ndimage.maximum_filter(stands_out, size=size)))
    order = sorted(peaks.tolist(), key=lambda at: (-stands_out[at[0], at[1]], at))
    return [_Disc(diameter, float(hu[r, c]), float(spread[r, c]), r * step[0], c * step[1]) for r, c in order]


def _kernels(step: tuple[float, float], *, diameter: float) -> dict[str, npt.NDArray[np.bool_]]:
    edge = max(EDGE_MM, *step)
    least, most = diameter / 2 - edge, diameter / 2 + edge
    rim = max(RIM_MM, *step)
    half = [int(np.ceil((most + rim) / spacing)) for spacing in step]
    down, across = (np.arange(-n, n + 1) * spacing for n, spacing in zip(half, step, strict=True))
    away, angle = np.hypot(down[:, None], across[None, :]), np.arctan2(down[:, None], across[None, :])
    sector = np.floor((angle + np.pi) / (2 * np.pi) * SECTORS).astype(int) % SECTORS
    is_ring = (away >= most) & (away <= most + rim)
    found = {"inner": away <= least, "core": away <= CORE * least}
    found |= {f"ring{at}": is_ring & (sector == at) for at in range(SECTORS)}
    if found["inner"].sum() < LEAST_PIXELS or not all(kernel.any() for kernel in found.values()):
        raise ItemRefused("phantom_unresolved", f"rods of {diameter:g} mm in pixels of {max(step):.1f} mm")
    return found


def _mean(view: Array, kernel: npt.NDArray[np.bool_]) -> Array:
    from scipy import signal  # late: only scans with a phantom need it

    turned = kernel[::-1, ::-1] / kernel.sum()
    mean: Array = signal.fftconvolve(view, turned, mode="same")
    return mean


def _spread(view: Array, kernel: npt.NDArray[np.bool_], mean: Array) -> Array:
    spread: Array = np.sqrt(np.maximum(_mean(view**2, kernel) - mean**2, 0))
    return spread


def _standing_out(measured: Mapping[str, Array]) -> Array:
    """Least difference from the ring on any side, all of one sign; 0 where it is not even inside or no rod's CT number."""
    inner, core = measured["inner"], measured["core"]
    beside = np.stack([measured[f"ring{at}"] for at in range(SECTORS)])
    contrast = np.maximum((inner - beside).min(axis=0), (beside - inner).min(axis=0))
    is_even = np.abs(core - inner) <= 0.2 * contrast + 4
    found: Array = np.where(is_even & (inner > ROD_HU[0]) & (inner < ROD_HU[1]), np.maximum(contrast, 0), 0)
    return found


def _fits(discs: Sequence[_Disc], rods: Sequence[Rod]) -> Iterator[tuple[float, float, tuple[RodSample, ...]]]:
    """Choices of discs that can be the rods: residual in mg/cm3, what it says of AT_HU, and which disc is which rod."""
    sizes = sorted(rod.diameter_mm for rod in rods)
    for chosen in combinations(discs, len(rods)):
        if sorted(disc.diameter_mm for disc in chosen) != sizes or not _in_a_row(chosen):
            continue
        samples = _named(chosen, rods)
        try:
            line = phantom_line([one.hu for one in samples], [rod.density_mg_cm3 for rod in rods])
        except ItemRefused:
            continue
        is_near_water = abs(line.intercept) <= WATER_MG_CM3
        if MG_PER_HU[0] <= line.slope <= MG_PER_HU[1] and is_near_water and line.residual_mg_cm3 <= MOST_RESIDUAL_MG_CM3:
            yield line.residual_mg_cm3, line.intercept + line.slope * AT_HU, samples


def _in_a_row(discs: Sequence[_Disc]) -> bool:
    """Whether they lie beside each other in one row, none over another."""
    for one, other in combinations(discs, 2):
        apart = np.hypot(one.row_mm - other.row_mm, one.column_mm - other.column_mm)
        if apart < (one.diameter_mm + other.diameter_mm) / 2:
            return False
    places = np.array([(disc.row_mm, disc.column_mm) for disc in discs])
    away = places - places.mean(axis=0)
    across = np.linalg.svd(away, full_matrices=False)[2][-1]
    return bool(np.abs(away @ across).max() <= OFF_ROW_MM)


def _named(discs: Sequence[_Disc], rods: Sequence[Rod]) -> tuple[RodSample, ...]:
    """Rods of one diameter are told apart by brightness."""
    held: dict[Rod, _Disc] = {}
    for diameter in sorted({rod.diameter_mm for rod in rods}):
        own = sorted((rod for rod in rods if rod.diameter_mm == diameter), key=lambda rod: rod.density_mg_cm3)
        bright = sorted((disc for disc in discs if disc.diameter_mm == diameter), key=lambda disc: disc.hu)
        held |= dict(zip(own, bright, strict=True))
    return tuple(RodSample(rod, held[rod].hu, held[rod].sd_hu, held[rod].row_mm, held[rod].column_mm) for rod in rods)
