"""Fixtures of the cohort tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import polars as pl
import pytest

from ospor_batch.cohort.build import Question
from ospor_batch.cohort.criteria import compile_steps
from ospor_batch.config import Match
from tests.cohort.rows import GOOD_LABEL, GOOD_SERIES, completed, hexed

Rows = Callable[..., pl.DataFrame]


@pytest.fixture
def series() -> Rows:
    """series(dict(patient_key="A", study_key="A1", series_key="A1a", ...), ...)"""
    return lambda *rows: completed("series", list(rows), GOOD_SERIES)


@pytest.fixture
def labels() -> Rows:
    """labels(dict(patient_key="A", label_key="LA", ...), ...); with the accession number of the exam."""

    def made(*rows: dict[str, Any]) -> pl.DataFrame:
        numbers = pl.Series("exam_accession_number", [row.get("exam_accession_number") for row in rows], dtype=pl.String)
        bare = [{k: v for k, v in row.items() if k != "exam_accession_number"} for row in rows]
        keys = [hexed(row["label_key"]) for row in rows]
        of_exam = pl.DataFrame({"label_key": pl.Series(keys, dtype=pl.String)}).with_columns(numbers)
        return completed("label", bare, GOOD_LABEL).join(of_exam, on="label_key", how="left")

    return made


@pytest.fixture
def no_overrides() -> pl.DataFrame:
    return pl.DataFrame(schema={"study_key": pl.String, "series_key": pl.String})


@pytest.fixture
def question(key: bytes) -> Callable[..., Question]:
    """A question with default settings; keywords replace any of them."""

    def made(**changes: Any) -> Question:
        settings: dict[str, Any] = {
            "recipe": "mean_hu",
            "reference_id": "dxa",
            "match": Match(),
            "steps": compile_steps(()),
            "centers": ("north",),
            "target": "osteoporosis",
            "label_dates": None,
            "linkage_warning_below": 0.5,
            "seed": 7,
            "key": key,
        }
        return Question(**{**settings, **changes})

    return made
