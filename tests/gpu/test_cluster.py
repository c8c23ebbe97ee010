"""The engine on workers that hold a GPU: one worker a GPU, two processes on one GPU, a worker that is killed.

Needs torch, MONAI, safetensors, pydicom, nibabel, PyYAML, pyarrow, pydantic, distributed and cryptography, and dask-cuda for
LocalCUDACluster; not polars.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.gpu.on_device import device_name, has_gpu, need, write_down

need(
    "torch", "monai", "safetensors", "pydicom", "nibabel", "yaml", "pyarrow", "pydantic", "distributed", "cryptography",
    what="a cluster of workers",
)  # fmt: skip
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from ospor_batch.compute.cluster import open_executor
from ospor_batch.compute.executor import DaskExecutor
from ospor_batch.config.running import Compute
from ospor_batch.errors import StudyError
from ospor_batch.inference.shard import Limits, ShardReceipt, ShardTask, predict_shard
from ospor_batch.models.bundle import write_bundle
from ospor_batch.models.cxr_osteoporosis import RECIPE
from ospor_batch.models.registry import spec_of
from ospor_batch.models.spec import PREPROCESSING, PredictorSpec
from ospor_batch.models.training import MEAN, NETWORK, SPREAD
from tests.imaging.films import chest, write_film

pytestmark = pytest.mark.gpu
N_FILMS, N_SHARDS, NEAR = 24, 4, 1e-3


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> PredictorSpec:
    """A sealed model of random weights, as training would leave it."""
    smaller: dict[str, Any] = {} if has_gpu() else {"width": 8, "image_pixels": 64}
    parameters = {**RECIPE.defaults, "refuse_lateral": False, **smaller}
    torch.manual_seed(3)
    network: Any = RECIPE.learner.network(parameters)  # type: ignore[attr-defined]
    weights = {NETWORK + key: value.numpy() for key, value in network.state_dict().items()}
    folder = tmp_path_factory.mktemp("models") / "seeded"
    said = {
        "recipe": RECIPE.name, "recipe_version": RECIPE.version, "preprocessing": {"version": PREPROCESSING},
        "parameters": parameters,
    }  # fmt: skip
    write_bundle(folder, state={**weights, MEAN: np.zeros(1), SPREAD: np.ones(1)}, metadata={}, spec=said, card="# seeded\n")
    return spec_of(RECIPE.name, parameters={}, pattern="*.nii*", labels={}, folder=folder)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the shard files of generated films, the last of which is cut short."""
    folder = tmp_path_factory.mktemp("films")
    random = np.random.default_rng(11)
    for number in range(N_FILMS):
        stored = np.clip(4095 * (chest(256) * random.uniform(0.5, 1.0)), 0, 4095).astype(np.uint16)
        file = write_film(folder / f"{number:02d}.dcm", stored)
    file.write_bytes(file.read_bytes()[:-20])
    for shard in range(N_SHARDS):
        rows = [
            {
                "item_digest": f"{number:032x}", "series_digest": f"{number:032x}", "center": "north", "kind": "image",
                "slice_order": 0, "file_key": f"{number:032x}", "root": str(folder), "path": f"{number:02d}.dcm",
                "cache": str(folder / "cache"), "transfer_syntax_uid": None,
            }
            for number in range(shard, N_FILMS, N_SHARDS)
        ]  # fmt: skip
        pq.write_table(pa.Table.from_pylist(rows), folder / f"shard{shard}.parquet")
    return folder


def tasks(shards: Path, spec: PredictorSpec, store: Path) -> list[ShardTask]:
    limits = Limits(n_threads=2, is_expendable=True)
    for stale in (*shards.glob("*.receipt"), *shards.glob("*.journal")):
        stale.unlink()
    return [ShardTask(f"shard{number}", shards, store, spec, limits) for number in range(N_SHARDS)]


def predicted(store: Path) -> dict[str, tuple[float, str]]:
    """Score and device of every series, each of which stands in one part."""
    rows = [row for part in store.rglob("prediction-*.parquet") for row in pq.read_table(part).to_pylist()]
    assert len({row["item_digest"] for row in rows}) == len(rows)
    return {row["item_digest"]: (row["score"], row["device"]) for row in rows}


@pytest.fixture(scope="module")
def on_cpu(shards: Path, spec: PredictorSpec, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[float, str]]:
    store = tmp_path_factory.mktemp("cpu")
    for task in tasks(shards, spec, store):
        predict_shard(task)
    return predicted(store)


@contextlib.contextmanager
def opened(cluster: str, n_workers: int | None = None) -> Iterator[DaskExecutor]:
    try:
        opening = open_executor(Compute(cluster=cluster, workers=n_workers))
        executor = opening.__enter__()
    except StudyError as error:
        pytest.skip(str(error))
    try:
        assert isinstance(executor, DaskExecutor)
        yield executor
    finally:
        opening.__exit__(None, None, None)


def same(found: dict[str, tuple[float, str]], expected: dict[str, tuple[float, str]], what: str) -> None:
    """All series are there, computed on the device of this test, with scores as near as rounding lets them be."""
    assert found.keys() == expected.keys()
    assert {device for _, device in found.values()} == {device_name()}
    most = max(abs(found[item][0] - expected[item][0]) for item in expected)
    write_down(what, most=most, n=len(found))
    assert most < NEAR


def visible() -> str | None:
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def test_one_worker_a_gpu_predicts_what_the_cpu_does_and_survives_its_death(
    shards: Path, spec: PredictorSpec, on_cpu: dict[str, tuple[float, str]], tmp_path: Path
) -> None:
    there = dataclasses.replace(spec, device=device_name())
    with opened("cuda" if has_gpu() else "local", None if has_gpu() else 1) as executor:
        devices = executor.client.run(visible)
        assert not has_gpu() or len({str(seen).split(",")[0] for seen in devices.values()}) == len(devices)
        receipts = [outcome.value for outcome in executor.map(predict_shard, tasks(shards, there, tmp_path / "one"))]
        assert all(isinstance(receipt, ShardReceipt) for receipt in receipts)
        assert sum(receipt.n_rejected for receipt in receipts if receipt is not None) == 1  # the film that was cut short
        same(predicted(tmp_path / "one"), on_cpu, "one worker a GPU against the CPU")
        killed = list(executor.map(signal.raise_signal, [signal.SIGKILL]))
        assert [outcome.error for outcome in killed] == ["worker_died"]
        again = [outcome.error for outcome in executor.map(predict_shard, tasks(shards, there, tmp_path / "two"))]
        assert again == [None] * N_SHARDS
        same(predicted(tmp_path / "two"), on_cpu, "after a worker was killed")


def test_two_workers_on_one_gpu_predict_what_the_cpu_does(
    shards: Path, spec: PredictorSpec, on_cpu: dict[str, tuple[float, str]], tmp_path: Path
) -> None:
    there = dataclasses.replace(spec, device=device_name())
    with opened("local", 2) as executor:
        outcomes = list(executor.map(predict_shard, tasks(shards, there, tmp_path)))
    assert [outcome.error for outcome in outcomes] == [None] * N_SHARDS
    same(predicted(tmp_path), on_cpu, "two workers on one GPU against the CPU")
