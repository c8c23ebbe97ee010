"""Agreement of two measurements of the same persons: correlation, Bland-Altman, absolute and squared error."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from ospor_batch.evaluation.intervals import LEVEL, Estimate, Interval, estimated, normal_quantile, not_estimable

Floats = NDArray[np.float64]
FEWEST_FOR_CORRELATION = 4  # Fisher's z divides by n - 3 (methods S8)
FEWEST_FOR_DIFFERENCES = 3  # with two differences the limits say nothing
NO_SPREAD = 1e-12  # relative to the size of the values: less is rounding
PERFECT = 1e-12  # |r| this near to 1 has no Fisher interval


@dataclass(frozen=True)
class BlandAltman:
    """Bias, spread and 95 % limits of agreement of predicted minus reference, each with its interval."""

    n: int
    bias: Estimate
    sd_of_differences: Estimate
    loa_lower: Estimate
    loa_upper: Estimate


def pairs(reference: ArrayLike, predicted: ArrayLike) -> tuple[Floats, Floats]:
    """Check two finite columns of one length."""
    x, y = np.asarray(reference, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"reference has shape {x.shape}, predicted {y.shape}; expected one length")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("a value is not finite; leave such persons out first and count them")
    return x, y


def pearson(reference: ArrayLike, predicted: ArrayLike, *, level: float = LEVEL) -> Estimate:
    """Pearson's r with Fisher's z interval (methods S8)."""
    x, y = pairs(reference, predicted)
    if reason := _no_correlation(x, y):
        return not_estimable(reason)
    return _correlation(_product_moment(x, y), 1 / math.sqrt(x.size - 3), method="fisher_z", level=level)


def spearman(reference: ArrayLike, predicted: ArrayLike, *, level: float = LEVEL) -> Estimate:
    """Spearman's rho with the Bonett-Wright interval, SE² = (1 + r²/2)/(n - 3) (methods S8)."""
    x, y = pairs(reference, predicted)
    if reason := _no_correlation(x, y):
        return not_estimable(reason)
    rho = _product_moment(stats.rankdata(x), stats.rankdata(y))
    return _correlation(rho, math.sqrt((1 + rho * rho / 2) / (x.size - 3)), method="bonett_wright", level=level)


def bland_altman(reference: ArrayLike, predicted: ArrayLike, *, level: float = LEVEL) -> BlandAltman:
    """Bland-Altman of predicted minus reference (methods S8).

    The interval of each limit is exact and taken singly (Carkeet 2015, non-central t), not for the pair.
    """
    x, y = pairs(reference, predicted)
    difference = y - x
    if reason := _no_differences(x, difference):
        none = not_estimable(reason)
        return BlandAltman(difference.size, none, none, none, none)
    bias, sd = float(difference.mean()), float(difference.std(ddof=1))
    return limits_from(difference.size, bias=bias, sd=sd, level=level)


def limits_from(n: int, *, bias: float, sd: float, level: float = LEVEL) -> BlandAltman:
    """Bias and limits with their intervals from n, mean and SD (n - 1) of the differences; n > 2 and sd > 0."""
    half = float(stats.t.ppf(0.5 + level / 2, n - 1)) * sd / math.sqrt(n)
    inner, outer = tolerance_factors(n, level=level)
    z = normal_quantile(LEVEL)  # the limits themselves are the 95 % ones
    return BlandAltman(
        n,
        estimated(bias, Interval(bias - half, bias + half), method="t"),
        estimated(sd, _of_sd(sd, n, level), method="chi_square"),
        estimated(bias - z * sd, Interval(bias - outer * sd, bias - inner * sd), method="carkeet_exact"),
        estimated(bias + z * sd, Interval(bias + inner * sd, bias + outer * sd), method="carkeet_exact"),
    )


def tolerance_factors(n: int, *, level: float = LEVEL) -> tuple[float, float]:
    """k of the inner and outer limit: quantiles of t'(n - 1, z√n) over √n (methods S8)."""
    away = normal_quantile(LEVEL) * math.sqrt(n)
    inner, outer = (float(stats.nct.ppf(p, n - 1, away)) / math.sqrt(n) for p in (0.5 - level / 2, 0.5 + level / 2))
    return inner, outer


def mean_absolute_error(reference: ArrayLike, predicted: ArrayLike, *, level: float = LEVEL) -> Estimate:
    """Mean |predicted - reference| with a t interval over persons, cut off at 0."""
    x, y = pairs(reference, predicted)
    if reason := _no_differences(x, y - x):
        return not_estimable(reason)
    value, interval = _of_mean(np.abs(y - x), level)
    return estimated(value, interval, method="t")


def root_mean_squared_error(reference: ArrayLike, predicted: ArrayLike, *, level: float = LEVEL) -> Estimate:
    """Root of the mean squared difference; the t interval of the mean square, cut off at 0, under the root."""
    x, y = pairs(reference, predicted)
    if reason := _no_differences(x, y - x):
        return not_estimable(reason)
    value, interval = _of_mean((y - x) ** 2, level)
    return estimated(math.sqrt(value), Interval(math.sqrt(interval.lower), math.sqrt(interval.upper)), method="t_of_squares")


def _product_moment(x: Floats, y: Floats) -> float:
    dx, dy = x - x.mean(), y - y.mean()
    return float(np.clip((dx @ dy) / math.sqrt((dx @ dx) * (dy @ dy)), -1.0, 1.0))


def _correlation(r: float, se: float, *, method: str, level: float) -> Estimate:
    if 1 - abs(r) < PERFECT:
        return not_estimable("perfect_correlation")
    half = normal_quantile(level) * se
    return estimated(r, Interval(math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)), method=method)


def _no_correlation(x: Floats, y: Floats) -> str | None:
    if x.size < FEWEST_FOR_CORRELATION:
        return "too_few_persons" if x.size else "no_persons"
    return "zero_variance" if _is_constant(x) or _is_constant(y) else None


def _no_differences(reference: Floats, difference: Floats) -> str | None:
    if difference.size < FEWEST_FOR_DIFFERENCES:
        return "too_few_persons" if difference.size else "no_persons"
    size = float(np.abs(reference).max())
    return "zero_variance" if np.ptp(difference) <= NO_SPREAD * max(size, float(np.abs(difference).max())) else None


def _is_constant(values: Floats) -> bool:
    return bool(np.ptp(values) <= NO_SPREAD * float(np.abs(values).max()))


def _of_sd(sd: float, n: int, level: float) -> Interval:
    low, high = stats.chi2.ppf([0.5 - level / 2, 0.5 + level / 2], n - 1)
    return Interval(sd * math.sqrt((n - 1) / high), sd * math.sqrt((n - 1) / low))


def _of_mean(values: Floats, level: float) -> tuple[float, Interval]:
    mean = float(values.mean())
    half = float(stats.t.ppf(0.5 + level / 2, values.size - 1)) * float(values.std(ddof=1)) / math.sqrt(values.size)
    return mean, Interval(max(0.0, mean - half), mean + half)
