"""Typed rows to exams: keys, the folding of long layouts, repeats; every row stays a member of one exam or has a reason."""

from __future__ import annotations

import polars as pl

from ospor_batch.config import Export
from ospor_batch.contracts import contract
from ospor_batch.contracts.table import schema_of
from ospor_batch.labels.t_reference import SITES as POPULATED
from ospor_batch.labels.units import LONG_MEASURES, measure
from ospor_batch.labels.verdict import DETAIL, FLAGS, MEMBERS, REASON, flag, refuse, say
from ospor_batch.labels.words import worded_columns
from ospor_batch.pseudonym import AS_WRITTEN, Linkage, pseudonym

# a row that broke one of these says nothing about which exam it belongs to, or nothing that harms its exam
HARMLESS = (
    "contract",
    "missing_patient_id",
    "missing_date",
    "invalid_date",
    "unknown_site",
    "unknown_code",
    "no_measurement",
    "partial_date",
)
NOT_MEASURED = {"center", "export", "row_number", "n_export_rows", "flags", "exam_key", "t_reference"}
SITES = (*POPULATED, "radius_33")
SUFFIX_OF = {
    "bmd_g_cm2": "bmd_g_cm2",
    "t_score": "t",
    "z_score": "z",
    "area_cm2": "area_cm2",
}  # long column to the ending of the exam's column


def with_exam_columns(
    rows: pl.DataFrame, *, export: Export, center: str, key: bytes, linkage: Linkage = AS_WRITTEN
) -> pl.DataFrame:
    """Complete typed rows to the columns of the exam contract, with exam_key, patient_key and members (row numbers)."""
    rows = rows.with_columns(
        pl.lit(center).alias("center"),
        pl.lit(export.path).alias("export"),
        pl.lit(export.kind).alias("exam_kind"),
        pl.concat_list("row_number").alias(MEMBERS),
        pl.lit(1, dtype=pl.Int64).alias("n_export_rows"),
        _t_reference(rows, export=export),
        _phantom(export=export),
        pl.when(pl.col("sex") == "male").then(pl.lit("not_applicable")).otherwise(pl.col("menopause")).alias("menopause"),
    )
    absent = {c: d for c, d in schema_of("exam").items() if c not in rows.columns and not c.endswith("_key")}
    rows = rows.with_columns(pl.lit(None, dtype=dtype).alias(column) for column, dtype in absent.items())
    return _with_keys(rows, center=center, key=key, linkage=linkage)


def _t_reference(rows: pl.DataFrame, *, export: Export) -> pl.Expr:
    declared = pl.lit(export.t_reference)
    return (pl.coalesce("t_reference", declared) if "t_reference" in rows.columns else declared).alias("t_reference")


def _phantom(*, export: Export) -> pl.Expr:
    if export.kind != "qct":
        return pl.lit("not_applicable").alias("phantom_material")
    is_said = ~pl.col("phantom_material").is_in(["unknown", "not_applicable"])
    return (
        pl.when(is_said).then(pl.col("phantom_material")).otherwise(pl.lit(export.phantom_material)).alias("phantom_material")
    )


def _with_keys(rows: pl.DataFrame, *, center: str, key: bytes, linkage: Linkage) -> pl.DataFrame:
    """Key an exam by its number where the export has one, else by patient, date and device."""
    wanted = ["exam_kind", "patient_id", "exam_date", "exam_number", "densitometer_vendor", "device_model"]
    if "exam_number" not in rows.columns:
        rows = rows.with_columns(pl.lit(None, dtype=pl.String).alias("exam_number"))
    patients = {p: linkage.key_of(p, center=center, key=key) for p in rows["patient_id"].unique()}
    people = {p: linkage.person(p, center=center) for p in patients}
    exams: list[str | None] = []
    for kind, patient, day, number, vendor, model in rows.select(wanted).iter_rows():
        known = (number,) if number is not None else (f"{day:%Y-%m-%d}" if day else None, vendor, model or "")
        person = people[patient]
        who = None if person is None else person.number if person.issuer == center else "\0".join(person)
        said = None if who is None or known[0] is None else "\0".join((kind, who, *known))
        exams.append(None if said is None else pseudonym(said, kind="exam", issuer=center, key=key))
    return rows.with_columns(
        pl.Series("exam_key", exams, dtype=pl.String),
        pl.Series("patient_key", [patients[p] for p in rows["patient_id"].to_list()], dtype=pl.String),
    )


def folded(rows: pl.DataFrame, *, export: Export) -> pl.DataFrame:
    """Fold a row per site or code into a row per exam; refused rows stay rows of their own.

    A site written under two names (left and right hip) gives its lower value (methods L1). Whatever refuses a row of an
    exam refuses the exam, as it would in a wide layout: which layout a hospital writes must not decide who is kept.
    """
    rows = rows.sort("row_number")
    measured = list(export.codes) or [c for c in LONG_MEASURES if c in rows.columns]
    rows = _refuse_repeated_sites(rows, measured=measured, conflicts=export.conflicts)
    rows = _refuse_disagreeing(rows, export=export)
    harmless = (*HARMLESS, "duplicate_exam", *(["conflicting_exam"] if export.conflicts == "first" else []))
    rows = _refuse_siblings(rows, harmless=harmless)
    refused = rows.filter(pl.col(REASON).is_not_null())
    exams = _one_row_each(rows.filter(pl.col(REASON).is_null()), measured=[c for c in LONG_MEASURES if c in export.columns])
    return pl.concat([exams, refused.select(exams.columns)])


def _one_row_each(rows: pl.DataFrame, *, measured: list[str]) -> pl.DataFrame:
    by_value = [c for c in ("t_score", "bmd_g_cm2") if c in measured]
    rows = rows.sort("exam_key", "site", *by_value, "row_number", nulls_last=True)
    of_sites = {f"{s}_{SUFFIX_OF[c]}": pl.col(c).filter(pl.col("site") == s).first() for c in measured for s in SITES}
    shared = [c for c in schema_of("exam") if c not in {"exam_key", "row_number", "n_export_rows", FLAGS, *of_sites}]
    is_known = {c: pl.col(c) != "unknown" for c in worded_columns()}
    exams = rows.group_by("exam_key", maintain_order=True).agg(
        *[pl.col(c).filter(is_known[c] if c in is_known else pl.col(c).is_not_null()).first() for c in shared],
        *[value.alias(column) for column, value in of_sites.items()],
        pl.col("row_number").min(),
        pl.col("row_number").sort().alias(MEMBERS),
        pl.len().cast(pl.Int64).alias("n_export_rows"),
        pl.col(FLAGS).str.split(";").explode().alias(FLAGS),
        pl.col("site").filter(pl.col("site").is_duplicated()).unique().alias("twice"),
    )
    exams = exams.with_columns(
        *[pl.col(c).fill_null("unknown") for c in worded_columns()],
        pl.col(FLAGS).list.unique().list.sort().list.join(";").str.strip_chars(";"),
        *[pl.lit(None, dtype=pl.String).alias(c) for c in (REASON, DETAIL)],
    )
    for site in SITES:
        exams = flag(exams, pl.col("twice").list.contains(site), remark=f"lowest_of_two:{site}")
    return exams.drop("twice")


def _refuse_disagreeing(rows: pl.DataFrame, *, export: Export) -> pl.DataFrame:
    """Rows of one exam that disagree about the person (height, sex ...): a conflict whatever the setting."""
    said = [c for c in export.columns if c in schema_of("exam") and c not in {"exam_date", "device_model"}]
    known = {c: pl.col(c) if c not in worded_columns() else pl.when(pl.col(c) != "unknown").then(pl.col(c)) for c in said}
    differs = [known[c].drop_nulls().n_unique().over(["exam_key", REASON]) > 1 for c in said]
    named = pl.concat_str(
        [pl.when(d).then(pl.lit(c)) for c, d in zip(said, differs, strict=True)], separator=", ", ignore_nulls=True
    )
    if not said:
        return rows
    detail = say("row ", pl.col("row_number"), ": the rows of this exam differ in ", named)
    return refuse(rows, pl.any_horizontal(differs), reason="conflicting_exam", detail=detail)


def _refuse_repeated_sites(rows: pl.DataFrame, *, measured: list[str], conflicts: str) -> pl.DataFrame:
    """A site (or code) written twice under one name: identical repeats go, different ones are a conflict."""
    open_rows = pl.col(REASON).is_null()
    place = ["exam_key", "site:written"]
    n_alike = pl.int_range(pl.len()).over([*place, *measured, REASON])
    row = say("row ", pl.col("row_number"))
    repeat = say(row, ": the same site of the same exam, with the same values, stands in an earlier row")
    rows = refuse(rows, open_rows & (n_alike > 0), reason="duplicate_exam", detail=repeat)
    n_left = pl.len().over([*place, REASON])
    later = pl.int_range(pl.len()).over([*place, REASON]) > 0
    conflict = say(row, ": the same site of the same exam stands twice with different values")
    is_refused = (n_left > 1) & (later if conflicts == "first" else pl.lit(value=True))
    return refuse(rows, open_rows & is_refused, reason="conflicting_exam", detail=conflict)


def _refuse_siblings(rows: pl.DataFrame, *, harmless: tuple[str, ...]) -> pl.DataFrame:
    is_harm = pl.col(REASON).is_not_null() & ~pl.col(REASON).is_in(list(harmless))
    first = rows.filter(is_harm & pl.col("exam_key").is_not_null()).unique("exam_key", keep="first", maintain_order=True)
    first = first.select("exam_key", pl.col(REASON).alias("_reason"), pl.col("row_number").alias("_row"))
    rows = rows.join(first, on="exam_key", how="left", maintain_order="left")
    detail = say("row ", pl.col("row_number"), ": refused together with row ", pl.col("_row"), " of the same exam")
    is_sibling = pl.col(REASON).is_null() & pl.col("_reason").is_not_null()
    return rows.with_columns(
        pl.when(is_sibling).then(pl.col("_reason")).otherwise(pl.col(REASON)).alias(REASON),
        pl.when(is_sibling).then(detail).otherwise(pl.col(DETAIL)).alias(DETAIL),
    ).drop("_reason", "_row")


def refuse_unmeasured(exams: pl.DataFrame, *, kind: str) -> pl.DataFrame:
    """Refuse exams that hold none of the values that their kind is about."""
    about = {
        "dxa": [f"{site}_{what}" for site in SITES for what in ("bmd_g_cm2", "t", "z")],
        "qct": ["vbmd_mg_cm3"],
        "body": ["muscle_area_cm2"],
    }[kind]
    detail = say("row ", pl.col("row_number"), f": none of {', '.join(about)} has a value")
    is_empty = pl.all_horizontal(pl.col(c).is_null() for c in about)
    return refuse(exams, is_empty, reason="no_measurement", detail=detail)


def refuse_repeats(exams: pl.DataFrame) -> pl.DataFrame:
    """Refuse exams that stand twice, in one export or in two: identical ones but the first, conflicting ones all.

    Row order is the order of the study file, then of the rows. Column ``conflicts`` is the export's setting; "first" keeps
    the first of conflicting exams only when every export concerned says so.
    """
    measured = [c for c in contract("exam").columns if c not in NOT_MEASURED]
    open_rows = pl.col(REASON).is_null()
    is_elsewhere = pl.col("export").first().over(["exam_key", REASON]) != pl.col("export")
    first_row = pl.col("row_number").first().over(["exam_key", REASON])
    where = say("row ", first_row, pl.when(is_elsewhere).then(pl.lit(" of an earlier export")))
    row = say("row ", pl.col("row_number"))
    is_repeat = pl.int_range(pl.len()).over(["exam_key", REASON, *measured]) > 0
    repeat = say(row, ": the same exam with the same values as ", where)
    exams = refuse(exams, open_rows & is_repeat, reason="duplicate_exam", detail=repeat)
    n_left = pl.len().over(["exam_key", REASON])
    may_keep = (pl.col("conflicts") == "first").all().over(["exam_key", REASON])
    is_later = pl.int_range(pl.len()).over(["exam_key", REASON]) > 0
    differ = say(row, ": one patient, date and device, different values; differing: ", _differing(measured))
    is_refused = (n_left > 1) & (is_later | ~may_keep)
    return refuse(exams, open_rows & is_refused, reason="conflicting_exam", detail=differ)


def _differing(columns: list[str]) -> pl.Expr:
    named = [pl.when(pl.col(c).n_unique().over(["exam_key", REASON]) > 1).then(pl.lit(c)) for c in columns]
    return pl.concat_str(named, separator=", ", ignore_nulls=True)


def flag_values(exams: pl.DataFrame, *, export: Export) -> pl.DataFrame:
    """Remark on a height that the export has a column for but not here, and on values that are possible but rare."""
    if "height_m" in export.columns:
        exams = flag(exams, pl.col("height_m").is_null(), remark="missing_height")
    for column in schema_of("exam"):
        of = measure(column)
        if of is not None and of.usual is not None:
            exams = flag(exams, ~pl.col(column).is_between(*of.usual), remark=f"unusual_value:{column}")
    return exams
