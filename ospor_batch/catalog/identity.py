"""Whose images these are: patient numbers to persons, and numbers that cannot belong to one person."""

from __future__ import annotations

from dataclasses import dataclass, field

import polars as pl

from ospor_batch.contracts.table import schema_of
from ospor_batch.pseudonym import Linkage, split_position

FLAG = "is_identity_collision"
AGES_APART_YEARS = 3.0  # declared judgement: PatientAge counts whole years, and some are typed in
CAPPED_YEARS = 89.0  # 45 CFR 164.514(b)(2)(i)(C): de-identification may write all ages above as one
DAYS_PER_YEAR = 365.2425


@dataclass(frozen=True)
class Persons:
    """How the numbers of one center become keys; without a pseudonym key those of the crawl are kept."""

    center: str
    split_key: bytes
    key: bytes | None = None
    linkage: Linkage = field(default_factory=Linkage)

    def position(self, number: str | None, issuer: str | None) -> float | None:
        """Place of a person between 0 and 1; null without a number."""
        person = self.linkage.person(number, center=self.center, issuer=issuer)
        return None if person is None else split_position(person.number, center=person.issuer, key=self.split_key)

    def rekeyed(self, instances: pl.DataFrame) -> pl.DataFrame:
        """Instances with the patient keys that the study's rules of linkage give; each distinct number is hashed once."""
        if self.key is None or instances.height == 0:
            return instances
        columns = ["patient_id", "issuer_of_patient_id"]
        distinct = instances.select(columns).unique()
        keys = [self._key(*row) for row in distinct.iter_rows()]
        found = distinct.with_columns(pl.Series("person_key", keys, pl.String))
        joined = instances.join(found, on=columns, how="left", nulls_equal=True, maintain_order="left")
        return joined.with_columns(patient_key="person_key").drop("person_key")

    def _key(self, number: str | None, issuer: str | None) -> str | None:
        return None if self.key is None else self.linkage.key_of(number, center=self.center, key=self.key, issuer=issuer)


@dataclass(frozen=True)
class Identified:
    """Series with their flag, and the collisions; rows in = rows out."""

    series: pl.DataFrame
    collisions: pl.DataFrame


def with_collisions(series: pl.DataFrame) -> Identified:
    """Flag every series of a study with two numbers and of a number with two birth dates, sexes or ages; none is merged.

    A function of the whole center: one file may set a person's other series in doubt. A second call changes nothing.
    """
    findings = pl.col("findings").str.split(";")
    known = series.filter(pl.col("patient_key").is_not_null())
    has_copy = findings.list.contains("copy_under_other_number")
    of_study = _spread(series, by="study_key", value="patient_key", inside=has_copy)
    of_birth = _spread(known, by="patient_key", value="birth_date", inside=findings.list.contains("mixed_birth_date"))
    sexes = known.with_columns(stated=pl.when(pl.col("sex") != "unknown").then("sex"))
    of_sex = _spread(sexes, by="patient_key", value="stated", inside=findings.list.contains("mixed_sex"))
    of_age, of_copy = _ages_apart(known), _of_copies(series)
    found = pl.concat(
        [
            of_study.select("center", pl.lit("two_numbers_in_one_study").alias("kind"), "item_key", "n_values", "n_series"),
            of_birth.select("center", pl.lit("two_birth_dates").alias("kind"), "item_key", "n_values", "n_series"),
            of_sex.select("center", pl.lit("two_sexes").alias("kind"), "item_key", "n_values", "n_series"),
            of_age.select("center", pl.lit("two_ages").alias("kind"), "item_key", "n_values", "n_series"),
            of_copy.select("center", pl.lit("copy_under_other_number").alias("kind"), "item_key", "n_values", "n_series"),
        ]
    )
    studies = of_study["item_key"].implode()
    people = pl.concat([of_birth["item_key"], of_sex["item_key"], of_age["item_key"], of_copy["item_key"]]).unique().implode()
    # who shares a study with a second number may have images of the other person in every study
    doubtful = series.filter(pl.col("study_key").is_in(studies), pl.col("patient_key").is_not_null())["patient_key"]
    everyone = pl.concat([people.explode(), doubtful]).unique().implode()
    is_hit = pl.col("study_key").is_in(studies) | pl.col("patient_key").is_in(everyone).fill_null(value=False)
    return Identified(
        series=series.with_columns(is_hit.alias(FLAG)),
        collisions=found.select(schema_of("collision").names()).sort("center", "kind", "item_key"),
    )


def _spread(series: pl.DataFrame, *, by: str, value: str, inside: pl.Expr) -> pl.DataFrame:
    """Items with more than one value over their series, or with a series that says so of itself."""
    counted = series.group_by("center", item_key=pl.col(by)).agg(
        n_values=pl.col(value).drop_nulls().n_unique().cast(pl.Int64),
        n_series=pl.len().cast(pl.Int64),
        is_mixed=inside.any(),
    )
    return counted.filter((pl.col("n_values") > 1) | pl.col("is_mixed")).with_columns(n_values=pl.max_horizontal("n_values", 2))


def _ages_apart(known: pl.DataFrame) -> pl.DataFrame:
    """Numbers whose images, where only an age is stated, put the birth years apart: several people under one number."""
    is_stated = (pl.col("age_source") == "patient_age") & (pl.col("age_at_image") <= CAPPED_YEARS)
    by_age = pl.when(is_stated).then(pl.col("image_date").cast(pl.Int32) / DAYS_PER_YEAR - pl.col("age_at_image"))
    born = pl.coalesce(by_age, pl.col("birth_date").cast(pl.Int32) / DAYS_PER_YEAR)
    counted = (
        known.with_columns(born=born, by_age=by_age)
        .group_by("center", item_key="patient_key")
        .agg(
            apart=pl.col("born").max() - pl.col("born").min(),
            is_by_age=pl.col("by_age").is_not_null().any(),
            n_values=pl.col("born").round().drop_nulls().n_unique().cast(pl.Int64),
            n_series=pl.len().cast(pl.Int64),
        )
    )
    return counted.filter("is_by_age", pl.col("apart") > AGES_APART_YEARS)


def _of_copies(series: pl.DataFrame) -> pl.DataFrame:
    """Numbers that refused copies name: of some no image is left, and they must not vanish."""
    named = series.select("center", item_key=pl.col("other_patient_keys").str.split("+")).drop_nulls().explode("item_key")
    counted = named.group_by("center", "item_key").agg(n_series=pl.len().cast(pl.Int64))
    return counted.with_columns(n_values=pl.lit(2, pl.Int64))
