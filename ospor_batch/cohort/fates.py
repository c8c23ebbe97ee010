"""The step at which every series, study, person and label leaves; what the flow counts and a trace looks up."""

from __future__ import annotations

import polars as pl

from ospor_batch.cohort.choose import SERIES
from ospor_batch.cohort.criteria import LEAVES_AT
from ospor_batch.cohort.pairing import LABEL_CENTER, PERSON
from ospor_batch.errors import LedgerError


def unit_fates(
    selected: pl.DataFrame,
    pairs: pl.DataFrame,
    *,
    labels: pl.DataFrame,
    rows: pl.DataFrame,
    matches: pl.DataFrame,
    n_criteria: int,
) -> pl.DataFrame:
    """level, center, item_key and leaves_at of every unit; a unit of several rows leaves with the last of them.

    selected: every series with its fate; pairs: judged by the steps on pairs; rows: the manifest; matches: matched pairs.
    """
    found = {
        "series": _series(selected, rows, n_criteria=n_criteria),
        "study": selected.group_by("center", item_key="study_key").agg(pl.col(LEAVES_AT).max()),
        "person": _persons(selected, pairs, n_criteria=n_criteria),
        "label": _labels(labels, pairs, matches),
    }
    columns = (pl.col("center"), pl.col("item_key"), pl.col(LEAVES_AT).cast(pl.Int64))
    return pl.concat(of.select(pl.lit(level).alias("level"), *columns) for level, of in found.items())


def _series(selected: pl.DataFrame, rows: pl.DataFrame, *, n_criteria: int) -> pl.DataFrame:
    index = rows.select(*SERIES, is_index=pl.lit(value=True)).unique()
    at = (
        pl.when(pl.col("fate") == "excluded")
        .then(LEAVES_AT)
        .when(pl.col("fate") == "outranked")
        .then(n_criteria + 1)
        .when(pl.col("is_index").is_null())
        .then(n_criteria + 2)
        .otherwise(n_criteria + 3)
    )
    return selected.join(index, on=SERIES, how="left").select("center", at.alias(LEAVES_AT), item_key="series_key")


def _persons(selected: pl.DataFrame, pairs: pl.DataFrame, *, n_criteria: int) -> pl.DataFrame:
    """Known persons only: series without a patient number cannot be counted as persons."""
    known = selected.filter(pl.col("patient_key").is_not_null())
    people = known.group_by(PERSON).agg(pl.col(LEAVES_AT).max())
    paired = pairs.group_by(PERSON).agg(at_pair=pl.col(LEAVES_AT).max())
    # no pair: leaves at "no label", the step after the criteria
    later = n_criteria + 1 + pl.col("at_pair").fill_null(0)
    at = pl.when(pl.col(LEAVES_AT) <= n_criteria).then(LEAVES_AT).otherwise(later)
    found = people.join(paired, on=PERSON, how="left")
    if found.height != people.height:
        raise LedgerError(f"match: {people.height} persons became {found.height}; a join multiplied them")
    return found.select("center", at.alias(LEAVES_AT), item_key="patient_key")


def _labels(labels: pl.DataFrame, pairs: pl.DataFrame, matches: pl.DataFrame) -> pl.DataFrame:
    one = ["center", "label_key"]
    at_pair = pairs.group_by(center=LABEL_CENTER, label_key="label_key").agg(at_pair=pl.col(LEAVES_AT).max())
    matched = matches.select(pl.col(LABEL_CENTER).alias("center"), "label_key", is_matched=pl.lit(value=True)).unique()
    found = labels.select(one).join(at_pair, on=one, how="left").join(matched, on=one, how="left")
    at = 1 + pl.col("at_pair").fill_null(0) + pl.col("is_matched").is_not_null().cast(pl.Int64)
    return found.select("center", at.alias(LEAVES_AT), item_key="label_key")
