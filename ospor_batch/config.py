"""The study file: TOML read into frozen, checked models; every message names key, found and expected."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import tomllib
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ospor_batch.contracts import contract
from ospor_batch.errors import KeyMissingError, StudyError
from ospor_batch.faults import faults_of
from ospor_batch.site_rules import GradingSection, LinkageSection, VocabularySection

SMALLEST_KEY = 16  # characters; a shorter secret is guessed from the pseudonyms of known patients
NOT_A_COLUMN = {"exam_key", "patient_key", "center", "export", "row_number", "flags", "exam_kind"}
LONG_COLUMNS = {"site", "bmd_g_cm2", "t_score", "z_score"}
MORE_COLUMNS = {"patient_id", "birth_date", "exam_number"}
CODED_COLUMNS = {"code", "value"}
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


class StudySection(Section):
    name: Name
    workspace: str = "workspace"
    pseudonym_key: Secret
    seed: int = 20220101
    is_generated: bool = False


class ColumnSource(Section):
    """A column of the export, with the unit it is written in, or one value for every row."""

    column: str | None = None
    unit: str | None = None
    value: str | float | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.column is None) == (self.value is None):
            raise ValueError('give either { column = "NAME" } or { value = ... }')
        return self


class Export(Section):
    path: str
    kind: Literal["dxa", "qct", "body"]
    layout: Literal["wide", "long", "coded"] = "wide"
    t_reference: str = "unknown"
    phantom_material: Literal["k2hpo4", "caha", "unknown"] = "unknown"
    date_format: str = "%Y-%m-%d"
    encoding: str | None = None
    delimiter: str | None = None
    decimal: Literal[".", ","] = "."
    sheet: str | None = None
    missing: tuple[str, ...] = ("", "NA", "N/A", "n/a", "-", ".", "null", "NULL")
    conflicts: Literal["refuse", "first"] = "refuse"
    columns: dict[str, ColumnSource]
    sites: dict[Site, tuple[str, ...]] = {}
    codes: dict[str, tuple[str, ...]] = {}
    units: dict[str, str] = {}
    sex_values: dict[Literal["female", "male", "other", "unknown"], tuple[str, ...]] = {}

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, raw: Any) -> Any:
        return _columns_in_full(raw)

    @model_validator(mode="after")
    def _columns_are_known(self) -> Self:
        allowed = (set(contract("exam").columns) - NOT_A_COLUMN) | MORE_COLUMNS
        of_layout = {"wide": set[str](), "long": LONG_COLUMNS, "coded": CODED_COLUMNS}[self.layout]
        _refuse_unknown(set(self.columns), allowed | of_layout, "columns")
        _refuse_unknown({*self.codes, *self.units}, allowed - MORE_COLUMNS, "codes and units")
        needed = {"patient_id", "exam_date"} | {"long": {"site"}, "coded": CODED_COLUMNS}.get(self.layout, set[str]())
        if missing := needed - set(self.columns):
            raise ValueError(f"columns must name {', '.join(sorted(missing))}")
        if self.layout == "long" and not self.sites:
            raise ValueError('a long layout needs sites, such as sites = { lumbar_spine = ["L1-L4"] }')
        if (self.layout == "coded") != bool(self.codes):
            raise ValueError('a coded layout, and no other, needs codes, such as codes = { lumbar_spine_t = ["38267-1"] }')
        return self


class EventFile(Section):
    path: str
    columns: dict[str, ColumnSource]
    date_format: str = "%Y-%m-%d"
    codes: dict[str, tuple[str, ...]] = {}

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, raw: Any) -> Any:
        return _columns_in_full(raw)

    @model_validator(mode="after")
    def _columns_are_known(self) -> Self:
        _refuse_unknown(set(self.columns), {"patient_id", "code", "start", "end"}, "columns")
        if missing := {"patient_id", "code", "start"} - set(self.columns):
            raise ValueError(f"columns must name {', '.join(sorted(missing))}")
        return self


class Center(Section):
    name: Name
    archives: tuple[str, ...] = Field(min_length=1)
    exports: tuple[Export, ...] = ()
    events: tuple[EventFile, ...] = ()


class Analysis(Section):
    """The estimand, printed first in every report."""

    target: Literal["osteoporosis", "low_bone_mass"] = "osteoporosis"
    primary_metric: Literal["auc", "sensitivity", "specificity", "pearson_r"] = "auc"
    image_dates: tuple[date, date] | None = None
    label_dates: tuple[date, date] | None = None
    ppv_prevalence: Share = 0.10
    minimum_events: Annotated[int, Field(ge=2)] = 10
    linkage_warning_below: Share = 0.5


class Reference(Section):
    id: Name
    standard: Literal["dxa_who", "dxa_z", "qct", "tbs", "smi"]
    sites: tuple[Site, ...] = ("lumbar_spine", "femoral_neck", "total_hip")
    t_source: Literal["reported", "computed"] = "reported"
    t_reference: str | None = None
    t_rounding: Literal["one_decimal_half_away", "none"] = "one_decimal_half_away"
    minimum_vertebrae: Annotated[int, Field(ge=1)] = 2
    menopause_proxy_age: float = 50
    tbs_cut_offs: str = "mccloskey_2016"
    smi_cut_offs: str = "prado_2008_l3"
    compare_with: str | None = "nhanes3_white_female"  # what a recomputed T would change is shown beside a reported one
    cross_calibration: Literal["none", "genant1994", "hui1997"] = "none"  # the spine equation; off by default
    phantom_material: Literal["k2hpo4", "caha"] = "k2hpo4"  # the scale that the classes of vBMD are read on
    phantom_conversion: str = "none"

    @model_validator(mode="after")
    def _computed_needs_a_reference(self) -> Self:
        if self.t_source == "computed" and self.t_reference is None:
            raise ValueError('t_source = "computed" needs t_reference, the table that BMD is compared with')
        return self


class Match(Section):
    before_days: Annotated[int, Field(ge=0)] = 180
    after_days: Annotated[int, Field(ge=0)] = 180
    index_series: Literal["nearest", "first", "last", "random", "all"] = "nearest"
    prefer: Literal["nearest", "before_first", "after_first"] = "nearest"
    linkage: Literal["patient", "accession"] = "patient"
    prevalence_index: Literal["first", "random"] = "first"
    sensitivity_days: tuple[int, ...] = (30, 90, 180, 365)
    overrides: str | None = None

    @property
    def window(self) -> str:
        return f"from -{self.before_days} to +{self.after_days}"


class Criterion(Section):
    """A named reason to keep a series: SQL over declared columns, or a named rule."""

    name: str
    keep: str | None = None
    rule: str | None = None
    codes: tuple[str, ...] = ()  # of events, for the rules that guard against them
    within_days: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.keep is None) == (self.rule is None):
            raise ValueError("give either keep (SQL) or rule (the name of a rule)")
        return self


class Split(Section):
    train: Share = 0.0
    tuning: Share = 0.0
    internal_test: Share = 1.0
    external: dict[Literal["center", "scanner_vendor", "period"], tuple[str, ...]] = {}
    key: Secret | None = None
    shared_persons: Literal["home_center", "refuse"] = "home_center"  # people whom a crosswalk finds in two centers

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        total = self.train + self.tuning + self.internal_test
        if abs(total - 1) > 1e-9:
            raise ValueError(f"train + tuning + internal_test is {total:g}, expected 1")
        return self


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


class Tables(Section):
    strata: tuple[str, ...] = ("center", "scanner_vendor", "center*scanner_vendor")
    smallest_cell: Annotated[int, Field(ge=0)] = 5
    round_to: Annotated[int, Field(ge=1)] = 5
    standard_population: str = "who_2000_2025"


class Compute(Section):
    cluster: str = "in_line"
    workers: Annotated[int, Field(ge=1)] | None = None
    threads_per_worker: Annotated[int, Field(ge=1)] = 1
    memory_limit: str = "auto"
    shard_megabytes: Annotated[int, Field(ge=1)] = 256

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.cluster not in {"in_line", "local", "cuda"} and not re.match(r"^(tcp|tls|ucx)://", self.cluster):
            raise ValueError(
                f"cluster is {self.cluster!r}, expected in_line, local, cuda or an address such as tcp://host:8786"
            )
        return self


class ComputeSection(Section):
    cpu: Compute = Compute()
    gpu: Compute | None = None


class Drift(Section):
    minimum_n: int = 200
    count: Share = 0.2
    prevalence_points: float = 5


class Sweep(Section):
    cron: str = "30 20 * * *"
    allowed_hours: Annotated[str, Field(pattern=r"^\d\d:\d\d-\d\d:\d\d$")] | None = None
    catch_up: Literal["merge"] = "merge"
    settle_minutes: Annotated[int, Field(ge=0)] = 10
    drift: Drift = Drift()


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

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        _refuse_repeats([c.name for c in self.centers], "centers.name")
        _refuse_repeats([r.id for r in self.references], "references.id")
        _refuse_repeats([r.key for r in self.recipes], "recipes.id")
        known = {r.id for r in self.references}
        for recipe in self.recipes:
            if recipe.reference not in known:
                raise ValueError(f"recipes.reference is {recipe.reference!r}, expected one of {sorted(known)}")
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


def _columns_in_full(raw: Any) -> Any:
    if not isinstance(raw, dict) or not isinstance(raw.get("columns"), dict):
        return raw
    full = {k: {"column": v} if isinstance(v, str) else v for k, v in raw["columns"].items()}
    return {**raw, "columns": full}


def _refuse_unknown(found: set[str], allowed: set[str], what: str) -> None:
    for name in sorted(found - allowed):
        near = difflib.get_close_matches(name, sorted(allowed), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; expected one of {', '.join(sorted(allowed))}"
        raise ValueError(f"{what} has no {name!r}{hint}")


def _refuse_repeats(names: list[str], what: str) -> None:
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{what} {', '.join(repeated)} stands more than once")
