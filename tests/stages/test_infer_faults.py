"""Faults made for real: whatever dies, every series ends once, what was durable is not computed again, tables are the same."""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cloudpickle
import polars as pl
import pytest

from ospor_batch.compute.cluster import open_executor
from ospor_batch.compute.executor import DaskExecutor, InLine
from ospor_batch.config import Compute, Study
from ospor_batch.errors import StorageError
from ospor_batch.imaging import reader
from ospor_batch.inference import items as items_module
from ospor_batch.inference.parts import PARTS
from ospor_batch.runs import Run
from ospor_batch.stages import infer as stage
from ospor_batch.stages.infer import infer
from ospor_batch.stages.live import look
from ospor_batch.store import Change, Store, SweepCounts
from tests.cohort.rows import hexed
from tests.conftest import ROOT
from tests.inference.cases import locator, write_spine
from tests.stages import troubled
from tests.stages.test_infer import a_run, a_study, manifest, outputs, reasons
from tests.stages.troubled import DyingAfterWriting, Trouble

cloudpickle.register_pickle_by_value(troubled)
NAMES = [f"s{number:02d}" for number in range(12)]
ITEM_SECONDS = 5.0


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """Twelve series: one without a mask, one cut short, one that lost a slice."""
    for number, name in enumerate(NAMES):
        write_spine(tmp_path / "archive" / name, mean_hu=60 + 10 * number, mask="" if name == "s03" else "mask.nii.gz")
    broken = tmp_path / "archive" / "s04" / "0004.dcm"
    broken.write_bytes(broken.read_bytes()[:-20])
    return a_study(tmp_path, compute={"cpu": {"item_seconds": ITEM_SECONDS}})


@pytest.fixture
def store(study: Study, tmp_path: Path) -> Store:
    made = Store(study.workspace)
    rows = locator(tmp_path / "archive", NAMES)
    made.commit({"locator": Change(rows)}, stage="catalog", center="north", counts=SweepCounts())
    (tmp_path / "archive" / "s05" / "0002.dcm").unlink()
    return made


@pytest.fixture
def undisturbed(study: Study, tmp_path: Path, store: Store) -> dict[str, list[tuple[Any, ...]]]:
    """The tables of a run in line, with a prediction store of its own."""
    run = a_run(store, manifest(NAMES), name="undisturbed")
    object.__setattr__(run, "predictions", tmp_path / "elsewhere")
    infer(study, run, store=store, executor=InLine())
    assert reasons(run) == {hexed("s03"): "mask_missing", hexed("s04"): "decode_failed", hexed("s05"): "file_missing"}
    return tables(run)


@pytest.fixture(autouse=True)
def often_durable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Items become durable one by one, so that a dead worker leaves finished ones behind."""
    made = stage.limits_of
    monkeypatch.setattr(stage, "limits_of", lambda *given, **named: _at_once(made(*given, **named)))


def _at_once(limits: Any) -> Any:
    return dataclasses.replace(limits, commit_seconds=0.0)


def tables(run: Run) -> dict[str, list[tuple[Any, ...]]]:
    return {name: run.read(name).rows() for name in outputs(run)}


def stored_once(run: Run) -> bool:
    """No series stands in two parts: what was durable was not computed again."""
    seen = []
    for part, name in PARTS.items():
        if part != "vertebra":
            key = "item_key" if name == "reject" else "item_digest"
            seen += [row for file in run.predictions.rglob(f"{part}-*.parquet") for row in pl.read_parquet(file)[key]]
    return len(seen) == len(set(seen))


def kill(process: int) -> None:
    os.kill(process, signal.SIGKILL)


def wait_for(true: Callable[[], bool], seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.02)


def n_parts(run: Run) -> int:
    return len(list(run.predictions.rglob("prediction-*.parquet")))


@pytest.fixture(scope="module")
def processes() -> Iterator[DaskExecutor]:
    with open_executor(Compute(cluster="local", workers=2)) as opened:
        assert isinstance(opened, DaskExecutor)
        yield opened


def test_a_crashing_and_a_hanging_decoder_are_found_and_stand_alone(
    study: Study, store: Store, processes: DaskExecutor, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    trouble = Trouble(tmp_path / "log", crash=["s07"], hang=["s09"])
    processes.client.register_plugin(trouble)
    run = a_run(store, manifest(NAMES))
    north, _ = infer(study, run, store=store, executor=processes)
    assert north.closes
    poisoned = {hexed("s07"): "worker_died", hexed("s09"): "timed_out"}
    without = {item: reason for item, reason in reasons(run).items() if item not in poisoned}
    assert reasons(run) == without | poisoned
    assert len(without) == 3
    kept = [row for row in undisturbed["prediction"] if row[0] not in poisoned]
    assert tables(run)["prediction"] == kept
    assert stored_once(run)
    reads = trouble.reads()
    # among others, alone, once more alone; another lane may end the process before the file is opened
    assert 2 <= reads["s07"] <= 3
    assert 1 <= reads["s09"] <= 2  # a hang is not tried a third time
    # a neighbour is read twice at most: when it was decoded, but not yet durable, as its worker died
    assert max(n for name, n in reads.items() if name not in {"s07", "s09"}) <= 2
    processes.client.register_plugin(Trouble(tmp_path / "again"))
    infer(study, run, store=store, executor=processes)
    assert Trouble(tmp_path / "again").reads() == {"s05": 1}  # the transient one alone is tried again


def test_what_became_durable_as_its_worker_died_is_not_computed_again(
    study: Study, store: Store, processes: DaskExecutor, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    trouble, dying = Trouble(tmp_path / "log"), DyingAfterWriting(tmp_path / "died")
    processes.client.register_plugin(trouble)
    processes.client.register_plugin(dying)
    dying.mark.with_suffix(".armed").touch()
    run = a_run(store, manifest(NAMES))
    infer(study, run, store=store, executor=processes)
    (durable,) = dying.mark.read_text().split()
    assert tables(run) == undisturbed
    assert stored_once(run)
    reads = trouble.reads()
    assert [reads[name] for name in NAMES if hexed(name) == durable] == [1]  # those at hand in other lanes are read again


def test_workers_killed_at_random_change_nothing(
    study: Study, store: Store, processes: DaskExecutor, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    trouble = Trouble(tmp_path / "log", seconds=0.15)
    processes.client.register_plugin(trouble)
    run, chance, n_killed = a_run(store, manifest(NAMES)), random.Random(20261121), []

    def murder() -> None:
        for _ in range(3):
            before = n_parts(run)
            wait_for(lambda before=before: n_parts(run) > before or n_parts(run) >= 9)  # type: ignore[misc]
            time.sleep(chance.random() * 0.3)
            alive = processes.client.run(os.getpid)
            if alive and not n_killed:
                processes.client.restart_workers([chance.choice(sorted(alive))], timeout=30)  # by its nanny
                n_killed.append(1)
            elif alive:
                kill(chance.choice(sorted(alive.values())))
                n_killed.append(1)

    killer = threading.Thread(target=murder)
    killer.start()
    north, _ = infer(study, run, store=store, executor=processes)
    killer.join()
    assert len(n_killed) >= 1
    assert (north.requested, north.done, north.excluded, north.failed) == (12, 9, 2, 1)
    assert tables(run) == undisturbed
    assert stored_once(run)


def children(process: int) -> list[int]:
    listed = Path(f"/proc/{process}/task").glob("*/children")
    return [int(child) for file in listed for child in file.read_text().split()]


def test_a_killed_decoder_process_changes_nothing(
    study: Study, store: Store, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    cpu = {"cluster": "local", "workers": 1, "decode_processes": 1, "item_seconds": 60}
    study = a_study(tmp_path, compute={"cpu": cpu})
    run, killed = a_run(store, manifest(NAMES)), []
    with open_executor(study.compute.cpu) as executor:
        assert isinstance(executor, DaskExecutor)
        (worker,) = executor.client.run(os.getpid).values()

        def murder() -> None:
            wait_for(lambda: n_parts(run) > 0)
            for child in children(worker):
                if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                    killed.append(child)
                    kill(child)

        killer = threading.Thread(target=murder)
        killer.start()
        infer(study, run, store=store, executor=executor)
        killer.join()
    assert tables(run) == undisturbed
    assert stored_once(run)
    assert killed


DRIVER = """
import sys
from pathlib import Path
from ospor_batch.compute.cluster import open_executor
from ospor_batch.config import Compute
from ospor_batch.stages.infer import infer
from ospor_batch.store import Store
import cloudpickle
from tests.stages import troubled
from tests.stages.test_infer_faults import NAMES, _at_once, stage
from tests.stages.test_infer import a_run, a_study, manifest
cloudpickle.register_pickle_by_value(troubled)
if __name__ == "__main__":
    folder, cluster, crash, seconds = Path(sys.argv[1]), sys.argv[2], sys.argv[3], float(sys.argv[4])
    made = stage.limits_of
    stage.limits_of = lambda *given, **named: _at_once(made(*given, **named))
    trouble = troubled.Trouble(folder / "log", crash=[crash], seconds=seconds)
    study = a_study(folder)
    store = Store(study.workspace)
    compute = {"cluster": cluster} if cluster == "in_line" else {"cluster": cluster, "workers": 1}
    with open_executor(Compute.model_validate(compute)) as executor:
        if cluster == "in_line":
            trouble.setup()
        else:
            executor.client.register_plugin(trouble)
        infer(study, a_run(store, manifest(NAMES)), store=store, executor=executor)
"""


def driver(
    folder: Path, cluster: str, *, crash: str = "-", seconds: float = 0.0, under: Sequence[str] = ()
) -> subprocess.Popen[str]:
    script = folder / "driver.py"
    script.write_text(DRIVER)
    return subprocess.Popen(
        [*under, sys.executable, str(script), str(folder), cluster, crash, str(seconds)], cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_a_killed_driver_is_followed_by_one_that_goes_on(
    study: Study, store: Store, tmp_path: Path, undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run(store, manifest(NAMES))
    first = driver(tmp_path, "local", seconds=0.2)
    wait_for(lambda: n_parts(run) >= 3, seconds=60)
    seen = look(run.private)
    assert seen is not None
    assert (seen.state, seen.total) == ("running", 12)
    kill(first.pid)
    first.communicate(timeout=60)
    assert getattr(look(run.private), "state", None) == "stopped"
    n_before = n_parts(run)
    time.sleep(0.5)  # its workers follow it
    read: list[str] = []

    def watched(paths: Any, **how: Any) -> Any:
        read.append(paths[0].parent.name)
        return reader.read_volume(paths, **how)

    monkeypatch.setattr(items_module, "read_volume", watched)
    infer(study, run, store=store, executor=InLine())
    assert tables(run) == undisturbed
    assert stored_once(run)
    assert len(read) <= 12 - n_before
    assert getattr(look(run.private), "state", None) == "ended"


def test_in_line_a_crash_takes_the_run_with_it_and_the_third_one_knows(
    study: Study, store: Store, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    run = a_run(store, manifest(NAMES))
    ends = []
    for _ in range(3):
        process = driver(tmp_path, "in_line", crash="s06")
        process.communicate(timeout=60)
        ends.append(process.returncode)
    assert ends == [-signal.SIGABRT, -signal.SIGABRT, 0]
    assert reasons(run)[hexed("s06")] == "worker_died"
    assert tables(run)["prediction"] == [row for row in undisturbed["prediction"] if row[0] != hexed("s06")]
    assert stored_once(run)


def test_a_full_disk_ends_the_stage_and_what_was_durable_stays(
    study: Study, store: Store, monkeypatch: pytest.MonkeyPatch, undisturbed: dict[str, Any]
) -> None:
    run, fsync, n_written = a_run(store, manifest(NAMES)), os.fsync, []

    def full_at_last(file: int) -> None:
        n_written.append(file)
        if len(n_written) > 7:
            raise OSError(28, "No space left on device")
        fsync(file)

    monkeypatch.setattr("ospor_batch.inference.parts.os.fsync", full_at_last)
    with pytest.raises(StorageError, match="errno 28"):
        infer(study, run, store=store, executor=InLine())
    monkeypatch.undo()
    n_before = n_parts(run)
    assert n_before >= 2
    infer(study, run, store=store, executor=InLine())
    assert tables(run) == undisturbed


# a disk of 64 KB of its own over the prediction store, in a namespace that ends with the process; what it held is copied off
SMALL_DISK = """
mount -t tmpfs -o size=64k none "$0" || exit 99
"$@"; ended=$?
cp -r "$0" "$0.kept"
exit $ended
"""


def test_a_disk_that_really_is_full_keeps_what_it_holds(
    study: Study, store: Store, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    run = a_run(store, manifest(NAMES))
    run.predictions.mkdir()
    if subprocess.run(["unshare", "-Urm", "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine gives no namespace with a disk of its own")
    process = driver(tmp_path, "in_line", under=["unshare", "-Urm", "sh", "-c", SMALL_DISK, str(run.predictions)])
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "StorageError: the prediction store cannot be written (OSError, errno 28)" in said
    run.predictions.rmdir()
    run.predictions.with_name("predictions.kept").rename(run.predictions)
    assert 1 <= n_parts(run) < 9
    told: list[tuple[int, int]] = []
    infer(study, run, store=store, executor=InLine(), progress=lambda done, total: told.append((done, total)))
    assert told[0][0] >= 1
    assert tables(run) == undisturbed
    assert stored_once(run)


def test_recompute_computes_all_again_and_nothing_of_others(study: Study, store: Store, undisturbed: dict[str, Any]) -> None:
    infer(study, a_run(store, manifest(NAMES), name="all"), store=store, executor=InLine())
    run = a_run(store, manifest(NAMES[6:]), name="half")
    told: list[tuple[int, int]] = []
    infer(study, run, store=store, executor=InLine(), progress=lambda done, total: told.append((done, total)), recompute=True)
    assert (told[0], told[-1]) == ((0, 6), (6, 6))
    assert stored_once(run)
    told.clear()
    again = a_run(store, manifest(NAMES), name="again")
    infer(study, again, store=store, executor=InLine(), progress=lambda done, total: told.append((done, total)))
    assert told[0] == (11, 12)  # all but the transient one
    assert tables(again) == undisturbed


def test_portions_and_merged_parts_give_the_same_tables(
    study: Study, store: Store, monkeypatch: pytest.MonkeyPatch, undisturbed: dict[str, Any]
) -> None:
    monkeypatch.setattr(stage, "MOST_FILES", 30)  # two or three series of ten slices
    monkeypatch.setattr("ospor_batch.stages.prediction_store.MOST_PARTS", 1)
    run = a_run(store, manifest(NAMES))
    infer(study, run, store=store, executor=InLine())
    assert tables(run) == undisturbed
    assert n_parts(run) == 1
    told: list[tuple[int, int]] = []
    infer(study, run, store=store, executor=InLine(), progress=lambda done, total: told.append((done, total)))
    assert told[0] == (11, 12)
