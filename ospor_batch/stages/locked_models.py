"""The models of the last complete run for a night that must not train."""

from __future__ import annotations

import polars as pl

from ospor_batch.config import Recipe, Study
from ospor_batch.contracts.table import schema_of
from ospor_batch.errors import NothingToDoError
from ospor_batch.models.bundle import read_spec
from ospor_batch.models.registry import kind_of
from ospor_batch.runs import Run, latest_run
from ospor_batch.stages.specs import declared_spec, models_folder
from ospor_batch.store import Store


def keep_models(study: Study, run: Run, *, store: Store) -> None:
    """Write `model` of a run from the last complete one: a sweep scores new images with the model and threshold that stand.

    NothingToDoError when a recipe has no model yet, or one that was trained with other parameters.
    """
    before = latest_run(store)
    rows = [_kept(study, recipe, run=run, before=before) for recipe in study.recipes if recipe.is_trained]
    run.write("model", pl.DataFrame(rows, schema=schema_of("model")))


def _kept(study: Study, recipe: Recipe, *, run: Run, before: Run | None) -> dict[str, object]:
    found = None
    if before is not None and before.has("model"):
        mine = before.read("model").filter(pl.col("recipe") == recipe.key).to_dicts()
        found = mine[0] if mine else None
    if found is None:
        raise NothingToDoError(
            f"sweep: recipe {recipe.key} has no model yet, and a sweep never trains; run `ospor-batch run STUDY` once"
        )
    said = read_spec(models_folder(run) / str(found["training_digest"]))
    trains = kind_of(recipe.name).trains
    reading = () if trains is None else trains.reading
    asked = dict(declared_spec(study, recipe).parameters)
    for name, value in asked.items():
        given = list(value) if isinstance(value, tuple) else value
        if name not in reading and said["parameters"].get(name) != given:
            raise NothingToDoError(
                f"sweep: recipe {recipe.key} was trained with {name} = {said['parameters'].get(name)!r}, the study file says "
                f"{value!r} now, and a sweep never trains; run `ospor-batch run STUDY` once"
            )
    return found
