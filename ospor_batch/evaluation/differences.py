"""More on differences of two measurements: bias that grows with size, bias near a cut-off, repeated pairs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from ospor_batch.evaluation.agreement import BlandAltman, bland_altman, pairs
from ospor_batch.evaluation.intervals import LEVEL, Estimate, Interval, estimated, normal_quantile, not_estimable

Floats = NDArray[np.float64]
FEWEST_FOR_A_SLOPE = 3  # the residual variance divides by n - 2
ABSOLUTE_TO_SD = 2.46  # 1.96 times √(π/2): half-width from mean absolute residuals (Bland and Altman 1999)


@dataclass(frozen=True)
class ProportionalBias:
    """Line of the difference on the mean, and of its absolute residuals: half-width = 2.46 (c0 + c1 mean)."""

    slope: Estimate
    intercept: float | None
    p_value: float | None
    residual_intercept: float | None
    residual_slope: float | None

    def limits_at(self, mean: float) -> tuple[float, float] | None:
        """Regression limits of agreement at one size; null without a line."""
        if self.slope.value is None or self.intercept is None or self.residual_intercept is None:
            return None
        at = self.intercept + self.slope.value * mean
        half = ABSOLUTE_TO_SD * (self.residual_intercept + (self.residual_slope or 0.0) * mean)
        return at - half, at + half


@dataclass(frozen=True)
class RepeatedPairs:
    """Variance components of the differences of persons with several pairs; a negative one is 0 and flagged."""

    n_persons: int
    n_pairs: int
    bias: float | None
    between: float | None
    within: float | None
    sd_total: float | None
    loa_lower: float | None
    loa_upper: float | None
    is_between_floored: bool = False
    reason: str | None = None
    mean: Estimate | None = None  # the bias with its interval over persons


def proportional_bias(reference: ArrayLike, predicted: ArrayLike, *, level: float = LEVEL) -> ProportionalBias:
    """Slope of predicted minus reference on their mean, with a t interval (methods S8)."""
    x, y = pairs(reference, predicted)
    difference, mean = y - x, (x + y) / 2
    if difference.size < FEWEST_FOR_A_SLOPE or np.ptp(mean) == 0:
        reason = "no_persons" if not difference.size else "too_few_persons" if np.ptp(mean) or x.size < 3 else "zero_variance"
        return ProportionalBias(not_estimable(reason), None, None, None, None)
    line = stats.linregress(mean, difference)
    residual = np.abs(difference - line.intercept - line.slope * mean)
    spread = stats.linregress(mean, residual)
    half = float(stats.t.ppf(0.5 + level / 2, difference.size - 2)) * float(line.stderr)
    slope = estimated(float(line.slope), Interval(float(line.slope) - half, float(line.slope) + half), method="t")
    numbers = (line.intercept, line.pvalue, spread.intercept, spread.slope)
    return ProportionalBias(slope, *(float(number) for number in numbers))


def bias_at(reference: ArrayLike, predicted: ArrayLike, *, at: float, level: float = LEVEL) -> Estimate:
    """Mean of predicted minus reference in people whose reference value is ``at``: off the line of the difference on it.

    A model that shrinks towards the mean has none over all people and one here, where a cut-off decides (methods S4). Not
    estimable beyond the reference values of the people.
    """
    x, y = pairs(reference, predicted)
    if x.size < FEWEST_FOR_A_SLOPE or np.ptp(x) == 0:
        return not_estimable(
            "no_persons" if not x.size else "too_few_persons" if x.size < FEWEST_FOR_A_SLOPE else "zero_variance"
        )
    if not x.min() <= at <= x.max():
        return not_estimable("cut_off_out_of_range")
    n, away, difference = x.size, x - at, y - x
    line = stats.linregress(away, difference)
    residual = difference - line.intercept - line.slope * away
    spread = math.sqrt(float(residual @ residual) / (n - 2))
    error = spread * math.sqrt(1 / n + float(away.mean()) ** 2 / float(((away - away.mean()) ** 2).sum()))
    half = float(stats.t.ppf(0.5 + level / 2, n - 2)) * error
    value = float(line.intercept)
    return estimated(value, Interval(value - half, value + half), method="t_of_line")


def mover_limits(found: BlandAltman, *, level: float = LEVEL) -> tuple[Interval, Interval] | None:
    """Intervals of the lower and the upper limit by MOVER with normal limits of the bias (Zou 2013)."""
    sd, bias = found.sd_of_differences.value, found.bias.value
    if sd is None or bias is None:
        return None
    n, z, width = found.n, normal_quantile(level), normal_quantile(LEVEL) * sd
    low, high = stats.chi2.ppf([0.5 - level / 2, 0.5 + level / 2], n - 1)
    inner = math.hypot(z * sd / math.sqrt(n), width * (1 - math.sqrt((n - 1) / high)))
    outer = math.hypot(z * sd / math.sqrt(n), width * (math.sqrt((n - 1) / low) - 1))
    return Interval(bias - width - outer, bias - width + inner), Interval(bias + width - inner, bias + width + outer)


def approximate_limits(found: BlandAltman, *, form: str = "ba1986", level: float = LEVEL) -> tuple[Interval, Interval] | None:
    """Old intervals of the limits, to compare with old papers: SE s√(3/n) (1986) or s√(1/n + z²/2(n-1)) (1999)."""
    sd, low, high = found.sd_of_differences.value, found.loa_lower.value, found.loa_upper.value
    if sd is None or low is None or high is None:
        return None
    z2 = normal_quantile(LEVEL) ** 2
    share = 3 / found.n if form == "ba1986" else 1 / found.n + z2 / (2 * (found.n - 1))
    half = float(stats.t.ppf(0.5 + level / 2, found.n - 1)) * sd * math.sqrt(share)
    return Interval(low - half, low + half), Interval(high - half, high + half)


def bias_in_bands(
    reference: ArrayLike, predicted: ArrayLike, *, cuts: Sequence[float], level: float = LEVEL
) -> list[tuple[str, BlandAltman]]:
    """Bias and limits apart below, between and above clinical cut-offs of the reference value, lowest band first.

    A value on a cut belongs to the band above it.
    """
    x, y = pairs(reference, predicted)
    edges = [-math.inf, *sorted(cuts), math.inf]
    found = []
    for low, high in itertools.pairwise(edges):
        mine = (x >= low) & (x < high)
        name = f"below {high:g}" if low == -math.inf else f"{low:g} and above" if high == math.inf else f"{low:g} to {high:g}"
        found.append((name, bland_altman(x[mine], y[mine], level=level)))
    return found


def repeated_pairs(reference: ArrayLike, predicted: ArrayLike, *, person: ArrayLike, level: float = LEVEL) -> RepeatedPairs:
    """Limits of agreement of single pairs where persons have several (Bland and Altman 1999, 5.3; methods S8).

    The bias has an interval linearised over persons with t(persons - 1); the limits have none.
    """
    x, y = pairs(reference, predicted)
    difference = y - x
    code = np.unique(np.asarray(person), return_inverse=True)[1]
    n_pairs, n = difference.size, int(code.max()) + 1 if code.size else 0
    if n < FEWEST_FOR_A_SLOPE or n_pairs == n:
        reason = "no_repeated_pairs" if n_pairs == n and n else "too_few_persons" if n else "no_persons"
        return RepeatedPairs(n, n_pairs, None, None, None, None, None, None, reason=reason)
    m = np.bincount(code).astype(np.float64)
    means = np.bincount(code, difference) / m
    bias = float(difference.mean())
    msw = float(((difference - means[code]) ** 2).sum()) / (n_pairs - n)
    msb = float((m * (means - bias) ** 2).sum()) / (n - 1)
    scale = (float(m.sum()) ** 2 - float((m**2).sum())) / ((n - 1) * float(m.sum()))
    between = (msb - msw) / scale
    sd = math.sqrt(max(between, 0.0) + msw)
    half = normal_quantile(LEVEL) * sd
    sums = np.bincount(code, difference - bias)
    away = float(stats.t.ppf(0.5 + level / 2, n - 1)) * math.sqrt(n / (n - 1) * float(sums @ sums)) / n_pairs
    mean = estimated(bias, Interval(bias - away, bias + away), method="clustered_t")
    numbers = (bias, max(between, 0.0), msw, sd, bias - half, bias + half)
    return RepeatedPairs(n, n_pairs, *numbers, is_between_floored=between < 0, mean=mean)
