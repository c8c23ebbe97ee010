"""AUC, ROC points and 2 x 2 measures: ties, one class, perfect separation, tiny numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ospor_batch.evaluation.discrimination import (
    Confusion,
    auc,
    compare_auc,
    confusion,
    operating_point,
    roc_area,
    roc_curve,
)


@pytest.mark.parametrize(
    ("truth", "score", "reason"),
    [
        ([], [], "no_persons"),
        ([0, 0, 0], [1, 2, 3], "no_events"),
        ([1, 1], [1, 2], "no_non_events"),
        ([1, 0, 0], [3, 1, 2], "too_few_events"),
        ([1, 1, 1, 0], [3, 1, 2, 2], "too_few_non_events"),
        ([0, 0, 1, 1], [1, 2, 3, 4], "perfect_separation"),
        ([1, 1, 0, 0], [1, 2, 3, 4], "perfect_separation"),
        ([0, 0, 1, 1], [5, 5, 5, 5], "zero_variance"),
    ],
)
def test_an_auc_that_cannot_be_read_says_why_and_shows_no_number(truth: list[int], score: list[int], reason: str) -> None:
    for method in ("delong_logit", "delong_wald"):
        found = auc(truth, score, method=method)
        assert found.reason == reason
        assert (found.value, found.lower, found.upper) == (None, None, None)


def test_minimum_events_withholds_the_auc_of_small_classes() -> None:
    truth, score = [0] * 20 + [1] * 5, [*range(20), 3, 15, 17, 18, 19]
    assert auc(truth, score).is_estimable
    assert auc(truth, score, minimum_events=10).reason == "too_few_events"


def test_an_auc_below_a_half_is_not_turned_round() -> None:
    found = auc([1, 1, 1, 0, 0, 0], [1, 2, 5, 3, 4, 6])
    assert found.value is not None
    assert found.value < 0.5


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=2, max_size=60))
def test_midrank_auc_equals_the_share_of_ordered_pairs(people: list[tuple[bool, int]]) -> None:
    truth, score = np.array([t for t, _ in people]), np.array([s for _, s in people], dtype=float)
    area = roc_area(truth, score)
    if truth.all() or not truth.any():
        assert area.auc is None
        return
    x, y = score[truth][:, None], score[~truth][None, :]
    assert area.auc == pytest.approx(float(((x > y) + 0.5 * (x == y)).mean()), abs=1e-12)
    curve = roc_curve(truth, score)
    assert curve is not None
    drawn = np.trapezoid(curve.true_positive_rate, curve.false_positive_rate)
    assert float(drawn) == pytest.approx(area.auc, abs=1e-12)


def test_two_identical_scores_do_not_differ() -> None:
    truth, score = [0, 1, 0, 1, 1, 0], [1.0, 2.0, 3.0, 4.0, 0.5, 0.7]
    found = compare_auc(truth, score, other_score=score)
    assert (found.difference, found.p_value) == (0.0, 1.0)


def test_a_roc_curve_starts_where_nobody_is_positive_and_ends_where_all_are() -> None:
    curve = roc_curve([0, 1, 1, 0], [0.1, 0.9, 0.4, 0.4])
    assert curve is not None
    assert (curve.false_positive_rate[0], curve.true_positive_rate[0], curve.threshold[0]) == (0.0, 0.0, None)
    assert (curve.false_positive_rate[-1], curve.true_positive_rate[-1]) == (1.0, 1.0)
    assert roc_curve([1, 1], [0, 1]) is None
    assert roc_curve([], []) is None


def test_a_score_at_the_threshold_is_positive() -> None:
    assert confusion([1, 0, 1, 0], [5.0, 5.0, 4.9, 4.9], threshold=5.0) == Confusion(1, 1, 1, 1)


@pytest.mark.parametrize(
    ("counts", "reasons"),
    [
        (Confusion(0, 0, 0, 0), {"sensitivity": "no_events", "ppv": "no_positive_calls", "accuracy": "no_persons"}),
        (Confusion(0, 0, 0, 5), {"f1": "no_events_and_no_positive_calls", "balanced_accuracy": "no_events"}),
        (Confusion(3, 0, 2, 0), {"specificity": "no_non_events", "ppv_at_prevalence": "no_non_events"}),
        (Confusion(3, 0, 2, 4), {"ppv_at_prevalence": "sensitivity_or_specificity_0_or_1"}),
    ],
)  # fmt: skip
def test_a_measure_without_people_says_which_are_missing(counts: Confusion, reasons: dict[str, str]) -> None:
    measured = operating_point(counts, prevalence=0.1)
    for name, reason in reasons.items():
        assert measured[name].reason == reason
        assert measured[name].value is None


@given(st.tuples(*[st.integers(0, 40)] * 4))
def test_every_measure_lies_inside_its_interval(cells: tuple[int, int, int, int]) -> None:
    for name, found in operating_point(Confusion(*cells), prevalence=0.1).items():
        if found.is_estimable:
            assert found.value is not None
            assert found.lower is not None
            assert found.upper is not None
            assert 0 <= found.lower <= found.value + 1e-12, name
            assert found.value <= found.upper + 1e-12, name
            assert found.upper <= 1, name


def test_scores_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        roc_area([0, 1], [0.0, np.nan])
    with pytest.raises(ValueError, match="one length"):
        roc_area([0, 1], [0.0])
