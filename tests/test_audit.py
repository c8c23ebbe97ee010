"""Commands that look back: what they print, and the exit codes they end with."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ospor_batch.cli import app
from ospor_batch.errors import StudyError
from tests.stages.test_assure import EXAMPLES, STUDY, study_with


@pytest.fixture
def run() -> CliRunner:
    return CliRunner()


def test_assure_ends_with_10_when_an_example_meets_another_fate(run: CliRunner, tmp_path: Path) -> None:
    study_with(tmp_path, EXAMPLES)
    kept = run.invoke(app, ["assure", str(tmp_path / "study.toml")])
    assert kept.exit_code == 0, kept.output
    assert "10 examples, 0 not as expected" in kept.output
    study_with(tmp_path, EXAMPLES, STUDY.replace(">= 50", ">= 40"))
    broken = run.invoke(app, ["assure", str(tmp_path / "study.toml"), "--json"])
    assert broken.exit_code == StudyError.exit_code
    body = json.loads(broken.stdout)
    assert (body["n_examples"], body["n_broken"]) == (10, 1)


def test_cut_offs_are_printed_with_their_sources(run: CliRunner) -> None:
    said = run.invoke(app, ["cut-offs", "--standard", "qct"])
    assert said.exit_code == 0
    assert "below 80 mg/cm3 [V]" in said.output
    assert isinstance(run.invoke(app, ["cut-offs", "--standard", "dxa"]).exception, StudyError)


def test_init_proposes_a_study_from_an_export_and_never_overwrites(run: CliRunner, tmp_path: Path) -> None:
    export = tmp_path / "dxa.csv"
    export.write_text("MRN,ExamDate,LS T-score\n1,2022-01-31,-1.0\n")
    said = run.invoke(app, ["init", str(tmp_path / "study"), "--from-export", str(export)])
    assert said.exit_code == 0, said.output
    body = tomllib.loads((tmp_path / "study" / "study.toml").read_text())
    assert body["centers"][0]["exports"][0]["path"] == "../dxa.csv"
    assert body["centers"][0]["exports"][0]["columns"]["lumbar_spine_t"] == "LS T-score"
    again = run.invoke(app, ["init", str(tmp_path / "study"), "--from-export", str(export)])
    assert isinstance(again.exception, StudyError)


@pytest.mark.parametrize("words", [["trace", "nowhere", "prevalence", "n_events"], ["diff", "a", "b"], ["accept", "nowhere"]])
def test_a_folder_that_is_no_run_is_said_to_be_none(run: CliRunner, tmp_path: Path, words: list[str]) -> None:
    said = run.invoke(app, words)
    assert isinstance(said.exception, StudyError)
    assert "expected a folder such as WORKSPACE/runs/latest" in str(said.exception)
