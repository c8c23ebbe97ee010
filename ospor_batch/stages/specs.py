"""The spec of every recipe of a study: as declared, and once trained, with the model folder it reads."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

from ospor_batch.config import Recipe, Study, Threshold
from ospor_batch.errors import NothingToDoError, StudyError
from ospor_batch.evaluation.threshold import ThresholdRule
from ospor_batch.imaging.masks import MaskRule
from ospor_batch.models.bundle import bundle_digest, read_spec
from ospor_batch.models.registry import kind_of, negated_unit, spec_of
from ospor_batch.models.segmentation_classes import LEVELS
from ospor_batch.models.spec import PredictorSpec
from ospor_batch.models.totalsegmentator import totalsegmentator_version
from ospor_batch.runs import Run

MODELS = "models"  # folder of the workspace
SCORE_UNIT = "1"  # of a probability


def declared_spec(study: Study, recipe: Recipe) -> PredictorSpec:
    """The spec before any training; of a recipe with a model, that model's."""
    return _spec(study, recipe, folder=None if recipe.model is None else study.resolve(recipe.model))


def specs_of(study: Study, run: Run) -> dict[str, PredictorSpec]:
    """The spec of every recipe, by its key; NothingToDoError when one is not trained yet."""
    if any(recipe.is_trained or recipe.model is not None for recipe in study.recipes):
        refuse_without_packages()
    found = {}
    for recipe in study.recipes:
        if not recipe.is_trained:
            found[recipe.key] = declared_spec(study, recipe)
        elif (folder := trained_folder(run, recipe.key)) is not None:
            found[recipe.key] = _spec(study, recipe, folder=folder)
        else:
            raise NothingToDoError(f"recipe {recipe.key} is not trained in this run yet: run `ospor-batch train STUDY` first")
    return found


def digests(study: Study, run: Run | None = None) -> dict[str, tuple[str, str, str]]:
    """Predictor, model digest and parameter digest of every recipe, by its key; loads no weights.

    Without a run, or before it is trained, a trained recipe is named by its code and parameters alone.
    """
    found = {}
    for recipe in study.recipes:
        folder = None if run is None or not recipe.is_trained else trained_folder(run, recipe.key)
        spec = declared_spec(study, recipe) if folder is None else _spec(study, recipe, folder=folder)
        found[recipe.key] = (spec.predictor, spec.model_digest, spec.parameter_digest)
    return found


def refuse_without_packages() -> None:
    """StudyError when what trained recipes need is not installed; imports none of it."""
    missing = [name for name in ("torch", "monai", "safetensors") if importlib.util.find_spec(name) is None]
    if missing:
        raise StudyError(f'trained recipes need {", ".join(missing)}, not installed here: pip install "ospor-batch[infer]"')


def with_threshold(study: Study, recipe: Recipe) -> Recipe:
    """The recipe with the threshold of its model where it asks for that; StudyError when the model has none."""
    if recipe.threshold.rule != "as_trained" or recipe.model is None:
        return recipe
    said = read_spec(study.resolve(recipe.model))
    cut, parameters = said["threshold"], dict(declared_spec(study, recipe).parameters)
    if (stated := parameters.get("reports")) != said["parameters"].get("reports"):
        raise StudyError(
            f"recipes.threshold of {recipe.key}: the threshold of {recipe.model} was chosen for reports = "
            f"{said['parameters'].get('reports')!r}, the recipe states {stated!r}; choose one on tuning people, or give fixed"
        )
    if cut["score_cut"] is None:
        raise StudyError(
            f"recipes.threshold of {recipe.key}: the model {recipe.model} has no threshold ({cut['reason']}); "
            'choose one on tuning people with rule = "youden", or give fixed'
        )
    # a fixed cut-off of a negated value is declared in that value's own unit
    sign = -1.0 if negated_unit(recipe.name, recipe.parameters) else 1.0
    return recipe.model_copy(update={"threshold": Threshold(fixed=sign * float(cut["score_cut"]))})


def threshold_rule(recipe: Recipe) -> ThresholdRule:
    """How the recipe finds its cut-off; one of a negated value is declared in that value's own unit."""
    negated, declared = negated_unit(recipe.name, recipe.parameters), recipe.threshold
    unit = negated or SCORE_UNIT
    if declared.fixed is not None:
        return ThresholdRule("fixed", unit, score_cut=-declared.fixed if negated else declared.fixed)
    for name in ("sensitivity_at_least", "specificity_at_least"):
        if (target := getattr(declared, name)) is not None:
            return ThresholdRule(name, unit, target=target)
    return ThresholdRule(str(declared.rule), unit)


def trained_folder(run: Run, recipe: str) -> Path | None:
    """The model folder that a recipe was trained to in a run; null before."""
    if not run.has("model"):
        return None
    named = dict(run.read("model").select("recipe", "training_digest").iter_rows())
    return models_folder(run) / named[recipe] if recipe in named else None


def models_folder(run: Run) -> Path:
    """Where the models of a workspace lie, shared by its runs."""
    return run.predictions.parent / MODELS


def _spec(study: Study, recipe: Recipe, *, folder: Path | None) -> PredictorSpec:
    masks = recipe.masks
    spec = spec_of(recipe.name, parameters=recipe.parameters, pattern=masks.pattern, labels=masks.labels, folder=folder)
    _refuse_other_material(study, recipe, spec)
    return replace(spec, masks=_mask_rule(study, recipe, spec.masks)) if kind_of(recipe.name).reads_masks else spec


def _refuse_other_material(study: Study, recipe: Recipe, spec: PredictorSpec) -> None:
    """StudyError when rods of one mineral would be held against a reference in another (methods L8)."""
    material, reference = dict(spec.parameters).get("phantom_material"), study.reference(recipe.reference)
    if material and reference.standard == "qct" and material != reference.phantom_material:
        raise StudyError(
            f"recipe {recipe.key}: its rods are {material}, the reference {reference.id} is read on "
            f"{reference.phantom_material}; densities of one are not those of the other: set references.phantom_material, and "
            "phantom_conversion if labels are to be converted"
        )


def _mask_rule(study: Study, recipe: Recipe, rule: MaskRule) -> MaskRule:
    """The rule with its source; StudyError when the source cannot be used or cannot give what is asked."""
    masks = recipe.masks
    rule = replace(rule, source=masks.source, tissues=tuple(sorted(masks.tissues.items())))
    if masks.source == "beside":
        return rule
    if masks.model is None:
        return replace(rule, version=totalsegmentator_version(), least_confidence=masks.least_confidence)
    if unknown := [level for level, _ in rule.labels if level not in LEVELS]:
        known = ", ".join(LEVELS)
        raise StudyError(f"recipe {recipe.key}: the segmentation network knows no {', '.join(unknown)}, but {known}")
    model = study.resolve(masks.model)
    return replace(rule, version=bundle_digest(model), folder=str(model), least_confidence=masks.least_confidence)
