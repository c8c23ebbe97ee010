"""Counts of the same people that stand in several tables: each gives the others away, so they are one."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from ospor_batch.evaluation.release_cells import Key, System, row_key
from ospor_batch.evaluation.strata import EVERYONE, OVERALL, stratum_columns

COUNTS = ("recipe", "reference_id", "partition")


def link(system: System, frames: Mapping[str, pl.DataFrame]) -> None:
    """Connect the tables of one run."""
    _baseline(system, frames["baseline"])
    _missing(system, frames["missingness"])
    _classes(system, frames["three_class"])
    _flow(system, frames["attrition"], frames["performance"])


def place(scope: Key, given: Mapping[str, str], *, quantity: str, names: Mapping[frozenset[str], str]) -> Key | None:
    """The cell of one group of people by the columns that part it; null when no stratum parts them so."""
    stratum = OVERALL if not given else names.get(frozenset(given))
    if stratum is None:
        return None
    return (*scope, EVERYONE, stratum, *(given.get(column, EVERYONE) for column in stratum_columns()), quantity)


def _names(system: System) -> dict[frozenset[str], str]:
    """Strata by the columns that they part by."""
    known = {key[4] for key in system.cells.keys if len(key) == len(stratum_columns()) + 6 and isinstance(key[4], str)}
    return {frozenset(name.split("*")): name for name in known if name != OVERALL}


def _same(system: System, first: Key | None, second: Key | None) -> None:
    keys = system.cells.keys
    if first in keys and second in keys:
        system.cells.equal(keys[first], keys[second])


def _baseline(system: System, rows: pl.DataFrame) -> None:
    """Groups and levels that are strata too, and classes of the label."""
    names, columns = _names(system), set(stratum_columns())
    for row in rows.iter_rows(named=True):
        scope, group = row_key(row, COUNTS), ("baseline", *row_key(row, (*COUNTS, "grouping", "group")))
        at = {} if row["grouping"] == OVERALL else {row["grouping"]: row["group"]}
        _same(system, (*group, "n"), place(scope, at, quantity="eligible", names=names))
        level = (*group, row["variable"], row["level"])
        if row["variable"] in columns and row["n_level"] is not None:
            if at.get(row["variable"], row["level"]) == row["level"]:
                _same(system, level, place(scope, at | {row["variable"]: row["level"]}, quantity="eligible", names=names))
        elif (row["variable"], row["level"]) == ("category", "osteoporosis"):
            _same(system, level, place(scope, at, quantity="labelled_events", names=names))
        if row["grouping"] in {OVERALL, "center"}:
            missing = ("missingness", *scope, row["group"], row["variable"], "n_missing")
            _same(system, (*group, row["variable"], "missing"), missing)


def _missing(system: System, rows: pl.DataFrame) -> None:
    """Those with a score are the scored, those with a label and a known class the labelled."""
    names = _names(system)
    for row in rows.iter_rows(named=True):
        scope, center = row_key(row, COUNTS), row["center"]
        at = {} if center == EVERYONE else {"center": center}
        mine = ("missingness", *scope, center, row["variable"])
        if row["variable"] not in {"target_condition", "reference_value"}:
            _same(system, (*mine, "n_persons"), place(scope, at, quantity="eligible", names=names))
        keys = system.cells.keys
        if row["variable"] == "score":
            _sum(system, [place(scope, at, quantity="scored", names=names), (*mine, "n_missing")], (*mine, "n_persons"))
        if row["variable"] == "label":
            unknown = ("missingness", *scope, center, "target_condition", "n_missing")
            if unknown in keys:
                _sum(
                    system,
                    [place(scope, at, quantity="labelled", names=names), unknown, (*mine, "n_missing")],
                    (*mine, "n_persons"),
                )


def _sum(system: System, parts: list[Key | None], whole: Key) -> None:
    keys = system.cells.keys
    if whole in keys and all(part in keys for part in parts):
        members = [keys[part] for part in parts if part is not None]
        if sum(system.cells.values[m] for m in members) == system.cells.values[keys[whole]]:
            system.cells.adds_up(members, keys[whole])


def _classes(system: System, rows: pl.DataFrame) -> None:
    """True and called osteoporosis of the 3 x 3 table are the events and the calls of the 2 x 2 table."""
    names = _names(system)
    for row in rows.iter_rows(named=True):
        scope, center = row_key(row, COUNTS), row["center"]
        at = {} if center == EVERYONE else {"center": center}
        mine = ("three_class", *scope, center)
        for other, quantity in (
            ((*mine, "n_persons"), "tested"), ((*mine, "row", "osteoporosis"), "tested_events"),
            ((*mine, "column", "osteoporosis"), "called"), ((*mine, "n_osteoporosis_as_osteoporosis"), "tp"),
        ):  # fmt: skip
            _same(system, other, place(scope, at, quantity=quantity, names=names))


def _flow(system: System, rows: pl.DataFrame, performance: pl.DataFrame) -> None:
    """The flow of each center ends at the n of the performance table."""
    if not performance.height:
        return
    names = _names(system)
    steps = rows.filter(pl.col("level") == "person").sort("step_number")
    ends = steps.group_by("recipe", "reference_id", "center", maintain_order=True).last()
    for row in ends.iter_rows(named=True):
        last = ("attrition", row["recipe"], row["reference_id"], row["center"], "person", row["step_number"], "n_out")
        scope = (row["recipe"], row["reference_id"], "test")
        _same(system, last, place(scope, {"center": row["center"]}, quantity="tested", names=names))
