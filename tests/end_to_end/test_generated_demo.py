"""The whole chain on the preset `demo`, whose people have every declared rate of bad tags, tilt, motion, metal and company."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ospor_batch.config import read_study
from ospor_batch.models.calibration_file import seal_calibration
from ospor_batch.pseudonym import normal_patient_id
from ospor_batch.store import Store
from ospor_batch.synthetic.anatomy import fitted
from ospor_batch.synthetic.archive import PRESETS, SEED, Night, people_of, write_study
from ospor_batch.synthetic.ceiling import IMAGE_ERROR
from ospor_batch.synthetic.ct import LINES, PROTOCOLS
from ospor_batch.synthetic.phantom import PHANTOMS
from ospor_batch.synthetic.population import CENTERS, LEVEL_OFFSET_MG_CM3, Person
from ospor_batch.synthetic.recipe_texts import QCT_CENTER
from ospor_batch.synthetic.scanner import (
    HARDENING_A_CM,
    KERNELS,
    NOISE_MIDDLE,
    REFERENCE_DIAMETER_MM,
    diameter_mm,
    noise_hu,
)
from ospor_batch.synthetic.study_file import four_center_study
from ospor_batch.synthetic.vendor import habit_of
from tests.end_to_end import test_generated_study as on_tiny
from tests.end_to_end.expected_flow import read_archives
from tests.end_to_end.partly import run_to
from tests.end_to_end.test_generated_study import DXA, Generated

pytestmark = pytest.mark.slow
RIM_HU = 0.5  # cupping over the extent of the bodies, and what a mask of coarse pixels takes of their rim
FAR = 4.0  # standard errors that nobody of two hundred people exceeds
RODS_MG_CM3 = 12.0  # docs/calibration.md: of a density by rods, before the bias against QCT is taken off
CALIBRATION = f"""
vendor = "made"
scanner_model = "none"
material = "K2HPO4"
date = "2026-01-01"
source = "rods of the generator"
method = "phantom"
phantom_rods = {json.dumps(PHANTOMS["k2hpo4"].rods)}
[[calibrations]]
kvp_kv = 0
n = 1
residual_mg_cm3 = 0.0
"""
BY_RODS = f"""
[[recipes]]
name = "ldct_internal_calibration"
id = "qct_phantom"
model = "rods"
reference = "qct_spine"
threshold = {{ fixed = 80 }}
{QCT_CENTER}
"""
MOVED_HU = 24.0  # bodies of someone who moves mix with what lies before and behind them


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Generated:
    study_file = write_study(tmp_path_factory.mktemp("demo"), preset="demo")
    # the rule alone: networks are trained elsewhere, and what is true of the images does not depend on them
    seal_calibration(CALIBRATION, folder=study_file.parent / "rods")
    study_file.write_text(
        four_center_study(name="generated-demo", seed=SEED, train=0.0, tuning=0.3, cluster="in_line", recipes=BY_RODS)
    )
    study = read_study(study_file)
    truth = pl.read_parquet(study.folder / "truth.parquet")
    run = run_to(study, "infer")
    return Generated(study, Store(study.workspace), run, truth, read_archives(Path("/nowhere"), truth.clear()))


def test_roles_matches_and_labels_are_those_of_the_truth(demo: Generated) -> None:
    on_tiny.test_every_person_has_the_role_the_truth_says(demo)
    on_tiny.test_the_match_and_its_label_are_the_ones_that_were_planted(demo)
    on_tiny.test_qct_labels_are_their_own_reference(demo)


def test_every_file_has_its_fate_and_the_ledger_closes(demo: Generated) -> None:
    on_tiny.test_every_file_has_the_fate_the_truth_says(demo)
    on_tiny.test_the_ledger_closes(demo)


def test_the_chain_returns_true_density_with_the_declared_error(demo: Generated) -> None:
    """Densities read back have the declared spread, and each stands off by what the trunk hardens and by noise alone."""
    found = measured(demo)
    assert (found["predicted_value"].is_not_null() == found["expected_prediction"]).all()
    off = found.filter(pl.col("predicted_value").is_not_null()).with_columns(
        off=pl.col("predicted_value") - pl.col("expected_mean_hu")
    )
    for name in ("tilt_deg", "motion_mm"):
        assert off.filter(pl.col(name) != 0).height > 1, f"nobody of the demo has {name}"
    assert off.filter(pl.col("motion_mm") != 0)["off"].abs().max() < MOVED_HU
    still = off.filter((pl.col("implant") != "pedicle_screws") & (pl.col("motion_mm") == 0))
    everyone = drawn()
    for row in still.iter_rows(named=True):
        hardening, noise = declared_hu(everyone[row["center"], row["patient_id"]])
        assert abs(row["off"] - hardening) < RIM_HU + FAR * noise * row["root_of_voxels"], (row["center"], row["patient_id"])
    error = still["off"].to_numpy() / LINES[120][1]  # mg/cm3
    declared = IMAGE_ERROR["ct"]
    assert error.std() < declared * (1 + 3 / np.sqrt(2 * len(error)))
    assert error.std() > 0.6 * declared, "a declared error far above the true one would lower the ceilings"
    assert abs(error.mean()) < 3 * declared / np.sqrt(len(error))
    assert np.corrcoef(still["predicted_value"], still["vbmd_mg_cm3"])[0, 1] > 0.99


def test_rods_under_the_patient_give_the_true_density_and_a_field_that_cuts_them_a_reason(demo: Generated) -> None:
    manifest = demo.run.read("manifest").filter(pl.col("recipe") == "qct_phantom")
    manifest = manifest.select("patient_key", "series_key", "item_digest").unique()
    predicted = answers(demo, unit="mg/cm3")
    refused = demo.run.read("reject").filter(pl.col("scope") == "qct_phantom").select(series_key="item_key", reason="reason")
    found = on_tiny.people(demo).join(manifest, on="patient_key").join(predicted, on="item_digest", how="left")
    found = found.join(refused, on="series_key", how="left")
    whole = found.filter(pl.col("has_phantom") & ~pl.col("is_phantom_cut") & (pl.col("implant") == "none"))
    off = whole["predicted_value"] - whole["vbmd_mg_cm3"] - np.mean(LEVEL_OFFSET_MG_CM3[:2])
    assert whole.height > 5
    assert off.null_count() == 0
    assert off.abs().max() < RODS_MG_CM3
    cut = found.filter(pl.col("is_phantom_cut"))
    assert cut.height
    assert set(cut["reason"]) == {"phantom_missing"}
    without = found.filter(~pl.col("has_phantom") & (pl.col("fault") == "none"))
    assert set(without["reason"]) <= {"phantom_missing", "phantom_unresolved"}
    assert without["predicted_value"].null_count() == without.height


def test_the_manifest_says_before_any_pixel_whose_description_names_a_phantom(demo: Generated) -> None:
    manifest = demo.run.read("manifest").filter(pl.col("recipe") == "qct_phantom")
    said = manifest.select("patient_key", "is_phantom_in_view", "phantom_source").unique()
    found = on_tiny.people(demo).join(said, on="patient_key")
    named, silent = found.filter("has_phantom"), found.filter(~pl.col("has_phantom"))
    assert set(named.select("is_phantom_in_view", "phantom_source").iter_rows()) == {(True, "description")}
    assert set(silent.select("is_phantom_in_view", "phantom_source").iter_rows()) == {(None, None)}


def answers(demo: Generated, *, unit: str) -> pl.DataFrame:
    """Predictions in HU are those of the rule, in mg/cm3 those by rods; an item of both has the same digest."""
    predicted = demo.run.read("prediction").filter(pl.col("predicted_value_unit") == unit)
    return predicted.select("item_digest", "predicted_value")


def measured(demo: Generated) -> pl.DataFrame:
    """The truth with what the chain measured; root_of_voxels times noise is the standard error of the mean over levels."""
    manifest = demo.run.read("manifest").filter(pl.col("recipe") == DXA)
    predicted = answers(demo, unit="HU")
    voxels = demo.run.read("vertebra").unique(["item_digest", "level"])
    error = voxels.group_by("item_digest").agg(root_of_voxels=(1 / pl.col("n_voxels")).sum().sqrt() / pl.len())
    found = on_tiny.people(demo).join(manifest, on="patient_key", suffix="_matched")
    return found.join(predicted, on="item_digest", how="left").join(error, on="item_digest", how="left")


def drawn() -> dict[tuple[str, str | None], Person]:
    size = PRESETS["demo"]
    night = Night(1, SEED, {center.name: (1, size.per_center) for center in CENTERS})
    return {(p.center, normal_patient_id(p.patient_id)): p for p in people_of([night], rates=size.rates)}


def declared_hu(person: Person) -> tuple[float, float]:
    """How far a trunk's hardening takes its CT numbers off the line, and the noise of one voxel in its middle."""
    body = fitted(person)
    noise = noise_hu(
        body, at_reference=PROTOCOLS["lumbar"].noise_hu, thickness_mm=habit_of(person).thickness_mm, kvp_kv=person.kvp_kv,
        kernel=KERNELS["standard"],
    )  # fmt: skip
    return HARDENING_A_CM * (diameter_mm(body) - REFERENCE_DIAMETER_MM) / 10, NOISE_MIDDLE * noise
