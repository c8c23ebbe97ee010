"""The data files beside the code: every value has a unit, a source and a place in the contract."""

from __future__ import annotations

import polars as pl
import pytest

from ospor_batch.contracts import contract
from ospor_batch.labels.t_reference import SITES, computed_t, populations, t_reference_ids
from ospor_batch.labels.units import factor, measure
from ospor_batch.labels.words import worded, worded_columns

# standardised BMD in g/cm2 = slope * BMD + offset: Lu 2001 (femoral neck), Hanson 1997 (total hip)
EQUATIONS = {
    ("femoral_neck", "hologic"): (1.087, 0.019),
    ("femoral_neck", "lunar"): (0.939, -0.023),
    ("femoral_neck", "norland"): (0.985, 0.006),
    ("total_hip", "hologic"): (1.008, 0.006),
    ("total_hip", "lunar"): (0.979, -0.031),
    ("total_hip", "norland"): (1.012, 0.026),
}


def test_every_population_has_a_source_and_a_status() -> None:
    for of in populations():
        assert of.site in SITES
        assert of.scale in dict(contract("exam").field("densitometer_vendor").constraints)["enum"]
        assert of.sex in {"any", "female", "male"}
        assert of.status in {"V", "C", "M"}
        assert of.source
        assert 0.8 < of.mean < 1.3
        assert 0.1 < of.sd < 0.15


@pytest.mark.parametrize(("name", "within"), [("nhanes3_white_female", 0.0006), ("nhanes3_white_female_by_sbmd", 1e-9)])
def test_hip_populations_of_all_devices_are_one_population(name: str, within: float) -> None:
    hips = {(p.site, p.scale): p for p in populations() if p.reference_id == name and p.site != "lumbar_spine"}
    for (site, scale), of in hips.items():
        slope, offset = EQUATIONS[site, scale]
        hologic, (own_slope, own_offset) = hips[site, "hologic"], EQUATIONS[site, "hologic"]
        assert of.mean * slope + offset == pytest.approx(hologic.mean * own_slope + own_offset, abs=within)
        assert of.sd * slope == pytest.approx(hologic.sd * own_slope, abs=within)


@pytest.mark.parametrize("reference_id", t_reference_ids())
def test_a_computed_t_score_is_null_without_bmd(reference_id: str) -> None:
    rows = pl.DataFrame(
        {"lumbar_spine_bmd_g_cm2": [None, 1.0], "densitometer_vendor": ["hologic", "other"], "sex": ["female"] * 2},
        schema_overrides={"lumbar_spine_bmd_g_cm2": pl.Float64},
    )
    over, under = computed_t("lumbar_spine", reference_id=reference_id)
    assert rows.select(over.alias("over"), under.alias("under")).rows() == [(None, None)] * 2


def test_every_measured_column_has_a_unit_that_converts_to_itself() -> None:
    measured = [name for name in contract("exam").columns if measure(name) is not None]
    assert len(measured) > 10
    for name in measured:
        of = measure(name)
        assert of is not None
        assert factor(of.unit, of=of, where=name) == 1
        for unit in of.mistaken:
            assert factor(unit, of=of, where=name) > 0


@pytest.mark.parametrize(
    ("key", "unit", "times"),
    [
        ("height_m", " CM ", 0.01),
        ("lumbar_spine_bmd_g_cm2", "mg/cm²", 0.001),
        ("vbmd_mg_cm3", "g/cm³", 1000),
        ("bmd_g_cm2", "mg/cm^2", 0.001),
        ("weight_kg", "lb", 0.45359237),
    ],
)
def test_units_are_read_however_they_are_written(key: str, unit: str, times: float) -> None:
    of = measure(key)
    assert of is not None
    assert factor(unit, of=of, where=key) == pytest.approx(times)


def test_every_word_of_the_contract_is_understood() -> None:
    for column in worded_columns():
        allowed = dict(contract("exam").field(column).constraints)["enum"]
        found = worded(pl.Series(list(allowed)), column=column)
        assert found["word"].to_list() == list(allowed)
        assert found["is_recognised"].all()


@pytest.mark.parametrize(
    ("written", "word"),
    [("HOLOGIC, Inc.", "hologic"), ("GE Healthcare Lunar", "lunar"), ("GE", "lunar"), ("Osteosys", "other"), (None, "unknown")],
)
def test_makers_of_devices(written: str | None, word: str) -> None:
    assert worded(pl.Series([written], dtype=pl.String), column="densitometer_vendor")["word"].to_list() == [word]
