"""Each limit of the geometry of a stack is held from both sides."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ospor_batch.catalog.geometry import Stack, measure

AXIAL = [1.0, 0, 0, 0, 1, 0]


def stacked(*heights: float, cosines: list[float] | None = None, across: float = 0.0) -> Stack:
    """Slices at heights; across: mm to the side for each mm of height."""
    positions = np.array([[0, across * z, z] for z in heights], float)
    return measure(positions, np.array([cosines or AXIAL] * len(heights), float))


def turned(degrees: float) -> list[float]:
    """The columns of an axial slice leant to the front, as disc-parallel slices are."""
    return [1, 0, 0, 0, math.cos(math.radians(degrees)), math.sin(math.radians(degrees))]


@pytest.mark.parametrize(
    ("heights", "findings", "n_missing"),
    [
        ((0, 5, 10, 15, 20), set(), 0),
        # nearer than 0.01 mm is one place
        ((0, 5, 5.005, 10, 15), {"duplicate_position"}, 0),
        ((0, 5, 5.02, 10, 15), {"uneven_spacing"}, 0),
        # a tenth of the spacing off the grid
        ((0, 5, 10.3, 15, 20), set(), 0),
        ((0, 5, 11, 15, 20), {"uneven_spacing"}, 0),
        # a gap of nearly whole slices is slices that are missing; any other is a spacing that changes
        ((0, 5, 15, 20, 25), {"missing_slice"}, 1),
        ((0, 5, 10, 20.75, 25.75, 30.75), {"missing_slice"}, 1),
        ((0, 5, 10, 22.2, 27.2, 32.2), {"uneven_spacing"}, 0),
        ((0, 5, 20, 25), {"missing_slice"}, 2),
    ],
)
def test_places_along_the_normal(heights: tuple[float, ...], findings: set[str], n_missing: int) -> None:
    found = stacked(*heights)
    assert set(found.findings) >= findings
    assert {"duplicate_position", "missing_slice"} & set(found.findings) == findings - {"uneven_spacing"}
    assert ("uneven_spacing" in found.findings) == ("uneven_spacing" in findings) or n_missing
    assert found.n_missing == n_missing


@pytest.mark.parametrize(("degrees", "plane"), [(0, "axial"), (20, "axial"), (25, "axial"), (30, "oblique"), (70, "coronal")])
def test_disc_parallel_slices_are_axial_and_steeper_ones_oblique(degrees: float, plane: str) -> None:
    assert stacked(0, 5, 10, cosines=turned(degrees)).orientation == plane


@pytest.mark.parametrize(("degrees", "is_tilted"), [(0.4, False), (0.6, True), (15, True)])
def test_a_step_aside_of_more_than_half_a_degree_is_a_tilt(degrees: float, *, is_tilted: bool) -> None:
    found = stacked(0, 5, 10, across=math.tan(math.radians(degrees)))
    assert found.tilt_deg == pytest.approx(degrees, abs=1e-4)
    assert ("tilted" in found.findings) is is_tilted


@pytest.mark.parametrize(("off", "is_mixed"), [(5e-4, False), (2e-3, True)])
def test_cosines_may_differ_by_rounding_alone(off: float, *, is_mixed: bool) -> None:
    cosines = np.array([AXIAL, AXIAL, [1, off, 0, -off, 1, 0]], float)
    found = measure(np.array([[0, 0, z] for z in (0, 5, 10)], float), cosines)
    assert ("mixed_orientation" in found.findings) is is_mixed
