"""The spec of a recipe as its study declares it: what cannot be is said before any work."""

from __future__ import annotations

from pathlib import Path

import pytest

from ospor_batch.config import read_study
from ospor_batch.errors import StudyError
from ospor_batch.stages.specs import declared_spec
from tests.test_config import GOOD

PHANTOM = """
[split]
train = 0.5
tuning = 0.2
internal_test = 0.3

[[references]]
id = "qct"
standard = "qct"
phantom_material = "caha"

[[recipes]]
name = "ldct_internal_calibration"
reference = "qct"
threshold = { fixed = 80 }
[recipes.parameters]
method = "phantom"
phantom_material = "caha"
phantom_rods = ["0 mg/cm3 18 mm", "75 mg/cm3 18 mm", "150 mg/cm3 18 mm"]
"""


def test_rods_are_read_from_the_study_file_and_of_another_mineral_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(GOOD + PHANTOM)
    study = read_study(path)
    said = dict(declared_spec(study, study.recipes[1]).parameters)
    assert said["phantom_rods"] == ("0 mg/cm3 18 mm", "75 mg/cm3 18 mm", "150 mg/cm3 18 mm")
    path.write_text(GOOD + PHANTOM.replace('phantom_material = "caha"', 'phantom_material = "k2hpo4"', 1))
    study = read_study(path)
    with pytest.raises(StudyError, match=r"its rods are caha, the reference qct is read on k2hpo4; .* set references.phantom_"):
        declared_spec(study, study.recipes[1])
