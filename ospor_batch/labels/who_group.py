"""Whom WHO's T-score criteria are about, and the Z-score of those whom they are not about (methods L3, L4)."""

from __future__ import annotations

import polars as pl

from ospor_batch.config import Reference
from ospor_batch.labels.verdict import flag, refuse, say, shown

MALE_AGE = 50  # years; men below are read by Z-score (methods L3)
FEWEST_VERTEBRAE = 2  # never one (methods L4)
BELOW_EXPECTED_Z = -2.0  # at or below: below the expected range for age (ISCD; methods L3)


def with_spine_validity(rows: pl.DataFrame, reference: Reference) -> pl.DataFrame:
    """Flag a lumbar spine of too few evaluable vertebrae and mark it in is_spine_valid."""
    fewest = max(FEWEST_VERTEBRAE, reference.minimum_vertebrae)
    is_short = (pl.col("n_vertebrae") < fewest).fill_null(value=False)
    rows = rows.with_columns((~is_short).alias("is_spine_valid"))
    return flag(rows, is_short, remark="lumbar_spine_too_few_vertebrae")


def with_group(rows: pl.DataFrame, reference: Reference) -> pl.DataFrame:
    """Add is_in_who_group: men from 50, women after menopause; null where sex or age is missing and decides."""
    sex, age, menopause = pl.col("sex"), pl.col("age_at_label"), pl.col("menopause")
    is_said = pl.when(menopause == "post").then(pl.lit(value=True)).when(menopause == "pre").then(pl.lit(value=False))
    as_woman = is_said.otherwise(age >= reference.menopause_proxy_age)
    as_man = age >= MALE_AGE
    # either sex would be in, or either out: then it need not be known
    as_either = pl.when(as_woman == as_man).then(as_man)
    applies = pl.when(sex == "female").then(as_woman).when(sex == "male").then(as_man).otherwise(as_either)
    return rows.with_columns(applies.alias("is_in_who_group"))


def only_who_group(rows: pl.DataFrame, reference: Reference) -> pl.DataFrame:
    """Refuse who is known to be outside the group; flag whose menopause was assumed and who cannot be placed."""
    rows = with_group(rows, reference)
    refused = ~pl.col("is_in_who_group")
    rows = refuse(rows, refused, reason="who_not_applicable", detail=_said(reference))
    is_unsaid = ~pl.col("menopause").is_in(["post", "pre"]) & pl.col("age_at_label").is_not_null()
    rows = flag(rows, (pl.col("sex") == "female") & is_unsaid, remark="menopause_assumed")
    return flag(rows, pl.col("is_in_who_group").is_null(), remark="who_applicability_unknown")


def by_z_score(rows: pl.DataFrame, reference: Reference) -> pl.DataFrame:
    """Class men below 50 and women before menopause by their lowest reported Z-score of the declared sites.

    Nobody else: who belongs to WHO's group, or cannot be placed, is left to a reference of standard dxa_who.
    """
    rows = with_group(with_spine_validity(rows, reference), reference)
    is_theirs = pl.col("is_in_who_group").not_().fill_null(value=False)
    rows = refuse(rows, ~is_theirs, reason="z_not_applicable", detail=_said(reference))
    z_of = {site: _z_score(site) for site in reference.sites}
    rows = rows.with_columns(value.alias(f"{site}:z") for site, value in z_of.items())
    rows = rows.with_columns(label_value=pl.min_horizontal([f"{site}:z" for site in z_of]))
    is_lowest = {site: pl.col(f"{site}:z") == pl.col("label_value") for site in z_of}
    is_valid = {site: pl.col(f"{site}:z").is_not_null() for site in z_of}
    named = pl.concat_str([pl.when(ok).then(pl.lit(s)) for s, ok in is_valid.items()], separator="+", ignore_nulls=True)
    classes = pl.when(pl.col("label_value") <= BELOW_EXPECTED_Z).then(pl.lit("below_expected_range"))
    rows = rows.with_columns(
        pl.coalesce([pl.when(holds).then(pl.lit(site)) for site, holds in is_lowest.items()]).alias("label_site"),
        pl.sum_horizontal(*is_valid.values()).cast(pl.Int64).alias("n_sites_valid"),
        named.alias("label_sites_available"),
        classes.otherwise(pl.lit("within_expected_range")).alias("category"),
    )
    missing = f"no Z-score at {', '.join(reference.sites)}"
    return refuse(rows, pl.col("label_value").is_null(), reason="no_valid_site", detail=say(missing))


def needs_radius() -> pl.Expr:
    """True where the 33 % radius counts: the spine, or both sites of the hip, cannot be read (methods L1)."""
    no_spine = pl.col("lumbar_spine_t").is_null() | ~pl.col("is_spine_valid")
    return no_spine | (pl.col("femoral_neck_t").is_null() & pl.col("total_hip_t").is_null())


def _z_score(site: str) -> pl.Expr:
    value = pl.col(f"{site}_z")
    if site == "radius_33":
        return pl.when(needs_radius()).then(value)
    return pl.when(pl.col("is_spine_valid")).then(value) if site == "lumbar_spine" else value


def _said(reference: Reference) -> pl.Expr:
    proxy = reference.menopause_proxy_age
    age, group = shown(pl.col("age_at_label")), f"; women after menopause or from {proxy:g}, men from {MALE_AGE}"
    return say("sex ", pl.col("sex"), ", age ", age, ", menopause ", pl.col("menopause"), group)
