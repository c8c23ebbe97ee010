"""Equality with reference results computed outside Python: pooled estimates and heterogeneity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from ospor_batch.evaluation.discrimination import (
    roc_area,
)
from ospor_batch.evaluation.heterogeneity import Pooled, logit_auc, pool_random_effects, reml_tau2, tau2_interval
from ospor_batch.evaluation.intervals import Interval
from tests.evaluation.oracle_files import ITERATIVE, cases, column, folder, near, table

METHODS_OF_R = {  # how the reference calls an estimator of tau² with a reference distribution
    "fixed": ("fixed", "normal"), "dl_z": ("dersimonian_laird", "normal"), "dl_hksj": ("dersimonian_laird", "hartung_knapp"),
    "reml_z": ("reml", "normal"), "reml_hksj": ("reml", "hartung_knapp"), "reml_hksj_adhoc": ("reml", "hartung_knapp_floored"),
    "pm_z": ("paule_mandel", "normal"),
}  # fmt: skip


def compare_pooled(value: np.ndarray, variance: np.ndarray, wanted: dict[str, Any]) -> None:
    assert near(reml_tau2(value, variance), wanted["reml_z"]["tau2"], within=ITERATIVE)
    if value.size < 3:
        pooled = pool_random_effects(value, variance)
        assert pooled.reason == "fewer_than_3_groups"
        assert pooled.mean is None
        assert tau2_interval(value, variance) is None
        return
    named = {name: METHODS_OF_R[name] for name in wanted if name in METHODS_OF_R}
    assert len(named) == len([block for block in wanted.values() if isinstance(block, dict) and "mu" in block])
    for name, (estimator, reference) in named.items():
        pooled = pool_random_effects(value, variance, estimator=estimator, reference=reference)
        compare_pool(pooled, wanted[name], wanted["i2_higgins_from_Q_pct"])
        compare_tau2_interval(tau2_interval(value, variance), wanted[name])


def compare_pool(pooled: Pooled, wanted: dict[str, Any], i2_percent: float) -> None:
    assert pooled.interval is not None
    assert pooled.prediction is not None
    assert pooled.prediction_as_mean is not None
    assert near(cochran_p(pooled), wanted["Q_p"], within=ITERATIVE)
    for found, expected in (
        (pooled.mean, wanted["mu"]), (pooled.standard_error, wanted["se"]), (pooled.interval.lower, wanted["ci_lo"]),
        (pooled.interval.upper, wanted["ci_hi"]), (pooled.tau2, wanted["tau2"]), (pooled.q, wanted["Q"]),
        (pooled.p_value, wanted["p"]), (pooled.i2_percent, i2_percent),
    ):  # fmt: skip
        assert near(found, expected, within=ITERATIVE)
    if wanted["pi_hts_t_km2_lo"] is None:
        return
    for found, expected in (
        (pooled.prediction.lower, wanted["pi_hts_t_km2_lo"]), (pooled.prediction.upper, wanted["pi_hts_t_km2_hi"]),
        (pooled.prediction_as_mean.lower, wanted["pi_metafor_lo"]),
        (pooled.prediction_as_mean.upper, wanted["pi_metafor_hi"]),
    ):  # fmt: skip
        assert near(found, expected, within=ITERATIVE)


def cochran_p(pooled: Pooled) -> float:
    assert pooled.q is not None
    return float(stats.chi2.sf(pooled.q, pooled.n_groups - 1))


def compare_tau2_interval(found: Interval | None, wanted: dict[str, Any]) -> None:
    if wanted["tau2_ci_qprofile_hi"] is None:
        return
    if wanted["tau2_ci_qprofile_hi"] == 100:  # the reference's bound: not found
        assert found is None
        return
    assert found is not None
    assert near(found.lower, wanted["tau2_ci_qprofile_lo"], within=ITERATIVE)
    assert near(found.upper, wanted["tau2_ci_qprofile_hi"], within=ITERATIVE)


def test_oracle_random_effects_equal_the_reference(shared: Path) -> None:
    where = folder(shared, "meta")
    for case, wanted in cases(where / "expected.json").items():
        rows = table(where / f"{case}.csv")
        assert len(rows) == wanted["k"]
        compare_pooled(column(rows, "yi"), column(rows, "vi"), wanted)


def test_oracle_cohort_pooled_auc_equals_the_reference(shared: Path) -> None:
    where = folder(shared, "cohort")
    people, wanted = table(where / "cohort.csv"), cases(where / "expected_pooled.json")["pooled_logit_auc_over_centers"]
    effects = []
    for center in sorted({p["center"] for p in people}):
        mine = [p for p in people if p["center"] == center and p["score"] not in {"", "NA"}]
        area = roc_area(column(mine, "osteoporosis").astype(bool), column(mine, "score"))
        assert area.auc is not None
        assert area.variance is not None
        effects.append(logit_auc(area.auc, area.variance))
    assert len(effects) == wanted["k"]
    compare_pooled(np.array([e.value for e in effects]), np.array([e.variance for e in effects]), wanted)
