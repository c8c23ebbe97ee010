"""Figures of a paper stand beside the run's figure for the same quantity, and beside no other."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from ospor_batch.evaluation.analysis_set import AnalysisSet, People
from ospor_batch.evaluation.published import published_rows
from ospor_batch.evaluation.strata import EVERYONE, parse_strata
from ospor_batch.evaluation.tables import Context
from ospor_batch.evaluation.threshold import fixed_threshold
from ospor_batch.evaluation.value_tables import OTHER_QUANTITY, agreement_rows, comparison

CONTEXT = Context(
    recipe="ct_tbs", reference_id="dxa", model_digest="0" * 16, threshold=fixed_threshold(-1.23, unit="tbs"),
    window_days="from -180 to +180", target="osteoporosis", ppv_prevalence=0.1, minimum_events=5, strata=parse_strata(()),
    centers=("home",),
)  # fmt: skip


def people(*, compared_unit: str) -> pl.DataFrame:
    draw = np.random.default_rng(2)
    value = draw.normal(1.3, 0.1, 60)
    return pl.DataFrame(
        {
            "partition": ["train"] * 30 + ["internal_test"] * 30, "score": -value, "predicted_value": value,
            "predicted_value_unit": "tbs", "reference_value": value + draw.normal(0, 0.05, 60), "compared_unit": compared_unit,
            "t_source": "reported", "t_reference": "unknown", "kvp_kv": 120.0, "truth": value < 1.2,
        }
    )  # fmt: skip


@pytest.mark.parametrize(("unit", "is_stated"), [("tbs", True), ("g/cm2", False)])
def test_tbs_is_held_against_tbs_alone(unit: str, is_stated: bool) -> None:
    rows = people(compared_unit=unit)
    fitted = comparison(AnalysisSet(rows, rows, rows))
    tested = rows.filter(pl.col("partition") == "internal_test")
    found = {r["metric"]: r for r in agreement_rows(CONTEXT, People("test", EVERYONE, tested, tested), fitted=fitted)}
    for metric in ("pearson_r", "spearman_rho", "bias", "rmse"):
        assert (found[metric]["status_reason"] is None) is is_stated, metric
    assert fitted.reason == (None if is_stated else OTHER_QUANTITY)
    printed = {
        row["people"]: row
        for row in published_rows(CONTEXT, protocol="ct_bmd_tbs", performance=[], agreement=[*found.values()])
    }
    assert printed["test, BMD"]["status_reason"] == "not_computed_in_this_run"
    assert (printed["test, TBS"]["estimate"] is not None) is is_stated
