"""Wrong input of every kind: a message that names what is wrong, its exit code, nothing lost, a run that completes after."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from ospor_batch.config import read_study
from ospor_batch.plan import agenda, run_step
from ospor_batch.runs import all_runs, latest_run
from ospor_batch.store import Store
from ospor_batch.synthetic.archive import write_study

SEGMENTATION = b"1.2.840.10008.5.1.4.1.1.66.4"  # SOP class of a DICOM SEG, PS3.6
# root reads every folder; a process of root without these capabilities does not
WITHOUT_RIGHTS = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")


def ospor(*words: str, prefix: tuple[str, ...] = (), wrap: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ospor_batch.cli", *words]
    if wrap:
        command = [sys.executable, "-c", wrap, *words]
    return subprocess.run(
        [*prefix, *command], capture_output=True, text=True, timeout=300, check=False, env={**os.environ, "COLUMNS": "200"}
    )


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated study of one recipe that nobody has run yet."""
    study = write_study(tmp_path_factory.mktemp("sound"), preset="tiny")
    before, first, second = study.read_text().split("[[recipes]]\n")
    study.write_text(f"{before}[[recipes]]\n{first}{second[second.index('[tables]') :]}")
    return study.parent


@pytest.fixture(scope="module")
def finished(sound: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same once it was run."""
    shutil.copytree(sound, there := tmp_path_factory.mktemp("finished") / "study")
    completes(there / "study.toml")
    return there


@pytest.fixture
def ran(finished: Path, tmp_path: Path) -> Path:
    """A copy of it, to be spoiled after the run."""
    shutil.copytree(finished, tmp_path / "ran", symlinks=True)
    return tmp_path / "ran" / "study.toml"


@pytest.fixture
def study(sound: Path, tmp_path: Path) -> Path:
    """A copy of it, to be spoiled."""
    shutil.copytree(sound, tmp_path / "study")  # copy2 keeps the times of the files
    return tmp_path / "study" / "study.toml"


def swap(study: Path, old: str, new: str) -> None:
    text = study.read_text()
    assert old in text
    study.write_text(text.replace(old, new, 1))


def completes(study: Path) -> None:
    said = ospor("run", str(study), "--json")
    assert said.returncode == 0, said.stderr
    assert json.loads(said.stdout)["closes"] is True


def refused(study: Path, code: int, *words: str) -> str:
    said = ospor("run", str(study))
    assert said.returncode == code, said.stdout + said.stderr
    assert "Traceback" not in said.stderr
    for word in words:
        assert word in said.stderr, said.stderr
    return said.stderr


def test_a_missing_archive_is_named_and_work_done_before_is_kept(study: Path) -> None:
    moved = study.parent / "archives" / "elsewhere"
    (study.parent / "archives" / "east").rename(moved)
    refused(study, 15, "east", "archives")
    store = Store(read_study(study).workspace)
    known = store.current("file", center="north").height
    assert known > 0
    moved.rename(study.parent / "archives" / "east")
    completes(study)
    assert store.current("file", center="north").height == known


def test_an_archive_that_vanishes_later_never_empties_the_catalog(ran: Path) -> None:
    store = Store(read_study(ran).workspace)
    known = store.current("instance", center="east").height
    assert known > 0
    (ran.parent / "archives" / "east").rename(ran.parent / "unmounted")
    refused(ran, 15, "east")
    assert store.current("instance", center="east").height == known


def test_an_empty_archive_is_no_archive(study: Path) -> None:
    shutil.rmtree(study.parent / "archives" / "north")
    (study.parent / "archives" / "north").mkdir()
    refused(study, 15, "north", "empty")


def test_a_folder_that_may_not_be_listed_is_said_and_its_files_are_not_gone(ran: Path) -> None:
    if os.getuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("root reads every folder, and setpriv, which takes that right away, is not installed")
    store = Store(read_study(ran).workspace)
    known = store.current("instance", center="north").height
    folder = next(p for p in sorted((ran.parent / "archives" / "north").iterdir()) if p.is_dir())
    folder.chmod(0)
    try:
        said = ospor("run", str(ran), "--json", prefix=WITHOUT_RIGHTS if os.getuid() == 0 else ())
    finally:
        folder.chmod(0o700)
    assert said.returncode == 0, said.stderr
    assert store.current("instance", center="north").height == known
    assert [r for r in rejects_of(ran) if r["reason"] == "permission_denied" and r["is_transient"]]
    completes(ran)
    assert not [r for r in rejects_of(ran) if r["reason"] == "permission_denied"]


def test_a_workspace_copied_with_links_followed_is_refused(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "copy")
    refused(tmp_path / "copy" / "study.toml", 16, "runs/latest", "symbolic link", "delete runs/latest")


def spoil_export(change: Callable[[str], str]) -> Callable[[Path], None]:
    def spoil(study: Path) -> None:
        export = study.parent / "exports" / "north_dxa.csv"
        export.write_text(change(export.read_text()))

    return spoil


def test_a_wrong_column_names_export_header_and_the_nearest(study: Path) -> None:
    spoil_export(lambda text: text.replace("ExamDate", "DateOfExam", 1))(study)
    refused(study, 10, "north_dxa.csv", "exam_date", "ExamDate", "DateOfExam")
    spoil_export(lambda text: text.replace("DateOfExam", "ExamDate", 1))(study)
    completes(study)


def test_a_wrong_unit_names_the_key(study: Path) -> None:
    swap(study, 'height_m = { column = "Height", unit = "cm" }', 'height_m = { column = "Height", unit = "kg" }')
    refused(study, 10, "height_m", "kg")


def test_a_unit_left_out_becomes_rejects_with_row_and_column(study: Path) -> None:
    swap(study, 'height_m = { column = "Height", unit = "cm" }', 'height_m = "Height"')
    completes(study)
    found = [r for r in rejects_of(study) if r["reason"] == "unit_mismatch"]
    assert found
    assert all("row" in r["detail"] and "Height" in r["detail"] for r in found)


def rejects_of(study: Path) -> list[dict[str, str]]:
    rejects: list[dict[str, str]] = json.loads(ospor("rejects", str(study), "--json").stdout)["rejects"]
    return rejects


def test_rejects_are_counted_by_reason_and_then_listed_a_line_each(finished: Path) -> None:
    study = finished / "study.toml"
    every = rejects_of(study)
    counted = ospor("rejects", str(study)).stdout
    assert f"{len(every)} rejects; --reason or --stage lists them" in counted
    for reason in {r["reason"] for r in every}:
        assert reason in counted  # whole, however narrow the screen
        lines = ospor("rejects", str(study), "--reason", reason, "--locate").stdout.splitlines()
        assert lines[0].split("\t") == ["center", "stage", "level", "reason", "detail", "path"]
        assert len(lines) == 1 + sum(r["reason"] == reason for r in every)
        assert {len(line.split("\t")) for line in lines} == {6}


def test_an_invalid_date_and_a_duplicate_exam_are_rejects_with_row_and_column(finished: Path) -> None:
    of = {r["reason"]: r for r in rejects_of(finished / "study.toml") if r["level"] == "export_row"}
    assert "ExamDate" in of["invalid_date"]["detail"]
    assert of["invalid_date"]["item_key"].startswith("exports/north_dxa.csv:")
    assert "row" in of["duplicate_exam"]["detail"]


def test_a_misspelt_key_of_the_study_file_stops_before_any_work(study: Path) -> None:
    swap(study, "before_days", "befor_days")
    refused(study, 10, "match.befor_days: unknown key; did you mean 'before_days'?")
    assert not (study.parent / "workspace").exists()


def test_a_missing_pseudonym_key_stops_before_any_work(study: Path) -> None:
    (study.parent / "pseudonym.key").unlink()
    refused(study, 14, "pseudonym_key", "pseudonym.key")


def test_a_criterion_on_an_unknown_column_is_named(study: Path) -> None:
    swap(study, "age_at_image >= 50", "age_at_imag >= 50")
    refused(study, 10, "age 50 or older", "age_at_imag", "age_at_image")
    said = ospor("check", str(study))
    assert said.returncode == 10
    assert "age_at_imag" in said.stdout


def test_check_of_a_sound_study_finds_nothing(study: Path) -> None:
    said = ospor("check", str(study), "--json")
    assert said.returncode == 0, said.stdout
    assert json.loads(said.stdout)["is_ready"] is True
    assert not (study.parent / "workspace").exists()


FULL = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
sys.argv = ["ospor-batch", *sys.argv[1:]]
from ospor_batch.cli import main
main()
"""


@pytest.mark.parametrize("limit", [2_000, 20_000, 60_000])
def test_a_full_disk_says_so_and_the_next_run_completes(study: Path, limit: int) -> None:
    said = ospor("run", str(study), wrap=FULL.format(limit=limit))
    assert said.returncode == 16, said.stdout + said.stderr
    assert "the disk that holds the workspace is full" in said.stderr
    assert "Traceback" not in said.stderr
    assert not list((study.parent / "workspace").rglob("*.unfinished"))
    completes(study)


@pytest.mark.parametrize("after", ["private/catalog/file", "private/catalog/label", "runs", "predictions"])
def test_ctrl_c_ends_with_130_and_the_next_run_completes(study: Path, after: str) -> None:
    command = [sys.executable, "-m", "ospor_batch.cli", "run", str(study)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    workspace, limit = study.parent / "workspace", time.monotonic() + 120
    while not (workspace / after).exists() and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 130, told
    assert "interrupted: finished work is kept" in told
    assert "Traceback" not in told
    assert latest_run(Store(workspace)) is None
    completes(study)


def test_a_study_without_masks_refuses_every_series_with_what_is_missing(study: Path) -> None:
    for path in [path for path in (study.parent / "archives").rglob("*") if path.is_file()]:
        with path.open("rb") as file:
            is_mask = ".nii" in path.name or SEGMENTATION in file.read(1000)
        if is_mask:
            path.unlink()
    for step in agenda(read_study(study)):
        run_step(read_study(study), step)
        if step.stage == "evaluate":
            break
    (run,) = all_runs(Store(read_study(study).workspace))
    found = run.read("reject").filter(pl.col("stage") == "infer")
    assert found.height > 0
    assert set(found["reason"]) == {"mask_missing"}
    assert set(found["detail"]) == {"no mask beside the images (NIfTI pattern *.nii*)"}
    assert not run.read("prediction").height
    for table in sorted((run.folder / "tables").glob("*.parquet")):
        rows = pl.read_parquet(table)
        assert not any(rows[name].is_nan().any() for name in rows.columns if rows[name].dtype.is_float()), table.stem


def test_nobody_left_is_said_with_the_step(study: Path) -> None:
    swap(study, "age_at_image >= 50", "age_at_image >= 120")
    refused(study, 18, "age 50 or older")


def test_a_second_run_at_the_same_time_is_refused(study: Path) -> None:
    store = Store(read_study(study).workspace)
    with store.lock():
        refused(study, 17, "another run or sweep")
    completes(study)
