"""QCT: mean trabecular vBMD of the lumbar spine, its phantom material and its classes (methods L7, L8)."""

from __future__ import annotations

import functools
from importlib import resources
from typing import Any

import polars as pl
import yaml

from ospor_batch.config import Reference
from ospor_batch.labels.verdict import flag, refuse, say

OSTEOPOROSIS_BELOW, NORMAL_ABOVE = 80.0, 120.0  # mg/cm3; both bounds are low bone mass (methods L7)
ELDERLY_AGE = 50  # years; the limits are for postmenopausal women and elderly men (methods L7)


def by_vbmd(rows: pl.DataFrame, reference: Reference) -> pl.DataFrame:
    """Class exams by vBMD on the phantom scale of the reference; label_value is converted, label_value_measured is not.

    An unknown material is taken as it is and flagged; another one than the reference's is refused unless the study names
    a conversion.
    """
    n = pl.col("n_vertebrae")
    few = say(n, f" vertebrae measured, expected at least {reference.minimum_vertebrae}")
    rows = refuse(rows, n < reference.minimum_vertebrae, reason="vertebrae_too_few", detail=few)
    rows = _on_scale(rows, reference)
    rows = flag(rows, n.is_null(), remark="n_vertebrae_unknown")
    rows = flag(rows, pl.col("phantom_material") == "unknown", remark="phantom_material_unknown")
    is_younger = (pl.col("menopause") == "pre") | (pl.col("age_at_label") < ELDERLY_AGE)
    rows = flag(rows, is_younger, remark="outside_acr_population")
    value = pl.col("label_value")
    at_ends = pl.when(value < OSTEOPOROSIS_BELOW).then(pl.lit("osteoporosis"))
    return rows.with_columns(
        at_ends.when(value > NORMAL_ABOVE).then(pl.lit("normal")).otherwise(pl.lit("low_bone_mass")).alias("category")
    )


def _on_scale(rows: pl.DataFrame, reference: Reference) -> pl.DataFrame:
    value, material = pl.col("vbmd_mg_cm3"), pl.col("phantom_material")
    is_other = ~material.is_in([reference.phantom_material, "unknown"])
    rows = rows.with_columns(value.alias("label_value"), value.alias("label_value_measured"))
    rows = rows.with_columns(pl.lit(None, pl.String).alias("phantom_conversion"))
    if reference.phantom_conversion == "none":
        detail = say("measured against ", material, f", and the classes are read on {reference.phantom_material}")
        return refuse(rows, is_other, reason="phantom_material_differs", detail=detail)
    slope = float(conversions()[reference.phantom_conversion]["slope"])
    converted = value * slope if reference.phantom_material == "k2hpo4" else value / slope
    return rows.with_columns(
        pl.when(is_other).then(converted).otherwise(value).alias("label_value"),
        pl.when(is_other).then(pl.lit(reference.phantom_conversion)).alias("phantom_conversion"),
    )


@functools.cache
def conversions() -> dict[str, Any]:
    """Every named conversion of labels/phantom_conversions.yaml."""
    text = resources.files("ospor_batch.labels").joinpath("phantom_conversions.yaml").read_text(encoding="utf-8")
    tables: dict[str, Any] = yaml.safe_load(text)
    return tables
