"""Intervals by every method, several images a person, declared rates, bounds for missing scores, recipes, interactions."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from ospor_batch.evaluation.analysis_set import AnalysisSet, People
from ospor_batch.evaluation.curves import auc_within_groups, partial_area, partial_auc
from ospor_batch.evaluation.differences import repeated_pairs
from ospor_batch.evaluation.discrimination import auc, compare_auc, roc_area
from ospor_batch.evaluation.discrimination_tables import Asked, discrimination_rows
from ospor_batch.evaluation.interaction import score_by_group
from ospor_batch.evaluation.recipe_tables import Compared, recipe_rows
from ospor_batch.evaluation.strata import parse_strata
from ospor_batch.evaluation.tables import Context
from ospor_batch.evaluation.threshold import fixed_threshold
from ospor_batch.evaluation.two_by_two import paired_difference

ASKED = Asked(0.2, 0.9, 0.9, n_replicates=200, seed=5)
CENTERS = ("east", "north")


def context(recipe: str = "one", *, reference: str = "dxa", cut: float = 0.5) -> Context:
    return Context(
        recipe, reference, "0" * 16, fixed_threshold(cut, unit="1"), "from -180 to +180", "osteoporosis", 0.1, 5,
        parse_strata(["center"]), CENTERS,
    )  # fmt: skip


def cohort(n: int = 120, *, images: int = 1, seed: int = 0, missing: int = 0, shift: float = 1.2) -> AnalysisSet:
    """Persons of two centers, the first image of each being the one that counts."""
    rng = np.random.default_rng(seed)
    truth = np.arange(max(n, 1)) % 3 == 0
    rows = [
        {
            "patient_key": f"{i:04d}", "series_key": f"{i:04d}-{j}", "center": CENTERS[i % 2], "scanner_vendor": "ge",
            "kvp": "120", "partition": "external", "truth": bool(truth[i]), "is_performance_index": True,
            "score": None if i < missing else float(rng.normal(truth[i] * shift, 1)),
        }
        for i in range(max(n, 1))
        for j in range(images)
    ]  # fmt: skip
    series = pl.DataFrame(rows, schema_overrides={"score": pl.Float64}).head(n * images)
    paired = series.unique("patient_key", keep="first", maintain_order=True)
    return AnalysisSet(paired, paired, series)


def rows_of(of: AnalysisSet) -> pl.DataFrame:
    people = People("test", "all", of.eligible, of.paired)
    return pl.DataFrame(discrimination_rows(context(), people, of=of, asked=ASKED), infer_schema_length=None)


def one(rows: pl.DataFrame, **values: str) -> dict[str, float]:
    wanted = {"grouping": "overall", "unit": "person", "analysis": "complete_case"} | values
    found = rows.filter(*(pl.col(name) == value for name, value in wanted.items()))
    assert found.height == 1, wanted
    return found.row(0, named=True)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 12)), min_size=4, max_size=60),
    st.sampled_from([0.05, 0.1, 0.2, 0.5, 0.9]),
)
def test_partial_areas_are_those_of_scikit_learn(people: list[tuple[bool, int]], max_fpr: float) -> None:
    truth, score = [event for event, _ in people], [float(value) for _, value in people]
    found = partial_area(truth, score, max_fpr=max_fpr)
    if len(set(truth)) < 2:
        assert found.reason == "one_class"
        return
    assert found.standardised == pytest.approx(roc_auc_score(truth, score, max_fpr=max_fpr), abs=1e-12)
    estimate = partial_auc(truth, score, max_fpr=max_fpr)
    assert (estimate.value is None) == (estimate.reason is not None)
    assert estimate.lower is None or 0 <= estimate.lower <= (estimate.value or 0) <= (estimate.upper or 0) <= 1


def test_the_error_of_a_partial_area_is_that_of_many_samples() -> None:
    rng, truth = np.random.default_rng(1), np.arange(200) < 70
    found = [partial_area(truth, np.round(rng.normal(truth * 1.2, 1), 1), max_fpr=0.2) for _ in range(400)]
    spread = np.std([area.standardised for area in found])
    assert math.sqrt(np.mean([area.variance for area in found])) == pytest.approx(spread, rel=0.12)


def test_a_whole_partial_area_is_the_area() -> None:
    of = cohort()
    truth, score = of.paired["truth"].to_numpy(), of.paired["score"].to_numpy()
    area, whole = roc_area(truth, score), partial_area(truth, score, max_fpr=1.0)
    assert whole.standardised == pytest.approx(area.auc)
    assert whole.variance == pytest.approx(area.variance)


def test_centers_that_score_higher_do_not_enter_the_area_within_centers() -> None:
    of = cohort(200)
    truth, center = of.paired["truth"].to_numpy(), of.paired["center"].to_numpy()
    score = of.paired["score"].to_numpy() + np.where(center == "east", 50.0, 0.0)
    within = auc_within_groups(truth, score, group=center)
    assert within.value == pytest.approx(auc_within_groups(truth, of.paired["score"].to_numpy(), group=center).value)
    assert within.value != pytest.approx(auc(truth, score).value, abs=0.02)
    assert auc_within_groups(truth[truth], score[truth], group=center[truth]).reason == "no_group_with_both_classes"


def test_every_interval_of_the_area_stands_around_one_value() -> None:
    rows = rows_of(cohort())
    found = [one(rows, metric="auc", interval=name) for name in ("delong_logit", "delong_wald", "bootstrap_percentile")]
    assert len({row["estimate"] for row in found}) == 1
    for row in found[1:]:
        assert row["estimate_lower"] == pytest.approx(found[0]["estimate_lower"], abs=0.04)
        assert row["estimate_upper"] == pytest.approx(found[0]["estimate_upper"], abs=0.04)
    assert set(rows["unit"]) == {"person"}
    assert one(rows, metric="partial_auc")["declared_rate"] == 0.2


def test_several_images_a_person_have_wider_intervals_than_as_many_persons() -> None:
    of = cohort(90, images=1)
    twice = of.series.vstack(of.series.with_columns(series_key=pl.col("series_key") + "b"))
    rows = rows_of(AnalysisSet(of.eligible, of.paired, twice))
    image, person = (one(rows, unit=unit, metric="auc", interval=how) for unit, how in (
        ("image", "obuchowski_logit"), ("person", "delong_logit")
    ))  # fmt: skip
    assert (image["n_images"], image["n_persons"], person["n_images"]) == (180, 90, 90)
    assert image["estimate"] == pytest.approx(person["estimate"])
    width = {row["unit"]: row["estimate_upper"] - row["estimate_lower"] for row in (image, person)}
    assert width["image"] == pytest.approx(width["person"], rel=0.05)  # the same image twice tells nothing new
    assert one(rows, unit="image", metric="sensitivity")["interval_method"] == "clustered_logit_t"
    assert one(rows, unit="image", metric="auc", interval="bootstrap_percentile")["n_images"] == 180


def test_missing_scores_are_bounded_by_all_wrong_and_all_right() -> None:
    rows = rows_of(cohort(missing=12))
    for metric in ("auc", "sensitivity", "specificity"):
        interval = "delong_logit" if metric == "auc" else "clopper_pearson"
        low, middle, high = (
            one(rows, analysis=name, metric=metric, interval=interval)
            for name in ("missing_wrong", "complete_case", "missing_right")
        )
        assert low["estimate"] < middle["estimate"] < high["estimate"]
        assert (middle["n_persons"], low["n_persons"], middle["n_missing"]) == (108, 120, 12)
    assert "missing_wrong" not in set(rows_of(cohort())["analysis"])


@pytest.mark.parametrize("of", [cohort(0), cohort(3), cohort(40, missing=40), cohort(30, shift=99.0)])
def test_gaps_say_why_and_hold_no_nan(of: AnalysisSet) -> None:
    rows = rows_of(of)
    for row in rows.iter_rows(named=True):
        assert (row["estimate"] is None) == (row["status_reason"] is not None)
        numbers = [row[name] for name in ("estimate", "estimate_lower", "estimate_upper")]
        assert all(number is None or math.isfinite(number) for number in numbers)
    areas = rows.filter(pl.col("metric").is_in(["auc", "partial_auc", "auc_within_center"]), pl.col("unit") == "person")
    assert set(areas.filter(pl.col("interval") != "bootstrap_percentile")["status"]) == {"not_estimable"}


def test_recipes_are_compared_on_the_persons_that_both_scored() -> None:
    of, other = cohort(), cohort(seed=9, missing=10)
    paired = of.paired.filter(pl.col("patient_key") != "0050")
    first = Compared(context("one"), AnalysisSet(paired, paired, paired))
    second = Compared(context("two", cut=0.2), other)
    found = {row["family"]: row for row in recipe_rows([first, second], partition="test")}
    both = paired.join(other.paired.drop_nulls("score"), on="patient_key", suffix="_b").sort("patient_key")
    wanted = compare_auc(both["truth"].to_numpy(), both["score"].to_numpy(), other_score=both["score_b"].to_numpy())
    area = found["auc_by_recipe"]
    assert (area["n_first"], area["estimate"], area["p_value"]) == (109, wanted.difference, wanted.p_value)
    sick = both.filter("truth")
    share = float((sick["score"] >= 0.5).mean()) - float((sick["score_b"] >= 0.2).mean())  # type: ignore[arg-type]
    assert found["sensitivity_by_recipe"]["estimate"] == pytest.approx(share)
    assert found["sensitivity_by_recipe"]["estimate_lower"] < share < found["sensitivity_by_recipe"]["estimate_upper"]


def test_a_recipe_beside_itself_differs_by_nothing_and_another_reference_is_refused() -> None:
    of = cohort()
    same = recipe_rows([Compared(context("one"), of), Compared(context("two"), of)], partition="test")
    assert [(row["estimate"], row["p_value"]) for row in same] == [(0.0, 1.0)] * 3
    other = recipe_rows([Compared(context("one"), of), Compared(context("two", reference="qct"), of)], partition="test")
    assert {row["status_reason"] for row in other} == {"references_differ"}


@given(st.integers(0, 40), st.integers(0, 20), st.integers(0, 20), st.integers(0, 40))
def test_paired_limits_hold_the_difference_and_turn_with_it(both: int, first_only: int, second_only: int, none: int) -> None:
    n = both + first_only + second_only + none
    if not n:
        return
    difference, (low, high) = paired_difference(both, first_only, second_only, n=n)
    assert difference == pytest.approx((first_only - second_only) / n)
    assert -1 - 1e-12 <= low <= difference + 1e-12
    assert difference - 1e-12 <= high <= 1 + 1e-12
    turned, (other_low, other_high) = paired_difference(both, second_only, first_only, n=n)
    assert (turned, other_low, other_high) == pytest.approx((-difference, -high, -low))


def test_a_slope_that_differs_between_groups_is_found_and_one_that_does_not_is_not() -> None:
    rng, group = np.random.default_rng(2), np.repeat(["a", "b"], 400)
    score = rng.normal(size=800)
    alike = rng.random(800) < 1 / (1 + np.exp(-score))
    apart = rng.random(800) < 1 / (1 + np.exp(-score * np.where(group == "a", 2.5, 0.1)))
    for truth, is_apart in ((alike, False), (apart, True)):
        found = score_by_group(truth, score, group=group, minimum_events=10)
        assert found.p_value is not None
        assert (found.p_value < 0.001) == is_apart
        assert found.degrees == 1
    few = score_by_group(alike, score, group=np.where(np.arange(800) < 5, "rare", "b"), minimum_events=10)
    assert (few.reason, few.groups_left_out) == ("fewer_than_2_groups", ("rare",))
    parted = score_by_group(score > 0, score, group=group, minimum_events=10)
    assert parted.reason == "perfect_separation"


def test_repeated_pairs_have_a_bias_with_an_interval_over_persons() -> None:
    rng = np.random.default_rng(4)
    person = np.repeat(np.arange(40), 3)
    reference = rng.normal(100, 20, 120)
    predicted = reference + 3 + rng.normal(0, 4, 40)[person] + rng.normal(0, 2, 120)
    found = repeated_pairs(reference, predicted, person=person)
    assert found.mean is not None
    assert found.mean.lower is not None
    assert found.mean.upper is not None
    assert found.mean.lower < 3 < found.mean.upper
    naive = 1.96 * float(np.std(predicted - reference, ddof=1)) / math.sqrt(120)
    assert found.mean.upper - found.mean.lower > 2.4 * naive
