"""Random-effects pooling over centers or vendors, and how much they differ (methods S11)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

from ospor_batch.evaluation.intervals import LEVEL, Interval, logit

Floats = NDArray[np.float64]
FEWEST_GROUPS = 3  # below it centers are shown, not pooled (methods S11)
TOLERANCE = 1e-12  # of tau², on the logit scale


@dataclass(frozen=True)
class Effect:
    """One group's estimate on the logit scale with its variance."""

    value: float
    variance: float


@dataclass(frozen=True)
class Pooled:
    """REML random effects with floored Hartung-Knapp interval, on the scale of the effects; null with a reason."""

    n_groups: int
    mean: float | None = None
    standard_error: float | None = None
    interval: Interval | None = None
    prediction: Interval | None = None
    tau2: float | None = None
    q: float | None = None
    i2_percent: float | None = None
    reason: str | None = None


def logit_auc(auc: float, variance: float) -> Effect:
    """Logit of an AUC strictly between 0 and 1 with SE/(A(1 - A)) (methods S11)."""
    return Effect(logit(auc), variance / (auc * (1 - auc)) ** 2)


def logit_share(n_success: int, n: int) -> Effect:
    """Logit of a share; 0.5 is added to both cells only at 0/n and n/n (methods S11); n > 0."""
    extra = 0.5 if n_success in {0, n} else 0.0
    success, failure = n_success + extra, n - n_success + extra
    return Effect(math.log(success / failure), 1 / success + 1 / failure)


def pool_random_effects(value: ArrayLike, variance: ArrayLike, *, level: float = LEVEL) -> Pooled:
    """Pool by REML; SE by Hartung-Knapp with its scale not below 1 (methods S11).

    The prediction interval is mean ± t(k - 2)·√(tau² + SE²) (Higgins 2009); I² = max(0, (Q - df)/Q). Not estimable
    with fewer than three groups.
    """
    y, v = np.asarray(value, dtype=np.float64), np.asarray(variance, dtype=np.float64)
    k = y.size
    if k < FEWEST_GROUPS:
        return Pooled(k, reason="fewer_than_3_groups")
    tau2 = reml_tau2(y, v)
    mean, weight = _weighted(y, v, tau2)
    scale = max(1.0, float(weight @ (y - mean) ** 2) / (k - 1))
    se = math.sqrt(scale / float(weight.sum()))
    fixed, fixed_weight = _weighted(y, v, 0.0)
    q = float(fixed_weight @ (y - fixed) ** 2)
    half = float(stats.t.ppf(0.5 + level / 2, k - 1)) * se
    away = float(stats.t.ppf(0.5 + level / 2, k - 2)) * math.sqrt(tau2 + se**2)
    return Pooled(
        k,
        mean,
        se,
        Interval(mean - half, mean + half),
        Interval(mean - away, mean + away),
        tau2,
        q,
        100 * max(0.0, (q - (k - 1)) / q) if q > 0 else 0.0,
    )


def reml_tau2(value: Floats, variance: Floats) -> float:
    """The between-group variance at which the restricted likelihood is highest; 0 when its slope at 0 is negative."""
    if _slope(0.0, value, variance) <= 0:
        return 0.0
    upper = float(np.var(value, ddof=1)) + float(variance.max())
    while _slope(upper, value, variance) > 0:
        upper *= 2
    return float(optimize.brentq(_slope, 0.0, upper, args=(value, variance), xtol=TOLERANCE))


def _slope(tau2: float, value: Floats, variance: Floats) -> float:
    """Twice the derivative of the restricted log-likelihood: y'PPy - tr P."""
    mean, weight = _weighted(value, variance, tau2)
    total = float(weight.sum())
    return float(weight**2 @ (value - mean) ** 2) - (total - float((weight**2).sum()) / total)


def _weighted(value: Floats, variance: Floats, tau2: float) -> tuple[float, Floats]:
    weight = 1 / (variance + tau2)
    return float(weight @ value / weight.sum()), weight
