"""Units of measured columns: declared, converted, and recognised when they were forgotten."""

from __future__ import annotations

import functools
import unicodedata
from dataclasses import dataclass
from decimal import Decimal
from importlib import resources
from typing import Any

import polars as pl
import yaml

from ospor_batch.contracts import Field, contract
from ospor_batch.errors import StudyError

DIGITS = 9  # decimals kept after a conversion: 858 mg/cm2 and 0.858 g/cm2 become the same number
# a long layout writes one site a row, in columns that hold for every site
LONG_MEASURES = {
    "bmd_g_cm2": "lumbar_spine_bmd_g_cm2",
    "t_score": "lumbar_spine_t",
    "z_score": "lumbar_spine_z",
    "area_cm2": "lumbar_spine_area_cm2",
}


@dataclass(frozen=True)
class Measure:
    """A numeric column of the exam: its unit, its range and how a forgotten unit is recognised."""

    key: str
    unit: str
    minimum: float
    maximum: float
    is_integer: bool
    mistaken: tuple[str, ...]
    usual: tuple[float, float] | None
    slip: tuple[float, float, str] | None


@functools.cache
def measure(key: str) -> Measure | None:
    """The measure behind a key of the column map; None for text, dates and codes."""
    column = LONG_MEASURES.get(key, key)
    if column not in contract("exam").columns:
        return None
    field: Field = contract("exam").field(column)
    bounds = dict(field.constraints)
    if field.type not in {"number", "integer"} or "maximum" not in bounds:
        return None
    unit = field.unit or "1"
    slip = _tables()["slips"].get(column)
    usual = _tables()["usual"].get(column)
    return Measure(
        key=key,
        unit=unit,
        minimum=float(bounds["minimum"]),
        maximum=float(bounds["maximum"]),
        is_integer=field.type == "integer",
        mistaken=tuple(_tables()["mistaken"].get(unit, ())),
        usual=None if usual is None else (float(usual[0]), float(usual[1])),
        slip=None if slip is None else (float(slip["above"]), float(slip["below"]), str(slip["unit"])),
    )


def factor(unit: str | None, *, of: Measure, where: str) -> float:
    """What a value in this unit is multiplied by; StudyError names the key when the unit cannot become the column's."""
    if unit is None:
        return 1.0
    known = _units_like(of.unit)
    found = known.get(_plain_unit(unit))
    if found is None:
        raise StudyError(f"{where}.unit is {unit!r}, which cannot become {of.unit}; expected one of {', '.join(known)}")
    return float(found / known[_plain_unit(of.unit)])


def unit_meant(written: pl.Expr, value: pl.Expr, *, of: Measure, declared: str | None) -> pl.Expr:
    """The unit that an unlikely value was probably written in; null when none fits. written is as in the file."""
    known = _units_like(of.unit)
    own = known[_plain_unit(of.unit)]
    is_outside = ~value.is_between(of.minimum, of.maximum)
    meant = pl.lit(None, dtype=pl.String)
    for unit in of.mistaken:
        if _plain_unit(unit) == _plain_unit(declared or of.unit):
            continue
        would_fit = (written * float(known[unit] / own)).is_between(of.minimum, of.maximum)
        meant = pl.when(meant.is_null() & is_outside & would_fit).then(pl.lit(unit)).otherwise(meant)
    if of.slip is not None:
        above, below, unit = of.slip
        is_slip = value.is_between(above, below, closed="none")
        meant = pl.when(meant.is_null() & is_slip).then(pl.lit(unit)).otherwise(meant)
    return meant


def _units_like(unit: str) -> dict[str, Decimal]:
    for units in _tables()["dimensions"].values():
        if _plain_unit(unit) in units:
            return {name: Decimal(text) for name, text in units.items()}
    raise StudyError(f"labels/column_units.yaml: no dimension holds {unit!r}")


def _plain_unit(unit: str) -> str:
    text = "".join(unicodedata.normalize("NFKC", unit).lower().split())
    return text.replace("^", "").replace("**", "").replace("μ", "u")


@functools.cache
def _tables() -> dict[str, Any]:
    text = resources.files("ospor_batch.labels").joinpath("column_units.yaml").read_text(encoding="utf-8")
    tables: dict[str, Any] = yaml.safe_load(text)
    return tables
