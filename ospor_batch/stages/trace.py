"""From a cell of a table back to the keys behind it; a count that its keys do not reproduce is a LedgerError."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from ospor_batch.contracts import contract
from ospor_batch.errors import ContractError, LedgerError, StudyError
from ospor_batch.evaluation.analysis_set import SITE_TUNING, TEST, AnalysisSet
from ospor_batch.evaluation.strata import EVERYONE, OVERALL
from ospor_batch.runs import Run, run_at
from ospor_batch.stages.keys_behind import KEPT, analysis_of
from ospor_batch.stages.people_behind import COUNTED, NOBODY, people_behind
from ospor_batch.stages.people_seen import Row
from ospor_batch.stages.site_recalibration import SITES
from ospor_batch.store import Store

ANY = ("all", "overall", "person", "test", "complete_case")  # what a table says where it does not part the people
METRICS_SHARE = ("performance", "discrimination", "three_class", "risk_calibration")  # tables whose counts no metric moves
OF_FATE = ("series", "study", "person", "label")
KEYS = {"series": "series_key", "study": "study_key", "person": "patient_key", "label": "label_key"}
COPIED = {"published": ("performance", "agreement"), "substudy": ("performance",)}  # tables whose rows repeat others'
TRACED = (*COUNTED, SITES, *KEPT, *COPIED, "attrition", "reject_count")
FOLLOWED = ", ".join(TRACED)


@dataclass(frozen=True)
class Traced:
    """A cell, what it says, and the keys that it counts: center and the key of what is counted, with the series read."""

    table: str
    column: str
    row: Row
    value: Any
    keys: pl.DataFrame


def trace(folder: Path, table: str, *, cell: str, locate: bool = False) -> Traced:
    """Find the keys behind a cell of a run's table.

    cell: the column, then the values that name the row, such as ``n_events,center=north,metric=prev_label``; what is not
    named is taken over everyone. locate adds private paths.
    """
    store, run = run_at(folder)
    if table not in TRACED:
        raise StudyError(f"trace cannot follow {table}: {NOBODY.get(table, 'it is no table of people')}; it follows {FOLLOWED}")
    rows = _table(run, table)
    column, named = parse_cell(cell, columns=rows.columns)
    key = contract(table).primary_key
    if table in METRICS_SHARE and not {"metric", "interval"} & named.keys():
        rows = rows.unique([name for name in key if name not in {"metric", "interval"}], keep="first", maintain_order=True)
    row = the_row(rows, named, key=key)
    if table == "attrition":
        keys = _left(run, store, row=row, column=column)
    elif table == "reject_count":
        keys = _refused(run, store, row)
    else:
        keys = _people(run, store, table=table, row=row, column=column)
    keys = keys.unique().sort(keys.columns)
    if isinstance(row[column], int) and keys.height != row[column]:
        raise LedgerError(f"trace: {table}.{column} says {row[column]}, and {keys.height} keys stand behind it")
    return Traced(table, column, row, row[column], _located(keys, run, store) if locate else keys)


def parse_cell(cell: str, *, columns: list[str]) -> tuple[str, dict[str, str]]:
    """The column and the named values of a cell; StudyError says how one is written."""
    column, _, more = (part.strip() for part in cell.partition(","))
    # a value may hold a comma of its own, such as people=test, BMD
    rest = [part.strip() for part in re.split(r",(?=\s*\w+\s*=)", more)] if more else []
    named = {name.strip(): value for name, _, value in (part.partition("=") for part in rest if "=" in part)}
    if unknown := [name for name in (column, *named) if name not in columns] or [part for part in rest if "=" not in part]:
        raise StudyError(
            f"cell {cell!r}: {unknown[0]!r} is no column; write COLUMN,KEY=VALUE,... with columns of {', '.join(columns)}"
        )
    return column, {name.strip(): value.strip() for name, value in named.items()}


def the_row(rows: pl.DataFrame, named: dict[str, str], *, key: tuple[str, ...]) -> dict[str, Any]:
    """The one row that has the named values, and elsewhere those that mean everyone; StudyError when it is not one."""
    found = rows.filter(pl.all_horizontal(pl.lit(value=True), *(pl.col(k).cast(pl.String) == v for k, v in named.items())))
    for column in key:
        if column in named or found.height < 2 or column == "stratum":
            continue
        of_all = found.filter(pl.col(column).cast(pl.String).is_in(ANY))
        found = of_all if of_all.height else found
    if found.height == 1:
        return found.to_dicts()[0]
    if not found.height:
        raise StudyError(f"no row has {', '.join(f'{k}={v}' for k, v in named.items()) or 'a value'}")
    apart = next((c for c in key if found[c].n_unique() > 1), key[-1])
    raise StudyError(f"{found.height} rows fit; name {apart}, one of {', '.join(map(str, found[apart].unique().sort()))}")


def _table(run: Run, table: str) -> pl.DataFrame:
    stem = {"reject_count": "rejects_by_reason"}.get(table)
    try:
        return run.read(table, under="tables", stem=stem)
    except ContractError:
        return run.read(table)


def _people(run: Run, store: Store, *, table: str, row: Row, column: str) -> pl.DataFrame:
    if not isinstance(row[column], int) or isinstance(row[column], bool):
        raise StudyError(f"{table}.{column} is {row[column]!r}, which counts nobody; name a column such as {_counts(table)}")
    if table in KEPT:
        return KEPT[table](run, store, row, column)
    if table in COPIED:
        table, row = _copied_from(run, table, row=row, column=column)
    target = row.get("target") or run.read("performance", under="tables")["target"][0]
    cuts = dict(run.read("threshold", under="tables").select("recipe", "score_cut").iter_rows())

    def people(recipe: str) -> AnalysisSet:
        return analysis_of(run, recipe, reference_id=row["reference_id"], target=target)

    recipe = row["recipe"]
    return people_behind(people(recipe), table=table, row=row, column=column, cut=cuts[recipe], others=people)


def _counts(table: str) -> str:
    counts = [field.name for field in contract(table).fields if field.type == "integer" and field.name.startswith("n_")]
    return "n_persons" if "n_persons" in counts else counts[0]


def _copied_from(run: Run, table: str, *, row: Row, column: str) -> tuple[str, Row]:
    """The row that a row of published or substudy repeats; StudyError for a count that is not of this run."""
    if column not in {"n_persons", "n_events"}:
        raise StudyError(f"{table}.{column} counts nobody of this run; name n_persons")
    recipe, partition = row.get("variant") or row["recipe"], row.get("partition", "test")
    named = {
        "recipe": recipe, "metric": row["metric"], "partition": partition, "stratum": OVERALL, "is_same_acquisition": EVERYONE,
        "unit": "person",
    }  # fmt: skip
    for source in COPIED[table]:
        rows = run.read(source, under="tables")
        found = rows.filter(pl.all_horizontal(pl.col(name) == value for name, value in named.items()))
        if found.height:
            return source, found.to_dicts()[0]
    raise LedgerError(f"trace: {table} repeats a row of {' or '.join(COPIED[table])} that is not there")


def _left(run: Run, store: Store, *, row: Row, column: str) -> pl.DataFrame:
    if column not in {"n_in", "n_excluded", "n_out"}:
        raise StudyError(f"attrition counts in n_in, n_excluded and n_out; {column!r} is no count")
    if row["stage"] in {"infer", "evaluate"}:
        return _left_late(run, row, column=column)
    if row["level"] in OF_FATE:
        mine = pl.all_horizontal(pl.col(c) == row[c] for c in ("recipe", "reference_id", "level", "center"))
        at, step = pl.col("step_number"), row["step_number"]
        kept = {"n_in": at >= step, "n_excluded": at == step, "n_out": at > step}[column]
        return run.read("fate").filter(mine & kept).select("center", pl.col("item_key").alias(KEYS[row["level"]]))
    if column != "n_excluded":
        raise StudyError(f"of {row['level']}s only those who left are traced; name n_excluded")
    if row["reason"] == "waiting":
        files = store.current("file", snapshot=run.snapshot, center=row["center"], columns=["center", "file_key", "fate"])
        return files.filter(pl.col("fate") == "waiting").select("center", "file_key")
    refused = _rejects(run, store, center=row["center"], stage=row["stage"], level=row["level"], reason=row["reason"])
    return refused.filter(pl.col("scope") == row["reference_id"]) if row["level"] == "exam" else refused


def _left_late(run: Run, row: Row, *, column: str) -> pl.DataFrame:
    """Who left at infer or evaluate; those steps are worked out anew from the parts of the run."""
    if column != "n_excluded":
        raise StudyError(f"of the steps of {row['stage']} only those who left are traced; name n_excluded")
    targets = run.read("performance", under="tables")["target"].unique().to_list()
    of = analysis_of(run, row["recipe"], reference_id=row["reference_id"], target=targets[0])
    people = (of.paired if row["level"] == "person" else of.series).filter(pl.col("center") == row["center"])
    refused, is_tested = pl.col("reject_reason"), pl.col("partition").is_in(TEST)
    if row["stage"] == "infer":
        people = people.filter(refused == row["reason"])
    elif row["reason"] == SITE_TUNING:
        people = people.filter(refused.is_null() & (pl.col("partition") == SITE_TUNING))
    elif row["reason"] == "train_or_tuning":
        people = people.filter(refused.is_null() & ~is_tested & (pl.col("partition") != SITE_TUNING))
    elif row["reason"] == "prevalence_index_only":
        people = people.filter(refused.is_null() & is_tested & ~pl.col("is_performance_index"))
    elif row["reason"] == "further_image":
        people = people.filter(refused.is_null() & is_tested & pl.col("is_performance_index") & ~pl.col("is_counted"))
    else:
        is_counted = pl.lit(value=True) if row["level"] == "person" else pl.col("is_performance_index") & pl.col("is_counted")
        people = people.filter(refused.is_null() & is_tested & is_counted & pl.col("truth").is_null())
    return people.select("center", "patient_key") if row["level"] == "person" else people.select("center", "series_key")


def _refused(run: Run, store: Store, row: Row) -> pl.DataFrame:
    return _rejects(run, store, center=row["center"], stage=row["stage"], level=row["level"], reason=row["reason"])


def _rejects(run: Run, store: Store, **of: str) -> pl.DataFrame:
    rows = store.current("reject", snapshot=run.snapshot)
    if run.has("reject"):
        rows = pl.concat([rows, run.read("reject")])
    return rows.filter(pl.all_horizontal(pl.col(c) == value for c, value in of.items())).select("center", "item_key", "scope")


def _located(keys: pl.DataFrame, run: Run, store: Store) -> pl.DataFrame:
    """Add the path of a file, or the folders of a series; null for what has none."""
    where = pl.concat_str("archive", "path", separator="/")
    for own, table in (("file_key", "file"), ("item_key", "file")):
        if own in keys.columns:
            files = store.current(table, snapshot=run.snapshot, columns=["center", "file_key", "archive", "path"])
            return keys.join(
                files.select("center", pl.col("file_key").alias(own), where.alias("path")), on=["center", own], how="left"
            )
    if "series_key" not in keys.columns:
        return keys.with_columns(path=pl.lit(None, pl.String))
    folder = where.str.replace(r"/[^/]*$", "").unique().sort().str.join(";")
    located = store.current("locator", snapshot=run.snapshot).filter(pl.col("kind") == "image")
    folders = located.group_by("center", "series_key").agg(path=folder)
    return keys.join(folders, on=["center", "series_key"], how="left")
