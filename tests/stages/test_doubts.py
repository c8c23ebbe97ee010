"""What the catalog leaves to people can be read at the command line: words without a place, and numbers that collide."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ospor_batch.cli import app
from ospor_batch.stages.catalog import catalog
from tests.archive.made import uid, write_series

from .test_crawl import Center
from .test_site_rules import written

SPLIT_KEY = b"split-key-0123456789"


@pytest.fixture
def study_file(tmp_path: Path, key: bytes) -> str:
    """A catalog of three studies: one of an unknown vendor, and one number with two sexes in two folders."""
    center = Center(tmp_path, key)
    write_series(center.archive / "a", n=3, Manufacturer="Acme\tImaging", PatientID="P-9")
    write_series(center.archive / "b", n=3, series=2, StudyInstanceUID=uid(200))
    write_series(center.archive / "c", n=3, series=3, StudyInstanceUID=uid(300), PatientSex="M")
    center.crawl()
    study = written(tmp_path, "")
    assert study.workspace == center.study.workspace
    catalog(study, "north", store=center.store, key=key, split_key=SPLIT_KEY)
    return str(tmp_path / "study.toml")


def said(*words: str) -> str:
    found = CliRunner().invoke(app, list(words))
    assert found.exit_code == 0, found.output
    return found.output


def told(*words: str) -> dict[str, Any]:
    return dict(json.loads(said(*words, "--json")))


def test_words_that_no_list_places_are_told_with_how_often_they_stand(study_file: str) -> None:
    lines = said("words", study_file).splitlines()
    assert lines[0].split("\t") == ["center", "kind", "scanner_vendor", "written", "n_series"]
    assert "north\tvendor\tother\tAcme Imaging\t1" in lines
    assert {row["kind"] for row in told("words", study_file)["words"]} == {"kernel", "vendor"}


def test_numbers_that_collide_are_told_by_key_and_on_request_by_folder(study_file: str) -> None:
    (row,) = told("collisions", study_file)["collisions"]
    assert (row["kind"], row["n_series"], row["where"]) == ("two_sexes", 2, row["item_key"])
    located = told("collisions", study_file, "--locate")["collisions"]
    assert [Path(row["where"]).name for row in located] == ["b", "c"]
    assert "archive" not in said("collisions", study_file)


def test_a_name_that_would_move_the_cursor_is_written_out(tmp_path: Path, key: bytes) -> None:
    center = Center(tmp_path, key)
    center.archive.mkdir(parents=True, exist_ok=True)
    (center.archive / "\x1b[2J\tnote.txt").write_bytes(b"no DICOM")
    center.crawl()
    written(tmp_path, "")
    (line,) = said("rejects", str(tmp_path / "study.toml"), "--locate").splitlines()[1:]
    assert line.replace("\t", "").isprintable()
    assert line.endswith("\\x1b[2J note.txt")


def test_a_catalog_that_has_yet_to_follow_a_crawl_is_no_fault_of_the_ledger(tmp_path: Path, key: bytes) -> None:
    center = Center(tmp_path, key)
    write_series(center.archive / "a", n=3)
    center.crawl()
    study, study_file = written(tmp_path, ""), str(tmp_path / "study.toml")
    assert [stage["stage"] for stage in told("status", study_file)["stages"]] == ["crawl", "label"]
    catalog(study, "north", store=center.store, key=key, split_key=SPLIT_KEY)
    stages = {stage["stage"]: stage for stage in told("status", study_file)["stages"]}
    assert stages["catalog"]["requested"] == stages["catalog"]["done"] == 3
