"""What every section of the study file is made of."""

from __future__ import annotations

import difflib
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
Site = Literal["lumbar_spine", "femoral_neck", "total_hip", "radius_33"]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A frozen part of the study file; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Secret(Section):
    """Where a key is read from; never the key itself."""

    env: str | None = None
    file: str | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.env is None) == (self.file is None):
            raise ValueError('give either { env = "NAME" } or { file = "PATH" }')
        return self


def refuse_unknown(found: set[str], allowed: set[str], what: str) -> None:
    """Raise ValueError for the first name that is not allowed, with the nearest one that is."""
    for name in sorted(found - allowed):
        near = difflib.get_close_matches(name, sorted(allowed), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; expected one of {', '.join(sorted(allowed))}"
        raise ValueError(f"{what} has no {name!r}{hint}")


def refuse_repeats(names: list[str], what: str) -> None:
    """Raise ValueError when a name stands more than once."""
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{what} {', '.join(repeated)} stands more than once")
