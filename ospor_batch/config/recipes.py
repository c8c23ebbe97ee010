"""What is done with the images: recipes, their thresholds and their masks."""

from __future__ import annotations

import difflib
from importlib.metadata import entry_points
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from ospor_batch.config.cohort import Criterion, Match
from ospor_batch.config.sections import Name, Section, Share

PREDICTORS_GROUP = "ospor_batch.predictors"  # entry points of other packages
UNTRAINED = ("mean_hu",)  # rules that need no training
TRAINED = ("cxr_osteoporosis", "ct_cnn_smi", "ct_bmd_tbs", "ct_qct_bmd", "ldct_internal_calibration")


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
    """One of youden, sensitivity_at_least, specificity_at_least (all on tuning, locked), or fixed."""

    rule: Literal["youden"] | None = None
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
    """Where the masks come from and which label number is which vertebral level."""

    source: Literal["masks"] = "masks"
    pattern: str = "*.nii*"
    labels: dict[str, int] = {"L1": 20, "L2": 21, "L3": 22, "L4": 23}  # numbering of the VerSe challenge


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
        return self
