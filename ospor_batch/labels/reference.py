"""Draw the reference standard from exams: one label per exam, or one reason why there is none.

dxa_who: the lowest valid T-score of the declared sites (methods L1), for people whom WHO's criteria are about (L3). Whether
they are is decided by sex, menopause and age at the exam: men from 50; women after menopause; women of unknown menopause
from menopause_proxy_age, flagged menopause_assumed. Where sex or age is missing and decides, the label is kept and flagged
who_applicability_unknown: a person not known to be outside the group does not leave it unseen, but stands in a stratum of
unknown age or sex, and a criterion on age may still remove the person under its own name (S12).
qct: mean trabecular vBMD under the limits known as the ACR criteria (L7). tbs: class by a named table of cut-offs (L9).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib import resources
from typing import Any

import polars as pl
import yaml

from ospor_batch.config import Reference
from ospor_batch.contracts.table import empty, schema_of
from ospor_batch.errors import LedgerError, StudyError
from ospor_batch.labels.t_reference import check_t_reference, computed_t
from ospor_batch.labels.verdict import DETAIL, REASON, flag, refuse, say, shown
from ospor_batch.pseudonym import pseudonym

EXAM_KIND = {"dxa_who": "dxa", "qct": "qct", "tbs": "dxa"}
MALE_AGE = 50  # years; men below are read by Z-score (methods L3)
FEWEST_VERTEBRAE = 2  # never one (methods L4)
REPORTED_SCALE = 1_000_000  # a reported T as a whole number of millionths: classes are decided without binary noise (L2)
QCT_OSTEOPOROSIS_BELOW, QCT_NORMAL_ABOVE = 80.0, 120.0  # mg/cm3; both bounds are low bone mass (methods L7)
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
    judged = {"dxa_who": _by_t_score, "qct": _by_vbmd, "tbs": _by_tbs}[reference.standard](rows, reference)
    labels = _labels(judged.filter(pl.col(REASON).is_null()), reference, key=key)
    rejects = _rejects(judged.filter(pl.col(REASON).is_not_null()), reference)
    if labels.height + rejects.height != asked.height:
        raise LedgerError(f"{reference.id}: {asked.height} exams, but {labels.height} labels and {rejects.height} rejects")
    return Drawn(labels, rejects, asked.height)


def check_reference(reference: Reference) -> None:
    """StudyError when a reference names a table that does not exist."""
    if reference.standard == "dxa_who" and reference.t_source == "computed":
        check_t_reference(reference.t_reference or "", where=f"references.{reference.id}.t_reference")
    if reference.standard == "tbs" and reference.tbs_cut_offs not in _tbs_tables():
        names = ", ".join(_tbs_tables())
        raise StudyError(f"references.{reference.id}.tbs_cut_offs is {reference.tbs_cut_offs!r}, expected one of {names}")


def _by_t_score(rows: pl.DataFrame, reference: Reference) -> pl.DataFrame:
    rows = _only_who_group(_with_spine_validity(rows, reference), reference)
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
    if site != "lumbar_spine":
        return over, under
    return pl.when(pl.col("is_spine_valid")).then(over), pl.when(pl.col("is_spine_valid")).then(under)


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


def _with_spine_validity(rows: pl.DataFrame, reference: Reference) -> pl.DataFrame:
    fewest = max(FEWEST_VERTEBRAE, reference.minimum_vertebrae)
    is_short = (pl.col("n_vertebrae") < fewest).fill_null(value=False)
    rows = rows.with_columns((~is_short).alias("is_spine_valid"))
    return flag(rows, is_short, remark="lumbar_spine_too_few_vertebrae")


def _only_who_group(rows: pl.DataFrame, reference: Reference) -> pl.DataFrame:
    sex, age, menopause = pl.col("sex"), pl.col("age_at_label"), pl.col("menopause")
    proxy = reference.menopause_proxy_age
    is_said = pl.when(menopause == "post").then(pl.lit(value=True)).when(menopause == "pre").then(pl.lit(value=False))
    as_woman = is_said.otherwise(age >= proxy)
    as_man = age >= MALE_AGE
    # either sex would be in, or either out: then it need not be known
    as_either = pl.when(as_woman == as_man).then(as_man)
    applies = pl.when(sex == "female").then(as_woman).when(sex == "male").then(as_man).otherwise(as_either)
    rows = rows.with_columns(applies.alias("is_in_who_group"))
    detail = say(
        "sex ", sex, ", age ", shown(age), ", menopause ", menopause, f"; women after menopause or from {proxy:g}, men from 50"
    )
    rows = refuse(rows, ~pl.col("is_in_who_group"), reason="who_not_applicable", detail=detail)
    is_assumed = (sex == "female") & ~menopause.is_in(["post", "pre"]) & age.is_not_null()
    rows = flag(rows, is_assumed, remark="menopause_assumed")
    return flag(rows, pl.col("is_in_who_group").is_null(), remark="who_applicability_unknown")


def _why_none(reference: Reference) -> pl.Expr:
    if reference.t_source == "reported":
        return pl.lit("")
    return say(f"; {reference.t_reference} has no population for device ", pl.col("densitometer_vendor"), " or BMD is missing")


def _by_vbmd(rows: pl.DataFrame, reference: Reference) -> pl.DataFrame:
    value, n = pl.col("vbmd_mg_cm3"), pl.col("n_vertebrae")
    few = say(n, f" vertebrae measured, expected at least {reference.minimum_vertebrae}")
    rows = refuse(rows, n < reference.minimum_vertebrae, reason="vertebrae_too_few", detail=few)
    rows = flag(rows, n.is_null(), remark="n_vertebrae_unknown")
    is_younger = (pl.col("menopause") == "pre") | (pl.col("age_at_label") < MALE_AGE)
    rows = flag(rows, is_younger, remark="outside_acr_population")
    at_ends = pl.when(value < QCT_OSTEOPOROSIS_BELOW).then(pl.lit("osteoporosis"))
    classes = at_ends.when(value > QCT_NORMAL_ABOVE).then(pl.lit("normal")).otherwise(pl.lit("low_bone_mass"))
    return rows.with_columns(value.alias("label_value"), classes.alias("category"))


def _by_tbs(rows: pl.DataFrame, reference: Reference) -> pl.DataFrame:
    value = pl.col("tbs")
    cut = _tbs_tables()[reference.tbs_cut_offs]
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
    has_classes = reference.standard != "tbs"
    is_computed = by_t and reference.t_source == "computed"
    t_reference = pl.lit(reference.t_reference) if is_computed else pl.col("t_reference") if by_t else pl.lit("not_applicable")
    unit = {"dxa_who": "t_score", "qct": "mg/cm3", "tbs": "tbs"}[reference.standard]
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


@functools.cache
def _tbs_tables() -> dict[str, Any]:
    text = resources.files("ospor_batch.labels").joinpath("tbs_cut_offs.yaml").read_text(encoding="utf-8")
    tables: dict[str, Any] = yaml.safe_load(text)
    return tables
