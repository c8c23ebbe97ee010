"""Parts of the ROC curve and comparisons of two of them: partial AUC, unpaired test, operating points at a declared rate."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from ospor_batch.evaluation.discrimination import NO_VARIANCE, SMALLEST_CLASS, Area, classes, operating_counts, roc_area
from ospor_batch.evaluation.intervals import (
    LEVEL,
    Estimate,
    Interval,
    estimated,
    logit_interval,
    normal_quantile,
    not_estimable,
    proportion,
)

ROUNDING = 1e-12  # a share that equals its target but for rounding has reached it


@dataclass(frozen=True)
class PartialArea:
    """Area under the ROC curve up to a false positive rate, raw and McClish-standardised; null with a reason.

    variance is that of the standardised area; null below two people of a class.
    """

    raw: float | None
    standardised: float | None
    variance: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class UnpairedDifference:
    """AUC of the first people minus that of others, independent of them; null with a reason.

    p_normal uses the normal reference, p_t Student's t on Welch's degrees of freedom, as pROC does.
    """

    difference: float | None
    standard_error: float | None
    z: float | None
    degrees: float | None
    p_normal: float | None
    p_t: float | None
    interval: Interval | None
    reason: str | None = None


def partial_area(truth: ArrayLike, score: ArrayLike, *, max_fpr: float) -> PartialArea:
    """Area up to a false positive rate, with McClish's standardisation (methods S1), equal to scikit-learn's.

    Variance by the influence of each person on the area, that of the cut at max_fpr included: of an event the part of its
    own row of the curve, of another person above the cut the sensitivity between its score and the cut.
    """
    event, value = classes(truth, score)
    n_events, n_others = int(event.sum()), int((~event).sum())
    if not n_events or not n_others:
        return PartialArea(None, None, reason="one_class" if event.size else "no_persons")
    _, tp, fp = operating_counts(event, value)
    x, y = np.concatenate([[0.0], fp / n_others]), np.concatenate([[0.0], tp / n_events])
    left, right = np.minimum(x[:-1], max_fpr), np.minimum(x[1:], max_fpr)
    # of the events at one score: the mean of (max_fpr - u) over the rates u that the score spans
    spans = np.where(x[1:] > x[:-1], x[1:] - x[:-1], 1.0)
    of_run = np.where(
        x[1:] > x[:-1], ((max_fpr - left) ** 2 - (max_fpr - right) ** 2) / (2 * spans), np.maximum(max_fpr - x[1:], 0)
    )
    in_run = np.diff(np.concatenate([[0], tp]))
    raw = float(in_run @ of_run) / n_events
    if max_fpr >= 1:
        return PartialArea(raw, raw, roc_area(event, value).variance)
    least, scale = max_fpr**2 / 2, max_fpr - max_fpr**2 / 2
    standardised = (1 + (raw - least) / scale) / 2
    if min(n_events, n_others) < SMALLEST_CLASS:
        return PartialArea(raw, standardised)
    beyond = np.maximum(float(np.interp(max_fpr, x, y)) - (y[:-1] + y[1:]) / 2, 0)
    others_in_run = np.diff(np.concatenate([[0], fp]))
    spread = _variance(of_run, in_run) / n_events + _variance(np.where(x[:-1] < max_fpr, beyond, 0), others_in_run) / n_others
    return PartialArea(raw, standardised, spread / (2 * scale) ** 2)


def partial_auc(truth: ArrayLike, score: ArrayLike, *, max_fpr: float, level: float = LEVEL) -> Estimate:
    """McClish's standardised partial AUC with a logit interval; 0.5 is chance."""
    found = partial_area(truth, score, max_fpr=max_fpr)
    if found.standardised is None:
        return not_estimable(found.reason or "one_class")
    if found.variance is None:
        return not_estimable("too_few_events")
    if found.variance <= NO_VARIANCE or found.standardised in {0.0, 1.0}:
        return not_estimable("perfect_separation" if found.standardised in {0.0, 1.0} else "zero_variance")
    interval = logit_interval(found.standardised, math.sqrt(found.variance), level=level)
    return estimated(found.standardised, interval, method="placement_logit")


def auc_within_groups(truth: ArrayLike, score: ArrayLike, *, group: ArrayLike, level: float = LEVEL) -> Estimate:
    """AUC over pairs of people of one group, such as a center: what differs between groups does not enter (methods S11).

    Groups count by their pairs; a group with one class has none. Logit interval on DeLong's variances, the shares of
    pairs taken as known.
    """
    event, value = classes(truth, score)
    names = np.asarray(group)
    areas = [roc_area(event[names == name], value[names == name]) for name in np.unique(names)]
    with_pairs = [area for area in areas if area.auc is not None]
    if not with_pairs:
        return not_estimable("no_group_with_both_classes" if event.size else "no_persons")
    pairs = np.array([area.n_positive * area.n_negative for area in with_pairs], dtype=np.float64)
    share = pairs / pairs.sum()
    found = float(share @ np.array([area.auc for area in with_pairs]))
    if any(area.variance is None for area in with_pairs):
        return not_estimable("too_few_events")
    variance = float(share**2 @ np.array([area.variance for area in with_pairs]))
    if variance <= NO_VARIANCE or found in {0.0, 1.0}:
        return not_estimable("perfect_separation" if found in {0.0, 1.0} else "zero_variance")
    return estimated(found, logit_interval(found, math.sqrt(variance), level=level), method="delong_logit_within_groups")


def _variance(value: NDArray[np.float64], times: NDArray[np.int64]) -> float:
    """Variance (n - 1) of values that stand for several people each."""
    n = int(times.sum())
    mean = float(times @ value) / n
    return float(times @ (value - mean) ** 2) / (n - 1)


def compare_unpaired(first: Area, other: Area, *, level: float = LEVEL) -> UnpairedDifference:
    """Compare the AUC of two independent groups of people (methods S1)."""
    if first.auc is None or first.variance is None or other.auc is None or other.variance is None:
        reason = first.reason or other.reason or "too_few_events"
        return UnpairedDifference(None, None, None, None, None, None, None, reason)
    variance, difference = first.variance + other.variance, first.auc - other.auc
    if variance <= NO_VARIANCE:
        return UnpairedDifference(difference, 0.0, None, None, None, None, None, "zero_variance")
    se = math.sqrt(variance)
    z = difference / se
    sizes = first.n_positive + first.n_negative, other.n_positive + other.n_negative
    degrees = variance**2 / (first.variance**2 / (sizes[0] - 1) + other.variance**2 / (sizes[1] - 1))
    half = normal_quantile(level) * se
    p_normal, p_t = float(2 * stats.norm.sf(abs(z))), float(2 * stats.t.sf(abs(z), degrees))
    return UnpairedDifference(difference, se, z, degrees, p_normal, p_t, Interval(difference - half, difference + half))


def sensitivity_at_specificity(truth: ArrayLike, score: ArrayLike, *, specificity: float, level: float = LEVEL) -> Estimate:
    """Highest sensitivity among cut-offs whose specificity reaches a declared one; Wilson, the cut-off taken as known.

    Exploratory: the cut-off is chosen on the people it is read from (methods S3).
    """
    event, value = classes(truth, score)
    n_events, n_others = int(event.sum()), int((~event).sum())
    if not n_events or not n_others:
        return not_estimable("one_class" if event.size else "no_persons")
    _, tp, fp = operating_counts(event, value)
    reached = tp[n_others - fp >= specificity * n_others - ROUNDING]
    return proportion(int(reached.max()) if reached.size else 0, n_events, level=level)


def specificity_at_sensitivity(truth: ArrayLike, score: ArrayLike, *, sensitivity: float, level: float = LEVEL) -> Estimate:
    """Highest specificity among cut-offs whose sensitivity reaches a declared one; Wilson, the cut-off taken as known."""
    event, value = classes(truth, score)
    n_events, n_others = int(event.sum()), int((~event).sum())
    if not n_events or not n_others:
        return not_estimable("one_class" if event.size else "no_persons")
    _, tp, fp = operating_counts(event, value)
    reached = n_others - fp[tp >= sensitivity * n_events - ROUNDING]
    return proportion(int(np.max(reached)), n_others, level=level)
