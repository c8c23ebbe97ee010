"""Too few people, one class, ties and separation: a labelled gap, never an exception, never NaN, never a fake 0 or 1."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ospor_batch.errors import StudyError
from ospor_batch.evaluation.clustered import bootstrap_auc, clustered_auc, clustered_proportion, compare_clustered
from ospor_batch.evaluation.curves import (
    compare_unpaired,
    partial_area,
    sensitivity_at_specificity,
    specificity_at_sensitivity,
)
from ospor_batch.evaluation.decision import net_benefit
from ospor_batch.evaluation.differences import bias_in_bands, proportional_bias, repeated_pairs
from ospor_batch.evaluation.discrimination import Confusion, roc_area
from ospor_batch.evaluation.grouped_areas import grouped_areas, histogram_area
from ospor_batch.evaluation.intervals import Estimate
from ospor_batch.evaluation.multiplicity import adjusted
from ospor_batch.evaluation.overlap import overlap
from ospor_batch.evaluation.recalibration import recalibrate
from ospor_batch.evaluation.reliability import FORMS, concordance, icc
from ospor_batch.evaluation.risk_calibration import calibration_measures, intercept_alone, smooth_curve
from ospor_batch.evaluation.standardization import direct_standardised, standard_weights
from ospor_batch.evaluation.three_class import class_measures, class_table, hand_till, weighted_kappa
from ospor_batch.evaluation.two_by_two import further_measures, mcnemar
from ospor_batch.evaluation.verification import begg_greenes, weighted_prevalence

PEOPLE = {
    "nobody": ([], []),
    "one person": ([1], [0.4]),
    "no events": ([0, 0, 0, 0], [0.1, 0.2, 0.2, 0.3]),
    "events only": ([1, 1, 1], [0.1, 0.2, 0.9]),
    "perfect separation": ([0, 0, 0, 1, 1, 1], [0.1, 0.2, 0.3, 0.7, 0.8, 0.9]),
    "one score": ([0, 1, 0, 1], [0.5, 0.5, 0.5, 0.5]),
    "two of each": ([0, 1, 0, 1], [0.1, 0.3, 0.4, 0.9]),
    "zero and one": ([0, 1, 1, 0], [0.0, 1.0, 0.0, 1.0]),
}


def is_labelled(estimate: Estimate) -> bool:
    numbers = [number for number in (estimate.value, estimate.lower, estimate.upper) if number is not None]
    return all(map(math.isfinite, numbers)) and (estimate.value is None) == (estimate.reason is not None)


@pytest.mark.parametrize("name", PEOPLE)
def test_every_measure_is_a_number_or_says_why(name: str) -> None:
    truth, score = (np.array(values) for values in PEOPLE[name])
    truth = truth.astype(bool)
    person = np.arange(truth.size) // 2
    found = [
        clustered_auc(truth, score, cluster=person),
        clustered_proportion(truth, cluster=person),
        sensitivity_at_specificity(truth, score, specificity=0.9),
        specificity_at_sensitivity(truth, score, sensitivity=0.9),
        concordance(score, score[::-1]),
        proportional_bias(score, score[::-1]).slope,
        *calibration_measures(truth, score).values(),
        *(icc(np.column_stack([score, score[::-1]]) if score.size else np.empty((0, 2)), form=form) for form in FORMS),
        *class_measures(class_table(truth, truth)).values(),
        hand_till(truth, np.column_stack([1 - score, score / 2, score / 2]) if score.size else np.empty((0, 3))),
        weighted_prevalence(truth, covariates=score[:, None], verified=truth),
    ]
    assert all(map(is_labelled, found)), [estimate for estimate in found if not is_labelled(estimate)]
    area = partial_area(truth, score, max_fpr=0.2)
    assert (area.raw is None) == (area.reason is not None)
    difference = compare_clustered(truth, score, other_score=score[::-1], cluster=person)
    assert (difference.standard_error is None) <= (difference.reason is not None)
    assert repeated_pairs(score, score[::-1], person=person).reason is None or truth.size < 6
    assert net_benefit(truth, score) == [] or truth.any()
    if not truth.any() or truth.all():
        assert bootstrap_auc(truth, score, cluster=person, seed=1, n_replicates=5) is None
        assert smooth_curve(truth, score) is None


@given(st.tuples(*[st.integers(0, 6)] * 4))
def test_measures_of_small_tables_are_labelled(cells: tuple[int, int, int, int]) -> None:
    table = Confusion(*cells)
    assert all(map(is_labelled, further_measures(table).values()))
    corrected = begg_greenes(table, n_positive_unverified=3, n_negative_unverified=9)
    assert all(map(is_labelled, (corrected.sensitivity, corrected.specificity, corrected.prevalence)))
    for estimate in (corrected.sensitivity, corrected.specificity, corrected.prevalence):
        assert estimate.value is None or 0 < estimate.value < 1


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.integers(0, 5)), max_size=60))
def test_areas_of_groups_are_those_of_each(rows: list[tuple[int, bool, int]]) -> None:
    group, truth, score = (np.array([row[i] for row in rows], dtype=kind) for i, kind in enumerate((int, bool, float)))
    found = grouped_areas(truth, score, group=group, n_groups=5)
    for i in range(5):
        area = roc_area(truth[group == i], score[group == i])
        assert np.isnan(found.auc[i]) if area.auc is None else found.auc[i] == pytest.approx(area.auc, abs=1e-12)
        assert (
            np.isnan(found.variance[i])
            if area.variance is None
            else found.variance[i] == pytest.approx(area.variance, abs=1e-12)
        )


def test_verified_people_alone_are_not_corrected_and_all_alike_need_no_correction() -> None:
    table = Confusion(40, 20, 10, 130)
    alone = begg_greenes(table, n_positive_unverified=0, n_negative_unverified=0)
    assert alone.sensitivity.value == pytest.approx(0.8)
    assert alone.specificity.value == pytest.approx(130 / 150)
    assert alone.prevalence.value == pytest.approx(0.25)
    same = begg_greenes(table, n_positive_unverified=60, n_negative_unverified=140)
    assert same.sensitivity.value == pytest.approx(0.8)


def test_weights_undo_referral_by_a_known_covariate() -> None:
    rng = np.random.default_rng(4)
    age = rng.normal(0, 1, 40_000)
    event = rng.random(age.size) < 1 / (1 + np.exp(1.5 - age))
    sent = rng.random(age.size) < 1 / (1 + np.exp(1 - 1.2 * age))
    found = weighted_prevalence(event & sent, covariates=age[:, None], verified=sent)
    assert found.value is not None
    assert found.lower is not None
    assert found.upper is not None
    assert found.lower < event.mean() < found.upper
    assert event[sent].mean() > found.upper  # the naive share is far off


def test_a_recalibration_is_fitted_on_tuning_only_and_keeps_its_order() -> None:
    rng = np.random.default_rng(5)
    score = rng.normal(0, 1, 400)
    truth = rng.random(400) < 1 / (1 + np.exp(-2 * score + 1))
    for partition in ("train", "internal_test", "external", "test"):
        with pytest.raises(StudyError, match="tuning"):
            recalibrate(truth, score, method="logistic", partition=partition, is_probability=False)
    for method in ("logistic", "isotonic"):
        fit = recalibrate(truth, score, method=method, partition="tuning", is_probability=False)
        risk = fit.apply(np.sort(score))
        assert fit.id == f"{method}@tuning n=400"
        assert (np.diff(risk) >= -1e-12).all()
        assert ((risk >= 0) & (risk <= 1)).all()
        assert risk.mean() == pytest.approx(truth.mean(), abs=1e-6)
    refused = recalibrate(truth, score, method="intercept", partition="tuning", is_probability=False)
    assert refused.reason == "score_is_no_probability"
    separated = recalibrate(score > 0, score, method="logistic", partition="tuning", is_probability=False)
    assert separated.reason == "perfect_separation"


def test_kappa_has_the_interval_of_its_large_sample_variance() -> None:
    """Against a jackknife over persons, which knows no formula."""
    table = np.array([[109, 23, 0], [15, 71, 16], [0, 13, 53]])
    found = weighted_kappa(table, weights="quadratic")
    assert found.value is not None
    assert found.lower is not None
    n, values = int(table.sum()), []
    for i, j in zip(*np.nonzero(table), strict=True):
        less = table.copy()
        less[i, j] -= 1
        value = weighted_kappa(less, weights="quadratic").value
        assert value is not None
        values += [value] * int(table[i, j])
    se = math.sqrt((n - 1) / n * float(((np.array(values) - np.mean(values)) ** 2).sum()))
    assert (found.value - found.lower) / 1.959964 == pytest.approx(se, rel=0.02)


def test_bands_part_everybody_and_masks_that_are_empty_say_so() -> None:
    reference, predicted = np.array([60.0, 79.0, 80.0, 100.0, 119.0, 120.0, 150.0]), np.full(7, 100.0)
    assert sum(limits.n for _, limits in bias_in_bands(reference, predicted, cuts=(80.0, 120.0))) == 7
    none, some = np.zeros((3, 3, 3)), np.ones((3, 3, 3))
    assert overlap(none, none, spacing_mm=(1, 1, 1)).reason == "both_masks_empty"
    assert (overlap(none, some, spacing_mm=(1, 1, 1)).dice, overlap(none, some, spacing_mm=(1, 1, 1)).hd95_mm) == (0.0, None)
    with pytest.raises(ValueError, match="shapes"):
        overlap(none, np.ones((2, 3, 3)), spacing_mm=(1, 1, 1))


def test_standards_are_declared_and_empty_strata_are_no_zero() -> None:
    with pytest.raises(StudyError, match="who_2000_2025"):
        standard_weights("somewhere")
    found = direct_standardised([1, 0, 5], [10, 0, 20], weight=[1, 1, 2])
    assert (found.n_strata, found.n_empty_strata) == (2, 1)
    assert found.estimate.value == pytest.approx((0.1 + 2 * 0.25) / 3)
    assert direct_standardised([0], [0], weight=[1]).estimate.reason == "no_persons"


def test_families_keep_their_gaps() -> None:
    assert adjusted([0.01, None, 0.04], method="holm") == [pytest.approx(0.02), None, pytest.approx(0.04)]
    assert adjusted([None]) == [None]
    assert mcnemar(0, 0).p_exact == 1.0
    assert histogram_area([0, 3], [0, 0]) == (None, None)
    assert compare_unpaired(roc_area([1, 0], [1, 0]), roc_area([1], [1])).reason is not None


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.001, 0.2, 0.5, 0.9, 1.0])), min_size=2, max_size=60))
def test_calibration_of_any_risks_is_finite_or_says_why(people: list[tuple[bool, float]]) -> None:
    truth, risk = [event for event, _ in people], [value for _, value in people]
    for name, found in calibration_measures(truth, risk).items():
        assert (found.value is None) == (found.reason is not None), name
        for number in (found.value, found.lower, found.upper):
            assert number is None or abs(number) < 1e5, name


def test_a_shift_on_the_log_odds_is_the_calibration_in_the_large() -> None:
    rng = np.random.default_rng(5)
    lp = rng.normal(-1, 1, 4000)
    event = rng.random(4000) < 1 / (1 + np.exp(-(lp + 0.7)))
    value, error = intercept_alone(event, lp)
    assert abs(value - 0.7) < 3 * error
    assert abs(intercept_alone(event, np.full(4000, 13.8))[0]) < 30  # risks at the edge still have one


def test_measures_of_a_table_have_intervals_that_hold_them() -> None:
    for name, found in further_measures(Confusion(22, 29, 1, 29)).items():
        assert found.value is not None
        assert found.lower is not None, name
        assert found.upper is not None, name
        assert found.lower < found.value < found.upper, name
    assert further_measures(Confusion(5, 0, 0, 5))["mcc"].lower is None
