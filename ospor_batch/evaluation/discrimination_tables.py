"""Rows of discrimination: the AUC by every interval, several images a person, declared rates, and bounds for missing scores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ospor_batch.evaluation.analysis_set import AnalysisSet, People, images_of, performance_people
from ospor_batch.evaluation.clustered import bootstrap_auc, clustered_auc, clustered_proportion
from ospor_batch.evaluation.curves import (
    auc_within_groups,
    partial_auc,
    sensitivity_at_specificity,
    specificity_at_sensitivity,
)
from ospor_batch.evaluation.discrimination import auc
from ospor_batch.evaluation.intervals import Estimate, estimated, not_estimable, proportion
from ospor_batch.evaluation.strata import EVERYONE, OVERALL
from ospor_batch.evaluation.tables import Context, Row, stated

GROUPINGS = ("center", "scanner_vendor")
COMPLETE, WRONG, RIGHT = "complete_case", "missing_wrong", "missing_right"
NO_RATE = None
MOST_RESAMPLED = 200_000  # images: beyond, the bootstrap tells nothing that the closed form does not, and takes a minute
Found = tuple[str, str, float | None, Estimate]
"""Metric, method asked for, declared rate, and estimate."""


@dataclass(frozen=True)
class Asked:
    """What the study declares for these rows: rates to reach, and how often and from which seed to resample."""

    max_fpr: float
    specificity: float
    sensitivity: float
    n_replicates: int
    seed: int


def discrimination_rows(context: Context, people: People, *, of: AnalysisSet, asked: Asked) -> list[Row]:
    """Overall, per center and per vendor; images only where somebody has several, resampling only overall."""
    images, found = images_of(of, people), []
    for grouping, name, rows in _groups(people.paired):
        truth_known = rows.filter(pl.col("truth").is_not_null())
        base = _base(context, people, grouping, name)
        for analysis, mine in _analyses(truth_known):
            counted = _counted(mine, n_missing=int(truth_known["score"].null_count()))
            found += [
                base | counted | _said("person", analysis, one)
                for one in _of_persons(context, mine, analysis=analysis, is_overall=grouping == OVERALL, asked=asked)
            ]
        every = performance_people(images if grouping == OVERALL else images.filter(pl.col(grouping) == name))
        if every.height > every["patient_key"].n_unique():
            counted = _counted(every, n_missing=0)
            found += [
                base | counted | _said("image", COMPLETE, one)
                for one in _of_images(context, every, is_overall=grouping == OVERALL, asked=asked)
            ]
    return found


def _groups(paired: pl.DataFrame) -> Iterator[tuple[str, str, pl.DataFrame]]:
    yield OVERALL, EVERYONE, paired
    for grouping in GROUPINGS:
        for name in sorted(set(paired[grouping].drop_nulls())):
            yield grouping, str(name), paired.filter(pl.col(grouping) == name)


def _analyses(rows: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    """Complete cases, and where scores are missing everybody with the missing ones below or above all (methods S12)."""
    yield COMPLETE, rows.filter(pl.col("score").is_not_null())
    known = rows["score"].drop_nulls()
    if not rows["score"].null_count() or not len(known):
        return
    scores = known.to_numpy()
    low, high = float(scores.min()) - 1, float(scores.max()) + 1
    for analysis, is_positive in ((WRONG, ~pl.col("truth")), (RIGHT, pl.col("truth"))):
        taken = pl.when(is_positive).then(high).otherwise(low)
        is_missing = pl.col("score").is_null()
        yield analysis, rows.with_columns(score=pl.coalesce("score", taken), taken=pl.when(is_missing).then(is_positive))


def _of_persons(context: Context, rows: pl.DataFrame, *, analysis: str, is_overall: bool, asked: Asked) -> Iterator[Found]:
    truth, score = _columns(rows)
    yield "auc", "delong_logit", NO_RATE, auc(truth, score, minimum_events=context.minimum_events)
    yield from _at_the_cut(context, rows, truth, score)
    if analysis != COMPLETE:
        return
    wald = auc(truth, score, method="delong_wald", minimum_events=context.minimum_events)
    yield "auc", "delong_wald", NO_RATE, wald
    few = _too_few(truth, context.minimum_events)
    yield "partial_auc", "placement_logit", asked.max_fpr, few or partial_auc(truth, score, max_fpr=asked.max_fpr)
    at_sp = few or sensitivity_at_specificity(truth, score, specificity=asked.specificity)
    at_se = few or specificity_at_sensitivity(truth, score, sensitivity=asked.sensitivity)
    yield "sensitivity_at_specificity", "wilson", asked.specificity, at_sp
    yield "specificity_at_sensitivity", "wilson", asked.sensitivity, at_se
    if is_overall:
        yield (
            "auc_within_center",
            "delong_logit",
            NO_RATE,
            few or auc_within_groups(truth, score, group=rows["center"].to_numpy()),
        )
        if asked.n_replicates:
            yield "auc", "bootstrap_percentile", NO_RATE, few or _resampled(rows, truth, score, asked)


def _at_the_cut(context: Context, rows: pl.DataFrame, truth: NDArray[np.bool_], score: NDArray[np.float64]) -> Iterator[Found]:
    """Exact intervals at the locked threshold; a missing score is called as the analysis takes it."""
    cut = context.threshold.score_cut
    if cut is None:
        none = not_estimable("no_threshold")
        yield "sensitivity", "clopper_pearson", NO_RATE, none
        yield "specificity", "clopper_pearson", NO_RATE, none
        return
    called = score >= cut
    if "taken" in rows.columns:
        taken = rows["taken"]
        called = np.where(taken.is_null().to_numpy(), called, taken.fill_null(value=False).to_numpy())
    exact = "clopper_pearson"
    for metric, inside, hit, empty in (
        ("sensitivity", truth, True, "no_events"),
        ("specificity", ~truth, False, "no_non_events"),
    ):
        n_right = int((called[inside] == hit).sum())
        yield metric, exact, NO_RATE, proportion(n_right, int(inside.sum()), empty=empty, method=exact)


def _of_images(context: Context, rows: pl.DataFrame, *, is_overall: bool, asked: Asked) -> Iterator[Found]:
    truth, score = _columns(rows)
    person, cut = rows["patient_key"].to_numpy(), context.threshold.score_cut
    few = _too_few(truth, context.minimum_events)
    yield "auc", "obuchowski_logit", NO_RATE, few or clustered_auc(truth, score, cluster=person)
    for metric, inside, hit in (("sensitivity", truth, True), ("specificity", ~truth, False)):
        share = not_estimable("no_threshold") if cut is None else not_estimable("no_events" if hit else "no_non_events")
        if cut is not None and inside.any():
            share = clustered_proportion((score[inside] >= cut) == hit, cluster=person[inside])
        yield metric, "clustered_logit_t", NO_RATE, share
    if is_overall and asked.n_replicates:
        yield "auc", "bootstrap_percentile", NO_RATE, few or _resampled(rows, truth, score, asked)


def _resampled(rows: pl.DataFrame, truth: NDArray[np.bool_], score: NDArray[np.float64], asked: Asked) -> Estimate:
    if truth.size > MOST_RESAMPLED:
        return not_estimable("too_many_to_resample")
    point = auc(truth, score)
    drawn = bootstrap_auc(
        truth, score, cluster=rows["patient_key"].to_numpy(), seed=asked.seed, n_replicates=asked.n_replicates
    )
    if point.value is None or drawn is None:
        return not_estimable(point.reason or "one_class")
    return estimated(point.value, drawn.interval, method=f"bootstrap_of_persons_{drawn.n_used}")


def _too_few(truth: NDArray[np.bool_], minimum: int) -> Estimate | None:
    n_events = int(truth.sum())
    if not truth.size:
        return not_estimable("no_persons")
    if n_events < minimum:
        return not_estimable("too_few_events" if n_events else "no_events")
    n_others = truth.size - n_events
    return not_estimable("too_few_non_events" if n_others else "no_non_events") if n_others < minimum else None


def _columns(rows: pl.DataFrame) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    return rows["truth"].to_numpy().astype(bool), rows["score"].to_numpy().astype(np.float64)


def _base(context: Context, people: People, grouping: str, group: str) -> Row:
    return {
        "recipe": context.recipe, "reference_id": context.reference_id, "partition": people.partition, "grouping": grouping,
        "group": group, "model_digest": context.model_digest, "threshold_id": context.threshold.id,
    }  # fmt: skip


def _counted(rows: pl.DataFrame, *, n_missing: int) -> Row:
    return {
        "n_persons": rows["patient_key"].n_unique(), "n_images": rows.height, "n_events": int(rows["truth"].sum()),
        "n_missing": n_missing,
    }  # fmt: skip


def _said(unit: str, analysis: str, found: Found) -> Row:
    metric, interval, rate, estimate = found
    named = {"unit": unit, "analysis": analysis, "metric": metric, "interval": interval, "declared_rate": rate}
    return named | stated(estimate)
