"""The predictors by name; importing this file loads no weights and no torch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Literal

from ospor_batch import PREDICTORS_GROUP
from ospor_batch.contracts import contract
from ospor_batch.errors import StudyError
from ospor_batch.imaging.masks import MaskRule
from ospor_batch.imaging.regions import anatomical_order
from ospor_batch.models import (
    ct_bmd_tbs,
    ct_cnn_smi,
    ct_qct_bmd,
    cxr_osteoporosis,
    internal_calibration,
    mean_hu,
    smi_comparator,
)
from ospor_batch.models.bundle import bundle_digest, content_digest, read_spec
from ospor_batch.models.spec import PREPROCESSING, Parameter, Predictor, PredictorSpec
from ospor_batch.models.trainable import TrainableRecipe, check_training
from ospor_batch.models.trained import build_trained

WORDS: dict[type, str] = {str: "a word", bool: "true or false", int: "a whole number", float: "a number", tuple: "a list"}


@dataclass(frozen=True)
class Kind:
    """How a predictor is built, what its parameters are by default, whether it wants a GPU and what it reads."""

    build: Callable[[PredictorSpec], Predictor]
    version: str
    defaults: Mapping[str, Parameter]
    wants_gpu: bool
    reads_masks: bool
    reads: Literal["ct", "radiograph"] = "ct"
    negated_unit: str | None = None  # of a rule whose score is its value negated
    trains: TrainableRecipe | None = None  # of a recipe that is trained, or read from a model folder


def trained_kind(recipe: TrainableRecipe) -> Kind:
    """The predictor that a trained recipe is."""
    return Kind(
        functools.partial(build_trained, recipe),
        version=recipe.version,
        defaults=recipe.defaults,
        wants_gpu=recipe.wants_gpu,
        reads_masks=recipe.reads_masks,
        reads=recipe.reads,
        trains=recipe,
    )


PREDICTORS: dict[str, Kind] = {
    "ct_bmd_tbs": trained_kind(ct_bmd_tbs.RECIPE),
    "ct_cnn_smi": trained_kind(ct_cnn_smi.RECIPE),
    "ct_qct_bmd": trained_kind(ct_qct_bmd.RECIPE),
    "cxr_osteoporosis": trained_kind(cxr_osteoporosis.RECIPE),
    "ldct_internal_calibration": trained_kind(internal_calibration.RECIPE),
    "smi_comparator": trained_kind(smi_comparator.RECIPE),
    "mean_hu": Kind(
        mean_hu.build_mean_hu,
        version=mean_hu.VERSION,
        defaults=mean_hu.DEFAULTS,
        wants_gpu=False,
        reads_masks=True,
        negated_unit="HU",
    ),
}


def spec_of(
    name: str,
    *,
    parameters: Mapping[str, Parameter],
    pattern: str,
    labels: Mapping[str, int],
    device: str = "cpu",
    folder: Path | None = None,
) -> PredictorSpec:
    """The frozen spec with defaults written out; StudyError names a parameter, level or label that cannot be.

    folder: of a trained model, whose own parameters then hold; without it a recipe that is trained has a spec that names
    what will be trained and cannot be built.
    """
    kind = kind_of(name)
    if unknown := sorted(set(parameters) - set(kind.defaults)):
        raise StudyError(f"recipes.parameters of {name}: unknown {', '.join(unknown)}; it has {', '.join(kind.defaults)}")
    if kind.reads_masks:
        _refuse_labels(labels)
    full = {**kind.defaults, **parameters}
    version = kind.version
    if folder is not None and kind.trains is None:
        version = f"{kind.version}+{content_digest(folder)}"
    elif folder is not None:
        full, version = _as_trained(name, folder, asked=parameters), bundle_digest(folder)
    _refuse_types(name, full, defaults=kind.defaults)
    if kind.trains is not None:
        check_training(full)
        kind.trains.check(full)
    levels = full.get("levels")
    if levels is not None and kind.reads_masks:
        full["levels"] = _entering(name, levels, is_given="levels" in parameters, labels=labels)
    return PredictorSpec(
        predictor=name,
        version=version,
        parameters=tuple(sorted(full.items())),
        masks=MaskRule(pattern, tuple(sorted(labels.items(), key=lambda item: anatomical_order(item[0])))),
        device=device,
        folder="" if folder is None else str(folder.absolute()),
    )


@functools.cache
def predictor_here(spec: PredictorSpec) -> Predictor:
    """The predictor of this process; built at the first call and kept, so that a worker loads a model once."""
    return kind_of(spec.predictor).build(spec)


def kind_of(name: str) -> Kind:
    """The predictor of that name; StudyError when there is none."""
    found = PREDICTORS.get(name) or _of_another_package(name)
    if found is None:
        raise StudyError(f"no predictor named {name!r}; there are {', '.join(sorted(PREDICTORS))}")
    return found


@functools.cache
def _of_another_package(name: str) -> Kind | None:
    """The predictor that another package offers under this name; StudyError when what it offers is none."""
    for entry in entry_points(group=PREDICTORS_GROUP, name=name):
        found = entry.load()
        if not isinstance(found, Kind):
            raise StudyError(
                f"predictor {name!r} of the package {entry.dist.name if entry.dist else 'unknown'}: {entry.value} is "
                f"a {type(found).__name__}, expected an ospor_batch.models.registry.Kind"
            )
        return found
    return None


def negated_unit(name: str, parameters: Mapping[str, Parameter]) -> str | None:
    """Unit of a predictor whose score is its value negated, such as a density; null where the score is a probability."""
    kind = kind_of(name)
    if kind.trains is None:
        return kind.negated_unit
    full = {**kind.defaults, **parameters}
    targets = kind.trains.targets(full)
    # a recipe with several targets says with `reports` which of them it states
    stated = next((t for t in targets if str(full.get("reports", "")) in t.column), targets[0])
    return stated.unit if stated.kind == "value" else None


def _as_trained(name: str, folder: Path, *, asked: Mapping[str, Parameter]) -> dict[str, Parameter]:
    """The parameters that a model was trained with; those that only read its outputs may be asked for anew."""
    spec, recipe = read_spec(folder), kind_of(name).trains
    if recipe is None or spec["recipe"] != name:
        raise StudyError(f"recipes.model of {name}: the folder {folder.name} holds a model of the recipe {spec['recipe']!r}")
    for what, found, expected in (
        ("recipe version", spec["recipe_version"], recipe.version),
        ("preprocessing", spec["preprocessing"]["version"], PREPROCESSING),
    ):
        if found != expected:
            raise StudyError(
                f"recipes.model of {name}: {folder.name} was trained with {what} {found}, this program has {expected}; "
                "its inputs would not be what it learned from: train it anew"
            )
    trained = {key: tuple(value) if isinstance(value, list) else value for key, value in spec["parameters"].items()}
    for key, value in asked.items():
        if key not in recipe.reading and trained.get(key) != value:
            raise StudyError(
                f"recipes.parameters.{key} of {name} is {value!r}, but the model {folder.name} was trained with "
                f"{trained.get(key)!r}; leave the key out, or train a model of your own"
            )
    # a model that was trained before a parameter came to be is read with its default, which is written out too
    read = {key: asked.get(key, trained.get(key, recipe.defaults[key])) for key in recipe.reading}
    return {**trained, **read}


def _refuse_types(name: str, parameters: Mapping[str, Parameter], *, defaults: Mapping[str, Parameter]) -> None:
    """StudyError when a parameter is not of the kind of its default; a whole number may stand for a real one."""
    for key, value in parameters.items():
        expected = type(defaults[key])
        if type(value) is not expected and not (expected is float and type(value) is int):
            raise StudyError(
                f"recipes.parameters.{key} of {name} is {value!r}, expected {WORDS[expected]} such as {defaults[key]!r}"
            )


def _refuse_labels(labels: Mapping[str, int]) -> None:
    known = dict(contract("vertebra").field("level").constraints)["enum"]
    if not labels:
        raise StudyError("recipes.masks.labels is empty; expected at least one level, such as { L1 = 20 }")
    if unknown := sorted(set(labels) - set(known)):
        raise StudyError(f"recipes.masks.labels: unknown level {', '.join(unknown)}; expected one of {', '.join(known)}")
    if low := sorted(level for level, label in labels.items() if label < 1):
        raise StudyError(f"recipes.masks.labels: {', '.join(low)} below 1; 0 is the background")
    if len(set(labels.values())) < len(labels):
        raise StudyError("recipes.masks.labels: one label stands for two levels")


def _entering(name: str, levels: Parameter, *, is_given: bool, labels: Mapping[str, int]) -> tuple[str, ...]:
    """The levels that enter, from head to foot; by default those of the usual four that the masks label."""
    if not isinstance(levels, tuple) or not levels:
        raise StudyError(f'recipes.parameters of {name}: levels is {levels!r}, expected a list such as ["L1", "L2"]')
    found = [level for level in levels if level in labels]
    if (is_given and len(found) < len(levels)) or not found:
        raise StudyError(f"recipes.parameters of {name}: levels {', '.join(levels)}, but masks.labels has {', '.join(labels)}")
    return tuple(sorted(set(found), key=anatomical_order))
