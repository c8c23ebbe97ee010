"""Instances of a center to graded series: what each is, whose it is, how it was made, and what stands against it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from ospor_batch.catalog import acquisition, frames, locating, quality
from ospor_batch.catalog.geometry import Stack, measure
from ospor_batch.catalog.grouping import resolve_duplicates, summarise
from ospor_batch.catalog.identity import Persons, with_collisions
from ospor_batch.catalog.region import with_regions_by_position
from ospor_batch.catalog.rules import Rules
from ospor_batch.catalog.splitting import split_series
from ospor_batch.catalog.technique import technique
from ospor_batch.catalog.unlisted import unlisted
from ospor_batch.catalog.vocabulary import Vocabulary, fold, sop_class_is
from ospor_batch.contracts.table import schema_of

FEW_IMAGES = 3  # scouts come as one, two or three images; a stack never does
TYPED = ("localizer", "derived", "dose_report")
SOP_CLASSES = ("image", "enhanced_image", "secondary_capture", "segmentation", "report")


@dataclass(frozen=True)
class Catalogued:
    """Rows of the contracts series, locator, reject (level instance), collision and unlisted for one center."""

    series: pl.DataFrame
    locator: pl.DataFrame
    rejects: pl.DataFrame
    collisions: pl.DataFrame
    unlisted: pl.DataFrame


@dataclass(frozen=True)
class Settled:
    """What only all series of a center together tell: regions by position, collisions of identity, words without a place."""

    series: pl.DataFrame
    collisions: pl.DataFrame
    unlisted: pl.DataFrame


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


def catalog_center(
    instances: pl.DataFrame,
    files: pl.DataFrame,
    *,
    center: str,
    split_key: bytes,
    key: bytes | None = None,
    rules: Rules | None = None,
    contents: pl.DataFrame | None = None,
) -> Catalogued:
    """Group, measure and grade the instances of one center; every instance ends in a series or a reject.

    contents: as resolve_duplicates takes them. key: of the pseudonyms, to apply the study's rules of linkage; without it the
    patient keys of the crawl are kept.
    """
    rules = rules or Rules()
    persons = Persons(center, split_key, key, rules.linkage)
    read = instances.with_columns(pl.col("modality").str.strip_chars().str.to_uppercase())  # CS is upper case, files are not
    duplicates = resolve_duplicates(persons.rekeyed(read), contents=contents)
    kept = split_series(duplicates.kept, words=rules.words)
    headers = summarise(kept, words=rules.words)
    stacks, ordered = _measure(kept, headers)
    kinds = {row["series_key"]: _kind(row, stacks[row["series_key"]], rules.words) for row in headers.iter_rows(named=True)}
    real = [key for key, kind in kinds.items() if kind.sop_class in quality.IMAGES]
    where = files.select("file_key", "archive", "path")
    images = ordered.join(where, on="file_key", how="left", maintain_order="left")
    masks = locating.mask_rows(images.filter(pl.col("series_key").is_in(real)), kept, files)
    headers = headers.join(_others(duplicates.refused, kept), on="series_key", how="left", maintain_order="left")
    found = [_series(row, kinds[row["series_key"]], persons=persons, rules=rules) for row in headers.iter_rows(named=True)]
    settled = settle(_whole_rows(found, duplicates.refused, kept, masks))
    return Catalogued(
        series=settled.series,
        locator=pl.concat([locating.image_rows(images), masks]).sort("center", "series_key", "file_key"),
        rejects=_rejects(duplicates.refused, files),
        collisions=settled.collisions,
        unlisted=settled.unlisted,
    )


def settle(series: pl.DataFrame) -> Settled:
    """Judge what depends on several series; a function of the series table, so that a sweep may recompute only some of them."""
    identified = with_collisions(with_regions_by_position(series))
    rows = identified.series.select(schema_of("series").names()).sort("center", "series_key")
    return Settled(rows, identified.collisions, unlisted(rows))


def _whole_rows(found: list[dict[str, Any]], refused: pl.DataFrame, kept: pl.DataFrame, masks: pl.DataFrame) -> pl.DataFrame:
    """Series rows with their duplicates and masks."""
    extra = ["n_duplicates", "mask_kind", "mask_digest"]
    schema = {name: dtype for name, dtype in schema_of("series").items() if name not in extra}
    n_duplicates = _of_kept(refused, kept).group_by("series_key").agg(n_duplicates=pl.len().cast(pl.Int64))
    rows = pl.DataFrame(found, schema=schema, orient="row").join(n_duplicates, on="series_key", how="left")
    return rows.join(locating.mask_summary(masks), on="series_key", how="left").with_columns(
        pl.col("n_duplicates").fill_null(0), pl.col("mask_kind").fill_null("none")
    )


def _of_kept(refused: pl.DataFrame, kept: pl.DataFrame) -> pl.DataFrame:
    """Refused duplicates under the series of the instance that was kept in their place."""
    return refused.select("sop_instance_uid").join(kept.select("sop_instance_uid", "series_key"), on="sop_instance_uid")


def _others(refused: pl.DataFrame, kept: pl.DataFrame) -> pl.DataFrame:
    """Per series the other patients that refused copies of its objects name."""
    copies = refused.select("sop_instance_uid", other="patient_key").drop_nulls()
    differing = copies.join(kept, on="sop_instance_uid").filter(pl.col("patient_key") != pl.col("other"))
    return differing.group_by("series_key").agg(other_patient_keys=pl.col("other").unique().sort().str.join("+"))


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
        row["series_key"]: row["modality"] in quality.STACKS and row["n_frames_unread"] == 0
        for row in headers.select("series_key", "modality", "n_frames_unread").iter_rows(named=True)
    }
    images = kept.filter("is_pixel_data").sort("series_key", "instance_number", "sop_instance_uid", nulls_last=True)
    placed = frames.placed(images)
    order = np.empty(images.height, dtype=np.int64)
    start = 0
    for key, length in images["series_key"].rle().struct.unnest().select("value", "len").iter_rows():
        files = slice(start, start + length)
        start += length
        within = placed.of(files)
        if is_stack[key]:
            stacks[key] = measure(placed.positions[within], placed.cosines[within])
        order[files] = placed.order_of(files, stacks[key].order)
    return stacks, images.with_columns(slice_order=pl.Series(order, dtype=pl.Int64))


def _kind(row: Mapping[str, Any], stack: Stack, words: Vocabulary) -> _Kind:
    modality = row["modality"] or "unknown"
    findings = set(stack.findings)
    sop_class = _sop_class(row, modality, findings)
    if modality == "unknown":
        findings.add("modality_missing")
    image_type = row["image_type"]
    is_secondary = sop_class == "secondary_capture" or words.says(image_type, "screen")
    is_ct = modality == "CT" and sop_class in quality.IMAGES
    is_derived = _is_derived(row, is_ct=is_ct, words=words)
    is_localizer = 2 * row["n_localizers"] > row["n_instances"]  # most of them
    if is_ct and not is_localizer and (silent := _silent_localizer(row, stack, is_derived=is_derived, words=words)):
        is_localizer = True
        findings.add(silent)
    if is_ct and not is_localizer and not is_derived and stack.orientation in {"coronal", "sagittal"}:
        is_derived = True
        findings.add("reformat_by_geometry")
    is_dose = sop_class_is(row["sop_class_uid"], "dose_report") or (
        is_secondary and (words.says(row["series_description"], "dose") or words.says(image_type, "dose"))
    )
    findings |= {name for name, is_so in zip(TYPED, (is_localizer, is_derived, is_dose), strict=True) if is_so}
    return _Kind(modality, sop_class, stack, is_localizer, is_derived, is_secondary, is_dose, frozenset(findings))


def _silent_localizer(row: Mapping[str, Any], stack: Stack, *, is_derived: bool, words: Vocabulary) -> str | None:
    """Why a few CT images whose type does not say so are a localizer; null when they are none."""
    if row["n_slices"] > FEW_IMAGES:
        return None
    # an original CT image is axial: one or two upright ones are projections, whatever the header says
    is_upright = stack.orientation in {"coronal", "sagittal"}
    is_told = any(words.says(row[column], "localizer") for column in ("series_description", "protocol_name"))
    if not is_told and (is_derived or not is_upright):
        return None
    return "localizer_by_geometry" if is_upright else "localizer_by_description"


def _sop_class(row: Mapping[str, Any], modality: str, findings: set[str]) -> str:
    for name in SOP_CLASSES:
        if sop_class_is(row["sop_class_uid"], name):
            return name
    if sop_class_is(row["sop_class_uid"], "no_scan"):
        return "other"
    if row["n_pixels"] and modality in {*quality.STACKS, *acquisition.RADIOGRAPHS}:
        findings.add("sop_class_unknown")  # de-identification emptied or replaced it; modality and pixels say image
        return "image"
    return "other"


def _is_derived(row: Mapping[str, Any], *, is_ct: bool, words: Vocabulary) -> bool:
    values = [fold(value) for value in (row["image_type"] or "").split("\\")]
    if values[0] == "derived" or values[1:2] == ["secondary"]:
        return True
    told = (row["image_type"], row["series_description"])
    return is_ct and any(words.says(text, kind) for text in told for kind in ("reformat", "spectral"))


def _series(row: dict[str, Any], kind: _Kind, *, persons: Persons, rules: Rules) -> dict[str, Any]:
    """One row of the contract, but for duplicates, masks and what other series tell."""
    person, person_findings = _person(row, persons)
    is_scan = kind.modality == "CT" and kind.sop_class in quality.IMAGES and not kind.is_localizer
    made, made_findings = technique(row, modality=kind.modality, is_scan=is_scan, stack=kind.stack, words=rules.words)
    findings = set(kind.findings) | person_findings | made_findings
    findings |= quality.header_findings(row, sop_class=kind.sop_class, modality=kind.modality)
    findings |= quality.pixel_findings(
        row, sop_class=kind.sop_class, modality=kind.modality, smallest_stack=rules.smallest_stack
    )
    is_human, is_lossy = acquisition.is_human(row, words=rules.words), quality.is_lossy(row)
    has_implant = quality.is_implant_described(row, words=rules.words)
    said = (("lossy", is_lossy), ("not_human", not is_human), ("implant_described", has_implant))
    findings |= {name for name, is_so in said if is_so}
    is_cropped = "cropped_field_of_view" in findings
    findings |= quality.phantom_findings(row, is_cropped=is_cropped, words=rules.words)
    if kind.sop_class not in quality.IMAGES or row["n_pixels"] == 0:
        findings -= {"position_missing"}
    verdict, reason = quality.grade(findings)
    return {
        "center": persons.center,
        **{name: row[name] for name in ("series_key", "whole_series_key", "split_by", "study_key", "series_digest")},
        **person,
        **made,
        **_shape(row, kind.stack),
        "modality": kind.modality,
        "sop_class": kind.sop_class,
        "is_localizer": kind.is_localizer,
        "is_derived": kind.is_derived,
        "is_secondary": kind.is_secondary,
        "is_dose_report": kind.is_dose_report,
        "is_lossy": is_lossy,
        "is_human": is_human,
        "is_identity_collision": False,
        "findings": ";".join(sorted(findings)),
        "grade": verdict,
        "grade_reason": reason,
    }


def _person(row: dict[str, Any], persons: Persons) -> tuple[dict[str, Any], set[str]]:
    taken, source = acquisition.image_date(row)
    age, age_source, findings = acquisition.age(row["patient_birth_date"], at=taken, stated=row["patient_age"])
    height = acquisition.within(row["patient_size_m"], acquisition.HEIGHT_M)
    weight = acquisition.within(row["patient_weight_kg"], acquisition.WEIGHT_KG)
    found = {
        "patient_key": row["patient_key"],
        "other_patient_keys": row["other_patient_keys"],
        "split_position": persons.position(row["patient_id"], row["issuer_of_patient_id"]),
        "image_date": taken,
        "image_date_source": source,
        "age_at_image": age,
        "age_source": age_source,
        "sex": acquisition.sex(row["patient_sex"]),
        "birth_date": row["patient_birth_date"],
        "height_m": height,
        "weight_kg": weight,
    }
    notes = set(findings)
    if row["other_patient_keys"] is not None:
        notes.add("copy_under_other_number")
    if row["patient_size_m"] and height is None:
        notes.add("height_out_of_range")
    if row["patient_weight_kg"] and weight is None:
        notes.add("weight_out_of_range")
    return found, notes


def _shape(row: dict[str, Any], stack: Stack) -> dict[str, Any]:
    as_written = ("slice_thickness_mm", "pixel_spacing_row_mm", "pixel_spacing_column_mm", "rows", "columns")
    counted = ("n_instances", "n_slices", "n_acquisitions", "n_folders")
    return {
        **{name: row[name] for name in (*as_written, *counted, "frame_of_reference_uid")},
        "field_of_view_mm": quality.field_of_view(row),
        "stack_start_mm": stack.start_mm,
        "stack_end_mm": stack.end_mm,
        "slice_spacing_mm": stack.spacing_mm,
        "orientation": stack.orientation,
        "tilt_deg": stack.tilt_deg,
        "extent_mm": stack.extent_mm,
        "n_missing_slices": stack.n_missing,
        "n_duplicate_positions": stack.n_duplicate,
    }
