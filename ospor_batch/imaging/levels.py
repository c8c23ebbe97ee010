"""Are the levels of a mask what they are named: order, spacing and size of neighbours, with a confidence for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ospor_batch.imaging.regions import anatomical_order
from ospor_batch.imaging.volume import Volume

# How many vertebrae each part of the spine has; a transitional one cannot be told from the mask alone
SPINE = tuple(f"{part}{n}" for part, last in (("C", 7), ("T", 12), ("L", 5)) for n in range(1, last + 1))
# Distance between the middles of neighbours in adults: 20 mm in the upper thoracic, 40 mm in the lower lumbar spine, with
# room for small and tall people; a vertebra left out doubles it
NEIGHBOUR_MM = (13.0, 52.0)
UNEVEN = 0.45  # share by which a distance may differ from the median of its neighbours, per level
SIZE_FOLD = 2.2  # ratio of the volumes of neighbours that are whole
LEAST_CONFIDENCE = 0.5  # below it a level is doubtful; judgement


@dataclass(frozen=True)
class Level:
    """One labelled vertebra.

    center: LPS mm. confidence: 1 where order, distance and size agree with all its neighbours in the mask, less for each
    that does not; 0.5 where it has no neighbour to be held against. doubts: out_of_order, distance, size, alone, in_pieces.
    """

    name: str
    center: npt.NDArray[np.float64]
    volume_ml: float
    is_cut: bool
    confidence: float
    doubts: tuple[str, ...]


def judged_levels(volume: Volume, labels: npt.NDArray[np.int32], *, levels: Mapping[str, int]) -> tuple[Level, ...]:
    """Judge every level that has voxels, from head to foot, by its neighbours."""
    found = []
    for name in sorted((n for n in levels if n in SPINE), key=anatomical_order):
        index = np.argwhere(labels == levels[name])
        if len(index):
            center = volume.affine[:3, :3] @ index.mean(axis=0) + volume.affine[:3, 3]
            is_cut = bool(index[:, 0].min() == 0 or index[:, 0].max() == len(labels) - 1)
            found.append(Level(name, center, len(index) * volume.voxel_ml, is_cut, 1.0, _own_doubts(index, volume)))
    per_level = [float(np.linalg.norm(a.center - b.center)) / _apart(a, b) for a, b in pairwise(found)]
    usual = float(np.median(per_level)) if per_level else 0.0
    return tuple(_judged(found, at, usual_mm=usual) for at in range(len(found)))


def _judged(found: list[Level], at: int, *, usual_mm: float) -> Level:
    one, doubts, n_neighbours = found[at], list(found[at].doubts), 0
    for other in found[max(0, at - 1) : at] + found[at + 1 : at + 2]:
        n_neighbours += 1
        doubts += _doubts(one, other, usual_mm=usual_mm, is_few=len(found) < 3)
    if not n_neighbours:
        doubts.append("alone")
    told = tuple(dict.fromkeys(doubts))
    confidence = max(0.0, 1 - 0.5 * len(told))
    return Level(one.name, one.center, one.volume_ml, one.is_cut, confidence, told)


def _doubts(one: Level, other: Level, *, usual_mm: float, is_few: bool) -> list[str]:
    found = []
    is_below = anatomical_order(other.name) > anatomical_order(one.name)
    if (other.center[2] < one.center[2]) != is_below:
        found.append("out_of_order")
    distance = float(np.linalg.norm(one.center - other.center)) / _apart(one, other)
    is_uneven = not is_few and abs(distance / usual_mm - 1) > UNEVEN
    if not NEIGHBOUR_MM[0] <= distance <= NEIGHBOUR_MM[1] or is_uneven:
        found.append("distance")
    if not (one.is_cut or other.is_cut) and max(one.volume_ml, other.volume_ml) > SIZE_FOLD ** _apart(one, other) * min(
        one.volume_ml, other.volume_ml
    ):
        found.append("size")
    return found


def _own_doubts(index: npt.NDArray[np.int64], volume: Volume) -> tuple[str, ...]:
    """in_pieces when a slice between the first and the last holds nothing, as two vertebrae under one label leave it."""
    held = np.unique(index[:, 0])
    gaps = np.diff(held) - 1
    return ("in_pieces",) if len(gaps) and gaps.max() * volume.spacing[0] > 3.0 else ()  # mm: more than an end-plate


def _apart(one: Level, other: Level) -> int:
    return abs(SPINE.index(one.name) - SPINE.index(other.name))


def level_flags(judged: tuple[Level, ...]) -> tuple[str, ...]:
    """``level_uncertain:L1`` for every level below LEAST_CONFIDENCE, from head to foot."""
    return tuple(f"level_uncertain:{level.name}" for level in judged if level.confidence < LEAST_CONFIDENCE)
