"""A model at one external center as it came and recalibrated there: fitted on site_tuning people, told on the same others.

Neither result stands for the other: each has its own id, and nobody whom a recalibration was fitted on is in either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import stats

from ospor_batch.evaluation.analysis_set import SITE_TUNING, AnalysisSet, People, performance_people
from ospor_batch.evaluation.intervals import LEVEL, Estimate, Interval, estimated, normal_quantile, not_estimable
from ospor_batch.evaluation.recalibration import Recalibration, recalibrate
from ospor_batch.evaluation.risk_calibration import calibration_measures
from ospor_batch.evaluation.strata import EVERYONE, parse_strata
from ospor_batch.evaluation.tables import Context, Row, performance_rows, stated
from ospor_batch.evaluation.threshold import LockedThreshold, ThresholdRule
from ospor_batch.evaluation.value_tables import NO_CALIBRATION, Comparison, agreement_rows, in_common_unit, with_both_values

Floats = NDArray[np.float64]
SMALLEST_SITE = 10  # judgement: a line through fewer people tells more of them than of the site
OF_PROBABILITIES = ("intercept", "logistic")  # in the large, and with a slope (methods S9)
PERFORMANCE = ("auc", "sensitivity", "specificity", "ppv", "npv", "accuracy", "f1", "positive_fraction")
AGREEMENT = ("icc_a_1", "proportional_bias", "bias", "bias_at_cut", "loa_lower", "loa_upper", "rmse")
RISK = ("calibration_slope", "calibration_in_the_large", "observed_over_expected", "brier")
COEFFICIENTS = ("intercept", "slope")
OVERALL_ALONE = parse_strata(())


@dataclass(frozen=True)
class SiteLine:
    """predicted = intercept + slope * reference over the people of a site; read backwards it takes the bias away.

    It runs from the reference to the prediction, since what a cut-off of the reference must not meet is bias at one value of
    the reference; the line of the other direction shrinks towards the mean and leaves that bias (methods S4).
    """

    intercept: Estimate
    slope: Estimate
    reason: str | None = None

    def apply(self, predicted: Floats) -> Floats:
        """Values as the reference would give them on average."""
        if self.intercept.value is None or self.slope.value is None:
            raise ValueError(f"no line was fitted: {self.reason}")
        return (predicted - self.intercept.value) / self.slope.value


@dataclass(frozen=True)
class _Way:
    """One result of a site: how its rows change, what the threshold is, what was fitted."""

    id: str
    threshold: LockedThreshold
    changed: Callable[[pl.DataFrame], pl.DataFrame] | None  # null where nothing could be fitted
    coefficients: tuple[Estimate, Estimate] | None = None
    reason: str | None = None


@dataclass(frozen=True)
class _Site:
    """The people of a center on both sides, in the unit that is compared."""

    center: str
    tuning: pl.DataFrame
    tested: pl.DataFrame
    unit: str
    is_probability: bool


def fit_site_line(reference: Floats, predicted: Floats, *, level: float = LEVEL) -> SiteLine:
    """Fit with t intervals; a reason in place of coefficients with few people, one value, or a line that does not rise."""
    x, y = np.asarray(reference, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    if x.size < SMALLEST_SITE:
        return _no_line("too_few_site_tuning_people" if x.size else "no_site_tuning_people")
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return _no_line("zero_variance")
    line = stats.linregress(x, y)
    if not line.slope > 0:
        return _no_line("slope_not_positive")
    t = float(stats.t.ppf(0.5 + level / 2, x.size - 2))
    return SiteLine(
        _around(float(line.intercept), t * float(line.intercept_stderr), method="t"),
        _around(float(line.slope), t * float(line.stderr), method="t"),
    )


def site_recalibration_rows(
    context: Context, of: AnalysisSet, *, fitted: Comparison, rule: ThresholdRule, centers: tuple[str, ...]
) -> list[Row]:
    """Rows of every named center: the model as it came, and each recalibration, on the center's external people.

    fitted: the study's own density calibration, kept where the prediction has another unit than the reference.
    """
    found: list[Row] = []
    for center in sorted(centers):
        site = _site(of, fitted, center=center)
        for way in _ways(context, site, fitted, rule):
            found += _rows(context, site, way)
    return found


def _site(of: AnalysisSet, fitted: Comparison, *, center: str) -> _Site:
    mine = performance_people(of.paired).filter(pl.col("center") == center)
    is_probability = set(mine["predicted_value_unit"]) == {"probability"}
    # values leave together who has none to compare, so that both results have the same people
    rows = mine if is_probability else in_common_unit(with_both_values(mine), fitted)
    tuning, tested = (rows.filter(pl.col("partition") == name) for name in (SITE_TUNING, "external"))
    return _Site(center, tuning, tested, "probability" if is_probability else fitted.to_unit, is_probability)


def _ways(context: Context, site: _Site, fitted: Comparison, rule: ThresholdRule) -> Iterator[_Way]:
    yield _Way(NO_CALIBRATION, context.threshold, lambda rows: rows)
    if site.is_probability:
        for method in OF_PROBABILITIES:
            yield _of_probability(site, method, rule)
    else:
        yield _of_value(site, fitted, rule)


def _of_probability(site: _Site, method: str, rule: ThresholdRule) -> _Way:
    truth, score = site.tuning["truth"].to_numpy(), site.tuning["score"].to_numpy()
    fit = recalibrate(truth, score, method=method, partition=SITE_TUNING, is_probability=True)
    if fit.reason is None and not (fit.slope or 0.0) > 0:
        fit = replace(fit, reason="slope_not_positive")
    if fit.reason is not None:
        return _refused(fit.id, fit.reason, rule)

    def changed(rows: pl.DataFrame) -> pl.DataFrame:
        return rows.with_columns(score=pl.Series(fit.apply(rows["score"].to_numpy()), dtype=pl.Float64))

    threshold = rule.locked(truth, fit.apply(score), partition=SITE_TUNING)
    return _Way(fit.id, threshold, changed, _coefficients(fit))


def _of_value(site: _Site, fitted: Comparison, rule: ThresholdRule) -> _Way:
    line = fit_site_line(site.tuning["reference_value"].to_numpy(), site.tuning["calibrated"].to_numpy())
    name = f"linear@{SITE_TUNING} n={site.tuning.height}"
    reason = line.reason or fitted.reason
    if reason is not None:
        return _refused(name, reason, rule)

    def changed(rows: pl.DataFrame) -> pl.DataFrame:
        value = line.apply(rows["calibrated"].to_numpy())
        return rows.with_columns(calibrated=pl.Series(value, dtype=pl.Float64), score=pl.Series(-value, dtype=pl.Float64))

    in_unit = replace(rule, unit=site.unit)
    if rule.score_cut is not None and fitted.line is not None:  # a cut-off of another unit, read off the study's own line
        in_unit = replace(in_unit, score_cut=-float(fitted.line.apply(-rule.score_cut)))
    at_site = changed(site.tuning)
    threshold = in_unit.locked(at_site["truth"].to_numpy(), at_site["score"].to_numpy(), partition=SITE_TUNING)
    return _Way(name, threshold, changed, (line.intercept, line.slope))


def _refused(name: str, reason: str, rule: ThresholdRule) -> _Way:
    unlocked = LockedThreshold(rule.name, SITE_TUNING, rule.unit, 0, 0, "", None, reason)
    return _Way(name, unlocked, None, (not_estimable(reason), not_estimable(reason)), reason)


def _rows(context: Context, site: _Site, way: _Way) -> Iterator[Row]:
    behind = {"n_persons": site.tested.height, "n_events": _events(site.tested)}
    told = {
        "recipe": context.recipe, "reference_id": context.reference_id, "center": site.center, "calibration_id": way.id,
        "unit": site.unit, "model_digest": context.model_digest, "threshold_id": way.threshold.id,
        "n_tuning_persons": site.tuning.height, "n_tuning_events": _events(site.tuning),
    }  # fmt: skip
    if way.coefficients is not None:
        fitted_on = {"n_persons": site.tuning.height, "n_events": _events(site.tuning)}
        for metric, estimate in zip(COEFFICIENTS, way.coefficients, strict=True):
            yield told | fitted_on | {"partition": SITE_TUNING, "metric": metric, **stated(estimate)}
    for metric, columns in _measured(context, site, way).items():
        yield told | behind | {"partition": "external", "metric": metric, **columns}


def _measured(context: Context, site: _Site, way: _Way) -> dict[str, Row]:
    """The columns of the estimate of every metric of the external people."""
    names = (*PERFORMANCE, *(RISK if site.is_probability else AGREEMENT))
    if way.changed is None:
        return dict.fromkeys(names, stated(not_estimable(way.reason or "not_fitted")))
    rows = way.changed(site.tested)
    here = replace(context, threshold=way.threshold, strata=OVERALL_ALONE)
    people = People("external", EVERYONE, rows.with_columns(is_paired=pl.lit(value=True)), rows)
    found = performance_rows(here, people)
    if site.is_probability:
        measures = calibration_measures(rows["truth"].to_numpy().astype(bool), rows["score"].to_numpy())
        found += [{"metric": metric, **stated(estimate)} for metric, estimate in measures.items()]
    else:
        compared = rows.with_columns(predicted_value="calibrated")
        plain = Comparison(site.unit, site.unit, None, None)
        found += agreement_rows(here, replace(people, paired=compared), fitted=plain)
    wanted = tuple(stated(not_estimable("")))
    return {row["metric"]: {name: row[name] for name in wanted} for row in found if row["metric"] in names}


def _events(rows: pl.DataFrame) -> int:
    return int(rows["truth"].sum())


def _coefficients(fit: Recalibration) -> tuple[Estimate, Estimate]:
    z, found = normal_quantile(LEVEL), []
    for value, error in ((fit.intercept, fit.intercept_error), (fit.slope, fit.slope_error)):
        assert value is not None  # a fit without a reason has both
        found.append(estimated(value, None, method="none") if error is None else _around(value, z * error, method="glm_wald"))
    return found[0], found[1]


def _around(value: float, half: float, *, method: str) -> Estimate:
    return estimated(value, Interval(value - half, value + half), method=method)


def _no_line(reason: str) -> SiteLine:
    return SiteLine(not_estimable(reason), not_estimable(reason), reason)
