"""Pool released aggregates of centers that cannot share rows; equal to the estimates from pooled rows where theory says so."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from ospor_batch.evaluation.agreement import BlandAltman, limits_from
from ospor_batch.evaluation.discrimination import Confusion, operating_point
from ospor_batch.evaluation.group_tables import METHOD, back_to_share
from ospor_batch.evaluation.grouped_areas import histogram_area
from ospor_batch.evaluation.heterogeneity import Effect, pool_random_effects
from ospor_batch.evaluation.intervals import (
    Estimate,
    Interval,
    estimated,
    expit,
    logit,
    normal_quantile,
    not_estimable,
    proportion,
)
from ospor_batch.evaluation.standardization import (
    OLDEST,
    WIDTH,
    direct_standardised,
    group_said,
    standard_said,
    standard_weights,
)
from ospor_batch.evaluation.two_by_two import further_measures

Row = dict[str, Any]
CALLS = ("tp", "fp", "fn", "tn")
SUMS = ("sum_predicted", "sum_reference", "sum_predicted_squared", "sum_reference_squared", "sum_product")
FEWEST_FOR_MOMENTS = 4


@dataclass(frozen=True)
class Part:
    """One release: its name, and its tables by name (released form: withheld cells are null)."""

    name: str
    tables: Mapping[str, pl.DataFrame]
    round_to: int

    def rows(self, table: str, recipe: str, **values: str) -> pl.DataFrame:
        """Rows of one recipe in the test people."""
        mine = {"recipe": recipe, "partition": "test", **values}
        return self.tables[table].filter(*(pl.col(column) == value for column, value in mine.items()))

    def overall(self, table: str, recipe: str, *, metric: str) -> Row | None:
        """The overall row of one metric, persons of all acquisitions; null when the release has none."""
        found = self.rows(table, recipe, stratum="overall", is_same_acquisition="all", metric=metric).to_dicts()
        return found[0] if found else None


@dataclass(frozen=True)
class Declared:
    """What all parts share."""

    recipe: str
    reference_id: str
    target: str
    model_digest: str
    threshold_id: str
    ppv_prevalence: float
    standard_population: str


def pooled_rows(parts: Sequence[Part], of: Declared) -> list[Row]:
    """Every pooled estimate of one recipe; a release with a withheld cell is left out of it and named."""
    ways = (_from_counts, _prevalences, _areas, _random, _standardised, _agreement)
    return [row for way in ways for row in way(parts, of)]


def _said(of: Declared, parts: Sequence[Part], metric: str, method: str, estimate: Estimate, **more: Any) -> Row:
    base = {
        "recipe": of.recipe, "reference_id": of.reference_id, "target": of.target, "model_digest": of.model_digest,
        "threshold_id": of.threshold_id, "metric": metric, "method": method, "n_releases": len(parts), "releases_left_out": "",
        "n_persons": None, "n_events": None, "basis": _rounding(parts), "tau2": None, "prediction_lower": None,
        "prediction_upper": None, "estimate": estimate.value, "estimate_lower": estimate.lower,
        "estimate_upper": estimate.upper, "interval_method": estimate.method,
        "status": "estimated" if estimate.is_estimable else "not_estimable", "status_reason": estimate.reason,
    }  # fmt: skip
    return base | more


def _rounding(parts: Sequence[Part]) -> str | None:
    bases = sorted({part.round_to for part in parts if part.round_to > 1})
    return f"counts rounded to {', '.join(map(str, bases))}" if bases else None


def _with(parts: Sequence[Part], rows: Sequence[Row | None], needed: Sequence[str]) -> tuple[list[Part], list[Row], str]:
    """The parts whose row is there whole, their rows, and why others were left out."""
    kept, found, out = [], [], []
    for part, row in zip(parts, rows, strict=True):
        if row is None or any(row[name] is None for name in needed):
            out.append(f"{part.name}: {'not in the release' if row is None else 'withheld_or_not_estimable'}")
        else:
            kept.append(part)
            found.append(row)
    return kept, found, "; ".join(out)


def _from_counts(parts: Sequence[Part], of: Declared) -> list[Row]:
    """Measures of the summed 2 x 2 table: those of the pooled rows."""
    kept, rows, out = _with(parts, [part.overall("performance", of.recipe, metric="accuracy") for part in parts], CALLS)
    table = Confusion(*(sum(row[name] for row in rows) for name in CALLS))
    measured = operating_point(table, prevalence=of.ppv_prevalence) | further_measures(table)
    counts = {"n_persons": table.n, "n_events": table.n_events, "releases_left_out": out}
    return [_said(of, kept, metric, "summed_counts", estimate, **counts) for metric, estimate in measured.items()]


def _prevalences(parts: Sequence[Part], of: Declared) -> list[Row]:
    found = []
    for metric in ("prev_label", "prev_test_positive"):
        rows = [part.overall("prevalence", of.recipe, metric=metric) for part in parts]
        kept, whole, out = _with(parts, rows, ("n_persons", "n_events"))
        n, x = sum(row["n_persons"] for row in whole), sum(row["n_events"] for row in whole)
        counts = {"n_persons": n, "n_events": x, "releases_left_out": out}
        found.append(_said(of, kept, metric, "summed_counts", proportion(min(x, n), n), **counts))
    return found


def _areas(parts: Sequence[Part], of: Declared) -> list[Row]:
    """AUC of summed histograms over the edges that all parts have: that of the pooled rows but for ties within bins."""
    frames = [part.rows("score_histogram", of.recipe) for part in parts]
    kept = [(part, frame) for part, frame in zip(parts, frames, strict=True) if frame.height]
    out = "; ".join(f"{part.name}: withheld" for part, frame in zip(parts, frames, strict=True) if not frame.height)
    if not kept:
        return [_said(of, [], "auc", "summed_histograms", not_estimable("no_histograms"), releases_left_out=out)]
    events, others, n_bins = _common_bins([frame for _, frame in kept])
    area, variance = histogram_area(events, others)
    if area is None or variance is None or not 0 < area < 1 or variance <= 0:
        estimate = not_estimable("one_class" if area is None else "zero_variance")
    else:
        half = normal_quantile(0.95) * math.sqrt(variance) / (area * (1 - area))
        limits = Interval(expit(logit(area) - half), expit(logit(area) + half))
        estimate = estimated(area, limits, method="delong_logit_binned")
    n_events = int(events.sum())
    basis = "; ".join(filter(None, [f"{n_bins} common bins", _rounding(parts)]))
    counts = {"n_persons": n_events + int(others.sum()), "n_events": n_events, "basis": basis, "releases_left_out": out}
    return [_said(of, [part for part, _ in kept], "auc", "summed_histograms", estimate, **counts)]


def _common_bins(frames: Sequence[pl.DataFrame]) -> tuple[np.ndarray, np.ndarray, int]:
    """Counts between edges that no center's bin crosses; below the lowest and above the highest is open."""
    rows = [row for frame in frames for row in frame.iter_rows(named=True)]
    edges = sorted({round(row[name], 9) for row in rows for name in ("bin_lower", "bin_upper")})
    crossed = {e for e in edges for row in rows if round(row["bin_lower"], 9) < e < round(row["bin_upper"], 9)}
    kept = np.array([e for e in edges if e not in crossed])
    at = np.array([int(np.searchsorted(kept, round(row["bin_lower"], 9), "right")) for row in rows])
    size = kept.size + 1
    events, others = (np.bincount(at, [row[name] for row in rows], size) for name in ("n_events", "n_others"))
    has = (events + others) > 0
    return events[has], others[has], int(has.sum())


def _random(parts: Sequence[Part], of: Declared) -> list[Row]:
    """Logit AUC of each release with its own standard error, by random effects over releases."""
    rows = [part.overall("performance", of.recipe, metric="auc") for part in parts]
    kept, whole, out = _with(parts, rows, ("estimate", "estimate_lower", "estimate_upper"))
    effects = [
        Effect(
            logit(row["estimate"]),
            ((logit(row["estimate_upper"]) - logit(row["estimate_lower"])) / 2 / normal_quantile(0.95)) ** 2,
        )
        for row in whole
        if 0 < row["estimate_lower"] < row["estimate_upper"] < 1
    ]
    pooled = pool_random_effects([e.value for e in effects], [e.variance for e in effects])
    ahead = pooled.prediction
    more = {
        "releases_left_out": out, "tau2": pooled.tau2,
        "n_persons": _total(whole, "n_persons"), "n_events": _total(whole, "n_events"),
        "prediction_lower": None if ahead is None else expit(ahead.lower),
        "prediction_upper": None if ahead is None else expit(ahead.upper), "basis": METHOD,
    }  # fmt: skip
    return [_said(of, kept, "auc", "random_effects", back_to_share(pooled), **more)]


def _total(rows: Sequence[Row], name: str) -> int | None:
    return None if any(row[name] is None for row in rows) else sum(row[name] for row in rows)


def _standardised(parts: Sequence[Part], of: Declared) -> list[Row]:
    """Age-sex standardised prevalence by the reference from summed strata; a withheld stratum leaves its release out."""
    kept, out, cells = [], [], []
    for part in parts:
        rows = part.rows("age_sex", of.recipe, center="all").filter(
            pl.col("age_group") != "unknown", pl.col("sex").is_in(["female", "male"])
        )
        if not rows.height or rows["n_labelled"].null_count() or rows["n_events"].null_count():
            out.append(f"{part.name}: {'withheld strata' if rows.height else 'no strata'}")
            continue
        kept.append(part)
        cells += rows.to_dicts()
    order = {group_said(i): i for i in range(OLDEST // WIDTH + 1)}
    size = len(order)
    youngest = min((order[row["age_group"]] for row in cells), default=0)
    weight = np.array(standard_weights(of.standard_population))
    weight[:youngest] = 0
    code = np.array([order[row["age_group"]] + size * (row["sex"] == "male") for row in cells], dtype=np.int64)
    n, x = (np.bincount(code, [row[name] for row in cells], 2 * size) for name in ("n_labelled", "n_events"))
    present = [float(any(row["sex"] == sex for row in cells)) for sex in ("female", "male")]
    found = direct_standardised(np.minimum(x, n), n, weight=np.concatenate([weight * has for has in present]))
    basis = "; ".join(filter(None, [standard_said(of.standard_population, youngest), _rounding(parts)]))
    counts = {"n_persons": int(n.sum()), "n_events": int(x.sum()), "basis": basis, "releases_left_out": "; ".join(out)}
    return [_said(of, kept, "prev_label_standardised", "summed_strata", found.estimate, **counts)]


def _agreement(parts: Sequence[Part], of: Declared) -> list[Row]:
    """Bias, limits, correlation from sums: those of the pooled rows, for parts with one calibration and one unit."""
    rows = [
        next(
            iter(part.rows("agreement_sum", of.recipe, center="all").filter(pl.col("calibration_id") == "none").to_dicts()),
            None,
        )
        for part in parts
    ]
    kept, whole, out = _with(parts, rows, ("n_persons", *SUMS))
    frames = {
        (row["predicted_value_unit"], row["compared_unit"], row["origin_predicted"], row["origin_reference"]) for row in whole
    }
    n = sum(row["n_persons"] for row in whole)
    if len(frames) != 1 or n < FEWEST_FOR_MOMENTS:
        reason = "units_differ" if len(frames) > 1 else "too_few_persons"
        return [_said(of, kept, "pearson_r", "summed_moments", not_estimable(reason), releases_left_out=out, n_persons=n)]
    y, x, yy, xx, xy = (sum(row[name] for row in whole) for name in SUMS)
    from_unit, to_unit, from_y, from_x = next(iter(frames))
    syy, sxx, sxy = yy - y * y / n, xx - x * x / n, xy - x * y / n
    counts = {"n_persons": n, "releases_left_out": out}
    found = [_said(of, kept, "pearson_r", "summed_moments", _correlation(sxx, syy, sxy, n), **counts)]
    if from_unit == to_unit:
        bias, spread = (y / n + from_y) - (x / n + from_x), math.sqrt(max(0.0, (syy + sxx - 2 * sxy) / (n - 1)))
        limits: BlandAltman = limits_from(n, bias=bias, sd=spread)
        metrics = ("bias", "sd_of_differences", "loa_lower", "loa_upper")
        found += [_said(of, kept, metric, "summed_moments", getattr(limits, metric), **counts) for metric in metrics]
    return found


def _correlation(sxx: float, syy: float, sxy: float, n: int) -> Estimate:
    if sxx <= 0 or syy <= 0:
        return not_estimable("zero_variance")
    r = sxy / math.sqrt(sxx * syy)
    if abs(r) >= 1 - 1e-12:
        return not_estimable("perfect_correlation")
    half = normal_quantile(0.95) / math.sqrt(n - 3)
    return estimated(r, Interval(math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)), method="fisher_z")
