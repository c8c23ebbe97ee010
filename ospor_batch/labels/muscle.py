"""Skeletal muscle index: muscle area over height squared, read by sex-specific cut-offs of one level (methods I1)."""

from __future__ import annotations

import functools
from importlib import resources
from typing import Any

import polars as pl
import yaml

from ospor_batch.config import Reference
from ospor_batch.labels.verdict import refuse, say


def by_smi(rows: pl.DataFrame, reference: Reference) -> pl.DataFrame:
    """Class exams as smi_low or smi_normal; without height, sex, area or the cut-offs' level an exam has no class."""
    cut = smi_tables()[reference.smi_cut_offs]
    level = pl.col("muscle_level").str.strip_chars().str.to_uppercase()
    row = say("row ", pl.col("row_number"))
    undefined = "category_not_defined"
    rows = refuse(rows, pl.col("height_m").is_null(), reason="height_missing", detail=say(row, ": the exam has no height"))
    rows = refuse(rows, pl.col("muscle_area_cm2").is_null(), reason=undefined, detail=say(row, ": the exam has no muscle area"))
    wrong = say(row, ": muscle level is ", level, f", the cut-offs {reference.smi_cut_offs} are of {cut['level']}")
    rows = refuse(rows, level.ne_missing(str(cut["level"])), reason=undefined, detail=wrong)
    no_sex = say(row, ": sex is ", pl.col("sex"), ", and the cut-offs are by sex")
    rows = refuse(rows, ~pl.col("sex").is_in(["female", "male"]), reason=undefined, detail=no_sex)
    index = pl.col("muscle_area_cm2") / pl.col("height_m").pow(2)
    at = pl.when(pl.col("sex") == "female").then(float(cut["female"])).otherwise(float(cut["male"]))
    is_low = index <= at if cut["is_inclusive"] else index < at
    return rows.with_columns(
        index.alias("label_value"),
        pl.when(is_low).then(pl.lit("smi_low")).otherwise(pl.lit("smi_normal")).alias("category"),
    )


@functools.cache
def smi_tables() -> dict[str, Any]:
    """Every named table of cut-offs of labels/smi_cut_offs.yaml."""
    text = resources.files("ospor_batch.labels").joinpath("smi_cut_offs.yaml").read_text(encoding="utf-8")
    tables: dict[str, Any] = yaml.safe_load(text)
    return tables
