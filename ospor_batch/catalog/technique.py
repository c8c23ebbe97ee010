"""How a series was made, harmonised: scanner, kernel, region, view, contrast, dose and voltage, raw values beside."""

from __future__ import annotations

from typing import Any

from ospor_batch.catalog import acquisition, quality
from ospor_batch.catalog.contrast import ContrastTags, Told, contrast_evidence, contrast_phase, contrast_route
from ospor_batch.catalog.dose import dose_class
from ospor_batch.catalog.geometry import Stack
from ospor_batch.catalog.region import body_region, region_by_extent
from ospor_batch.catalog.vendor import kernel_class, model_of, vendor_of
from ospor_batch.catalog.vocabulary import Vocabulary

AS_WRITTEN = ("xray_tube_current_ma", "ctdivol_mgy", "filter_type", "filter_material", "reconstruction_diameter_mm")
Columns = dict[str, Any]


def technique(row: Columns, *, modality: str, is_scan: bool, stack: Stack, words: Vocabulary) -> tuple[Columns, set[str]]:
    """Columns of the series contract that tell how it was made, and findings; is_scan: a CT image that is no scout."""
    told = Told(row["series_description"], row["protocol_name"], row["study_description"])
    is_multi = any(remark in row["header_flags"] for remark in ("multi_value:KVP", "frames_differ:KVP"))
    kvp, kvp_status = acquisition.tube_voltage(row["kvp_kv"], modality=modality, is_multi=is_multi)
    found, findings = _place(row, modality=modality, stack=stack, told=told, words=words)
    dose, dose_source, notes = (
        dose_class(
            region=found["body_region"],
            ctdivol_mgy=row["ctdivol_mgy"],
            current_ma=row["xray_tube_current_ma"],
            descriptions=told.all,
            words=words,
        )
        if is_scan
        else (None, None, [])
    )
    made = {
        **{name: row[name] for name in AS_WRITTEN},
        **_scanner(row, words),
        **found,
        **(_contrast(row, told, words) if modality == "CT" else {"contrast_evidence": "not_applicable"}),
        "dose_class": dose,
        "dose_class_source": dose_source,
        "kvp_kv": kvp,
        "kvp_status": kvp_status,
    }
    return made, findings | set(notes)


def _scanner(row: Columns, words: Vocabulary) -> Columns:
    vendor, source = vendor_of(row["manufacturer"], model=row["manufacturer_model_name"], words=words)
    return {
        "scanner_vendor": vendor,
        "scanner_vendor_source": source,
        "manufacturer_raw": row["manufacturer"],
        "scanner_model": model_of(row["manufacturer_model_name"], vendor=vendor, words=words),
        "model_raw": row["manufacturer_model_name"],
        "kernel_raw": row["convolution_kernel"],
        "kernel_class": kernel_class(row["convolution_kernel"], vendor=vendor, words=words),
    }


def _place(row: Columns, *, modality: str, stack: Stack, told: Told, words: Vocabulary) -> tuple[Columns, set[str]]:
    """Region and view; the region of a stack that neither tag nor description names may follow from its length."""
    region, source, notes = body_region(row["body_part_examined"], descriptions=told.all, words=words)
    field = quality.field_of_view(row)
    if source == "none" and modality == "CT":
        by_extent = region_by_extent(orientation=stack.orientation, extent_mm=stack.extent_mm, field_mm=field)
        region, source = (by_extent, "extent") if by_extent else (region, source)
    seen = acquisition.view(
        modality,
        tag=row["view_position"],
        code=row["view_code"],
        orientation=row["patient_orientation"],
        descriptions=(row["series_description"], row["protocol_name"], row["acquisition_device_processing"]),
        words=words,
    )
    findings = {*notes, *seen.findings}
    if modality == "CT" and stack.orientation == "axial" and quality.is_cropped(field, region=region):
        findings.add("cropped_field_of_view")
    found = {
        "body_region": region,
        "body_region_source": source,
        "body_part_raw": row["body_part_examined"],
        "view": seen.view,
        "projection": seen.projection,
        "view_raw": row["view_position"] or row["view_code"] or row["view_position"],
    }
    return found, findings | (quality.radiograph_findings(row) if modality in acquisition.RADIOGRAPHS else set())


def _contrast(row: Columns, told: Told, words: Vocabulary) -> Columns:
    tags = ContrastTags(
        agents=frozenset(row["contrast_bolus_agent"]),
        routes=frozenset(row["contrast_bolus_route"]),
        has_volume=any(volume for volume in row["contrast_bolus_volume_ml"]),
    )
    evidence = contrast_evidence(tags, told, words=words)
    return {
        "contrast_evidence": evidence,
        "contrast_phase": contrast_phase(evidence, told, words=words),
        "contrast_route": contrast_route(tags, words=words),
    }
