"""The whole chain on the preset `demo`, whose people have every declared rate of bad tags, tilt, motion, metal and company."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ospor_batch.config import read_study
from ospor_batch.plan import run_study
from ospor_batch.store import Store
from ospor_batch.synthetic.archive import SEED, write_study
from ospor_batch.synthetic.study_file import four_center_study
from tests.end_to_end import test_generated_study as on_tiny
from tests.end_to_end.expected_flow import read_archives
from tests.end_to_end.test_generated_study import DXA, Generated

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("generated_demo")]
ERROR_HU = 6.0  # of one person: hardening of the largest trunks, the rim of the bodies, and noise


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Generated:
    study_file = write_study(tmp_path_factory.mktemp("demo"), preset="demo")
    # the rule alone: networks are trained elsewhere, and what is true of the images does not depend on them
    study_file.write_text(four_center_study(name="generated-demo", seed=SEED, train=0.0, tuning=0.3, cluster="in_line"))
    study = read_study(study_file)
    truth = pl.read_parquet(study.folder / "truth.parquet")
    run = run_study(study)
    return Generated(study, Store(study.workspace), run, truth, read_archives(Path("/nowhere"), truth.clear()))


def test_roles_matches_and_labels_are_those_of_the_truth(demo: Generated) -> None:
    on_tiny.test_every_person_has_the_role_the_truth_says(demo)
    on_tiny.test_the_match_and_its_label_are_the_ones_that_were_planted(demo)
    on_tiny.test_qct_labels_are_their_own_reference(demo)


def test_every_file_has_its_fate_and_the_ledger_closes(demo: Generated) -> None:
    on_tiny.test_every_file_has_the_fate_the_truth_says(demo)
    on_tiny.test_the_ledger_closes(demo)


def test_the_chain_returns_true_density_with_the_declared_error(demo: Generated) -> None:
    """CT numbers of L1-L4 stand on the declared line; without metal and motion nobody is further off than declared."""
    manifest = demo.run.read("manifest").filter(pl.col("recipe") == DXA)
    predicted = demo.run.read("prediction").select("item_digest", "predicted_value")
    found = on_tiny.people(demo).join(manifest, on="patient_key").join(predicted, on="item_digest", how="left")
    assert (found["predicted_value"].is_not_null() == found["expected_prediction"]).all()
    off = found.filter(pl.col("predicted_value").is_not_null()).with_columns(
        off=pl.col("predicted_value") - pl.col("expected_mean_hu")
    )
    still = off.filter((pl.col("implant") != "pedicle_screws") & (pl.col("motion_mm") == 0))
    assert still["off"].abs().max() < ERROR_HU
    assert abs(still.select(pl.col("off").mean()).item()) < 1.5
    for name in ("tilt_deg", "motion_mm"):
        assert off.filter(pl.col(name) != 0).height > 1, f"nobody of the demo has {name}"
    assert still.filter(pl.col("tilt_deg") != 0)["off"].abs().max() < ERROR_HU
    assert off.filter(pl.col("motion_mm") != 0)["off"].abs().max() < 4 * ERROR_HU
    assert np.corrcoef(still["predicted_value"], still["vbmd_mg_cm3"])[0, 1] > 0.99
