"""Proportions and their intervals at the edges."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ospor_batch.evaluation.intervals import INTERVALS, clopper_pearson, expit, f1_interval, logit, proportion, wilson


def test_nobody_gives_no_interval_and_no_estimate() -> None:
    assert wilson(0, 0) is None
    assert clopper_pearson(0, 0) is None
    assert f1_interval(0, 0) is None
    nobody = proportion(0, 0, empty="no_events")
    assert nobody.reason == "no_events"
    assert nobody.value is None


@pytest.mark.parametrize("method", sorted(INTERVALS))
def test_limits_are_exact_at_none_and_at_all(method: str) -> None:
    none, every = INTERVALS[method](0, 7, level=0.95), INTERVALS[method](7, 7, level=0.95)
    assert none is not None
    assert every is not None
    assert none.lower == 0.0
    assert 0 < none.upper < 1
    assert every.upper == 1.0
    assert 0 < every.lower < 1


@given(st.integers(0, 500), st.integers(1, 500), st.sampled_from(sorted(INTERVALS)))
def test_an_interval_holds_its_estimate_inside_zero_and_one(x: int, n: int, method: str) -> None:
    x = min(x, n)
    found = proportion(x, n, method=method)
    assert found.value is not None
    assert found.lower is not None
    assert found.upper is not None
    assert 0 <= found.lower <= found.value <= found.upper <= 1


def test_expit_undoes_logit_and_does_not_overflow() -> None:
    assert math.isclose(expit(logit(0.3)), 0.3)
    assert expit(-1000) == 0.0
    assert expit(1000) == 1.0
