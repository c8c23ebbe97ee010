"""The recipes of vertebrae and muscle on a generated spine clinic: one study, closed ledgers, paired comparison, no NaN."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest
from matplotlib.image import imread

from benchmarks.ceilings import held, markdown
from ospor_batch.compute.executor import InLine
from ospor_batch.config import read_study
from ospor_batch.errors import StudyError
from ospor_batch.models.bundle import read_spec
from ospor_batch.plan import run_study
from ospor_batch.runs import Run
from ospor_batch.stages.montage import montage
from ospor_batch.stages.status import ledger
from ospor_batch.store import Store
from ospor_batch.synthetic import presets
from ospor_batch.synthetic.archive import write_study
from ospor_batch.synthetic.cohorts import PAPER_CT
from ospor_batch.synthetic.ct import Sampling

pytestmark = pytest.mark.slow
SMALL = "width = 4\nepochs = 2\nbatch_size = 8\nthreads = 1\nminimum_cases = 4\nminimum_events = 1\nimage_pixels = 32\n"
ALSO = 'also_learns = ["is_female", "bmi_kg_m2"]\n'
MUSCLE = 'levels = ["L3"]\nmuscle_from = "window"\n'
RECIPES = {
    "bmd": ("ct_bmd_tbs", 'network = "resnet18"\n' + ALSO + SMALL),
    "tbs": ("ct_bmd_tbs", 'network = "resnet18"\nreports = "tbs"\n' + ALSO + SMALL),
    "cnn": ("ct_cnn_smi", 'network = "densenet_small"\n' + SMALL + MUSCLE),
    "smi": ("smi_comparator", "minimum_cases = 4\nminimum_events = 1\n" + MUSCLE),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("spine_clinic") / "made"
    cohort = next(cohort for cohort in PAPER_CT if cohort.recipe == "ct_bmd_tbs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(presets, "PAPER", replace(presets.PAPER, sampling=Sampling(64)))
        patch.setattr(presets, "PAPER_CT", (cohort,))
        write_study(out, preset="paper-ct", factor=0.06)
    text = (out / "study.toml").read_text()
    head, tail = text[: text.index("[[recipes]]")], text[text.index("[tables]") : text.index("[compute.cpu]")]
    recipes = "".join(
        f'\n[[recipes]]\nname = "{name}"\nid = "{key}"\nreference = "dxa_any_site"\nthreshold = {{ rule = "youden" }}\n'
        f"[recipes.parameters]\n{parameters}"
        for key, (name, parameters) in RECIPES.items()
    )
    end = "[compute.cpu]\ncluster = 'in_line'\n[sweep]\nsettle_minutes = 0\n"
    (out / "mine.toml").write_text(head + recipes + tail + end)
    return run_study(read_study(out / "mine.toml"))


def test_every_series_is_predicted_or_refused_with_its_reason(run: Run) -> None:
    study = read_study(run.folder.parents[2] / "mine.toml")
    assert all(summary.closes for summary in ledger(study, Store(study.workspace)))
    predicted = run.read("prediction")
    assert set(predicted["predictor"]) == {name for name, _ in RECIPES.values()}
    assert set(predicted["predicted_value_unit"]) == {"g/cm2", "tbs", "probability"}
    assert predicted["score"].is_finite().all()
    assert predicted["predicted_value"].is_finite().all()


def test_bmd_and_tbs_come_from_one_model_and_name_their_vertebrae(run: Run) -> None:
    models = run.read("model").filter(pl.col("predictor") == "ct_bmd_tbs")
    assert models["training_digest"].n_unique() == 1
    predicted = run.read("prediction").filter(pl.col("predictor") == "ct_bmd_tbs")
    by_vertebra = run.read("vertebra").filter(pl.col("predicted_value").is_not_null())
    keys = ["item_digest", "model_digest", "parameter_digest"]
    means = by_vertebra.group_by(keys).agg(pl.col("predicted_value").mean().alias("mean"))
    joined = predicted.join(means, on=keys)
    assert joined.height == predicted.height > 0
    assert (joined["predicted_value"] - joined["mean"]).abs().max() == pytest.approx(0, abs=1e-6)


def test_what_is_learned_beside_stands_in_the_model_and_in_no_prediction(run: Run) -> None:
    (digest,) = set(run.read("model").filter(pl.col("predictor") == "ct_bmd_tbs")["training_digest"])
    folder = run.folder.parents[1] / "models" / digest
    targets = read_spec(folder)["targets"]
    assert [t["column"] for t in targets] == ["lumbar_spine_bmd_g_cm2", "tbs", "is_female", "bmi_kg_m2"]
    assert [t.get("is_auxiliary", False) for t in targets] == [False, False, True, True]
    card = (folder / "MODEL_CARD.md").read_text()
    assert "It predicts lumbar_spine_bmd_g_cm2 in g/cm2, tbs in tbs;" in card
    assert "Beside it the network learned is_female in probability, bmi_kg_m2 in kg/m2, which is never stated." in card
    known = {"train_loss", "tuning_loss", "tuning_auc_is_female", "tuning_pearson_r_bmi_kg_m2"}
    assert known <= set(read_spec(folder)["training"]["history"][0])
    units = run.read("prediction").filter(pl.col("predictor") == "ct_bmd_tbs")["predicted_value_unit"]
    assert set(units) == {"g/cm2", "tbs"}


def test_what_is_reached_stands_beside_the_ceiling_of_the_very_people(run: Run) -> None:
    rows = {(row.recipe, row.partition): row for row in held(run.folder.parents[2] / "mine.toml")}
    assert set(rows) == {("bmd", "internal_test"), ("tbs", "internal_test"), ("cnn", "internal_test")}
    of_run = run.read("agreement", under="tables").filter(
        recipe="bmd", partition="internal_test", metric="pearson_r", stratum="overall", unit="person", is_same_acquisition="all"
    )
    found = rows["bmd", "internal_test"]
    assert (found.reached, found.n_persons) == (of_run["estimate"].item(), of_run["n_persons"].item())
    assert found.published == "0.81"
    assert found.population == pytest.approx(0.848, abs=0.003)
    assert found.own_exact is not None
    assert -1 <= found.own_exact <= 1
    assert rows["tbs", "internal_test"].reached is None  # held against DXA here, which is another quantity
    assert "`bmd`, internal_test | pearson_r, lumbar_spine_t | 0.81 |" in markdown(list(rows.values()))


def test_cnn_and_muscle_index_are_compared_on_the_same_people(run: Run) -> None:
    rows = pl.read_parquet(run.folder / "tables" / "comparison.parquet")
    pair = rows.filter((pl.col("family") == "auc_by_recipe") & (pl.col("first") == "cnn") & (pl.col("second") == "smi"))
    assert pair.height >= 1
    predicted = run.read("prediction").filter(pl.col("predictor") == "smi_comparator")
    assert predicted["flags"].str.contains(r"smi_cm2_m2:\d+\.\d+").all()
    refused = run.read("reject").filter(pl.col("scope") == "smi")
    assert set(refused["reason"]) <= {"height_missing", "sex_missing", "levels_missing", "mask_missing"}


def test_no_table_holds_nan(run: Run) -> None:
    for table in sorted((run.folder / "tables").glob("*.parquet")):
        rows = pl.read_parquet(table)
        for name in rows.columns:
            if rows[name].dtype.is_float():
                assert not rows[name].is_nan().any(), (table.stem, name)


def test_sheets_of_masks_over_slices_lie_in_the_private_folder(run: Run) -> None:
    study = read_study(run.folder.parents[2] / "mine.toml")
    (found,) = montage(study, run, store=Store(study.workspace), executor=InLine(), recipe="cnn", most=3)
    (sheet,) = found.sheets
    assert (found.n_series, found.refused) == (3, {})
    assert sheet.is_relative_to(run.private.absolute())
    assert imread(sheet).shape[2] == 4
    again = sheet.read_bytes()
    montage(study, run, store=Store(study.workspace), executor=InLine(), recipe="cnn", most=3)
    assert sheet.read_bytes() == again
    with pytest.raises(StudyError, match="montage: no recipe none that reads masks; this study has bmd, tbs, cnn, smi"):
        montage(study, run, store=Store(study.workspace), executor=InLine(), recipe="none", most=3)
