"""Prevalence by the reference, by the predictor, and corrected for the predictor's errors (methods S10)."""

from __future__ import annotations

import math

from ospor_batch.evaluation.discrimination import Confusion
from ospor_batch.evaluation.intervals import (
    INTERVALS,
    LEVEL,
    Estimate,
    Interval,
    estimated,
    logit_interval,
    normal_quantile,
    not_estimable,
    proportion,
)

TEST_PARTITIONS = ("internal_test", "external", "test")


def prev_label(n_events: int, n_labelled: int, *, level: float = LEVEL) -> Estimate:
    """Share with the target condition among people with a matched label; Wilson."""
    return proportion(n_events, n_labelled, empty="no_labelled_people", level=level)


def prev_test_positive(n_positive: int, n_scored: int, *, level: float = LEVEL) -> Estimate:
    """Share called positive among everyone scored, labelled or not; Wilson."""
    return proportion(n_positive, n_scored, empty="no_scored_people", level=level)


def rogan_gladen(
    n_positive: int, n_scored: int, *, sensitivity: float, specificity: float, method: str = "wilson", level: float = LEVEL
) -> Estimate:
    """(AP + sp - 1)/(se + sp - 1) with sensitivity and specificity taken as known, so the interval is too narrow.

    Not estimable outside [0, 1] (never clipped) or for a test that is no better than chance.
    """
    of_share = INTERVALS[method](n_positive, n_scored, level=level)
    informed = sensitivity + specificity - 1
    if of_share is None:
        return not_estimable("no_scored_people")
    if informed <= 0:
        return not_estimable("no_better_than_chance")
    value, lower, upper = (
        (share + specificity - 1) / informed for share in (n_positive / n_scored, of_share.lower, of_share.upper)
    )
    if not 0 <= value <= 1:
        return not_estimable("outside_0_1")
    return estimated(value, Interval(lower, upper), method=f"rogan_gladen_known_{method}")


def prev_corrected(
    n_positive: int,
    n_scored: int,
    *,
    n_image_only: int,
    verified: Confusion,
    partition: str,
    minimum_events: int = 2,
    level: float = LEVEL,
) -> Estimate:
    """Rogan-Gladen with an interval that carries the uncertainty of sensitivity and specificity.

    Refused without image-only people (with the same people in both it returns the label prevalence identically) and
    for people that the model or threshold was made on.
    """
    if partition not in TEST_PARTITIONS:
        return not_estimable("train_or_tuning_people")
    if n_scored == 0:
        return not_estimable("no_scored_people")
    if n_image_only == 0:
        return not_estimable("no_image_only_people")
    if verified.n_events < minimum_events or verified.n_others < minimum_events:
        return not_estimable("too_few_events" if verified.n_events < minimum_events else "too_few_non_events")
    se, sp = verified.tp / verified.n_events, verified.tn / verified.n_others
    informed = se + sp - 1
    if informed <= 0:
        return not_estimable("no_better_than_chance")
    value = (n_positive / n_scored + sp - 1) / informed
    if not 0 < value < 1:
        return not_estimable("outside_0_1")
    standard_error = _delta_error(value, n_positive, n_scored, verified=verified, level=level) / informed
    return estimated(value, logit_interval(value, standard_error, level=level), method="rogan_gladen_delta_logit")


def _delta_error(value: float, n_positive: int, n_scored: int, *, verified: Confusion, level: float) -> float:
    """Delta-method SE times (se + sp - 1): AP, se and sp as three independent shares.

    Verified people are part of the scored ones, so AP rises with se and falls with sp; both covariances would lower the
    variance, so leaving them out is conservative. Each share's variance is that of Agresti and Coull (z²/2 added to both
    cells), so that 0/n and n/n do not pass for certainty.
    """
    return math.sqrt(
        _share_variance(n_positive, n_scored, level)
        + value**2 * _share_variance(verified.tp, verified.n_events, level)
        + (1 - value) ** 2 * _share_variance(verified.tn, verified.n_others, level)
    )


def _share_variance(n_success: int, n: int, level: float) -> float:
    z2 = normal_quantile(level) ** 2
    p = (n_success + z2 / 2) / (n + z2)
    return p * (1 - p) / (n + z2)
