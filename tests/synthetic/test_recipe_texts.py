"""Every generated study file is one that the program takes, with parameters that its recipes have."""

from __future__ import annotations

import tomllib

import pytest

from ospor_batch.config import Study
from ospor_batch.models.ct_cnn_smi import FAMILIES
from ospor_batch.models.registry import spec_of
from ospor_batch.synthetic.presets import PRESETS, RECIPES, sizes_of

TEXTS = {
    "tiny": PRESETS["tiny"].study_text(preset="tiny", seed=1),
    "demo": PRESETS["demo"].study_text(preset="demo", seed=1),
    "demo, all": PRESETS["demo"].all_recipes_text(preset="demo", seed=1) or "",
    **{
        f"{preset} {factor:g} {number}": size.study_text(preset=preset, seed=1)
        for preset in ("paper-cxr", "paper-ct")
        for factor in (0.1, 1.0)
        for number, size in enumerate(sizes_of(preset, factor=factor))
    },
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_a_generated_study_file_is_taken(text: str) -> None:
    study = Study.model_validate(tomllib.loads(text))
    for recipe in study.recipes:
        spec_of(recipe.name, parameters=recipe.parameters, pattern=recipe.masks.pattern, labels=recipe.masks.labels)


def test_the_demo_trains_two_recipes_and_all_five_on_request() -> None:
    demo, every = (Study.model_validate(tomllib.loads(TEXTS[name])) for name in ("demo", "demo, all"))
    assert {r.name for r in demo.recipes if r.is_trained} == {"cxr_osteoporosis", "ldct_internal_calibration"}
    assert {r.name for r in every.recipes if r.is_trained} == {*RECIPES, "smi_comparator"}
    assert {r.substudy_of for r in every.recipes} == {None, "cxr_osteoporosis", "ct_cnn_smi"}


def test_the_five_networks_of_the_muscle_recipe_stand_beside_the_muscle_index() -> None:
    cohort = Study.model_validate(tomllib.loads(TEXTS["paper-ct 1 0"]))
    assert tuple(r.parameters.get("network", "densenet121") for r in cohort.recipes if r.name == "ct_cnn_smi") == FAMILIES
    assert [r.name for r in cohort.recipes if r.name != "ct_cnn_smi"] == ["smi_comparator"]


def test_a_reduced_cohort_has_small_networks_and_a_whole_one_its_own() -> None:
    small, whole = (Study.model_validate(tomllib.loads(TEXTS[f"paper-cxr {f} 0"])) for f in ("0.1", "1"))
    assert small.recipes[0].parameters["network"] == "densenet_small"
    assert not whole.recipes[0].parameters
