"""Clusters that grow: processes by the work that waits, and Slurm jobs that a stand-in for sbatch starts as processes."""

from __future__ import annotations

import os
import signal
import time
import tomllib
from pathlib import Path

import dask
import pytest
from pydantic import ValidationError

from ospor_batch.compute.cluster import is_daemonic, open_executor
from ospor_batch.compute.executor import DaskExecutor
from ospor_batch.config import Compute
from ospor_batch.config.running import ComputeSection, Slurm
from ospor_batch.errors import ClusterError, StudyError
from tests.conftest import ROOT

# Slurm itself is not here: these take the job script that would be sent and run it on this machine
SBATCH = """#!/bin/sh
if [ "$1" = --test-only ]; then exit 0; fi
cp "$1" "{folder}/job.sh"
setsid sh "{folder}/job.sh" >"{folder}/job.log" 2>&1 </dev/null &
echo $! >> "{folder}/pids"
echo "Submitted batch job $!"
"""
SCANCEL = """#!/bin/sh
for job in "$@"; do kill -TERM -- -"$job" 2>/dev/null; done
exit 0
"""


NEVER_STARTS = """#!/bin/sh
echo "Submitted batch job 1"
"""
REFUSES = """#!/bin/sh
echo "sbatch: error: invalid partition specified: gpuu" >&2
exit 1
"""


def queue_of(folder: Path, monkeypatch: pytest.MonkeyPatch, *, sbatch: str = SBATCH) -> None:
    """Put stand-ins for Slurm's commands in front of the path, and work where the jobs do."""
    pytest.importorskip("dask_jobqueue")
    for name, text in (("sbatch", sbatch), ("scancel", SCANCEL)):
        (folder / name).write_text(text.format(folder=folder))
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.chdir(folder)


def wait_for_workers(executor: DaskExecutor, n: int, seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while len(executor.client.nthreads()) != n:
        assert time.monotonic() < until
        time.sleep(0.1)


def test_a_worker_is_a_slurm_job_and_one_that_its_walltime_ended_is_followed_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue_of(tmp_path, monkeypatch)
    slurm = {
        "partition": "gpu", "account": "bone", "cores": 2, "memory": "2GB", "walltime": "00:10:00",
        "directives": ["--gres=gpu:1"], "prologue": ["export OSPOR_SEEN=yes"], "interface": "lo",
    }  # fmt: skip
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "200ms"}),
        open_executor(Compute.model_validate({"cluster": "slurm", "workers": 1, "slurm": slurm})) as executor,
    ):
        assert isinstance(executor, DaskExecutor)
        wanted = {"OSPOR_SEEN": "yes", "OMP_NUM_THREADS": "2", "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False"}
        assert {outcome.item: outcome.value for outcome in executor.map(os.getenv, wanted)} == wanted
        assert list(executor.client.nthreads().values()) == [1]
        assert not any(executor.client.run(is_daemonic).values())
        assert executor.client.scheduler.address.startswith("tls://")
        secrets = list(tmp_path.glob(".ospor-cluster-*/*"))
        assert len(secrets) == 3
        assert all((file.stat().st_mode | file.parent.stat().st_mode) & 0o077 == 0 for file in secrets)
        os.killpg(int((tmp_path / "pids").read_text().split()[0]), signal.SIGKILL)
        wait_for_workers(executor, 0)
        assert sorted(outcome.value for outcome in executor.map(abs, [-1, -2])) == [1, 2]  # answers come as they end
        assert len((tmp_path / "pids").read_text().split()) == 2
    assert not list(tmp_path.glob(".*"))
    script = (tmp_path / "job.sh").read_text()
    for line in (
        "#SBATCH -p gpu",
        "#SBATCH -A bone",
        "#SBATCH --cpus-per-task=2",
        "#SBATCH -t 00:10:00",
        "#SBATCH --gres=gpu:1",
    ):
        assert line in script


def test_a_job_that_never_starts_is_not_waited_for_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queue_of(tmp_path, monkeypatch, sbatch=NEVER_STARTS)
    asked = Compute.model_validate({"cluster": "slurm", "slurm": {"interface": "lo", "queue_minutes": 0.04}})
    with (
        pytest.raises(ClusterError, match=r"no worker for 0.04 minutes; squeue says why") as told,
        open_executor(asked) as joined,
    ):
        list(joined.map(abs, [-1]))
    assert told.value.exit_code == 19
    assert Slurm().queue_minutes == 720


def test_what_sbatch_says_against_a_job_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queue_of(tmp_path, monkeypatch, sbatch=REFUSES)
    asked = Compute.model_validate({"cluster": "slurm", "workers": 3, "workers_at_least": 0, "slurm": {"interface": "lo"}})
    with pytest.raises(ClusterError, match="invalid partition specified: gpuu; mend"), open_executor(asked):
        pass
    (tmp_path / "sbatch").unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StudyError, match="no sbatch here"), open_executor(asked):
        pass


def test_processes_come_with_the_work_and_go_without_it() -> None:
    with open_executor(Compute(cluster="local", workers=2, workers_at_least=0)) as executor:
        assert isinstance(executor, DaskExecutor)
        assert executor.client.nthreads() == {}
        assert [outcome.error for outcome in executor.map(time.sleep, [0.2, 0.2, 0.2])] == [None] * 3
        wait_for_workers(executor, 0)


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
