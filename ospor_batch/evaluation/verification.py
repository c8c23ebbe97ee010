"""Correction for who was sent to the reference standard: Begg-Greenes for accuracy, weighting for prevalence (methods S12)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ospor_batch.evaluation.discrimination import Confusion
from ospor_batch.evaluation.intervals import (
    LEVEL,
    Estimate,
    Interval,
    estimated,
    expit,
    logit,
    logit_interval,
    normal_quantile,
    not_estimable,
)
from ospor_batch.evaluation.risk_calibration import logistic_fit

Floats = NDArray[np.float64]
LARGEST_SHARE = 0.1  # of all weight that one person may carry: beyond, the estimate is that person
FEWEST_VERIFIED = 10


@dataclass(frozen=True)
class Corrected:
    """Sensitivity, specificity and prevalence as they would be had everybody scored been verified."""

    sensitivity: Estimate
    specificity: Estimate
    prevalence: Estimate


def begg_greenes(
    verified: Confusion, *, n_positive_unverified: int, n_negative_unverified: int, level: float = LEVEL
) -> Corrected:
    """Begg and Greenes' correction (1983): P(D|T) from the verified, P(T) from everybody scored; logit delta limits.

    Assumes that being sent depends on the call alone (or on what the stratum holds). Not estimable where a call has no
    verified person, or a cell is empty.
    """
    positive, negative = verified.tp + verified.fp, verified.fn + verified.tn
    if reason := _refusal(verified, positive, negative):
        none = not_estimable(reason)
        return Corrected(none, none, none)
    n = positive + negative + n_positive_unverified + n_negative_unverified
    called = (positive + n_positive_unverified) / n
    with_it, without = verified.tp / positive, verified.fn / negative
    return Corrected(
        _share((with_it, without), called, n=n, verified=(positive, negative), level=level),
        _share((1 - without, 1 - with_it), 1 - called, n=n, verified=(negative, positive), level=level),
        _prevalence((with_it, without), called, n=n, verified=(positive, negative), level=level),
    )


def weighted_prevalence(truth: ArrayLike, *, covariates: ArrayLike, verified: ArrayLike, level: float = LEVEL) -> Estimate:
    """Prevalence among everybody by inverse probability of being verified, from a logistic model of the covariates.

    truth counts where verified holds; covariates (people by columns, such as score, age, sex, center) are known of
    everybody. Hájek's mean with its linearised variance, the weights taken as known, which is wider than estimated
    weights would be. Not estimable where one person would carry a tenth of all weight, or nobody unverified is there.
    """
    chosen, x = np.asarray(verified).astype(bool), np.asarray(covariates, dtype=np.float64)
    event = np.asarray(truth).astype(bool)
    n_chosen = int(chosen.sum())
    if n_chosen < FEWEST_VERIFIED:
        return not_estimable("too_few_persons" if n_chosen else "no_labelled_people")
    if chosen.all():
        return not_estimable("no_image_only_people")
    chance = _chance(chosen, x)
    if chance is None:
        return not_estimable("verification_not_modelled")
    weight = 1 / chance[chosen]
    if float(weight.max() / weight.sum()) > LARGEST_SHARE:
        return not_estimable("positivity_violated")
    y = event[chosen].astype(np.float64)
    value = float(weight @ y / weight.sum())
    if not 0 < value < 1:
        return not_estimable("zero_variance")
    residual = weight * (y - value)
    se = math.sqrt(n_chosen / (n_chosen - 1) * float(residual @ residual)) / float(weight.sum())
    return estimated(value, logit_interval(value, se, level=level), method="ipw_hajek_logit")


def _chance(chosen: NDArray[np.bool_], x: Floats) -> Floats | None:
    """Chance of being verified by logistic regression on standardised, not collinear columns; null when it has no end."""
    spread = x.std(axis=0)
    useful = (x[:, spread > 0] - x[:, spread > 0].mean(axis=0)) / spread[spread > 0]
    design = np.column_stack([np.ones(chosen.size), useful])
    kept = [0]
    for i in range(1, design.shape[1]):
        if np.linalg.matrix_rank(design[:, [*kept, i]]) > len(kept):
            kept.append(i)
    beta, error = logistic_fit(chosen, design[:, kept])
    if not np.isfinite(error).all() or float(np.abs(error).max()) > 50:  # separation: the error has no end
        return None
    found: Floats = 1 / (1 + np.exp(-np.clip(design[:, kept] @ beta, -30, 30)))
    return found


def _share(given: tuple[float, float], called: float, *, n: int, verified: tuple[int, int], level: float) -> Estimate:
    """hit·called/(hit·called + other·(1 - called)) with the delta method on its logit, exact for independent shares."""
    hit, other = given
    above, below = hit * called, other * (1 - called)
    value = above / (above + below)
    variance = 1 / (n * called * (1 - called)) + (1 - hit) / (hit * verified[0]) + (1 - other) / (other * verified[1])
    half = normal_quantile(level) * math.sqrt(variance)
    interval = Interval(expit(logit(value) - half), expit(logit(value) + half))
    return estimated(value, interval, method="begg_greenes_logit")


def _prevalence(given: tuple[float, float], called: float, *, n: int, verified: tuple[int, int], level: float) -> Estimate:
    p, q = given
    value = p * called + q * (1 - called)
    variance = (
        (p - q) ** 2 * called * (1 - called) / n
        + called**2 * p * (1 - p) / verified[0]
        + (1 - called) ** 2 * q * (1 - q) / verified[1]
    )
    return estimated(value, logit_interval(value, math.sqrt(variance), level=level), method="begg_greenes_delta_logit")


def _refusal(verified: Confusion, positive: int, negative: int) -> str | None:
    if verified.n == 0:
        return "no_labelled_people"
    if not positive or not negative:
        return "no_positive_calls" if not positive else "no_negative_calls"
    return "empty_cell" if 0 in {verified.tp, verified.fp, verified.fn, verified.tn} else None
