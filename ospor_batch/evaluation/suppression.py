"""Small cells: which other cells must be withheld so that no published sum gives them away, audited by linear programs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, sparse
from scipy.sparse import csgraph

Relation = Mapping[int, float]
"""Coefficients by cell; the weighted sum is 0, such as parts with 1 and their total with -1."""
Bounds = tuple[float, float]
WIDE = float("inf")
ROUNDING = 1e-6  # of a linear program's answer, in persons
UNBOUNDED = 1e12  # more persons than there are
MOST_ROUNDS = 60  # of narrowing; what needs more is left to the linear programs
GROUP_PUSHES = 24  # linear programs for many cells together before single ones


@dataclass
class Cells:
    """Counts by key, how they add up, and which of them nobody publishes."""

    keys: dict[tuple[object, ...], int] = field(default_factory=dict)
    values: list[float] = field(default_factory=list)
    relations: list[dict[int, float]] = field(default_factory=list)
    unpublished: set[int] = field(default_factory=set)

    def add(self, key: tuple[object, ...], value: int, *, is_published: bool = True) -> int:
        """Add a count once; the same key must come with the same value."""
        at = self.keys.get(key)
        if at is None:
            at = len(self.values)
            self.keys[key] = at
            self.values.append(float(value))
            if not is_published:
                self.unpublished.add(at)
        elif self.values[at] != value:
            raise ValueError("one cell was given two counts")
        return at

    def adds_up(self, parts: Sequence[int], whole: int) -> None:
        """Say that parts make up a whole; what is left over becomes a part that nobody publishes."""
        rest = self.values[whole] - sum(self.values[part] for part in parts)
        if rest < 0:
            return  # the parts overlap: no sum gives anything away
        relation = dict.fromkeys(parts, 1.0) | {whole: -1.0}
        if rest:
            relation[self.add(("rest", whole, *parts), int(rest), is_published=False)] = 1.0
        self.relations.append(relation)

    def equal(self, first: int, second: int) -> None:
        """Say that two cells hold the same count of the same people."""
        if self.values[first] == self.values[second] and first != second:
            self.relations.append({first: 1.0, second: -1.0})


def is_small(value: float, smallest: int) -> bool:
    """Whether a count may not be shown: from 1 to smallest - 1; nobody is shown (methods P1)."""
    return 0 < value < smallest


def withheld_cells(cells: Cells, *, smallest: int, sticky: Iterable[int] = ()) -> set[int]:
    """Cells to withhold: the small ones, and as few others as keep every small one uncertain by at least ``smallest``.

    sticky: cells that an earlier release withheld. Complements are chosen from the sums that give a cell away, the
    smallest count first. Bounds that each sum gives alone find most that is unsafe; then linear programs over all sums
    audit the choice, until no small cell lies within bounds narrower than ``smallest`` (methods P2).
    """
    one = _merged(cells)
    protected = {one.of[i] for i, value in enumerate(cells.values) if is_small(value, smallest)} | {one.of[i] for i in sticky}
    hidden = protected | one.unpublished
    if not protected:
        return set()
    seen = _Seen(one)
    while True:
        unsafe = _unsafe(one, protected, seen, hidden=hidden, smallest=smallest)
        added = _complements(one, unsafe, hidden=hidden) if unsafe else set()
        if not added:
            return {i for i in range(len(cells.values)) if one.of[i] in hidden and i not in cells.unpublished}
        hidden |= added


def bounds_of(
    values: Sequence[float],
    relations: Sequence[Relation],
    *,
    hidden: Iterable[int],
    only: Iterable[int] | None = None,
    lowest: float = 0.0,
) -> dict[int, Bounds]:
    """Least and greatest value of hidden cells given all others and the sums, by linear programs (methods P2).

    This is the attack that a release must stand; only: the cells to ask about.
    """
    audit, unknown = _Audit(values, relations, lowest), set(hidden)
    return {i: audit.bounds(i, unknown) for i in sorted(unknown if only is None else set(only))}


def rounded(value: int, base: int) -> int:
    """The nearest multiple of a base, halves up; base 1 leaves a count as it is."""
    return (value + base // 2) // base * base if base > 1 else value


class _Audit:
    """Bounds of hidden cells, within the connected group of hidden cells."""

    def __init__(self, values: Sequence[float], relations: Sequence[Relation], lowest: float) -> None:
        self.values, self.relations, self.lowest = values, relations, lowest
        self.by_cell: dict[int, list[int]] = {}
        for number, relation in enumerate(relations):
            for i in relation:
                self.by_cell.setdefault(i, []).append(number)

    def bounds(self, cell: int, hidden: set[int]) -> Bounds:
        members, numbers = self._group(cell, hidden)
        if not numbers:
            return self.lowest, WIDE
        return self._solved(cell, sorted(members), sorted(numbers), hidden)

    def _group(self, cell: int, hidden: set[int]) -> tuple[set[int], set[int]]:
        members, numbers, ahead = {cell}, set[int](), [cell]
        while ahead:
            for number in self.by_cell.get(ahead.pop(), []):
                if number in numbers:
                    continue
                numbers.add(number)
                fresh = {i for i in self.relations[number] if i in hidden} - members
                members |= fresh
                ahead += sorted(fresh)
        return members, numbers

    def _solved(self, cell: int, members: list[int], numbers: list[int], hidden: set[int]) -> Bounds:
        place = {i: at for at, i in enumerate(members)}
        rows, columns, entries, right = [], [], [], []
        for row, number in enumerate(numbers):
            known = 0.0
            for i, coefficient in self.relations[number].items():
                if i in hidden:
                    rows.append(row)
                    columns.append(place[i])
                    entries.append(coefficient)
                else:
                    known += coefficient * self.values[i]
            right.append(-known)
        matrix = sparse.csr_matrix((entries, (rows, columns)), shape=(len(numbers), len(members)))
        return self._extreme(matrix, right, place[cell], 1.0), -self._extreme(matrix, right, place[cell], -1.0)

    def _extreme(self, matrix: sparse.csr_matrix, right: list[float], at: int, sign: float) -> float:
        objective = np.zeros(matrix.shape[1])
        objective[at] = sign
        found = optimize.linprog(objective, A_eq=matrix, b_eq=right, bounds=(self.lowest, None), method="highs")
        if found.status == 3:  # unbounded
            return -WIDE
        if found.status != 0:
            raise ValueError("the published sums contradict each other")
        return float(found.fun)


@dataclass(frozen=True)
class _One:
    """Cells of which equal ones are one, with the sums as entries of a sparse matrix."""

    of: list[int]
    values: NDArray[np.float64]
    unpublished: set[int]
    row: NDArray[np.int64]
    column: NDArray[np.int64]
    entry: NDArray[np.float64]
    relations: list[dict[int, float]]
    by_cell: dict[int, list[int]]


def _merged(cells: Cells) -> _One:
    """Cells that are equal by a sum of two become one; it is unpublished only when nobody publishes any of them."""
    parent = list(range(len(cells.values)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for relation in cells.relations:
        if len(relation) == 2 and sum(relation.values()) == 0:
            first, second = sorted(root(i) for i in relation)
            parent[second] = first
    of = [root(i) for i in range(len(parent))]
    published = {of[i] for i in range(len(of)) if i not in cells.unpublished}
    sums: dict[tuple[tuple[int, float], ...], None] = {}
    for relation in cells.relations:
        joined: dict[int, float] = {}
        for i, coefficient in relation.items():
            joined[of[i]] = joined.get(of[i], 0.0) + coefficient
        kept = tuple(sorted((i, c) for i, c in joined.items() if c))
        if kept:
            sums[kept] = None
    relations = [dict(kept) for kept in sums]
    entries = [(r, i, c) for r, relation in enumerate(relations) for i, c in relation.items()]
    row, column, entry = (np.array(part) for part in zip(*entries, strict=True)) if entries else (np.array([], int),) * 3
    by_cell: dict[int, list[int]] = {}
    for r, i, _ in entries:
        by_cell.setdefault(i, []).append(r)
    unpublished = set(of) - published
    return _One(of, np.array(cells.values), unpublished, row, column, entry.astype(np.float64), relations, by_cell)


def _unsafe(one: _One, protected: set[int], seen: _Seen, *, hidden: set[int], smallest: int) -> list[int]:
    """Protected cells within bounds narrower than ``smallest``: by each sum alone, and only then by all together."""
    low, high = _bounds_by_sums(one, hidden)
    found = [i for i in sorted(protected) if high[i] - low[i] < smallest - ROUNDING]
    return found or _unsafe_by_programs(one, sorted(protected), seen, hidden=hidden, smallest=smallest)


def _bounds_by_sums(one: _One, hidden: set[int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bounds of every cell from each sum and the bounds of its other members, again and again until nothing narrows."""
    low, high = one.values.copy(), one.values.copy()
    at = np.array(sorted(hidden), dtype=np.int64)
    low[at], high[at] = 0.0, UNBOUNDED
    for _ in range(MOST_ROUNDS):
        ends = np.where(one.entry > 0, low[one.column], high[one.column]) * one.entry
        tops = np.where(one.entry > 0, high[one.column], low[one.column]) * one.entry
        least, most = (np.bincount(one.row, part, len(one.relations)) for part in (ends, tops))
        others_least, others_most = least[one.row] - ends, most[one.row] - tops
        up = np.where(one.entry > 0, -others_least / one.entry, -others_most / one.entry)
        down = np.where(one.entry > 0, -others_most / one.entry, -others_least / one.entry)
        narrower, wider = high.copy(), low.copy()
        np.minimum.at(narrower, one.column, up)
        np.maximum.at(wider, one.column, down)
        if np.array_equal(narrower, high) and np.array_equal(wider, low):
            break
        low, high = wider, narrower
    return low, high


class _Seen:
    """Least and greatest count that each cell had in any filling of the hidden cells that keeps every sum.

    A filling stays one when more is hidden, so that a cell once found safe is not asked about again.
    """

    def __init__(self, one: _One) -> None:
        self.low, self.high = one.values.copy(), one.values.copy()

    def narrow(self, cells: NDArray[np.int64], smallest: int) -> NDArray[np.int64]:
        """Those that no filling so far has moved by enough."""
        found: NDArray[np.int64] = cells[self.high[cells] - self.low[cells] < smallest - ROUNDING]
        return found

    def add(self, cells: NDArray[np.int64], filling: NDArray[np.float64]) -> None:
        self.low[cells] = np.minimum(self.low[cells], filling)
        self.high[cells] = np.maximum(self.high[cells], filling)


def _unsafe_by_programs(one: _One, protected: Sequence[int], seen: _Seen, *, hidden: set[int], smallest: int) -> list[int]:
    """Audit by linear programs: any two fillings that differ by enough in a cell prove it safe.

    Whole groups of cells are pushed up and down together first, since one filling proves many; only what is left is
    pushed alone.
    """
    fillings = _Fillings(one, sorted(hidden), float(one.values.max()) + 10 * smallest)
    pending = seen.narrow(np.array(protected, dtype=np.int64), smallest)
    rng = np.random.default_rng(len(hidden))
    for turn in range(GROUP_PUSHES):
        if not pending.size:
            return []
        signs = rng.choice([-1.0, 1.0], pending.size) * rng.uniform(0.5, 1.5, pending.size) if turn > 1 else 2.0 * turn - 1
        seen.add(*fillings.pushed(pending, signs))
        pending = seen.narrow(pending, smallest)
    for cell in pending:
        for sign in (1.0, -1.0):
            if seen.narrow(one_of := np.array([cell]), smallest).size:
                seen.add(*fillings.pushed(one_of, sign))
    found: list[int] = seen.narrow(pending, smallest).tolist()
    return found


class _Fillings:
    """Ways to fill the hidden cells so that every sum holds."""

    def __init__(self, one: _One, members: Sequence[int], most: float) -> None:
        is_hidden = np.isin(one.column, members)
        known = np.bincount(one.row[~is_hidden], (one.entry * one.values[one.column])[~is_hidden], len(one.relations))
        columns = np.searchsorted(members, one.column[is_hidden])
        shape = (len(one.relations), len(members))
        matrix = sparse.csr_matrix((one.entry[is_hidden], (one.row[is_hidden], columns)), shape=shape)
        used = np.diff(matrix.indptr) > 0
        self.members, self.matrix, self.right, self.most = np.array(members), matrix[used], -known[used], most
        both = (
            sparse.bmat([[None, self.matrix.T], [self.matrix, None]]) if used.any() else sparse.csr_matrix((len(members),) * 2)
        )
        self.group = csgraph.connected_components(both, directed=False)[1]

    def pushed(
        self, cells: NDArray[np.int64], signs: NDArray[np.float64] | float
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Hidden cells that hang together with some, in the filling that makes the signed sum of those least."""
        at = np.searchsorted(self.members, cells)
        n = len(self.members)
        is_in = np.isin(self.group, self.group[at])
        columns, rows = np.flatnonzero(is_in[:n]), np.flatnonzero(is_in[n:])
        objective = np.zeros(n)
        objective[at] = signs
        ends = [(0.0, self.most if pushed else None) for pushed in objective[columns].tolist()]
        found = optimize.linprog(
            objective[columns],
            A_eq=self.matrix[rows][:, columns] if rows.size else None,
            b_eq=self.right[rows] if rows.size else None,
            bounds=ends,
            method="highs",
        )
        if found.status != 0:
            raise ValueError("the published sums contradict each other")
        return self.members[columns], found.x


def _complements(one: _One, unsafe: Sequence[int], *, hidden: set[int]) -> set[int]:
    """For each unsafe cell one more cell to withhold, from the sum that narrows it most; smallest count first."""
    added: set[int] = set()
    touched: set[int] = set()
    for cell in unsafe:
        best: tuple[int, float, int, int] | None = None
        for number in _near(cell, one, hidden):
            if number in touched:
                continue
            relation = one.relations[number]
            shown = [i for i in relation if i not in hidden and i not in added and one.values[i] > 0]
            if not shown:
                continue
            chosen = min(shown, key=lambda i: (one.values[i], i))
            found = (sum(i in hidden or i in added for i in relation), float(one.values[chosen]), chosen, number)
            best = found if best is None or found < best else best
        if best is not None:
            added.add(best[2])
            touched.add(best[3])
    return added


def _near(cell: int, one: _One, hidden: set[int]) -> list[int]:
    """Sums that hold the cell and still show something; failing these, sums of the cells it is bound up with."""
    seen, ring = {cell}, [cell]
    while ring:
        numbers = sorted({number for i in ring for number in one.by_cell.get(i, [])})
        if any(i not in hidden and one.values[i] > 0 for number in numbers for i in one.relations[number]):
            return numbers
        ring = sorted({i for number in numbers for i in one.relations[number] if i in hidden} - seen)
        seen |= set(ring)
    return []
