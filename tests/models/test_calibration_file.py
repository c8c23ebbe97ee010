"""A calibration file becomes a model folder that scores like the fit it came from; what it must say is asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ospor_batch.errors import ItemRefused, StudyError
from ospor_batch.models.bundle import open_bundle
from ospor_batch.models.calibration_file import seal_calibration
from ospor_batch.models.registry import predictor_here, spec_of
from ospor_batch.models.spec import Prediction
from tests.models.spines import spine

TEXT = """
vendor = "made"
scanner_model = "none"
material = "K2HPO4"
date = "2026-01-01"
source = "a made example"
method = "reference_tissue"
tissues = ["muscle", "fat"]
[[calibrations]]
kvp_kv = 120
n = 210
residual_mg_cm3 = 5.0
coefficients = {muscle = 40.0, fat = -84.0}
tissue_hu = {muscle = 55.0, fat = -100.0}
tissue_sd_hu = {muscle = 5.0, fat = 4.0}
bone_hu = [0, 400]
"""


def test_it_scores_by_the_formula_it_states(tmp_path: Path) -> None:
    seal_calibration(TEXT, folder=tmp_path / "made")
    spec = spec_of(
        "ldct_internal_calibration", parameters={}, pattern="*.nii*", labels={"L1": 20, "L2": 21}, folder=tmp_path / "made"
    )
    predictor, pixels = predictor_here(spec), spine(150.0, muscle_mm=80.0)
    assert pixels.volume is not None
    (unknown,) = predictor.predict([predictor.prepare(pixels)])
    assert isinstance(unknown, ItemRefused)
    assert unknown.reason == "kvp_unknown"
    object.__setattr__(pixels.volume, "kvp_kv", 120.0)
    (found,) = predictor.predict([predictor.prepare(pixels)])
    assert isinstance(found, Prediction)
    assert found.value == pytest.approx(-84 + (40 + 84) / (55 + 100) * (151.5 + 100), abs=1)
    told = open_bundle(tmp_path / "made").spec["calibration_file"]
    assert (told["vendor"], told["material"], told["n"], told["kvp_kv"]) == ("made", "K2HPO4", [210], [120.0])
    assert len(told["sha256"]) == 64


def test_the_same_file_is_the_same_model_and_another_is_another(tmp_path: Path) -> None:
    one = seal_calibration(TEXT, folder=tmp_path / "one")
    assert one == seal_calibration(TEXT, folder=tmp_path / "two")
    assert one != seal_calibration(TEXT.replace("n = 210", "n = 211"), folder=tmp_path / "three")
    state = open_bundle(tmp_path / "one").state
    np.testing.assert_array_equal(state["coefficients"], [[40.0, -84.0]])


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('vendor = "made"', "", "vendor is missing"), ("material", "materials", "material is missing"),
        ('method = "reference_tissue"', 'method = "guess"', "method is 'guess'"), ("n = 210", "n = 0", "nobody was measured"),
        ("kvp_kv = 120", 'kvp_kv = "120"', "kvp_kv is '120'"), ("fat = -84.0", "bone = 3.0", "must hold muscle, fat"),
        ("fat = -84.0", "fat = nan", "no number"), ("bone_hu = [0, 400]", "bone_hu = [400, 0]", "least, greatest"),
        ("[[calibrations]]", "[[other]]", r"give \[\[calibrations\]\]"), ("vendor =", "vendor", "no TOML"),
        ('tissues = ["muscle", "fat"]', 'tissues = ["muscle"]', "two or more"),
    ],
)  # fmt: skip
def test_what_it_must_say_is_asked_for(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(StudyError, match=said):
        seal_calibration(TEXT.replace(old, new, 1), folder=tmp_path / "made")
    assert not (tmp_path / "made").exists()
