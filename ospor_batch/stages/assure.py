"""Example patients of a study and their expected fate, in the manner of ehrQL's assurance tests.

A study names a TOML file (``assurance = "assurance.toml"``). Each patient there has the few values that the example is
about, everything else is an ordinary patient's; labels are drawn, criteria judged and pairs ranked by the study's own
rules and by the code that judges real people. No archive, export, key or workspace is read.
"""

from __future__ import annotations

import functools
import hashlib
import tomllib
from dataclasses import dataclass, replace
from datetime import date
from importlib import resources
from typing import Any, Literal

import polars as pl
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from ospor_batch.cohort.attrition import LABELLED
from ospor_batch.cohort.build import Cohort, build
from ospor_batch.cohort.manifest import with_partition
from ospor_batch.cohort.split import assign
from ospor_batch.config import Recipe, Study
from ospor_batch.contracts import contract
from ospor_batch.contracts.table import empty, schema_of, whole
from ospor_batch.errors import ContractError, StudyError
from ospor_batch.labels.reference import draw
from ospor_batch.stages.match import OVERRIDES, question_of

KEY = b"assurance"  # examples are nobody: their pseudonyms need no secret
Row = dict[str, str | int | float | bool | date]


class Expected(BaseModel):
    """What must become of an example; a key that is not given is not looked at."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fate: Literal["paired", "image_only", "excluded"]
    at: str | None = None  # the criterion or step that removed the last series or pair, or its reason
    category: str | None = None
    gap_days: int | None = None
    partition: Literal["train", "tuning", "internal_test", "external"] | None = None


class Example(BaseModel):
    """One example patient."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    recipe: str | None = None
    center: str | None = None
    series: tuple[Row, ...] = ({},)
    exams: tuple[Row, ...] = ()
    events: tuple[Row, ...] = ()
    expect: Expected


class _Examples(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    patients: tuple[Example, ...]


@dataclass(frozen=True)
class Assured:
    """One example with what was expected and found; faults are empty when they agree."""

    name: str
    recipe: str
    found: tuple[tuple[str, str], ...]
    faults: tuple[str, ...]


def assure(study: Study) -> list[Assured]:
    """Judge every example of the study; StudyError when there are none or one cannot be read."""
    return [_judged(study, example) for example in read_examples(study)]


def read_examples(study: Study) -> tuple[Example, ...]:
    """Read the examples that the study file names."""
    if study.assurance is None:
        raise StudyError('the study names no examples; add assurance = "assurance.toml" above its first section')
    try:
        raw = tomllib.loads(study.resolve(study.assurance).read_text(encoding="utf-8"))
        return _Examples.model_validate(raw).patients
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"{study.assurance}: cannot be read ({type(error).__name__})") from None
    except tomllib.TOMLDecodeError as error:
        raise StudyError(f"{study.assurance}: not valid TOML: {error}") from None
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
        raise StudyError(f"{study.assurance}: " + "; ".join(lines)) from None


def _judged(study: Study, example: Example) -> Assured:
    recipe = _recipe(study, example)
    center = study.center(example.center).name if example.center else study.centers[0].name
    cohort = _cohort(study, recipe, example=example, center=center)
    found = _found(study, cohort)
    faults = []
    for key, wanted in example.expect.model_dump(exclude_none=True).items():
        seen = found.get(key, "")
        is_as_wanted = str(wanted) in seen.split("|") if key == "at" else str(wanted) == seen
        if not is_as_wanted:
            faults.append(f"{key}: expected {wanted}, found {seen.replace('|', ' / ') or 'nothing'}")
    return Assured(example.name, recipe.key, tuple(found.items()), tuple(faults))


def _recipe(study: Study, example: Example) -> Recipe:
    if example.recipe is None:
        if len(study.recipes) > 1:
            raise StudyError(f"example {example.name!r}: name its recipe, one of {', '.join(r.key for r in study.recipes)}")
        return study.recipes[0]
    for recipe in study.recipes:
        if recipe.key == example.recipe:
            return recipe
    raise StudyError(f"example {example.name!r}: recipe is {example.recipe!r}, expected one of the study's")


def _cohort(study: Study, recipe: Recipe, *, example: Example, center: str) -> Cohort:
    series = _rows("series", example.series, example=example, center=center)
    exams = _rows("exam", example.exams, example=example, center=center)
    events = _rows("event", example.events, example=example, center=center)
    numbers = exams.select("center", "exam_key", exam_accession_number="accession_number")
    labels = draw(exams, study.reference(recipe.reference), key=KEY).labels
    labels = labels.join(numbers, on=["center", "exam_key"], how="left")
    asked = question_of(study, recipe, key=KEY)
    if example.events:  # an event that is given was recorded, whether or not the center has a file of them
        asked = replace(asked, event_centers=tuple(sorted({*asked.event_centers, center})))
    return build(series, labels, question=asked, overrides=pl.DataFrame(schema=OVERRIDES), events=events)


def _found(study: Study, cohort: Cohort) -> dict[str, str]:
    """fate, at (name and reason of the step, parted by |), category, gap_days and partition."""
    rows = cohort.manifest.filter(pl.col("is_performance_index"))
    if not cohort.manifest.height:
        return {"fate": "excluded", "at": _step(cohort)}
    partition = with_partition(cohort.manifest, assign(cohort.index, split=study.split))["partition"][0]
    if not rows.height:
        return {"fate": "image_only", "at": _step(cohort), "partition": partition}
    first = rows.sort("series_key").row(0, named=True)
    said = {name: str(first[name]) for name in ("category", "gap_days")}
    return {"fate": "paired", **said, "partition": partition}


def _step(cohort: Cohort) -> str:
    """The last step at which somebody left: of the person, or of the series when no person is known."""
    left = cohort.attrition.filter(pl.col("n_excluded") > 0).sort("step_number")
    for level in ("person", "series"):
        mine = left.filter(pl.col("level") == level)
        if mine.height:
            row = mine.row(-1, named=True)
            pairs = left.filter((pl.col("level") == "label") & (pl.col("reason") == row["reason"]))["step"].to_list()
            return "|".join(dict.fromkeys([row["step"], *(pairs if row["step"] == LABELLED else []), row["reason"]]))
    return ""


def _rows(table: str, given: tuple[Row, ...], *, example: Example, center: str) -> pl.DataFrame:
    """Rows of a contract from the few values of an example over those of the ordinary patient."""
    if not given:
        return empty(table)
    of, made = contract(table), []
    for number, row in enumerate(given, start=1):
        if unknown := sorted(set(row) - set(of.columns)):
            raise StudyError(f"example {example.name!r}: {table} has no column {unknown[0]!r}")
        full: dict[str, Any] = {**_ordinary()[table], "center": center, **row}
        for field in of.fields:
            if field.name not in full and field.is_required:
                full[field.name] = {"boolean": False, "integer": 0, "number": 0.0}.get(field.type, "")
        keys = {
            f.name: _key(f.name, table, number) for f in of.fields if f.name.endswith(("_key", "_digest")) and f.is_required
        }
        keys["patient_key"] = full.get("patient_key") or _key("patient_key", "", 0)
        if table == "series":
            keys["study_key"] = _key(str(full.get("study_key", "") or full["image_date"]), "study", 0)
        made.append({**full, **keys})
    try:
        return whole(pl.DataFrame(made, schema=schema_of(table)), table)
    except (ContractError, TypeError, pl.exceptions.PolarsError) as error:
        raise StudyError(f"example {example.name!r}: {table}: {error}") from None


def _key(*parts: object) -> str:
    return hashlib.sha256("|".join(map(str, parts)).encode()).hexdigest()[:32]


@functools.cache
def _ordinary() -> dict[str, dict[str, Any]]:
    text = resources.files("ospor_batch.cohort").joinpath("example_patient.yaml").read_text(encoding="utf-8")
    rows: dict[str, dict[str, Any]] = yaml.safe_load(text)
    return rows
