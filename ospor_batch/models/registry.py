"""The predictors by name; importing this file loads no weights and no torch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ospor_batch.contracts import contract
from ospor_batch.errors import StudyError
from ospor_batch.imaging.masks import MaskRule
from ospor_batch.imaging.regions import anatomical_order
from ospor_batch.models import mean_hu
from ospor_batch.models.spec import Parameter, Predictor, PredictorSpec


@dataclass(frozen=True)
class Kind:
    """How a predictor is built, what its parameters are by default, whether it wants a GPU and whether it reads masks."""

    build: Callable[[PredictorSpec], Predictor]
    version: str
    defaults: Mapping[str, Parameter]
    wants_gpu: bool
    reads_masks: bool


PREDICTORS: dict[str, Kind] = {
    "mean_hu": Kind(
        mean_hu.build_mean_hu, version=mean_hu.VERSION, defaults=mean_hu.DEFAULTS, wants_gpu=False, reads_masks=True
    ),
}


def spec_of(
    name: str, *, parameters: Mapping[str, Parameter], pattern: str, labels: Mapping[str, int], device: str = "cpu"
) -> PredictorSpec:
    """The frozen spec with defaults written out; StudyError names a parameter, level or label that cannot be."""
    kind = _kind(name)
    if unknown := sorted(set(parameters) - set(kind.defaults)):
        raise StudyError(f"recipes.parameters of {name}: unknown {', '.join(unknown)}; it has {', '.join(kind.defaults)}")
    _refuse_labels(labels)
    full = {**kind.defaults, **parameters}
    levels = full.get("levels")
    if levels is not None:
        full["levels"] = _entering(name, levels, is_given="levels" in parameters, labels=labels)
    return PredictorSpec(
        predictor=name,
        version=kind.version,
        parameters=tuple(sorted(full.items())),
        masks=MaskRule(pattern, tuple(sorted(labels.items(), key=lambda item: anatomical_order(item[0])))),
        device=device,
    )


@functools.cache
def predictor_here(spec: PredictorSpec) -> Predictor:
    """The predictor of this process; built at the first call and kept, so that a worker loads a model once."""
    return _kind(spec.predictor).build(spec)


def _kind(name: str) -> Kind:
    if name not in PREDICTORS:
        raise StudyError(f"no predictor named {name!r}; there are {', '.join(sorted(PREDICTORS))}")
    return PREDICTORS[name]


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
