"""The study file: TOML read into frozen, checked models; every message names key, found and expected."""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from ospor_batch.config.cohort import Analysis, Criterion, Match, Reference, Split
from ospor_batch.config.exports import Center
from ospor_batch.config.recipes import Recipe, with_substudies
from ospor_batch.config.running import ComputeSection, Sweep
from ospor_batch.config.sections import Name, Secret, Section, refuse_repeats
from ospor_batch.errors import KeyMissingError, StudyError
from ospor_batch.faults import faults_of
from ospor_batch.site_rules import GradingSection, LinkageSection, VocabularySection

SMALLEST_KEY = 16  # characters; a shorter secret is guessed from the pseudonyms of known patients


class StudySection(Section):
    name: Name
    workspace: str = "workspace"
    pseudonym_key: Secret
    seed: int = 20220101
    is_generated: bool = False


class Tables(Section):
    strata: tuple[str, ...] = ("center", "scanner_vendor", "center*scanner_vendor")
    smallest_cell: Annotated[int, Field(ge=0)] = 5
    round_to: Annotated[int, Field(ge=1)] = 5
    standard_population: str = "who_2000_2025"


class Study(Section):
    """A whole study file; ``folder`` is what relative paths start from."""

    study: StudySection
    centers: tuple[Center, ...] = Field(min_length=1)
    analysis: Analysis = Analysis()
    references: tuple[Reference, ...] = Field(min_length=1)
    match: Match = Match()
    criteria: tuple[Criterion, ...] = ()
    split: Split = Split()
    recipes: tuple[Recipe, ...] = Field(min_length=1)
    tables: Tables = Tables()
    compute: ComputeSection = ComputeSection()
    sweep: Sweep = Sweep()
    vocabulary: VocabularySection = VocabularySection()
    linkage: LinkageSection = LinkageSection()
    grading: GradingSection = GradingSection()
    assurance: str | None = None
    folder: Path = Field(default=Path(), exclude=True)

    @model_validator(mode="before")
    @classmethod
    def _substudies(cls, raw: Any) -> Any:
        return with_substudies(raw) if isinstance(raw, dict) else raw

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        refuse_repeats([c.name for c in self.centers], "centers.name")
        refuse_repeats([r.id for r in self.references], "references.id")
        refuse_repeats([r.key for r in self.recipes], "recipes.id")
        known = {r.id for r in self.references}
        for recipe in self.recipes:
            if recipe.reference not in known:
                raise ValueError(f"recipes.reference is {recipe.reference!r}, expected one of {sorted(known)}")
            if recipe.is_trained and not self.split.train:
                raise ValueError(
                    f"recipe {recipe.key} is trained, but split.train is 0: give [split] with train and tuning, such as "
                    "train = 0.7, tuning = 0.1, internal_test = 0.2, or a model folder with recipes.model"
                )
        return self

    @property
    def workspace(self) -> Path:
        return self.folder / self.study.workspace

    def resolve(self, path: str) -> Path:
        """A path of the study file, from the folder that it lies in."""
        return self.folder / Path(path).expanduser()

    def archive_root(self, archive: str) -> str:
        """An archive of a center as everything below the stages takes it: a URL as it is, a path made absolute."""
        return archive if "://" in archive else str(self.resolve(archive).absolute())

    def center(self, name: str) -> Center:
        for center in self.centers:
            if center.name == name:
                return center
        raise StudyError(f"no center named {name!r}; the study has {', '.join(c.name for c in self.centers)}")

    def reference(self, name: str) -> Reference:
        return next(r for r in self.references if r.id == name)

    def match_of(self, recipe: Recipe) -> Match:
        return recipe.match or self.match

    def criteria_of(self, recipe: Recipe) -> tuple[Criterion, ...]:
        return self.criteria if recipe.criteria is None else recipe.criteria

    def digest(self) -> str:
        """SHA-256 (first 16 digits) of the resolved study without [compute], [sweep] and assurance."""
        body = self.model_dump(mode="json", exclude={"compute", "sweep", "assurance", "folder"})
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]


def read_study(path: Path) -> Study:
    """Read and check a study file; StudyError lists every fault with key, found and expected."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise StudyError(f"{path}: no such study file; `ospor-batch init DIR` writes one to fill in") from None
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"{path}: cannot be read as UTF-8 text ({type(error).__name__})") from None
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise StudyError(f"{path}: not valid TOML: {error}") from None
    if "folder" in raw:
        raise StudyError(f"{path}: unknown key 'folder'")
    try:
        study = Study.model_validate(raw)
    except ValidationError as error:
        found = faults_of(error, Study)
        lines = "\n".join(f"  {fault}" for fault in found)
        raise StudyError(f"{path}: {len(found)} fault{'s' if len(found) > 1 else ''}\n{lines}") from None
    return study.model_copy(update={"folder": path.resolve().parent})


def read_key(study: Study, secret: Secret | None = None) -> bytes:
    """Read the pseudonym key (or another secret of the study); KeyMissingError says where it was sought."""
    secret = secret or study.study.pseudonym_key
    if secret.env is not None:
        where, found = f"environment variable {secret.env}", os.environ.get(secret.env, "")
    else:
        path = study.resolve(secret.file or "")
        where = f"file {path}"
        try:
            found = path.read_text(encoding="utf-8")
        except OSError as error:
            raise KeyMissingError(f"study.pseudonym_key: {where} cannot be read ({type(error).__name__})") from None
    found = found.strip()
    if len(found) < SMALLEST_KEY:
        raise KeyMissingError(
            f"study.pseudonym_key: {where} holds {len(found)} characters, expected at least {SMALLEST_KEY}; "
            f'make one with: python -c "import secrets; print(secrets.token_hex(32))"'
        )
    return found.encode()


def json_schema() -> dict[str, Any]:
    """JSON Schema of the study file, for editors."""
    schema = Study.model_json_schema()
    schema["properties"].pop("folder")  # where the file lies is not written in it
    return schema
