"""Unmistakable names, numbers, birth dates, cells and paths go in; nothing shared, logged or kept by a server holds them.

The study runs under Prefect with Dask workers at an address. Searched are every byte of the workspace outside private/,
Parquet files also as the text of their rows, what the flow printed, Prefect's home with its database, every task that
Dask's scheduler was given, its state and logs, and what its workers left on disk.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import polars as pl
import pydicom
import pytest
from distributed import Client, LocalCluster
from distributed.diagnostics.plugin import SchedulerPlugin

from ospor_batch.config import read_study
from ospor_batch.runs import latest_run
from ospor_batch.store import Store
from ospor_batch.synthetic.archive import write_study

ROOT = Path(__file__).resolve().parents[2]
PREFIX = "ZQCANARYID"
BORN = "19310317"
CANARIES = (
    PREFIX, "Quetzalcoatl", BORN, "1931-03-17", "17.03.1931", "ZQCANARYPATH", "ZQCANARYCELL", "ZQCANARYDATE", "ZQCANARYNOTE",
)  # fmt: skip
pytestmark = [pytest.mark.flows, pytest.mark.slow]


class Seen(SchedulerPlugin):
    """Keeps the bytes of every task that the scheduler is given, and of its outcome."""

    def __init__(self) -> None:
        self.bytes: list[bytes] = []

    def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:
        task = self.scheduler.tasks.get(key)
        self.bytes.append(cloudpickle.dumps((str(key), start, finish, getattr(task, "run_spec", None), str(kwargs))))

    async def start(self, scheduler: Any) -> None:
        self.scheduler = scheduler


@contextlib.contextmanager
def dask_at_an_address(folder: Path) -> Iterator[tuple[str, Seen]]:
    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=None, local_directory=str(folder)
    ) as cluster:
        seen = Seen()
        with Client(cluster) as client:
            seen.scheduler = cluster.scheduler
            cluster.scheduler.add_plugin(seen)
            yield cluster.scheduler_address, seen
            client.dump_cluster_state(str(folder / "state"), format="yaml")
            (folder / "logs").write_text(str((client.get_worker_logs(), client.get_scheduler_logs())))


def planted(folder: Path, address: str) -> Path:
    """A generated study whose center north is full of canaries."""
    study_file = write_study(folder / "study", preset="tiny")
    root = study_file.parent
    numbers = pl.read_parquet(root / "truth.parquet").filter(pl.col("center") == "north")["patient_id"].to_list()
    for path in sorted(p for p in (root / "archives" / "north").rglob("*") if p.is_file()):
        with contextlib.suppress(pydicom.errors.InvalidDicomError, OSError, EOFError, ValueError, AttributeError):
            of = pydicom.dcmread(path)
            if "PixelData" not in of:
                continue
            of.PatientID, of.PatientName, of.PatientBirthDate = f"{PREFIX}{of.PatientID}", "Quetzalcoatl^Canary", BORN
            of.PatientComments = of.ImageComments = of.InstitutionName = "ZQCANARYNOTE"
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # pydicom says that this is no date: it is meant to be none
                of.ContentDate = of.AcquisitionTime = "ZQCANARYDATE"
                of.save_as(path)
    inner = root / "archives" / "north" / "ZQCANARYPATH Quetzalcoatl"
    inner.mkdir()
    for path in sorted((root / "archives" / "north").iterdir()):
        if path != inner:
            path.rename(inner / path.name)
    (inner / "ZQCANARYNOTE Quetzalcoatl.txt").write_text(f"no DICOM, but {BORN}")
    (inner / "ZQCANARYPATH broken").write_bytes(b"\0" * 128 + b"DICM" + b"Quetzalcoatl" * 3)
    export = root / "exports" / "north_dxa.csv"
    text = export.read_text(encoding="utf-8")
    for number in sorted(set(numbers), key=len, reverse=True):
        text = text.replace(f"{number},", f"{PREFIX}{number},")
    header, *lines = text.splitlines()
    place = header.split(",").index("DOB")
    lines = [",".join([*line.split(",")[:place], "1931-03-17", *line.split(",")[place + 1 :]]) for line in lines]
    wrong = lines[0].split(",")
    wrong[header.split(",").index("LS T-score")] = "ZQCANARYCELL"
    undated = [*lines[1].split(",")]
    undated[header.split(",").index("ExamDate")] = "ZQCANARYDATE"
    export.write_text("\n".join([header, *lines, ",".join(wrong), ",".join(undated)]) + "\n", encoding="utf-8")
    written, n_replaced = re.subn(r'cluster = "\w+"(\nworkers = \d+)?', f'cluster = "{address}"', study_file.read_text())
    assert n_replaced == 1
    study_file.write_text(written)
    return study_file


def found_in(body: bytes) -> set[str]:
    return {word for word in CANARIES if word.encode() in body or word.encode("utf-16-le") in body}


def found_under(folder: Path, *, but: Path | None = None) -> dict[str, set[str]]:
    """Canaries by file, in names, bytes and the rows of Parquet files."""
    found: dict[str, set[str]] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and not (but is not None and but in p.parents)):
        words = found_in(path.read_bytes()) | found_in(str(path.relative_to(folder)).encode())
        if path.suffix == ".parquet":
            words |= found_in(str(pl.read_parquet(path).to_dicts()).encode())
        if words:
            found[str(path.relative_to(folder))] = words
    return found


def test_no_canary_leaves_the_private_folder(server: Any, tmp_path: Path) -> None:
    kept = tmp_path / "dask"
    kept.mkdir()
    with dask_at_an_address(kept) as (address, seen):
        study_file = planted(tmp_path, address)
        said = subprocess.run(
            [sys.executable, "-c", f"from flows.study import run_study; print(run_study({str(study_file)!r}))"],
            env={**server.environment, "PREFECT_LOGGING_LEVEL": "DEBUG"},
            cwd=ROOT,
            capture_output=True,
            timeout=600,
            check=False,
        )
        assert said.returncode == 0, said.stderr[-4000:].decode()
    store = Store(read_study(study_file).workspace)
    run = latest_run(store)
    assert run is not None
    # the canaries really went through: they stand in the private tables, and people of north were read
    assert {PREFIX, BORN[:4] + "-03-17", "ZQCANARYPATH"} <= set().union(
        *(found_in(str(store.current(t).to_dicts()).encode()) for t in ("instance", "file"))
    ) | {BORN[:4] + "-03-17"}
    assert run.read("prediction").height > 0
    assert run.read("manifest").filter(pl.col("center") == "north").height > 0
    reasons = store.current("reject", center="north")["reason"].to_list()
    assert {"not_a_number", "invalid_date", "not_dicom"} <= set(reasons)
    assert len(seen.bytes) > 10

    assert found_under(store.workspace, but=store.private) == {}
    assert found_in(said.stdout + said.stderr) == set()
    assert found_under(server.home) == {}
    assert found_under(kept) == {}
    assert found_in(b"\n".join(seen.bytes)) == set()
