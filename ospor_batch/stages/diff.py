"""Two runs side by side: what differs in how they were made, which counts and estimates moved, and from which step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from ospor_batch.contracts import contract
from ospor_batch.runs import Run, run_at

MADE_OF = ("study", "study_digest", "snapshot", "code_version", "models", "is_generated")
ESTIMATES = ("prevalence", "performance", "agreement")
# what names a run rather than what is estimated
NOT_COMPARED = {"model_digest", "threshold_id"}
SAME = 1e-12
LEVELS = ("file", "instance", "export_row", "exam", "series", "study", "person", "label")


@dataclass(frozen=True)
class Difference:
    """made_of: what the records differ in; steps: counts that moved; estimates: numbers that moved, each with its cause.

    Of a step, n_excluded says who left there; n_in moves with every step after the first.
    """

    made_of: tuple[tuple[str, str, str], ...]
    steps: pl.DataFrame
    estimates: pl.DataFrame


def diff(folder_a: Path, folder_b: Path) -> Difference:
    """Compare two runs, of one workspace or of two."""
    (_, a), (_, b) = run_at(folder_a), run_at(folder_b)
    made_of = [(name, str(a.record[name]), str(b.record[name])) for name in MADE_OF if a.record[name] != b.record[name]]
    steps = moved_steps(_attrition(a), _attrition(b))
    estimates = [moved_estimates(*(r.read(t, under="tables") for r in (a, b)), table=t) for t in ESTIMATES if _both(a, b, t)]
    found = pl.concat(estimates) if estimates else pl.DataFrame(schema=_estimate_schema())
    return Difference(tuple(made_of), steps, found.join(_causes(steps), on=["recipe", "center"], how="left"))


def moved_steps(a: pl.DataFrame, b: pl.DataFrame) -> pl.DataFrame:
    """Steps whose counts differ, in the order of the flow; is_first marks where a chain began to move.

    A chain begins to move where those who entered, or those who left, differ first: a step that only passes on what came
    is not listed as the cause. Steps that only one run has count 0 in the other.
    """
    key = ["recipe", "reference_id", "center", "level", "step", "stage", "reason"]
    counts = ["n_in", "n_excluded", "n_out"]
    both = a.select(*key, "step_number", *counts).join(
        b.select(*key, "step_number", *counts), on=key, how="full", coalesce=True, suffix="_b"
    )
    both = both.with_columns(pl.col(c, f"{c}_b").fill_null(0) for c in counts).with_columns(
        order=pl.coalesce("step_number", "step_number_b"),
        rank=pl.col("level").replace_strict({name: i for i, name in enumerate(LEVELS)}, default=len(LEVELS)),
        is_recipe=pl.col("recipe") != "catalog",
    )
    chain = ["is_recipe", "recipe", "reference_id", "center", "rank"]
    moved = both.filter(pl.any_horizontal(pl.col(c) != pl.col(f"{c}_b") for c in counts)).sort(*chain, "order")
    is_cause = (pl.col("n_excluded") != pl.col("n_excluded_b")) | (pl.int_range(pl.len()).over(chain) == 0)
    return (
        moved.with_columns(is_first=pl.int_range(pl.len()).over(chain) == 0)
        .filter(is_cause)
        .select(*key, *counts, *(f"{c}_b" for c in counts), "is_first")
    )


def moved_estimates(a: pl.DataFrame, b: pl.DataFrame, *, table: str) -> pl.DataFrame:
    """Rows of a table whose number of people or estimate differ; null where one run has no such row."""
    key = [c for c in contract(table).primary_key if c not in NOT_COMPARED and c in a.columns]
    counted = [c for c in ("n_persons", "n_events") if c in a.columns]
    wide = [*key, *counted, "estimate"]
    both = a.select(wide).join(b.select(wide), on=key, how="full", coalesce=True, suffix="_b", nulls_equal=True)
    is_moved = ((pl.col("estimate") - pl.col("estimate_b")).abs() > SAME).fill_null(
        pl.col("estimate").is_null() != pl.col("estimate_b").is_null()
    )
    for name in counted:
        is_moved = is_moved | pl.col(name).ne_missing(pl.col(f"{name}_b"))
    events = [pl.col(c) if "n_events" in counted else pl.lit(None, pl.Int64).alias(c) for c in ("n_events", "n_events_b")]
    people = [pl.col(c) if "n_persons" in counted else pl.lit(None, pl.Int64).alias(c) for c in ("n_persons", "n_persons_b")]
    place = pl.concat_str(
        [pl.format("{}={}", pl.lit(c), pl.col(c)) for c in key if c not in {"recipe", "center"}], separator=" "
    )
    return (
        both.filter(is_moved)
        .sort(key)
        .select(
            pl.lit(table).alias("table"), "recipe", "center", place.alias("row"), *people, *events, "estimate", "estimate_b"
        )
    )


def _causes(steps: pl.DataFrame) -> pl.DataFrame:
    """The first step that moved, for every recipe and center; the catalog's stands before the recipes'."""
    said = pl.format("{} {}: {} ({})", "stage", "level", "step", "reason").alias("moved_from")
    firsts = steps.filter("is_first").select("recipe", "center", said)
    catalog = firsts.filter(pl.col("recipe") == "catalog")
    pairs = steps.filter(pl.col("recipe") != "catalog").select("recipe", "center").unique()
    everywhere = pairs.join(catalog.select("center", "moved_from"), on="center", how="inner").select(
        "recipe", "center", "moved_from"
    )
    own = firsts.filter(pl.col("recipe") != "catalog")
    each = pl.concat([everywhere, own]).unique(subset=["recipe", "center"], keep="first", maintain_order=True)
    over_all = each.sort("recipe", "center").unique(subset=["recipe"], keep="first", maintain_order=True)
    return pl.concat([each, over_all.with_columns(center=pl.lit("all"))])


def _attrition(run: Run) -> pl.DataFrame:
    return run.read("attrition", under="tables") if run.has("attrition", under="tables") else run.read("attrition")


def _both(a: Run, b: Run, table: str) -> bool:
    return a.has(table, under="tables") and b.has(table, under="tables")


def _estimate_schema() -> dict[str, pl.DataType]:
    text, number, count = pl.String(), pl.Float64(), pl.Int64()
    return {
        "table": text, "recipe": text, "center": text, "row": text, "n_persons": count, "n_persons_b": count,
        "n_events": count, "n_events_b": count, "estimate": number, "estimate_b": number,
    }  # fmt: skip
