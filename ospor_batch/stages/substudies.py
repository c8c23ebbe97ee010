"""Substudies side by side: the same recipe with some parameters changed, on the same people, for the report."""

from __future__ import annotations

import polars as pl

from ospor_batch.config import Recipe, Study
from ospor_batch.contracts.table import schema_of
from ospor_batch.evaluation.strata import EVERYONE, OVERALL
from ospor_batch.runs import Run
from ospor_batch.stages.evaluate import csv_text
from ospor_batch.store import write_text

PARTITIONS = ("test", "internal_test", "external")  # the first is both together
METRICS = ("auc", "sensitivity", "specificity")
COPIED = (
    "n_persons", "n_events", "estimate", "estimate_lower", "estimate_upper", "interval_method", "status", "status_reason",
)  # fmt: skip


def compare_substudies(study: Study, run: Run) -> None:
    """Write the table of every recipe that has substudies, and its words; nothing when there is none."""
    if not any(recipe.substudies for recipe in study.recipes):
        return
    performance = run.read("performance", under="tables").filter(
        (pl.col("stratum") == OVERALL)
        & (pl.col("is_same_acquisition") == EVERYONE)
        & (pl.col("unit") == "person")
        & pl.col("partition").is_in(PARTITIONS)
        & pl.col("metric").is_in(METRICS)
    )
    rows = [
        row for recipe in study.recipes if recipe.substudies for one in _variants(study, recipe)
        for row in _rows(performance, one, of=recipe)
    ]  # fmt: skip
    table = pl.DataFrame(rows, schema=schema_of("substudy"))
    run.write("substudy", table, under="tables")
    write_text(csv_text(table), target=run.path("substudy", under="tables").with_suffix(".csv"))
    words = pl.DataFrame([_words()], schema=schema_of("exhibit"))
    run.write("exhibit", words, under="exhibits", stem="substudies")


def _variants(study: Study, recipe: Recipe) -> list[Recipe]:
    return [recipe, *(one for one in study.recipes if one.substudy_of == recipe.key)]


def _rows(performance: pl.DataFrame, variant: Recipe, *, of: Recipe) -> list[dict[str, object]]:
    changed = "; ".join(
        f"{name} = {value}" for name, value in sorted(variant.parameters.items()) if of.parameters.get(name) != value
    )
    mine = performance.filter(pl.col("recipe") == variant.key).sort("partition", "metric")
    return [
        {
            "recipe": of.key, "variant": variant.key, "changed": changed, "partition": row["partition"],
            "metric": row["metric"], **{name: row[name] for name in COPIED},
        }
        for row in mine.iter_rows(named=True)
    ]  # fmt: skip


def _words() -> dict[str, object]:
    return {
        "file": "substudy", "kind": "table", "recipe": "all", "contract": "substudy", "section": "Substudies", "position": 0,
        "title": "Sub-regions, image sizes, networks",
        "caption": "Each variant was trained, tuned and cut by itself on the same partitions; the people of a variant are "
        "those whose image it could read. Differences with their p stand in the table of comparisons (families by recipe).",
        "alt_text": None, "hidden_columns": "interval_method",
    }  # fmt: skip
