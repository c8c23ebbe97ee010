"""Chest radiographs: X-rays through the same body that CT shows, onto a detector and through a vendor's display curve.

The beam is parallel: nothing is magnified.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ospor_batch.synthetic.anatomy import fitted
from ospor_batch.synthetic.body import Body
from ospor_batch.synthetic.lettering import written
from ospor_batch.synthetic.organs import organs
from ospor_batch.synthetic.physics import mass_attenuation
from ospor_batch.synthetic.population import Person
from ospor_batch.synthetic.projection import Rays, Shadow
from ospor_batch.synthetic.skeleton import metal, skeleton

Array = NDArray[Any]
View = Literal["PA", "AP", "LATERAL"]
FIELD_MM = 370.0
ABOVE_T1_MM = 34.0  # upper edge of the field
# Energy in keV and share of the detected signal behind a trunk at 120 kV and 0.1 mm Cu; declared
SPECTRUM = ((46.0, 0.22), (60.0, 0.40), (78.0, 0.26), (98.0, 0.12))
SCATTER, SCATTER_MM = 0.38, 42.0  # share of the detected signal behind a grid, and its reach; declared
PHOTONS_A_MM2 = 1.5e6  # unattenuated; declared
DETECTOR_MM = 0.35  # width of the point spread; declared
LUNG_GRAIN, LUNG_GRAIN_MM = 0.07, 2.6  # uneven filling of the lungs with air; declared
BONE_SHARE = (0.45, 0.55)  # of the mineral of ribs and arches: fixed, and growing with density (1 at 110 mg/cm3); declared
MASKED = 4  # rows and columns of a hundred that a shutter may cover at most
LIFT = 0.62  # power that raises the lungs to the gray that real displays give them; set on real pictures
GRAY_LEVELS = 4096


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


def radiograph(person: Person, *, matrix: int, view: View = "PA", is_noisy: bool = True) -> NDArray[np.uint16]:
    """Stored values of a presentation image in which bone is bright (MONOCHROME2), 12 bits; the left side lies on the right."""
    draw = person.draws("radiograph") if view == "PA" else person.draws("radiograph", view)
    pixel = FIELD_MM / matrix
    signal = detected(person, matrix=matrix, view=view, draw=draw)
    signal = ndimage.gaussian_filter(signal, DETECTOR_MM / 2.355 / pixel) if DETECTOR_MM / pixel > 0.3 else signal
    if is_noisy:
        quanta = PHOTONS_A_MM2 * pixel**2
        signal = signal + draw.standard_normal(signal.shape, dtype=np.float32) * np.sqrt(signal / quanta)
    return _displayed(signal, CURVES[person.manner], pixel=pixel, draw=draw)


def detected(person: Person, *, matrix: int, view: View, draw: np.random.Generator) -> Array:
    """Share of the unattenuated signal that each pixel gets, scatter included, without noise."""
    body, pixel = fitted(person), FIELD_MM / matrix
    rays = _rays(body, matrix=matrix, view=view, draw=draw)
    share = BONE_SHARE[0] + BONE_SHARE[1] * min(person.vbmd_mg_cm3 / 110, 1.5)
    shadow = Shadow(rays, bone_share=share)
    posture: Literal["supine", "standing"] = "standing" if view == "PA" else "supine"
    shadow.put(organs(body, posture=posture, draw=person.draws("organs")))
    bones = skeleton(body, posture=posture)
    shadow.put(bones if view != "LATERAL" else [part for part in bones if part.tissue != "spongy_bone" or part.high < 300])
    shadow.put_vertebrae(body)
    shadow.put(metal(body, person.implant))
    grain = ndimage.gaussian_filter(draw.standard_normal((matrix, matrix), dtype=np.float32), LUNG_GRAIN_MM / 2 / pixel)
    shadow.areal["muscle"] += LUNG_GRAIN * grain / max(float(grain.std()), 1e-6) * np.sqrt(shadow.lung / 150)
    through = np.zeros((matrix, matrix), dtype=np.float32)
    for kev, weight in SPECTRUM:
        path = sum(mass_attenuation(name, kev) * np.maximum(areal, 0) for name, areal in shadow.areal.items())
        through += np.float32(weight) * np.exp(-np.asarray(path, dtype=np.float32))
    scattered = ndimage.gaussian_filter(np.minimum(through, 0.3), SCATTER_MM / pixel, truncate=2)
    return np.asarray((1 - SCATTER) * through + SCATTER * scattered, dtype=np.float32)


def _rays(body: Body, *, matrix: int, view: View, draw: np.random.Generator) -> Rays:
    """The detector, with the patient a little off the middle and a little turned."""
    axis = (np.arange(matrix, dtype=np.float32) + 0.5) * np.float32(FIELD_MM / matrix)
    aside, turned, up = float(draw.uniform(-8, 8)), float(np.deg2rad(draw.normal(0, 1.5))), float(draw.uniform(-8, 8))
    turn = turned + (math.pi / 2 if view == "LATERAL" else 0.0)
    middle = FIELD_MM / 2 - (aside if view != "LATERAL" else -10.0 + aside)
    return Rays(axis - np.float32(middle), body.top("T1") + ABOVE_T1_MM + up - axis, turn)


def _displayed(signal: Array, curve: Curve, *, pixel: float, draw: np.random.Generator) -> NDArray[np.uint16]:
    """Gray values: logarithm, detail over the local mean, a sigmoid between the signal's quantiles, shutter and letter."""
    n = len(signal)
    log = -np.log(np.maximum(signal, 1e-5))
    local = ndimage.gaussian_filter(log, curve.reach_mm / pixel, truncate=2)
    log = log + np.float32(curve.detail) * (log - local)
    low, high = np.quantile(log[n // 8 : -n // 8, n // 6 : -n // 6], (0.005, 0.985))
    share = (log - low) / max(float(high - low), 1e-3)
    bent = 1 / (1 + np.exp(-curve.steep * (share - curve.turn)))
    ends = 1 / (1 + np.exp(-curve.steep * (np.array([-0.05, 1.08]) - curve.turn)))
    gray = np.clip((bent - ends[0]) / (ends[1] - ends[0]), 0, 1) ** LIFT * (GRAY_LEVELS - 1)
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
