"""From what the network says to bodies with a level: one component a body, levels in anatomical order, a confidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.sparse.csgraph import connected_components

from ospor_batch.models.segmentation_classes import LEVELS, STRUCTURES

Array = npt.NDArray[Any]
LEAST_ML = 2.0  # smaller components are no vertebral body: T1 has about 8 ml; judgement
DEEP_MM = 4.0  # bodies that hang together by less than twice this are two: half the height of T1 is 8 mm; judgement
GROWN_MM = 12.0  # how far a body reaches from its deep part; judgement
# Between the centers of neighbours, one body missed, and their way up as a share of it; judgement
NEIGHBOUR_MM, NEIGHBOUR_SLOPE = 75.0, 0.4
SPLINTER = 0.2  # of the usual size, below which a component is no body of its own; T1 has a third of it; judgement
SKIPPED = 1.6  # times the usual distance of neighbours from which a body between them was missed; judgement
LEAST_SPREAD = 0.3  # levels: no body is surer of its number than this; judgement
TOGETHER = 0.5  # weight of each body's say: neighbours err together, since their windows overlap; judgement


@dataclass(frozen=True)
class Body:
    """One vertebral body.

    confidence: how likely the chain of bodies begins where it was named to begin, and not a level or more off; the bodies
    of one volume are named together.
    """

    level: str
    confidence: float
    n_voxels: int


def labelled_bodies(
    is_vertebra: Array, place: Array, spread: Array, *, spacing_mm: float
) -> tuple[npt.NDArray[np.uint8], tuple[Body, ...]]:
    """Components of the vertebrae by place in STRUCTURES (0 where there is none), and what was found, from head to foot.

    is_vertebra: probability (z, y, x), z towards the head. place, spread: what the network says of the level, T1 being 0,
    and how far it may lie off. Each body is the next level of the one above it, so that the bodies together decide where
    the chain begins.
    """
    parts = _components(is_vertebra > 0.5, spacing_mm=spacing_mm)
    numbers = np.arange(1, int(parts.max(initial=0)) + 1)
    labels = np.zeros(parts.shape, np.uint8)
    if not len(numbers):
        return labels, ()
    centers = np.array(ndimage.center_of_mass(parts > 0, parts, numbers)) * spacing_mm
    kept = _column(centers, np.bincount(parts.ravel())[1:])
    kept = kept[np.argsort(-centers[kept, 0], kind="stable")]
    inside = [parts == numbers[one] for one in kept]
    said, apart = (np.array([float(np.median(of[one])) for one in inside]) for of in (place, spread))
    away = np.concatenate([[0], np.cumsum(_steps(centers[kept]))]).astype(int)
    first, confidence = _chain(said - away, apart)
    found = []
    for step, one in zip(away, inside, strict=True):
        level = first + int(step)
        if 0 <= level < len(LEVELS):  # beyond a spine's ends there is no body
            labels[one] = STRUCTURES.index(LEVELS[level])
            found.append(Body(LEVELS[level], confidence, int(one.sum())))
    return labels, tuple(found)


def _components(is_vertebra: npt.NDArray[np.bool_], *, spacing_mm: float) -> npt.NDArray[np.int32]:
    """Bodies apart: seeds deep within, grown back over the mask; what is too small to be a body leaves."""
    depth = ndimage.distance_transform_edt(np.pad(is_vertebra, 1, mode="edge"))[1:-1, 1:-1, 1:-1]  # a cut face is no border
    seeds, n_seeds = ndimage.label(depth * spacing_mm > DEEP_MM)
    if not n_seeds:
        return np.zeros(is_vertebra.shape, np.int32)
    away, nearest = ndimage.distance_transform_edt(seeds == 0, return_indices=True)
    grown = np.where(is_vertebra & (away * spacing_mm <= GROWN_MM), seeds[tuple(nearest)], 0)
    sizes = np.bincount(grown.ravel(), minlength=n_seeds + 1)
    kept = np.flatnonzero(sizes * spacing_mm**3 / 1000 >= LEAST_ML)
    kept = kept[kept > 0]
    table = np.zeros(n_seeds + 1, np.int32)
    table[kept] = np.arange(1, len(kept) + 1)
    found: npt.NDArray[np.int32] = table[grown]
    return found


def _column(centers: Array, sizes: Array) -> npt.NDArray[np.intp]:
    """The components that follow one another as vertebrae do, the largest such group; heads of femurs and the like leave.

    Splinters of a body leave too: counted as bodies they would shift all levels below them.
    """
    apart = centers[:, None] - centers[None, :]
    distance = np.linalg.norm(apart, axis=-1)
    follows = (distance < NEIGHBOUR_MM) & (np.abs(apart[..., 0]) >= NEIGHBOUR_SLOPE * distance)
    _, group = connected_components(follows, directed=False)
    found: npt.NDArray[np.intp] = np.flatnonzero(group == np.bincount(group, weights=sizes).argmax())
    ordered = np.sort(sizes[found])
    usual = ordered[np.searchsorted(ordered.cumsum(), ordered.sum() / 2)]  # half of all voxels lie in larger ones
    kept: npt.NDArray[np.intp] = found[sizes[found] >= SPLINTER * usual]
    return kept


def _steps(centers: Array) -> list[int]:
    """How many levels lie between each body and the next: 1, or more where one was missed."""
    gaps = np.linalg.norm(np.diff(centers, axis=0), axis=1)
    if not len(gaps):
        return []
    usual = float(np.median(gaps))
    return [max(1, round(gap / usual)) if gap > SKIPPED * usual else 1 for gap in gaps]


def _chain(said: Array, spread: Array) -> tuple[int, float]:
    """Where the chain begins (T1 being 0) by what each body says of it, and how likely that is against all other places."""
    places = np.arange(-2, len(LEVELS) + 2)
    likely = -TOGETHER * (np.abs(said - places[:, None]) / np.maximum(spread, LEAST_SPREAD)).sum(axis=1)
    chance = np.exp(likely - likely.max())
    best = int(chance.argmax())
    return int(places[best]), float(chance[best] / chance.sum())
