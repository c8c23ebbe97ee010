"""Agreement of raters and methods as one number: intraclass correlations with their form named, and Lin's CCC."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from ospor_batch.evaluation.agreement import pairs
from ospor_batch.evaluation.intervals import LEVEL, Estimate, Interval, estimated, normal_quantile, not_estimable

Floats = NDArray[np.float64]
FORMS = ("icc_1_1", "icc_2_1", "icc_3_1", "icc_1_k", "icc_2_k", "icc_3_k")
FEWEST = 2  # subjects, and raters
FEWEST_FOR_CCC = 3  # the variance divides by n - 2


@dataclass(frozen=True)
class Squares:
    """Mean squares of a two-way layout without replication."""

    n: int
    k: int
    rows: float
    columns: float
    error: float
    within: float


def icc(ratings: ArrayLike, *, form: str = "icc_2_1", level: float = LEVEL) -> Estimate:
    """Intraclass correlation of subjects x raters, in one of Shrout and Fleiss's six forms, with F-based limits.

    icc_2_1 is absolute agreement of single ratings (McGraw and Wong's A,1); icc_3_1 is consistency and blind to bias,
    so a model is compared with its reference by icc_2_1 (methods S8). Negative values stand. Own code: pingouin rounds
    its limits unless a global option is set.
    """
    if form not in FORMS:
        raise ValueError(f"form is {form!r}, expected one of {', '.join(FORMS)}")
    found = _squares(ratings)
    if isinstance(found, str):
        return not_estimable(found)
    value, interval = {"1": _one_way, "2": _random, "3": _mixed}[form[4]](found, level)
    if form.endswith("k"):
        value, interval = (
            _of_mean(value, found.k),
            Interval(_of_mean(interval.lower, found.k), _of_mean(interval.upper, found.k)),
        )
    if not all(map(math.isfinite, (value, interval.lower, interval.upper))):
        return not_estimable("zero_variance")
    if not interval.lower <= value <= interval.upper:
        return not_estimable("too_few_persons")  # the F limits of two or three subjects may pass by a negative value
    return estimated(value, interval, method=f"{form}_f")


def concordance(reference: ArrayLike, predicted: ArrayLike, *, level: float = LEVEL) -> Estimate:
    """Lin's concordance correlation with divisor n and the limits of his z-transform (1989, 2000; methods S8)."""
    x, y = pairs(reference, predicted)
    if x.size < FEWEST_FOR_CCC:
        return not_estimable("too_few_persons" if x.size else "no_persons")
    sx, sy = float(x.var()), float(y.var())
    if sx <= 0 or sy <= 0:
        return not_estimable("zero_variance")
    covariance = float(((x - x.mean()) * (y - y.mean())).mean())
    value = 2 * covariance / (sx + sy + float(x.mean() - y.mean()) ** 2)
    r, u2 = covariance / math.sqrt(sx * sy), float(y.mean() - x.mean()) ** 2 / math.sqrt(sx * sy)
    if 1 - abs(r) < 1e-12 or value == 0:
        return not_estimable("perfect_correlation" if value else "zero_variance")
    c2 = value * value
    variance = (
        (1 - r * r) * c2 * (1 - c2) / (r * r) + 2 * value * c2 * (1 - value) * u2 / r - c2 * c2 * u2 * u2 / (2 * r * r)
    ) / (x.size - 2)
    half = normal_quantile(level) * math.sqrt(variance) / (1 - c2)
    z = math.atanh(value)
    return estimated(value, Interval(math.tanh(z - half), math.tanh(z + half)), method="lin_z")


def _squares(ratings: ArrayLike) -> Squares | str:
    table = np.asarray(ratings, dtype=np.float64)
    if table.ndim != 2 or not np.isfinite(table).all():
        raise ValueError("ratings must be subjects by raters, all finite; leave incomplete subjects out and count them")
    n, k = table.shape
    if n < FEWEST or k < FEWEST:
        return "too_few_persons" if n else "no_persons"
    mean = table.mean()
    rows = k * float(((table.mean(axis=1) - mean) ** 2).sum()) / (n - 1)
    columns = n * float(((table.mean(axis=0) - mean) ** 2).sum()) / (k - 1)
    total = float(((table - mean) ** 2).sum())
    error = (total - rows * (n - 1) - columns * (k - 1)) / ((n - 1) * (k - 1))
    within = (total - rows * (n - 1)) / (n * (k - 1))
    if min(error, within, rows) <= 1e-12 * max(total, 1e-300):
        return "zero_variance"
    return Squares(n, k, rows, columns, error, within)


def _one_way(s: Squares, level: float) -> tuple[float, Interval]:
    f, df = s.rows / s.within, (s.n - 1, s.n * (s.k - 1))
    return (s.rows - s.within) / (s.rows + (s.k - 1) * s.within), _of_f(f, df, s.k, level)


def _mixed(s: Squares, level: float) -> tuple[float, Interval]:
    f, df = s.rows / s.error, (s.n - 1, (s.n - 1) * (s.k - 1))
    return (s.rows - s.error) / (s.rows + (s.k - 1) * s.error), _of_f(f, df, s.k, level)


def _random(s: Squares, level: float) -> tuple[float, Interval]:
    """Two-way random effects; limits by Satterthwaite's degrees of freedom (Shrout and Fleiss 1979)."""
    n, k = s.n, s.k
    value = (s.rows - s.error) / (s.rows + (k - 1) * s.error + k * (s.columns - s.error) / n)
    fj = s.columns / s.error
    above = (k - 1) * (n - 1) * (k * value * fj + n * (1 + (k - 1) * value) - k * value) ** 2
    below = (n - 1) * k**2 * value**2 * fj**2 + (n * (1 + (k - 1) * value) - k * value) ** 2
    v, tail = above / below, 0.5 + level / 2
    f_lower, f_upper = float(stats.f.ppf(tail, n - 1, v)), float(stats.f.ppf(tail, v, n - 1))
    spread = k * s.columns + (k * n - k - n) * s.error
    lower = n * (s.rows - f_lower * s.error) / (f_lower * spread + n * s.rows)
    upper = n * (f_upper * s.rows - s.error) / (spread + n * f_upper * s.rows)
    return value, Interval(lower, upper)


def _of_f(f: float, df: tuple[int, int], k: int, level: float) -> Interval:
    tail = 0.5 + level / 2
    low, high = f / float(stats.f.ppf(tail, *df)), f * float(stats.f.ppf(tail, df[1], df[0]))
    return Interval((low - 1) / (low + k - 1), (high - 1) / (high + k - 1))


def _of_mean(single: float, k: int) -> float:
    """Spearman-Brown."""
    return k * single / (1 + (k - 1) * single)
