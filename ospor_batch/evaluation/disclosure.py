"""What may leave the hospital: counts of every released table as one system of sums, small ones withheld with complements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import polars as pl

from ospor_batch.evaluation.release_cells import Key, system_of
from ospor_batch.evaluation.release_links import link
from ospor_batch.evaluation.suppression import withheld_cells


@dataclass
class Plan:
    """Which cells of which table are withheld, and the exact count of every cell for the register."""

    withheld: set[tuple[str, Key, str]] = field(default_factory=set)
    counts: dict[str, int] = field(default_factory=dict)
    withheld_names: set[str] = field(default_factory=set)

    def hides(self, table: str, key: Key, *, column: str) -> bool:
        return (table, key, column) in self.withheld


def plan_release(
    frames: Mapping[str, pl.DataFrame], *, smallest: int, last: Mapping[str, tuple[int, bool]] | None = None
) -> Plan:
    """Decide what is withheld in the released tables (methods P1-P3).

    last: exact count and whether it was withheld, by cell name, of the last release. A cell that was withheld and moved
    by fewer than ``smallest`` stays withheld, or tonight's table would give away last night's.
    """
    system = system_of(frames)
    link(system, frames)
    names = {at: cell_name(key) for key, at in system.cells.keys.items()}
    sticky = {
        at
        for at, name in names.items()
        if last and name in last and last[name][1] and abs(last[name][0] - system.cells.values[at]) < smallest
    }
    hidden = withheld_cells(system.cells, smallest=smallest, sticky=sticky - system.cells.unpublished) if smallest else set()
    found = Plan()
    for at, name in names.items():
        if at in system.cells.unpublished:
            continue
        found.counts[name] = int(system.cells.values[at])
        if at in hidden:
            found.withheld_names.add(name)
            found.withheld.update(system.shown_as.get(at, []))
    return found


def moved_too_little(plan: Plan, last: Mapping[str, tuple[int, bool]], *, smallest: int) -> list[str]:
    """Cells that both releases print and that moved by fewer than ``smallest``: their difference is a small cell."""
    return sorted(
        name
        for name, n in plan.counts.items()
        if name in last and not last[name][1] and name not in plan.withheld_names and 0 < abs(n - last[name][0]) < smallest
    )


def cell_name(key: Key) -> str:
    """One line of text that names a cell."""
    return "|".join(map(str, key))
