"""A calibration file becomes a model folder that scores like the fit it came from; what it must say is asked for."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ospor_batch.cli import app
from ospor_batch.errors import ItemRefused, StudyError
from ospor_batch.models.bundle import open_bundle
from ospor_batch.models.calibration_file import calibration_text, seal_calibration
from ospor_batch.models.registry import predictor_here, spec_of
from ospor_batch.models.spec import Pixels, Prediction
from tests.imaging.rods import LEVELS, lying
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
        ("kvp_kv = 120", "kvp_kv = 0", "take one entry"),
        ('method = "reference_tissue"', 'method = "phantom"', "phantom_rods: expected 3 or more"),
        ('tissues = ["muscle", "fat"]', 'tissues = "muscle"', "expected a list"),
    ],
)  # fmt: skip
def test_what_it_must_say_is_asked_for(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(StudyError, match=said):
        seal_calibration(TEXT.replace(old, new, 1), folder=tmp_path / "made")
    assert not (tmp_path / "made").exists()


PHANTOM = """
vendor = "made"
scanner_model = "none"
material = "K2HPO4"
date = "2026-01-01"
source = "the data sheet of a made phantom"
method = "phantom"
phantom_rods = ["0 mg/cm3 18 mm", "50 mg/cm3 18 mm", "100 mg/cm3 18 mm", "200 mg/cm3 18 mm"]
[[calibrations]]
kvp_kv = 0
n = 30
residual_mg_cm3 = 6.0
"""


def test_rods_need_no_training(tmp_path: Path) -> None:
    seal_calibration(PHANTOM, folder=tmp_path / "made")
    spec = spec_of("ldct_internal_calibration", parameters={}, pattern="*", labels=dict(LEVELS), folder=tmp_path / "made")
    predictor = predictor_here(spec)
    for kvp in (80, 120):
        (found,) = predictor.predict([predictor.prepare(Pixels(*lying(100.0, kvp=kvp, scale=1.05)))])
        assert isinstance(found, Prediction)
        assert found.value == pytest.approx(100, abs=10)
        assert found.flags == ()


@pytest.mark.parametrize(
    "text",
    [
        TEXT, PHANTOM, TEXT.replace("kvp_kv = 120", "kvp_kv = 0").replace('method = "', 'kvp = "pooled"\nmethod = "'),
        TEXT.replace("reference_tissue", "regression").replace("{muscle = 40", "{intercept = 1, bone_hu = 0.7, muscle = 40"),
    ],
)  # fmt: skip
def test_what_is_written_from_a_folder_seals_to_the_same_coefficients(tmp_path: Path, text: str) -> None:
    seal_calibration(text, folder=tmp_path / "one")
    one = open_bundle(tmp_path / "one")
    seal_calibration(calibration_text(one), folder=tmp_path / "two")
    two = open_bundle(tmp_path / "two")
    assert one.spec["parameters"] == two.spec["parameters"]
    assert one.state.keys() == two.state.keys()
    assert all(np.array_equal(one.state[name], two.state[name]) for name in one.state)


def test_the_command_line_seals_and_writes_back(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(TEXT)
    said = CliRunner().invoke(app, ["seal-calibration", str(tmp_path / "c.toml"), str(tmp_path / "made"), "--json"])
    told = json.loads(said.stdout)
    assert (told["vendor"], told["material"], told["kvp_kv"], told["n"]) == ("made", "K2HPO4", [120.0], [210])
    assert told["digest"] == open_bundle(tmp_path / "made").digest
    assert told["sha256"] == hashlib.sha256(TEXT.encode()).hexdigest()
    said = CliRunner().invoke(app, ["seal-calibration", str(tmp_path / "c.toml"), str(tmp_path / "made")])
    assert "120 kV: n = 210" in said.stdout
    said = CliRunner().invoke(app, ["write-calibration", str(tmp_path / "made"), str(tmp_path / "again.toml")])
    assert said.exit_code == 0
    assert 'vendor = "made"' in (tmp_path / "again.toml").read_text()
    for words, fault in (
        (["seal-calibration", str(tmp_path / "none.toml"), str(tmp_path / "x")], "docs/calibration.md shows one"),
        (["write-calibration", str(tmp_path / "made"), str(tmp_path / "again.toml")], "is left as it is"),
        (["seal-calibration", str(tmp_path / "c.toml"), str(tmp_path)], "is no model folder: nothing was written"),
    ):
        with pytest.raises(StudyError, match=fault):
            CliRunner().invoke(app, words, catch_exceptions=False)
    assert (tmp_path / "c.toml").is_file()
