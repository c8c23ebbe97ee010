"""Rows on the predicted risk: recalibrations fitted on tuning, calibration in the test people, and decision curves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ospor_batch.evaluation.analysis_set import AnalysisSet, People, performance_people
from ospor_batch.evaluation.decision import THRESHOLDS, net_benefit
from ospor_batch.evaluation.intervals import wilson
from ospor_batch.evaluation.recalibration import METHODS, Recalibration, recalibrate
from ospor_batch.evaluation.risk_calibration import N_BINS, calibration_measures, smooth_curve
from ospor_batch.evaluation.strata import EVERYONE
from ospor_batch.evaluation.tables import Context, Row, stated

AS_PREDICTED = "none"
N_POINTS = 41  # of a logistic recalibration's curve
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Risks:
    """The ways in which a score of this recipe becomes a risk, by id, and every recalibration that was tried."""

    ways: tuple[tuple[str, Callable[[Floats], Floats]], ...]
    tried: tuple[Recalibration, ...]


def risks_of(of: AnalysisSet) -> Risks:
    """The score itself where it is a probability, and recalibrations fitted on tuning people."""
    units = set(of.paired["predicted_value_unit"].drop_nulls())
    tuning = performance_people(of.paired).filter(pl.col("partition") == "tuning")
    truth, score = tuning["truth"].to_numpy(), tuning["score"].to_numpy()
    everybody = of.paired["score"].drop_nulls()
    is_probability = units == {"probability"} and bool(everybody.is_between(0, 1).all())
    methods = METHODS if is_probability else METHODS[1:]
    tried = [recalibrate(truth, score, method=method, partition="tuning", is_probability=is_probability) for method in methods]
    ways: list[tuple[str, Callable[[Floats], Floats]]] = [(AS_PREDICTED, np.asarray)] if is_probability else []
    ways += [(fit.id, fit.apply) for fit in tried if fit.reason is None]
    return Risks(tuple(ways), tuple(tried))


def recalibration_rows(context: Context, risks: Risks) -> list[Row]:
    """Points of each recalibration; one row with the reason where none could be fitted."""
    found = []
    for fit in risks.tried:
        base = {
            "recipe": context.recipe, "reference_id": context.reference_id, "calibration_id": fit.id, "method": fit.method,
            "intercept": fit.intercept, "slope": fit.slope, "n_persons": fit.n_persons, "n_events": fit.n_events,
            "status": "not_estimable" if fit.reason else "estimated", "status_reason": fit.reason,
        }  # fmt: skip
        points: list[tuple[float | None, float | None]] = list(fit.knots) or [(None, None)]
        if fit.reason is None and not fit.knots:
            at = _grid(fit)
            points = list(zip(at.tolist(), fit.apply(at).tolist(), strict=True))
        found += [base | {"point": i, "score": score, "risk": risk} for i, (score, risk) in enumerate(points)]
    return found


def risk_calibration_rows(context: Context, people: People, *, risks: Risks) -> list[Row]:
    """Every calibration measure, together and per center, for each way from score to risk."""
    found = []
    for center in (EVERYONE, *context.centers):
        scored = performance_people(people.paired)
        mine = scored if center == EVERYONE else scored.filter(pl.col("center") == center)
        truth, score = mine["truth"].to_numpy().astype(bool), mine["score"].to_numpy()
        for calibration_id, apply in risks.ways:
            base = _base(context, people) | {
                "center": center, "calibration_id": calibration_id, "model_digest": context.model_digest,
                "n_persons": truth.size, "n_events": int(truth.sum()),
            }  # fmt: skip
            measured = calibration_measures(truth, apply(score))
            found += [base | {"metric": metric, **stated(estimate)} for metric, estimate in measured.items()]
    return found


def risk_curve_rows(context: Context, people: People, *, risks: Risks) -> list[Row]:
    """Observed against predicted risk in tenths of the people, with the smooth curve at each tenth's mean."""
    scored = performance_people(people.paired)
    truth, score = scored["truth"].to_numpy().astype(bool), scored["score"].to_numpy()
    found: list[Row] = []
    if truth.size < N_BINS:
        return found
    for calibration_id, apply in risks.ways:
        risk = apply(score)
        order = np.argsort(risk, kind="stable")
        curve = smooth_curve(truth, risk)
        for i, members in enumerate(np.array_split(order, N_BINS)):
            n, x, mean = members.size, int(truth[members].sum()), float(risk[members].mean())
            held = wilson(x, n)
            assert held is not None
            smooth = None
            if curve is not None:
                rising = np.argsort(curve.risk, kind="stable")
                smooth = float(np.interp(mean, curve.risk[rising], curve.observed[rising]))
            found.append(
                _base(context, people) | {
                    "calibration_id": calibration_id, "bin": i, "n_persons": n, "n_events": x, "mean_risk": mean,
                    "observed": x / n, "observed_lower": held.lower, "observed_upper": held.upper, "smooth": smooth,
                }
            )  # fmt: skip
    return found


def decision_rows(context: Context, people: People, *, risks: Risks) -> list[Row]:
    """Net benefit at each threshold probability; none without both classes."""
    scored = performance_people(people.paired)
    truth, score = scored["truth"].to_numpy().astype(bool), scored["score"].to_numpy()
    counts = {"n_persons": truth.size, "n_events": int(truth.sum())}
    return [
        _base(context, people) | counts | {
            "calibration_id": calibration_id, "threshold": point.threshold, "net_benefit": point.model,
            "net_benefit_everyone": point.everyone,
        }
        for calibration_id, apply in risks.ways
        for point in net_benefit(truth, apply(score), thresholds=THRESHOLDS)
    ]  # fmt: skip


def _base(context: Context, people: People) -> Row:
    return {"recipe": context.recipe, "reference_id": context.reference_id, "partition": people.partition}


def _grid(fit: Recalibration) -> Floats:
    """Scores over which a logistic curve goes from 0.1 % to 99.9 %; for a probability, from 0 to 1."""
    if fit.is_probability or not fit.slope:
        return np.linspace(0, 1, N_POINTS)
    ends = sorted((side * 6.9 - (fit.intercept or 0.0)) / fit.slope for side in (-1, 1))
    return np.linspace(ends[0], ends[1], N_POINTS)
