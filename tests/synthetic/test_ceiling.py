"""The ceilings bound what any score can reach, and more noise lowers them."""

from __future__ import annotations

import tomllib
from itertools import product

import numpy as np
import polars as pl
import pytest

from ospor_batch.config import Study
from ospor_batch.synthetic.ceiling import RecipeLabel, _f1, ceiling_table
from ospor_batch.synthetic.labels import exams_of, matched
from ospor_batch.synthetic.population import CENTERS, Rates, center_plan, people
from ospor_batch.synthetic.presets import PRESETS, Size, sizes_of

RECIPES = (
    RecipeLabel("ct_dxa", "ct", "dxa_who"),
    RecipeLabel("ct_qct", "ct", "qct"),
    RecipeLabel("film_dxa", "radiograph", "dxa_who"),
)


@pytest.fixture(scope="module")
def ceilings() -> pl.DataFrame:
    return ceiling_table(RECIPES, plans=CENTERS, seed=1)


def value(ceilings: pl.DataFrame, recipe: str, metric: str, target: str, bound: str) -> float:
    row = ceilings.filter(recipe=recipe, metric=metric, target=target, bound=bound)
    return float(row["value"].item())


def auc(score: np.ndarray, is_sick: np.ndarray) -> float:
    return float(np.mean(score[is_sick][:, None] > score[~is_sick][None, :]))


def test_image_noise_lowers_every_ceiling(ceilings: pl.DataFrame) -> None:
    wide = ceilings.pivot("bound", index=["recipe", "metric", "target"], values="value")
    assert (wide["label_and_image_noise"] <= wide["label_noise"] + 0.002).all(), "CT loses less than thousands of people show"
    film = value(ceilings, "film_dxa", "auc", "osteoporosis", "label_and_image_noise")
    assert film < value(ceilings, "ct_dxa", "auc", "osteoporosis", "label_and_image_noise") - 0.01


def test_no_score_of_true_density_beats_the_ceiling(ceilings: pl.DataFrame) -> None:
    """Even the true density, and even with age and sex, of people drawn one by one through the labels that are printed."""
    for kind, recipe, target in (("dxa", "ct_dxa", "lumbar_spine_t"), ("qct", "ct_qct", "vbmd")):
        everyone = [
            p for c in CENTERS if c.exam_kind == kind
            for p in people(c.name, range(5000, 6500), seed=3, night=2, rates=Rates(0, 0, 0, 0)) if p.age_at_image >= 50
        ]  # fmt: skip
        labelled = [(p, exam) for p in everyone if (exam := matched(exams_of(p))) and exam.age >= 50]
        score = np.array([-p.vbmd_mg_cm3 for p, _ in labelled])
        sick = np.array([e.is_osteoporosis if e.t else float(e.vbmd_mg_cm3 or 0) < 80 for _, e in labelled])
        measured = np.array([float(e.t["lumbar_spine"]) if e.t else float(e.vbmd_mg_cm3 or 0) for _, e in labelled])
        best = value(ceilings, recipe, "auc", "osteoporosis", "label_noise")
        assert auc(score, sick) < best + 0.02
        assert auc(score, sick) > best - 0.12, "a ceiling far above the best known score would say nothing"
        assert np.corrcoef(-score, measured)[0, 1] < value(ceilings, recipe, "pearson_r", target, "label_noise") + 0.02


@pytest.mark.parametrize("size", [*sizes_of("paper-cxr"), *sizes_of("paper-ct")], ids=lambda size: size.name or "cxr")
def test_every_published_recipe_has_its_ceilings(size: Size) -> None:
    plans = [center_plan(name) for name in size.counts]
    found = ceiling_table(size.recipe_labels, plans=plans, seed=1, is_referred_by_risk=False)
    assert size.cohort is not None
    study = Study.model_validate(tomllib.loads(size.study_text(preset="paper", seed=1)))
    assert set(found["recipe"]) == {recipe.key for recipe in study.recipes if recipe.substudy_of is None}
    assert {recipe.name for recipe in study.recipes} - {"smi_comparator"} == {size.cohort.recipe}
    classes, values = ({"osteoporosis", "low_bone_mass"}, {"vbmd"})
    if size.cohort.reference == "dxa":
        classes, values = classes | {"tbs_degraded"}, {"lumbar_spine_t", "tbs"}
    told = {(metric, target) for metric, target in found.select("metric", "target").rows()}
    assert told == {*product(("auc", "f1"), classes), *product(("pearson_r", "spearman_r", "icc"), values)}
    assert found["value"].is_between(0.3, 1).all()
    assert (found["n_positive"] > 30).all()


def test_every_recipe_of_the_demo_has_its_ceilings() -> None:
    """Of both study files: mean HU and all five published recipes; a substudy has its recipe's."""
    demo = PRESETS["demo"]
    keys: set[str] = set()
    for text in (demo.study_text(preset="demo", seed=1), demo.all_recipes_text(preset="demo", seed=1)):
        study = Study.model_validate(tomllib.loads(text or ""))
        keys |= {recipe.key for recipe in study.recipes if recipe.substudy_of is None}
        assert {recipe.substudy_of for recipe in study.recipes} - {None} <= keys
    assert {label.recipe for label in demo.recipe_labels} == keys
    of = {label.recipe: (label.image, label.standard) for label in demo.recipe_labels}
    assert of["cxr_osteoporosis"] == ("radiograph", "dxa_who")
    assert of["ct_qct_bmd"] == of["mean_hu_qct"] == ("ct", "qct")


def test_no_guess_agrees_better_than_the_ceiling(ceilings: pl.DataFrame) -> None:
    """Neither the true density nor any line through it has a higher ICC of agreement with the measured vBMD."""
    people_west = people("west", range(5000, 6500), seed=3, night=2, rates=Rates(0, 0, 0, 0))
    pairs = [(p.vbmd_mg_cm3, float(e.vbmd_mg_cm3 or 0)) for p in people_west if (e := matched(exams_of(p))) and e.age >= 50]
    true, measured = np.array(pairs).T
    best = value(ceilings, "ct_qct", "icc", "vbmd", "label_noise")
    found = [
        2 * np.cov(guess, measured)[0, 1] / (guess.var() + measured.var() + (guess.mean() - measured.mean()) ** 2)
        for guess in (true, 0.9 * true + 5, 1.1 * true - 12, np.full_like(true, measured.mean()))
    ]
    assert max(found) < best + 0.005
    assert max(found) > best - 0.01, "the true density almost reaches it"


def test_f1_is_that_of_the_best_cut() -> None:
    """By hand: five people, two sick, and the best cut takes the first three."""
    score, is_sick = np.array([5.0, 4, 3, 2, 1]), np.array([True, False, True, False, False])
    assert _f1(score, is_sick) == pytest.approx(2 * 2 / (2 * 2 + 1 + 0))
    assert _f1(score, np.zeros(5, bool)) is None


def test_a_center_without_the_reference_gives_no_row() -> None:
    assert ceiling_table(RECIPES[1:2], plans=[c for c in CENTERS if c.exam_kind == "dxa"], seed=1).is_empty()
