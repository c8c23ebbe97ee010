"""Where every number came from: the run, what it is pinned to, and each parameter with its default marked."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from ospor_batch.config import Study
from ospor_batch.report.display import Column, DisplayTable, text

# the parts of a study file that shape a number; the rest holds paths, keys and the hospitals' own column names
SHOWN = ("analysis", "references", "match", "criteria", "split", "recipes", "tables")
HIDDEN = {"key", "overrides", "pattern"}
CALLED = {
    "run_id": "Run", "study_digest": "Digest of the study file", "snapshot": "Catalog versions the run is pinned to",
    "code_version": "Version and digest of the code", "models": "Model, parameter and threshold digests",
}  # fmt: skip


def record(study: Study, run: Mapping[str, str]) -> DisplayTable:
    """The run, the study and every digest and version that the numbers hang on."""
    said = [("Study", study.study.name), ("Seed", str(study.study.seed))]
    for name, value in run.items():
        said += [(f"{CALLED.get(name, name)}{place}", shown) for place, shown in _unpacked(value)]
    rows = tuple((text(name), text(value)) for name, value in said)
    return DisplayTable("record", "What this run is made of", (Column("What"), Column("Value")), rows)


def parameters(study: Study) -> DisplayTable:
    """Every parameter of the analysis; those that the study file does not set are marked as defaults."""
    columns = (
        Column("Parameter", "Key of the study file."),
        Column("Value", "Value in force."),
        Column("Set by", "The study file, or the default of this version."),
    )
    rows = []
    for part in SHOWN:
        is_set = part in study.model_fields_set
        for key, value, given in _leaves(getattr(study, part), part, is_set=is_set):
            rows.append((text(key), text(value), text("study file" if given else "default")))
    return DisplayTable("parameters", "Parameters of the analysis", columns, tuple(rows))


def _unpacked(value: str) -> list[tuple[str, str]]:
    """A JSON object as one line an entry, anything else as it is."""
    if not value.startswith("{"):
        return [("", value)]
    found = json.loads(value)
    lines = [(f": {key}", _joined(found[key])) for key in sorted(found)]
    return lines or [("", "none")]


def _joined(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} = {_joined(value[key])}" for key in sorted(value)) or "none"
    return "none" if value is None else str(value)


def _leaves(value: Any, key: str, *, is_set: bool) -> Iterator[tuple[str, str, bool]]:
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            if name not in HIDDEN:
                yield from _leaves(getattr(value, name), f"{key}.{name}", is_set=is_set and name in value.model_fields_set)
    elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
        for i, item in enumerate(value):
            yield from _leaves(item, f"{key}[{i + 1}]", is_set=is_set)
    elif isinstance(value, tuple):
        yield key, _joined(value), is_set
    else:
        yield key, {True: "yes", False: "no"}[value] if isinstance(value, bool) else _joined(value), is_set
