"""Specs are frozen names with digests that move with every decision, and with nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ospor_batch.errors import ItemRefused, StudyError
from ospor_batch.imaging.volume import Volume
from ospor_batch.models import spec as spec_module
from ospor_batch.models.registry import predictor_here, spec_of
from ospor_batch.models.spec import Pixels, Prediction, PredictorSpec
from tests.imaging.series import affine

LABELS = {"L1": 20, "L2": 21, "L3": 22, "L4": 23}


def a_spec(**changes: Any) -> PredictorSpec:
    return spec_of("mean_hu", **{"parameters": {}, "pattern": "*.nii*", "labels": LABELS, **changes})


def test_digests_are_the_same_for_the_same_decision() -> None:
    assert a_spec() == a_spec(labels=dict(reversed(LABELS.items())))
    assert a_spec().key == a_spec(parameters={"levels": ("L1", "L2", "L3", "L4")}).key  # the default written out
    assert a_spec().key == a_spec(device="cuda").key
    assert a_spec().model_digest != a_spec().parameter_digest


@pytest.mark.parametrize(
    "changes", [{"pattern": "body*.nii"}, {"labels": {**LABELS, "L4": 24}}, {"parameters": {"levels": ("L1", "L2")}}]
)
def test_parameters_move_their_digest_alone(changes: dict[str, Any]) -> None:
    assert a_spec(**changes).parameter_digest != a_spec().parameter_digest
    assert a_spec(**changes).model_digest == a_spec().model_digest


def test_the_preprocessing_version_is_in_the_parameter_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    before = a_spec().parameter_digest
    monkeypatch.setattr(spec_module, "PREPROCESSING", "next")
    assert a_spec().parameter_digest != before


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"parameters": {"cut_off": 110.0}}, "unknown cut_off"),
        ({"parameters": {"levels": "L1"}}, "expected a list"),
        ({"parameters": {"levels": ("L1", "L5")}}, "masks.labels has"),
        ({"labels": {"L6": 1}}, "unknown level L6"),
        ({"labels": {"L1": 0}}, "below 1"),
        ({"labels": {"L1": 5, "L2": 5}}, "two levels"),
        ({"labels": {}}, "empty"),
        ({"labels": {"T12": 19}}, "masks.labels has T12"),
    ],
)
def test_a_recipe_that_cannot_be_is_the_studys_fault(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(StudyError, match=said):
        a_spec(**changes)


def test_an_unknown_predictor_is_the_studys_fault() -> None:
    with pytest.raises(StudyError, match="there are .*mean_hu"):
        spec_of("crystal_ball", parameters={}, pattern="*", labels=LABELS)


def test_a_predictor_is_built_once_for_a_spec() -> None:
    assert predictor_here(a_spec()) is predictor_here(a_spec())
    assert predictor_here(a_spec()) is not predictor_here(a_spec(pattern="other*"))


def predicted(spec: PredictorSpec, hu: dict[str, float]) -> Prediction:
    predictor = predictor_here(spec)
    (found,) = predictor.predict([predictor.prepare(Pixels(*a_spine(hu)))])
    assert isinstance(found, Prediction)
    return found


def a_spine(means: dict[str, float]) -> tuple[Volume, np.ndarray]:
    """Levels of unequal size, each with half its voxels 10 HU above and half 10 HU below its mean."""
    hu, labels = np.zeros((12, 4, 4), np.float32), np.zeros((12, 4, 4), np.int32)
    for place, (level, mean) in enumerate(means.items()):
        size = 2 * (place + 1)
        labels[2 * place + 1, : size // 2, :2] = LABELS.get(level, 19)
        hu[2 * place + 1, : size // 2, 0], hu[2 * place + 1, : size // 2, 1] = mean - 10, mean + 10
    return Volume(hu, affine()), labels


def test_levels_weigh_the_same_and_low_hu_scores_high() -> None:
    found = predicted(a_spec(), {"L1": 100, "L2": 120, "L3": 140, "L4": 200})
    assert (found.value, found.score, found.unit, found.levels) == (140.0, -140.0, "HU", ("L1", "L2", "L3", "L4"))
    assert found.flags == ()
    assert [round(region.sd_hu, 3) for region in found.regions] == [10.0] * 4


def test_a_missing_level_is_flagged() -> None:
    found = predicted(a_spec(), {"L1": 100, "L3": 140})
    assert (found.value, found.levels, found.flags) == (120.0, ("L1", "L3"), ("level_missing:L2", "level_missing:L4"))


def test_a_level_beside_the_asked_ones_is_measured_and_does_not_enter() -> None:
    spec = a_spec(labels={"T12": 19, **LABELS})
    found = predicted(spec, {"T12": 300, "L1": 100})
    assert (found.value, found.levels) == (100.0, ("L1",))
    assert [region.level for region in found.regions] == ["T12", "L1"]
    with pytest.raises(ItemRefused, match="levels_missing"):
        predicted(spec, {"T12": 300})
