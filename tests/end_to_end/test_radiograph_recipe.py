"""The radiograph recipe on generated archives: trained, tuned, tested, explained, used elsewhere; all of it twice the same."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pydicom
import pytest

from ospor_batch.config import Study, read_study
from ospor_batch.contracts import contract
from ospor_batch.errors import NothingToDoError, StudyError
from ospor_batch.models.bundle import open_bundle, read_spec
from ospor_batch.plan import Step, agenda, run_step, training_agenda
from ospor_batch.runs import Run, all_runs
from ospor_batch.stages.rejects import list_rejects
from ospor_batch.stages.retry import failed, reopen
from ospor_batch.stages.specs import models_folder
from ospor_batch.stages.status import ledger
from ospor_batch.stages.trace import trace
from ospor_batch.store import Store
from ospor_batch.synthetic import presets
from ospor_batch.synthetic.archive import write_study
from ospor_batch.synthetic.ct import Sampling
from ospor_batch.synthetic.patient_files import Detail
from tests.models.test_other_packages import example, exported, offering  # noqa: F401 -- a fixture

RECIPE = """
[split]
train = 0.5
tuning = 0.25
internal_test = 0.25
external = { center = ["referral"] }

[[recipes]]
name = "cxr_osteoporosis"
reference = "dxa_any_site"
threshold = { rule = "youden" }
[recipes.parameters]
network = "densenet_small"
width = 4
image_pixels = 32
epochs = 2
batch_size = 8
threads = 1
explain_images = 4
explain_pictures = 1
[[recipes.criteria]]
name = "age 50 or older"
keep = "age_at_image >= 50"
[[recipes.substudies]]
id = "spine"
parameters = { region = "spine", epochs = 1 }
"""
BLANK = 2  # radiographs whose pixels are all the same


@dataclass(frozen=True)
class Trained:
    """A generated study that ran, and its steps."""

    study: Study
    run: Run
    stages: tuple[str, ...]

    @property
    def model(self) -> Path:
        (digest,) = self.run.read("model").filter(pl.col("recipe") == "cxr_osteoporosis")["training_digest"]
        return models_folder(self.run) / digest


def study_text(text: str, recipe: str, *, workspace: str = "workspace") -> str:
    """The generated study file with another recipe, in line."""
    begin, end = text.index("[split]"), text.index("[tables]")
    changed = text[:begin] + recipe + text[end : text.index("[compute.cpu]")] + "[compute.cpu]\ncluster = 'in_line'\n"
    return changed.replace('workspace = "workspace"', f'workspace = "{workspace}"')


def ran(folder: Path, recipe: str, *, workspace: str, until: str = "report") -> Trained:
    """Run the plan up to a stage; a report takes as long as all before it."""
    path = folder / f"{workspace}.toml"
    path.write_text(study_text((folder / "study.toml").read_text(), recipe, workspace=workspace))
    study, stages = read_study(path), list[str]()
    for step in agenda(study):
        run_step(study, step)
        stages.append(step.stage)
        if step.stage == until:
            break
    (run,) = all_runs(Store(study.workspace))
    return Trained(study, run, tuple(stages))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("radiographs") / "made"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(presets, "PAPER", Detail(Sampling(32), 64))
        write_study(out, preset="paper-cxr", factor=0.0045)
    for path in sorted((out / "archives" / "screening").rglob("*.dcm"))[:BLANK]:
        dataset = pydicom.dcmread(path)
        if dataset.file_meta.TransferSyntaxUID.is_compressed:
            dataset.decompress()
        dataset.PixelData = bytes(len(dataset.PixelData))
        dataset.save_as(path)
    return out


@pytest.fixture(scope="module")
def trained(folder: Path) -> Trained:
    return ran(folder, RECIPE, workspace="first")


def test_it_trains_predicts_and_closes_its_ledger(trained: Trained) -> None:
    assert trained.stages[-6:] == ("match", "train", "infer", "evaluate", "explain", "report")
    found = ledger(trained.study, Store(trained.study.workspace))
    assert all(summary.closes for summary in found)
    assert {s.stage for s in found} >= {"train cxr_osteoporosis", "train cxr_osteoporosis-spine", "infer cxr_osteoporosis"}
    model = trained.run.read("model").row(0, named=True)
    manifest = trained.run.read("manifest").filter(pl.col("recipe") == "cxr_osteoporosis")
    labelled = manifest.filter("is_performance_index")
    n_learned = labelled.filter(pl.col("partition").is_in(["train", "tuning"])).height
    assert model["n_train"] + model["n_tuning"] + model["n_refused"] == n_learned
    assert 1 <= model["best_epoch"] <= model["epochs"] <= 2
    predictions = trained.run.read("prediction")
    assert set(predictions["predicted_value_unit"]) == {"probability"}
    assert predictions["score"].is_between(0, 1).all()


def test_a_blank_image_is_a_typed_reject(trained: Trained) -> None:
    rejects = list_rejects(trained.study, reason="image_blank", stage=None, locate=False)
    at_inference = [row for row in rejects if row["stage"] == "infer" and row["scope"] == "cxr_osteoporosis"]
    assert 0 < len(at_inference) <= BLANK
    assert {row["stage"] for row in rejects} <= {"train", "infer"}


def test_the_threshold_of_the_tables_is_the_one_in_the_model(trained: Trained) -> None:
    said = read_spec(trained.model)
    (row,) = trained.run.read("threshold", under="tables").filter(pl.col("recipe") == "cxr_osteoporosis").to_dicts()
    assert said["threshold"]["score_cut"] == row["score_cut"]
    assert said["threshold"]["data_digest"] == (row["data_digest"] or "")
    assert said["is_generated"]
    card = (trained.model / "MODEL_CARD.md").read_text()
    assert "no figure below says anything about patients" in card
    assert said["training_data"]["manifest_digest"] in card


def test_explanations_and_substudies_stand_in_the_report(trained: Trained) -> None:
    regions = trained.run.read("grad_cam_region", under="tables")
    halves = (
        regions.filter(pl.col("region").is_in(["upper", "lower"]))
        .group_by("partition", "class")
        .agg(pl.col("heat_share").sum())
    )
    assert set(regions["recipe"]) == {"cxr_osteoporosis"}
    assert halves["heat_share"].is_between(-1e-9, 1 + 1e-6).all()
    assert regions["n_images"].max() <= 4  # type: ignore[operator]
    variants = trained.run.read("substudy", under="tables")
    assert set(variants["variant"]) == {"cxr_osteoporosis", "cxr_osteoporosis-spine"}
    assert set(variants["changed"]) == {"", "epochs = 1; region = spine"}
    page = (trained.run.folder / "report.html").read_text()
    assert "Where the network looked" in page
    assert "Sub-regions, image sizes, networks" in page
    pictures = list((trained.run.private / "grad_cam").rglob("*.png"))
    assert pictures
    assert not list(trained.run.folder.rglob("grad_cam/*.png"))  # of single patients: private


@pytest.mark.parametrize("table", ["performance", "published", "substudy", "grad_cam_region", "linkage", "window"])
def test_counts_of_a_trained_recipe_lead_to_their_keys(trained: Trained, table: str) -> None:
    run = trained.run
    rows = run.read(table, under="tables" if run.has(table, under="tables") else "")
    key = [c for c in contract(table).primary_key if rows[c].null_count() == 0]
    column = "n_images" if table == "grad_cam_region" else "n_labelled" if table == "linkage" else "n_persons"
    for row in rows.gather_every(max(rows.height // 3, 1)).iter_rows(named=True):
        if row[column] is not None:
            cell = ",".join([column, *(f"{name}={row[name]}" for name in key)])
            assert trace(run.folder, table, cell=cell).keys.height == row[column]


def test_the_same_study_gives_the_same_bytes(trained: Trained, folder: Path) -> None:
    again = ran(folder, RECIPE, workspace="again", until="explain")
    assert again.run.read("model").equals(trained.run.read("model"))
    for one in sorted((trained.run.folder / "tables").glob("*.csv")):
        assert one.read_bytes() == (again.run.folder / "tables" / one.name).read_bytes(), one.name
    assert open_bundle(trained.model).digest == open_bundle(again.model).digest
    name = "cxr_osteoporosis-grad-cam.png"
    assert (trained.run.folder / "figures" / name).read_bytes() == (again.run.folder / "figures" / name).read_bytes()


def test_a_model_is_used_elsewhere_with_its_own_threshold(trained: Trained, folder: Path) -> None:
    shutil.copytree(trained.model, folder / "mine")
    recipe = (
        RECIPE[RECIPE.index("[[recipes]]") : RECIPE.index("[recipes.parameters]")]
        + RECIPE[RECIPE.index("[[recipes.criteria]]") :]
    )
    recipe = recipe[: recipe.index("[[recipes.substudies]]")].replace('rule = "youden"', 'rule = "as_trained"')
    recipe = recipe.replace("reference =", 'model = "mine"\nreference =')
    loaded = ran(folder, recipe, workspace="elsewhere", until="evaluate")
    assert "train" not in loaded.stages
    with pytest.raises(StudyError, match="no recipe of this study is trained"):
        next(training_agenda(loaded.study))
    key = ["item_digest", "score"]
    mine = trained.run.read("prediction").filter(pl.col("model_digest") == loaded.run.read("prediction")["model_digest"][0])
    assert loaded.run.read("prediction").select(key).sort(key).equals(mine.select(key).sort(key))
    cut = loaded.run.read("threshold", under="tables")["score_cut"][0]
    assert cut == read_spec(trained.model)["threshold"]["score_cut"]

    other = recipe.replace("[[recipes.criteria]]", "[recipes.parameters]\nimage_pixels = 64\n[[recipes.criteria]]")
    with pytest.raises(StudyError, match="image_pixels of cxr_osteoporosis is 64, but the model mine was trained with 32"):
        ran(folder, other, workspace="elsewhere")
    weights = bytearray((folder / "mine" / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "mine" / "model.safetensors").write_bytes(weights)
    with pytest.raises(StudyError, match=r"model folder mine: model.safetensors is not what SHA256SUMS says"):
        ran(folder, recipe, workspace="damaged")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("minimum_cases = 1000", r"train cxr_osteoporosis: \d+ labelled series of the train partition can be learned from"),
        ("minimum_events = 500", r"train series have is_osteoporosis.*; a classifier needs at least"),
    ],
)
def test_too_few_to_learn_from_is_said_before_any_epoch(folder: Path, change: str, said: str) -> None:
    recipe = RECIPE.replace("epochs = 2", f"epochs = 2\n{change}")
    with pytest.raises(NothingToDoError, match=said):
        ran(folder, recipe[: recipe.index("[[recipes.substudies]]")], workspace="few", until="train")


def test_a_training_series_that_failed_for_a_while_is_asked_again(folder: Path) -> None:
    recipe = RECIPE[: RECIPE.index("[[recipes.substudies]]")].replace("epochs = 2", "epochs = 1\nminimum_cases = 2")
    before = ran(folder, recipe, workspace="asked", until="match")
    manifest, store = before.run.read("manifest"), Store(before.study.workspace)
    learned = manifest.filter(pl.col("is_performance_index") & (pl.col("partition") == "train")).sort("item_digest")
    place = store.current("locator").filter(pl.col("series_key") == learned["series_key"][0]).row(0, named=True)
    file = Path(before.study.archive_root(place["archive"])) / place["path"]
    file.rename(folder / "away.dcm")
    run_step(before.study, Step("train", run_id=before.run.run_id))
    fewer = before.run.read("model")["n_train"][0]
    assert failed(before.study, store).n_training == 1
    (folder / "away.dcm").rename(file)
    assert reopen(before.study, store).n_training == 1
    assert "train" not in all_runs(store)[0].stages_done
    run_step(before.study, Step("train", run_id=before.run.run_id))
    assert before.run.read("model")["n_train"][0] == fewer + 1
    assert failed(before.study, store).n_training == 0


ONNX = """
[split]
tuning = 0.5
internal_test = 0.5

[[recipes]]
name = "my_cxr"
model = "m.onnx"
reference = "dxa_any_site"
threshold = { rule = "youden" }
[recipes.parameters]
pixels = 32
[[recipes.criteria]]
name = "age 50 or older"
keep = "age_at_image >= 50"
"""


def test_an_onnx_model_of_another_package_runs_in_a_study(folder: Path, offered: Callable[[str, object], None]) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is optional")
    exported(folder / "m.onnx", pixels=32)
    offered("my_cxr", example("onnx")["KIND"])
    found = ran(folder, ONNX, workspace="theirs", until="evaluate")
    predicted = found.run.read("prediction")
    assert set(predicted["predictor"]) == {"my_cxr"}
    assert predicted["score"].is_between(0, 1).all()
    assert predicted["score"].n_unique() > 10
    assert set(found.run.read("reject")["reason"]) == {"image_blank"}
    assert set(found.run.read("performance", under="tables")["recipe"]) == {"my_cxr"}


def test_a_sweep_never_trains(trained: Trained, folder: Path) -> None:
    before = trained.run.read("model")
    run_step(trained.study, Step("train", run_id=trained.run.run_id), is_sweep=True)
    assert trained.run.read("model").equals(before)
    path = folder / "wider.toml"
    text = study_text((folder / "study.toml").read_text(), RECIPE.replace("width = 4", "width = 6"), workspace="first")
    path.write_text(text)
    with pytest.raises(NothingToDoError, match=r"trained with width = 4, the study file says 6 now, and a sweep never trains"):
        run_step(read_study(path), Step("train"), is_sweep=True)
    path.write_text(text.replace('workspace = "first"', 'workspace = "again"'))
    with pytest.raises(NothingToDoError, match="has no model yet, and a sweep never trains"):
        run_step(read_study(path), Step("train"), is_sweep=True)


def test_a_trained_recipe_needs_a_split(folder: Path) -> None:
    path = folder / "unsplit.toml"
    path.write_text(study_text((folder / "study.toml").read_text(), RECIPE[RECIPE.index("[[recipes]]") :]))
    with pytest.raises(StudyError, match=r"recipe cxr_osteoporosis is trained, but split.train is 0: give \[split\]"):
        read_study(path)
