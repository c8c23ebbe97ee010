"""Every threshold, formula and reference population that a label can rest on, with its source: the table that shows them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl

from ospor_batch.contracts.table import schema_of
from ospor_batch.labels.cross_calibration import MAKERS, equations
from ospor_batch.labels.muscle import smi_tables
from ospor_batch.labels.reference import TBS_BMI, TBS_CLASS_FREE_OF_BMI, tbs_tables
from ospor_batch.labels.t_reference import populations
from ospor_batch.labels.volumetric import NORMAL_ABOVE, OSTEOPOROSIS_BELOW, conversions
from ospor_batch.labels.who_group import BELOW_EXPECTED_Z, FEWEST_VERTEBRAE, MALE_AGE

# V: checked against a public source; C: confirmed by arithmetic only; M: from memory, not read in the original
WHO = {"source": "WHO Technical Report Series 843, 1994; ISCD Official Positions 2023", "status": "V"}
ISCD = {"source": "ISCD Official Positions 2023", "status": "V"}
ACR = {"source": "limits known as the ACR criteria; PMC7495321, table 2", "status": "V"}
Row = dict[str, Any]


def cut_offs() -> pl.DataFrame:
    """Rows of the cut_off contract, in the order of the standards."""
    schema = schema_of("cut_off")
    rows = [dict.fromkeys(schema) | row for row in (*_classes(), *_populations(), *_equations())]
    return pl.DataFrame(rows, schema=schema).sort("standard", "name", "item", "applies_to", maintain_order=True)


def _classes() -> Iterator[Row]:
    t = {"standard": "dxa_who", "name": "who", "applies_to": "women after menopause, men from 50", "unit": "t_score"}
    yield t | {"item": "osteoporosis", "rule": "at or below", "value": -2.5, **WHO}
    yield t | {"item": "normal", "rule": "at or above", "value": -1.0, **WHO}
    yield t | {"item": "age of men", "rule": "from", "value": float(MALE_AGE), "unit": "a", "applies_to": "men", **ISCD}
    yield t | {"item": "evaluable vertebrae", "rule": "at least", "value": float(FEWEST_VERTEBRAE), "unit": "1", **ISCD}
    z = {"standard": "dxa_z", "name": "iscd", "applies_to": "women before menopause, men below 50", "unit": "z_score"}
    yield z | {"item": "below_expected_range", "rule": "at or below", "value": BELOW_EXPECTED_Z, **ISCD}
    qct = {
        "standard": "qct",
        "name": "acr",
        "applies_to": "lumbar spine, mg/cm3 of K2HPO4 or CaHA as declared",
        "unit": "mg/cm3",
    }
    yield qct | {"item": "osteoporosis", "rule": "below", "value": OSTEOPOROSIS_BELOW, **ACR}
    yield qct | {"item": "normal", "rule": "above", "value": NORMAL_ABOVE, **ACR}
    for name, of in tbs_tables().items():
        tbs = {"standard": "tbs", "name": name, "applies_to": "everyone", "unit": "1", "source": of["source"], "status": "M"}
        yield tbs | {"item": "tbs_degraded", "rule": "at or below", "value": float(of["degraded"])}
        yield tbs | {"item": "tbs_normal", "rule": "at or above", "value": float(of["normal"])}
    bmi = {"standard": "tbs", "name": "bmi_range", "applies_to": f"software before version {TBS_CLASS_FREE_OF_BMI}"}
    bmi |= {"unit": "kg/m2", "source": "maker's statement, as quoted", "status": "M"}
    yield bmi | {"item": "valid from", "rule": "at or above", "value": TBS_BMI[0]}
    yield bmi | {"item": "valid to", "rule": "at or below", "value": TBS_BMI[1]}
    for name, of in smi_tables().items():
        for sex in ("female", "male"):
            yield {
                "standard": "smi", "name": name, "item": "smi_low", "applies_to": f"{sex}, {of['level']}",
                "rule": "at or below" if of["is_inclusive"] else "below", "value": float(of[sex]), "unit": "cm2/m2",
                "source": of["source"], "status": of["status"],
            }  # fmt: skip


def _populations() -> Iterator[Row]:
    for of in populations():
        told = {"standard": "t_reference", "name": of.reference_id, "unit": "g/cm2", "source": of.source, "status": of.status}
        told["applies_to"] = f"{of.scale}, {'both sexes' if of.sex == 'any' else of.sex}"
        yield told | {"item": f"{of.site} mean", "rule": "T = (BMD - mean) / SD", "value": of.mean}
        yield told | {"item": f"{of.site} SD", "rule": "T = (BMD - mean) / SD", "value": of.sd}


def _equations() -> Iterator[Row]:
    for name in ("genant1994", "hui1997"):
        for site, of in equations(name).items():
            if site != "lumbar_spine" and name != "genant1994":
                continue  # the hip has one set of equations, whichever the spine's
            told = {"standard": "cross_calibration", "name": name if site == "lumbar_spine" else "hip", "status": of["status"]}
            for maker in MAKERS:
                line = told | {"applies_to": maker, "rule": "sBMD = 1000 (slope BMD + intercept)", "source": of["source"]}
                yield line | {"item": f"{site} slope", "value": float(of[maker]["slope"]), "unit": "1"}
                yield line | {"item": f"{site} intercept", "value": float(of[maker]["intercept"]), "unit": "g/cm2"}
    for name, of in conversions().items():
        yield {
            "standard": "phantom_conversion", "name": name, "item": "slope", "applies_to": "CaHA to K2HPO4",
            "rule": "K2HPO4 = slope CaHA", "value": float(of["slope"]), "unit": "1", "source": of["source"],
            "status": of["status"],
        }  # fmt: skip
