"""The ledger, recomputed from the tables alone: requested = done + excluded + failed, per stage and center."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from ospor_batch.config import Study
from ospor_batch.runs import Run, all_runs, latest_run
from ospor_batch.stages.live import Seen, look
from ospor_batch.stages.specs import digests
from ospor_batch.stages.summary import StageSummary
from ospor_batch.stages.train import REJECTS
from ospor_batch.stages.training_rows import PARTITIONS
from ospor_batch.store import Store

FLOW_LEVELS = ("file", "instance", "series", "person")


@dataclass(frozen=True)
class FlowStep:
    """One step of the flow over all centers: who came, who left and why."""

    recipe: str
    stage: str
    level: str
    step: str
    reason: str
    n_in: int
    n_excluded: int
    n_out: int
    note: str = ""  # what the counts do not say, such as the centers where a guard was not assessed


def ledger(study: Study, store: Store) -> list[StageSummary]:
    """Every stage's ledger: the catalog as committed, and the newest run of this study."""
    found = [summary for center in study.centers for summary in _catalog_ledger(store, center.name)]
    run = newest_run(study, store)
    return found if run is None else found + _run_ledger(study, run)


def newest_run(study: Study, store: Store) -> Run | None:
    """The newest run of this very study, complete or not; else the newest complete one of the workspace."""
    own = [run for run in all_runs(store) if run.record["study_digest"] == study.digest()]
    return max(own, key=lambda run: (run.record["started_at"], run.run_id), default=latest_run(store))


def inference_of(run: Run) -> Seen | None:
    """How far the inference of a run is, from what it and its workers leave on disk; null when none began."""
    return look(run.private)


def flow(run: Run) -> list[FlowStep]:
    """Every step at which something left, over all centers, in the order of the tables."""
    return flow_of(run.read("attrition", under="tables") if run.has("attrition", under="tables") else run.read("attrition"))


def flow_of(rows: pl.DataFrame) -> list[FlowStep]:
    """Every step of an attrition table over all centers, in the order of the tables."""
    by = ["recipe", "reference_id", "stage", "level", "step_number", "step", "reason"]
    at = rows.drop_nulls("note").group_by(*by, "note").agg(pl.col("center").unique().sort().str.join(", "))
    silent = at.group_by(by).agg(pl.format("{} ({})", "note", "center").sort().str.join("; ").alias("note"))
    counted = rows.group_by(by).agg(pl.col("n_in", "n_excluded", "n_out").sum())
    counted = counted.join(silent, on=by, how="left", nulls_equal=True)
    first = pl.col("recipe") != "catalog"
    order = counted.with_columns(is_recipe=first, rank=_rank(pl.col("level"))).sort(
        "is_recipe", "recipe", "reference_id", "rank", "step_number"
    )
    return [
        FlowStep(
            r["recipe"], r["stage"], r["level"], r["step"], r["reason"], r["n_in"], r["n_excluded"], r["n_out"], r["note"] or ""
        )
        for r in order.iter_rows(named=True)
    ]


def _rank(level: pl.Expr) -> pl.Expr:
    return level.replace_strict({name: i for i, name in enumerate(FLOW_LEVELS)}, default=len(FLOW_LEVELS))


def _catalog_ledger(store: Store, center: str) -> list[StageSummary]:
    files = store.current("file", center=center, columns=["file_key", "fate"])
    instances = store.current("instance", center=center, columns=["file_key"])
    series = store.current("series", center=center, columns=["n_instances"])
    exams = store.current("exam", center=center, columns=["n_export_rows"])
    rejects = store.current("reject", center=center)
    crawled = rejects.filter(pl.col("stage") == "crawl")
    n_transient = crawled.filter(pl.col("is_transient")).height
    n_waiting = files.filter(pl.col("fate") == "waiting").height
    refused = rejects.filter(pl.col("stage") == "catalog").height
    rows = rejects.filter((pl.col("stage") == "label") & (pl.col("level") == "export_row")).height
    n_read = int(exams["n_export_rows"].sum()) + store.current("event", center=center, columns=["event_key"]).height
    crawl = StageSummary(
        "crawl", center, "file", files.height, instances.height, crawled.height - n_transient + n_waiting, n_transient
    )
    catalog = StageSummary("catalog", center, "instance", instances.height, int(series["n_instances"].sum()), refused, 0)
    label = StageSummary("label", center, "export_row", n_read + rows, n_read, rows, 0)
    return [crawl, label] if not catalog.closes and _is_behind(store, center) else [crawl, catalog, label]


def _is_behind(store: Store, center: str) -> bool:
    """Whether the catalog stage has committed nothing since files were crawled: it has yet to judge them."""
    own = pl.col("center") == center, pl.col("stage").is_in(["crawl", "catalog"])
    return store.sweeps().filter(*own)["stage"].to_list()[-1:] == ["crawl"]


def _run_ledger(study: Study, run: Run) -> list[StageSummary]:
    found: list[StageSummary] = []
    if not run.has("selection") or not run.has("manifest"):
        return found
    selection, manifest = run.read("selection"), run.read("manifest")
    for recipe in study.recipes:
        for center in study.centers:
            mine = (pl.col("recipe") == recipe.key) & (pl.col("center") == center.name)
            chosen, listed = selection.filter(mine), manifest.filter(mine)
            found.append(
                StageSummary(
                    f"match {recipe.key}", center.name, "series", chosen.height, listed["series_key"].n_unique(),
                    chosen.height - listed["series_key"].n_unique(), 0,
                )
            )  # fmt: skip
            if recipe.is_trained and run.has("reject", stem=REJECTS):
                found.append(_train_ledger(run, recipe=recipe.key, center=center.name, listed=listed))
            if run.has("prediction") and run.has("reject"):
                found.append(_infer_ledger(study, run, recipe=recipe.key, center=center.name, listed=listed))
    return found


def _train_ledger(run: Run, *, recipe: str, center: str, listed: pl.DataFrame) -> StageSummary:
    asked = listed.filter(pl.col("is_performance_index") & pl.col("partition").is_in(PARTITIONS))
    refused = run.read("reject", stem=REJECTS).filter((pl.col("scope") == recipe) & (pl.col("center") == center))
    refused = asked.join(refused, left_on="series_key", right_on="item_key", how="inner")
    n_failed = refused.filter(pl.col("is_transient")).height
    n_done = asked.height - refused.height
    return StageSummary(f"train {recipe}", center, "series", asked.height, n_done, refused.height - n_failed, n_failed)


def _infer_ledger(study: Study, run: Run, *, recipe: str, center: str, listed: pl.DataFrame) -> StageSummary:
    _, model, parameters = digests(study, run)[recipe]
    predicted = run.read("prediction").filter((pl.col("model_digest") == model) & (pl.col("parameter_digest") == parameters))
    n_done = listed.join(predicted, on="item_digest", how="semi").height
    refused = run.read("reject").filter((pl.col("scope") == recipe) & (pl.col("center") == center))
    refused = listed.join(refused, left_on="series_key", right_on="item_key", how="inner")
    n_failed = refused.filter(pl.col("is_transient")).height
    return StageSummary(f"infer {recipe}", center, "series", listed.height, n_done, refused.height - n_failed, n_failed)
