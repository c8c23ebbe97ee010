"""A scheduler and two workers as processes of their own over TCP; workers import no polars, deltalake or prefect."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from ospor_batch.compute import cluster as opening
from ospor_batch.compute.cluster import open_executor
from ospor_batch.compute.executor import DaskExecutor, InLine, Patience
from ospor_batch.compute.setup import log_counts
from ospor_batch.config import Compute, Study
from ospor_batch.errors import ClusterError, OsporError, StudyError
from ospor_batch.stages.infer import infer
from ospor_batch.store import Change, Store, SweepCounts
from tests.conftest import ROOT
from tests.inference.cases import locator, write_spine
from tests.stages.test_infer import a_run, a_study, manifest, outputs

cloudpickle.register_pickle_by_value(sys.modules[__name__])
NAMES = ["a", "b", "c", "d", "e", "f", "g", "h"]
BLOCK = 'import sys\nfor name in ("polars", "deltalake", "prefect", "pydantic"):\n    sys.modules[name] = None\n'


def start(*command: str, ready: str) -> tuple[subprocess.Popen[str], str]:
    """Start a Dask process and wait for a line that shows that it is there."""
    process = subprocess.Popen(
        [sys.executable, "-m", "distributed.cli." + command[0], *command[1:]], cwd=ROOT, stderr=subprocess.PIPE, text=True,
        stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, start_new_session=True,
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(ready, line):
            return process, found.group(0)
    raise AssertionError(f"{command[0]} ended")


def start_worker(address: str, folder: Path) -> subprocess.Popen[str]:
    """Start a worker without tables, which nobody restarts."""
    worker, _ = start(
        "dask_worker", address, "--nthreads", "1", "--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0",
        "--preload", str(folder / "block.py"), "--no-nanny", "--local-directory", str(folder), ready="Starting established",
    )  # fmt: skip
    return worker


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, list[subprocess.Popen[str]]]]:
    (tmp_path / "block.py").write_text(BLOCK)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    scheduler, address = start(
        "dask_scheduler", "--host", "127.0.0.1", "--port", str(port), "--dashboard-address", "127.0.0.1:0",
        ready=r"tcp://127\.0\.0\.1:\d+",
    )  # fmt: skip
    processes.append(scheduler)
    for _ in range(2):
        processes.append(start_worker(address, tmp_path))
    yield address, processes
    for process in reversed(processes):
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)


def blocked(name: str) -> bool:
    import sys

    return name in sys.modules and sys.modules[name] is None


def talk() -> str | None:
    """Log as pydicom does, which quotes what it finds; how CUDA is set here."""
    import logging
    import os

    log = logging.getLogger("pydicom")
    assert not log.propagate
    handlers = {type(handler).__name__ for handler in log.handlers}
    assert handlers <= {"Silenced", "NullHandler"}  # nobody writes the text anywhere
    log.warning("PatientName is Kim^Minji")
    return os.environ.get("CUBLAS_WORKSPACE_CONFIG")


def allowed_failures(dask_scheduler: Any) -> int:
    return int(dask_scheduler.allowed_failures)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    for number, name in enumerate(NAMES):
        write_spine(tmp_path / "archive" / name, mean_hu=60 + 15 * number, mask="" if name == "h" else "mask.nii.gz")
    return a_study(tmp_path)


@pytest.fixture
def store(study: Study, tmp_path: Path) -> Store:
    made = Store(study.workspace)
    rows = locator(tmp_path / "archive", NAMES)
    made.commit({"locator": Change(rows)}, stage="catalog", center="north", counts=SweepCounts())
    return made


def test_a_study_on_workers_without_tables_and_a_scheduler_that_dies(
    cluster: tuple[str, list[subprocess.Popen[str]]], study: Study, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, processes = cluster
    with monkeypatch.context() as patched:
        patched.setattr(opening, "is_daemonic", lambda: True)
        with (
            pytest.raises(StudyError, match="may start no process"),
            open_executor(Compute(cluster=address, decode_processes=1)),
        ):
            pass  # and leaving a cluster of others does not close it
    run = a_run(store, manifest(NAMES))
    with open_executor(Compute(cluster=address)) as joined:
        assert isinstance(joined, DaskExecutor)
        assert joined.n_workers == 2
        assert all(joined.client.run(blocked, "polars").values())
        infer(study, run, store=store, executor=joined)
        assert counters(joined)['ospor_series_total{kind="predicted"}'] == 7
        assert set(joined.client.run(talk).values()) == {":4096:8"}
        assert [counts["pydicom WARNING"] for counts in joined.client.run(log_counts).values()] == [1, 1]
        assert counters(joined)['ospor_log_records_total{kind="warning"}'] >= 2
        assert joined.client.run_on_scheduler(allowed_failures) == 0
        on_workers = {name: run.read(name).rows() for name in outputs(run)}
        for part in run.predictions.rglob("*.parquet"):
            part.unlink()
        with pytest.raises(OsporError, match="scheduler of the cluster is gone"):
            infer(study, run, store=store, executor=Deadly(joined, processes[0]))
    n_kept = len(list(run.predictions.rglob("prediction-*.parquet")))
    assert n_kept >= 1
    told: list[tuple[int, int]] = []
    infer(study, run, store=store, executor=InLine(), progress=lambda done, total: told.append((done, total)))
    assert told[0][0] >= n_kept  # finished work is kept
    assert {name: run.read(name).rows() for name in outputs(run)} == on_workers


def test_a_study_whose_workers_are_all_gone_ends_in_time_and_goes_on_with_another(
    cluster: tuple[str, list[subprocess.Popen[str]]], study: Study, store: Store, tmp_path: Path
) -> None:
    address, processes = cluster
    run = a_run(store, manifest(NAMES))
    with open_executor(Compute(cluster=address)) as joined:
        assert isinstance(joined, DaskExecutor)
        assert joined.patience.seconds == 600
        gone = Deadly(joined, *processes[1:], patience=Patience(0.6))
        with pytest.raises(ClusterError, match=r"no worker for 0.01 minutes; look at the logs of the workers") as ended:
            infer(study, run, store=store, executor=gone)
        assert ended.value.exit_code == 19
        n_kept = len(list(run.predictions.rglob("prediction-*.parquet")))
        assert n_kept >= 1
        processes.append(start_worker(address, tmp_path))
        told: list[tuple[int, int]] = []
        infer(study, run, store=store, executor=joined, progress=lambda done, total: told.append((done, total)))
    assert told[0][0] >= n_kept  # finished work is kept
    assert run.read("prediction").height == 7


class Deadly(DaskExecutor):
    """Kills processes after the first answer."""

    def __init__(self, joined: DaskExecutor, *killed: subprocess.Popen[str], patience: Patience | None = None) -> None:
        super().__init__(joined.client, patience=patience)
        self.killed = killed

    def map(self, function: Any, items: Any) -> Iterator[Any]:
        for outcome in super().map(function, items):
            for process in self.killed:
                process.send_signal(signal.SIGKILL)
            yield outcome


def counters(joined: DaskExecutor) -> dict[str, float]:
    """Our counters at the metrics endpoints of all workers, summed."""
    found: dict[str, float] = {}
    for address, worker in joined.client.scheduler_info(n_workers=-1)["workers"].items():
        port = worker["services"]["dashboard"]
        host = re.search(r"//(.*):", address)
        assert host is not None
        with urllib.request.urlopen(f"http://{host.group(1)}:{port}/metrics", timeout=10) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith("ospor_"):
                    name, value = line.rsplit(" ", 1)
                    found[name] = found.get(name, 0.0) + float(value)
    return found
