"""What tells levels from outside the bodies: ribs, which end with T12, and the sacrum, which lies below L5 and beside S1."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ospor_batch.models.segmentation_classes import LEVELS, RIB, SACRUM

Array = npt.NDArray[Any]
T12, L5, S1 = (LEVELS.index(level) for level in ("T12", "L5", "S1"))
# Where the neck of a rib lies from the middle of its body: to either side, to the front (below 0) and the back, and up and
# down as a share of the way to the next body. A transverse process lies there too: it is no rib to the network; judgement
BESIDE_MM, BEHIND_MM, UP_AND_DOWN = (18.0, 45.0), (-10.0, 45.0), 0.4
IN_VIEW = 0.5  # of the way to the next body: nearer to the last slice, a body may have its ribs beyond it; judgement
NO_BODY_BETWEEN = 1.6  # times the usual way, from which a body was missed that may have had the last ribs; judgement
# On each side; a neck of 25 mm has 2 ml, of which a network finds 0.5 in a real T12, and 0.2 in transverse processes; judgement
LEAST_RIB_ML = 0.4
USUAL_MM = 32.0  # from body to body, where there is one alone; T12 to L3 in adults
# Where the sacrum lies from the middle of the last body: down (and up), and to either side; judgement
BELOW_MM, ASIDE_MM, LEAST_SACRUM_ML = (70.0, 25.0), 60.0, 6.0
# The wings of the sacrum begin beside S1, 24 mm of sacrum on each side of it and none beside L5, whose next ones lie half a
# body lower: from its middle to either side, to the front (below 0) and the back, and up and down as a share of the way to
# the next body; textbook, rounded. Of the 20 ml of a wing; judgement
WING_MM, WING_BEHIND_MM, WING_UP, LEAST_WING_ML = (20.0, 60.0), (-15.0, 45.0), 0.35, 2.0
MOST_AMISS = 0.2  # share of bodies with a rib below one without, or the reverse, from which ribs tell nothing; judgement
# Levels; so small that a landmark overrules what the bodies say, and yet a network that is sure of another level takes from
# the confidence: a lumbar rib and a missing twelfth are each found in some percent of people; judgement
SPREAD = {RIB: 0.15, SACRUM: 0.12}


@dataclass(frozen=True)
class Landmark:
    """Which body (from head to foot, 0 being the first) must be at one of the places, T1 being 0, and how sure that is."""

    name: str
    body: int
    places: tuple[int, int]
    spread: float


def landmarks(centers: Array, *, rib: Array, sacrum: Array, spacing_mm: float) -> list[Landmark]:
    """Landmarks in view of a chain of bodies.

    centers: of the bodies in mm (z, y, x) from head to foot. rib, sacrum: probabilities (z, y, x). The last rib is known where
    a body without ribs follows one that has some.
    """
    found = []
    last = _last_with_rib(centers, rib, spacing_mm=spacing_mm)
    if last is not None:
        found.append(Landmark(RIB, last, (T12, T12), SPREAD[RIB]))
    z, y, x = centers[-1]
    below = ((z - BELOW_MM[0], z + BELOW_MM[1]), (y - ASIDE_MM, y + 2 * ASIDE_MM), (x - ASIDE_MM, x + ASIDE_MM))
    if _ml(sacrum, [below], spacing_mm) >= LEAST_SACRUM_ML:
        winged = _first_with_wings(centers, sacrum, spacing_mm=spacing_mm)
        body, places = (len(centers) - 1, (L5, S1)) if winged is None else (winged, (S1, S1))
        found.append(Landmark(SACRUM, body, places, SPREAD[SACRUM]))
    return found


Span = tuple[float, float]
Box = tuple[Span, Span, Span]  # mm along z, y, x


def _beside(centers: Array, *, aside: Span, behind: Span, up_and_down_mm: float) -> Iterator[list[Box]]:
    """A place on each side of each body, so far from its middle."""
    for z, y, x in centers:
        high, deep = (z - up_and_down_mm, z + up_and_down_mm), (y + behind[0], y + behind[1])
        yield [(high, deep, (x - aside[1], x - aside[0])), (high, deep, (x + aside[0], x + aside[1]))]


def _usual(centers: Array) -> float:
    """Millimetres from body to body."""
    gaps = np.linalg.norm(np.diff(centers, axis=0), axis=1)
    return float(np.median(gaps)) if len(gaps) else USUAL_MM


def _first_with_wings(centers: Array, sacrum: Array, *, spacing_mm: float) -> int | None:
    """The uppermost body with a wing of the sacrum on each side, which is S1 (S2 has some too); null where there is none."""
    places = _beside(centers, aside=WING_MM, behind=WING_BEHIND_MM, up_and_down_mm=WING_UP * _usual(centers))
    wings = (min(_ml(sacrum, [box], spacing_mm) for box in boxes) for boxes in places)
    return next((number for number, ml in enumerate(wings) if ml >= LEAST_WING_ML), None)


def _ml(probability: Array, boxes: list[Box], spacing_mm: float) -> float:
    """Volume of what is likelier than not inside boxes."""
    n = 0
    for box in boxes:
        where = tuple(slice(max(0, round(low / spacing_mm)), max(0, round(high / spacing_mm) + 1)) for low, high in box)
        n += int((probability[where] > 0.5).sum())
    return n * spacing_mm**3 / 1000


def _last_with_rib(centers: Array, rib: Array, *, spacing_mm: float) -> int | None:
    """The last body with ribs; null where all or none have some, where they come and go, or where they may be out of view."""
    gaps, usual = np.linalg.norm(np.diff(centers, axis=0), axis=1), _usual(centers)
    ends, known = [n * spacing_mm for n in rib.shape], []
    places = _beside(centers, aside=BESIDE_MM, behind=BEHIND_MM, up_and_down_mm=UP_AND_DOWN * usual)
    for number, (center, boxes) in enumerate(zip(centers, places, strict=True)):
        has_rib = min(_ml(rib, [box], spacing_mm) for box in boxes) >= LEAST_RIB_ML
        is_in_view = center[0] >= IN_VIEW * usual and boxes[0][2][0] >= 0 and boxes[1][2][1] <= ends[2]
        if has_rib or is_in_view:
            known.append((number, has_rib))
    has = [one for _, one in known]
    amiss = [sum(not one for one in has[: last + 1]) + sum(has[last + 1 :]) for last in range(len(has) - 1)]
    if not amiss or not any(has) or all(has):
        return None
    best = int(np.argmin(amiss))
    (last, is_last), (following, _) = known[best : best + 2]
    is_next = following == last + 1 and gaps[last] <= NO_BODY_BETWEEN * usual
    return last if is_last and is_next and amiss[best] <= MOST_AMISS * len(has) else None
