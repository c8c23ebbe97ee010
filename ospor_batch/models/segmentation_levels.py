"""From what the network says to bodies with a level: one component a body, levels in anatomical order, a confidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.sparse.csgraph import connected_components

from ospor_batch.models.segmentation_classes import DISC, LEVELS, RIB, SACRUM, STRUCTURES
from ospor_batch.models.segmentation_landmarks import Landmark, landmarks
from ospor_batch.models.segmentation_parting import parted

Array = npt.NDArray[Any]
LEAST_ML = 2.0  # smaller components are no vertebral body: T1 has about 8 ml; judgement
DEEP_MM = 4.0  # bodies that hang together by less than twice this are two: half the height of T1 is 8 mm; judgement
GROWN_MM = 12.0  # how far a body reaches from its deep part; judgement
# Between the centers of neighbours, one body missed, and their way up as a share of it; judgement
NEIGHBOUR_MM, NEIGHBOUR_SLOPE = 75.0, 0.4
# From the line between the bodies above and below, sideways and to the front, from which a component is none of the column:
# the next bodies of a bent spine lie 8 mm off it; judgement
OFF_LINE_MM = 25.0
SPLINTER = 0.2  # of the usual size, below which a component is no body of its own; T1 has a third of it; judgement
SKIPPED = 1.6  # times the usual distance of neighbours from which a body between them was missed; judgement
LEAST_SPREAD = 0.3  # levels: no body is surer of its number than this; judgement
MOST_SAY = 3.0  # bodies that all of them together count as beside a landmark; judgement
# Chance of the place that a landmark tells, beside the likeliest by what the bodies say, below which the two contradict each
# other and neither is believed; judgement
LEAST_ROOM = 0.1
# Chance of the likeliest place, below which nothing is counted: a sacrum that leaves L5 and S1 once shifted a whole spine at
# a chance of 0.55; judgement
LEAST_SURE = 0.8
# Levels from the nearest landmark within which a level is counted: upper thoracic bodies run into one another, and one that is
# missed shifts all beyond it; judgement
FARTHEST = 6
# Times the larger of its two neighbours from which a component is two bodies or more, whose levels nobody knows: T5 to T7 of a
# chest once were one; judgement
JOINED = 1.7
TOGETHER = 0.5  # weight of each body's say: neighbours err together, since their windows overlap; judgement


@dataclass(frozen=True)
class Body:
    """One vertebral body.

    confidence: how likely the chain of bodies begins where it was named to begin, and not a level or more off; the bodies
    of one volume are named together. counted_from: rib, sacrum; empty where neither was in view, where the
    bodies contradict them, or where two places are nearly as likely.
    """

    level: str
    confidence: float
    n_voxels: int
    counted_from: tuple[str, ...] = ()


def labelled_bodies(
    is_vertebra: Array, place: Array, spread: Array, *, spacing_mm: float, others: Mapping[str, Array] | None = None
) -> tuple[npt.NDArray[np.uint8], tuple[Body, ...]]:
    """Components of the vertebrae by place in STRUCTURES (0 where there is none), and what was found, from head to foot.

    is_vertebra: probability (z, y, x), z towards the head; others: those of disc, rib and sacrum, or none. place, spread: what
    the network says of the level, T1 being 0, and how far it may lie off. Each body is the next level of the one above it, so
    that the bodies together, and what can be counted from, decide where the chain begins; too far from that there is none.
    """
    parts = _components(is_vertebra > 0.5, spacing_mm=spacing_mm)
    parts = parted(parts, is_vertebra - others[DISC] if others else is_vertebra, spacing_mm=spacing_mm)
    numbers = np.arange(1, int(parts.max(initial=0)) + 1)
    labels = np.zeros(parts.shape, np.uint8)
    if not len(numbers):
        return labels, ()
    centers = np.array(ndimage.center_of_mass(parts > 0, parts, numbers)) * spacing_mm
    kept = _column(centers, np.bincount(parts.ravel())[1:])
    kept = _in_line(centers, kept[np.argsort(-centers[kept, 0], kind="stable")])
    inside = [parts == numbers[one] for one in kept]
    said, apart = (np.array([float(np.median(of[one])) for one in inside]) for of in (place, spread))
    away = np.concatenate([[0], np.cumsum(_steps(centers[kept]))]).astype(int)
    seen = landmarks(centers[kept], rib=others[RIB], sacrum=others[SACRUM], spacing_mm=spacing_mm) if others else []
    first, confidence, is_agreed = _chain(said - away, apart, seen=[(one, int(away[one.body])) for one in seen])
    counted_from = tuple(one.name for one in seen) if is_agreed else ()
    is_counted = _counted(away, [int(one.sum()) for one in inside], seen=[one.body for one in seen])
    found = []
    for step, can_count, one in zip(away, is_counted, inside, strict=True):
        level = first + int(step)
        if 0 <= level < len(LEVELS) and can_count:  # beyond a spine's ends there is no body
            labels[one] = STRUCTURES.index(LEVELS[level])
            found.append(Body(LEVELS[level], confidence, int(one.sum()), counted_from))
    return labels, tuple(found)


def _counted(away: Array, sizes: Sequence[int], *, seen: Sequence[int]) -> list[bool]:
    """Whether a landmark is near enough to each body, with none missed or joined on the way to it; true without landmarks."""
    joined = [
        number
        for number, size in enumerate(sizes)
        if 0 < number < len(sizes) - 1 and size > JOINED * max(sizes[number - 1], sizes[number + 1])
    ]

    def reaches(number: int, landmark: int) -> bool:
        low, high = sorted((number, landmark))
        is_near = abs(int(away[number] - away[landmark])) in range(min(FARTHEST, high - low) + 1)  # and none was missed
        return is_near and not any(low <= one <= high and one != landmark for one in joined)

    return [not seen or any(reaches(number, landmark) for landmark in seen) for number in range(len(sizes))]


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


def _in_line(centers: Array, ordered: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """The components, from head to foot, less those that lie far off the line between their neighbours, the worst first.

    A part of the heart or of the sternum beside a column would shift the levels of one side of it.
    """
    while len(ordered) > 2:
        above, at, below = (centers[ordered[first : len(ordered) - 2 + first]] for first in range(3))
        share = (above[:, :1] - at[:, :1]) / np.maximum(above[:, :1] - below[:, :1], 1e-6)
        off = np.linalg.norm((at - above - share * (below - above))[:, 1:], axis=1)
        if off.max() <= OFF_LINE_MM:
            break
        ordered = np.delete(ordered, int(off.argmax()) + 1)
    return ordered


def _steps(centers: Array) -> list[int]:
    """How many levels lie between each body and the next: 1, or more where one was missed."""
    gaps = np.linalg.norm(np.diff(centers, axis=0), axis=1)
    if not len(gaps):
        return []
    usual = float(np.median(gaps))
    return [max(1, round(gap / usual)) if gap > SKIPPED * usual else 1 for gap in gaps]


def _chain(said: Array, spread: Array, *, seen: Sequence[tuple[Landmark, int]] = ()) -> tuple[int, float, bool]:
    """Where the chain begins (T1 being 0) by what each body says of it, and how likely that is against all other places.

    Last, whether what the bodies say leaves room for that place, and it is likely enough to be handed out. seen: landmarks,
    with how many levels below the first body the one lies that they tell of.
    """
    places = np.arange(-2, len(LEVELS) + 2)
    say = TOGETHER * (min(1.0, MOST_SAY / len(said)) if seen else 1.0)
    likely = -say * (np.abs(said - places[:, None]) / np.maximum(spread, LEAST_SPREAD)).sum(axis=1)
    room = likely - likely.max() > np.log(LEAST_ROOM)
    for landmark, away in seen:
        low, high = landmark.places
        off = np.maximum(np.maximum(low - away - places, places + away - high), 0)
        likely -= off / landmark.spread
    chance = np.exp(likely - likely.max())
    best = int(chance.argmax())
    sure = float(chance[best] / chance.sum())
    return int(places[best]), sure, bool(room[best]) and sure >= LEAST_SURE
