"""Which predictions of a run are a recipe's: the digests it was begun with, and of a trained recipe those of its model."""

from __future__ import annotations

import json

from ospor_batch.imaging.masks import MaskRule
from ospor_batch.models.spec import PredictorSpec
from ospor_batch.runs import Run

Digests = tuple[str, str]
"""Of model and of parameters."""


def models_of(run: Run) -> dict[str, Digests]:
    """Model and parameter digest of every recipe as they stand in the predictions; reads parts of the run alone."""
    found: dict[str, Digests] = {recipe: (of[1], of[2]) for recipe, of in json.loads(run.record["models"]).items()}
    if run.has("model"):
        for recipe, predictor, version in run.read("model").select("recipe", "predictor", "model_digest").iter_rows():
            trained = PredictorSpec(predictor, version, (), MaskRule("*", ()))
            found[recipe] = (trained.model_digest, found[recipe][1])
    return found
