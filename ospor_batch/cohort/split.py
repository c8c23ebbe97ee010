"""The partition of every person: one, for good; external rules win over the keyed hash."""

from __future__ import annotations

import re

import polars as pl

from ospor_batch.config import Split
from ospor_batch.contracts import contract
from ospor_batch.errors import ContractError, LedgerError, StudyError


def check_split(split: Split, *, centers: tuple[str, ...]) -> None:
    """StudyError when an external rule names a center, vendor or period that cannot be, or a tuned site is not external."""
    _check_sites(split, centers=centers)
    vendors = dict(contract("series").field("scanner_vendor").constraints)["enum"]
    named = {str(kind): values for kind, values in split.external.items()}
    for kind, expected in (("center", centers), ("scanner_vendor", vendors)):
        for value in named.get(kind, ()):
            if value not in expected:
                raise StudyError(f"split.external.{kind} names {value!r}, expected one of {', '.join(expected)}")
    for value in named.get("period", ()):
        if not re.fullmatch(r"\d{4}(Q[1-4])?", value):
            raise StudyError(f"split.external.period names {value!r}, expected a year or quarter such as 2022 or 2022Q3")


def _check_sites(split: Split, *, centers: tuple[str, ...]) -> None:
    outside = set(centers if split.external.keys() - {"center"} else split.external.get("center", ()))
    for center in split.site_tuning:
        if center not in centers:
            raise StudyError(f"split.site_tuning names {center!r}, expected one of {', '.join(centers)}")
        if center not in outside:
            raise StudyError(
                f"split.site_tuning names {center!r}, none of whose people are external; name it in split.external.center"
            )


def assign(index: pl.DataFrame, *, split: Split) -> pl.DataFrame:
    """Give every person one partition.

    index: the prevalence index series of the persons, over all recipes, with period; a person who falls under an
    external rule in any of them is external in all. split_position is the keyed hash of the person. A person whom a
    crosswalk finds in several centers has one partition whatever recipe finds them where: external if any of those
    centers is, else that of the smallest position; the row stands under the first center by name. Of the external people of
    a center in site_tuning, those of the smallest positions up to its share are the site's own tuning people.
    """
    people = (
        index.with_columns(rule=_external_rule(split))
        .group_by("patient_key")
        .agg(
            pl.col("center").min(),
            n_centers=pl.col("center").n_unique(),
            lowest=pl.col("split_position").min(),
            highest=pl.col("split_position").max(),
            rule=pl.col("rule").drop_nulls().sort().first(),
        )
    )
    _refuse_leaks(people, needs_position=split.train + split.tuning > 0 or bool(split.site_tuning))
    by_hash = (
        pl.when(pl.col("lowest") < split.train)
        .then(pl.lit("train"))
        .when(pl.col("lowest") < split.train + split.tuning)
        .then(pl.lit("tuning"))
        .otherwise(pl.lit("internal_test"))
    )
    is_external = pl.col("rule").is_not_null()
    share = pl.col("center").replace_strict(split.site_tuning, default=0.0, return_dtype=pl.Float64)
    outside = pl.when(pl.col("lowest") < share).then(pl.lit("site_tuning")).otherwise(pl.lit("external"))
    return people.select(
        "patient_key",
        "center",
        partition=pl.when(is_external).then(outside).otherwise(by_hash),
        partition_reason=pl.coalesce("rule", pl.lit("hash")),
    ).sort("patient_key")


def _external_rule(split: Split) -> pl.Expr:
    named = [(kind, value) for kind, values in sorted(split.external.items()) for value in values]
    found = [pl.when(_falls_under(kind, value)).then(pl.lit(f"{kind}={value}")) for kind, value in named]
    return pl.coalesce(*found, pl.lit(None, pl.String))


def _falls_under(kind: str, value: str) -> pl.Expr:
    # a year stands for its four quarters
    return pl.col(kind).str.starts_with(value) if kind == "period" else pl.col(kind) == value


def _refuse_leaks(people: pl.DataFrame, *, needs_position: bool) -> None:
    is_of_one = pl.col("n_centers") == 1
    if n := people.filter(is_of_one & (pl.col("lowest") != pl.col("highest"))).height:
        raise LedgerError(f"split: {n} persons have more than one split_position; run catalog again for every center")
    if needs_position and (n := people.filter(pl.col("lowest").is_null()).height):
        raise ContractError(f"split: {n} persons have no split_position; run catalog again for every center")
