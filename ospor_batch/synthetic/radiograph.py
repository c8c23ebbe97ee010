"""Chest radiographs: X-rays through the same body that CT shows, onto a detector and through a vendor's display curve.

The tube stands at a declared distance, so that what lies far from the detector is seen larger.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ospor_batch.synthetic.anatomy import fitted
from ospor_batch.synthetic.arrays import NUMPY, Array, Arrays, On
from ospor_batch.synthetic.body import Body
from ospor_batch.synthetic.lettering import written
from ospor_batch.synthetic.organs import organs
from ospor_batch.synthetic.physics import mass_attenuation
from ospor_batch.synthetic.population import Person
from ospor_batch.synthetic.projection import Rays, Shadow
from ospor_batch.synthetic.skeleton import metal, skeleton

View = Literal["PA", "AP", "LATERAL"]
FIELD_MM = 410.0  # of the detector
ABOVE_T1_MM = 54.0  # upper edge of the field, on the detector
SOURCE_MM: dict[View, float] = {"PA": 1800.0, "AP": 1150.0, "LATERAL": 1800.0}  # from tube to detector; usual, declared
GAP_MM = 40.0  # between the body and the detector: cover, grid and chamber; declared
# Energy in keV and share of the detected signal behind a trunk at 120 kV and 0.1 mm Cu; declared
SPECTRUM = ((46.0, 0.22), (60.0, 0.40), (78.0, 0.26), (98.0, 0.12))
SCATTER, SCATTER_MM = 0.38, 42.0  # share of the detected signal behind a grid, and its reach; declared
PHOTONS_A_MM2 = 1.5e6  # unattenuated; declared
DETECTOR_MM = 0.35  # width of the point spread; declared
LUNG_GRAIN, LUNG_GRAIN_MM = 0.07, 2.6  # uneven filling of the lungs with air; declared
BONE_SHARE = (0.45, 0.55)  # of the mineral of ribs and arches: fixed, and growing with density (1 at 110 mg/cm3); declared
MASKED = 4  # rows and columns of a hundred that a shutter may cover at most
LIFT = 0.62  # power that raises the lungs to the gray that real displays give them; set on real pictures
BARE = 0.25  # of the median logarithm, below which a detector lies bare
GRAY_LEVELS = 4096
SHARES = (-0.05, 1.08)  # of the range between the quantiles that are black and white


@dataclass(frozen=True)
class Curve:
    """A vendor's display: how far detail is raised over the local mean, how steep the sigmoid is, and where it turns."""

    detail: float
    reach_mm: float
    steep: float
    turn: float


CURVES: dict[str, Curve] = {
    "north": Curve(0.8, 18.0, 2.8, 0.12),
    "south": Curve(1.0, 22.0, 2.6, 0.10),
    "east": Curve(0.6, 14.0, 3.2, 0.16),
    "west": Curve(1.2, 28.0, 2.4, 0.08),
}


def radiograph(
    person: Person,
    *,
    matrix: int,
    view: View = "PA",
    is_noisy: bool = True,
    source_mm: float | None = None,
    arrays: Arrays = NUMPY,
) -> NDArray[np.uint16]:
    """Gray values of a presentation image in which bone is bright (MONOCHROME2), 12 bits; the left side lies on the right.

    source_mm: from tube to detector, the view's own where none is named; infinite for a parallel beam.
    """
    draw = person.draws("radiograph") if view == "PA" else person.draws("radiograph", view)
    pixel = FIELD_MM / matrix
    signal = detected(person, matrix=matrix, view=view, draw=draw, source_mm=source_mm, arrays=arrays)
    if DETECTOR_MM / pixel > 0.3:
        signal = arrays.blurred(signal, [DETECTOR_MM / 2.355 / pixel] * 2)
    if is_noisy:
        quanta = PHOTONS_A_MM2 * pixel**2
        signal = signal + arrays.on(draw.standard_normal((matrix, matrix), dtype=np.float32)) * arrays.xp.sqrt(signal / quanta)
    log = -arrays.xp.log(arrays.xp.clip(signal, 1e-5, None))
    curve = CURVES[person.manner]
    local = arrays.blurred(log, [curve.reach_mm / pixel] * 2, truncate=2)
    return _displayed(arrays.off(log + (log - local) * curve.detail), curve, draw=draw)


def detected(
    person: Person,
    *,
    matrix: int,
    view: View,
    draw: np.random.Generator,
    source_mm: float | None = None,
    arrays: Arrays = NUMPY,
) -> On:
    """Share of the unattenuated signal that each pixel gets, scatter included, without noise."""
    body, pixel = fitted(person), FIELD_MM / matrix
    rays = _rays(body, matrix=matrix, view=view, draw=draw, source_mm=SOURCE_MM[view] if source_mm is None else source_mm)
    share = BONE_SHARE[0] + BONE_SHARE[1] * min(person.vbmd_mg_cm3 / 110, 1.5)
    shadow = Shadow(rays, bone_share=share, muscle_fat=body.muscle_fat, arrays=arrays)
    posture: Literal["supine", "standing"] = "standing" if view == "PA" else "supine"
    shadow.put(organs(body, posture=posture, draw=person.draws("organs")))
    bones = skeleton(body, posture=posture)
    shadow.put(bones if view != "LATERAL" else [part for part in bones if part.tissue != "spongy_bone" or part.high < 300])
    shadow.put_vertebrae(body)
    shadow.put(metal(body, person.implant))
    white = arrays.on(draw.standard_normal((matrix, matrix), dtype=np.float32))
    grain = arrays.blurred(white, [LUNG_GRAIN_MM / 2 / pixel] * 2, truncate=4)
    shadow.areal["muscle"] += grain * (LUNG_GRAIN / max(arrays.spread(grain), 1e-6)) * arrays.xp.sqrt(shadow.lung / 150)
    through = arrays.full((matrix, matrix), 0)
    areal = {name: arrays.xp.clip(met, 0, None) for name, met in shadow.slanted().items()}
    for kev, weight in SPECTRUM:
        path = sum(met * mass_attenuation(name, kev) for name, met in areal.items())
        through += arrays.xp.exp(-path) * weight
    scattered = arrays.blurred(arrays.xp.clip(through, None, 0.3), [SCATTER_MM / pixel] * 2, truncate=2)
    return through * (1 - SCATTER) + scattered * SCATTER


def _rays(body: Body, *, matrix: int, view: View, draw: np.random.Generator, source_mm: float) -> Rays:
    """The detector, with the patient a little off the middle and a little turned."""
    axis = (np.arange(matrix, dtype=np.float32) + 0.5) * np.float32(FIELD_MM / matrix)
    aside, turned, up = float(draw.uniform(-8, 8)), float(np.deg2rad(draw.normal(0, 1.5))), float(draw.uniform(-8, 8))
    turn = turned + (math.pi / 2 if view == "LATERAL" else 0.0)
    middle = FIELD_MM / 2 - (aside if view != "LATERAL" else -10.0 + aside)
    _, deep, y = (float(v[0]) for v in body.outline(np.array([body.top("T7")])))
    place = {"PA": y - deep - GAP_MM, "AP": y + deep + GAP_MM, "LATERAL": -body.chest_half_width - GAP_MM}[view]
    heights = body.top("T1") + ABOVE_T1_MM + up - axis
    return Rays(axis - np.float32(middle), heights, turn, source_mm, place, is_behind=view == "AP")


def display_table(curve: Curve) -> NDArray[np.uint16]:
    """The curve as a VOI LUT: gray for each of 4096 stored values that rise evenly with the logarithm of the signal."""
    gray = _bent(np.linspace(*SHARES, GRAY_LEVELS), curve) * (GRAY_LEVELS - 1)
    return np.asarray(np.rint(gray), dtype=np.uint16)


def _bent(share: Array, curve: Curve) -> Array:
    """Gray from 0 to 1 of shares of the range between the quantiles."""
    low, high = (1 / (1 + np.exp(-curve.steep * (end - curve.turn))) for end in SHARES)
    bent = 1 / (1 + np.exp(-curve.steep * (share - curve.turn)))
    return np.asarray(np.clip((bent - low) / (high - low), 0, 1) ** LIFT)


def _displayed(log: Array, curve: Curve, *, draw: np.random.Generator) -> NDArray[np.uint16]:
    """Gray values of a logarithm whose detail was raised: a sigmoid between its quantiles, shutter and letter."""
    n = len(log)
    middle = log[n // 8 : -n // 8, n // 6 : -n // 6]
    low, high = np.quantile(middle[middle > BARE * np.median(middle)], (0.005, 0.985))  # where the beam met the body
    share = (log - low) / max(float(high - low), 1e-3)
    gray = _bent(share, curve) * (GRAY_LEVELS - 1)
    edges = (draw.integers(0, MASKED + 1, size=4) * n) // 100
    gray[: edges[0]], gray[n - edges[1] :] = 0, 0
    gray[:, : edges[2]], gray[:, n - edges[3] :] = 0, 0
    if draw.random() < 0.6:
        _burn(gray, "L", top=edges[0] + n // 24, right=n - edges[3] - n // 24, size=max(1, n // 160))
    return np.asarray(gray, dtype=np.uint16)


def _burn(gray: Array, letter: str, *, top: int, right: int, size: int) -> None:
    """A lead letter at the patient's left shoulder."""
    mask = np.kron(written(letter)[:, :5], np.ones((size, size), dtype=bool))
    here = gray[top : top + mask.shape[0], right - mask.shape[1] : right]
    here[mask[: here.shape[0], : here.shape[1]]] = GRAY_LEVELS - 1
