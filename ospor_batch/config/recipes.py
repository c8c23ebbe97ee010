"""What is done with the images: recipes, their thresholds and their masks."""

from __future__ import annotations

import difflib
from importlib.metadata import entry_points
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from ospor_batch import PREDICTORS_GROUP
from ospor_batch.config.cohort import Criterion, Match
from ospor_batch.config.sections import Name, Section, Share

UNTRAINED = ("mean_hu",)  # rules that need no training
TRAINED = ("cxr_osteoporosis", "ct_cnn_smi", "ct_bmd_tbs", "ct_qct_bmd", "ldct_internal_calibration", "smi_comparator")


def _known(name: str) -> str:
    known = [*TRAINED, *UNTRAINED]
    if name in known:
        return name
    known += sorted(entry_points(group=PREDICTORS_GROUP).names)  # looked up only where needed: it reads every package
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"no recipe or predictor named {name!r}, expected one of {', '.join(known)}{hint}")
    return name


RecipeName = Annotated[str, AfterValidator(_known), Field(examples=[*TRAINED, *UNTRAINED])]


class Threshold(Section):
    """One of youden, sensitivity_at_least, specificity_at_least (all on tuning, locked), fixed, or as_trained.

    as_trained: the one that stands in the folder of recipes.model.
    """

    rule: Literal["youden", "as_trained"] | None = None
    sensitivity_at_least: Share | None = None
    specificity_at_least: Share | None = None
    fixed: float | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of rule, sensitivity_at_least, specificity_at_least, fixed; found {given}")
        return self


class Masks(Section):
    """Where the masks come from and which label number is which vertebral level or tissue.

    source: beside the images (NIfTI, DICOM SEG), the U-Net of a model folder, or TotalSegmentator where it is installed.
    least_confidence: of the level of a segmented vertebra; below it the vertebra leaves, judgement.
    """

    source: Literal["beside", "unet", "totalsegmentator"] = "beside"
    pattern: str = "*.nii*"
    model: str | None = None
    labels: dict[str, int] = {"L1": 20, "L2": 21, "L3": 22, "L4": 23}  # numbering of the VerSe challenge
    tissues: dict[Literal["muscle", "fat", "visceral_fat"], Annotated[int, Field(ge=1)]] = {}
    least_confidence: Share = 0.5

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.source == "unet") != (self.model is not None):
            raise ValueError(
                'source is "unet", but model names no folder'
                if self.source == "unet"
                else 'model is given; set source = "unet"'
            )
        both = sorted(set(self.labels.values()) & set(self.tissues.values()))
        if both:
            raise ValueError(f"label {both[0]} stands for a level and for a tissue")
        return self


class Substudy(Section):
    """The same recipe once more with some parameters changed; a recipe of its own, compared with the first."""

    id: Name
    parameters: dict[str, str | float | int | bool | tuple[str, ...]]


class Recipe(Section):
    name: RecipeName
    id: Name | None = None
    model: str | None = None  # a model folder that is loaded; without it a recipe of a network is trained
    reference: Name
    threshold: Threshold
    masks: Masks = Masks()
    match: Match | None = None
    criteria: tuple[Criterion, ...] | None = None
    parameters: dict[str, str | float | int | bool | tuple[str, ...]] = {}
    substudies: tuple[Substudy, ...] = ()
    substudy_of: Name | None = None
    """The recipe that this one is compared with; written by substudies, not by hand."""

    @property
    def key(self) -> str:
        """Its id in every table: the given id, else the name."""
        return self.id or self.name

    @property
    def is_trained(self) -> bool:
        """Whether the study trains it: a recipe of a network or of fitted coefficients, and no model is given."""
        return self.name in TRAINED and self.model is None

    @model_validator(mode="after")
    def _model_fits(self) -> Self:
        if self.model is not None and self.name in UNTRAINED:
            raise ValueError(f"model is given, but {self.name} is a rule without weights: leave model out")
        if self.model is None and self.threshold.rule == "as_trained":
            raise ValueError(
                'threshold.rule is "as_trained", but no model is given: name its folder with model, or use "youden"'
            )
        return self


def with_substudies(raw: dict[str, Any]) -> dict[str, Any]:
    """A raw study whose substudies stand as recipes of their own, after all others; what is malformed stays as it is."""
    recipes = raw.get("recipes")
    if not isinstance(recipes, list):
        return raw
    more = []
    for recipe in recipes:
        substudies = recipe.get("substudies") if isinstance(recipe, dict) else None
        for substudy in substudies if isinstance(substudies, list) else ():
            changed = substudy.get("parameters") if isinstance(substudy, dict) else None
            if not (isinstance(changed, dict) and isinstance(substudy.get("id"), str)):
                continue  # the check of substudies says what is wrong
            of = recipe.get("id") or recipe.get("name")
            kept = {key: value for key, value in recipe.items() if key != "substudies"}
            parameters = {**(recipe.get("parameters") or {}), **changed}
            more.append({**kept, "id": f"{of}-{substudy['id']}", "parameters": parameters, "substudy_of": of})
    return {**raw, "recipes": [*recipes, *more]} if more else raw
