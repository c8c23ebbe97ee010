"""Every CT recipe from arrays to an answer: inputs as declared, learning, the same weights twice, typed refusals, no NaN."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ospor_batch.errors import ItemRefused, StudyError
from ospor_batch.models import ct_bmd_tbs, ct_cnn_smi, ct_qct_bmd, smi_comparator
from ospor_batch.models.augmentation import augmented
from ospor_batch.models.networks import NETWORKS
from ospor_batch.models.spec import Parameter, Pixels, Prediction
from ospor_batch.models.trainable import IMAGE, Fitted, TrainableRecipe, Work
from tests.models.spines import FAT, MUSCLE, RULE, data_of, preparing, spine

SMALL: dict[str, Parameter] = {
    "network": "densenet_small", "width": 8, "epochs": 12, "batch_size": 8, "learning_rate": 1e-2, "threads": 1,
    "minimum_cases": 2, "augment_noise": 0.0,
}  # fmt: skip
QCT = SMALL | {"levels": ("L1", "L2"), "crop_pixels": 16}
TBS = SMALL | {"levels": ("L1", "L2"), "image_pixels": 24, "network": "resnet18", "width": 4}
SMI = SMALL | {"image_pixels": 24, "epochs": 8}
RECIPES = {"qct": (ct_qct_bmd.RECIPE, QCT), "tbs": (ct_bmd_tbs.RECIPE, TBS), "smi": (ct_cnn_smi.RECIPE, SMI)}
COMPARATOR: dict[str, Parameter] = {}


def people(n: int) -> list[tuple[Pixels, float]]:
    """Densities from 40 to 200 HU, in a mixed order."""
    density = np.random.default_rng(3).permutation(np.linspace(40, 200, n))
    return [(spine(float(hu)), float(hu)) for hu in density]


def fitted(
    recipe: TrainableRecipe, changes: dict[str, Parameter], folder: Path, *, n: int = 20
) -> tuple[Fitted, list[Prediction]]:
    """Fit on made people and answer for the tuning ones."""
    n_targets = len(recipe.targets(recipe.defaults))
    is_binary = recipe.targets(recipe.defaults)[0].kind == "binary"
    made = [(pixels, (float(hu < 120) if is_binary else hu,) * n_targets) for pixels, hu in people(n)]
    data = data_of(recipe, changes, made, tuning=8)
    parameters = {**recipe.defaults, **changes}
    recipe.check(parameters)
    targets = recipe.targets(parameters)
    found = recipe.learner.fit(data, Work(parameters, targets, seed=5, folder=folder))
    answers = recipe.learner.open(found.state, parameters, targets=targets, device="cpu")
    told = answers([data.example(case.item_digest, False) for case in data.tuning])
    assert all(isinstance(one, Prediction) and math.isfinite(one.score) and math.isfinite(one.value) for one in told)
    return found, [one for one in told if isinstance(one, Prediction)]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_learns_and_does_so_twice_alike(name: str, tmp_path: Path) -> None:
    recipe, changes = RECIPES[name]
    found, told = fitted(recipe, changes, tmp_path / "a")
    density = [hu for _, hu in people(20)][-8:]
    assert abs(np.corrcoef([one.score for one in told], density)[0, 1]) > 0.7
    assert np.corrcoef([one.score for one in told], density)[0, 1] < 0  # more risk where there is less bone
    if name != "qct":
        return  # one network shows it for all: the fit is the same code
    again, _ = fitted(recipe, changes, tmp_path / "b")
    assert all(np.array_equal(found.state[key], again.state[key]) for key in found.state)


def test_qct_crops_are_masked_planes_or_a_cube_of_each_vertebra() -> None:
    pixels = spine(150)
    flat = ct_qct_bmd.prepare(pixels, preparing(ct_qct_bmd.RECIPE, QCT))
    assert flat.arrays[IMAGE].shape == (2, 3, 16, 16)
    assert flat.units == flat.levels == ("L1", "L2")
    cube = ct_qct_bmd.prepare(pixels, preparing(ct_qct_bmd.RECIPE, QCT | {"crop": "box"}))
    assert cube.arrays[IMAGE].shape == (2, 1, 16, 16, 16)
    middle = flat.arrays[IMAGE][0, 2, 8, 8]
    assert middle == pytest.approx(2 * (153 + 200) / 800 - 1, abs=2e-3)  # L1 holds 153 HU: the window is -200 to 600
    assert flat.arrays[IMAGE].min() == -1  # blanked outside the mask
    assert [region.level for region in flat.regions] == ["T12", "L1", "L2"]


@pytest.mark.parametrize("name", RECIPES)
def test_ct_numbers_reach_the_network_as_they_are(name: str) -> None:
    recipe, changes = RECIPES[name]
    ready = preparing(recipe, changes, is_training=True)
    low, high = (recipe.prepare(spine(hu), ready).arrays[IMAGE].astype(float) for hu in (100, 130))
    steps = np.round((high - low) * 400, 1)  # HU of the window of 800 over an input from -1 to 1
    assert steps[:, 0].max() == pytest.approx(30, abs=0.4)
    still = {"augment_noise": 0.0, "augment_rotation_degrees": 0.0, "augment_scale": 0.0, "augment_shift": 0.0}
    images = torch.from_numpy(low.astype(np.float32))
    changed = augmented(images, {**recipe.defaults, **still}, torch.Generator().manual_seed(1))
    torch.testing.assert_close(changed, images, atol=1e-5, rtol=0)  # nothing is brightened or stretched


def test_the_3d_crop_trains_too(tmp_path: Path) -> None:
    _, told = fitted(ct_qct_bmd.RECIPE, QCT | {"crop": "box", "epochs": 1}, tmp_path)
    assert all(one.unit == "mg/cm3" for one in told)
    assert [level for level, _ in told[0].level_values] == ["L1", "L2"]


def test_three_sagittal_slices_in_training_and_one_in_test() -> None:
    training = ct_bmd_tbs.prepare(spine(150), preparing(ct_bmd_tbs.RECIPE, TBS, is_training=True))
    test = ct_bmd_tbs.prepare(spine(150), preparing(ct_bmd_tbs.RECIPE, TBS))
    assert training.units == ("L1:0", "L1:1", "L1:2", "L2:0", "L2:1", "L2:2")
    assert test.units == ("L1:0", "L2:0")
    assert training.arrays[IMAGE].shape == (6, 1, 24, 24)
    np.testing.assert_array_equal(training.arrays[IMAGE][1], test.arrays[IMAGE][0])  # the middle one


def test_one_model_reports_bmd_or_tbs_with_its_vertebrae() -> None:
    example = ct_bmd_tbs.prepare(spine(150), preparing(ct_bmd_tbs.RECIPE, TBS))
    outputs = np.array([[0.9, 1.30], [1.1, 1.20]])
    defaults = ct_bmd_tbs.RECIPE.defaults
    bmd = ct_bmd_tbs.answer(outputs, example, defaults)
    tbs = ct_bmd_tbs.answer(outputs, example, {**defaults, "reports": "tbs", "aggregate": "median"})
    assert isinstance(bmd, Prediction)
    assert isinstance(tbs, Prediction)
    assert (bmd.value, bmd.unit, bmd.score) == (pytest.approx(1.0), "g/cm2", pytest.approx(-1.0))
    assert (tbs.value, tbs.unit) == (pytest.approx(1.25), "tbs")
    assert dict(tbs.level_values) == {"L1": pytest.approx(1.30), "L2": pytest.approx(1.20)}
    lost = ct_bmd_tbs.answer(np.array([[np.nan, 1], [1, 1]]), example, defaults)
    assert isinstance(lost, ItemRefused)
    assert lost.reason == "non_finite"


def test_body_and_muscle_are_two_channels_of_one_slice() -> None:
    finer: dict[str, Parameter] = {"image_pixels": 60, "muscle_mm": 240.0}
    example = ct_cnn_smi.prepare(spine(150), preparing(ct_cnn_smi.RECIPE, SMI | finer))
    body, muscle = example.arrays[IMAGE][0]
    assert example.levels == ("T12",)
    assert body[30, 30] == pytest.approx(2 * (156 + 200) / 800 - 1, abs=2e-3)
    assert body[0, 0] == -1
    inside = 2 * (MUSCLE + 29) / 179 - 1
    assert muscle[30, 30 + 45 // 4] == pytest.approx(inside, abs=2e-3)
    assert muscle[30, 30 + 90 // 4] == -1 > 2 * (FAT + 29) / 179 - 1  # fat is no muscle


@pytest.mark.parametrize("family", [name for name in ct_cnn_smi.FAMILIES if name != "densenet121"])
def test_five_families_run_under_one_protocol(family: str, tmp_path: Path) -> None:
    assert family in NETWORKS
    changes = SMI | {"network": family, "epochs": 1, "image_pixels": 32, "width": 4 if family != "efficientnet_b0" else 16}
    _, told = fitted(ct_cnn_smi.RECIPE, changes, tmp_path, n=16)
    assert all(0 <= one.score <= 1 for one in told)


def test_muscle_area_and_index_are_those_of_the_made_body() -> None:
    made = preparing(smi_comparator.RECIPE, COMPARATOR)
    area = math.pi * (7.0**2 - 2.0**2)  # cm2: the vertebra within is bone
    assert smi_comparator.prepare(spine(150), made).arrays["smi_cm2_m2"][0] == pytest.approx(area / 1.6**2, rel=0.06)


def test_the_comparator_fits_a_logistic_line_on_smi(tmp_path: Path) -> None:
    recipe, rng = smi_comparator.RECIPE, np.random.default_rng(1)
    made = []
    for _ in range(30):
        wide = float(rng.uniform(55, 90))
        made.append((spine(150, muscle_mm=wide), (float(wide + rng.normal(0, 12) < 72),)))
    data = data_of(recipe, {}, made, tuning=10)
    parameters = dict(recipe.defaults)
    targets = recipe.targets(parameters)
    found = recipe.learner.fit(data, Work(parameters, targets, seed=1, folder=tmp_path))
    assert found.notes["log_odds"]["per_sd_of_smi"] < -0.5  # little muscle, more risk
    answers = recipe.learner.open(found.state, parameters, targets=targets, device="cpu")
    told = answers([data.example(case.item_digest, False) for case in data.tuning])
    assert all(isinstance(one, Prediction) and 0 < one.score < 1 for one in told)
    assert any(flag.startswith("smi_cm2_m2:") for one in told if isinstance(one, Prediction) for flag in one.flags)


def test_classes_wholly_apart_keep_finite_coefficients(tmp_path: Path) -> None:
    made = [(spine(150, muscle_mm=wide), (float(wide < 70),)) for wide in (55.0, 60.0, 65.0, 75.0, 80.0, 85.0)]
    recipe = smi_comparator.RECIPE
    data = data_of(recipe, {}, made, tuning=0)
    found = recipe.learner.fit(data, Work(dict(recipe.defaults), recipe.targets({}), seed=1, folder=tmp_path))
    assert np.isfinite(found.state["coefficients"]).all()


def test_the_same_index_everywhere_is_said(tmp_path: Path) -> None:
    recipe, pixels = smi_comparator.RECIPE, spine(150)
    data = data_of(recipe, {}, [(pixels, (0.0,)), (pixels, (1.0,))], tuning=0)
    with pytest.raises(StudyError, match="same SMI"):
        recipe.learner.fit(data, Work(dict(recipe.defaults), recipe.targets({}), seed=1, folder=tmp_path))


def refused(recipe: TrainableRecipe, pixels: Pixels, changes: dict[str, Parameter] | None = None) -> str:
    with pytest.raises(ItemRefused) as why:
        recipe.prepare(pixels, preparing(recipe, changes or {}))
    return why.value.reason


def test_what_is_not_in_view_is_refused_with_its_reason() -> None:
    pixels = spine(150)
    assert pixels.volume is not None
    assert pixels.labels is not None
    no_vertebra = replace(pixels, labels=np.where(pixels.labels == 100, 100, 0).astype(np.int32))
    for recipe, changes in RECIPES.values():
        assert refused(recipe, no_vertebra, changes) == "levels_missing"
    cut = Pixels(replace(pixels.volume, hu=pixels.volume.hu[:24]), pixels.labels[:24])  # T12 is cut by the upper end
    assert refused(ct_cnn_smi.RECIPE, cut, SMI) == "levels_cut"
    assert ct_cnn_smi.prepare(cut, preparing(ct_cnn_smi.RECIPE, SMI | {"takes_cut_levels": True})).levels == ("T12",)
    one_left = replace(pixels, labels=np.where(pixels.labels == 20, 0, pixels.labels).astype(np.int32))
    assert refused(ct_qct_bmd.RECIPE, one_left, QCT) == "levels_missing"
    alone = ct_qct_bmd.prepare(one_left, preparing(ct_qct_bmd.RECIPE, QCT | {"minimum_levels": 1}))
    assert alone.levels == ("L2",)
    assert "level_missing:L1" in alone.flags


def test_no_muscle_in_the_field_and_no_height_are_refused() -> None:
    pixels = spine(150)
    assert pixels.labels is not None
    without = replace(pixels, labels=np.where(pixels.labels == 100, 0, pixels.labels).astype(np.int32))
    for recipe in (ct_cnn_smi.RECIPE, smi_comparator.RECIPE):
        assert refused(recipe, without) == "muscle_mask_missing"
        by_window = preparing(recipe, {"muscle_from": "window"})
        assert "muscle_by_window" in recipe.prepare(without, by_window).flags
        assert refused(recipe, pixels, {"minimum_muscle_cm2": 200.0}) == "no_muscle_in_view"
    assert refused(smi_comparator.RECIPE, spine(150, height_m=None)) == "height_missing"
    assert refused(smi_comparator.RECIPE, spine(150, sex=None)) == "sex_missing"
    smi_comparator.prepare(spine(150, sex=None), preparing(smi_comparator.RECIPE, {"uses_sex": False}))


@pytest.mark.parametrize(
    ("recipe", "changes", "said"),
    [
        (ct_qct_bmd.RECIPE, {"crop": "sphere"}, "planes, box"),
        (ct_qct_bmd.RECIPE, {"minimum_levels": 5}, "1 to the number of levels"),
        (ct_qct_bmd.RECIPE, {"hu_low": 700.0}, "below hu_high"),
        (ct_qct_bmd.RECIPE, {"aggregate": "best"}, "mean, median"),
        (ct_bmd_tbs.RECIPE, {"slices_in_test": 0}, "expected above 0"),
        (ct_bmd_tbs.RECIPE, {"reports": "both"}, "bmd, tbs"),
        (ct_cnn_smi.RECIPE, {"levels": ("T12", "L1")}, "expected one level"),
        (ct_cnn_smi.RECIPE, {"muscle_from": "guess"}, "mask, window"),
        (smi_comparator.RECIPE, {"ridge": -1.0}, "0 or above"),
    ],
)
def test_parameters_that_cannot_be_are_named(recipe: TrainableRecipe, changes: dict[str, Parameter], said: str) -> None:
    with pytest.raises(StudyError, match=said):
        recipe.check({**recipe.defaults, **changes})


def test_a_mask_of_tissues_is_part_of_what_a_prediction_is_keyed_on() -> None:
    plain = replace(RULE, tissues=())
    other = replace(plain, source="unet", version="abc", folder="/elsewhere")
    assert len({str(rule.identity) for rule in (RULE, plain, other, replace(other, version="abd"))}) == 4
    assert replace(other, folder="/here").identity == other.identity
