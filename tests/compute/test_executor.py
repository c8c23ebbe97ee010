"""Outcomes are the same in line and on processes; a worker that dies takes its item, not the run."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import cloudpickle
import pytest
from distributed import Worker

from ospor_batch.compute import cluster
from ospor_batch.compute.cluster import open_executor
from ospor_batch.compute.executor import DaskExecutor, Executor, InLine, Outcome, Patience
from ospor_batch.config import Compute, read_study
from ospor_batch.errors import StudyError

cloudpickle.register_pickle_by_value(sys.modules[__name__])
NO_STUDY = Path("/nonexistent/study.toml")


@pytest.fixture(scope="module")
def processes() -> Iterator[Executor]:
    with open_executor(Compute(cluster="local", workers=2)) as opened:
        yield opened


def test_in_line_runs_in_order_and_lets_errors_through() -> None:
    assert list(InLine().map(abs, [-1, 2])) == [Outcome(-1, 1, None), Outcome(2, 2, None)]
    with pytest.raises(ValueError, match="x"):
        list(InLine().map(int, ["x"]))


def test_processes_answer_every_item_once(processes: Executor) -> None:
    assert processes.n_workers == 2
    items = list(range(25))
    outcomes = list(processes.map(math.sqrt, items))
    assert sorted(o.item for o in outcomes) == items
    assert all(o.value == math.sqrt(o.item) and o.error is None for o in outcomes)
    assert list(processes.map(abs, [])) == []


def test_equal_items_are_worked_on_each(processes: Executor) -> None:
    assert [o.value for o in processes.map(abs, [-3, -3, -3])] == [3, 3, 3]


def test_a_bug_comes_back_as_the_name_of_its_class(processes: Executor) -> None:
    by_item = {o.item: o for o in processes.map(int, ["1", "secret/path", "2"])}
    assert by_item["secret/path"] == Outcome("secret/path", None, "ValueError")
    assert (by_item["1"].value, by_item["2"].value) == (1, 2)


def test_an_error_of_ours_is_raised_with_its_text(processes: Executor) -> None:
    with pytest.raises(StudyError, match="no such study file"):
        list(processes.map(read_study, [NO_STUDY]))
    assert [o.value for o in processes.map(abs, [-1])] == [1]  # the cluster goes on


def test_a_killed_worker_takes_its_item_alone_and_is_replaced(processes: Executor) -> None:
    alone = list(processes.map(signal.raise_signal, [signal.SIGKILL]))
    assert alone == [Outcome(signal.SIGKILL, None, "worker_died")]
    among = {o.item: o.error for o in processes.map(signal.raise_signal, [signal.SIGKILL, -1])}
    assert among[signal.SIGKILL] == "worker_died"
    until = time.monotonic() + 20
    while processes.n_workers < 2 and time.monotonic() < until:
        time.sleep(0.1)
    assert processes.n_workers == 2


def test_a_worker_that_takes_long_to_come_back_is_not_given_up() -> None:
    """Dask gives one up for good that is not back in time, and on a busy machine all of them, one after the other."""
    import dask

    at_once = dask.config.set({"distributed.deploy.lost-worker-timeout": "1ms"})
    with at_once, open_executor(Compute(cluster="local", workers=1)) as one:
        assert isinstance(one, DaskExecutor)
        one.patience = Patience(seconds=20)
        errors = [outcome.error for outcome in one.map(signal.raise_signal, [signal.SIGKILL] * 3)]
    assert errors == ["worker_died"] * 3


def test_a_worker_has_two_at_a_time_and_what_is_not_taken_is_dropped(processes: Executor) -> None:
    assert isinstance(processes, DaskExecutor)
    until = time.monotonic() + 20
    while len(processes.client.nthreads()) < 2 and time.monotonic() < until:
        time.sleep(0.05)  # one that was killed before comes back
    waiting = iter([0.01, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0])
    with contextlib.closing(DaskExecutor(processes.client).map(time.sleep, waiting)) as outcomes:
        next(outcomes)
        assert list(waiting) == [5.0, 5.0]  # one is done, and two workers have four
        until = time.monotonic() + 10
        while len(processes.client.futures) > 4 and time.monotonic() < until:
            time.sleep(0.01)
        assert len(processes.client.futures) == 4  # of what is done nothing is kept
    assert not processes.client.futures


def write_down(task: tuple[str, float, str]) -> None:
    name, seconds, log = task
    with Path(log).open("a") as file:
        file.write(name)
    time.sleep(seconds)


def test_what_waits_behind_a_long_item_goes_to_a_free_worker_and_is_done_once(processes: Executor, tmp_path: Path) -> None:
    names = "abcdefghij"
    tasks = [(name, 4.0 if name == "a" else 0.02, str(tmp_path / "log")) for name in names]
    outcomes = [outcome.item[0] for outcome in processes.map(write_down, tasks)]
    assert sorted(outcomes) == sorted((tmp_path / "log").read_text()) == list(names)
    assert outcomes[-1] == "a"


def looked_at(dask_worker: Worker) -> bool:
    """Whether Dask takes samples of the worker's stack."""
    return "profile" in dask_worker.periodic_callbacks


def test_threads_are_shared_out_and_nothing_listens_beyond_loopback(processes: Executor) -> None:
    threads = {o.value for o in processes.map(os.getenv, ["OMP_NUM_THREADS"])}
    assert threads == {str(max(1, (os.cpu_count() or 1) // 2))}
    assert isinstance(processes, DaskExecutor)
    assert not any(processes.client.run(looked_at).values())
    workers = processes.client.scheduler_info(n_workers=-1)["workers"]
    assert all(address.startswith("tls://127.0.0.1:") for address in workers)
    assert processes.link is not None
    assert processes.link.startswith("http://127.0.0.1:")
    with urllib.request.urlopen(processes.link, timeout=10) as page:
        assert "needs bokeh" not in page.read().decode()


@pytest.mark.parametrize("protocol", ["tls", "tcp"])
def test_a_stranger_on_this_machine_cannot_join(processes: Executor, monkeypatch: pytest.MonkeyPatch, protocol: str) -> None:
    assert isinstance(processes, DaskExecutor)
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 1)
    address = processes.client.scheduler.address.replace("tls://", f"{protocol}://")
    with pytest.raises(StudyError, match="no Dask scheduler answers"), open_executor(Compute(cluster=address)):
        pass
    assert [o.value for o in processes.map(abs, [-1])] == [1]


def test_an_address_where_nobody_answers_is_the_studys_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 1)
    with pytest.raises(StudyError, match="no Dask scheduler answers"), open_executor(Compute(cluster="tcp://127.0.0.1:9")):
        pass


def test_cuda_without_a_gpu_says_what_is_missing() -> None:
    if Path("/proc/driver/nvidia").exists():
        pytest.skip("there is a GPU here")
    with pytest.raises(StudyError, match=r"ospor-batch\[gpu\]|no GPU"), open_executor(Compute(cluster="cuda")):
        pass


def test_ctrl_c_ends_the_workers(tmp_path: Path) -> None:
    """As in a terminal, the whole process group is interrupted; no process is left behind."""
    script = tmp_path / "work.py"
    script.write_text(
        "import time\n"
        "from ospor_batch.compute.cluster import open_executor\n"
        "from ospor_batch.config import Compute\n"
        "if __name__ == '__main__':\n"
        "    with open_executor(Compute(cluster='local', workers=2)) as executor:\n"
        "        for outcome in executor.map(time.sleep, [0, 60, 60]):\n"
        "            print('begun', flush=True)\n"
    )
    work = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert work.stdout is not None
    assert work.stdout.readline() == "begun\n"
    os.killpg(work.pid, signal.SIGINT)
    _, said = work.communicate(timeout=60)
    assert work.returncode in {130, -signal.SIGINT}
    assert "KeyboardInterrupt" in said
    until = time.monotonic() + 10  # the tracker of shared memory goes when it finds that nobody is left
    while (left := running_in_group(work.pid)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not left


def running_in_group(group: int) -> list[str]:
    """Processes of a group that still run; one that has ended and waits to be reaped does not."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, its_group = status.read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state != "Z":
                found.append(status.parent.name)
    return found
