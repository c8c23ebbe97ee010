"""Correlation, Bland-Altman, density calibration and errors at the edges."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from scipy import stats

from ospor_batch.errors import StudyError
from ospor_batch.evaluation.agreement import (
    bland_altman,
    mean_absolute_error,
    pearson,
    root_mean_squared_error,
    spearman,
    tolerance_factors,
)
from ospor_batch.evaluation.calibration import fit_density_line


@pytest.mark.parametrize("function", [pearson, spearman])
def test_a_correlation_that_cannot_be_read_says_why(function: object) -> None:
    assert callable(function)
    assert function([], []).reason == "no_persons"
    assert function([1, 2, 3], [3, 2, 1]).reason == "too_few_persons"
    assert function([1, 1, 1, 1, 1], [1, 2, 3, 4, 5]).reason == "zero_variance"
    assert function([1, 2, 3, 4, 5], [2, 4, 6, 8, 10]).reason == "perfect_correlation"


def test_differences_of_too_few_or_of_no_spread_are_not_estimable() -> None:
    for function in (mean_absolute_error, root_mean_squared_error):
        assert function([], []).reason == "no_persons"
        assert function([1, 2], [2, 4]).reason == "too_few_persons"
        assert function([0.1, 0.2, 0.3], [1.1, 1.2, 1.3]).reason == "zero_variance"
    limits = bland_altman([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    assert {limits.bias.reason, limits.loa_lower.reason, limits.loa_upper.reason} == {"zero_variance"}


def test_a_difference_is_predicted_minus_reference() -> None:
    limits = bland_altman([100.0, 110.0, 120.0, 130.0], [101.0, 113.0, 121.0, 133.0])
    assert limits.bias.value == pytest.approx(2.0)
    assert limits.sd_of_differences.value == pytest.approx(statistics.stdev([1, 3, 1, 3]))
    for estimate in (limits.bias, limits.sd_of_differences, limits.loa_lower, limits.loa_upper):
        assert estimate.lower is not None
        assert estimate.value is not None
        assert estimate.upper is not None
        assert estimate.lower < estimate.value < estimate.upper


def test_exact_factors_stand_for_three_persons_and_for_a_million() -> None:
    for n in (3, 370, 10_000, 1_000_000):
        inner, outer = tolerance_factors(n)
        assert 0 < inner < 1.96 < outer
    assert tolerance_factors(1_000_000)[1] == pytest.approx(1.96, abs=0.005)


def test_errors_are_those_of_the_definition() -> None:
    reference, predicted = [0.0, 0.0, 0.0, 0.0], [1.0, -2.0, 3.0, -4.0]
    assert mean_absolute_error(reference, predicted).value == 2.5
    assert root_mean_squared_error(reference, predicted).value == pytest.approx(math.sqrt(7.5))


def test_a_density_line_is_fitted_off_the_test_people_only() -> None:
    rng = np.random.default_rng(1)
    hu = rng.uniform(50, 200, 80)
    density = 20 + 0.8 * hu + rng.normal(0, 3, 80)
    line = fit_density_line(density, hu, partition="train")
    assert line is not None
    peer = stats.linregress(hu, density)
    t = stats.t.ppf(0.975, 78)
    assert (line.slope, line.intercept) == (pytest.approx(peer.slope), pytest.approx(peer.intercept))
    assert line.slope_interval.upper == pytest.approx(peer.slope + t * peer.stderr)
    assert line.intercept_interval.lower == pytest.approx(peer.intercept - t * peer.intercept_stderr)
    assert line.residual_sd == pytest.approx(3, rel=0.3)
    assert line.apply([100.0])[0] == pytest.approx(peer.intercept + 100 * peer.slope)
    with pytest.raises(StudyError, match="not on external"):
        fit_density_line(density, hu, partition="external")


def test_a_line_needs_three_persons_and_two_values() -> None:
    assert fit_density_line([1.0, 2.0], [1.0, 2.0], partition="train") is None
    assert fit_density_line([1.0, 2.0, 3.0], [5.0, 5.0, 5.0], partition="train") is None
