"""A sweep may die at any instruction, and two may start at once: the catalog ends as if nothing had happened."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import polars as pl
import pytest

from ospor_batch.errors import LockedError
from ospor_batch.store import Store
from tests.archive.made import ct, write, write_series
from tests.conftest import ROOT

from .test_catalog_nights import SPLIT_KEY, Center, assert_equal, nifti, night, tables
from .test_crawl import study_of

SEED = 20261121
BY_CALLS, BY_TIME = 13, 7
BEGIN = f"""
import os, signal, sys, time
from pathlib import Path
from ospor_batch.compute.executor import InLine
from ospor_batch.stages import crawl as stage
from ospor_batch.stages.catalog import catalog
from ospor_batch.store import Store, together
from tests.stages.test_crawl import study_of
import deltalake, pydicom
stage.PART_FILES, stage.FIRST_TIMES = 3, 1
together.MOST_TOGETHER, together.RUN_ROWS = 12, 5  # a first crawl parts its rows over buckets, in commits of five
def sweep(folder, last_call):
    n_calls = 0
    def count(frame, event, _):
        nonlocal n_calls
        n_calls += 1
        if n_calls == last_call:
            os.kill(os.getpid(), signal.SIGKILL)
    study = study_of(Path(folder))
    started = time.monotonic()
    if last_call >= 0:
        sys.setprofile(count)
    store = Store(study.workspace)
    stage.crawl(study, "north", store=store, executor=InLine(), key=b"test-key-0123456789")
    catalog(study, "north", store=store, key=b"test-key-0123456789", split_key={SPLIT_KEY!r})
    sys.setprofile(None)
    return f"{{n_calls}} {{time.monotonic() - started}}"
print("ready", flush=True)
"""
SWEEP = BEGIN + "print(sweep(sys.argv[1], int(sys.argv[2])), flush=True)"
# one process that imports once, and forks for every sweep: nothing has started a thread yet
NURSERY = (
    BEGIN
    + """
for line in sys.stdin:
    folder, last_call = line.rstrip("\\n").split("\\t")
    child = os.fork()
    if not child:
        said = sweep(folder, int(last_call))
        Path(folder, "said").write_text(said)
        os._exit(0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
)


def begun(*words: str) -> subprocess.Popen[str]:
    """A process that has imported all it needs."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "POLARS_MAX_THREADS": "2"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process: subprocess.Popen[str] = subprocess.Popen([sys.executable, "-c", *words], env=env, text=True, cwd=ROOT, **pipes)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


class Attempts:
    """An archive that changed after its first night, and workspaces before and after that night."""

    def __init__(self, folder: Path, key: bytes) -> None:
        self.folder = folder
        center = Center(folder, key)
        for number in range(1, 5):
            write_series(center.archive / f"f{number}", n=4, series=number)
        night(center)
        night(center)  # the folders are remembered by now
        (folder / "workspace").rename(folder / "before")
        write_series(center.archive / "f9", n=4, series=9)
        write(ct(series=1, slice_=0, SeriesDescription="told anew"), center.archive / "f1" / "s1-000.dcm")
        write(ct(series=2, slice_=1), center.archive / "copy.dcm")
        (center.archive / "f3" / "s3-000.dcm").unlink()
        (center.archive / "f4").rename(center.archive / "f8")
        (center.archive / "f2" / "mask.nii.gz").write_bytes(nifti(1))
        self.center = center
        self.n_made = 0

    def begin(self, *, is_first: bool) -> Path:
        """A folder with the changed archive and the workspace of the night before, or none."""
        self.n_made += 1
        folder = self.folder / f"attempt-{self.n_made}"
        folder.mkdir()
        (folder / "archive").symlink_to(self.folder / "archive")
        if not is_first:
            shutil.copytree(self.folder / "before", folder / "workspace")
        return folder

    def start(self, folder: Path) -> subprocess.Popen[str]:
        return begun(SWEEP, str(folder), "-1")

    def rerun(self, folder: Path) -> dict[str, pl.DataFrame]:
        of = Center.__new__(Center)
        of.folder, of.key, of.archive, of.study = folder, self.center.key, folder / "archive", study_of(folder)
        of.store = Store(of.study.workspace)
        night(of)
        return tables(of.store)


def rest(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=60)
    return said


@pytest.fixture(scope="module")
def attempts(tmp_path_factory: pytest.TempPathFactory) -> Attempts:
    return Attempts(tmp_path_factory.mktemp("killed"), b"test-key-0123456789")


@pytest.mark.slow
def test_a_sweep_killed_anywhere_and_run_again_gives_the_undisturbed_catalog(attempts: Attempts) -> None:
    whole = attempts.begin(is_first=False)
    with begun(NURSERY) as nursery:
        assert swept(nursery, whole, last_call=0) == 0
        n_calls, seconds = (whole / "said").read_text().split()
        expected = tables(Store(whole / "workspace"))
        assert expected["instance"].height == 20
        of = random.Random(SEED)
        n_killed = 0
        for number in range(BY_CALLS + BY_TIME):
            folder = attempts.begin(is_first=number % 2 == 1)
            if number < BY_CALLS:
                status = swept(nursery, folder, last_call=of.randrange(1, int(n_calls)))
            else:  # without the counting, a sweep is faster
                status = swept(nursery, folder, kill_after_s=of.uniform(0, 0.6 * float(seconds)))
            n_killed += status == -signal.SIGKILL
            assert_whole(Store(folder / "workspace"))
            assert_equal(attempts.rerun(folder), expected)
            assert not list((folder / "workspace" / "private" / "staging").rglob("*"))
        assert n_killed >= BY_CALLS


def swept(nursery: subprocess.Popen[str], folder: Path, *, last_call: int = -1, kill_after_s: float | None = None) -> int:
    """The exit status of a sweep that kills itself at a call (0: only counts them), or is killed after some seconds."""
    assert nursery.stdin is not None
    assert nursery.stdout is not None
    print(folder, last_call, sep="\t", file=nursery.stdin, flush=True)
    child = int(nursery.stdout.readline())
    if kill_after_s is not None:
        time.sleep(kill_after_s)
        with contextlib.suppress(ProcessLookupError):  # it was faster
            os.kill(child, signal.SIGKILL)
    return int(nursery.stdout.readline())


def assert_whole(store: Store) -> None:
    """What a reader finds now is a commit as it was made: every file has one fate and every series its files."""
    at = store.snapshot()
    files = store.current("file", snapshot=at)
    fates = dict(files["fate"].value_counts().iter_rows())
    rejects = store.current("reject", snapshot=at)
    instances = store.current("instance", snapshot=at)
    assert instances.height == fates.get("instance", 0)
    assert rejects.filter(stage="crawl").height == fates.get("reject", 0)
    assert set(instances["file_key"]) == set(files.filter(fate="instance")["file_key"])
    series, locator = store.current("series", snapshot=at), store.current("locator", snapshot=at)
    images = locator.filter(kind="image").group_by("series_key").len()
    assert images.sort("series_key")["len"].to_list() == series.sort("series_key")["n_instances"].to_list()


def test_of_two_sweeps_at_once_one_is_refused_and_the_other_is_whole(attempts: Attempts) -> None:
    folder = attempts.begin(is_first=True)
    store = Store(folder / "workspace")
    with store.lock():
        process = attempts.start(folder)
        rest(process)
        assert process.returncode == 1  # LockedError, uncaught in this script
    assert store.snapshot() == {}
    both = [attempts.start(folder), attempts.start(folder)]
    for process in both:
        rest(process)
    assert 0 in {process.returncode for process in both}
    assert_whole(store)
    with store.lock(), pytest.raises(LockedError), Store(folder / "workspace").lock():
        pass


def test_readers_beside_a_sweep_see_whole_commits_only(attempts: Attempts) -> None:
    folder = attempts.begin(is_first=False)
    ended, n_reads, faults = threading.Event(), 0, list[BaseException]()

    def read() -> None:
        nonlocal n_reads
        store = Store(folder / "workspace")
        while not ended.is_set():
            try:
                assert_whole(store)
            except BaseException as error:  # noqa: BLE001 -- a thread's failure must reach the test
                faults.append(error)
                return
            n_reads += 1

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(2):
            rest(attempts.start(folder))
            store = Store(folder / "workspace")
            store.compact()
            store.vacuum(keep=[])
            (attempts.folder / "archive" / "late.dcm").unlink(missing_ok=True)
            write(ct(series=9, slice_=7), attempts.folder / "archive" / "late.dcm")
    finally:
        ended.set()
        reader.join()
        (attempts.folder / "archive" / "late.dcm").unlink(missing_ok=True)
    assert faults == []
    assert n_reads > 3
