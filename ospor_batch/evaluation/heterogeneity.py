"""Random-effects pooling over centers or vendors, and how much they differ (methods S11).

REML with the floored Hartung-Knapp interval is what the tables print. The other estimators of tau² and the other two
references are there to compare with papers that used them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

from ospor_batch.evaluation.intervals import LEVEL, Interval, logit, normal_quantile

Floats = NDArray[np.float64]
FEWEST_GROUPS = 3  # below it centers are shown, not pooled (methods S11)
TOLERANCE = 1e-12  # of tau², on the logit scale
LARGEST_TAU2 = 100.0  # logit scale: beyond any that shares can have; an upper limit there is not found
ESTIMATORS = ("reml", "dersimonian_laird", "paule_mandel", "fixed")
REFERENCES = ("hartung_knapp_floored", "hartung_knapp", "normal")


@dataclass(frozen=True)
class Effect:
    """One group's estimate on the logit scale with its variance."""

    value: float
    variance: float


@dataclass(frozen=True)
class Pooled:
    """Mean with interval and prediction interval on the scale of the effects; null with a reason.

    prediction is t(k - 2) (Higgins 2009); prediction_as_mean has the mean's own reference, as metafor prints it.
    """

    n_groups: int
    mean: float | None = None
    standard_error: float | None = None
    interval: Interval | None = None
    prediction: Interval | None = None
    tau2: float | None = None
    q: float | None = None
    i2_percent: float | None = None
    reason: str | None = None
    prediction_as_mean: Interval | None = None
    p_value: float | None = None


def logit_auc(auc: float, variance: float) -> Effect:
    """Logit of an AUC strictly between 0 and 1 with SE/(A(1 - A)) (methods S11)."""
    return Effect(logit(auc), variance / (auc * (1 - auc)) ** 2)


def logit_share(n_success: int, n: int) -> Effect:
    """Logit of a share; 0.5 is added to both cells only at 0/n and n/n (methods S11); n > 0."""
    extra = 0.5 if n_success in {0, n} else 0.0
    success, failure = n_success + extra, n - n_success + extra
    return Effect(math.log(success / failure), 1 / success + 1 / failure)


def pool_random_effects(
    value: ArrayLike,
    variance: ArrayLike,
    *,
    estimator: str = "reml",
    reference: str = "hartung_knapp_floored",
    level: float = LEVEL,
) -> Pooled:
    """Pool by REML; SE by Hartung-Knapp with its scale not below 1 (methods S11).

    The prediction interval is mean ± t(k - 2)·√(tau² + SE²) (Higgins 2009); I² = max(0, (Q - df)/Q). Not estimable
    with fewer than three groups.
    """
    y, v = np.asarray(value, dtype=np.float64), np.asarray(variance, dtype=np.float64)
    k = y.size
    if k < FEWEST_GROUPS:
        return Pooled(k, reason="fewer_than_3_groups")
    tau2 = _between_variance(y, v, estimator)
    mean, weight = _weighted(y, v, tau2)
    spread = float(weight @ (y - mean) ** 2) / (k - 1)
    scale = {"hartung_knapp_floored": max(1.0, spread), "hartung_knapp": spread, "normal": 1.0}[reference]
    se = math.sqrt(scale / float(weight.sum()))
    q, df, tail = cochran_q(y, v), k - 1, 0.5 + level / 2
    is_normal = reference == "normal"
    quantile = normal_quantile(level) if is_normal else float(stats.t.ppf(tail, df))
    chance = stats.norm.sf(abs(mean / se)) if is_normal else stats.t.sf(abs(mean / se), df)
    half, error = quantile * se, math.sqrt(tau2 + se**2)
    away = float(stats.t.ppf(tail, k - 2)) * error
    return Pooled(
        k,
        mean,
        se,
        Interval(mean - half, mean + half),
        Interval(mean - away, mean + away),
        tau2,
        q,
        100 * max(0.0, (q - df) / q) if q > 0 else 0.0,
        prediction_as_mean=Interval(mean - quantile * error, mean + quantile * error),
        p_value=float(2 * chance),
    )


def cochran_q(value: ArrayLike, variance: ArrayLike) -> float:
    """Cochran's Q: chi-square with k - 1 degrees of freedom when the groups do not differ."""
    y, v = np.asarray(value, dtype=np.float64), np.asarray(variance, dtype=np.float64)
    return _q_at(0.0, y, v)


def tau2_interval(value: ArrayLike, variance: ArrayLike, *, level: float = LEVEL) -> Interval | None:
    """Q-profile limits of tau² (Viechtbauer 2007; methods S11); null below three groups or without an upper limit."""
    y, v = np.asarray(value, dtype=np.float64), np.asarray(variance, dtype=np.float64)
    if y.size < FEWEST_GROUPS:
        return None
    low, high = stats.chi2.ppf([0.5 - level / 2, 0.5 + level / 2], y.size - 1)
    if _q_at(0.0, y, v) < low:  # even no difference at all is too little: metafor gives 0 to 0
        return Interval(0.0, 0.0)
    if _q_at(LARGEST_TAU2, y, v) > low:
        return None
    lower = 0.0 if _q_at(0.0, y, v) < high else _root_of_q(float(high), y, v)
    return Interval(lower, _root_of_q(float(low), y, v))


def reml_tau2(value: Floats, variance: Floats) -> float:
    """The between-group variance at which the restricted likelihood is highest; 0 when its slope at 0 is negative."""
    if _slope(0.0, value, variance) <= 0:
        return 0.0
    upper = float(np.var(value, ddof=1)) + float(variance.max())
    while _slope(upper, value, variance) > 0:
        upper *= 2
    return float(optimize.brentq(_slope, 0.0, upper, args=(value, variance), xtol=TOLERANCE))


def _between_variance(value: Floats, variance: Floats, estimator: str) -> float:
    if estimator == "fixed":
        return 0.0
    if estimator == "reml":
        return reml_tau2(value, variance)
    df = value.size - 1
    if estimator == "dersimonian_laird":
        weight = 1 / variance
        scale = float(weight.sum()) - float((weight**2).sum()) / float(weight.sum())
        return max(0.0, (_q_at(0.0, value, variance) - df) / scale)
    if estimator != "paule_mandel":
        raise ValueError(f"estimator is {estimator!r}, expected one of {', '.join(ESTIMATORS)}")
    return 0.0 if _q_at(0.0, value, variance) <= df else _root_of_q(float(df), value, variance)


def _q_at(tau2: float, value: Floats, variance: Floats) -> float:
    """The generalised Q, falling in tau²."""
    mean, weight = _weighted(value, variance, tau2)
    return float(weight @ (value - mean) ** 2)


def _root_of_q(at: float, value: Floats, variance: Floats) -> float:
    return float(optimize.brentq(lambda tau2: _q_at(tau2, value, variance) - at, 0.0, LARGEST_TAU2, xtol=TOLERANCE))


def _slope(tau2: float, value: Floats, variance: Floats) -> float:
    """Twice the derivative of the restricted log-likelihood: y'PPy - tr P."""
    mean, weight = _weighted(value, variance, tau2)
    total = float(weight.sum())
    return float(weight**2 @ (value - mean) ** 2) - (total - float((weight**2).sum()) / total)


def _weighted(value: Floats, variance: Floats, tau2: float) -> tuple[float, Floats]:
    weight = 1 / (variance + tau2)
    return float(weight @ value / weight.sum()), weight
