"""Recalibration of a score to a risk: intercept, slope or isotonic, fitted off the test people only, under its own id."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special

from ospor_batch.errors import StudyError
from ospor_batch.evaluation.discrimination import classes
from ospor_batch.evaluation.risk_calibration import intercept_alone, is_separated, log_odds, logistic_fit

Floats = NDArray[np.float64]
METHODS = ("intercept", "logistic", "isotonic")
FITTING_PARTITION = "tuning"
SITE_PARTITION = "site_tuning"  # of one external center: what is fitted there stands beside the original, never in its place
SMALLEST_CLASS = 5  # judgement: below it a line through the tuning people is noise


@dataclass(frozen=True)
class Recalibration:
    """How a score becomes a risk; knots hold score and risk of the isotonic steps."""

    method: str
    n_persons: int
    n_events: int
    is_probability: bool
    intercept: float | None = None
    slope: float | None = None
    intercept_error: float | None = None
    slope_error: float | None = None
    knots: tuple[tuple[float, float], ...] = ()
    reason: str | None = None
    partition: str = FITTING_PARTITION

    @property
    def id(self) -> str:
        """Method, partition and size, such as ``logistic@tuning n=63``; its own name, never the density calibration's."""
        return f"{self.method}@{self.partition} n={self.n_persons}"

    def apply(self, score: ArrayLike) -> Floats:
        """Risks of scores; ValueError where nothing could be fitted."""
        value = np.asarray(score, dtype=np.float64)
        if self.reason is not None:
            raise ValueError(f"no recalibration was fitted: {self.reason}")
        if self.method == "isotonic":
            at, risk = np.array([k[0] for k in self.knots]), np.array([k[1] for k in self.knots])
            return np.asarray(np.interp(value, at, risk), dtype=np.float64)
        lp = log_odds(value)[0] if self.is_probability else value
        return np.asarray(special.expit((self.intercept or 0.0) + (self.slope or 0.0) * lp), dtype=np.float64)


def recalibrate(truth: ArrayLike, score: ArrayLike, *, method: str, partition: str, is_probability: bool) -> Recalibration:
    """Fit on tuning people, or on those of a site; StudyError for any other partition (design section 6).

    intercept keeps the slope of a probability at 1; logistic fits both; isotonic is the monotone least-squares step
    curve, joined by straight lines. A score that is no probability has no intercept-only form.
    """
    if partition not in {FITTING_PARTITION, SITE_PARTITION}:
        raise StudyError(f"a recalibration is fitted on tuning people only, not on {partition}")
    event, value = classes(truth, score)
    n, n_events = event.size, int(event.sum())
    said = {"method": method, "n_persons": n, "n_events": n_events, "is_probability": is_probability, "partition": partition}
    if reason := _refusal(event, value, method=method, is_probability=is_probability, partition=partition):
        return Recalibration(**said, reason=reason)  # type: ignore[arg-type]
    if method == "isotonic":
        order = np.argsort(value, kind="stable")
        at, inverse = np.unique(value[order], return_inverse=True)
        weight = np.bincount(inverse).astype(np.float64)
        share = np.bincount(inverse, event[order]) / weight
        steps = optimize.isotonic_regression(share, weights=weight).x
        return Recalibration(**said, knots=tuple(zip(at.tolist(), steps.tolist(), strict=True)))  # type: ignore[arg-type]
    lp = log_odds(value)[0] if is_probability else value
    if method == "intercept":
        intercept, error_of_it = intercept_alone(event, lp)
        return Recalibration(**said, intercept=intercept, slope=1.0, intercept_error=error_of_it)  # type: ignore[arg-type]
    centre, scale = float(lp.mean()), float(lp.std())
    beta, error = logistic_fit(event, np.column_stack([np.ones(n), (lp - centre) / scale]))
    slope = float(beta[1]) / scale
    fitted = {"intercept": float(beta[0]) - slope * centre, "slope": slope, "slope_error": float(error[1]) / scale}
    return Recalibration(**said, **fitted)  # type: ignore[arg-type]


def _refusal(event: NDArray[np.bool_], value: Floats, *, method: str, is_probability: bool, partition: str) -> str | None:
    if method not in METHODS:
        raise ValueError(f"method is {method!r}, expected one of {', '.join(METHODS)}")
    n_events = int(event.sum())
    if not event.size:
        return f"no_{partition}_people"
    if n_events < SMALLEST_CLASS:
        return f"too_few_{partition}_events"
    if event.size - n_events < SMALLEST_CLASS:
        return f"too_few_{partition}_non_events"
    if method == "intercept" and not is_probability:
        return "score_is_no_probability"
    if is_probability and ((value < 0) | (value > 1)).any():
        return "score_outside_0_1"
    if method == "logistic" and np.ptp(value) == 0:
        return "zero_variance"
    return "perfect_separation" if method == "logistic" and is_separated(event, value) else None
