"""The command line: help worth reading, one summary for machines, and an exit code that says who must act."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

from ospor_batch.cli import app
from ospor_batch.contracts import contract_names


def ospor(*words: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    import os

    return subprocess.run(
        [sys.executable, "-m", "ospor_batch.cli", *words],
        cwd=cwd,
        env={**os.environ, "COLUMNS": "200", **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_help_names_every_command_and_the_exit_codes() -> None:
    said = ospor("--help")
    assert said.returncode == 0
    known = "demo init check run sweep status rejects synth contract doctor crawl catalog label match infer montage "
    for command in (known + "seal-calibration write-calibration").split():
        assert command in said.stdout
    assert "12 ledger does not close" in " ".join(said.stdout.split())


@pytest.mark.parametrize("command", ["run", "check", "status", "rejects", "crawl", "infer", "demo", "synth"])
def test_every_command_has_help(command: str) -> None:
    said = ospor(command, "--help")
    assert said.returncode == 0
    assert "Usage" in said.stdout


def test_every_command_can_answer_a_machine() -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    options = {name: {option for of in command.params for option in of.opts} for name, command in group.commands.items()}
    assert len(options) > 30
    assert [name for name, known in options.items() if "--json" not in known] == []


def test_a_stage_that_runs_alone_prints_its_ledger_for_machines(tmp_path: Path) -> None:
    made = ospor("synth", str(tmp_path), "--preset", "tiny", "--json")
    assert [Path(study["study"]).name for study in json.loads(made.stdout)["studies"]] == ["study.toml"]
    (study,) = tmp_path.glob("**/study.toml")
    said = ospor("crawl", str(study), "--json", OSPOR_KEY="0" * 64)
    stages = json.loads(said.stdout)["stages"]
    assert {(stage["stage"], stage["closes"]) for stage in stages} == {("crawl", True)}, said.stderr
    assert all(stage["requested"] == stage["done"] + stage["excluded"] + stage["failed"] > 0 for stage in stages)


def test_a_missing_study_file_is_said_without_a_traceback(tmp_path: Path) -> None:
    said = ospor("run", str(tmp_path / "none.toml"))
    assert said.returncode == 10
    assert "no such study file" in said.stderr
    assert "Traceback" not in said.stderr


def test_a_generated_study_of_no_such_name_ends_with_code_10_and_the_names(tmp_path: Path) -> None:
    said = ospor("synth", str(tmp_path / "out"), "--preset", "paper-ct", "--study", "ct_bmd")
    assert said.returncode == 10
    assert "study 'ct_bmd': preset paper-ct has ct_cnn_smi, ct_bmd_tbs" in said.stderr
    assert not (tmp_path / "out").exists()


def test_a_misspelt_key_ends_with_code_10_before_any_work(tmp_path: Path) -> None:
    assert ospor("init", str(tmp_path / "new")).returncode == 0
    study = tmp_path / "new" / "study.toml"
    study.write_text(study.read_text().replace("before_days", "befor_days"))
    said = ospor("run", str(study))
    assert said.returncode == 10
    assert "match.befor_days: unknown key; did you mean 'before_days'?" in said.stderr
    assert not (tmp_path / "new" / "workspace").exists()


def test_a_missing_key_ends_with_code_14(tmp_path: Path) -> None:
    ospor("init", str(tmp_path / "new"))
    said = ospor("run", str(tmp_path / "new" / "study.toml"), OSPOR_KEY="")
    assert said.returncode == 14
    assert "OSPOR_KEY" in said.stderr


def test_a_missing_archive_ends_with_code_15_and_is_named(tmp_path: Path) -> None:
    ospor("init", str(tmp_path / "new"))
    said = ospor("run", str(tmp_path / "new" / "study.toml"), OSPOR_KEY="a-key-that-is-long-enough")
    assert said.returncode == 15
    assert "north" in said.stderr
    assert "archives" in said.stderr


def test_a_contract_is_printed_and_an_unknown_one_is_refused() -> None:
    said = ospor("contract", "series")
    assert "scanner_vendor" in said.stdout
    assert json.loads(ospor("contract", "series", "--json").stdout)["name"] == "series"
    assert ospor("contract", "seris").returncode == 11
    assert set(contract_names()) <= set(ospor("contract").stdout.split())


def test_doctor_finds_no_fault_in_the_environment_of_the_tests() -> None:
    said = ospor("doctor", "--json")
    assert said.returncode == 0, said.stdout
    assert {"pydicom", "telemetry", "disk"} <= {f["subject"] for f in json.loads(said.stdout)["findings"]}


def test_wrong_usage_is_code_2() -> None:
    assert ospor("run").returncode == 2
