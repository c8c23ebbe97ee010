"""How well a score finds the target condition: AUC by DeLong, ROC points, and the measures of a 2 x 2 table."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from ospor_batch.evaluation.intervals import (
    LEVEL,
    Estimate,
    Interval,
    estimated,
    expit,
    f1_interval,
    logit,
    logit_interval,
    normal_quantile,
    not_estimable,
    proportion,
    wilson,
)

Floats = NDArray[np.float64]
SMALLEST_CLASS = 2  # the variance divides by n - 1 (methods S1)
# below any variance that one differing pair among 10^6 persons gives (1e-24); mid-ranks leave about 1e-32
NO_VARIANCE = 1e-28


@dataclass(frozen=True)
class Area:
    """AUC with its DeLong variance; null where a class is absent or too small."""

    n_positive: int
    n_negative: int
    auc: float | None
    variance: float | None
    reason: str | None


@dataclass(frozen=True)
class AreaDifference:
    """AUC of the first score minus that of the second, on the same persons."""

    n_persons: int
    auc: float | None
    other_auc: float | None
    difference: float | None
    covariance: float | None
    standard_error: float | None
    z: float | None
    p_value: float | None
    interval: Interval | None
    reason: str | None


@dataclass(frozen=True)
class RocCurve:
    """Corners of the ROC curve from (0, 0) to (1, 1); the first threshold is null: nobody is called positive."""

    false_positive_rate: tuple[float, ...]
    true_positive_rate: tuple[float, ...]
    threshold: tuple[float | None, ...]


@dataclass(frozen=True)
class Confusion:
    """The 2 x 2 table; positive means score >= threshold."""

    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def n_events(self) -> int:
        return self.tp + self.fn

    @property
    def n_others(self) -> int:
        return self.fp + self.tn

    @property
    def n(self) -> int:
        return self.n_events + self.n_others


def classes(truth: ArrayLike, score: ArrayLike) -> tuple[NDArray[np.bool_], Floats]:
    """Check truth (0/1) and score (finite) of one length; complete cases are the caller's choice."""
    event = np.asarray(truth).astype(bool)
    value = np.asarray(score, dtype=np.float64)
    if event.shape != value.shape or event.ndim != 1:
        raise ValueError(f"truth has shape {event.shape}, score {value.shape}; expected one length")
    if not np.isfinite(value).all():
        raise ValueError("a score is not finite; leave such persons out first and count them")
    return event, value


def placements(truth: ArrayLike, score: ArrayLike) -> tuple[Floats, Floats]:
    """DeLong's V10 of the events and V01 of the others, by mid-ranks in O(n log n) (methods S1)."""
    event, value = classes(truth, score)
    n_events, n_others = int(event.sum()), int((~event).sum())
    ranks = stats.rankdata(value)
    of_events = (ranks[event] - stats.rankdata(value[event])) / n_others
    of_others = 1 - (ranks[~event] - stats.rankdata(value[~event])) / n_events
    return of_events, of_others


def roc_area(truth: ArrayLike, score: ArrayLike) -> Area:
    """AUC, never flipped, with DeLong's variance S10/n1 + S01/n0 (methods S1)."""
    event, value = classes(truth, score)
    n_events, n_others = int(event.sum()), int((~event).sum())
    if reason := _missing_class(n_events, n_others):
        return Area(n_events, n_others, None, None, reason)
    of_events, of_others = placements(event, value)
    auc = float(of_events.mean())
    if min(n_events, n_others) < SMALLEST_CLASS:
        return Area(n_events, n_others, auc, None, "too_few_events")
    variance = float(of_events.var(ddof=1) / n_events + of_others.var(ddof=1) / n_others)
    return Area(n_events, n_others, auc, variance, None)


def auc(
    truth: ArrayLike,
    score: ArrayLike,
    *,
    method: str = "delong_logit",
    minimum_events: int = SMALLEST_CLASS,
    level: float = LEVEL,
) -> Estimate:
    """Estimate the AUC with a ``delong_logit`` or ``delong_wald`` (clipped to [0, 1]) interval (methods S1).

    Not estimable with one class, below minimum_events in either class, or without variance.
    """
    area = roc_area(truth, score)
    if area.auc is None:
        return not_estimable(area.reason or "one_class")
    if min(area.n_positive, area.n_negative) < minimum_events or area.variance is None:
        return not_estimable("too_few_events" if area.n_positive <= area.n_negative else "too_few_non_events")
    if area.variance <= NO_VARIANCE:
        return not_estimable("perfect_separation" if area.auc in {0.0, 1.0} else "zero_variance")
    se = math.sqrt(area.variance)
    if method == "delong_logit":
        return estimated(area.auc, logit_interval(area.auc, se, level=level), method=method)
    half = normal_quantile(level) * se
    return estimated(area.auc, Interval(max(0.0, area.auc - half), min(1.0, area.auc + half)), method="delong_wald")


def compare_auc(truth: ArrayLike, score: ArrayLike, *, other_score: ArrayLike, level: float = LEVEL) -> AreaDifference:
    """Paired DeLong test of two scores of the same persons (methods S1); equal scores give p = 1."""
    event, value = classes(truth, score)
    _, other = classes(truth, other_score)
    n_events, n_others = int(event.sum()), int((~event).sum())
    reason = _missing_class(n_events, n_others)
    if reason is None and min(n_events, n_others) < SMALLEST_CLASS:
        reason = "too_few_events"
    if reason:
        return AreaDifference(event.size, None, None, None, None, None, None, None, None, reason)
    first, second = placements(event, value), placements(event, other)
    a, b = float(first[0].mean()), float(second[0].mean())
    covariance = sum(float(np.cov(x, y)[0, 1]) / x.size for x, y in zip(first, second, strict=True))
    variance = sum(float((x - y).var(ddof=1)) / x.size for x, y in zip(first, second, strict=True))
    se, difference = math.sqrt(variance), a - b
    if variance <= NO_VARIANCE:
        same = math.isclose(difference, 0.0, abs_tol=1e-14)
        z, p, why = (0.0, 1.0, None) if same else (None, None, "zero_variance")
        held = Interval(difference, difference) if same else None
        return AreaDifference(event.size, a, b, difference, covariance, 0.0, z, p, held, why)
    half = normal_quantile(level) * se
    interval = Interval(difference - half, difference + half)
    p_value = float(2 * stats.norm.sf(abs(difference / se)))
    return AreaDifference(event.size, a, b, difference, covariance, se, difference / se, p_value, interval, None)


def roc_curve(truth: ArrayLike, score: ArrayLike) -> RocCurve | None:
    """Corners of the ROC curve, highest threshold first; null when a class is absent.

    Points inside a straight piece are left out: the drawn curve is the same.
    """
    event, value = classes(truth, score)
    n_events, n_others = int(event.sum()), int((~event).sum())
    if _missing_class(n_events, n_others):
        return None
    thresholds, tp, fp = operating_counts(event, value)
    x, y = np.concatenate([[0], fp]), np.concatenate([[0], tp])
    inner = (np.diff(x)[:-1] * np.diff(y)[1:]) != (np.diff(x)[1:] * np.diff(y)[:-1])
    kept = np.concatenate([[True], inner, [True]])
    cut = np.array([None, *thresholds.tolist()], dtype=object)
    return RocCurve(tuple((x[kept] / n_others).tolist()), tuple((y[kept] / n_events).tolist()), tuple(cut[kept].tolist()))


def operating_counts(truth: ArrayLike, score: ArrayLike) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
    """Every observed score as threshold, falling, with the true and false positives at score >= threshold."""
    event, value = classes(truth, score)
    order = np.argsort(-value, kind="stable")
    ordered, events = value[order], event[order].astype(np.int64)
    last = np.flatnonzero(np.concatenate([np.diff(ordered) != 0, [True]])) if ordered.size else np.array([], dtype=np.int64)
    tp = np.cumsum(events)[last]
    return ordered[last], tp, last + 1 - tp


def confusion(truth: ArrayLike, score: ArrayLike, *, threshold: float) -> Confusion:
    """Count the 2 x 2 table; positive means score >= threshold (methods S3)."""
    event, value = classes(truth, score)
    called = value >= threshold
    tp, fp = int((called & event).sum()), int((called & ~event).sum())
    return Confusion(tp, fp, int(event.sum()) - tp, int((~event).sum()) - fp)


def operating_point(table: Confusion, *, prevalence: float, level: float = LEVEL) -> dict[str, Estimate]:
    """Every measure of a 2 x 2 table by name, with PPV and NPV restated at a declared prevalence (methods S2)."""
    called = table.tp + table.fp
    return {
        "sensitivity": proportion(table.tp, table.n_events, empty="no_events", level=level),
        "specificity": proportion(table.tn, table.n_others, empty="no_non_events", level=level),
        "ppv": proportion(table.tp, called, empty="no_positive_calls", level=level),
        "npv": proportion(table.tn, table.n - called, empty="no_negative_calls", level=level),
        "f1": f1(table, level=level),
        "accuracy": proportion(table.tp + table.tn, table.n, level=level),
        "balanced_accuracy": balanced_accuracy(table, level=level),
        "ppv_at_prevalence": ppv_at_prevalence(table, prevalence=prevalence, level=level),
        "npv_at_prevalence": npv_at_prevalence(table, prevalence=prevalence, level=level),
        "positive_fraction": proportion(called, table.n, level=level),
    }


def f1(table: Confusion, *, level: float = LEVEL) -> Estimate:
    """2TP/(2TP + FP + FN) of the positive class (methods S2); 0/0 is not estimable."""
    wrong = table.fp + table.fn
    if table.tp + wrong == 0:
        return not_estimable("no_events_and_no_positive_calls")
    value = 2 * table.tp / (2 * table.tp + wrong)
    return estimated(value, f1_interval(table.tp, wrong, level=level), method="wilson_on_jaccard")


def balanced_accuracy(table: Confusion, *, level: float = LEVEL) -> Estimate:
    """(sensitivity + specificity)/2 with the hybrid score interval of two independent proportions.

    Newcombe's square-and-add of the two Wilson limits, as for the difference of sensitivity and 1 - specificity.
    """
    sensitivity = wilson(table.tp, table.n_events, level=level)
    specificity = wilson(table.tn, table.n_others, level=level)
    if sensitivity is None or specificity is None:
        return not_estimable(_missing_class(table.n_events, table.n_others) or "one_class")
    se, sp = table.tp / table.n_events, table.tn / table.n_others
    value = (se + sp) / 2
    lower = value - math.hypot(se - sensitivity.lower, sp - specificity.lower) / 2
    upper = value + math.hypot(sensitivity.upper - se, specificity.upper - sp) / 2
    return estimated(value, Interval(max(0.0, lower), min(1.0, upper)), method="newcombe_hybrid_score")


def ppv_at_prevalence(table: Confusion, *, prevalence: float, level: float = LEVEL) -> Estimate:
    """PPV by Bayes at a declared prevalence, Mercaldo's logit interval (methods S2)."""
    if reason := _undefined_logit(table, prevalence):
        return not_estimable(reason)
    se, sp = table.tp / table.n_events, table.tn / table.n_others
    value = se * prevalence / (se * prevalence + (1 - sp) * (1 - prevalence))
    variance = (1 - se) / (se * table.n_events) + sp / ((1 - sp) * table.n_others)
    return _on_logit(value, variance, level)


def npv_at_prevalence(table: Confusion, *, prevalence: float, level: float = LEVEL) -> Estimate:
    """NPV by Bayes at a declared prevalence, Mercaldo's logit interval (methods S2)."""
    if reason := _undefined_logit(table, prevalence):
        return not_estimable(reason)
    se, sp = table.tp / table.n_events, table.tn / table.n_others
    value = sp * (1 - prevalence) / (sp * (1 - prevalence) + (1 - se) * prevalence)
    variance = se / ((1 - se) * table.n_events) + (1 - sp) / (sp * table.n_others)
    return _on_logit(value, variance, level)


def _on_logit(value: float, variance: float, level: float) -> Estimate:
    half = normal_quantile(level) * math.sqrt(variance)
    interval = Interval(expit(logit(value) - half), expit(logit(value) + half))
    return estimated(value, interval, method="mercaldo_logit")


def _undefined_logit(table: Confusion, prevalence: float) -> str | None:
    if reason := _missing_class(table.n_events, table.n_others):
        return reason
    if min(table.tp, table.fn, table.fp, table.tn) == 0:
        return "sensitivity_or_specificity_0_or_1"
    return None if 0 < prevalence < 1 else "prevalence_0_or_1"


def _missing_class(n_events: int, n_others: int) -> str | None:
    if n_events == 0 and n_others == 0:
        return "no_persons"
    if n_events == 0:
        return "no_events"
    return "no_non_events" if n_others == 0 else None
