"""From what the network says to bodies with a level: one component a body, levels in anatomical order, a confidence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ospor_batch.models.segmentation_classes import LEVELS, STRUCTURES

Array = npt.NDArray[Any]
LEAST_ML = 2.0  # smaller components are no vertebral body: T1 has about 8 ml; judgement
SKIPPED = 1.6  # times the usual distance of neighbours from which a body between them was missed; judgement
MODEL_ERROR = 0.3  # levels: error that all bodies of one volume share, which no mean takes away; judgement
LEAST_ERROR = 0.2  # levels: spread below which bodies cannot be said to agree
NEIGHBOURS = ndimage.generate_binary_structure(3, 1)


@dataclass(frozen=True)
class Body:
    """One vertebral body. confidence: chance that the chain of bodies is not named one level off, from how far the network's
    numbers lie from whole ones and from each other; the bodies of one volume are named together.
    """

    level: str
    confidence: float
    n_voxels: int


def labelled_bodies(is_vertebra: Array, place: Array, *, voxel_ml: float) -> tuple[npt.NDArray[np.uint8], tuple[Body, ...]]:
    """Components of the vertebrae by place in STRUCTURES (0 where there is none), and what was found, from head to foot.

    is_vertebra: probability (z, y, x), z towards the head. place: what the network says of the level, T1 being 0. Each body
    is the next level of the one above it, so that the bodies together decide where the chain begins.
    """
    parts = _components(is_vertebra > 0.5, least_voxels=max(3, round(LEAST_ML / voxel_ml)))
    labels = np.zeros(parts.shape, np.uint8)
    n_parts = int(parts.max(initial=0))
    if not n_parts:
        return labels, ()
    numbers = np.arange(1, n_parts + 1)
    centers = np.array(ndimage.center_of_mass(parts > 0, parts, numbers))
    order = np.argsort(-centers[:, 0], kind="stable")
    said = np.array([float(np.median(place[parts == number])) for number in numbers[order]])
    away = np.concatenate([[0], np.cumsum(_steps(centers[order]))]).astype(int)
    first, confidence = _chain(said, away)
    found = []
    for step, number in zip(away, numbers[order], strict=True):
        level = first + int(step)
        if 0 <= level < len(LEVELS):  # beyond a spine's ends there is no body
            inside = parts == number
            labels[inside] = STRUCTURES.index(LEVELS[level])
            found.append(Body(LEVELS[level], confidence, int(inside.sum())))
    return labels, tuple(found)


def _components(is_vertebra: npt.NDArray[np.bool_], *, least_voxels: int) -> npt.NDArray[np.int32]:
    """Bodies apart: seeds where the neighbours belong too, grown back over the mask."""
    seeds, n_seeds = ndimage.label(ndimage.binary_erosion(is_vertebra, structure=NEIGHBOURS))
    if not n_seeds:
        return np.zeros(is_vertebra.shape, np.int32)
    away, nearest = ndimage.distance_transform_edt(seeds == 0, return_indices=True)
    grown = np.where(is_vertebra & (away <= 3), seeds[tuple(nearest)], 0)
    sizes = np.bincount(grown.ravel(), minlength=n_seeds + 1)
    kept = np.flatnonzero(sizes >= least_voxels)
    table = np.zeros(n_seeds + 1, np.int32)
    table[kept[kept > 0]] = np.arange(1, int((kept > 0).sum()) + 1)
    found: npt.NDArray[np.int32] = table[grown]
    return found


def _steps(centers: Array) -> list[int]:
    """How many levels lie between each body and the next: 1, or more where one was missed."""
    gaps = np.linalg.norm(np.diff(centers, axis=0), axis=1)
    if not len(gaps):
        return []
    usual = float(np.median(gaps))
    return [max(1, round(gap / usual)) if gap > SKIPPED * usual else 1 for gap in gaps]


def _chain(said: Array, away: Array) -> tuple[int, float]:
    """Where the chain begins (T1 being 0), and the chance that this is not one off."""
    apart = said - away
    middle = float(np.median(apart))
    first = round(middle)
    spread = max(LEAST_ERROR, float(np.std(apart))) / math.sqrt(len(apart))
    error = math.hypot(MODEL_ERROR, spread)
    off = middle - first
    return first, _normal((0.5 - off) / error) - _normal((-0.5 - off) / error)


def _normal(z: float) -> float:
    return 0.5 * (1 + math.erf(z / math.sqrt(2)))
