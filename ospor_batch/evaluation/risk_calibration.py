"""Calibration of a predicted risk: recalibration line, Brier score, observed over expected, ECE, and a smooth curve."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special, stats

from ospor_batch.evaluation.discrimination import classes
from ospor_batch.evaluation.intervals import LEVEL, Estimate, Interval, estimated, normal_quantile, not_estimable

Floats = NDArray[np.float64]
CLIP = 1e-6  # risks are kept this far from 0 and 1 (methods S9)
N_BINS = 10
SPAN = 0.75  # of the local regression, R's default
LARGEST_ERROR = 1e3  # of a slope: beyond, the fit walked away and there is no line
FEWEST_FOR_A_CURVE = 20  # below it a local quadratic follows single people
MOST_EXACT_PEOPLE = 1000  # beyond, the local regression is fitted at quantiles and interpolated


@dataclass(frozen=True)
class Line:
    """Logistic recalibration: logit(observed) = intercept + slope · logit(risk); null with a reason."""

    slope: Estimate
    intercept: float | None
    in_the_large: Estimate


@dataclass(frozen=True)
class Curve:
    """Smooth observed risk at each person's risk, and the sizes of its distance from the diagonal."""

    risk: Floats
    observed: Floats
    ici: float
    e50: float
    e90: float
    e_max: float


def log_odds(risk: ArrayLike) -> tuple[Floats, int]:
    """Logit of risks kept off 0 and 1, and how many had to be moved."""
    p = np.asarray(risk, dtype=np.float64)
    kept = np.clip(p, CLIP, 1 - CLIP)
    return np.log(kept / (1 - kept)), int((kept != p).sum())


def calibration_line(truth: ArrayLike, risk: ArrayLike, *, level: float = LEVEL) -> Line:
    """Slope of y ~ logit(risk), and calibration in the large of y ~ 1 + offset(logit(risk)) (methods S9).

    Not estimable with one class; the slope also under perfect separation, where statsmodels would only warn.
    """
    event, value = _risks(truth, risk)
    if reason := _one_class(event):
        return Line(not_estimable(reason), None, not_estimable(reason))
    lp = log_odds(value)[0]
    large = _wald(*intercept_alone(event, lp), level)
    if is_separated(event, lp):
        return Line(not_estimable("perfect_separation"), None, large)
    if np.ptp(lp) == 0:
        return Line(not_estimable("zero_variance"), None, large)
    beta, error = logistic_fit(event, np.column_stack([np.ones(event.size), lp]))
    if not error[1] < LARGEST_ERROR:
        return Line(not_estimable("perfect_separation"), None, large)
    return Line(_wald(beta[1], error[1], level), float(beta[0]), large)


def calibration_measures(truth: ArrayLike, risk: ArrayLike, *, level: float = LEVEL) -> dict[str, Estimate]:
    """Every calibration measure by name; each not estimable on its own terms."""
    event, value = _risks(truth, risk)
    line, curve = calibration_line(event, value, level=level), smooth_curve(event, value)
    reason = _one_class(event)
    few = not_estimable(reason or "too_few_persons")
    return {
        "calibration_slope": line.slope,
        "calibration_in_the_large": line.in_the_large,
        "brier": brier(event, value, level=level),
        "brier_scaled": scaled_brier(event, value),
        "observed_over_expected": observed_over_expected(event, value, level=level),
        "ece_q10": few if not event.size else estimated(ece(event, value, equal_mass=True)[0], None, method="equal_mass_10"),
        "ece_w10": few if not event.size else estimated(ece(event, value, equal_mass=False)[0], None, method="equal_width_10"),
        "ici": few if curve is None else estimated(curve.ici, None, method="loess"),
        "e50": few if curve is None else estimated(curve.e50, None, method="loess"),
        "e90": few if curve is None else estimated(curve.e90, None, method="loess"),
    }


def brier(truth: ArrayLike, risk: ArrayLike, *, level: float = LEVEL) -> Estimate:
    """Mean squared distance of risk and outcome with a t interval over persons, cut off at 0 and 1."""
    event, value = _risks(truth, risk)
    squared = (value - event) ** 2
    if squared.size < 2:
        return estimated(float(squared.mean()), None, method="none") if squared.size else not_estimable("no_persons")
    mean, error = float(squared.mean()), float(squared.std(ddof=1)) / math.sqrt(squared.size)
    half = float(stats.t.ppf(0.5 + level / 2, squared.size - 1)) * error
    return estimated(mean, Interval(max(0.0, mean - half), min(1.0, mean + half)), method="t")


def scaled_brier(truth: ArrayLike, risk: ArrayLike) -> Estimate:
    """1 - Brier/(ȳ(1 - ȳ)); not estimable with one class."""
    event, value = _risks(truth, risk)
    if reason := _one_class(event):
        return not_estimable(reason)
    share = float(event.mean())
    return estimated(1 - float(((value - event) ** 2).mean()) / (share * (1 - share)), None, method="none")


def observed_over_expected(truth: ArrayLike, risk: ArrayLike, *, level: float = LEVEL) -> Estimate:
    """Observed events over the sum of risks, with log-normal limits."""
    event, value = _risks(truth, risk)
    observed, expected = int(event.sum()), float(value.sum())
    if not observed or expected <= 0:
        return not_estimable("no_persons" if not event.size else "no_events" if not observed else "division_by_zero")
    ratio = observed / expected
    half = normal_quantile(level) * math.sqrt((1 - observed / event.size) / observed)
    return estimated(ratio, Interval(ratio * math.exp(-half), ratio * math.exp(half)), method="log_normal")


def ece(truth: ArrayLike, risk: ArrayLike, *, equal_mass: bool, n_bins: int = N_BINS) -> tuple[float, float, int]:
    """Expected and greatest calibration error over bins of equal width or equal mass, and how many bins hold people.

    Equal mass: rank i of n goes to bin ceil(n_bins·i/n), ties by order.
    """
    event, value = _risks(truth, risk)
    if equal_mass:
        rank = np.empty(value.size, dtype=np.int64)
        rank[np.argsort(value, kind="stable")] = np.arange(1, value.size + 1)
        bins = -(-n_bins * rank // value.size) - 1
    else:
        bins = np.minimum((value * n_bins).astype(np.int64), n_bins - 1)
    n = np.bincount(bins, minlength=n_bins)
    has = n > 0
    gap = np.abs(np.bincount(bins, value, n_bins) - np.bincount(bins, event, n_bins))[has] / n[has]
    return float((gap * n[has]).sum() / value.size), float(gap.max()), int(has.sum())


def spiegelhalter(truth: ArrayLike, risk: ArrayLike) -> tuple[float, float] | None:
    """Spiegelhalter's z and two-sided p; null where every risk is 0, 1/2 or 1."""
    event, value = _risks(truth, risk)
    below = math.sqrt(float(((1 - 2 * value) ** 2 * value * (1 - value)).sum()))
    if below == 0:
        return None
    z = float(((event - value) * (1 - 2 * value)).sum()) / below
    return z, float(2 * stats.norm.sf(abs(z)))


def smooth_curve(truth: ArrayLike, risk: ArrayLike) -> Curve | None:
    """Local quadratic regression of the outcome on the risk (loess, span 0.75, tricube), with ICI, E50 and E90.

    Null with one class, few people or few different risks. Own code: statsmodels' lowess is local linear.
    """
    event, value = _risks(truth, risk)
    if _one_class(event) or event.size < FEWEST_FOR_A_CURVE or np.unique(value).size < N_BINS:
        return None
    at = value if value.size <= MOST_EXACT_PEOPLE else np.unique(np.quantile(value, np.linspace(0, 1, 401)))
    fitted = _loess(event.astype(np.float64), value, at)
    observed = fitted if at is value else np.interp(value, at, fitted)
    gap = np.abs(observed - value)
    e50, e90 = np.quantile(gap, [0.5, 0.9])
    return Curve(value, observed, float(gap.mean()), float(e50), float(e90), float(gap.max()))


def lowess_curve(truth: ArrayLike, risk: ArrayLike, *, at: ArrayLike) -> Floats:
    """Cleveland's lowess (local linear, 2/3 of the people, no robustness rounds) at given risks."""
    from statsmodels.nonparametric.smoothers_lowess import lowess  # late: 1 s

    event, value = _risks(truth, risk)
    points = lowess(event.astype(np.float64), value, frac=2 / 3, it=0, delta=0.0)
    return np.asarray(np.interp(np.asarray(at, dtype=np.float64), points[:, 0], points[:, 1]), dtype=np.float64)


def logistic_fit(event: NDArray[np.bool_], design: Floats, *, offset: Floats | None = None) -> tuple[Floats, Floats]:
    """Coefficients and standard errors of a logistic regression; the caller has ruled out separation."""
    from statsmodels.genmod.families import Binomial  # late, and not statsmodels.api: half a second
    from statsmodels.genmod.generalized_linear_model import GLM

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # separation is ruled out before; statsmodels warns of it by rounding too
        fit = GLM(event.astype(np.float64), design, family=Binomial(), offset=offset).fit(tol=1e-12)
    return np.asarray(fit.params, dtype=np.float64), np.asarray(fit.bse, dtype=np.float64)


def intercept_alone(event: NDArray[np.bool_], lp: Floats) -> tuple[float, float]:
    """The intercept of a logistic model whose slope on lp is 1, and its standard error; both classes must be there.

    One root of a falling function: a general fit walks away when risks are near 0 and 1.
    """
    n_events, reach = float(event.sum()), 2 * float(np.abs(lp).max()) + 2 * math.log(event.size + 1) + 1
    value = float(optimize.brentq(lambda a: float(special.expit(a + lp).sum()) - n_events, -reach, reach, xtol=1e-13))
    risk = special.expit(value + lp)
    return value, 1 / math.sqrt(float((risk * (1 - risk)).sum()))


def is_separated(event: NDArray[np.bool_], value: Floats) -> bool:
    """Whether one cut of the value parts the classes, so that no slope is finite."""
    events, others = value[event], value[~event]
    return bool(others.max() <= events.min() or events.max() <= others.min())


def _loess(y: Floats, x: Floats, at: Floats) -> Floats:
    near = int(SPAN * x.size + 1e-5)
    fitted = np.empty(at.size)
    for i, point in enumerate(at):
        away = np.abs(x - point)
        reach = float(np.partition(away, near - 1)[near - 1])
        weight = np.clip(1 - (away / reach) ** 3, 0, None) ** 3 if reach > 0 else (away == 0).astype(np.float64)
        root = np.sqrt(weight)
        design = np.column_stack([np.ones(x.size), x - point, (x - point) ** 2]) * root[:, None]
        fitted[i] = np.linalg.lstsq(design, y * root, rcond=None)[0][0]
    return fitted


def _risks(truth: ArrayLike, risk: ArrayLike) -> tuple[NDArray[np.bool_], Floats]:
    event, value = classes(truth, risk)
    if ((value < 0) | (value > 1)).any():
        raise ValueError("a risk lies outside 0 to 1; recalibrate the score first")
    return event, value


def _wald(value: float, error: float, level: float) -> Estimate:
    half = normal_quantile(level) * float(error)
    return estimated(float(value), Interval(float(value) - half, float(value) + half), method="glm_wald")


def _one_class(event: NDArray[np.bool_]) -> str | None:
    if not event.size:
        return "no_persons"
    return "no_events" if not event.any() else "no_non_events" if event.all() else None
