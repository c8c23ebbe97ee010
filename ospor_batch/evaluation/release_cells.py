"""The counts of every released table as cells of one system of sums."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from ospor_batch.contracts import contract
from ospor_batch.evaluation.strata import EVERYONE, OVERALL, stratum_columns
from ospor_batch.evaluation.suppression import Cells

Row = Mapping[str, Any]
Key = tuple[Any, ...]
Strata = dict[Key, dict[str, list[tuple[Key, Mapping[str, int]]]]]
"""By scope and stratum: the values of each group's columns, and its cells by quantity."""
SCOPE = ("recipe", "reference_id", "partition", "is_same_acquisition")
CALLS = ("tp", "fp", "fn", "tn")
CLASSES = ("normal", "low_bone_mass", "osteoporosis")


@dataclass
class System:
    """Cells with the places in tables where each is printed."""

    cells: Cells = field(default_factory=Cells)
    shown_as: dict[int, list[tuple[str, Key, str]]] = field(default_factory=dict)

    def add(self, cell: Key, value: int | None, *, table: str, key: Key, column: str) -> int | None:
        """A count that a table prints; the same people counted in another table are the same cell."""
        if value is None:
            return None
        known = self.cells.keys.get(cell)
        if known is not None and self.cells.values[known] != value:
            cell = (*cell, table, *key)  # other people after all: a cell of its own
        at = self.cells.add(cell, int(value))
        self.cells.unpublished.discard(at)
        self.shown_as.setdefault(at, []).append((table, key, column))
        return at

    def hidden(self, cell: Key, value: int) -> int:
        return self.cells.add(cell, value, is_published=cell in self.cells.keys)

    def parts(self, whole: int | None, *parts: int | None) -> None:
        if whole is not None and None not in parts:
            self.cells.adds_up([part for part in parts if part is not None], whole)


def row_key(row: Row, columns: Iterable[str]) -> Key:
    """The primary key of a row as a tuple."""
    return tuple(row[column] for column in columns)


def system_of(frames: Mapping[str, pl.DataFrame]) -> System:
    """Every count of the released tables, and every sum that connects them."""
    system = System()
    _people(system, frames)
    _classes(system, frames)
    _ages(system, frames)
    _baseline(system, frames)
    _missing(system, frames)
    _flow(system, frames)
    _bins(system, frames)
    return system


def _people(system: System, frames: Mapping[str, pl.DataFrame]) -> None:
    """Eligible, scored, labelled, with the condition, called positive, and the 2 x 2 table, over all strata."""
    places: dict[Key, dict[str, int]] = {}
    for name, row, at in _stratified(frames):
        key = row_key(row, contract(name).primary_key)
        for column, quantity in _quantities(name, row).items():
            cell = system.add((*at, quantity), row[column], table=name, key=key, column=column)
            if cell is not None:
                places.setdefault(at, {})[quantity] = cell
    strata: Strata = {}
    for at, known in places.items():
        _within(system, at, known)
        groups = strata.setdefault(at[: len(SCOPE)], {}).setdefault(at[len(SCOPE)], [])
        groups.append((at[len(SCOPE) + 1 :], known))
    for at, known in places.items():
        for quantity, whole in known.items():
            for parts in _finer(at, places, strata, quantity=quantity):
                system.parts(whole, *parts)
    _same_in_other_recipes(system, places)


def _stratified(frames: Mapping[str, pl.DataFrame]) -> Iterator[tuple[str, Row, Key]]:
    columns = (*SCOPE, "stratum", *stratum_columns())
    for name in ("performance", "prevalence", "agreement"):
        for row in frames[name].iter_rows(named=True):
            yield name, row, row_key(row, columns)


def _quantities(table: str, row: Row) -> dict[str, str]:
    """What each count of a row counts; n_images equals n_persons where a person is the unit."""
    found = {"n_eligible": "eligible", "n_scored": "scored"}
    if table == "performance":
        found |= {"n_persons": "tested", "n_images": "tested", "n_events": "tested_events"} | {name: name for name in CALLS}
    elif table == "agreement":
        suffix = "" if row["calibration_id"] == "none" else "_calibrated"
        found |= {"n_persons": f"compared{suffix}", "n_images": f"compared{suffix}", "n_events": f"compared_events{suffix}"}
    elif row["metric"] in {"prev_label", "prev_label_standardised"}:
        found |= {"n_persons": "labelled", "n_images": "labelled", "n_events": "labelled_events"}
    elif row["metric"] == "prev_label_weighted":
        found |= {"n_persons": "scored", "n_images": "scored", "n_events": "labelled_events"}
    else:
        found |= {"n_persons": "scored", "n_images": "scored", "n_events": "called_positive"}
        if row["status_reason"] == "no_threshold":
            found.pop("n_events")
    return found


def _within(system: System, at: Key, known: Mapping[str, int]) -> None:
    """Sums inside one group of people; what nobody prints, such as those without a score, is a cell too."""
    get = known.get
    system.parts(get("tested_events"), get("tp"), get("fn"))
    system.parts(get("tested"), get("tp"), get("fn"), get("fp"), get("tn"))
    for whole, part in (
        ("eligible", "scored"), ("eligible", "labelled"), ("labelled", "labelled_events"), ("tested", "tested_events"),
        ("scored", "called_positive"), ("labelled", "tested"), ("compared", "compared_events"), ("labelled", "compared"),
        ("compared", "compared_calibrated"), ("compared_calibrated", "compared_events_calibrated"),
    ):  # fmt: skip
        if whole in known and part in known:
            system.cells.adds_up([known[part]], known[whole])
    if all(name in known for name in CALLS):
        system.hidden((*at, "called"), int(system.cells.values[known["tp"]] + system.cells.values[known["fp"]]))
        system.cells.adds_up([known["tp"], known["fp"]], system.cells.keys[(*at, "called")])


def _finer(at: Key, places: Mapping[Key, Mapping[str, int]], strata: Strata, *, quantity: str) -> Iterator[list[int]]:
    """The groups that make up one group: by each stratum that is finer, by partition, by acquisition."""
    columns = stratum_columns()
    scope, values = at[: len(SCOPE)], dict(zip(columns, at[len(SCOPE) + 1 :], strict=True))
    for stratum, groups in sorted(strata.get(scope, {}).items()):
        parts = [] if stratum == OVERALL else stratum.split("*")
        if not set(parts) > {column for column, value in values.items() if value != EVERYONE}:
            continue
        inside = [
            known[quantity]
            for group, known in groups
            if quantity in known and all(value in (EVERYONE, of) for value, of in zip(values.values(), group, strict=True))
        ]
        if inside:
            yield inside
    partition, acquisition = scope[2:]
    rest = at[len(SCOPE) :]
    for others in (
        [(*scope[:2], name, acquisition, *rest) for name in ("internal_test", "external")] if partition == "test" else [],
        [(*scope[:3], name, *rest) for name in ("yes", "no")] if acquisition == EVERYONE else [],
    ):
        inside = [places[other][quantity] for other in others if quantity in places.get(other, {})]
        if inside:
            yield inside


def _same_in_other_recipes(system: System, places: Mapping[Key, Mapping[str, int]]) -> None:
    """Recipes share people: an equal count of the eligible elsewhere would give a withheld one away."""
    groups: dict[Key, list[int]] = {}
    for at, known in places.items():
        if "eligible" in known:
            groups.setdefault(at[2:], []).append(known["eligible"])
    for cells in groups.values():
        for first, second in itertools.pairwise(cells):
            system.cells.equal(first, second)


def _classes(system: System, frames: Mapping[str, pl.DataFrame]) -> None:
    keys = ("recipe", "reference_id", "partition", "center", "metric")
    names = [f"n_{t}_as_{p}" for t in CLASSES for p in CLASSES]
    tables: dict[Key, dict[str, int]] = {}
    for row in frames["three_class"].iter_rows(named=True):
        at = ("three_class", *row_key(row, keys[:-1]))
        cells = {
            name: system.add((*at, name), row[name], table="three_class", key=row_key(row, keys), column=name)
            for name in ("n_persons", *names)
        }
        tables[at] = {name: cell for name, cell in cells.items() if cell is not None}
        if at in tables and len(tables[at]) == len(names) + 1:
            _rows_and_columns(system, at, tables[at])
    _over_centers(system, tables)


def _rows_and_columns(system: System, at: Key, known: Mapping[str, int]) -> None:
    if (*at, "row", CLASSES[0]) in system.cells.keys:
        return
    rows = []
    for of in CLASSES:
        members = [known[f"n_{of}_as_{p}"] for p in CLASSES]
        rows.append(system.hidden((*at, "row", of), int(sum(system.cells.values[m] for m in members))))
        system.cells.adds_up(members, rows[-1])
        members = [known[f"n_{t}_as_{of}"] for t in CLASSES]
        column = system.hidden((*at, "column", of), int(sum(system.cells.values[m] for m in members)))
        system.cells.adds_up(members, column)
    system.cells.adds_up(rows, known["n_persons"])


def _over_centers(system: System, tables: Mapping[Key, Mapping[str, int]], *, at: int = 4) -> None:
    """The row of all centers is the sum of the centers; ``at`` is where the center stands in the key."""
    by_rest: dict[Key, list[Mapping[str, int]]] = {}
    for key, known in tables.items():
        if key[at] != EVERYONE:
            by_rest.setdefault((*key[:at], *key[at + 1 :]), []).append(known)
    for key, known in tables.items():
        if key[at] != EVERYONE:
            continue
        mine = by_rest.get((*key[:at], *key[at + 1 :]), [])
        for name, whole in known.items():
            parts = [other[name] for other in mine if name in other]
            if parts:
                system.cells.adds_up(parts, whole)


def _ages(system: System, frames: Mapping[str, pl.DataFrame]) -> None:
    keys = ("recipe", "reference_id", "partition", "center", "sex", "age_group")
    names = ("n_eligible", "n_scored", "n_positive", "n_labelled", "n_events")
    totals = dict(zip(names, ("eligible", "scored", "called_positive", "labelled", "labelled_events"), strict=True))
    tables: dict[Key, dict[str, int]] = {}
    for row in frames["age_sex"].iter_rows(named=True):
        at = ("age_sex", *row_key(row, keys))
        cells = {
            name: system.add((*at, name), row[name], table="age_sex", key=row_key(row, keys), column=name) for name in names
        }
        tables[at] = {name: cell for name, cell in cells.items() if cell is not None}
        for whole, part in (("n_eligible", "n_scored"), ("n_scored", "n_positive"), ("n_labelled", "n_events")):
            if whole in tables[at] and part in tables[at]:
                system.cells.adds_up([tables[at][part]], tables[at][whole])
    _over_centers(system, tables)
    for scope in sorted({key[1:5] for key in tables}):
        recipe, reference_id, partition, center = scope
        values = [center if column == "center" else EVERYONE for column in stratum_columns()]
        stratum = OVERALL if center == EVERYONE else "center"
        for name, quantity in totals.items():
            total = system.cells.keys.get((recipe, reference_id, partition, EVERYONE, stratum, *values, quantity))
            parts = [known[name] for key, known in tables.items() if key[1:5] == scope and name in known]
            if total is not None and parts:
                system.cells.adds_up(parts, total)


def _baseline(system: System, frames: Mapping[str, pl.DataFrame]) -> None:
    keys = ("recipe", "reference_id", "partition", "grouping", "group", "variable", "level")
    groups: dict[Key, dict[str, int]] = {}
    for row in frames["baseline"].iter_rows(named=True):
        scope, key = row_key(row, keys[:5]), row_key(row, keys)
        n = system.add(("baseline", *scope, "n"), row["n_persons"], table="baseline", key=key, column="n_persons")
        of = ("baseline", *scope, row["variable"])
        missing = system.add((*of, "missing"), row["n_missing"], table="baseline", key=key, column="n_missing")
        level = system.add((*of, row["level"]), row["n_level"], table="baseline", key=key, column="n_level")
        known = groups.setdefault(of, {})
        known |= {
            name: cell for name, cell in (("n", n), ("missing", missing), (f"={row['level']}", level)) if cell is not None
        }
    by_grouping: dict[Key, list[dict[str, int]]] = {}
    for of, known in groups.items():
        by_grouping.setdefault((*of[:5], of[6]), []).append(known)
    for of, known in groups.items():
        parts = [cell for name, cell in known.items() if name not in {"n"}]
        if any(name.startswith("=") for name in known):
            system.cells.adds_up(parts, known["n"])
        else:
            system.cells.adds_up([known["missing"]], known["n"])
        if of[4] != "overall":
            continue
        for grouping in ("center", "scanner_vendor"):
            inside = by_grouping.get((*of[:4], grouping, of[6]), [])
            for name, whole in known.items():
                members = [other[name] for other in inside if name in other]
                if members:
                    system.cells.adds_up(members, whole)
        values = [EVERYONE] * len(stratum_columns())
        eligible = system.cells.keys.get((*of[1:4], EVERYONE, OVERALL, *values, "eligible"))
        if eligible is not None:
            system.cells.equal(eligible, known["n"])


def _missing(system: System, frames: Mapping[str, pl.DataFrame]) -> None:
    keys = ("recipe", "reference_id", "partition", "center", "variable")
    tables: dict[Key, dict[str, int]] = {}
    for row in frames["missingness"].iter_rows(named=True):
        at = ("missingness", *row_key(row, keys))
        for name in ("n_persons", "n_missing"):
            cell = system.add((*at, name), row[name], table="missingness", key=row_key(row, keys), column=name)
            if cell is not None:
                tables.setdefault(at, {})[name] = cell
        system.cells.adds_up([tables[at]["n_missing"]], tables[at]["n_persons"])
    _over_centers(system, tables)


def _flow(system: System, frames: Mapping[str, pl.DataFrame]) -> None:
    """Steps of persons: what leaves is what enters minus what goes on, and the next step begins there."""
    keys = ("recipe", "reference_id", "center", "level", "step_number")
    before: dict[Key, int] = {}
    rows = frames["attrition"].filter(pl.col("level") == "person").sort(keys)
    for row in rows.iter_rows(named=True):
        at, key = ("attrition", *row_key(row, keys[:4])), row_key(row, keys)
        cells = {
            name: system.add((*at, row["step_number"], name), row[name], table="attrition", key=key, column=name)
            for name in ("n_in", "n_excluded", "n_out")
        }
        system.parts(cells["n_in"], cells["n_excluded"], cells["n_out"])
        if at in before and cells["n_in"] is not None:
            system.cells.equal(before[at], cells["n_in"])
        if cells["n_out"] is not None:
            before[at] = cells["n_out"]


def _bins(system: System, frames: Mapping[str, pl.DataFrame]) -> None:
    """Events in tenths of the people add up to all events."""
    keys = ("recipe", "reference_id", "partition", "calibration_id", "bin")
    for row in frames["risk_curve"].iter_rows(named=True):
        at, key = ("risk_curve", *row_key(row, keys)), row_key(row, keys)
        n = system.add((*at, "n"), row["n_persons"], table="risk_curve", key=key, column="n_persons")
        events = system.add((*at, "events"), row["n_events"], table="risk_curve", key=key, column="n_events")
        system.parts(n, events)
    for scope in sorted({row_key(row, keys[:4]) for row in frames["risk_curve"].iter_rows(named=True)}):
        parts = [
            at for key, at in system.cells.keys.items() if key[0] == "risk_curve" and key[1:5] == scope and key[-1] == "events"
        ]
        values = [EVERYONE] * len(stratum_columns())
        whole = system.cells.keys.get((*scope[:3], EVERYONE, OVERALL, *values, "tested_events"))
        if whole is not None:
            system.cells.adds_up(parts, whole)
