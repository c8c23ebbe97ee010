"""Say what is wrong with a study file: the key, what was found and what was expected."""

from __future__ import annotations

import difflib
from typing import Any

from pydantic import BaseModel, ValidationError


def faults_of(error: ValidationError, root: type[BaseModel]) -> list[str]:
    """One line a fault; a list that only looks empty since its rows are faulty is not told of."""
    found = error.errors(include_url=False)
    inner = {fault["loc"][:depth] for fault in found for depth in range(1, len(fault["loc"]))}
    return [_say(fault, root) for fault in found if not (fault["type"] == "too_short" and fault["loc"] in inner)]


def _say(fault: Any, root: type[BaseModel]) -> str:
    key = ".".join(str(step) for step in fault["loc"]) or "study file"
    found, kind = fault["input"], fault["type"]
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(str(fault["loc"][-1]), _known_keys(fault["loc"][:-1], root), n=1)
        return f"{key}: unknown key" + (f"; did you mean {near[0]!r}?" if near else "")
    if kind == "missing":
        return f"{key}: missing"
    shown = f"found {found!r}, " if isinstance(found, str | int | float | bool) else ""
    return f"{key}: {shown}{fault['msg'].removeprefix('Value error, ')}"


def _known_keys(steps: tuple[Any, ...], root: type[BaseModel]) -> list[str]:
    """Keys of the model that the steps lead to; follows lists, dicts and optional sections."""
    model: Any = root
    for step in steps:
        if isinstance(step, int):
            continue
        if not (isinstance(model, type) and issubclass(model, BaseModel)) or step not in model.model_fields:
            return []
        model = _section_in(model.model_fields[step].annotation)
    return list(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []


def _section_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        if (found := _section_in(inner)) is not None:
            return found
    return None
