"""Parts of the ROC curve and comparisons of two of them: partial AUC, unpaired test, operating points at a declared rate."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from ospor_batch.evaluation.discrimination import NO_VARIANCE, Area, classes, operating_counts, roc_area
from ospor_batch.evaluation.intervals import LEVEL, Estimate, Interval, normal_quantile, not_estimable, proportion

ROUNDING = 1e-12  # a share that equals its target but for rounding has reached it


@dataclass(frozen=True)
class PartialArea:
    """Area under the ROC curve up to a false positive rate, raw and McClish-standardised; null with a reason."""

    raw: float | None
    standardised: float | None
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
    """Area up to a false positive rate, with McClish's standardisation (methods S1); scikit-learn has it right."""
    from sklearn.metrics import roc_auc_score  # late: 1 s

    event, value = classes(truth, score)
    if not event.any() or event.all():
        return PartialArea(None, None, "one_class" if event.size else "no_persons")
    standardised = (
        float(roc_auc_score(event, value, max_fpr=max_fpr)) if max_fpr < 1 else float(roc_area(event, value).auc or 0)
    )
    least = max_fpr**2 / 2
    raw = least + (2 * standardised - 1) * (max_fpr - least) if max_fpr < 1 else standardised
    return PartialArea(raw, standardised)


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
