"""Whom a recipe learns from: what is known beside the target does not make up for the target."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from ospor_batch.models import cxr_osteoporosis
from ospor_batch.stages import training_rows


def test_a_series_without_the_target_is_refused_though_sex_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = pl.DataFrame(
        {
            "item_digest": ["a", "b"], "partition": ["train", "train"], "recipe": ["film", "film"],
            "is_performance_index": [True, True], "is_osteoporosis": [True, None], "is_female": [True, False],
        }
    )  # fmt: skip
    monkeypatch.setattr(training_rows, "_with_exam", lambda manifest, *_, **__: manifest)
    run = SimpleNamespace(read=lambda _name: rows)
    parameters = {**cxr_osteoporosis.RECIPE.defaults, "also_learns": ("is_female",)}
    of: Any = {"run": run, "store": None, "of": cxr_osteoporosis.RECIPE, "parameters": parameters}
    study: Any = None
    recipe: Any = SimpleNamespace(key="film")
    found = training_rows.learners(study, recipe, **of)
    assert {item: refusal.reason for item, refusal in found.refused.items()} == {"b": "target_missing"}
    assert found.of("train")["item_digest"].to_list() == ["a"]
