"""Small cells: what is withheld keeps every small count uncertain over all sums, whatever the table."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ospor_batch.evaluation.suppression import Cells, bounds_of, is_small, rounded, withheld_cells

SMALLEST = 5


def two_way(counts: np.ndarray) -> Cells:
    """A table with its row, column and grand totals, all printed."""
    cells = Cells()
    inner = {at: cells.add(("cell", *at), int(counts[at])) for at in itertools.product(*map(range, counts.shape))}
    totals = [cells.add(("row", i), int(counts[i].sum())) for i in range(counts.shape[0])]
    columns = [cells.add(("column", j), int(counts[:, j].sum())) for j in range(counts.shape[1])]
    whole = cells.add(("all",), int(counts.sum()))
    for i, total in enumerate(totals):
        cells.adds_up([inner[i, j] for j in range(counts.shape[1])], total)
    for j, total in enumerate(columns):
        cells.adds_up([inner[i, j] for i in range(counts.shape[0])], total)
    cells.adds_up(totals, whole)
    cells.adds_up(columns, whole)
    return cells


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, 40), min_size=3, max_size=3), min_size=2, max_size=4))
def test_no_small_cell_can_be_narrowed(rows: list[list[int]]) -> None:
    counts = np.array(rows)
    cells = two_way(counts)
    hidden = withheld_cells(cells, smallest=SMALLEST)
    small = {i for i, value in enumerate(cells.values) if is_small(value, SMALLEST)}
    assert small <= hidden
    found = bounds_of(cells.values, cells.relations, hidden=hidden)
    is_enough_people = counts.sum() >= 4 * SMALLEST
    for i in small:
        low, high = found[i]
        assert low - 1e-6 <= cells.values[i] <= high + 1e-6
        assert high - low >= SMALLEST - 1e-5 or not is_enough_people


def test_nothing_is_withheld_where_nothing_is_small() -> None:
    assert withheld_cells(two_way(np.array([[0, 20, 9], [30, 5, 0]])), smallest=SMALLEST) == set()


def test_what_was_withheld_stays_withheld_with_complements() -> None:
    cells = two_way(np.array([[20, 30, 40], [25, 35, 45]]))
    once = cells.keys["cell", 0, 0]
    hidden = withheld_cells(cells, smallest=SMALLEST, sticky=[once])
    assert once in hidden
    assert len(hidden) >= 4  # a rectangle


def test_a_remainder_that_nobody_prints_is_protected() -> None:
    cells = Cells()
    scored, eligible = cells.add(("scored",), 97), cells.add(("eligible",), 100)
    cells.adds_up([scored], eligible)  # three persons without a score
    assert withheld_cells(cells, smallest=SMALLEST) & {scored, eligible}


def test_equal_counts_of_two_tables_are_withheld_together() -> None:
    cells = two_way(np.array([[3, 20, 30], [40, 50, 60]]))
    again = cells.add(("other table",), 3)
    cells.equal(again, cells.keys["cell", 0, 0])
    assert {again, cells.keys["cell", 0, 0]} <= withheld_cells(cells, smallest=SMALLEST)


def test_one_cell_has_one_count() -> None:
    cells = Cells()
    cells.add(("a",), 3)
    with pytest.raises(ValueError, match="two counts"):
        cells.add(("a",), 4)


@given(st.integers(0, 1000), st.sampled_from([1, 3, 5, 10]))
def test_rounding_moves_by_at_most_half_a_base(value: int, base: int) -> None:
    assert rounded(value, base) % base == 0
    assert abs(rounded(value, base) - value) <= base / 2
