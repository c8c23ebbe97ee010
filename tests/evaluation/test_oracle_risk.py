"""Equality with reference results computed outside Python: calibration of risks and net benefit."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ospor_batch.evaluation.decision import net_benefit
from ospor_batch.evaluation.risk_calibration import (
    brier,
    calibration_line,
    ece,
    lowess_curve,
    observed_over_expected,
    scaled_brier,
    smooth_curve,
    spiegelhalter,
)
from tests.evaluation.oracle_files import ITERATIVE, cases, folder, near, scored, table


def test_oracle_calibration_equals_the_reference(shared: Path) -> None:
    where = folder(shared, "calibration")
    for case, wanted in cases(where / "expected.json").items():
        truth, (risk,) = scored(table(where / f"{case}.csv"), "p")
        line, ratio, curve = calibration_line(truth, risk), observed_over_expected(truth, risk), smooth_curve(truth, risk)
        z = spiegelhalter(truth, risk)
        assert z is not None
        assert curve is not None
        for value, name, within in (
            (line.slope.value, "slope", ITERATIVE), (line.slope.lower, "slope_lo", ITERATIVE),
            (line.slope.upper, "slope_hi", ITERATIVE), (line.intercept, "intercept_joint", ITERATIVE),
            (line.in_the_large.value, "citl", ITERATIVE), (line.in_the_large.lower, "citl_lo", ITERATIVE),
            (line.in_the_large.upper, "citl_hi", ITERATIVE), (brier(truth, risk).value, "brier", 1e-8),
            (scaled_brier(truth, risk).value, "brier_scaled", 1e-8), (ratio.value, "o_e", 1e-8),
            (ratio.lower, "o_e_lo", 1e-8), (ratio.upper, "o_e_hi", 1e-8),
            (ece(truth, risk, equal_mass=False)[0], "ece_equal_width_10", 1e-8),
            (ece(truth, risk, equal_mass=False)[1], "mce_equal_width_10", 1e-8),
            (ece(truth, risk, equal_mass=True)[0], "ece_equal_mass_10", 1e-8),
            (z[0], "spiegelhalter_z", 1e-8), (z[1], "spiegelhalter_p", 1e-8), (curve.ici, "loess_ici", ITERATIVE),
            (curve.e50, "loess_e50", ITERATIVE), (curve.e90, "loess_e90", ITERATIVE), (curve.e_max, "loess_emax", ITERATIVE),
        ):  # fmt: skip
            assert near(value, wanted[name], within=within), (case, name, value, wanted[name])
        grid = lowess_curve(truth, risk, at=wanted["lowess_grid_x"])
        assert np.abs(grid - np.array(wanted["lowess_grid_y"])).max() < 1e-3, case  # as the reference states


def test_oracle_net_benefit_equals_the_reference(shared: Path) -> None:
    where = folder(shared, "dca")
    for case, wanted in cases(where / "expected.json").items():
        truth, (risk,) = scored(table(shared / "oracles" / wanted["file"]), "p")
        for block, points in wanted.items():
            if block == "file":
                continue
            prevalence = float(block.removeprefix("prevalence_set_to_")) if block.startswith("prevalence_set_to_") else None
            found = net_benefit(truth, risk, thresholds=[point["threshold"] for point in points], prevalence=prevalence)
            for got, point in zip(found, points, strict=True):
                assert near(got.model, point["nb_model"]), (case, block, point)
                assert near(got.everyone, point["nb_all"]), (case, block, point)
