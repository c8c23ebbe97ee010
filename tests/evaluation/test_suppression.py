"""Small cells: what is withheld keeps every small count uncertain over all sums, whatever the table."""

from __future__ import annotations

import itertools
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ospor_batch.evaluation import suppression
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


@settings(max_examples=15, deadline=None)
@given(st.lists(st.lists(st.integers(0, 12), min_size=4, max_size=4), min_size=3, max_size=4), st.randoms())
def test_what_an_earlier_round_proved_changes_nothing(rows: list[list[int]], random: Random) -> None:
    """Fillings kept from round to round, and programs over what hangs together, withhold what asking anew does."""
    cells = two_way(np.array(rows))
    for cell in random.sample(range(len(cells.values)), 3):  # sums of all kinds, not of rows and columns alone
        cells.adds_up([cell], cells.keys[("all",)])
    withheld = withheld_cells(cells, smallest=SMALLEST)
    unsafe, fillings = suppression._unsafe, suppression._Fillings

    def anew(one: Any, protected: set[int], _seen: Any, **named: Any) -> list[int]:
        return unsafe(one, protected, suppression._Seen(one), **named)

    def of_all(*given: Any) -> Any:
        made = fillings(*given)
        made.group[:] = 0
        return made

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(suppression, "_unsafe", anew)
        patched.setattr(suppression, "_Fillings", of_all)
        assert withheld_cells(cells, smallest=SMALLEST) == withheld


def test_a_program_is_of_what_hangs_together_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts of one hospital are not solved for again with those of all others."""
    cells, sizes = Cells(), []
    small = [cells.add(("first", part), value) for part, value in enumerate((3, 2, 40))]
    cells.adds_up(small, cells.add(("first", "all"), 45))
    for hospital in range(6):  # each with a remainder that nobody prints
        parts = [cells.add((hospital, part), 15 + part) for part in range(2)]
        cells.adds_up(parts, cells.add((hospital, "all"), 45))
    solve = suppression.optimize.linprog

    def counted(objective: NDArray[np.float64], **named: Any) -> Any:
        sizes.append(len(objective))
        return solve(objective, **named)

    monkeypatch.setattr(suppression.optimize, "linprog", counted)
    hidden = withheld_cells(cells, smallest=SMALLEST)
    assert hidden == set(small[:2])
    assert sizes
    assert max(sizes) == 2


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
