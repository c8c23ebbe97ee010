"""The geometry of a stack of slices: order, spacing, gaps, tilt and plane, from positions and orientations."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

SAME_DIRECTION = 1e-3  # cosines of one series differ by rounding only
UNIT_LENGTH = 1e-2  # how far from length 1 and from a right angle cosines may be
SAME_PLACE_MM = 1e-2  # two slices nearer than this share a position
UNEVEN = 0.1  # share of the spacing that a slice may stand off the even grid
GAP = 0.2  # share of the spacing by which a gap may differ from whole slices; else the spacing itself changes
PLANE = 0.9  # cosine of 26 degrees: gantry tilt and disc-parallel slices are still axial
TILT_DEG = 0.5  # beyond rounding of positions
DIGITS = 6  # a nanometer: beyond it stands the noise of the last bits
PLANES = ("sagittal", "coronal", "axial")
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Stack:
    """What the positions say; order is the place of every slice, None where positions do not give one.

    Spacing, extent, start and end (first and last slice center) in mm along the normal, tilt in degrees; null where there
    are too few slices.
    """

    orientation: str = "unknown"
    order: tuple[int, ...] | None = None
    spacing_mm: float | None = None
    extent_mm: float | None = None
    tilt_deg: float | None = None
    n_missing: int = 0
    n_duplicate: int = 0
    findings: tuple[str, ...] = field(default=())
    start_mm: float | None = None
    end_mm: float | None = None


def measure(positions: Floats, orientations: Floats) -> Stack:
    """Measure a stack of n slices: positions (n, 3) in mm, orientations (n, 6) as row and column cosines; NaN: unknown."""
    if len(orientations) == 0 or np.isnan(orientations).any():
        return Stack(findings=("position_missing",))
    typical = np.median(orientations, axis=0)
    normal = np.cross(typical[:3], typical[3:])
    plane = _plane(normal)
    if np.abs(orientations - typical).max() > SAME_DIRECTION:
        return Stack(orientation=plane, findings=("mixed_orientation",))
    if not _is_orthonormal(typical):
        return Stack(orientation=plane, findings=("orientation_invalid",))
    if np.isnan(positions).any():
        return Stack(orientation=plane, findings=("position_missing",))
    return _along(positions, normal, plane=plane)


def _plane(normal: Floats) -> str:
    axis = int(np.argmax(np.abs(normal)))
    return PLANES[axis] if abs(normal[axis]) >= PLANE else "oblique"


def _is_orthonormal(cosines: Floats) -> bool:
    rows, columns = cosines[:3], cosines[3:]
    lengths = abs(np.linalg.norm(rows) - 1) < UNIT_LENGTH and abs(np.linalg.norm(columns) - 1) < UNIT_LENGTH
    return bool(lengths and abs(rows @ columns) < UNIT_LENGTH)


def _along(positions: Floats, normal: Floats, *, plane: str) -> Stack:
    along = positions @ normal
    order = np.argsort(along, kind="stable")
    steps = np.diff(along[order])
    is_new = np.concatenate([[True], steps > SAME_PLACE_MM])
    n_duplicate = int((~is_new).sum())
    places = order[is_new]
    findings = ["duplicate_position"] if n_duplicate else []
    rank = tuple(int(place) for place in np.argsort(order, kind="stable"))
    if len(places) < 2:
        return Stack(plane, rank, n_duplicate=n_duplicate, findings=tuple(findings))
    spacing, n_missing, is_even = _spacing(along[places])
    travelled = positions[places[-1]] - positions[places[0]]
    cosine = abs(travelled @ normal) / np.linalg.norm(travelled)
    tilt = float(np.degrees(np.arccos(min(cosine, 1.0))))
    findings += ["missing_slice"] * (n_missing > 0) + ["uneven_spacing"] * (not is_even) + ["tilted"] * (tilt > TILT_DEG)
    extent = float(along[places[-1]] - along[places[0]]) + spacing
    spacing, extent, tilt = (round(value, DIGITS) for value in (spacing, extent, tilt))
    start, end = (round(float(along[place]), DIGITS) for place in (places[0], places[-1]))
    return Stack(plane, rank, spacing, extent, tilt, n_missing, n_duplicate, tuple(findings), start, end)


def _spacing(places: Floats) -> tuple[float, int, bool]:
    """Median step, slices missing between neighbours, and whether all stand on one even grid."""
    steps = np.diff(places)
    # the lower median: of two steps, one of which spans a gap, the shorter is the spacing
    spacing = float(np.percentile(steps, 50, method="lower"))
    slots = np.maximum(np.rint(steps / spacing), 1)
    is_gap = (slots > 1) & (np.abs(steps / spacing - slots) <= GAP)
    at = np.concatenate([[0.0], np.cumsum(slots)])
    slope, start = np.polyfit(at, places, 1)
    off = np.abs(places - (start + slope * at)).max()
    return spacing, int((slots - 1)[is_gap].sum()), bool(off <= UNEVEN * spacing)
