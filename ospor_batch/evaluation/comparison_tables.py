"""Rows that compare: centers left out in turn, pairs of centers, vendors and tube voltages, and three classes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import polars as pl

from ospor_batch.evaluation.analysis_set import People, performance_people
from ospor_batch.evaluation.curves import UnpairedDifference, compare_unpaired
from ospor_batch.evaluation.discrimination import Area, roc_area
from ospor_batch.evaluation.group_tables import EFFECTS, back_to_share
from ospor_batch.evaluation.heterogeneity import Effect, pool_random_effects
from ospor_batch.evaluation.interaction import score_by_group
from ospor_batch.evaluation.intervals import Estimate, estimated, not_estimable
from ospor_batch.evaluation.multiplicity import adjusted
from ospor_batch.evaluation.strata import EVERYONE
from ospor_batch.evaluation.tables import Context, Row, stated
from ospor_batch.evaluation.three_class import CLASSES, class_measures, class_table
from ospor_batch.evaluation.threshold import LockedThreshold

FAMILIES = {"auc_by_center": "center", "auc_by_scanner_vendor": "scanner_vendor", "auc_by_kvp": "kvp"}
NOBODY_LEFT_OUT = "none"


def leave_one_out_rows(context: Context, people: People) -> list[Row]:
    """Random-effects means over the centers, and with each center left out."""
    found = []
    for metric, effect in EFFECTS.items():
        entered: dict[str, Effect] = {}
        for center in context.centers:
            mine = pl.col("center") == center
            one, _ = effect(context, people.eligible.filter(mine), people.paired.filter(mine))
            if isinstance(one, Effect):
                entered[center] = one
        for left_out in (NOBODY_LEFT_OUT, *entered):
            kept = [value for center, value in entered.items() if center != left_out]
            pooled = pool_random_effects([e.value for e in kept], [e.variance for e in kept])
            found.append(
                _base(context, people) | {
                    "metric": metric, "left_out": left_out, "model_digest": context.model_digest, "n_groups": pooled.n_groups,
                    "tau2": pooled.tau2, "i2_percent": pooled.i2_percent, **stated(back_to_share(pooled)),
                }
            )  # fmt: skip
    return found


def comparison_rows(context: Context, people: People) -> list[Row]:
    """AUC of each pair of centers, vendors and tube voltages: raw p, and adjusted by Holm and Benjamini-Hochberg.

    Subgroups are compared by a test of their difference, never by looking at two intervals (methods S6).
    """
    scored = performance_people(people.paired)
    return [
        row for family, column in FAMILIES.items() for row in _family(context, people, scored, family=family, column=column)
    ]


def three_class_rows(
    context: Context, people: People, *, low_bone_mass: LockedThreshold, osteoporosis: LockedThreshold
) -> list[Row]:
    """Three classes by two cut-offs of one score against those of the reference, together and per center."""
    low, high = low_bone_mass.score_cut, osteoporosis.score_cut
    reason = None
    if low is None or high is None:
        reason = "no_threshold"
    elif low > high:
        reason = "cut_offs_cross"
    usable = people.paired.filter(pl.col("score").is_not_null() & pl.col("category").is_in(CLASSES))
    found = []
    for center in (EVERYONE, *context.centers):
        rows = usable if center == EVERYONE else usable.filter(pl.col("center") == center)
        score = rows["score"].to_numpy()
        truth = rows["category"].replace_strict({name: i for i, name in enumerate(CLASSES)}, return_dtype=pl.Int64).to_numpy()
        called = np.zeros(truth.size, dtype=np.int64) if reason else (score >= low).astype(int) + (score >= high).astype(int)
        table = class_table(truth, called)
        names = [f"n_{t}_as_{p}" for t in CLASSES for p in CLASSES]
        numbers = [None] * len(names) if reason else table.flatten().tolist()
        base = _base(context, people) | {
            "center": center, "model_digest": context.model_digest, "n_persons": rows.height,
            "threshold_ids": f"{low_bone_mass.id}; {osteoporosis.id}", **dict(zip(names, numbers, strict=True)),
        }  # fmt: skip
        for metric, estimate in class_measures(table).items():
            found.append(base | {"metric": metric, **stated(not_estimable(reason) if reason else estimate)})
    return [] if usable.height == 0 else found


def _family(context: Context, people: People, scored: pl.DataFrame, *, family: str, column: str) -> Iterator[Row]:
    names = sorted(set(scored[column].drop_nulls()))
    areas = {name: _area(scored.filter(pl.col(column) == name)) for name in names}
    pairs = list(itertools.combinations(names, 2))
    found = [_compared(areas[a], areas[b], context.minimum_events) for a, b in pairs]
    raw = [difference.p_normal for difference in found]
    holm, bh = adjusted(raw, method="holm"), adjusted(raw, method="bh")
    for (a, b), difference, p_holm, p_bh in zip(pairs, found, holm, bh, strict=True):
        yield _base(context, people) | {
            "family": family, "first": a, "second": b, "model_digest": context.model_digest,
            "degrees_of_freedom": None, "n_first": areas[a].n_positive + areas[a].n_negative,
            "n_second": areas[b].n_positive + areas[b].n_negative,
            "family_size": sum(p is not None for p in raw), "p_value": difference.p_normal, "p_holm": p_holm, "p_bh": p_bh,
            **stated(_said(difference)),
        }  # fmt: skip


def interaction_rows(context: Context, people: People) -> list[Row]:
    """Likelihood ratio test of the interaction of score and center, vendor and tube voltage, adjusted together.

    The estimate is the chi-square statistic; n of first is everybody, n of second those of groups that could enter.
    """
    scored = performance_people(people.paired)
    tested = []
    for column in FAMILIES.values():
        known = scored.filter(pl.col(column).is_not_null())
        truth, score = known["truth"].to_numpy(), known["score"].to_numpy()
        group = known[column].to_numpy()
        tested.append(score_by_group(truth, score, group=group, minimum_events=context.minimum_events))
    raw = [found.p_value for found in tested]
    holm, bh = adjusted(raw, method="holm"), adjusted(raw, method="bh")
    rows = []
    for column, found, p_holm, p_bh in zip(FAMILIES.values(), tested, holm, bh, strict=True):
        entered = scored.filter(pl.col(column).is_not_null() & ~pl.col(column).is_in(found.groups_left_out)).height
        none = found.statistic is None
        said = (
            not_estimable(found.reason or "none")
            if none
            else estimated(found.statistic or 0.0, None, method="likelihood_ratio")
        )
        rows.append(
            _base(context, people) | {
                "family": "interaction", "first": "score", "second": column, "model_digest": context.model_digest,
                "degrees_of_freedom": found.degrees, "n_first": scored.height, "n_second": entered,
                "family_size": sum(p is not None for p in raw), "p_value": found.p_value, "p_holm": p_holm, "p_bh": p_bh,
                **stated(said),
            }
        )  # fmt: skip
    return rows


def _compared(first: Area, other: Area, minimum_events: int) -> UnpairedDifference:
    fewest = min(first.n_positive, first.n_negative, other.n_positive, other.n_negative)
    if fewest < minimum_events:
        return UnpairedDifference(None, None, None, None, None, None, None, "too_few_events")
    return compare_unpaired(first, other)


def _said(difference: UnpairedDifference) -> Estimate:
    if difference.reason is not None or difference.difference is None:
        return not_estimable(difference.reason or "zero_variance")
    return estimated(difference.difference, difference.interval, method="delong_unpaired")


def _area(rows: pl.DataFrame) -> Area:
    return roc_area(rows["truth"].to_numpy(), rows["score"].to_numpy())


def _base(context: Context, people: People) -> Row:
    return {"recipe": context.recipe, "reference_id": context.reference_id, "partition": people.partition}
