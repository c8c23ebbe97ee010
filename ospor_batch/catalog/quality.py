"""What stands against a series, as typed findings, and the grade that they fix."""

from __future__ import annotations

from typing import Any

from ospor_batch.catalog.vocabulary import sop_class_is

# Pixels cannot be read as a stack or an image of the patient; in this order the first is the reason.
UNUSABLE = (
    "not_an_image",
    "no_pixel_data",
    "secondary_capture",
    "color",
    "mixed_patient",
    "mixed_study",
    "changed_matrix",
    "changed_pixel_spacing",
    "mixed_orientation",
    "orientation_invalid",
    "position_missing",
    "pixel_spacing_missing",
    "rescale_missing",
    "duplicate_position",
    "missing_slice",
    "uneven_spacing",
    "too_few_slices",
)
# Readable, with doubts.
DOUBTFUL = (
    "frame_geometry_unread",
    "localizer_by_geometry",
    "sop_class_unknown",
    "modality_missing",
    "mixed_sop_class",
    "converted_radiograph",
    "lossy",
    "tilted",
    "rescale_type_not_hu",
    "no_negative_hu",
    "eight_bit",
    "burned_in_annotation",
    "bad_date",
    "pixel_data_missing_in_part",
)
IMAGES = ("image", "enhanced_image")
STACKS = ("CT", "MR", "PT")
SMALLEST_STACK = 3  # fewer slices give no volume to measure in
SAME_SPACING_MM = 1e-3
EIGHT_BIT = 8  # 256 values cannot hold the range of Hounsfield units
DATES = ("StudyDate", "SeriesDate", "AcquisitionDate")


def grade(findings: set[str]) -> tuple[str, str | None]:
    """usable, doubtful or unusable, and the finding that fixed it."""
    for verdict, reasons in (("unusable", UNUSABLE), ("doubtful", DOUBTFUL)):
        for reason in reasons:
            if reason in findings:
                return verdict, reason
    return "usable", None


def header_findings(row: dict[str, Any], *, sop_class: str, modality: str) -> set[str]:
    """Findings of one series from the summary of its headers."""
    found: set[str] = set()
    if sop_class not in {*IMAGES, "secondary_capture"}:
        found.add("not_an_image")
    if row["n_pixels"] == 0:
        found.add("no_pixel_data")
    elif row["n_pixels"] < row["n_instances"]:
        found.add("pixel_data_missing_in_part")
    if sop_class == "secondary_capture":
        found.add("converted_radiograph" if modality in {"CR", "DX", "RG"} else "secondary_capture")
    counts = {"mixed_patient": "n_patients", "mixed_study": "n_studies", "mixed_sop_class": "n_sop_classes"}
    found |= {finding for finding, count in counts.items() if row[count] > 1}
    if row["is_burned_in"]:
        found.add("burned_in_annotation")
    flags = set((row["header_flags"] or "").split(";"))
    if flags & {f"bad_date:{keyword}" for keyword in DATES}:
        found.add("bad_date")
    if "bad_date:PatientBirthDate" in flags:
        found.add("bad_birth_date")
    return found


def pixel_findings(row: dict[str, Any], *, sop_class: str, modality: str) -> set[str]:
    """Findings on matrix, spacing and Hounsfield units of an image series with pixels."""
    if sop_class not in IMAGES or row["n_pixels"] == 0 or modality not in STACKS:
        return set()
    found = set()
    if row["n_matrices"] > 1:
        found.add("changed_matrix")
    if row["most_samples"] > 1:
        found.add("color")
    if modality == "CT" and row["n_slices"] < SMALLEST_STACK:
        found.add("too_few_slices")
    if sop_class == "enhanced_image" or row["most_frames"] > 1:
        return found | {"frame_geometry_unread"}  # spacing and rescale stand in the frames: the reader of pixels checks them
    spread = max(row["spacing_row_spread"] or 0, row["spacing_column_spread"] or 0)
    if row["n_without_spacing"]:
        found.add("pixel_spacing_missing")
    elif spread > SAME_SPACING_MM:
        found.add("changed_pixel_spacing")
    if modality == "CT":
        found |= _hounsfield(row)
    return found


def _hounsfield(row: dict[str, Any]) -> set[str]:
    """Whether stored values can become HU at all, and can reach air."""
    found = set()
    if row["n_without_rescale"]:
        found.add("rescale_missing")
    elif row["smallest_representation"] == 0 and row["least_intercept"] >= 0:
        found.add("no_negative_hu")
    if row["rescale_type"] not in {None, "", "HU"}:
        found.add("rescale_type_not_hu")
    if (row["most_bits_stored"] or EIGHT_BIT + 1) <= EIGHT_BIT:
        found.add("eight_bit")
    return found


def is_lossy(row: dict[str, Any]) -> bool:
    """Lossy by the header's own flag, or by a transfer syntax that loses, unless the header denies what is optional."""
    if row["is_flagged_lossy"] or any(sop_class_is(uid, "lossy_transfer_syntax") for uid in row["syntaxes"]):
        return True
    may_be = any(sop_class_is(uid, "maybe_lossy_transfer_syntax") for uid in row["syntaxes"])
    return may_be and not row["is_flagged_lossless"]
