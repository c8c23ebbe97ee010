"""Rows of the contracts, completed from the few values that a test is about."""

from __future__ import annotations

import hashlib
from datetime import date
from typing import Any

import polars as pl

from ospor_batch.contracts import contract
from ospor_batch.contracts.table import schema_of, whole

GOOD_SERIES = {
    "center": "north", "modality": "CT", "sop_class": "image", "image_date": date(2022, 6, 1), "image_date_source": "study",
    "age_at_image": 66.0, "sex": "female", "scanner_vendor": "siemens", "kernel_class": "soft", "body_region": "chest",
    "contrast_evidence": "declared_plain", "kvp_kv": 120.0, "kvp_status": "stated", "orientation": "axial", "grade": "usable",
    "view": "not_applicable", "slice_thickness_mm": 1.0, "extent_mm": 300.0, "n_instances": 100, "n_slices": 100,
    "is_human": True, "split_position": 0.5, "age_source": "birth_date", "body_region_source": "tag", "mask_kind": "none",
}  # fmt: skip
GOOD_LABEL = {
    "reference_id": "dxa", "center": "north", "label_date": date(2022, 6, 11), "standard": "dxa_who",
    "category": "osteoporosis", "is_osteoporosis": True, "is_low_bone_mass": True, "label_value": -2.9,
    "label_value_unit": "t_score", "label_site": "femoral_neck", "n_sites_valid": 1, "t_source": "reported",
    "t_reference": "unknown", "densitometer_vendor": "hologic", "phantom_material": "not_applicable",
    "sex": "female", "age_at_label": 66.0,
}  # fmt: skip


def hexed(name: str | None) -> str | None:
    """A key made from a readable name."""
    return None if name is None else hashlib.sha256(name.encode()).hexdigest()[:32]


def completed(table: str, rows: list[dict[str, Any]], good: dict[str, Any]) -> pl.DataFrame:
    """Rows of a contract: given values over good ones over whatever is required; names of keys become keys."""
    made = []
    for given in rows:
        row = {**good, **given}
        for field in contract(table).fields:
            if field.name in row or not field.is_required:
                continue
            if field.name.endswith(("_key", "_digest")):
                row[field.name] = f"{table}-{given}-{field.name}"
            else:
                row[field.name] = {"boolean": False, "integer": 0, "number": 0.0}.get(field.type, "")
        keys = {name: hexed(value) for name, value in row.items() if name.endswith(("_key", "_digest"))}
        made.append({**row, **keys})
    return whole(pl.DataFrame(made, schema=schema_of(table)), table)
