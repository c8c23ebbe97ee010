"""The keys behind counts that match, segmentation, explanation and catalog left: read from their parts, never counted anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

from ospor_batch.catalog.contrast import told_of_contrast
from ospor_batch.cohort.guards import EVENTS, FINDINGS
from ospor_batch.cohort.linkage import ALL
from ospor_batch.evaluation.analysis_set import AnalysisSet, analysis_set, partitions_within
from ospor_batch.evaluation.strata import EVERYONE
from ospor_batch.inference.explaining import HEAT
from ospor_batch.models.prepared import PreparedStore
from ospor_batch.runs import Run
from ospor_batch.stages.explain import CLASSES
from ospor_batch.stages.match import LINKED
from ospor_batch.stages.people_seen import one_kind
from ospor_batch.stages.run_models import models_of
from ospor_batch.store import Store, read_part

Row = dict[str, Any]
PERSON, PAIR = ["center", "patient_key"], ["center", "patient_key", "series_key", "label_key"]


def analysis_of(run: Run, recipe: str, *, reference_id: str, target: str) -> AnalysisSet:
    """The people of a recipe as evaluate saw them, from the parts of the run alone."""
    mine = (pl.col("recipe") == recipe) & (pl.col("reference_id") == reference_id)
    model, parameters = models_of(run)[recipe]
    predicted = run.read("prediction").filter((pl.col("model_digest") == model) & (pl.col("parameter_digest") == parameters))
    refused = run.read("reject").filter((pl.col("stage") == "infer") & (pl.col("scope") == recipe))
    return analysis_set(run.read("manifest").filter(mine), predicted, rejects=refused, target=target)


def _linkage(run: Run, _store: Store, row: Row, column: str) -> pl.DataFrame:
    people = read_part(LINKED, source=run.private / f"{LINKED}.parquet").filter(
        _of_cohort(row), pl.col("center") == row["center"]
    )
    here = people if row["month"] == ALL else people.filter(pl.col("month") == row["month"])
    labelled, both = pl.col("is_labelled"), pl.col("is_both")
    kinds = {
        "n_imaged": pl.col("is_imaged"), "n_labelled": labelled, "n_both": both, "n_label_only": labelled & ~both,
        "n_imaged_elsewhere": pl.col("is_imaged_elsewhere"), "n_in_window": pl.col("is_in_window"),
    }  # fmt: skip
    return here.filter(one_kind(kinds, column)).select(PERSON)


def _window(run: Run, _store: Store, row: Row, column: str) -> pl.DataFrame:
    inside = (pl.col("before_days") == row["before_days"]) & (pl.col("after_days") == row["after_days"])
    change = pl.col("change")
    kinds = {
        "n_persons": change != "lost", "n_pairs": change != "lost", "n_events": pl.col("is_event"),
        "n_gained": change == "gained", "n_lost": change == "lost", "n_changed": change == "changed",
    }  # fmt: skip
    found = run.read("windowed").filter(_of_cohort(row), inside).filter(one_kind(kinds, column))
    return found.select(PAIR if column == "n_pairs" else PERSON)


def _guard(run: Run, store: Store, row: Row, column: str) -> pl.DataFrame:
    here = pl.col("center") == row["center"]
    if column == "n_events":
        events = store.current("event", snapshot=run.snapshot, columns=["center", "event_key", "code"])
        return events.filter(here, pl.col("code").is_in(row["codes"].split(";"))).select("center", "event_key")
    if column == "n_persons":
        is_on_pairs = row["rule"] not in {"no_event_before_image", "no_implant"}
        people = run.read("fate").filter(_of_cohort(row), here, pl.col("level") == "person")
        if is_on_pairs:  # those who have a pair at all
            steps = run.read("attrition").filter(_of_cohort(row), here, pl.col("level") == "person")
            people = people.filter(pl.col("step_number") > steps.filter(pl.col("reason") == "no_label")["step_number"].item())
        return people.select("center", patient_key="item_key")
    kinds = {"n_struck": pl.col("evidence") == EVENTS, "n_described": pl.col("evidence") == FINDINGS}
    mine = run.read("struck").filter(_of_cohort(row), here, pl.col("criterion") == row["criterion"])
    return mine.filter(one_kind(kinds, column)).select(PERSON)


def _contrast(run: Run, store: Store, row: Row, column: str) -> pl.DataFrame:
    keys = {"n_series": "series_key", "n_studies": "study_key", "n_persons": "patient_key"}
    one_kind({name: pl.lit(value=True) for name in keys}, column)
    named = ("center", "scanner_vendor", "contrast_evidence")
    series = told_of_contrast(store.current("series", snapshot=run.snapshot))
    mine = series.filter(pl.all_horizontal(pl.col(name) == row[name] for name in named))
    return mine.select("center", keys[column]).drop_nulls()


def _overlap(run: Run, _store: Store, row: Row, column: str) -> pl.DataFrame:
    """Persons, vertebrae, or for n_not_found series and the level that they lack."""
    model, parameters = models_of(run)[row["recipe"]]
    of = analysis_of(run, row["recipe"], reference_id=row["reference_id"], target="osteoporosis")
    people = of.series.select("center", "item_digest", "patient_key", "partition", "scanner_vendor").unique(maintain_order=True)
    mine = (pl.col("model_digest") == model) & (pl.col("parameter_digest") == parameters)
    rows = run.read("vertebra").filter(mine, pl.col("dice").is_not_null()).join(people, on="item_digest")
    rows = rows.filter(pl.col("partition").is_in(partitions_within(row["partition"])))
    if row["scanner_vendor"] != EVERYONE:
        rows = rows.filter(pl.col("scanner_vendor") == row["scanner_vendor"])
    at_level = pl.lit(value=True) if row["level"] == EVERYONE else pl.col("level") == row["level"]
    one = ["center", "patient_key", "item_digest", "level"]
    if column == "n_not_found":
        every = rows.select(one[:3]).unique().join(rows.select("level").unique().filter(at_level), how="cross")
        return every.join(rows, on=["item_digest", "level"], how="anti").select(one)
    kinds = {"n_persons": at_level, "n_vertebrae": at_level}
    measured = rows.filter(one_kind(kinds, column), pl.col(row["metric"]).is_not_null())
    return measured.select(PERSON if column == "n_persons" else one)


def _grad_cam(run: Run, _store: Store, row: Row, column: str) -> pl.DataFrame:
    one_kind(dict.fromkeys(("n_images", "n_without_heat"), pl.lit(value=True)), column)
    held = PreparedStore(run.private.absolute() / "grad_cam" / row["recipe"])
    target = run.read("performance", under="tables")["target"][0]
    is_class = pl.col(f"is_{target}").replace_strict(CLASSES, return_dtype=pl.String) == row["class"]
    rows = run.read("manifest").filter(
        pl.col("recipe") == row["recipe"], "is_performance_index", pl.col("partition") == row["partition"], is_class,
        pl.col("item_digest").is_in(sorted(held.items)),
    )  # fmt: skip
    rows = rows.unique(subset="item_digest", keep="first", maintain_order=True).select(
        "center", "patient_key", "series_key", "item_digest"
    )
    if column == "n_without_heat":
        is_dark = [not np.any(held.example(item).arrays[HEAT]) for item in rows["item_digest"]]
        rows = rows.filter(pl.Series(is_dark, dtype=pl.Boolean))
    return rows.drop("item_digest")


def _of_cohort(row: Row) -> pl.Expr:
    return pl.all_horizontal(pl.col(name) == row[name] for name in ("recipe", "reference_id"))


KEPT: dict[str, Callable[[Run, Store, Row, str], pl.DataFrame]] = {
    "linkage": _linkage, "window": _window, "guard": _guard, "contrast": _contrast, "overlap": _overlap,
    "grad_cam_region": _grad_cam,
}  # fmt: skip
