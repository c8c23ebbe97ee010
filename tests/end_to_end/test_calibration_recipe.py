"""The internal calibration on a generated check-up: fitted on train, reported calibrated and recalibrated side by side."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from ospor_batch.config import read_study
from ospor_batch.models.bundle import read_spec
from ospor_batch.plan import run_study
from ospor_batch.runs import Run
from ospor_batch.stages.specs import models_folder
from ospor_batch.stages.status import ledger
from ospor_batch.store import Store
from ospor_batch.synthetic import presets
from ospor_batch.synthetic.archive import write_study
from ospor_batch.synthetic.cohorts import PAPER_CT
from ospor_batch.synthetic.ct import Sampling

RECIPES = "".join(
    f"""
[[recipes]]
name = "ldct_internal_calibration"
id = "{report}"
reference = "qct_spine"
threshold = {{ fixed = 80 }}               # mg/cm3, methods L7
[recipes.parameters]
report = "{report}"
implausible = "flag"                       # pixels of 6 mm mix muscle with fat
takes_cut_levels = true
minimum_levels = 1
"""
    for report in ("calibrated", "recalibrated")
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("check_up") / "made"
    cohort = next(cohort for cohort in PAPER_CT if cohort.recipe == "ldct_internal_calibration")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(presets, "PAPER", replace(presets.PAPER, sampling=Sampling(64)))
        patch.setattr(presets, "PAPER_CT", (cohort,))
        write_study(out, preset="paper-ct", factor=0.02)
    text = (out / "study.toml").read_text()
    head, tail = text[: text.index("[[recipes]]")], text[text.index("[tables]") :]
    (out / "mine.toml").write_text(
        head
        + RECIPES
        + tail[: tail.index("[compute.cpu]")]
        + "[compute.cpu]\ncluster = 'in_line'\n[sweep]\nsettle_minutes = 0\n"
    )
    return run_study(read_study(out / "mine.toml"))


def test_one_fit_two_reports_and_a_closed_ledger(run: Run) -> None:
    study = read_study(run.folder.parents[2] / "mine.toml")
    assert all(summary.closes for summary in ledger(study, Store(study.workspace)))
    models = run.read("model")
    assert set(models["recipe"]) == {"calibrated", "recalibrated"}
    assert models["training_digest"].n_unique() == 1
    said = read_spec(models_folder(run) / models["training_digest"][0])
    (told,) = said["training"]["calibrations"].values()
    assert set(told["coefficients"]) == {"muscle", "fat"}
    assert said["reference"]["standard"] == "qct"


def test_densities_are_near_the_qct_of_people_not_learned_from(run: Run) -> None:
    manifest = run.read("manifest").filter(pl.col("is_performance_index") & (pl.col("partition") == "internal_test"))
    manifest = manifest.filter(pl.col("recipe") == "calibrated").select("item_digest", "label_value")
    found = run.read("prediction").join(manifest, on="item_digest")
    assert found.height >= 4
    assert set(found["predicted_value_unit"]) == {"mg/cm3"}
    assert found["predicted_value"].is_finite().all()
    assert (found["score"] == -found["predicted_value"]).all()
    assert float(np.sqrt(((found["predicted_value"] - found["label_value"]) ** 2).mean())) < 25
    vertebrae = run.read("vertebra")
    assert vertebrae["predicted_value"].is_finite().all()
    assert set(vertebrae["level"]) <= {"L1", "L2"}


def test_both_reports_stand_side_by_side_in_the_tables(run: Run) -> None:
    threshold = run.read("threshold", under="tables")
    assert set(threshold["recipe"]) == {"calibrated", "recalibrated"}
    performance = run.read("performance", under="tables").filter(pl.col("partition") == "internal_test")
    assert set(performance["recipe"]) == {"calibrated", "recalibrated"}
    page = (run.folder / "report.html").read_text()
    assert "recalibrated" in page
