"""Direct standardisation of a prevalence by age and sex to a declared standard population (methods S10)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from ospor_batch.errors import StudyError
from ospor_batch.evaluation.intervals import (
    LEVEL,
    Estimate,
    Interval,
    estimated,
    logit_interval,
    normal_quantile,
    not_estimable,
)

Floats = NDArray[np.float64]
WIDTH, OLDEST = 5, 85  # bands of five years, the last from 85
# Weights of 0-4, 5-9 ... 85+ (methods S10). WHO: Ahmad 2001, the four oldest added up; Segi 1960; ESP: Eurostat 2013.
STANDARDS: dict[str, tuple[float, ...]] = {
    "who_2000_2025": (
        8.86, 8.69, 8.60, 8.47, 8.22, 7.93, 7.61, 7.15, 6.59, 6.04, 5.37, 4.55, 3.72, 2.96, 2.21, 1.52, 0.91, 0.635,
    ),
    "segi_world": (120, 100, 90, 90, 80, 80, 60, 60, 60, 60, 50, 40, 40, 30, 20, 10, 5, 5),
    "esp_2013": (50, 55, 55, 55, 60, 60, 65, 70, 70, 70, 70, 65, 60, 55, 50, 40, 25, 25),
}  # fmt: skip
FORMS = ("binomial_logit", "binomial_wald", "gamma")


@dataclass(frozen=True)
class Standardised:
    """A directly standardised prevalence with the strata it rests on."""

    estimate: Estimate
    n_strata: int
    n_empty_strata: int
    variance_binomial: float | None = None
    variance_poisson: float | None = None


def age_group(age: float) -> int:
    """Index of the five-year band of an age in years; 17 is 85 and above."""
    return min(int(age // WIDTH), OLDEST // WIDTH)


def group_said(index: int) -> str:
    """Name of a band, such as 50-54 or 85+."""
    return f"{OLDEST}+" if index >= OLDEST // WIDTH else f"{index * WIDTH}-{index * WIDTH + WIDTH - 1}"


def standard_weights(name: str) -> tuple[float, ...]:
    """Weights of the 18 five-year bands; StudyError names the standards there are."""
    if name not in STANDARDS:
        raise StudyError(f"tables.standard_population is {name!r}, expected one of {', '.join(STANDARDS)}")
    return STANDARDS[name]


def standard_said(name: str, from_index: int) -> str:
    """Name of a standard cut off at its youngest band: who_2000_2025_50plus is another standard than the whole."""
    return name if from_index == 0 else f"{name}_{from_index * WIDTH}plus"


def direct_standardised(
    n_events: ArrayLike, n_persons: ArrayLike, *, weight: ArrayLike, form: str = "binomial_logit", level: float = LEVEL
) -> Standardised:
    """Σ w x/n over the strata with people, weights renormalised over these; empty strata are counted, never 0 %.

    Sexes together: each sex brings its age weights, so that both count alike but for strata without people.
    binomial_logit is the main interval; Fay and Feuer's gamma assumes Poisson counts and is too wide for common
    conditions, so it is an option (methods S10).
    """
    if form not in FORMS:
        raise ValueError(f"form is {form!r}, expected one of {', '.join(FORMS)}")
    x, n, w = (np.asarray(values, dtype=np.float64) for values in (n_events, n_persons, weight))
    has = (n > 0) & (w > 0)
    n_empty = int((w > 0).sum()) - int(has.sum())
    if not has.any():
        return Standardised(not_estimable("no_persons"), 0, n_empty)
    x, n, w = x[has], n[has], w[has] / w[has].sum()
    rate = float((w * x / n).sum())
    binomial, poisson = float((w**2 * (x / n) * (1 - x / n) / n).sum()), float((w**2 * x / n**2).sum())
    interval = _interval(rate, binomial, poisson, float((w / n).max()), form=form, level=level)
    if interval is None:
        return Standardised(not_estimable("zero_variance"), int(has.sum()), n_empty, binomial, poisson)
    method = form if rate else "gamma"
    return Standardised(estimated(rate, interval, method=method), int(has.sum()), n_empty, binomial, poisson)


def gamma_interval(rate: float, variance: float, *, largest: float, level: float = LEVEL) -> Interval:
    """Fay and Feuer's limits (1997); largest is the greatest w/n."""
    tail = (1 - level) / 2
    lower = 0.0 if rate == 0 else float(stats.gamma.ppf(tail, rate**2 / variance, scale=variance / rate))
    above, spread = rate + largest, variance + largest**2
    return Interval(lower, float(stats.gamma.ppf(1 - tail, above**2 / spread, scale=spread / above)))


def _interval(rate: float, binomial: float, poisson: float, largest: float, *, form: str, level: float) -> Interval | None:
    if form == "gamma":
        return gamma_interval(rate, poisson, largest=largest, level=level)
    if rate == 0:  # nobody in any stratum: the binomial variance is 0, the gamma limit is not
        return gamma_interval(rate, poisson, largest=largest, level=level)
    if binomial <= 0 or rate >= 1:
        return None
    if form == "binomial_wald":
        half = normal_quantile(level) * math.sqrt(binomial)
        return Interval(rate - half, rate + half)
    return logit_interval(rate, math.sqrt(binomial), level=level)
