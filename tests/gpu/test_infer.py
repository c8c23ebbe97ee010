"""The infer stage on one worker per GPU gives the tables of the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.gpu.on_device import need

need("polars", "deltalake", "pydantic", "distributed", "pydicom", "nibabel", what="a stage")

from ospor_batch.compute.cluster import open_executor
from ospor_batch.compute.executor import DaskExecutor, InLine
from ospor_batch.config import Compute
from ospor_batch.errors import StudyError
from ospor_batch.stages.infer import infer
from ospor_batch.store import Change, Store, SweepCounts
from tests.inference.cases import locator, write_spine
from tests.stages.test_infer import a_run, a_study, manifest, outputs

pytestmark = pytest.mark.gpu
NAMES = ["a", "b", "c", "d", "e", "f", "g", "h"]


def device_of_worker() -> str | None:
    import os

    return os.environ.get("CUDA_VISIBLE_DEVICES")


def test_infer_on_gpu_workers_equals_infer_on_the_cpu(tmp_path: Path) -> None:
    for number, name in enumerate(NAMES):
        write_spine(tmp_path / "archive" / name, mean_hu=60 + 15 * number, mask="" if name == "h" else "mask.nii.gz")
    study = a_study(tmp_path)
    store = Store(study.workspace)
    rows = locator(tmp_path / "archive", NAMES)
    store.commit({"locator": Change(rows)}, stage="catalog", center="north", counts=SweepCounts())
    run = a_run(store, manifest(NAMES))
    try:
        with open_executor(Compute(cluster="cuda")) as executor:
            assert isinstance(executor, DaskExecutor)
            devices = executor.client.run(device_of_worker)
            infer(study, run, store=store, executor=executor)
    except StudyError as error:
        pytest.skip(str(error))
    assert len(set(devices.values())) == len(devices)  # each worker has a GPU of its own
    on_gpu = {name: run.read(name).rows() for name in outputs(run)}
    for part in run.predictions.rglob("*.parquet"):
        part.unlink()
    north, _ = infer(study, run, store=store, executor=InLine())
    assert (north.done, north.excluded) == (7, 1)
    assert {name: run.read(name).rows() for name in outputs(run)} == on_gpu
