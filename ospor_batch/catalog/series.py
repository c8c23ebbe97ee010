"""Instances of a center to graded series: what each is, whose it is, how it was made, and what stands against it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from ospor_batch.catalog import acquisition, locating, quality
from ospor_batch.catalog.geometry import Stack, measure
from ospor_batch.catalog.grouping import resolve_duplicates, summarise
from ospor_batch.catalog.vendor import kernel_class, vendor_of
from ospor_batch.catalog.vocabulary import fold, says, sop_class_is
from ospor_batch.contracts.table import schema_of
from ospor_batch.pseudonym import normal_patient_id, split_position

FEW_IMAGES = 3  # scouts come as one, two or three images; a stack never does
POSITION = ["position_x_mm", "position_y_mm", "position_z_mm"]
COSINES = [f"{line}_cosine_{axis}" for line in ("row", "column") for axis in "xyz"]
SOP_CLASSES = ("image", "enhanced_image", "secondary_capture", "segmentation", "report")


@dataclass(frozen=True)
class Catalogued:
    """Rows of the contracts series, locator and reject (level instance) for one center."""

    series: pl.DataFrame
    locator: pl.DataFrame
    rejects: pl.DataFrame


@dataclass(frozen=True)
class _Kind:
    """What a series is; findings that came up while judging."""

    modality: str
    sop_class: str
    stack: Stack
    is_localizer: bool
    is_derived: bool
    is_secondary: bool
    is_dose_report: bool
    findings: frozenset[str]


def catalog_center(instances: pl.DataFrame, files: pl.DataFrame, *, center: str, split_key: bytes) -> Catalogued:
    """Group, measure and grade the instances of one center; every instance ends in a series or a reject."""
    duplicates = resolve_duplicates(instances)
    kept = duplicates.kept
    headers = summarise(kept)
    stacks, ordered = _measure(kept, headers)
    kinds = {row["series_key"]: _kind(row, stacks[row["series_key"]]) for row in headers.iter_rows(named=True)}
    real = [key for key, kind in kinds.items() if kind.sop_class in quality.IMAGES]
    where = files.select("file_key", "archive", "path")
    images = ordered.join(where, on="file_key", how="left", maintain_order="left")
    masks = locating.mask_rows(images.filter(pl.col("series_key").is_in(real)), kept, files)
    found = [
        _series(row, kinds[row["series_key"]], center=center, split_key=split_key) for row in headers.iter_rows(named=True)
    ]
    extra = ["n_duplicates", "mask_kind", "mask_digest"]
    schema = {name: dtype for name, dtype in schema_of("series").items() if name not in extra}
    n_duplicates = _of_kept(duplicates.refused, kept).group_by("series_key").agg(n_duplicates=pl.len().cast(pl.Int64))
    rows = pl.DataFrame(found, schema=schema, orient="row").join(n_duplicates, on="series_key", how="left")
    rows = rows.join(locating.mask_summary(masks), on="series_key", how="left").with_columns(
        pl.col("n_duplicates").fill_null(0), pl.col("mask_kind").fill_null("none")
    )
    return Catalogued(
        series=rows.select(schema_of("series").names()).sort("center", "series_key"),
        locator=pl.concat([locating.image_rows(images), masks]).sort("center", "series_key", "file_key"),
        rejects=_rejects(duplicates.refused, files),
    )


def _of_kept(refused: pl.DataFrame, kept: pl.DataFrame) -> pl.DataFrame:
    """Refused duplicates under the series of the instance that was kept in their place."""
    return refused.select("sop_instance_uid").join(kept.select("sop_instance_uid", "series_key"), on="sop_instance_uid")


def _rejects(refused: pl.DataFrame, files: pl.DataFrame) -> pl.DataFrame:
    rows = refused.join(files.select("file_key", "archive"), on="file_key", how="left", maintain_order="left").with_columns(
        stage=pl.lit("catalog"),
        level=pl.lit("instance"),
        item_key="file_key",
        scope="archive",
        is_transient=pl.lit(value=False),
    )
    return rows.select(schema_of("reject").names()).sort("item_key")


def _measure(kept: pl.DataFrame, headers: pl.DataFrame) -> tuple[dict[str, Stack], pl.DataFrame]:
    """Geometry of every series, and its images with their slice_order."""
    stacks = {key: Stack() for key in headers["series_key"]}
    is_stack = {
        row["series_key"]: row["modality"] in quality.STACKS and row["most_frames"] == 1
        for row in headers.select("series_key", "modality", "most_frames").iter_rows(named=True)
    }
    parts = []
    images = kept.filter("is_pixel_data").sort("series_key", "instance_number", "sop_instance_uid", nulls_last=True)
    for (key,), group in images.group_by("series_key", maintain_order=True):
        name = str(key)
        if is_stack[name]:
            stacks[name] = measure(_matrix(group, POSITION), _matrix(group, COSINES))
        order = stacks[name].order or range(group.height)
        parts.append(group.with_columns(slice_order=pl.Series(order, dtype=pl.Int64)))
    empty = images.with_columns(slice_order=pl.lit(0, pl.Int64)).clear()
    return stacks, pl.concat([empty, *parts])


def _matrix(rows: pl.DataFrame, columns: list[str]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return rows.select(pl.col(columns).fill_null(float("nan"))).to_numpy()


def _kind(row: Mapping[str, Any], stack: Stack) -> _Kind:
    modality = row["modality"] or "unknown"
    findings = set(stack.findings)
    sop_class = _sop_class(row, modality, findings)
    if modality == "unknown":
        findings.add("modality_missing")
    image_type, told = row["image_type"], (row["series_description"], row["protocol_name"])
    is_secondary = sop_class == "secondary_capture" or says(image_type, "screen")
    is_ct = modality == "CT" and sop_class in quality.IMAGES
    is_derived = _is_derived(row, is_ct=is_ct)
    is_localizer = 2 * row["n_localizers"] > row["n_instances"]  # most of them
    is_few = row["n_slices"] <= FEW_IMAGES
    if is_ct and is_few and not is_localizer:
        is_upright = stack.orientation in {"coronal", "sagittal"}
        if any(says(text, "localizer") for text in told) or (is_upright and not is_derived):
            # an original CT image is axial: one or two upright ones are projections, whatever the header says
            is_localizer = True
            findings.add("localizer_by_description" if not is_upright else "localizer_by_geometry")
    if is_ct and not is_localizer and not is_derived and stack.orientation in {"coronal", "sagittal"}:
        is_derived = True
        findings.add("reformat_by_geometry")
    is_dose = sop_class_is(row["sop_class_uid"], "dose_report") or (
        is_secondary and (says(row["series_description"], "dose") or says(image_type, "dose"))
    )
    return _Kind(modality, sop_class, stack, is_localizer, is_derived, is_secondary, is_dose, frozenset(findings))


def _sop_class(row: Mapping[str, Any], modality: str, findings: set[str]) -> str:
    for name in SOP_CLASSES:
        if sop_class_is(row["sop_class_uid"], name):
            return name
    if row["n_pixels"] and modality in {*quality.STACKS, *acquisition.RADIOGRAPHS}:
        findings.add("sop_class_unknown")  # de-identification emptied or replaced it; modality and pixels say image
        return "image"
    return "other"


def _is_derived(row: Mapping[str, Any], *, is_ct: bool) -> bool:
    values = [fold(value) for value in (row["image_type"] or "").split("\\")]
    if values[0] == "derived" or values[1:2] == ["secondary"]:
        return True
    told = (row["image_type"], row["series_description"])
    return is_ct and any(says(text, kind) for text in told for kind in ("reformat", "spectral"))


def _series(row: dict[str, Any], kind: _Kind, *, center: str, split_key: bytes) -> dict[str, Any]:
    """One row of the contract, but for duplicates and masks."""
    person, person_findings = _person(row, center=center, split_key=split_key)
    is_human = acquisition.is_human(row)
    findings = (
        set(kind.findings) | person_findings | quality.header_findings(row, sop_class=kind.sop_class, modality=kind.modality)
    )
    findings |= quality.pixel_findings(row, sop_class=kind.sop_class, modality=kind.modality)
    is_lossy = quality.is_lossy(row)
    for name, is_so in (("lossy", is_lossy), ("not_human", not is_human)):
        if is_so:
            findings.add(name)
    if kind.sop_class not in quality.IMAGES or row["n_pixels"] == 0:
        findings -= {"position_missing"}
    verdict, reason = quality.grade(findings)
    return {
        "center": center,
        **{name: row[name] for name in ("series_key", "study_key", "series_digest")},
        **person,
        **_technique(row, kind),
        **_shape(row, kind.stack),
        "modality": kind.modality,
        "sop_class": kind.sop_class,
        "is_localizer": kind.is_localizer,
        "is_derived": kind.is_derived,
        "is_secondary": kind.is_secondary,
        "is_dose_report": kind.is_dose_report,
        "is_lossy": is_lossy,
        "is_human": is_human,
        "findings": ";".join(sorted(findings)),
        "grade": verdict,
        "grade_reason": reason,
    }


def _person(row: dict[str, Any], *, center: str, split_key: bytes) -> tuple[dict[str, Any], set[str]]:
    taken, source = acquisition.image_date(row)
    age, age_source, findings = acquisition.age(row["patient_birth_date"], at=taken, stated=row["patient_age"])
    number = normal_patient_id(row["patient_id"])
    height = acquisition.within(row["patient_size_m"], acquisition.HEIGHT_M)
    weight = acquisition.within(row["patient_weight_kg"], acquisition.WEIGHT_KG)
    found = {
        "patient_key": row["patient_key"],
        "split_position": None if number is None else split_position(number, center=center, key=split_key),
        "image_date": taken,
        "image_date_source": source,
        "age_at_image": age,
        "age_source": age_source,
        "sex": acquisition.sex(row["patient_sex"]),
        "height_m": height,
        "weight_kg": weight,
    }
    notes = set(findings)
    if row["patient_size_m"] and height is None:
        notes.add("height_out_of_range")
    if row["patient_weight_kg"] and weight is None:
        notes.add("weight_out_of_range")
    return found, notes


def _technique(row: dict[str, Any], kind: _Kind) -> dict[str, Any]:
    vendor = vendor_of(row["manufacturer"])
    told = (row["series_description"], row["protocol_name"], row["study_description"])
    region, region_source = acquisition.body_region(row["body_part_examined"], descriptions=told)
    is_multi = "multi_value:KVP" in row["header_flags"]
    kvp, kvp_status = acquisition.tube_voltage(row["kvp_kv"], modality=kind.modality, is_multi=is_multi)
    as_written = ("xray_tube_current_ma", "ctdivol_mgy", "filter_type", "filter_material", "reconstruction_diameter_mm")
    return {
        **{name: row[name] for name in as_written},
        "scanner_vendor": vendor,
        "manufacturer_raw": row["manufacturer"],
        "scanner_model": row["manufacturer_model_name"],
        "kernel_raw": row["convolution_kernel"],
        "kernel_class": kernel_class(row["convolution_kernel"], vendor=vendor),
        "body_region": region,
        "body_region_source": region_source,
        "view": acquisition.view(
            kind.modality,
            tag=row["view_position"],
            orientation=row["patient_orientation"],
            descriptions=(row["series_description"], row["protocol_name"], row["acquisition_device_processing"]),
        ),
        "contrast_evidence": _contrast(row) if kind.modality == "CT" else "not_applicable",
        "kvp_kv": kvp,
        "kvp_status": kvp_status,
    }


def _contrast(row: dict[str, Any]) -> str:
    tags = acquisition.ContrastTags(
        agents=frozenset(row["contrast_bolus_agent"]),
        routes=frozenset(row["contrast_bolus_route"]),
        has_volume=any(volume for volume in row["contrast_bolus_volume_ml"]),
    )
    return acquisition.contrast_evidence(
        tags, series=row["series_description"], protocol=row["protocol_name"], study=row["study_description"]
    )


def _shape(row: dict[str, Any], stack: Stack) -> dict[str, Any]:
    as_written = ("slice_thickness_mm", "pixel_spacing_row_mm", "pixel_spacing_column_mm", "rows", "columns")
    return {
        **{name: row[name] for name in (*as_written, "n_instances", "n_slices")},
        "slice_spacing_mm": stack.spacing_mm,
        "orientation": stack.orientation,
        "tilt_deg": stack.tilt_deg,
        "extent_mm": stack.extent_mm,
        "n_missing_slices": stack.n_missing,
        "n_duplicate_positions": stack.n_duplicate,
    }
