"""Example patients of a study: what must become of each is held against the study's own rules."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from ospor_batch.catalog.quality import DOUBTFUL, REMARKS, UNUSABLE
from ospor_batch.cohort.criteria import compile_steps
from ospor_batch.config import Criterion, Match, Reference, Study, read_study
from ospor_batch.errors import StudyError
from ospor_batch.labels.reference import check_reference
from ospor_batch.stages.assure import Example, assure

STUDY = """
assurance = "examples.toml"
[study]
name = "small"
pseudonym_key = { env = "NOT_READ_HERE" }
[[centers]]
name = "north"
archives = ["no folder is opened"]
[[centers.events]]
path = "no file is opened"
columns = { patient_id = "a", code = "b", start = "c" }
[[centers]]
name = "south"
archives = ["nor here"]
[[references]]
id = "dxa"
standard = "dxa_who"
[match]
before_days = 30
after_days = 180
[[criteria]]
name = "age 50 or older"
keep = "age_at_image >= 50"
[[criteria]]
name = "unenhanced"
rule = "unenhanced"
[[criteria]]
name = "no treatment between"
rule = "no_event_between"
codes = ["bone_drug"]
[split]
train = 0.6
internal_test = 0.4
external = { center = ["south"] }
[[recipes]]
name = "mean_hu"
reference = "dxa"
threshold = { fixed = 120.0 }
"""
EXAMPLES = """
[[patients]]
name = "an ordinary woman with a low hip"
exams = [{ femoral_neck_t = -2.6 }]
expect = { fate = "paired", category = "osteoporosis", gap_days = 10, partition = "train" }

[[patients]]
name = "elsewhere she is an external test"
center = "south"
exams = [{ femoral_neck_t = -2.6 }]
expect = { fate = "paired", partition = "external" }

[[patients]]
name = "49 years old"
series = [{ age_at_image = 49.9 }]
expect = { fate = "excluded", at = "age 50 or older" }

[[patients]]
name = "nobody knows how old"
series = [{ age_source = "none", age_at_image = 50 }, { modality = "MR" }]
expect = { fate = "image_only", at = "no_label" }

[[patients]]
name = "only an enhanced scan"
series = [{ contrast_evidence = "given" }]
exams = [{ femoral_neck_t = -2.6 }]
expect = { fate = "excluded", at = "unenhanced" }

[[patients]]
name = "an enhanced and a plain scan"
series = [{ contrast_evidence = "given" }, { contrast_evidence = "tag_absent" }]
exams = [{ lumbar_spine_t = -1.7, n_vertebrae = 4 }]
expect = { fate = "paired", category = "low_bone_mass" }

[[patients]]
name = "the label came too early"
exams = [{ femoral_neck_t = -2.6, exam_date = 2022-05-01 }]
expect = { fate = "image_only", at = "label_outside_window" }

[[patients]]
name = "treated between image and label"
exams = [{ femoral_neck_t = -2.6 }]
events = [{ code = "bone_drug", start_date = 2022-06-05 }]
expect = { fate = "image_only", at = "no treatment between" }

[[patients]]
name = "an event given for a center without a file of events"
center = "south"
exams = [{ femoral_neck_t = -2.6 }]
events = [{ code = "bone_drug", start_date = 2022-06-05 }]
expect = { fate = "image_only", at = "no treatment between" }

[[patients]]
name = "of two labels the nearer"
exams = [{ femoral_neck_t = -2.6, exam_date = 2022-06-20 }, { femoral_neck_t = -0.6, exam_date = 2022-06-03 }]
expect = { fate = "paired", category = "normal", gap_days = 2 }
"""


def study_with(folder: Path, examples: str, study: str = STUDY) -> Study:
    (folder / "study.toml").write_text(study)
    (folder / "examples.toml").write_text(examples)
    return read_study(folder / "study.toml")


def test_every_example_meets_its_expected_fate(tmp_path: Path) -> None:
    found = assure(study_with(tmp_path, EXAMPLES))
    assert {one.name: one.faults for one in found if one.faults} == {}
    assert len(found) == EXAMPLES.count("[[patients]]")
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == []  # no workspace was made


def test_a_changed_rule_of_the_study_is_told_by_the_examples_it_breaks(tmp_path: Path) -> None:
    changed = STUDY.replace("age_at_image >= 50", "age_at_image >= 40").replace("before_days = 30", "before_days = 60")
    broken = {one.name: one.faults for one in assure(study_with(tmp_path, EXAMPLES, changed)) if one.faults}
    assert broken == {
        "49 years old": (
            "fate: expected excluded, found image_only",
            "at: expected age 50 or older, found label in the window / no_label",
        ),
        "the label came too early": (
            "fate: expected image_only, found paired",
            "at: expected label_outside_window, found nothing",
        ),
    }


@pytest.mark.parametrize(
    ("examples", "says"),
    [
        ("[[patients]]\nname = 'a'\nexpect = { fate = 'gone' }", "patients.0.expect.fate"),
        ("[[patients]]\nname = 'a'\nseries = [{ age = 4 }]\nexpect = { fate = 'excluded' }", "series has no column 'age'"),
        ("[[patients]]\nname = 'a'\nseries = [{ sex = 'f' }]\nexpect = { fate = 'excluded' }", "series: .*sex.enum"),
        ("[[patients]]\nname = 'a'\nrecipe = 'b'\nexpect = { fate = 'excluded' }", "recipe is 'b'"),
        ("[[patients", "not valid TOML"),
    ],
)
def test_an_example_that_cannot_be_read_is_named(tmp_path: Path, examples: str, says: str) -> None:
    with pytest.raises(StudyError, match=says):
        assure(study_with(tmp_path, examples))


def test_the_worked_example_is_written_in_words_that_a_study_understands() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "worked_example.md"
    if not page.is_file():
        pytest.skip("the documentation is not here")
    blocks = [
        "\n".join(line[4:] for line in block.splitlines()) for block in re.findall(r"(?:^ {4}.*\n)+", page.read_text(), re.M)
    ]
    read = [tomllib.loads(block) for block in blocks if re.search(r"^\[", block, re.M) and "$" not in block]
    assert sum("criteria" in of for of in read) >= 1
    for of in read:
        criteria = [Criterion.model_validate(one) for one in of.get("criteria", [])]
        assert compile_steps(criteria, findings=(*UNUSABLE, *DOUBTFUL, *REMARKS)).series
        for one in of.get("references", []):
            check_reference(Reference.model_validate(one))
        Match.model_validate(of.get("match", {}))
        for one in of.get("patients", []):
            Example.model_validate(one)


def test_examples_do_not_rename_a_study(tmp_path: Path) -> None:
    without = study_with(tmp_path, EXAMPLES, STUDY.replace('assurance = "examples.toml"', ""))
    assert without.digest() == study_with(tmp_path, EXAMPLES).digest()
    with pytest.raises(StudyError, match="names no examples"):
        assure(without)
