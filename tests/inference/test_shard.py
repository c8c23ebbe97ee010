"""A shard becomes whole parts: every item a prediction or a reject, and no name leaves the worker."""

from __future__ import annotations

import os
import pickle
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from ospor_batch.contracts import contract
from ospor_batch.errors import ItemRefused, StorageError
from ospor_batch.inference import decoders
from ospor_batch.inference.items import Item
from ospor_batch.inference.journal import Journal
from ospor_batch.inference.parts import PARTS
from ospor_batch.inference.shard import Limits, ShardReceipt, ShardTask, predict_shard
from ospor_batch.models.registry import predictor_here
from ospor_batch.store import read_part
from tests.cohort.rows import hexed
from tests.inference.cases import SPEC, expected_mean, write_shard, write_spine

BLOCKED = """
import sys
for name in ("polars", "deltalake", "prefect", "distributed", "torch", "pydantic"):
    sys.modules[name] = None
from pathlib import Path
from ospor_batch.inference.shard import ShardTask, predict_shard
from ospor_batch.models.registry import spec_of
spec = spec_of("mean_hu", parameters={}, pattern="*.nii*", labels={"L1": 20, "L2": 21, "L3": 22, "L4": 23})
print(predict_shard(ShardTask("one", Path(sys.argv[1]), Path(sys.argv[2]), spec)))
"""


@pytest.fixture
def task(tmp_path: Path) -> ShardTask:
    return ShardTask("one", tmp_path / "private" / "shards", tmp_path / "predictions", SPEC)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    root = tmp_path / "Kim^Minji"  # folder names may hold names of patients
    write_spine(root / "a", mean_hu=150)
    write_spine(root / "b", mean_hu=90, levels=("L1", "L2", "L3"))
    write_spine(root / "no mask", mean_hu=90, mask="")
    write_spine(root / "cut", mean_hu=120)
    broken = root / "cut" / "0004.dcm"
    broken.write_bytes(broken.read_bytes()[:-20])
    write_spine(root / "gone", mean_hu=120)
    return root


def stored(part: str, task: ShardTask) -> pl.DataFrame:
    """The one part of a kind that a shard left; it is named after the items that it holds."""
    (found,) = task.store.glob(f"{part}-*.parquet")
    return read_part(PARTS[part], source=found)


def run_shard(task: ShardTask, archive: Path) -> ShardReceipt:
    write_shard(task.source, archive, ["a", "b", "no mask", "cut", "gone"])
    (archive / "gone" / "0003.dcm").unlink()
    return predict_shard(task)


def test_every_item_ends_in_a_part(task: ShardTask, archive: Path) -> None:
    receipt = run_shard(task, archive)
    assert (receipt.shard, receipt.n_items, receipt.n_predicted, receipt.n_rejected) == ("one", 5, 2, 3)
    assert receipt.reasons == {"decode_failed": 1, "file_missing": 1, "mask_missing": 1}
    assert receipt.seconds["decode"] > 0 < receipt.seconds["write"]
    predictions = stored("prediction", task)
    a, b = (predictions.row(by_predicate=pl.col("item_digest") == hexed(n), named=True) for n in ("a", "b"))
    for name, row in (("a", a), ("b", b)):
        assert row["predicted_value"] == pytest.approx(expected_mean(archive / name), abs=1e-9)
        assert row["score"] == -row["predicted_value"]
        assert row["series_digest"] == hexed(name)[::-1]
    assert (a["levels"], a["n_vertebrae"]) == ("L1+L2+L3+L4", 4)
    assert "level_missing" not in a["flags"]
    assert (b["levels"], b["n_vertebrae"], b["device"]) == ("L1+L2+L3", 3, "cpu")
    assert "level_missing:L4" in b["flags"].split(";")
    assert stored("vertebra", task).height == 7
    lasting = stored("reject", task)
    transient = stored("reject_transient", task)
    assert dict(lasting.select("item_key", "reason").iter_rows()) == {
        hexed("no mask"): "mask_missing", hexed("cut"): "decode_failed",
    }  # fmt: skip
    assert dict(transient.select("item_key", "reason").iter_rows()) == {hexed("gone"): "file_missing"}
    assert transient["is_transient"].all()


def test_parts_are_stamped_and_hold_the_contracts_schema(task: ShardTask, archive: Path) -> None:
    run_shard(task, archive)
    schema = pq.read_schema(next(task.store.glob("prediction-*.parquet")))
    assert schema.metadata[b"contract"] == contract("prediction").id.encode()
    assert schema.metadata[b"prediction_key"] == SPEC.key.encode()
    assert schema.remove_metadata().equals(contract("prediction").arrow_schema())
    assert not list(task.store.glob(".*"))


def test_no_name_leaves_the_worker(task: ShardTask, archive: Path) -> None:
    receipt = run_shard(task, archive)
    # the receipt and the parts must not name the patient; the task must not once the workspace lies elsewhere
    assert b"Kim" not in pickle.dumps(receipt)
    assert b"Kim" not in pickle.dumps(task)
    for part in task.store.iterdir():
        content = str(pq.read_table(part).to_pylist())
        assert "Kim" not in content
        assert "Secret" not in content
        assert ".dcm" not in content


def test_a_second_time_writes_the_same_bytes(task: ShardTask, archive: Path) -> None:
    run_shard(task, archive)
    before = {path.name: path.read_bytes() for path in task.store.iterdir()}
    task.receipt.unlink()
    predict_shard(task)
    assert {path.name: path.read_bytes() for path in task.store.iterdir()} == before


def test_a_shard_that_dask_asks_for_twice_is_computed_once(
    task: ShardTask, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task may go to another worker, and one that died with its answer is asked for again."""
    first = run_shard(task, archive)
    monkeypatch.setattr("ospor_batch.inference.items.read_volume", None)
    assert predict_shard(task) == first
    task.receipt.unlink()
    again = predict_shard(task)
    assert again.reasons == {"predictor_failed": 5}
    assert again.failure.startswith("unexpected TypeError at ospor_batch.inference.items")


def test_a_model_is_built_once_in_a_process(task: ShardTask, archive: Path) -> None:
    predictor_here.cache_clear()
    run_shard(task, archive)
    task.receipt.unlink()
    predict_shard(task)
    assert predictor_here.cache_info().misses == 1


def test_a_worker_needs_neither_polars_nor_deltalake_nor_prefect(task: ShardTask, archive: Path) -> None:
    write_shard(task.source, archive, ["a", "no mask"])
    said = subprocess.run(
        [sys.executable, "-c", BLOCKED, str(task.shards), str(task.predictions)], capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stderr
    assert "n_items=2, n_predicted=1, n_rejected=1" in said.stdout


def test_a_full_disk_ends_the_run_and_leaves_no_half_part(task: ShardTask, archive: Path) -> None:
    write_shard(task.source, archive, ["a", "b"])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, before[1]))  # less than one part
    try:
        with pytest.raises(StorageError, match="free space"):
            predict_shard(task)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(task.store.iterdir()) == []


def test_too_little_memory_is_a_reject_worth_another_try(
    task: ShardTask, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(paths: object, **_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("ospor_batch.inference.items.read_volume", no_room)
    write_shard(task.source, archive, ["a"])
    predict_shard(task)
    row = stored("reject_transient", task).row(0, named=True)
    assert (row["reason"], row["is_transient"]) == ("out_of_memory", True)


@pytest.mark.parametrize(("hu", "reason"), [(float("nan"), "non_finite"), (9000.0, "impossible_hu")])
def test_a_value_that_cannot_be_is_a_reject(
    task: ShardTask, archive: Path, monkeypatch: pytest.MonkeyPatch, hu: float, reason: str
) -> None:
    from ospor_batch.imaging import reader

    def spoiled(paths: list[Path], **_: object) -> object:
        volume = reader.read_volume(paths)
        volume.hu[:] = hu
        return volume

    monkeypatch.setattr("ospor_batch.inference.items.read_volume", spoiled)
    write_shard(task.source, archive, ["a"])
    assert predict_shard(task).n_rejected == 1
    assert stored("reject", task)["reason"].to_list() == [reason]


@pytest.mark.parametrize(("n", "n_items", "expected"), [(4, 2, (2, 2)), (3, 8, (3, 1)), (1, 6, (1, 1)), (5, 2, (2, 2))])
def test_threads_that_may_hold_no_item_decode_the_files_of_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, n: int, n_items: int, expected: tuple[int, int]
) -> None:
    torch = pytest.importorskip("torch")
    before, busy, seen = torch.get_num_threads(), [], []

    def told(item: Item, _spec: object, *, n_threads: int, turn: object) -> None:
        busy.append(item)
        time.sleep(0.05)
        seen.append((len(busy), n_threads, torch.get_num_threads()))
        busy.remove(item)
        raise ItemRefused("image_blank", "nothing")

    monkeypatch.setattr(decoders, "read_pixels", told)
    items = [Item(f"{i:032x}", "0", "north", (), ()) for i in range(8)]
    with (
        Journal(tmp_path / "j") as journal,
        decoders.threads(n, SPEC, journal=journal, item_seconds=60, n_items=n_items) as submit,
    ):
        verdicts = [future.exception() for future in [submit(item) for item in items]]
    assert all(isinstance(verdict, ItemRefused) for verdict in verdicts)
    assert (max(n_busy for n_busy, _, _ in seen), *{n_each for _, n_each, _ in seen}) == expected
    assert {team for _, _, team in seen} == {1}  # what torch does while it prepares has no team of its own
    assert torch.get_num_threads() == before


def test_a_worker_keeps_what_it_frees() -> None:
    """Dask's setting makes every larger array come from the system anew; a worker undoes it."""
    code = """
import sys, resource
import numpy as np
from ospor_batch.inference.allocator import keep_freed_memory
has_setting = keep_freed_memory() if sys.argv[1] == "kept" else True
began = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    np.ones(2**19)
print(has_setting, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - began)
"""
    n_faults = {}
    for how in ("kept", "given back"):
        said = subprocess.run(
            [sys.executable, "-c", code, how], capture_output=True, text=True, check=True,
            env={**os.environ, "MALLOC_TRIM_THRESHOLD_": "65536", "NUMPY_MADVISE_HUGEPAGE": "0"},
        ).stdout.split()  # fmt: skip
        if said[0] == "False":
            pytest.skip("the C library has no such setting")
        n_faults[how] = int(said[1])
    assert n_faults["kept"] < n_faults["given back"] / 4


def test_a_network_computes_in_the_threads_that_it_is_given(
    task: ShardTask, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    before, seen = torch.get_num_threads(), []
    kind = type(predictor_here(SPEC))
    predict = kind.predict

    def watched(predictor: object, batch: object) -> object:
        seen.append(torch.get_num_threads())
        return predict(predictor, batch)

    monkeypatch.setattr(kind, "predict", watched)
    write_shard(task.source, archive, ["a", "b"])
    predict_shard(replace(task, limits=Limits(n_computing=before + 2)))
    assert set(seen) == {before + 2}
    assert torch.get_num_threads() == before
