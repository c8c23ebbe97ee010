"""What a study asks is held against itself before any work."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from ospor_batch.cohort.estimand import doubts
from ospor_batch.config import Study

EVENTS = {"path": "e.csv", "columns": {"patient_id": "a", "code": "b", "start": "c"}}


def study(**changes: Any) -> Study:
    base: dict[str, Any] = {
        "study": {"name": "s", "pseudonym_key": {"env": "NOT_READ_HERE"}},
        "centers": [{"name": "north", "archives": ["n"]}, {"name": "south", "archives": ["s"]}],
        "references": [{"id": "dxa", "standard": "dxa_who"}],
        "recipes": [{"name": "mean_hu", "reference": "dxa", "threshold": {"fixed": 100}}],
    }
    return Study.model_validate({**base, **changes})


def test_dates_that_were_shifted_alike_raise_no_doubt():
    center = {"name": "n", "archives": ["n"], "date_shift": "trial-A", "events": [{**EVENTS, "date_shift": "trial-A"}]}
    assert doubts(study(centers=[center])) == []


def test_an_ordinary_study_raises_no_doubt():
    dates = [date(2022, 1, 1), date(2022, 12, 31)]
    assert doubts(study(analysis={"image_dates": dates, "label_dates": dates})) == []


@pytest.mark.parametrize(
    ("changes", "verdict", "says"),
    [
        ({"analysis": {"image_dates": [date(2022, 5, 1), date(2022, 4, 1)]}}, "fault", "image_dates ends before it begins"),
        (
            {"analysis": {"image_dates": [date(2022, 1, 1)] * 2, "label_dates": [date(2022, 7, 1)] * 2}},
            "fault", "no label of label_dates can lie in the window from -180 to +180",
        ),
        (
            {"split": {"tuning": 0.2, "internal_test": 0.8, "external": {"center": ["north", "south"]}}},
            "fault", "nobody is left",
        ),
        ({"match": {"linkage": "accession"}}, "fault", "no export maps accession_number"),
        ({"references": [{"id": "dxa", "standard": "dxa_z"}]}, "note", "has no class of osteoporosis"),
        (
            {"criteria": [{"name": "g", "rule": "no_event_between", "codes": ["fracture"]}]},
            "note", "g: not assessed at north, south",
        ),
        ({"criteria": [{"name": "g", "rule": "label_present"}]}, "note", "can be corrected for nobody else"),
        (
            {"centers": [{"name": "n", "archives": ["n"], "date_shift": "trial-A", "events": [EVENTS]}]},
            "fault", "date_shift is none, that of the archives trial-A",
        ),
    ],
)  # fmt: skip
def test_a_question_that_contradicts_itself_is_told(changes: dict[str, Any], verdict: str, says: str):
    found = doubts(study(**changes))
    assert [(doubt.verdict, says in doubt.said) for doubt in found] == [(verdict, True)]
