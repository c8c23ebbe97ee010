"""Locked thresholds: tie rules, targets, refusals, and the id that says where a threshold came from."""

from __future__ import annotations

import pytest

from ospor_batch.errors import StudyError
from ospor_batch.evaluation.threshold import fixed_threshold, lock_threshold

TRUTH = [0, 0, 0, 0, 1, 0, 1, 1]
SCORE = [1.0, 2.0, 3.0, 4.0, 4.5, 5.0, 6.0, 7.0]


def test_youden_breaks_ties_by_sensitivity() -> None:
    # J is 2/3 at 6 (sensitivity 2/3, specificity 1) and 4/5 at 4.5 (sensitivity 1, specificity 4/5)
    assert lock_threshold(TRUTH, SCORE, rule="youden", partition="tuning", unit="HU").score_cut == 4.5
    # J is 1/2 at 3 (1/2, 1) and at 1 (1, 1/2): the higher sensitivity wins
    tied = lock_threshold([0, 1, 0, 1], [0.0, 1.0, 2.0, 3.0], rule="youden", partition="tuning", unit="HU")
    assert tied.score_cut == 1.0


def test_sensitivity_at_least_takes_the_most_specific_threshold_that_reaches_it() -> None:
    found = lock_threshold(TRUTH, SCORE, rule="sensitivity_at_least", target=0.6, partition="tuning", unit="HU")
    assert found.score_cut == 6.0
    assert found.id == "sensitivity_at_least=0.6@tuning n=8 -> 6.0 HU"


def test_specificity_at_least_takes_the_most_sensitive_threshold_that_reaches_it() -> None:
    found = lock_threshold(TRUTH, SCORE, rule="specificity_at_least", target=0.8, partition="tuning", unit="HU")
    assert found.score_cut == 4.5
    unreachable = lock_threshold(
        [1, 1, 0, 0], [1, 2, 2, 3], rule="specificity_at_least", target=0.9, partition="tuning", unit="HU"
    )
    assert (unreachable.score_cut, unreachable.reason) == (None, "target_not_reached")


@pytest.mark.parametrize(
    ("truth", "score", "reason"),
    [
        ([], [], "no_tuning_people"),
        ([0, 0, 0], [1, 2, 3], "too_few_tuning_events"),
        ([0, 0, 1], [1, 2, 3], "too_few_tuning_events"),
        ([0, 1, 1], [1, 2, 3], "too_few_tuning_non_events"),
    ],
)
def test_too_few_tuning_people_lock_nothing(truth: list[int], score: list[float], reason: str) -> None:
    found = lock_threshold(truth, score, rule="youden", partition="tuning", unit="HU")
    assert (found.score_cut, found.reason) == (None, reason)
    assert reason in found.id


def test_a_threshold_is_never_chosen_on_test_people() -> None:
    for partition in ("test", "internal_test", "external", "train"):
        with pytest.raises(StudyError, match="tuning people only"):
            lock_threshold(TRUTH, SCORE, rule="youden", partition=partition, unit="HU")


def test_the_id_names_rule_partition_number_and_value() -> None:
    assert lock_threshold(TRUTH, SCORE, rule="youden", partition="tuning", unit="HU").id == "youden@tuning n=8 -> 4.5 HU"
    assert fixed_threshold(-110.0, unit="HU").id == "fixed -> -110.0 HU"
    assert fixed_threshold(-0.0, unit="HU").id == "fixed -> 0.0 HU"


def test_the_digest_of_the_tuning_data_does_not_hang_on_their_order() -> None:
    forward = lock_threshold(TRUTH, SCORE, rule="youden", partition="tuning", unit="HU")
    backward = lock_threshold(TRUTH[::-1], SCORE[::-1], rule="youden", partition="tuning", unit="HU")
    other = lock_threshold(TRUTH, [*SCORE[:-1], 8.0], rule="youden", partition="tuning", unit="HU")
    assert forward.data_digest == backward.data_digest != other.data_digest
