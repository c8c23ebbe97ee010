"""The infer stage: every row of the manifest ends as a prediction or a reject, once, whatever happens to a worker."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cloudpickle
import polars as pl
import pytest
from distributed import WorkerPlugin

from ospor_batch.compute.cluster import open_executor
from ospor_batch.compute.executor import DaskExecutor, Executor, InLine, Outcome
from ospor_batch.config import Compute, Study
from ospor_batch.errors import LedgerError, OsporError
from ospor_batch.models.mean_hu import MeanHu
from ospor_batch.models.registry import predictor_here
from ospor_batch.models.spec import Prediction
from ospor_batch.runs import Run
from ospor_batch.stages.infer import infer, limits_of
from ospor_batch.stages.located import distinct_items, located
from ospor_batch.stages.shards import costs, cut_shards
from ospor_batch.stages.specs import digests
from ospor_batch.store import Change, Store, SweepCounts
from tests.cohort.rows import completed, hexed
from tests.inference.cases import expected_mean, locator, write_spine

cloudpickle.register_pickle_by_value(__import__(__name__, fromlist=["*"]))
NAMES = ["a", "b", "c", "d", "e", "f"]


class Poison(WorkerPlugin):  # type: ignore[misc]
    """Makes a worker die as it reads one series, as a crashing decoder does."""

    name = "poison"

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def setup(self, worker: Any) -> None:
        from ospor_batch.imaging import reader
        from ospor_batch.inference import items

        def deadly(paths: Sequence[Path], **how: Any) -> Any:
            if paths[0].parent.name == self.folder:
                os.kill(os.getpid(), signal.SIGKILL)
            return reader.read_volume(paths, **how)

        items.read_volume = deadly


class Watched(InLine):
    """In line, counting the shards, and ending like a killed run after so many."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.n_shards = 0
        self.stop_after = stop_after

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Outcome[Any, Any]]:
        for outcome in super().map(function, items):
            self.n_shards += 1
            yield outcome
            if self.n_shards == self.stop_after:
                raise KeyboardInterrupt


class Mortal(InLine):
    """In line, but the worker dies on any shard that holds an item of this name; the first so many times it dies at once."""

    def __init__(self, poisoned: str | None, *, deaths: int = 0) -> None:
        self.poisoned = hexed(poisoned)
        self.deaths = deaths
        self.sizes: list[int] = []

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Outcome[Any, Any]]:
        for item in items:
            held = set(pl.read_parquet(item.source)["item_digest"])
            self.sizes.append(len(held))
            self.deaths -= 1
            if self.poisoned in held or self.deaths >= 0:
                yield Outcome(item, None, "worker_died")
            else:
                yield Outcome(item, function(item), None)


def a_study(folder: Path, **changes: Any) -> Study:
    recipe = {"name": "mean_hu", "reference": "dxa", "threshold": {"fixed": 110.0}}
    raw = {
        "study": {"name": "s", "pseudonym_key": {"env": "KEY"}},
        "centers": [{"name": "north", "archives": ["archive"]}, {"name": "south", "archives": ["archive"]}],
        "references": [{"id": "dxa", "standard": "dxa_who"}],
        "recipes": [recipe],
        **changes,
    }
    return Study.model_validate(raw).model_copy(update={"folder": folder})


def manifest(names: Sequence[str], *, recipe: str = "mean_hu", center: str = "north") -> pl.DataFrame:
    rows = [
        {
            "recipe": recipe, "reference_id": "dxa", "center": center, "patient_key": f"{center} {name}", "series_key": name,
            "item_digest": name, "series_digest": name, "mask_kind": "nifti", "role": "image_only", "label_key": None,
            "is_prevalence_index": True, "partition": "internal_test", "sex": "female", "mask_digest": None,
        }
        for name in names
    ]  # fmt: skip
    return completed("manifest", rows, {})


@pytest.fixture
def study(tmp_path: Path) -> Study:
    for number, name in enumerate(NAMES):
        write_spine(tmp_path / "archive" / name, mean_hu=80 + 20 * number, mask="" if name == "f" else "mask.nii.gz")
    return a_study(tmp_path)


@pytest.fixture
def store(study: Study, tmp_path: Path) -> Store:
    made = Store(study.workspace)
    rows = locator(tmp_path / "archive", NAMES)
    made.commit({"locator": Change(rows)}, stage="catalog", center="north", counts=SweepCounts())
    return made


def a_run(store: Store, rows: pl.DataFrame, name: str = "one") -> Run:
    run = Run(
        run_id=name, folder=store.workspace / "runs" / name, private=store.private / "runs" / name,
        predictions=store.workspace / "predictions", snapshot=store.snapshot(), record={},
    )  # fmt: skip
    run.write("manifest", rows)
    return run


def outputs(run: Run) -> dict[str, bytes]:
    return {name: run.path(name).read_bytes() for name in ("prediction", "vertebra", "reject")}


def reasons(run: Run) -> dict[str, str]:
    return dict(run.read("reject").select("item_key", "reason").iter_rows())


def test_every_row_is_predicted_or_rejected(study: Study, store: Store, tmp_path: Path) -> None:
    run, told = a_run(store, manifest(NAMES)), []
    found = infer(study, run, store=store, executor=InLine(), progress=lambda done, total: told.append((done, total)))
    north, south = found
    assert (north.stage, north.center, north.level) == ("infer mean_hu", "north", "series")
    assert (north.requested, north.done, north.excluded, north.failed) == (6, 5, 1, 0)
    assert north.notes == (("mask_missing", 1),)
    assert (south.center, south.requested) == ("south", 0)
    predictions = run.read("prediction")
    for name in NAMES[:5]:
        row = predictions.row(by_predicate=pl.col("item_digest") == hexed(name), named=True)
        assert row["predicted_value"] == pytest.approx(expected_mean(tmp_path / "archive" / name), abs=1e-9)
    assert run.read("vertebra").height == 20
    reject = run.read("reject").row(0, named=True)
    assert (reject["item_key"], reject["scope"], reject["stage"]) == (hexed("f"), "mean_hu", "infer")
    assert (told[0], told[-1]) == ((0, 6), (6, 6))
    assert not (run.private / "shards").exists()
    _, model, parameters = digests(study)["mean_hu"]
    assert set(predictions["model_digest"]) == {model}
    assert set(predictions["parameter_digest"]) == {parameters}


def test_work_is_cut_in_the_order_in_which_the_disk_holds_it(study: Study, store: Store) -> None:
    files = located(distinct_items(manifest(NAMES)), study, store=store, run=a_run(store, manifest(NAMES)))
    assert sorted(NAMES, key=hexed) != NAMES  # which is how they come
    folders = files["path"].str.split("/").list.first()
    assert folders.rle().struct.field("value").to_list() == NAMES  # each folder once: its files are together
    for folder in files.filter(kind="image").partition_by("item_digest"):
        assert folder["slice_order"].is_sorted()
    cut = cut_shards(costs(files), megabytes=0.01)
    assert [item for shard in cut for item in shard] == [hexed(name) for name in NAMES]
    assert len(cut) > 1


def test_a_second_time_does_no_work_and_writes_the_same_bytes(study: Study, store: Store) -> None:
    run, first, second = a_run(store, manifest(NAMES)), Watched(), Watched()
    infer(study, run, store=store, executor=first)
    before, told = outputs(run), []
    infer(study, run, store=store, executor=second, progress=lambda done, total: told.append((done, total)))
    assert (first.n_shards > 0, second.n_shards) == (True, 0)
    assert outputs(run) == before
    assert told == [(6, 6)]


def test_a_stopped_run_goes_on_where_it_was(study: Study, store: Store) -> None:
    run, whole = a_run(store, manifest(NAMES)), a_run(store, manifest(NAMES), name="whole")
    with pytest.raises(KeyboardInterrupt):
        infer(study, run, store=store, executor=Watched(stop_after=2))
    assert not (run.private / "shards").exists()
    (run.predictions / next(iter(run.predictions.iterdir())).name / ".prediction-x.parquet.1.unfinished").touch()
    told: list[tuple[int, int]] = []
    infer(study, run, store=store, executor=InLine(), progress=lambda done, total: told.append((done, total)))
    assert 0 < told[0][0] < 6
    infer(study, whole, store=store, executor=InLine())
    assert {n: run.read(n).rows() for n in outputs(run)} == {n: whole.read(n).rows() for n in outputs(run)}
    assert not list(run.predictions.rglob(".*"))


def test_a_later_run_computes_only_what_is_new(study: Study, store: Store) -> None:
    infer(study, a_run(store, manifest(NAMES[:3])), store=store, executor=InLine())
    told: list[tuple[int, int]] = []
    later = a_run(store, manifest(NAMES), name="two")
    infer(study, later, store=store, executor=InLine(), progress=lambda done, total: told.append((done, total)))
    assert told[0] == (3, 6)
    assert later.read("prediction").height == 5


def test_a_transient_reject_is_tried_again(study: Study, store: Store, tmp_path: Path) -> None:
    lost = tmp_path / "archive" / "a" / "0003.dcm"
    away = lost.rename(tmp_path / "away.dcm")
    run = a_run(store, manifest(NAMES))
    north, _ = infer(study, run, store=store, executor=InLine())
    assert (north.done, north.excluded, north.failed) == (4, 1, 1)
    assert reasons(run) == {hexed("a"): "file_missing", hexed("f"): "mask_missing"}
    away.rename(lost)
    north, _ = infer(study, run, store=store, executor=InLine())
    assert (north.done, north.excluded, north.failed) == (5, 1, 0)


def test_recipes_share_predictions_and_keep_their_own_rejects(study: Study, store: Store, tmp_path: Path) -> None:
    base = {"name": "mean_hu", "reference": "dxa"}
    both = a_study(
        tmp_path,
        recipes=[
            {**base, "id": "one", "threshold": {"fixed": 110.0}},
            {**base, "id": "two", "threshold": {"fixed": 90.0}},
            {**base, "id": "l1", "threshold": {"fixed": 90.0}, "parameters": {"levels": ["L1"]}},
        ],
    )
    keys = digests(both)
    assert keys["one"] == keys["two"] != keys["l1"]
    rows = pl.concat([manifest(NAMES, recipe=key) for key in ("one", "two")] + [manifest(["a", "f"], recipe="l1")])
    run, watched = a_run(store, rows), Watched()
    found = infer(both, run, store=store, executor=watched)
    assert [(s.stage, s.done, s.excluded) for s in found if s.center == "north"] == [
        ("infer one", 5, 1), ("infer two", 5, 1), ("infer l1", 1, 1),
    ]  # fmt: skip
    assert run.read("prediction").height == 6
    assert sorted(run.read("reject")["scope"]) == ["l1", "one", "two"]


def test_one_series_in_two_archives_is_read_once(study: Study, store: Store, tmp_path: Path) -> None:
    copies = locator(tmp_path / "archive", ["a", "f"], center="south")
    store.commit({"locator": Change(copies)}, stage="catalog", center="south", counts=SweepCounts())
    run = a_run(store, pl.concat([manifest(NAMES), manifest(["a", "f"], center="south")]))
    north, south = infer(study, run, store=store, executor=InLine())
    assert (north.done, north.excluded, south.done, south.excluded) == (5, 1, 1, 1)
    assert run.read("prediction").height == 5
    assert run.read("reject").select("center", "item_key").rows() == [("north", hexed("f")), ("south", hexed("f"))]


def test_the_poisoned_item_is_found_by_halves(study: Study, store: Store) -> None:
    run, mortal = a_run(store, manifest(NAMES)), Mortal("c")
    north, _ = infer(study, run, store=store, executor=mortal)
    assert (north.done, north.excluded) == (4, 2)
    assert reasons(run) == {hexed("c"): "worker_died", hexed("f"): "mask_missing"}
    again = Mortal("c")
    infer(study, run, store=store, executor=again)
    assert again.sizes == []  # a dead item is finished


def test_an_item_whose_machine_died_once_is_not_rejected(study: Study, store: Store) -> None:
    run = a_run(store, manifest(NAMES))
    infer(study, run, store=store, executor=Mortal(None, deaths=6))
    assert reasons(run) == {hexed("f"): "mask_missing"}


def test_a_bug_in_a_worker_ends_the_stage_by_name(study: Study, store: Store) -> None:
    class Buggy(InLine):
        def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Outcome[Any, Any]]:
            yield Outcome(items[0], None, "IndexError")

    with pytest.raises(OsporError, match="IndexError on its worker"):
        infer(study, a_run(store, manifest(NAMES)), store=store, executor=Buggy())


def test_series_that_a_predictor_cannot_take_are_rejects_and_one_that_never_answers_ends_the_stage(
    study: Study, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Series that fail lie together and may fill a shard; that one, or a small study, says nothing of the predictor."""

    def odd(_: object, batch: Sequence[Prediction]) -> Sequence[Prediction]:
        if batch[0].value < most:
            raise IndexError("Kim^Minji")
        return batch

    monkeypatch.setattr(MeanHu, "predict", odd)
    monkeypatch.setattr("ospor_batch.stages.infer.SHARDS_PER_WORKER", 2)
    run, most = a_run(store, manifest(NAMES)), 125  # a, b and c: a shard of them has no prediction
    north, _ = infer(study, run, store=store, executor=InLine())
    assert (north.done, north.excluded, north.failed) == (2, 1, 3)
    rejects = run.read("reject").filter(pl.col("reason") == "predictor_failed")
    assert rejects["is_transient"].all()
    assert rejects["detail"].str.contains("IndexError").all()
    monkeypatch.setattr("ospor_batch.stages.rounds.MOST_FAILURES", 2)
    most = 1000
    assert infer(study, run, store=store, executor=InLine())[0].done == 2  # it once answered
    shutil.rmtree(run.predictions)
    with pytest.raises(OsporError, match="mean_hu fails on every series: unexpected IndexError at ospor_batch"):
        infer(study, run, store=store, executor=InLine())


def test_a_series_that_the_catalog_cannot_place_breaks_the_ledger(study: Study, store: Store) -> None:
    with pytest.raises(LedgerError, match="1 series of the manifest have no image"):
        infer(study, a_run(store, manifest([*NAMES, "nowhere"])), store=store, executor=InLine())


def test_an_empty_manifest_gives_empty_tables(study: Study, store: Store) -> None:
    run = a_run(store, manifest(NAMES).clear())
    infer(study, run, store=store, executor=InLine())
    assert {run.read(name).height for name in outputs(run)} == {0}


@pytest.fixture(scope="module")
def processes() -> Iterator[Executor]:
    with open_executor(Compute(cluster="local", workers=2)) as opened:
        yield opened


def test_tables_equal_those_of_a_run_in_line_and_a_worker_loads_once(study: Study, store: Store, processes: Executor) -> None:
    run = a_run(store, manifest(NAMES))
    infer(study, run, store=store, executor=processes)
    assert isinstance(processes, DaskExecutor)
    loads = processes.client.run(predictor_here.cache_info)
    assert all(info.misses <= 1 for info in loads.values())
    assert sum(info.misses for info in loads.values()) >= 1
    before = {name: run.read(name).rows() for name in outputs(run)}
    for part in run.predictions.rglob("*.parquet"):
        part.unlink()
    infer(study, run, store=store, executor=InLine())
    assert {name: run.read(name).rows() for name in outputs(run)} == before


def test_a_series_that_kills_its_worker_alone_is_rejected(study: Study, store: Store, processes: Executor) -> None:
    assert isinstance(processes, DaskExecutor)
    processes.client.register_plugin(Poison("d"))
    run = a_run(store, manifest(NAMES))
    north, _ = infer(study, run, store=store, executor=processes)
    assert (north.requested, north.done, north.excluded, north.failed) == (6, 4, 2, 0)
    assert reasons(run) == {hexed("d"): "worker_died", hexed("f"): "mask_missing"}
    assert run.read("vertebra").height == 16


@pytest.mark.parametrize(
    ("settings", "n_workers", "is_gpu", "expected"),
    [
        ({}, 1, False, (16, 4, 12)),
        ({"cluster": "local"}, 16, False, (2, 1, 1)),
        ({"cluster": "local"}, 8, False, (2, 1, 1)),
        ({"cluster": "local", "decode_threads": 3}, 2, False, (0, 3, 5)),
        ({"cluster": "local", "decode_processes": 6}, 2, False, (0, 2, 2)),
        ({"cluster": "tcp://10.0.0.1:8786"}, 40, False, (2, 1, 1)),
        ({"cluster": "slurm", "slurm": {"cores": 8}}, 40, False, (8, 2, 6)),
        ({"cluster": "slurm", "slurm": {"cores": 8}}, 40, True, (0, 8, None)),
        ({"cluster": "cuda"}, 4, True, (0, 4, None)),
    ],
)
def test_cores_of_a_worker_take_whole_series_or_are_shared_by_those_that_decode_and_compute(
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    n_workers: int,
    is_gpu: bool,
    expected: tuple[int, int, int | None],
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    limits = limits_of(Compute(**settings), n_workers=n_workers, is_gpu=is_gpu, is_expendable=True)
    assert (limits.n_lanes, limits.n_threads, limits.n_computing) == expected
