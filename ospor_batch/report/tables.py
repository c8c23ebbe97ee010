"""Contract tables as display tables: one row a stratum, one column a metric, every number with n and interval."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from ospor_batch.contracts import contract
from ospor_batch.report.display import (
    Cell,
    Column,
    DisplayTable,
    column_of,
    count,
    decimal,
    estimate,
    number,
    percent,
    reason_said,
    spoken,
    text,
)
from ospor_batch.report.metrics import FRACTIONS, METRICS

Row = dict[str, Any]
EVERYONE = "all"
PARTITIONS = ("test", "external", "internal_test", "all", "tuning", "train")  # the first that is there is shown first
STRATA = ("overall", "center", "scanner_vendor", "center*scanner_vendor")
STATED = ("estimate", "estimate_lower", "estimate_upper", "interval_method", "status", "status_reason")
ESTIMATE_FIELDS = {*STATED, "metric", "basis"}


def partitions_of(rows: pl.DataFrame) -> list[str]:
    """The partitions of a table, the one to show first in front."""
    found = set(rows["partition"])
    return [name for name in PARTITIONS if name in found]


def strata_of(rows: pl.DataFrame) -> list[str]:
    """The strata of a table: overall, center, vendor, both, then the others by name."""
    found = set(rows["stratum"])
    return [name for name in STRATA if name in found] + sorted(found - set(STRATA))


def estimates(rows: pl.DataFrame, name: str, *, slug: str, caption: str) -> DisplayTable:
    """Show a table of one row a metric as one row a stratum; what all rows share is said once below the caption."""
    fields = contract(name).fields
    asked = [field.name for field in fields if field.type in {"string", "boolean"} and field.name not in ESTIMATE_FIELDS]
    shared, varying = _shared_and_varying(rows, [column for column in asked if column not in {"recipe", "stratum"}])
    key = contract(name).primary_key
    parts = set(key[key.index("stratum") + 1 : key.index("metric")])
    varying.sort(key=lambda column: column not in parts)  # who the row is about stands first
    counts = [field.name for field in fields if field.type == "integer" and field.name not in {"n_images", "n_events"}]
    metrics = [metric for metric in dict(contract(name).field("metric").constraints)["enum"] if metric in set(rows["metric"])]
    groups = _grouped(rows, [column for column in contract(name).primary_key if column != "metric"])
    counts = [column for column in counts if all(_one_value(group.values(), column) for group in groups)]
    columns = [column_of(name, column) for column in varying] + [column_of(name, column) for column in counts]
    columns += [Column(METRICS[metric].heading, METRICS[metric].explains, is_number=True) for metric in metrics]
    shown = [_stratum_row(group, varying=varying, counts=counts, metrics=metrics) for group in groups]
    return DisplayTable(slug, caption, tuple(columns), tuple(shown), says=_said(name, shared))


def center_by_vendor(performance: pl.DataFrame, prevalence: pl.DataFrame, *, slug: str, caption: str) -> DisplayTable:
    """Show eligible, scored, verified, the three prevalences, AUC, sensitivity and specificity per center and vendor."""
    prevalences = ("prev_label", "prev_test_positive", "prev_corrected")
    accuracies = ("auc", "sensitivity", "specificity")
    wanted = pl.col("stratum").is_in(["overall", "center*scanner_vendor"])
    groups: dict[tuple[str, str], dict[str, Row]] = {}
    for row in [*_main_rows(prevalence, wanted), *_main_rows(performance, wanted)]:
        groups.setdefault((row["center"], row["scanner_vendor"]), {})[row["metric"]] = row
    shown = [
        (*_who(place), *_how_many(group), *(_metric_cell(group.get(metric), metric) for metric in (*prevalences, *accuracies)))
        for place, group in sorted(groups.items(), key=lambda item: _all_first(item[0]))
    ]
    columns = (
        column_of("prevalence", "center"),
        column_of("prevalence", "scanner_vendor"),
        column_of("prevalence", "n_eligible"),
        column_of("prevalence", "n_scored"),
        Column("Verified, n", "Eligible persons with a label in the window, and their share.", is_number=True),
        *(Column(METRICS[metric].heading, METRICS[metric].explains, is_number=True) for metric in (*prevalences, *accuracies)),
    )
    return DisplayTable(slug, caption, columns, tuple(shown))


def plain(rows: pl.DataFrame, name: str, *, slug: str, caption: str, empty: str, hide: Iterable[str] = ()) -> DisplayTable:
    """Show a contract table as it stands; what all rows share is said once below the caption.

    An estimate, its interval, status and reason become one cell.
    """
    names = [field.name for field in contract(name).fields if field.name not in set(hide) and field.name in rows.columns]
    is_stated = names.count("estimate") and set(STATED) <= set(contract(name).columns)
    names = [column for column in names if not is_stated or column not in STATED[1:]]
    texts = [column for column in names if contract(name).field(column).type in {"string", "boolean"}]
    shared, varying = _shared_and_varying(rows, texts)
    kept = [column for column in names if column not in texts or column in varying]
    columns = tuple(column_of(name, column) for column in kept)
    shown = tuple(
        tuple(_stated_cell(row) if is_stated and column == "estimate" else _plain_cell(row[column]) for column in kept)
        for row in rows.iter_rows(named=True)
    )
    return DisplayTable(slug, caption, columns, shown, says=_said(name, shared), empty=empty)


def thresholds(rows: pl.DataFrame, *, slug: str, caption: str) -> DisplayTable:
    """Show the locked thresholds with the people they were chosen on; not estimable ones with the reason."""
    names = ("recipe", "rule", "partition", "n_persons", "n_events", "score_cut", "score_unit", "data_digest")
    shown = []
    for row in rows.iter_rows(named=True):
        cut = number(row["score_cut"], digits=4, missing=reason_said(row["status_reason"]))
        shown.append(tuple(cut if name == "score_cut" else _plain_cell(row[name]) for name in names))
    columns = tuple(column_of("threshold", name) for name in names)
    return DisplayTable(slug, caption, columns, tuple(shown), empty="No threshold was locked in this run.")


def pooled(rows: pl.DataFrame, *, slug: str, caption: str) -> DisplayTable:
    """Show pooled estimates over centers or vendors with their heterogeneity and prediction interval."""
    columns = (
        column_of("heterogeneity", "partition"),
        column_of("heterogeneity", "grouping"),
        column_of("heterogeneity", "metric"),
        column_of("heterogeneity", "n_groups"),
        column_of("heterogeneity", "n_persons"),
        Column("Pooled estimate", "Random-effects mean of the groups, back from the logit scale.", is_number=True),
        Column("95 % prediction interval", contract("heterogeneity").field("prediction_lower").description, is_number=True),
        column_of("heterogeneity", "i2_percent"),
        column_of("heterogeneity", "tau2"),
        column_of("heterogeneity", "groups_left_out"),
    )
    shown = tuple(_pooled_row(row) for row in rows.iter_rows(named=True))
    return DisplayTable(slug, caption, columns, shown, empty="Nothing was pooled in this run.")


def attrition(rows: pl.DataFrame, *, slug: str, caption: str) -> DisplayTable:
    """Show the steps of one level in order, the sum over the centers beside each center's exclusions."""
    centers = sorted(set(rows["center"]))
    steps: dict[tuple[bool, int, str, str], dict[str, Row]] = {}
    for row in rows.iter_rows(named=True):
        step = (row["recipe"] != "catalog", row["step_number"], row["step"], row["reason"])
        steps.setdefault(step, {})[row["center"]] = row
    shown = []
    for (_, _, step_name, reason), by_center in sorted(steps.items()):
        sums = [count(sum(row[name] for row in by_center.values())) for name in ("n_in", "n_excluded", "n_out")]
        parts = [_in_and_out(by_center.get(center)) for center in centers]
        shown.append((text(step_name), text(reason), *sums, *parts))
    heads = [column_of("attrition", name) for name in ("step", "reason", "n_in", "n_excluded", "n_out")]
    per = [
        Column(f"{center}, excluded", f"Left at the step at center {center}, of those who entered.", is_number=True)
        for center in centers
    ]
    return DisplayTable(slug, caption, (*heads, *per), tuple(shown), empty="No step at this level.")


def dictionary(names: Sequence[str]) -> DisplayTable:
    """Explain every column of the named contracts once, and every metric."""
    rows: dict[str, tuple[Cell, ...]] = {}
    for name in names:
        for field in contract(name).fields:
            key = f"{field.name}: {field.description}"
            used = ", ".join(other for other in names if (field.name, field.description) in _described(other))
            rows.setdefault(key, (text(field.name), text(field.unit), text(field.description), text(used)))
    metrics = [
        (text(name), text("%" if how.scale == 100 else None), text(how.explains), text("metric"))
        for name, how in METRICS.items()
    ]
    columns = (Column("Name"), Column("Unit"), Column("Meaning"), Column("Tables"))
    return DisplayTable("dictionary", "Columns and metrics", columns, (*(rows[key] for key in sorted(rows)), *metrics))


def _described(name: str) -> set[tuple[str, str]]:
    return {(field.name, field.description) for field in contract(name).fields}


def _shared_and_varying(rows: pl.DataFrame, columns: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    unique = {column: rows[column].unique().to_list() if rows.height else [] for column in columns}
    shared = {column: values[0] for column, values in unique.items() if len(values) == 1 and values[0] not in {EVERYONE, None}}
    return shared, [column for column, values in unique.items() if len(values) > 1]


def _said(name: str, shared: Mapping[str, Any]) -> str:
    heads = {column: column_of(name, column).heading for column in shared}
    told = "; ".join(f"{_inside(heads[column])}: {text(value).text}" for column, value in shared.items())
    return f"All rows: {told}." if told else ""


def _inside(heading: str) -> str:
    """A heading inside a sentence: a small letter first, save for abbreviations."""
    return heading if heading[1:2].isupper() or heading[1:2] == " " else heading[:1].lower() + heading[1:]


def _grouped(rows: pl.DataFrame, keys: Sequence[str]) -> list[dict[str, Row]]:
    groups: dict[tuple[Any, ...], dict[str, Row]] = {}
    for row in rows.iter_rows(named=True):
        groups.setdefault(tuple(row[key] for key in keys), {})[row["metric"]] = row
    order = {name: i for i, name in enumerate(PARTITIONS)}
    at = list(keys).index("partition")
    return [group for key, group in sorted(groups.items(), key=lambda g: (order[g[0][at]], _all_first(g[0])))]


def _all_first(key: tuple[Any, ...]) -> tuple[tuple[bool, str], ...]:
    return tuple((value != EVERYONE, str(value)) for value in key)


def _one_value(rows: Iterable[Row], column: str) -> bool:
    return len({row[column] for row in rows}) == 1


def _stratum_row(
    group: dict[str, Row], *, varying: Sequence[str], counts: Sequence[str], metrics: Sequence[str]
) -> tuple[Cell, ...]:
    first = next(iter(group.values()))
    words = tuple(text(first[column]) for column in varying)
    numbers = tuple(count(first[column]) for column in counts)
    return (*words, *numbers, *(_metric_cell(group.get(metric), metric) for metric in metrics))


def _metric_cell(row: Row | None, metric: str) -> Cell:
    if row is None:
        return Cell("not estimable", remark="not computed for this stratum", kind="missing")
    how = METRICS[metric]
    cell = estimate(row, digits=how.digits, scale=how.scale, sub=_of_how_many(row, metric))
    rests_on = row.get("basis")
    return replace(cell, remark=f"{cell.remark}; {rests_on}") if rests_on and cell.kind == "number" else cell


def _of_how_many(row: Row, metric: str) -> str:
    if metric in FRACTIONS and row.get("tp") is not None:
        over, under = (sum(row[cell] for cell in cells) for cells in FRACTIONS[metric])
        return f"{over}/{under}"
    if metric in {"prev_label", "prev_test_positive"}:
        return f"{row['n_events']}/{row['n_persons']}"
    if metric == "auc":
        return f"n = {row['n_persons']}, {row['n_events']} with"
    return f"n = {row['n_persons']}"


def _main_rows(rows: pl.DataFrame, wanted: pl.Expr) -> list[Row]:
    everyone = [pl.col("is_same_acquisition") == EVERYONE, pl.col("unit") == "person"]
    found = rows.filter(wanted, *everyone) if rows.height else rows
    return found.filter(pl.col("partition") == partitions_of(found)[0]).to_dicts() if found.height else []


def _who(place: tuple[str, str]) -> tuple[Cell, Cell]:
    return (
        text("all centers" if place[0] == EVERYONE else place[0]),
        text("all vendors" if place[1] == EVERYONE else place[1]),
    )


def _how_many(group: dict[str, Row]) -> tuple[Cell, Cell, Cell]:
    row = group.get("prev_test_positive") or next(iter(group.values()))
    share = row["verified_fraction"]
    if share is None:
        verified = Cell("not estimable", remark="nobody is eligible", kind="missing")
    else:
        verified = Cell(count(round(share * row["n_eligible"])).text, sub=percent(share), sort=share, kind="number")
    return count(row["n_eligible"]), count(row["n_scored"]), verified


def _stated_cell(row: Row) -> Cell:
    how = METRICS.get(row.get("metric", ""))
    return estimate(row, digits=3) if how is None else estimate(row, digits=how.digits, scale=how.scale)


def _plain_cell(value: Any) -> Cell:
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return text(value)
    return count(value) if isinstance(value, int) else number(float(value), digits=4)


def _pooled_row(row: Row) -> tuple[Cell, ...]:
    how = METRICS[row["metric"]]
    why = reason_said(row["status_reason"] or "fewer_than_3_groups")
    if row["prediction_lower"] is None or row["prediction_upper"] is None:
        spread = Cell("not estimable", remark=why, kind="missing")
    else:
        low, high = (number(row[name] * how.scale, digits=how.digits).text for name in ("prediction_lower", "prediction_upper"))
        spread = Cell(f"{low} to {high}", sort=row["prediction_lower"], kind="number")
    return (
        text(row["partition"]),
        text(spoken(row["grouping"])),
        text(how.heading),
        count(row["n_groups"]),
        count(row["n_persons"]),
        estimate(row, digits=how.digits, scale=how.scale),
        spread,
        number(row["i2_percent"], digits=1, missing=why),
        _between_cell(row, why),
        text(row["groups_left_out"]),
    )


def _between_cell(row: Row, why: str) -> Cell:
    """tau² with its limits; the upper one may not be found."""
    cell = number(row["tau2"], missing=why)
    if cell.kind == "missing" or row["tau2_lower"] is None:
        return cell
    return replace(cell, sub=f"{decimal(row['tau2_lower'], digits=3)} to {decimal(row['tau2_upper'], digits=3)}")


def _in_and_out(row: Row | None) -> Cell:
    if row is None:
        return Cell("–", remark="no such step at this center", sort=-1)
    return Cell(count(row["n_excluded"]).text, sub=f"of {row['n_in']}", sort=float(row["n_excluded"]), kind="number")
