"""Intervals of proportions, and the estimate that every statistic is handed on as."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy import stats

LEVEL = 0.95  # of every interval in the tables


@dataclass(frozen=True)
class Interval:
    lower: float
    upper: float


@dataclass(frozen=True)
class Estimate:
    """A value with its interval, or the reason why there is none; never NaN.

    lower and upper are null where the value stands but its interval is undefined.
    """

    value: float | None
    lower: float | None
    upper: float | None
    method: str
    reason: str | None = None

    @property
    def is_estimable(self) -> bool:
        return self.reason is None


def estimated(value: float, interval: Interval | None, *, method: str) -> Estimate:
    """State a value with its interval."""
    if interval is None:
        return Estimate(value, None, None, method)
    return Estimate(value, interval.lower, interval.upper, method)


def not_estimable(reason: str) -> Estimate:
    """State why there is no value; reason is a typed word."""
    return Estimate(None, None, None, "none", reason)


def normal_quantile(level: float) -> float:
    """Two-sided standard normal quantile; 1.959964 at 95 % (methods section 5)."""
    return float(stats.norm.ppf(0.5 + level / 2))


def wilson(n_success: int, n: int, *, level: float = LEVEL) -> Interval | None:
    """Wilson score interval of a proportion (methods S2); null when n is 0."""
    if n == 0:
        return None
    z = normal_quantile(level)
    centre = (n_success + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(n_success * (n - n_success) / n + z * z / 4)
    # at 0/n and n/n the limit is exactly 0 or 1; rounding must not move it
    lower = 0.0 if n_success == 0 else max(0.0, centre - half)
    upper = 1.0 if n_success == n else min(1.0, centre + half)
    return Interval(lower, upper)


def clopper_pearson(n_success: int, n: int, *, level: float = LEVEL) -> Interval | None:
    """Exact binomial interval from beta quantiles (methods S2); null when n is 0."""
    if n == 0:
        return None
    tail = (1 - level) / 2
    lower = 0.0 if n_success == 0 else float(stats.beta.ppf(tail, n_success, n - n_success + 1))
    upper = 1.0 if n_success == n else float(stats.beta.ppf(1 - tail, n_success + 1, n - n_success))
    return Interval(lower, upper)


INTERVALS = {"wilson": wilson, "clopper_pearson": clopper_pearson}


def proportion(n_success: int, n: int, *, empty: str = "no_persons", method: str = "wilson", level: float = LEVEL) -> Estimate:
    """Estimate a proportion; not estimable for the reason ``empty`` when n is 0 (methods S2)."""
    if n == 0:
        return not_estimable(empty)
    return estimated(n_success / n, INTERVALS[method](n_success, n, level=level), method=method)


def f1_interval(n_true_positive: int, n_wrong: int, *, level: float = LEVEL) -> Interval | None:
    """Wilson limits of J = TP/(TP+FP+FN) mapped by F1 = 2J/(1+J) (methods S2); n_wrong is FP + FN."""
    of_jaccard = wilson(n_true_positive, n_true_positive + n_wrong, level=level)
    if of_jaccard is None:
        return None
    lower, upper = of_jaccard.lower, of_jaccard.upper
    return Interval(2 * lower / (1 + lower), 2 * upper / (1 + upper))


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def expit(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def logit_interval(p: float, se: float, *, level: float = LEVEL) -> Interval:
    """expit(logit p ± z·SE/(p(1 − p))) for 0 < p < 1 (methods S1); se is that of p itself."""
    half = normal_quantile(level) * se / (p * (1 - p))
    return Interval(expit(logit(p) - half), expit(logit(p) + half))
