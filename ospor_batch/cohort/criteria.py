"""Criteria of a cohort: named, ordered steps; a NULL is a step of its own, right after its criterion."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal

import polars as pl

from ospor_batch.cohort.guards import GUARD_RULES, Guard, guard_of, is_found
from ospor_batch.cohort.pairing import GAP, LABEL_CENTER
from ospor_batch.config import Criterion
from ospor_batch.contracts import contract
from ospor_batch.contracts.table import schema_of
from ospor_batch.errors import StudyError

LEAVES_AT = "leaves_at"  # 1-based number of the first step that a row fails; number of steps + 1 when it passes all

# The base of every CT recipe, in the published order (methods R1): name, reason, what must hold; never NULL.
CT_BASE = (
    ("patient number known", "patient_number_missing", "patient_key IS NOT NULL"),
    ("patient identity consistent", "identity_collision", "NOT is_identity_collision"),
    (
        "image of a patient",
        "not_an_image",
        "sop_class IN ('image', 'enhanced_image') AND NOT is_secondary AND NOT is_dose_report",
    ),
    ("CT", "not_ct", "modality = 'CT'"),
    ("human", "not_human", "is_human"),
    ("no localizer", "localizer", "NOT is_localizer"),
    ("original axial", "derived_or_not_axial", "NOT is_derived AND orientation = 'axial'"),
    ("image date known", "image_date_missing", "image_date IS NOT NULL"),
    ("readable stack", "unusable_stack", "grade <> 'unusable'"),
)
# The base of every radiograph recipe (seeds S1: chest radiographs, frontal). Presentation images are DERIVED by nature, and
# many archives name no view: an unnamed one stays, since the pixels are looked at when they are read; `frontal_declared` asks
# for the tag.
RADIOGRAPH_BASE = (
    *CT_BASE[:2],
    ("image of a patient", "not_an_image", "sop_class IN ('image', 'enhanced_image') AND NOT is_dose_report"),
    ("radiograph", "not_a_radiograph", "modality IN ('CR', 'DX')"),
    ("human", "not_human", "is_human"),
    ("chest", "not_chest", "body_region IN ('chest', 'unknown')"),
    ("chest: region known", "region_unknown", "body_region <> 'unknown'"),
    ("no lateral or oblique view", "not_frontal", "COALESCE(projection, 'unknown') IN ('frontal', 'unknown')"),
    ("image date known", "image_date_missing", "image_date IS NOT NULL"),
    ("readable image", "unusable_image", "grade <> 'unusable'"),
)
BASES = {"ct": CT_BASE, "radiograph": RADIOGRAPH_BASE}
IN_STUDY_PERIOD = ("image date in the study period", "outside_image_dates")

# Named rules. A tag that is there but empty, or absent, is no evidence against contrast (methods I4); DICOM demands the
# Contrast/Bolus module only when contrast was used, so `unenhanced` takes an absent tag as plain, and an empty one, which
# says that the module was written, as unknown: a step of its own.
RULES = {
    "unenhanced": (
        "CASE WHEN contrast_evidence IN ('declared_plain', 'tag_absent') THEN TRUE "
        "WHEN contrast_evidence IN ('given', 'conflicting') THEN FALSE END"
    ),
    "unenhanced_declared_only": (
        "CASE WHEN contrast_evidence = 'declared_plain' THEN TRUE "
        "WHEN contrast_evidence IN ('given', 'conflicting') THEN FALSE END"
    ),
    "frontal_declared": "CASE WHEN projection <> 'unknown' THEN projection = 'frontal' END",
    "kvp_120": "ABS(kvp_kv - 120) < 0.5",  # methods I3: fixed HU cut-offs hold at 120 kVp
    "usable_only": "grade = 'usable'",
    "no_missing_slices": "n_missing_slices = 0",
    "not_lossy": "NOT is_lossy",
    "soft_or_standard_kernel": "CASE WHEN kernel_class <> 'unknown' THEN kernel_class IN ('soft', 'standard') END",
    "thin_slices": "COALESCE(slice_thickness_mm, slice_spacing_mm) <= 3",  # thicker ones mix cortex into the body (I2)
    "spine_in_region": (
        "CASE WHEN body_region <> 'unknown' THEN body_region IN ('chest', 'abdomen', 'lumbar_spine', 'chest_abdomen', "
        "'abdomen_pelvis', 'chest_abdomen_pelvis', 'whole_body') END"
    ),
    "adult": "age_at_image >= 18",
    "has_mask": "mask_kind <> 'none'",
}
LABEL_PRESENT = "label_present"  # rule: a label of the reference, by the study's own window and dates, of the person
HAS_LABEL = "has_label"  # the column that it reads
WITHOUT_FINDINGS = "without_findings"  # rule: none of the named findings of the catalog
NAMED_RULES = (*RULES, LABEL_PRESENT, WITHOUT_FINDINGS, *GUARD_RULES)
PERIOD = "period"  # calendar quarter of the image: the one part of a private date that a criterion may name


@dataclass(frozen=True)
class Step:
    """One step of the flow; ``fails`` is true where a row leaves, never NULL."""

    name: str
    reason: str
    fails: pl.Expr
    guard: Guard | None = None


@dataclass(frozen=True)
class Steps:
    """The steps of one recipe: those that judge a series, then those that judge a pair of series and label."""

    series: tuple[Step, ...]
    pairs: tuple[Step, ...]

    @property
    def guards(self) -> tuple[Guard, ...]:
        return tuple(step.guard for step in (*self.series, *self.pairs) if step.guard is not None)


def series_columns() -> dict[str, pl.DataType]:
    """Columns of a series that a criterion may name."""
    return {**_allowed("series"), PERIOD: pl.String()}


def pair_columns() -> dict[str, pl.DataType]:
    """Columns that only a pair has; a criterion that names one judges pairs."""
    of_label = {name: dtype for name, dtype in _allowed("label").items() if name not in schema_of("series")}
    return {**of_label, GAP: pl.Int64(), LABEL_CENTER: pl.String()}


def compile_steps(
    criteria: Sequence[Criterion],
    *,
    image_dates: tuple[date, date] | None = None,
    findings: Collection[str] | None = None,
    reads: Literal["ct", "radiograph"] = "ct",
) -> Steps:
    """Turn the base, the study period and the study's criteria into steps; StudyError names a bad criterion.

    reads: what the recipe reads, and thereby its base. findings: what the catalog can find in a series; without it any name
    is taken for one.
    """
    series = [Step(name, reason, ~pl.sql_expr(sql)) for name, reason, sql in BASES[reads]]
    if image_dates is not None:
        inside = pl.col("image_date").is_between(*image_dates, closed="both")
        series.append(Step(*IN_STUDY_PERIOD, (~inside).fill_null(value=False)))  # an unknown date left before
    pairs: list[Step] = []
    for number, criterion in enumerate(criteria, start=1):
        if criterion.rule in GUARD_RULES:
            guard = guard_of(criterion)
            # where it was not assessed nobody leaves by an event; the table `guard` and the note of the step say so
            step = Step(_named(criterion), _slug(criterion.name, number), guard.strikes, guard)
            (pairs if guard.judges_pairs else series).append(step)
            continue
        if criterion.rule in {LABEL_PRESENT, WITHOUT_FINDINGS}:
            series.append(Step(_named(criterion), _slug(criterion.name, number), _never_null(criterion, findings)))
            continue
        keep, judges_pairs = _compiled(criterion)
        (pairs if judges_pairs else series).extend(_both(criterion.name, _slug(criterion.name, number), keep))
    _refuse_twins([*series, *pairs])
    return Steps(tuple(series), tuple(pairs))


def judge(rows: pl.DataFrame, steps: Sequence[Step]) -> pl.DataFrame:
    """Add the number of the first step each row fails, its name, and the names of all it fails; rows in, rows out."""
    if not steps:
        return rows.with_columns(
            pl.lit(1, pl.Int64).alias(LEAVES_AT), first_failed=pl.lit(None, pl.String), all_failed=pl.lit("")
        )
    firsts = [pl.when(step.fails).then(pl.lit(i, pl.Int64)) for i, step in enumerate(steps, start=1)]
    names = [pl.when(step.fails).then(pl.lit(step.name)) for step in steps]
    judged = rows.with_columns(
        pl.coalesce(*firsts, pl.lit(len(steps) + 1, pl.Int64)).alias(LEAVES_AT),
        first_failed=pl.coalesce(*names),
        all_failed=pl.concat_str(names, separator=";", ignore_nulls=True),
    )
    return judged.with_columns(pl.col("all_failed").fill_null(""))


def _both(name: str, reason: str, keep: pl.Expr) -> list[Step]:
    return [Step(name, reason, (~keep).fill_null(value=False)), Step(f"{name}: unknown", f"{reason}_unknown", keep.is_null())]


def _named(criterion: Criterion) -> str:
    if ";" in criterion.name:
        raise StudyError(f"criteria {criterion.name!r}: a name must not hold ';', which parts the names of failed criteria")
    return criterion.name


def _compiled(criterion: Criterion) -> tuple[pl.Expr, bool]:
    where = f"criteria {_named(criterion)!r}"
    _refuse_keys_of_others(criterion, where=where)
    if criterion.rule is not None:
        if criterion.rule not in RULES:
            raise StudyError(f"{where}: no rule named {criterion.rule!r}{_nearest(criterion.rule, NAMED_RULES)}")
        return pl.sql_expr(RULES[criterion.rule]), False
    sql = criterion.keep or ""
    try:
        keep = pl.sql_expr(sql)
    except pl.exceptions.PolarsError as error:
        raise StudyError(f"{where}: keep is no SQL condition: {_first_line(error)}") from None
    of_series, of_pair = series_columns(), pair_columns()
    named = set(keep.meta.root_names())
    for column in sorted(named - of_series.keys() - of_pair.keys()):
        raise StudyError(f"{where}: {_refusal(column, {**of_series, **of_pair})}")
    _refuse_other_than_condition(sql, keep, where=where)
    return keep, bool(named & of_pair.keys())


def _never_null(criterion: Criterion, findings: Collection[str] | None) -> pl.Expr:
    """What fails under a rule that is never unknown; StudyError for a finding that the catalog cannot have."""
    where = f"criteria {_named(criterion)!r}"
    _refuse_keys_of_others(criterion, where=where)
    if criterion.rule == LABEL_PRESENT:
        return ~pl.col(HAS_LABEL)
    if not criterion.findings:
        raise StudyError(f'{where}: rule {WITHOUT_FINDINGS} needs findings, such as ["tilted"]')
    for name in sorted(set(criterion.findings) - set(criterion.findings if findings is None else findings)):
        raise StudyError(f"{where}: the catalog has no finding {name!r}{_nearest(name, findings or ())}")
    return pl.any_horizontal(is_found(name) for name in sorted(set(criterion.findings)))


def _refuse_keys_of_others(criterion: Criterion, *, where: str) -> None:
    """StudyError for a key that the rule of the criterion does not read."""
    if criterion.codes or criterion.within_days is not None:
        raise StudyError(f"{where}: codes and within_days belong to the rules {', '.join(GUARD_RULES)}")
    if criterion.findings and criterion.rule != WITHOUT_FINDINGS:
        raise StudyError(f"{where}: findings belong to the rule {WITHOUT_FINDINGS}")


def _refuse_other_than_condition(sql: str, keep: pl.Expr, *, where: str) -> None:
    """A criterion judges one row by its own columns: no aggregate, no window, no bare constant."""
    frame = pl.DataFrame(schema={**series_columns(), **pair_columns()})
    try:
        found = frame.select(keep=keep)
    except pl.exceptions.PolarsError as error:
        raise StudyError(f"{where}: keep cannot be computed: {_first_line(error)}") from None
    if found.height or re.search(r"\bover\s*\(", sql, re.IGNORECASE):
        raise StudyError(f"{where}: keep must compare columns of one row; found a constant or an aggregate in {sql!r}")
    if found.schema["keep"] != pl.Boolean:
        raise StudyError(f"{where}: keep gives {found.schema['keep']}, expected true or false, such as age_at_image >= 50")


def _refusal(column: str, allowed: Collection[str]) -> str:
    for table in ("series", "label"):
        if column in contract(table).columns:
            instead = {"image_date": "; use analysis.image_dates", "label_date": "; use analysis.label_dates"}.get(column, "")
            return f"column {column!r} is private and may not be named{instead}{_nearest(column, allowed)}"
    return f"no column {column!r}{_nearest(column, allowed)}"


def _nearest(name: str, allowed: Collection[str]) -> str:
    near = difflib.get_close_matches(name, sorted(allowed), n=1, cutoff=0)
    return f"; the nearest allowed is {near[0]!r}" if near else ""


def _allowed(table: str) -> dict[str, pl.DataType]:
    dtypes = schema_of(table)
    return {field.name: dtypes[field.name] for field in contract(table).fields if field.access != "private"}


def _slug(name: str, number: int) -> str:
    words = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    return words or f"criterion_{number}"  # a name without Latin letters or digits


def _refuse_twins(steps: Sequence[Step]) -> None:
    for kind in ("name", "reason"):
        seen: dict[str, str] = {}
        for step in steps:
            told = getattr(step, kind)
            if told in seen:
                raise StudyError(f"criteria {seen[told]!r} and {step.name!r} have the same {kind} {told!r}: rename one")
            seen[told] = step.name


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
