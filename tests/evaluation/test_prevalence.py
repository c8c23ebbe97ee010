"""Prevalence and its correction; pooling over centers; declared strata."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest

from ospor_batch.errors import StudyError
from ospor_batch.evaluation.discrimination import Confusion
from ospor_batch.evaluation.heterogeneity import logit_share, pool_random_effects, reml_tau2
from ospor_batch.evaluation.prevalence import prev_corrected, prev_label, prev_test_positive, rogan_gladen
from ospor_batch.evaluation.strata import cells, parse_strata, stratum_columns

VERIFIED = Confusion(tp=40, fp=10, fn=10, tn=90)


def corrected(n_positive: int = 300, **changes: object) -> object:
    options: dict[str, object] = {"n_image_only": 850, "verified": VERIFIED, "partition": "test", **changes}
    return prev_corrected(n_positive, 1000, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"n_image_only": 0}, "no_image_only_people"),
        ({"partition": "train"}, "train_or_tuning_people"),
        ({"partition": "tuning"}, "train_or_tuning_people"),
        ({"verified": Confusion(1, 10, 0, 90)}, "too_few_events"),
        ({"verified": Confusion(40, 0, 10, 1)}, "too_few_non_events"),
        ({"verified": Confusion(10, 90, 40, 10)}, "no_better_than_chance"),
        ({"n_positive": 20}, "outside_0_1"),
        ({"n_positive": 950}, "outside_0_1"),
        ({"minimum_events": 60}, "too_few_events"),
    ],
)
def test_a_corrected_prevalence_is_refused_with_its_reason(changes: dict[str, object], reason: str) -> None:
    found = corrected(**changes)
    assert found.reason == reason  # type: ignore[attr-defined]
    assert found.value is None  # type: ignore[attr-defined]


def test_the_corrected_interval_carries_the_errors_of_sensitivity_and_specificity() -> None:
    found = prev_corrected(300, 1000, n_image_only=850, verified=VERIFIED, partition="test")
    known = rogan_gladen(300, 1000, sensitivity=0.8, specificity=0.9)
    assert found.value == pytest.approx(known.value)
    assert found.value == pytest.approx((0.3 + 0.9 - 1) / 0.7)
    assert found.lower is not None
    assert known.lower is not None
    assert found.upper is not None
    assert known.upper is not None
    assert found.lower < known.lower < known.upper < found.upper
    certain = prev_corrected(300, 1000, n_image_only=850, verified=Confusion(50, 0, 0, 100), partition="test")
    assert certain.value == pytest.approx(0.3)
    assert certain.lower is not None
    assert certain.lower < 0.27  # the plain binomial limit: 50/50 and 100/100 are not certainty


def test_the_corrected_interval_covers_in_a_simulation() -> None:
    rng, truth, held = np.random.default_rng(7), 0.25, 0
    for _ in range(400):
        ill = rng.random(600) < truth
        called = np.where(ill, rng.random(600) < 0.8, rng.random(600) < 0.1)
        tp, fp = int((called & ill)[:200].sum()), int((called & ~ill)[:200].sum())
        n_ill = int(ill[:200].sum())
        verified = Confusion(tp, fp, n_ill - tp, 200 - n_ill - fp)
        found = prev_corrected(int(called.sum()), 600, n_image_only=400, verified=verified, partition="test")
        held += found.lower is not None and found.upper is not None and found.lower <= truth <= found.upper
    assert held / 400 >= 0.94


def test_prevalence_without_people_is_not_estimable() -> None:
    assert prev_label(0, 0).reason == "no_labelled_people"
    assert prev_test_positive(0, 0).reason == "no_scored_people"
    assert prev_corrected(0, 0, n_image_only=0, verified=VERIFIED, partition="test").reason == "no_scored_people"


def test_two_centers_are_not_pooled() -> None:
    pooled = pool_random_effects([1.0, 2.0], [0.1, 0.1])
    assert (pooled.reason, pooled.mean, pooled.prediction) == ("fewer_than_3_groups", None, None)
    assert pool_random_effects([], []).reason == "fewer_than_3_groups"


def test_equal_centers_have_no_variance_between_them_and_keep_their_width() -> None:
    pooled = pool_random_effects([1.0, 1.0, 1.0], [0.1, 0.1, 0.1])
    assert (pooled.tau2, pooled.i2_percent, pooled.q) == (0.0, 0.0, 0.0)
    assert pooled.standard_error == pytest.approx(math.sqrt(0.1 / 3))


def test_reml_lies_where_the_likelihood_is_highest() -> None:
    y, v = np.array([0.1, 1.5, -0.8, 2.2]), np.array([0.05, 0.2, 0.1, 0.02])

    def likelihood(tau2: float) -> float:
        w = 1 / (v + tau2)
        mean = float(w @ y / w.sum())
        return float(0.5 * np.log(w).sum() - 0.5 * math.log(w.sum()) - 0.5 * (w @ (y - mean) ** 2))

    tau2 = reml_tau2(y, v)
    assert likelihood(tau2) >= max(likelihood(t) for t in np.linspace(0, 10, 2001)) - 1e-9


def test_a_share_of_none_or_all_gets_half_a_case() -> None:
    assert logit_share(0, 10).value == pytest.approx(math.log(0.5 / 10.5))
    assert logit_share(10, 10).value == -logit_share(0, 10).value
    assert logit_share(3, 10).variance == pytest.approx(1 / 3 + 1 / 7)


def test_strata_are_read_and_overall_comes_first() -> None:
    found = parse_strata(["center", "center*scanner_vendor", "scanner_vendor * center", "overall", "kvp"])
    assert [s.name for s in found] == ["overall", "center", "center*scanner_vendor", "kvp"]
    assert [s.name for s in parse_strata([])] == ["overall"]


def test_a_misspelt_stratum_is_named_with_its_neighbour() -> None:
    with pytest.raises(StudyError, match="did you mean 'scanner_vendor'"):
        parse_strata(["center*scaner_vendor"])
    with pytest.raises(StudyError, match="names a column twice"):
        parse_strata(["center*center"])
    with pytest.raises(StudyError, match="no column of people"):
        parse_strata([""])


def test_cells_of_several_tables_have_the_same_groups_and_empty_parts() -> None:
    schema = dict.fromkeys(stratum_columns(), pl.String)
    row = dict.fromkeys(stratum_columns(), "x")
    left = pl.DataFrame([row | {"center": "b"}, row | {"center": "a"}, row | {"center": None}], schema=schema)
    right = pl.DataFrame([row | {"center": "c"}], schema=schema)
    center = parse_strata(["center"])[1]
    found = cells([left, right], center, expected=[("d",)])
    assert [dict(cell.values)["center"] for cell in found] == ["a", "b", "c", "d"]
    assert [tuple(frame.height for frame in cell.frames) for cell in found] == [(1, 0), (1, 0), (0, 1), (0, 0)]
    assert {dict(cell.values)["sex"] for cell in found} == {"all"}
