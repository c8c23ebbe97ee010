"""Draw the reference standard from exams: one label per exam, or one reason why there is none.

dxa_who: the lowest valid T-score of the declared sites (methods L1), for people whom WHO's criteria are about (L3). Whether
they are is decided by sex, menopause and age at the exam: men from 50; women after menopause; women of unknown menopause
from menopause_proxy_age, flagged menopause_assumed. Where sex or age is missing and decides, the label is kept and flagged
who_applicability_unknown: a person not known to be outside the group does not leave it unseen, but stands in a stratum of
unknown age or sex, and a criterion on age may still remove the person under its own name (S12).
dxa_z: the lowest Z-score of those outside that group, a reference of its own that never says osteoporosis (L3). qct: mean
trabecular vBMD under the limits known as the ACR criteria (L7, L8). tbs, smi: class by a named table of cut-offs (L9, I1).
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from typing import Any

import polars as pl
import yaml

from ospor_batch.config import Reference
from ospor_batch.contracts.table import empty, schema_of
from ospor_batch.errors import LedgerError, StudyError
from ospor_batch.labels.cross_calibration import with_sbmd
from ospor_batch.labels.muscle import by_smi, smi_tables
from ospor_batch.labels.t_reference import check_t_reference, computed_t
from ospor_batch.labels.verdict import DETAIL, REASON, flag, refuse, say, shown
from ospor_batch.labels.volumetric import by_vbmd, conversions
from ospor_batch.labels.who_group import by_z_score, needs_radius, only_who_group, with_spine_validity
from ospor_batch.pseudonym import pseudonym

EXAM_KIND = {"dxa_who": "dxa", "dxa_z": "dxa", "qct": "qct", "tbs": "dxa", "smi": "body"}
UNIT = {"dxa_who": "t_score", "dxa_z": "z_score", "qct": "mg/cm3", "tbs": "tbs", "smi": "cm2/m2"}
HAS_CLASSES = ("dxa_who", "qct")  # standards with a class of osteoporosis; the others say nothing of it
REPORTED_SCALE = 1_000_000  # a reported T as a whole number of millionths: classes are decided without binary noise (L2)
TBS_BMI = (15.0, 37.0)  # kg/m2; outside, TBS of software before version 4 is not valid (methods L9)
TBS_CLASS_FREE_OF_BMI = 4  # first major version of the TBS software without that limit (methods L9)


@dataclass(frozen=True)
class Drawn:
    """Labels and rejects of one reference; labels + rejects = exams of the kind that the reference reads."""

    labels: pl.DataFrame
    rejects: pl.DataFrame
    n_exams: int


def draw(exams: pl.DataFrame, reference: Reference, *, key: bytes) -> Drawn:
    """Draw the labels of one reference from exams of any kind; exams of another kind are not asked."""
    check_reference(reference)
    asked = exams.filter(pl.col("exam_kind") == EXAM_KIND[reference.standard])
    if asked.height == 0:
        return Drawn(empty("label"), empty("reject"), 0)
    rows = asked.with_columns(pl.lit(None, dtype=pl.String).alias(c) for c in (REASON, DETAIL))
    rows = with_sbmd(rows, spine_equation=reference.cross_calibration)
    judged = JUDGES[reference.standard](rows, reference)
    if reference.standard == "dxa_who" and reference.t_source == "reported" and reference.compare_with is not None:
        judged = judged.join(recomputed_classes(rows, reference), on="exam_key", how="left", maintain_order="left")
    labels = _labels(judged.filter(pl.col(REASON).is_null()), reference, key=key)
    rejects = _rejects(judged.filter(pl.col(REASON).is_not_null()), reference)
    if labels.height + rejects.height != asked.height:
        raise LedgerError(f"{reference.id}: {asked.height} exams, but {labels.height} labels and {rejects.height} rejects")
    return Drawn(labels, rejects, asked.height)


def check_reference(reference: Reference) -> None:
    """StudyError when a reference names a table that does not exist."""
    if reference.standard == "dxa_who" and reference.t_source == "computed":
        check_t_reference(reference.t_reference or "", where=f"references.{reference.id}.t_reference")
    if reference.standard == "tbs" and reference.tbs_cut_offs not in tbs_tables():
        _refuse_name(reference, "tbs_cut_offs", tbs_tables())
    if reference.standard == "smi" and reference.smi_cut_offs not in smi_tables():
        _refuse_name(reference, "smi_cut_offs", smi_tables())
    if reference.standard == "qct" and reference.phantom_conversion not in {"none", *conversions()}:
        _refuse_name(reference, "phantom_conversion", ["none", *conversions()])
    if reference.standard == "dxa_who" and reference.compare_with is not None:
        check_t_reference(reference.compare_with, where=f"references.{reference.id}.compare_with")


def recomputed_classes(exams: pl.DataFrame, reference: Reference) -> pl.DataFrame:
    """exam_key and category_recomputed: the class that T recomputed under compare_with would give; null where it cannot be.

    exams: unjudged rows with reason and detail. Shown beside the class by the reported T, which stands (methods L2).
    """
    computed = {"t_source": "computed", "t_reference": reference.compare_with}
    judged = _by_t_score(exams, reference.model_copy(update=computed))
    known = pl.when(pl.col(REASON).is_null()).then(pl.col("category"))
    return judged.select("exam_key", category_recomputed=known)


def _refuse_name(reference: Reference, key: str, known: Iterable[str]) -> None:
    raise StudyError(f"references.{reference.id}.{key} is {getattr(reference, key)!r}, expected one of {', '.join(known)}")


def _by_t_score(rows: pl.DataFrame, reference: Reference) -> pl.DataFrame:
    rows = only_who_group(with_spine_validity(rows, reference), reference)
    for site in reference.sites:
        over, under = _t_score(site, reference)
        rows = rows.with_columns(over.alias(f"{site}:over"), under.alias(f"{site}:under"))
        # a reported T stands as it was printed; a quotient of columns may differ from it in the last bit
        exact = pl.when(pl.col(f"{site}:over").is_not_null()).then(pl.col(f"{site}_t"))
        quotient = pl.col(f"{site}:over") / pl.col(f"{site}:under")
        rows = rows.with_columns((exact if reference.t_source == "reported" else quotient).alias(f"{site}:t"))
    lowest = pl.min_horizontal([f"{site}:t" for site in reference.sites])
    rows = rows.with_columns(lowest.alias("label_value"))
    rows = rows.with_columns(_of_lowest({s: pl.lit(s) for s in reference.sites}).alias("label_site"))
    for part in ("over", "under"):
        rows = rows.with_columns(_of_lowest({s: pl.col(f"{s}:{part}") for s in reference.sites}).alias(part))
    is_valid = {site: pl.col(f"{site}:t").is_not_null() for site in reference.sites}
    named = pl.concat_str([pl.when(ok).then(pl.lit(s)) for s, ok in is_valid.items()], separator="+", ignore_nulls=True)
    rows = rows.with_columns(
        pl.sum_horizontal(*is_valid.values()).cast(pl.Int64).alias("n_sites_valid"),
        named.alias("label_sites_available"),
        _who_category(reference).alias("category"),
    )
    missing = f"no {reference.t_source} T-score at {', '.join(reference.sites)}"
    rows = refuse(rows, pl.col("label_value").is_null(), reason="no_valid_site", detail=say(missing, _why_none(reference)))
    unrounded = _who_category(reference.model_copy(update={"t_rounding": "none"}))
    return flag(rows, unrounded != pl.col("category"), remark="rounding_decides_class")


def _of_lowest(of_site: dict[str, pl.Expr]) -> pl.Expr:
    """What belongs to the lowest T-score; of equal ones, to the site declared first."""
    return pl.coalesce([pl.when(pl.col(f"{s}:t") == pl.col("label_value")).then(value) for s, value in of_site.items()])


def _t_score(site: str, reference: Reference) -> tuple[pl.Expr, pl.Expr]:
    """T as a fraction of whole numbers; null where the site has none or is not valid."""
    if reference.t_source == "computed":
        over, under = computed_t(site, reference_id=reference.t_reference or "")
    else:
        over = (pl.col(f"{site}_t") * REPORTED_SCALE).round(0).cast(pl.Int64)
        under = pl.when(over.is_not_null()).then(pl.lit(REPORTED_SCALE, dtype=pl.Int64))
    if site in {"femoral_neck", "total_hip"}:
        return over, under
    is_read = pl.col("is_spine_valid") if site == "lumbar_spine" else needs_radius()
    return pl.when(is_read).then(over), pl.when(is_read).then(under)


def _who_category(reference: Reference) -> pl.Expr:
    """WHO class of the T-score over/under, in whole numbers: -2.5 itself is osteoporosis, -1.0 itself is normal (L1)."""
    over, under = pl.col("over"), pl.col("under")
    if reference.t_rounding == "one_decimal_half_away":
        tenths = over.sign() * ((20 * over.abs() + under) // (2 * under))  # half away from zero (L2)
        is_osteoporosis, is_normal = tenths <= -25, tenths >= -10
    else:
        is_osteoporosis, is_normal = 2 * over <= -5 * under, over >= -under
    low = pl.when(is_osteoporosis).then(pl.lit("osteoporosis")).when(is_normal).then(pl.lit("normal"))
    return pl.when(over.is_not_null()).then(low.otherwise(pl.lit("low_bone_mass")))


def _why_none(reference: Reference) -> pl.Expr:
    if reference.t_source == "reported":
        return pl.lit("")
    return say(f"; {reference.t_reference} has no population for device ", pl.col("densitometer_vendor"), " or BMD is missing")


def _by_tbs(rows: pl.DataFrame, reference: Reference) -> pl.DataFrame:
    value = pl.col("tbs")
    cut = tbs_tables()[reference.tbs_cut_offs]
    rows = refuse(rows, value.is_null(), reason="category_not_defined", detail=say("the exam has no TBS"))
    bmi = pl.col("weight_kg") / pl.col("height_m").pow(2)
    major = pl.col("tbs_software_version").str.extract(r"(\d+)").cast(pl.Int64, strict=False)
    is_limited = (major < TBS_CLASS_FREE_OF_BMI).fill_null(value=True)
    invalid = say("tbs_not_valid: BMI ", shown(bmi), f" is outside {TBS_BMI[0]:g} to {TBS_BMI[1]:g} kg/m2")
    rows = refuse(rows, is_limited & ~bmi.is_between(*TBS_BMI), reason="category_not_defined", detail=invalid)
    at_ends = pl.when(value <= float(cut["degraded"])).then(pl.lit("tbs_degraded"))
    at_ends_too = at_ends.when(value >= float(cut["normal"])).then(pl.lit("tbs_normal"))
    classes = at_ends_too.otherwise(pl.lit("tbs_partially_degraded"))
    return rows.with_columns(value.alias("label_value"), classes.alias("category"))


def _labels(rows: pl.DataFrame, reference: Reference, *, key: bytes) -> pl.DataFrame:
    by_t = reference.standard == "dxa_who"
    has_classes = reference.standard in HAS_CLASSES
    is_computed = by_t and reference.t_source == "computed"
    t_reference = pl.lit(reference.t_reference) if is_computed else pl.col("t_reference") if by_t else pl.lit("not_applicable")
    unit = UNIT[reference.standard]
    category = pl.col("category")
    keys = [
        pseudonym(f"{reference.id}\0{exam}", kind="label", issuer=center, key=key)
        for center, exam in rows.select("center", "exam_key").iter_rows()
    ]
    rows = rows.with_columns(
        pl.lit(reference.id).alias("reference_id"),
        pl.Series("label_key", keys, dtype=pl.String),
        pl.col("exam_date").alias("label_date"),
        pl.lit(reference.standard).alias("standard"),
        pl.lit(unit).alias("label_value_unit"),
        (category == "osteoporosis" if has_classes else pl.lit(None, dtype=pl.Boolean)).alias("is_osteoporosis"),
        (category.is_in(["osteoporosis", "low_bone_mass"]) if has_classes else pl.lit(None, dtype=pl.Boolean)).alias(
            "is_low_bone_mass"
        ),
        pl.lit(reference.t_source if by_t else "not_applicable").alias("t_source"),
        t_reference.alias("t_reference"),
    )
    absent = [(c, d) for c, d in schema_of("label").items() if c not in rows.columns]
    rows = rows.with_columns(pl.lit(None, dtype=dtype).alias(column) for column, dtype in absent)
    return rows.select(pl.col(c).cast(d) for c, d in schema_of("label").items()).sort("reference_id", "center", "label_key")


def _rejects(rows: pl.DataFrame, reference: Reference) -> pl.DataFrame:
    refused = rows.select(
        "center",
        pl.lit("label").alias("stage"),
        pl.lit("exam").alias("level"),
        pl.col("exam_key").alias("item_key"),
        pl.lit(reference.id).alias("scope"),
        pl.col(REASON),
        pl.col(DETAIL),
        pl.lit(value=False).alias("is_transient"),
    )
    return refused.select(pl.col(c).cast(d) for c, d in schema_of("reject").items()).sort("center", "item_key")


JUDGES = {"dxa_who": _by_t_score, "dxa_z": by_z_score, "qct": by_vbmd, "tbs": _by_tbs, "smi": by_smi}


@functools.cache
def tbs_tables() -> dict[str, Any]:
    """Every named table of cut-offs of labels/tbs_cut_offs.yaml."""
    text = resources.files("ospor_batch.labels").joinpath("tbs_cut_offs.yaml").read_text(encoding="utf-8")
    tables: dict[str, Any] = yaml.safe_load(text)
    return tables
