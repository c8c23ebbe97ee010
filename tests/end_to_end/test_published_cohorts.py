"""The presets of the published cohorts, reduced, from the command that writes them to the manifest of their recipe."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ospor_batch.config import Study, read_study
from ospor_batch.stages.synth import synth
from ospor_batch.store import Store
from ospor_batch.synthetic.cohorts import PAPER_CT, PAPER_CXR, Cohort
from tests.end_to_end.partly import run_to

pytestmark = pytest.mark.slow
FACTORS = {"paper-cxr": 0.004, "paper-ct": 0.01}
COHORTS = {
    cohort.recipe: (preset, cohort) for preset, found in (("paper-cxr", PAPER_CXR), ("paper-ct", PAPER_CT)) for cohort in found
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {preset: tmp_path_factory.mktemp(preset) for preset in FACTORS}
    for preset, folder in made.items():
        synth(folder, preset=preset, factor=FACTORS[preset], workers=1)
    return made


def matched(study: Study) -> pl.DataFrame:
    """The manifest, with the date of each image."""
    manifest = run_to(study, "match").read("manifest")
    days = Store(study.workspace).current("series").select("series_key", "image_date")
    return manifest.join(days, on="series_key", how="left")


@pytest.mark.parametrize("recipe", COHORTS)
def test_a_cohort_comes_through_the_stages_as_it_was_declared(recipe: str, folders: dict[str, Path]) -> None:
    preset, cohort = COHORTS[recipe]
    folder = folders[preset] if preset == "paper-cxr" else folders[preset] / recipe
    text = (folder / "study.toml").read_text()
    (folder / "study.toml").write_text(text.replace('cluster = "local"\nworkers = 2', 'cluster = "in_line"'))
    manifest = matched(read_study(folder / "study.toml")).filter(pl.col("is_performance_index"))
    check(manifest, cohort, factor=FACTORS[preset])
    truth = pl.read_parquet(folder / "truth.parquet")
    assert (truth["expected_role"] == "paired").all()
    persons = manifest.unique("patient_key")  # a recipe and the ones it is held against list the same people
    assert truth["is_osteoporosis"].sum() == persons["is_osteoporosis"].sum()


def check(manifest: pl.DataFrame, cohort: Cohort, *, factor: float) -> None:
    first, last = cohort.image_dates
    assert manifest["image_date"].is_between(first, last).all()
    for member in cohort.members:
        here = manifest.filter(pl.col("center") == member.plan.name)
        n = max(2, round(member.n_people * factor))
        assert here["patient_key"].n_unique() == n, member.plan.name
        assert (here["role"] == "paired").all()
        assert here["image_date"].is_between(*member.plan.image_dates).all()
        assert ("external" in set(here["partition"])) is member.is_external
        if cohort.image == "ct":
            assert set(here["scanner_vendor"]) <= {vendor for vendor, _ in member.plan.vendors}
        prevalence = member.plan.prevalence
        assert prevalence is not None
        error = np.sqrt(prevalence * (1 - prevalence) / n)
        assert abs(here.select(pl.col("is_osteoporosis").mean()).item() - prevalence) < 4 * error + 0.02, member.plan.name
