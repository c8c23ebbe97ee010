"""What is done with the images: recipes, their thresholds and their masks."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from ospor_batch.config.cohort import Criterion, Match
from ospor_batch.config.sections import Name, Section, Share


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
    name: Literal["mean_hu"]
    id: Name | None = None
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
