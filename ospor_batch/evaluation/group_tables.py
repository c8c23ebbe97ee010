"""Rows of the heterogeneity table: estimates pooled over centers and over scanner vendors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import polars as pl

from ospor_batch.evaluation.analysis_set import People, performance_people
from ospor_batch.evaluation.discrimination import auc, roc_area
from ospor_batch.evaluation.heterogeneity import Effect, Pooled, logit_auc, logit_share, pool_random_effects, tau2_interval
from ospor_batch.evaluation.intervals import Estimate, Interval, estimated, expit, not_estimable
from ospor_batch.evaluation.tables import Context, Row, stated, table_at

GROUPINGS = ("center", "scanner_vendor")
METHOD = "reml_hartung_knapp_floored"
Found = tuple[Effect | str, int]
"""A group's effect, or the reason why it cannot enter, and the persons behind it."""


def heterogeneity_rows(context: Context, people: People) -> list[Row]:
    """One row per grouping and metric; groups that cannot enter are named with their reason."""
    return [row for grouping in GROUPINGS for row in _of_grouping(context, people, grouping=grouping)]


def _of_grouping(context: Context, people: People, *, grouping: str) -> Iterator[Row]:
    names = sorted(set(people.eligible[grouping]) | set(people.paired[grouping]))
    for metric, effect in EFFECTS.items():
        entered: list[Effect] = []
        left_out: list[str] = []
        n_persons = 0
        for name in names:
            mine = pl.col(grouping) == name
            found, n = effect(context, people.eligible.filter(mine), people.paired.filter(mine))
            if isinstance(found, str):
                left_out.append(f"{name}: {found}")
                continue
            entered.append(found)
            n_persons += n
        pooled = pool_random_effects([e.value for e in entered], [e.variance for e in entered])
        yield {
            "recipe": context.recipe,
            "reference_id": context.reference_id,
            "partition": people.partition,
            "grouping": grouping,
            "metric": metric,
            "model_digest": context.model_digest,
            "n_groups": pooled.n_groups,
            "groups_left_out": "; ".join(left_out),
            "n_persons": n_persons,
            **_between(pooled, tau2_interval([e.value for e in entered], [e.variance for e in entered])),
            **stated(back_to_share(pooled)),
        }


def _between(pooled: Pooled, spread: Interval | None) -> dict[str, Any]:
    prediction = pooled.prediction
    return {
        "tau2": pooled.tau2,
        "tau2_lower": None if spread is None else spread.lower,
        "tau2_upper": None if spread is None else spread.upper,
        "i2_percent": pooled.i2_percent,
        "q": pooled.q,
        "prediction_lower": None if prediction is None else expit(prediction.lower),
        "prediction_upper": None if prediction is None else expit(prediction.upper),
    }


def back_to_share(pooled: Pooled) -> Estimate:
    """The pooled mean and its interval, back from the logit scale."""
    if pooled.mean is None or pooled.interval is None:
        return not_estimable(pooled.reason or "fewer_than_3_groups")
    return estimated(expit(pooled.mean), Interval(expit(pooled.interval.lower), expit(pooled.interval.upper)), method=METHOD)


def _auc(context: Context, _eligible: pl.DataFrame, paired: pl.DataFrame) -> Found:
    scored = performance_people(paired)
    truth, score = scored["truth"].to_numpy(), scored["score"].to_numpy()
    estimate, area = auc(truth, score, minimum_events=context.minimum_events), roc_area(truth, score)
    if estimate.reason is not None or area.auc is None or area.variance is None:
        return estimate.reason or "not_estimable", scored.height
    return logit_auc(area.auc, area.variance), scored.height


def _sensitivity(context: Context, _eligible: pl.DataFrame, paired: pl.DataFrame) -> Found:
    table = table_at(context, paired)
    return ("no_threshold", 0) if table is None else _share(table.tp, table.n_events, empty="no_events")


def _specificity(context: Context, _eligible: pl.DataFrame, paired: pl.DataFrame) -> Found:
    table = table_at(context, paired)
    return ("no_threshold", 0) if table is None else _share(table.tn, table.n_others, empty="no_non_events")


def _prev_label(_context: Context, _eligible: pl.DataFrame, paired: pl.DataFrame) -> Found:
    truth = paired["truth"].drop_nulls()
    return _share(int(truth.sum()), len(truth), empty="no_labelled_people")


def _prev_test_positive(context: Context, eligible: pl.DataFrame, _paired: pl.DataFrame) -> Found:
    cut, scores = context.threshold.score_cut, eligible["score"].drop_nulls()
    return ("no_threshold", 0) if cut is None else _share(int((scores >= cut).sum()), len(scores), empty="no_scored_people")


def _share(n_success: int, n: int, *, empty: str) -> Found:
    return (logit_share(n_success, n), n) if n else (empty, 0)


EFFECTS: dict[str, Callable[[Context, pl.DataFrame, pl.DataFrame], Found]] = {
    "auc": _auc,
    "sensitivity": _sensitivity,
    "specificity": _specificity,
    "prev_label": _prev_label,
    "prev_test_positive": _prev_test_positive,
}
