"""Reference populations: T-scores computed from BMD, and reported T-scores held against their BMD."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib import resources
from typing import Any

import polars as pl
import yaml

from ospor_batch.errors import StudyError
from ospor_batch.labels.verdict import flag, refuse, say, shown

SITES = ("lumbar_spine", "femoral_neck", "total_hip")
# BMD, mean and SD as whole numbers of 1e-9 g/cm2: (0.558 - 0.858) / 0.120 is then exactly -2.5 (methods L2)
SCALE = 1_000_000_000


@dataclass(frozen=True)
class Population:
    """Young adults that one site on one device scale is compared with; BMD in g/cm2."""

    reference_id: str
    site: str
    scale: str
    sex: str
    mean: float
    sd: float
    status: str
    source: str


def t_reference_ids() -> tuple[str, ...]:
    """Names that t_reference may have."""
    return tuple(sorted({p.reference_id for p in populations()}))


def check_t_reference(reference_id: str, *, where: str) -> None:
    """StudyError when a T-score cannot be computed under this name."""
    if reference_id not in t_reference_ids():
        raise StudyError(f"{where} is {reference_id!r}, expected one of {', '.join(t_reference_ids())}")


@functools.cache
def populations() -> tuple[Population, ...]:
    """Every population of labels/t_references.yaml."""
    rows = [(name, row) for name, of in _tables()["references"].items() for row in of]
    return tuple(Population(reference_id=name, **row) for name, row in rows)


def computed_t(site: str, *, reference_id: str) -> tuple[pl.Expr, pl.Expr]:
    """Numerator and denominator of T as whole numbers; null where BMD, device scale or sex has no population."""
    mean = sd = pl.lit(None, dtype=pl.Int64)
    for of in populations():
        if of.site == site and of.reference_id == reference_id:
            is_of = _is_of(of)
            mean = pl.when(is_of).then(pl.lit(_whole(of.mean), dtype=pl.Int64)).otherwise(mean)
            sd = pl.when(is_of).then(pl.lit(_whole(of.sd), dtype=pl.Int64)).otherwise(sd)
    bmd = (pl.col(f"{site}_bmd_g_cm2") * SCALE).round(0).cast(pl.Int64)
    return bmd - mean, pl.when((bmd - mean).is_not_null()).then(sd)


def judge_t_scores(exams: pl.DataFrame) -> pl.DataFrame:
    """Hold each reported T-score against its BMD.

    Under a declared and known reference a contradiction refuses the exam; under any other it is a remark
    (t_contradicts_bmd:SITE), made only when T lies far outside what every known reference for the device would give.
    """
    for site in SITES:
        t = pl.col(f"{site}_t")
        expected = _expected(site)
        is_apart = (t - expected).abs() > float(_tables()["tolerance"]["declared"])
        row, under = say("row ", pl.col("row_number")), pl.col("t_reference")
        detail = say(row, f", {site}: T-score ", shown(t), " but BMD gives ", shown(expected), " under ", under)
        exams = refuse(exams, is_apart, reason="t_contradicts_bmd", detail=detail)
        lowest, highest = _span(site)
        margin = float(_tables()["tolerance"]["unknown"])
        is_far = expected.is_null() & ~t.is_between(lowest - margin, highest + margin)
        exams = flag(exams, is_far, remark=f"t_contradicts_bmd:{site}")
    return exams


def _expected(site: str) -> pl.Expr:
    expected = pl.lit(None, dtype=pl.Float64)
    for of in populations():
        if of.site == site:
            is_declared = (pl.col("t_reference") == of.reference_id) & _is_of(of)
            expected = pl.when(is_declared).then(_t(of)).otherwise(expected)
    return expected


def _span(site: str) -> tuple[pl.Expr, pl.Expr]:
    scales = sorted({of.scale for of in populations() if of.site == site})
    is_unknown_scale = ~pl.col("densitometer_vendor").is_in(scales)
    each = [
        pl.when(is_unknown_scale | (pl.col("densitometer_vendor") == of.scale)).then(_t(of))
        for of in populations()
        if of.site == site
    ]
    return pl.min_horizontal(each), pl.max_horizontal(each)


def _t(of: Population) -> pl.Expr:
    return (pl.col(f"{of.site}_bmd_g_cm2") - of.mean) / of.sd


def _is_of(of: Population) -> pl.Expr:
    is_scale = pl.col("densitometer_vendor") == of.scale
    return is_scale if of.sex == "any" else is_scale & (pl.col("sex") == of.sex)


def _whole(value: float) -> int:
    return round(value * SCALE)


@functools.cache
def _tables() -> dict[str, Any]:
    text = resources.files("ospor_batch.labels").joinpath("t_references.yaml").read_text(encoding="utf-8")
    tables: dict[str, Any] = yaml.safe_load(text)
    return tables
