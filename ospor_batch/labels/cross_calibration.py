"""Standardised BMD of several makers' devices: a pooled continuous outcome, never an individual's class (methods L6)."""

from __future__ import annotations

import functools
from importlib import resources
from typing import Any

import polars as pl
import yaml

SITES = ("lumbar_spine", "femoral_neck", "total_hip")
MAKERS = ("hologic", "lunar", "norland")
OF_DEVICE = "device"


def with_sbmd(exams: pl.DataFrame, *, spine_equation: str) -> pl.DataFrame:
    """Add SITE_sbmd_mg_cm2 and bmd_scale; spine_equation none leaves all on the scale of the device.

    sBMD is null for makers without an equation, and bmd_scale says ``device`` where a row has none.
    """
    if spine_equation == "none":
        nothing = [pl.lit(None, pl.Float64).alias(f"{site}_sbmd_mg_cm2") for site in SITES]
        return exams.with_columns(*nothing, bmd_scale=pl.lit(OF_DEVICE))
    exams = exams.with_columns(_sbmd(site, spine_equation).alias(f"{site}_sbmd_mg_cm2") for site in SITES)
    has_any = pl.any_horizontal(pl.col(f"{site}_sbmd_mg_cm2").is_not_null() for site in SITES)
    scale = pl.when(has_any).then(pl.lit(f"sbmd:{spine_equation}")).otherwise(pl.lit(OF_DEVICE))
    return exams.with_columns(bmd_scale=scale)


def equations(spine_equation: str) -> dict[str, dict[str, Any]]:
    """Slope and intercept of every maker, with source and status, by site."""
    tables = _tables()
    return {"lumbar_spine": tables["spine"][spine_equation], **{site: tables[site] for site in SITES[1:]}}


def _sbmd(site: str, spine_equation: str) -> pl.Expr:
    of = equations(spine_equation)[site]
    value = pl.lit(None, pl.Float64)
    for maker in MAKERS:
        line = float(of[maker]["slope"]) * pl.col(f"{site}_bmd_g_cm2") + float(of[maker]["intercept"])
        value = pl.when(pl.col("densitometer_vendor") == maker).then(1000 * line).otherwise(value)  # g to mg
    return value


@functools.cache
def _tables() -> dict[str, Any]:
    text = resources.files("ospor_batch.labels").joinpath("cross_calibration.yaml").read_text(encoding="utf-8")
    tables: dict[str, Any] = yaml.safe_load(text)
    return tables
