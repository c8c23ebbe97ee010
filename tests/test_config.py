"""A study file is read whole or refused with the key, what was found and what was expected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ospor_batch.config import Study, json_schema, read_key, read_study
from ospor_batch.errors import KeyMissingError, StudyError
from ospor_batch.stages.begin import begin

GOOD = """
[study]
name = "small"
pseudonym_key = { env = "OSPOR_TEST_KEY" }

[[centers]]
name = "north"
archives = ["archives/north"]
[[centers.exports]]
path = "dxa.csv"
kind = "dxa"
[centers.exports.columns]
patient_id = "MRN"
exam_date = "Date"
lumbar_spine_t = "LS"
height_m = { column = "Height", unit = "cm" }
densitometer_vendor = { value = "hologic" }

[[references]]
id = "dxa"
standard = "dxa_who"

[[recipes]]
name = "mean_hu"
reference = "dxa"
threshold = { fixed = 110 }
"""


def study_of(folder: Path, text: str) -> Study:
    (folder / "study.toml").write_text(text)
    return read_study(folder / "study.toml")


def test_defaults_and_folder(tmp_path: Path) -> None:
    study = study_of(tmp_path, GOOD)
    assert study.match.window == "from -180 to +180"
    assert study.workspace == tmp_path / "workspace"
    assert study.recipes[0].key == "mean_hu"
    assert study.split.internal_test == 1.0
    assert study.centers[0].exports[0].columns["lumbar_spine_t"].column == "LS"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('["archives/north"]', '["a", "b", "a"]'), r"archives a stands more than once"),
        (('["archives/north"]', '[""]'), r"centers\.0\.archives\.0|archives"),
        (('name = "small"', 'name = "small"\nsede = 1'), r"study\.sede: unknown key; did you mean 'seed'\?"),
        (('kind = "dxa"', 'kind = "dexa"'), r"centers\.0\.exports\.0\.kind: found 'dexa'.*'dxa', 'qct' or 'body'"),
        (("lumbar_spine_t =", "lumbar_spin_t ="), r"columns has no 'lumbar_spin_t'; did you mean 'lumbar_spine_t'\?"),
        (('exam_date = "Date"\n', ""), r"columns must name exam_date"),
        (('reference = "dxa"', 'reference = "qct"'), r"recipes\.reference is 'qct', expected one of \['dxa'\]"),
        (("fixed = 110", 'fixed = 110, rule = "youden"'), r"give exactly one of"),
        (('[study]\nname = "small"', "[study]"), r"study\.name: missing"),
        (('{ env = "OSPOR_TEST_KEY" }', '"a-literal-key-of-some-length"'), r"study\.pseudonym_key"),
        (("[[references]]", "[split]\ntrain = 0.5\n[[references]]"), r"train \+ tuning \+ internal_test is 1\.5, expected 1"),
        (("[[references]]", '[compute.cpu]\ncluster = "slurmy"\n[[references]]'), r"cluster is 'slurmy', expected in_line"),
        (('standard = "dxa_who"', 'standard = "dxa_who"\nt_source = "computed"'), r"needs t_reference"),
        (("[study]", "[stduy]"), r"stduy: unknown key; did you mean 'study'\?"),
        (("[study]", "[study"), r"not valid TOML"),
    ],
)
def test_a_fault_names_key_found_and_expected(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    assert change[0] in GOOD
    with pytest.raises(StudyError, match=said) as caught:
        study_of(tmp_path, GOOD.replace(*change))
    assert caught.value.exit_code == 10


def test_all_faults_come_at_once(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="2 faults"):
        study_of(tmp_path, GOOD.replace('kind = "dxa"', 'kind = "dexa"').replace('name = "small"', 'name = "small"\nsede = 1'))


def test_a_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="no such study file; `ospor-batch init DIR`"):
        read_study(tmp_path / "none.toml")


def test_the_key_comes_from_the_environment_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = study_of(tmp_path, GOOD)
    monkeypatch.delenv("OSPOR_TEST_KEY", raising=False)
    with pytest.raises(KeyMissingError, match="environment variable OSPOR_TEST_KEY holds 0 characters") as caught:
        read_key(study)
    assert caught.value.exit_code == 14
    monkeypatch.setenv("OSPOR_TEST_KEY", "short")
    with pytest.raises(KeyMissingError, match="expected at least 16"):
        read_key(study)
    monkeypatch.setenv("OSPOR_TEST_KEY", " a-key-that-is-long-enough\n")
    assert read_key(study) == b"a-key-that-is-long-enough"
    by_file = study_of(tmp_path, GOOD.replace('env = "OSPOR_TEST_KEY"', 'file = "secret.key"'))
    with pytest.raises(KeyMissingError, match="secret.key cannot be read"):
        read_key(by_file)
    (tmp_path / "secret.key").write_text("another-key-that-is-long\n")
    assert read_key(by_file) == b"another-key-that-is-long"


def test_the_digest_follows_the_analysis_and_not_the_cluster(tmp_path: Path) -> None:
    plain = study_of(tmp_path, GOOD).digest()
    assert study_of(tmp_path, GOOD + '\n[compute.cpu]\ncluster = "local"\n').digest() == plain
    assert study_of(tmp_path, GOOD + "\n[match]\nafter_days = 90\n").digest() != plain


def test_what_init_writes_is_a_study(tmp_path: Path) -> None:
    written = begin(tmp_path / "new")
    assert read_study(written[0]).recipes[0].name == "mean_hu"
    with pytest.raises(StudyError, match="already there; nothing was written"):
        begin(tmp_path / "new")


def test_editors_get_a_schema() -> None:
    schema: dict[str, Any] = json_schema()
    assert {"study", "centers", "references", "recipes"} <= set(schema["required"])
    assert "folder" not in schema["properties"]
