"""Recalibration at a site: bias at the cut-off before and after, on people of the generator's own population model."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ospor_batch.evaluation.analysis_set import SITE_TUNING, AnalysisSet
from ospor_batch.evaluation.differences import bias_at
from ospor_batch.evaluation.site_recalibration import SMALLEST_SITE, fit_site_line, site_recalibration_rows
from ospor_batch.evaluation.strata import parse_strata
from ospor_batch.evaluation.tables import Context
from ospor_batch.evaluation.threshold import ThresholdRule
from ospor_batch.evaluation.value_tables import Comparison
from ospor_batch.synthetic import latent
from ospor_batch.synthetic.labels import QCT_ERROR_MG_CM3

DENSITY = Comparison("mg/cm3", "mg/cm3", None, None)
CHANCE = Comparison("probability", "mg/cm3", None, "no_calibration_people")
FIXED = ThresholdRule("fixed", "mg/cm3", score_cut=-80.0)
YOUDEN = ThresholdRule("youden", "1")


def context(rule: ThresholdRule) -> Context:
    locked = rule.locked([], []) if rule.score_cut is not None else ThresholdRule("fixed", "1", score_cut=0.5).locked([], [])
    return Context(
        recipe="density", reference_id="qct", model_digest="0" * 16, threshold=locked, window_days="from -180 to +180",
        target="osteoporosis", ppv_prevalence=0.1, minimum_events=5, strata=parse_strata(["center"]), centers=("home", "away"),
    )  # fmt: skip


def cohort(n: int = 600, *, seed: int = 4, share: float = 0.4) -> pl.DataFrame:
    """People of one external center with their QCT, as the generator draws both."""
    draw = np.random.default_rng(seed)
    bodies = latent.draw_bodies(draw, n, ancestry_shares=(1.0, 0.0, 0.0))
    true = latent.true_vbmd(bodies, shift=0.0)
    reference = true + QCT_ERROR_MG_CM3 * draw.standard_normal(n)
    return pl.DataFrame(
        {
            "patient_key": [f"{i:032x}" for i in range(n)], "center": "away", "reference_value": reference, "true": true,
            "partition": np.where(draw.random(n) < share, SITE_TUNING, "external"), "truth": reference < 80,
            "t_source": "not_applicable", "t_reference": "not_applicable", "kvp_kv": 120.0,
        }
    )  # fmt: skip


def shrunk(rows: pl.DataFrame, *, noise: float = 14.0) -> pl.DataFrame:
    """Predictions of a reader who shrinks a noisy look towards the mean, as least squares do: no bias over all people."""
    draw, true = np.random.default_rng(8), rows["true"].to_numpy()
    look = true + noise * draw.standard_normal(rows.height)
    value = true.mean() + true.var() / (true.var() + noise**2) * (look - true.mean())
    return rows.with_columns(predicted_value=pl.Series(value), score=pl.Series(-value), predicted_value_unit=pl.lit("mg/cm3"))


def risky(rows: pl.DataFrame, *, shift: float = 1.5, slope: float = 4.0) -> pl.DataFrame:
    """Probabilities of a classifier that is too sure of itself and whose log odds are shifted at this center."""
    draw, true = np.random.default_rng(9), rows["true"].to_numpy()
    odds = slope * (80 - true - 6 * draw.standard_normal(rows.height)) / 6 - shift
    chance = 1 / (1 + np.exp(-odds))
    return rows.with_columns(
        predicted_value=pl.Series(chance), score=pl.Series(chance), predicted_value_unit=pl.lit("probability")
    )


def told(rows: pl.DataFrame, fitted: Comparison, rule: ThresholdRule) -> dict[tuple[str, str], dict[str, Any]]:
    """Rows by method (none: as it came) and metric."""
    of = AnalysisSet(rows, rows, rows)
    found = site_recalibration_rows(context(rule), of, fitted=fitted, rule=rule, centers=("away",))
    return {(row["calibration_id"].split("@")[0], row["metric"]): row for row in found}


def test_the_bias_at_the_cut_off_is_seen_before_and_gone_after() -> None:
    rows = shrunk(cohort())
    found = told(rows, DENSITY, FIXED)
    before, after = found["none", "bias_at_cut"], found["linear", "bias_at_cut"]
    overall = found["none", "bias"]
    assert overall["estimate_lower"] < 0 < overall["estimate_upper"]  # nothing to see over all people
    assert before["estimate_lower"] > 3
    assert after["estimate_lower"] < 0 < after["estimate_upper"]
    assert abs(after["estimate"]) < before["estimate"] / 4
    n = rows.filter(pl.col("partition") == "external").height
    n_tuning = rows.height - n
    results = [row for row in found.values() if row["partition"] == "external"]
    assert {(row["n_persons"], row["n_tuning_persons"]) for row in results} == {(n, n_tuning)}
    assert found["linear", "slope"]["estimate_upper"] < 1
    assert found["linear", "slope"]["n_persons"] == n_tuning
    assert after["calibration_id"] == f"linear@site_tuning n={n_tuning}"


def test_a_fixed_cut_off_finds_those_it_missed_and_ranks_stay() -> None:
    found = told(shrunk(cohort()), DENSITY, FIXED)
    assert found["none", "auc"]["estimate"] == pytest.approx(found["linear", "auc"]["estimate"], abs=1e-12)
    assert found["linear", "sensitivity"]["estimate"] > found["none", "sensitivity"]["estimate"] + 0.05
    assert (
        found["none", "sensitivity"]["threshold_id"]
        == found["linear", "sensitivity"]["threshold_id"]
        == "fixed -> -80.0 mg/cm3"
    )


def test_nobody_it_was_fitted_on_is_in_either_result() -> None:
    rows = shrunk(cohort())
    wild = rows.with_columns(
        predicted_value=pl.when(pl.col("partition") == SITE_TUNING)
        .then(pl.col("predicted_value") * 0.5 + 70)
        .otherwise("predicted_value")
    )  # other people to fit on move the recalibrated result alone
    same, moved = told(rows, DENSITY, FIXED), told(wild.with_columns(score=-pl.col("predicted_value")), DENSITY, FIXED)
    assert {k: v["estimate"] for k, v in same.items() if k[0] == "none"} == {
        k: v["estimate"] for k, v in moved.items() if k[0] == "none"
    }
    assert same["linear", "bias"]["estimate"] != moved["linear", "bias"]["estimate"]


def test_a_probability_is_recalibrated_in_the_large_and_with_a_slope() -> None:
    found = told(risky(cohort(900)), CHANCE, YOUDEN)
    before, large, both = (found[way, "calibration_in_the_large"] for way in ("none", "intercept", "logistic"))
    assert before["estimate_lower"] > 0
    for after in (large, both):
        assert after["estimate_lower"] < 0 < after["estimate_upper"]
    slopes = [found[way, "calibration_slope"] for way in ("none", "intercept", "logistic")]
    assert slopes[0]["estimate_upper"] < 0.9
    assert slopes[1]["estimate_upper"] < 0.9  # in the large leaves the slope
    assert slopes[2]["estimate_lower"] < 1 < slopes[2]["estimate_upper"]
    areas = [found[way, "auc"]["estimate"] for way in ("none", "intercept", "logistic")]
    assert areas[0] == pytest.approx(areas[1], abs=1e-12) == pytest.approx(areas[2], abs=1e-12)
    assert found["none", "sensitivity"]["threshold_id"].startswith("fixed -> 0.5")
    assert found["logistic", "sensitivity"]["threshold_id"].startswith("youden@site_tuning n=")


@pytest.mark.parametrize(
    ("share", "made", "fitted", "reason"),
    [
        (0.01, shrunk, DENSITY, "too_few_site_tuning_people"),
        (0.0, shrunk, DENSITY, "no_site_tuning_people"),
        (0.01, risky, CHANCE, "too_few_site_tuning_events"),
        (0.0, risky, CHANCE, "no_site_tuning_people"),
    ],
)
def test_too_few_people_are_said_and_the_original_stands(share: float, made: Any, fitted: Comparison, reason: str) -> None:
    found = told(made(cohort(300, share=share)), fitted, FIXED if made is shrunk else YOUDEN)
    mended = {key: row for key, row in found.items() if key[0] != "none"}
    assert {row["status_reason"] for row in mended.values()} == {reason}
    assert all(row["estimate"] is None for row in mended.values())
    assert found["none", "auc"]["status"] == "estimated"


def test_a_line_that_does_not_rise_is_no_recalibration() -> None:
    x = np.linspace(60, 140, SMALLEST_SITE)
    assert fit_site_line(x, -x).reason == "slope_not_positive"
    assert fit_site_line(x, np.full(x.size, 5.0)).reason == "zero_variance"
    assert fit_site_line(x[1:], x[1:]).reason == "too_few_site_tuning_people"


@settings(deadline=None, max_examples=40)
@given(
    st.floats(-50, 50),
    st.floats(0.3, 3),
    st.lists(st.floats(20, 200).map(lambda v: round(v, 2)), min_size=10, max_size=40, unique=True),
)
def test_a_line_read_backwards_gives_the_reference(intercept: float, slope: float, values: list[float]) -> None:
    x = np.array(values)
    line = fit_site_line(x, intercept + slope * x)
    assert line.reason is None
    assert line.apply(intercept + slope * x) == pytest.approx(x, rel=1e-6, abs=1e-6)


@settings(deadline=None, max_examples=40)
@given(st.floats(-20, 20), st.floats(0.5, 1.5))
def test_bias_at_a_value_is_read_off_the_line(shift: float, slope: float) -> None:
    x = np.linspace(50, 150, 21)
    found = bias_at(x, shift + slope * x, at=80.0)
    assert found.value == pytest.approx(shift + (slope - 1) * 80, abs=1e-9)
    assert bias_at(x, x, at=20.0).reason == "cut_off_out_of_range"
    assert bias_at(x[:2], x[:2], at=60.0).reason == "too_few_persons"
