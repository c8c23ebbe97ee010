"""From class probabilities to bodies with a level: one component a body, levels in anatomical order, a confidence each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ospor_batch.models.segmentation_classes import CLASSES, LEVELS, THORACIC_WITHOUT_LEVEL, VERTEBRAE

Array = npt.NDArray[Any]
LEAST_ML = 2.0  # smaller components are no vertebral body: T1 has about 8 ml; judgement
SKIPPED = 1.6  # times the usual distance of neighbours from which a body between them was missed; judgement
UPPER = CLASSES.index(THORACIC_WITHOUT_LEVEL)
# the chain of levels from head to foot, as long as the thoracic part can be; the upper levels share one class
CHAIN = (*(THORACIC_WITHOUT_LEVEL,) * 9, *LEVELS)
TINY = 1e-6  # probability below which a logarithm says nothing more


@dataclass(frozen=True)
class Body:
    """One vertebral body: its level and the mean probability that its voxels give to that level among vertebrae."""

    level: str
    confidence: float
    n_voxels: int


def labelled_bodies(probability: Array, *, voxel_ml: float) -> tuple[npt.NDArray[np.uint8], tuple[Body, ...]]:
    """Components of the vertebrae with their classes (0 where there is none), and what was found, from head to foot.

    probability: (class, z, y, x) by CLASSES, z towards the head. A level that the order rules out is moved to the one that
    fits its neighbours: the assignment is the best of all that keep the order.
    """
    vertebra = probability[1 : 1 + len(VERTEBRAE)]
    parts = _components(vertebra.sum(axis=0) > 0.5, least_voxels=max(3, round(LEAST_ML / voxel_ml)))
    labels = np.zeros(parts.shape, np.uint8)
    n_parts = int(parts.max(initial=0))
    if not n_parts:
        return labels, ()
    numbers = np.arange(1, n_parts + 1)
    heights = np.array([center[0] for center in ndimage.center_of_mass(parts > 0, parts, numbers)])
    places = np.array(ndimage.center_of_mass(parts > 0, parts, numbers))
    order = np.argsort(-heights, kind="stable")
    share = np.stack([_share(vertebra[:, parts == number]) for number in numbers[order]])
    chain = _in_order(share, steps=_steps(places[order]))
    found = []
    for place, number in enumerate(numbers[order]):
        level = CHAIN[chain[place]]
        inside = parts == number
        labels[inside] = CLASSES.index(level)
        found.append(Body(level, float(share[place, VERTEBRAE.index(level)]), int(inside.sum())))
    return labels, tuple(found)


def _components(is_vertebra: npt.NDArray[np.bool_], *, least_voxels: int) -> npt.NDArray[np.int32]:
    """Bodies apart: seeds where the neighbours along the spine belong too, grown back over the mask."""
    core = ndimage.binary_erosion(is_vertebra, structure=ndimage.generate_binary_structure(3, 1))
    seeds, n_seeds = ndimage.label(core)
    away, nearest = ndimage.distance_transform_edt(seeds == 0, return_indices=True)
    grown = np.where(is_vertebra & (away <= 3), seeds[tuple(nearest)], 0)
    sizes = np.bincount(grown.ravel(), minlength=n_seeds + 1)
    kept = np.flatnonzero(sizes >= least_voxels)
    table = np.zeros(n_seeds + 1, np.int32)
    table[kept[kept > 0]] = np.arange(1, int((kept > 0).sum()) + 1)
    found: npt.NDArray[np.int32] = table[grown]
    return found


def _share(of_voxels: Array) -> Array:
    """Mean probability of each vertebral class over the voxels of a body; they add up to 1."""
    mean = of_voxels.mean(axis=1)
    found: Array = mean / mean.sum()
    return found


def _steps(places: Array) -> list[int]:
    """How many levels lie between each body and the next: 1, or more where one was missed."""
    gaps = np.linalg.norm(np.diff(places, axis=0), axis=1)
    if not len(gaps):
        return []
    usual = float(np.median(gaps))
    return [max(1, round(gap / usual)) if gap > SKIPPED * usual else 1 for gap in gaps]


def _in_order(share: Array, *, steps: list[int]) -> list[int]:
    """Places in CHAIN, from head to foot, of greatest likelihood."""
    away = np.concatenate([[0], np.cumsum(steps)]).astype(int)
    likelihood = np.log(np.maximum(share, TINY))
    columns = np.array([VERTEBRAE.index(level) for level in CHAIN])
    last = len(CHAIN) - int(away[-1])
    if last < 1:
        # more bodies than a spine has: what lies at the ends is not one; the lower end is told apart best
        kept = away >= away[-1] - len(CHAIN) + 1
        inner = _in_order(share[kept], steps=[int(step) for step in np.diff(away[kept])])
        return [0] * int((~kept).sum()) + inner
    scores = [float(likelihood[np.arange(len(away)), columns[first + away]].sum()) for first in range(last)]
    first = int(np.argmax(scores))
    return [int(first + step) for step in away]
