"""AUC with DeLong's variance for thousands of groups in one pass over sorted rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ospor_batch.evaluation.discrimination import SMALLEST_CLASS, classes
from ospor_batch.evaluation.intervals import LEVEL, normal_quantile

Floats = NDArray[np.float64]
SHORT_CODES = 1 << 16  # numpy sorts 16-bit numbers by radix


@dataclass(frozen=True)
class GroupedAreas:
    """One entry per group; auc, variance and limits are NaN where not estimable (never handed on as such)."""

    n_positive: NDArray[np.int64]
    n_negative: NDArray[np.int64]
    auc: Floats
    variance: Floats
    logit_lower: Floats
    logit_upper: Floats


def grouped_areas(truth: ArrayLike, score: ArrayLike, *, group: ArrayLike, n_groups: int, level: float = LEVEL) -> GroupedAreas:
    """AUC, DeLong variance and logit limits of every group; group holds codes from 0 (methods S1).

    Equals ``roc_area`` group by group to rounding. Ties within a group are runs of equal score; a run's placement is
    that of each of its members, so that all sums run over runs and not over pairs.
    """
    event, value = classes(truth, score)
    code = np.asarray(group, dtype=np.int64)
    order = _sorted_within_groups(value, code, n_groups)
    g, s, e = code[order], value[order], event[order]
    starts = np.flatnonzero(np.concatenate([[True], (g[1:] != g[:-1]) | (s[1:] != s[:-1])])) if g.size else np.array([], int)
    run_of = g[starts]
    events = np.add.reduceat(e.astype(np.int64), starts) if starts.size else np.array([], np.int64)
    others = np.diff(np.concatenate([starts, [g.size]])) - events
    n1, n0 = (np.bincount(run_of, counts, n_groups).astype(np.int64) for counts in (events, others))
    events_before, others_before = (_before(counts, run_of, n) for counts, n in ((events, n1), (others, n0)))
    with np.errstate(divide="ignore", invalid="ignore"):
        v10 = (others_before + others / 2) / n0[run_of]
        v01 = (n1[run_of] - events_before - events / 2) / n1[run_of]
        auc = np.bincount(run_of, events * v10, n_groups) / n1
        auc[n0 == 0] = np.nan
        s10 = np.bincount(run_of, events * (v10 - auc[run_of]) ** 2, n_groups) / (n1 - 1)
        s01 = np.bincount(run_of, others * (v01 - auc[run_of]) ** 2, n_groups) / (n0 - 1)
        variance = np.where(np.minimum(n1, n0) >= SMALLEST_CLASS, s10 / n1 + s01 / n0, np.nan)
        half = normal_quantile(level) * np.sqrt(variance) / (auc * (1 - auc))
        at = np.log(auc / (1 - auc))
        lower, upper = 1 / (1 + np.exp(half - at)), 1 / (1 + np.exp(-half - at))
    return GroupedAreas(n1, n0, auc, variance, lower, upper)


def _sorted_within_groups(value: Floats, code: NDArray[np.int64], n_groups: int) -> NDArray[np.intp]:
    """Order by group, then by score; the order within a tie does not matter."""
    by_score = np.argsort(value)
    short = code[by_score].astype(np.uint16) if n_groups <= SHORT_CODES else code[by_score]
    return by_score[np.argsort(short, kind="stable")]


def _before(counts: NDArray[np.int64], run_of: NDArray[np.int64], n: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many stand in earlier runs of the same group."""
    whole = np.cumsum(counts) - counts
    ahead = np.cumsum(n) - n
    return whole - ahead[run_of]


def histogram_area(events: ArrayLike, others: ArrayLike) -> tuple[float | None, float | None]:
    """AUC and DeLong variance of counts per score bin, bins rising; those of the rows when a bin is one score.

    Null without a class; the variance also below two of a class.
    """
    e, o = np.asarray(events, dtype=np.float64), np.asarray(others, dtype=np.float64)
    n1, n0 = float(e.sum()), float(o.sum())
    if not n1 or not n0:
        return None, None
    v10 = (np.cumsum(o) - o / 2) / n0
    v01 = (n1 - np.cumsum(e) + e / 2) / n1
    auc = float(e @ v10) / n1
    if min(n1, n0) < SMALLEST_CLASS:
        return auc, None
    return auc, float(e @ (v10 - auc) ** 2) / (n1 - 1) / n1 + float(o @ (v01 - auc) ** 2) / (n0 - 1) / n0
