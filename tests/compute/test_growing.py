"""Clusters that grow: processes by the work that waits, and Slurm jobs that a stand-in for sbatch starts as processes."""

from __future__ import annotations

import os
import time
import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

from ospor_batch.compute.cluster import open_executor
from ospor_batch.compute.executor import DaskExecutor
from ospor_batch.config import Compute
from ospor_batch.config.running import ComputeSection
from ospor_batch.errors import StudyError
from tests.conftest import ROOT

# Slurm itself is not here: these take the job script that would be sent and run it on this machine
SBATCH = """#!/bin/sh
cp "$1" "{folder}/job.sh"
setsid sh "{folder}/job.sh" >"{folder}/job.log" 2>&1 </dev/null &
echo $! >> "{folder}/pids"
echo "Submitted batch job $!"
"""
SCANCEL = """#!/bin/sh
for job in "$@"; do kill -TERM -- -"$job" 2>/dev/null; done
exit 0
"""


def test_a_worker_is_a_slurm_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("dask_jobqueue")
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        (tmp_path / name).write_text(text.format(folder=tmp_path))
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    slurm = {
        "partition": "gpu", "account": "bone", "cores": 2, "memory": "2GB", "walltime": "00:10:00",
        "directives": ["--gres=gpu:1"], "prologue": ["export OSPOR_SEEN=yes"], "interface": "lo",
    }  # fmt: skip
    with open_executor(Compute.model_validate({"cluster": "slurm", "workers": 1, "slurm": slurm})) as executor:
        assert isinstance(executor, DaskExecutor)
        found = {outcome.item: outcome.value for outcome in executor.map(os.getenv, ["OSPOR_SEEN", "OMP_NUM_THREADS"])}
        assert found == {"OSPOR_SEEN": "yes", "OMP_NUM_THREADS": "2"}
        assert list(executor.client.nthreads().values()) == [1]
    script = (tmp_path / "job.sh").read_text()
    for line in (
        "#SBATCH -p gpu",
        "#SBATCH -A bone",
        "#SBATCH --cpus-per-task=2",
        "#SBATCH -t 00:10:00",
        "#SBATCH --gres=gpu:1",
    ):
        assert line in script


def test_processes_come_with_the_work_and_go_without_it() -> None:
    with open_executor(Compute(cluster="local", workers=2, workers_at_least=0)) as executor:
        assert isinstance(executor, DaskExecutor)
        assert executor.client.nthreads() == {}
        assert [outcome.error for outcome in executor.map(time.sleep, [0.2, 0.2, 0.2])] == [None] * 3
        until = time.monotonic() + 30
        while executor.client.nthreads() and time.monotonic() < until:
            time.sleep(0.2)
        assert executor.client.nthreads() == {}


def test_a_cluster_says_what_it_cannot_be() -> None:
    with pytest.raises(ValidationError, match="cluster that can grow"):
        Compute(cluster="cuda", workers=2, workers_at_least=1)
    with pytest.raises(ValidationError, match="at most workers"):
        Compute(cluster="local", workers_at_least=1)
    with pytest.raises(ValidationError, match="slurm is given"):
        Compute.model_validate({"cluster": "local", "slurm": {}})


def test_slurm_without_jobqueue_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "dask_jobqueue", None)
    with pytest.raises(StudyError, match=r"ospor-batch\[hpc\]"), open_executor(Compute(cluster="slurm")):
        pass


def test_the_slurm_example_is_a_valid_compute_section() -> None:
    raw = tomllib.loads((ROOT / "infra" / "slurm" / "compute.toml").read_text())
    section = ComputeSection.model_validate(raw["compute"])
    assert section.gpu is not None
    assert section.gpu.slurm is not None
    assert section.gpu.slurm.directives == ("--gres=gpu:1",)
