"""What stands against a series, as typed findings, and the grade that they fix."""

from __future__ import annotations

from typing import Any

from ospor_batch.catalog.vocabulary import Vocabulary, fold, sop_class_is

# Pixels cannot be read as a stack or an image of the patient; in this order the first is the reason.
UNUSABLE = (
    "not_an_image",
    "no_pixel_data",
    "secondary_capture",
    "localizer",
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
    "rescale_implausible",
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
    "high_bit_contradicted",
    "wrong_signedness",
    "hu_implausible",
    "padding_in_tissue_range",
    "burned_in_annotation",
    "monochrome_contradicted",
    "view_contradicted",
    "bad_date",
    "pixel_data_missing_in_part",
)
# Told and not graded: what a recipe may ask for, or what explains another finding.
REMARKS = (
    "age_conflict",
    "age_implausible",
    "age_unreadable",
    "bad_birth_date",
    "body_region_contradicted",
    "copy_under_other_number",
    "cropped_field_of_view",
    "derived",
    "dose_report",
    "height_out_of_range",
    "implant_described",
    "localizer_by_description",
    "low_dose_above_limit",
    "mixed_birth_date",
    "mixed_sex",
    "not_human",
    "padding",
    "padding_written_unsigned",
    "phantom_denied",
    "phantom_described",
    "reformat_by_geometry",
    "rescale_per_slice",
    "several_acquisitions",
    "several_folders",
    "split_series",
    "weight_out_of_range",
)
MIXED = {  # more than one value over the instances of a series
    "mixed_patient": "n_patients",
    "mixed_study": "n_studies",
    "mixed_sop_class": "n_sop_classes",
    "mixed_birth_date": "n_birth_dates",
    "mixed_sex": "n_sexes",
    "several_acquisitions": "n_acquisitions",
    "several_folders": "n_folders",
}
IMAGES = ("image", "enhanced_image")
STACKS = ("CT", "MR", "PT")
SMALLEST_STACK = 3  # fewer slices give no volume to measure in
SAME_SPACING_MM = 1e-3
EIGHT_BIT = 8  # 256 values cannot hold the range of Hounsfield units
DATES = ("StudyDate", "SeriesDate", "AcquisitionDate")
AIR_HU, BONE_HU = -950.0, 1000.0  # what stored values must be able to hold: air with its noise, and cortical bone
TISSUE_HU = (-900.0, 3000.0)  # padding that reads as this is taken for the patient (imaging.reader uses the same lower end)
SLOPES = (0.1, 100.0)  # HU per stored value: 1 on every scanner, about 0.5 to 32 after conversion to fewer bits
GREATEST_SIGNED = 2**15 - 1
# Declared judgement: the trunk of an adult is 280 to 500 mm wide; reconstructions of the spine or heart take 120 to 250 mm.
TRUNK_FIELD_MM = 300.0
TRUNK = ("chest", "abdomen", "pelvis", "lumbar_spine", "chest_abdomen", "abdomen_pelvis", "chest_abdomen_pelvis", "whole_body")
# PS3.3 C.8.11.3 (DX Image): IDENTITY goes with MONOCHROME2, INVERSE with MONOCHROME1
SHAPE_OF = {"monochrome1": "inverse", "monochrome2": "identity"}


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
    found |= {finding for finding, count in MIXED.items() if row[count] > 1}
    if row["split_by"] != "none":
        found.add("split_series")
    if row["is_burned_in"]:
        found.add("burned_in_annotation")
    flags = set((row["header_flags"] or "").split(";"))
    if row["has_unknown_date"] or flags & {f"bad_date:{keyword}" for keyword in DATES}:
        found.add("bad_date")
    if row["has_unknown_birth"] or "bad_date:PatientBirthDate" in flags:
        found.add("bad_birth_date")
    return found


def radiograph_findings(row: dict[str, Any]) -> set[str]:
    """Findings on a radiograph that its header alone can tell; pixels are judged where they are read."""
    shape = SHAPE_OF.get((row["photometric_interpretation"] or "").strip().lower())
    told = (row["presentation_lut_shape"] or "").strip().lower()
    return {"monochrome_contradicted"} if shape and told in SHAPE_OF.values() and told != shape else set()


def is_implant_described(row: dict[str, Any], *, words: Vocabulary) -> bool:
    """Whether a description names metal or cement in the body, or a reconstruction against streaks; silence denies nothing."""
    told = (row["series_description"], row["protocol_name"], row["study_description"])
    return any(words.says(words.without(text, "no_implant", of="image_kinds"), "implant") for text in told)


def phantom_findings(row: dict[str, Any], *, is_cropped: bool, words: Vocabulary) -> set[str]:
    """Whether the nearest description that speaks of a calibration phantom names or denies one; silence says nothing.

    A reconstruction narrower than the trunk may leave out what lies under the patient, so that only its own description, and
    neither protocol nor study, tells what is in view.
    """
    told = (row["series_description"], *(() if is_cropped else (row["protocol_name"], row["study_description"])))
    for text in told:
        is_denied = words.says(text, "no_phantom")
        is_named = words.says(words.without(text, "no_phantom", of="image_kinds"), "phantom")
        if is_named or is_denied:
            return set() if is_named and is_denied else {"phantom_described" if is_named else "phantom_denied"}
    return set()


def field_of_view(row: dict[str, Any]) -> float | None:
    """The smaller side of the matrix in mm; null when spacing or matrix is unknown."""
    sides = (row["rows"], row["pixel_spacing_row_mm"]), (row["columns"], row["pixel_spacing_column_mm"])
    if any(not count or not spacing for count, spacing in sides):
        return None
    return round(min(float(count * spacing) for count, spacing in sides), 3)


def is_cropped(field_mm: float | None, *, region: str) -> bool:
    """Whether an axial image of the trunk is narrower than the trunk of an adult."""
    return region in TRUNK and field_mm is not None and field_mm < TRUNK_FIELD_MM


def pixel_findings(row: dict[str, Any], *, sop_class: str, modality: str, smallest_stack: int = SMALLEST_STACK) -> set[str]:
    """Findings on matrix, spacing and Hounsfield units of an image series with pixels."""
    if sop_class not in IMAGES or row["n_pixels"] == 0 or modality not in STACKS:
        return set()
    found = set()
    if row["n_matrices"] > 1:
        found.add("changed_matrix")
    if row["most_samples"] > 1:
        found.add("color")
    if modality == "CT" and row["n_slices"] < smallest_stack:
        found.add("too_few_slices")
    if row["n_frames_unread"] or (sop_class == "enhanced_image" and row["frame_positions_mm"] is None):
        return found | {"frame_geometry_unread"}  # spacing and rescale stand in the frames: the reader of pixels checks them
    differing = set((row["header_flags"] or "").split(";"))
    spread = max(row["spacing_row_spread"] or 0, row["spacing_column_spread"] or 0)
    if spread > SAME_SPACING_MM or "frames_differ:PixelSpacing" in differing:
        found.add("changed_pixel_spacing")
    elif row["n_without_spacing"]:
        found.add("pixel_spacing_missing")
    if modality == "CT":
        found |= _hounsfield(row)
        if differing & {"frames_differ:RescaleSlope", "frames_differ:RescaleIntercept"}:
            found.add("rescale_per_slice")
    return found


def _hounsfield(row: dict[str, Any]) -> set[str]:
    """Whether stored values can become HU at all, and can reach air and bone."""
    found = set()
    if row["n_without_rescale"]:
        found.add("rescale_missing")
    else:
        found |= _range(row)
        if row["n_rescales"] > 1:
            found.add("rescale_per_slice")
    if fold(row["rescale_type"]) not in {"", "hu"}:
        found.add("rescale_type_not_hu")
    if (row["most_bits_stored"] or EIGHT_BIT + 1) <= EIGHT_BIT:
        found.add("eight_bit")
    if row["n_shifted"]:
        found.add("high_bit_contradicted")  # PS3.3 C.8.2.1: HighBit is BitsStored - 1; else the values may lie shifted
    if row["n_representations"] > 1:
        found.add("wrong_signedness")
    return found | _padding(row)


def _range(row: dict[str, Any]) -> set[str]:
    """What the declared rescale makes of the least and greatest value that the declared bits can hold."""
    slope, intercept, bits = row["rescale_slope"], row["rescale_intercept_hu"], row["most_bits_stored"]
    if not SLOPES[0] <= slope <= SLOPES[1] or row["least_slope"] < SLOPES[0]:
        return {"rescale_implausible"}
    is_signed = row["smallest_representation"] == 1
    if not is_signed and row["least_intercept"] >= 0:
        return {"no_negative_hu", "wrong_signedness"}  # the sign or the intercept was lost
    if not bits or not 1 <= bits <= 32:
        return set()
    least, greatest = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if is_signed else (0, 2**bits - 1)
    reaches = least * slope + intercept <= AIR_HU and greatest * slope + intercept >= BONE_HU
    return set() if reaches else {"hu_implausible"}


def _padding(row: dict[str, Any]) -> set[str]:
    """Padding that is declared, that contradicts the declared sign, or that would be read as tissue."""
    least, greatest = row["least_padding"], row["greatest_padding"]
    if least is None:
        return set()
    found = {"padding"}
    is_signed = row["smallest_representation"] == 1
    if is_signed and greatest > GREATEST_SIGNED:
        found.add("padding_written_unsigned")  # GE: -2000 written as 63536; readers fold it back
        greatest -= 2 * (GREATEST_SIGNED + 1)
        least = greatest if least > GREATEST_SIGNED else least
    if not is_signed and least < 0:
        found.add("wrong_signedness")
    if row["n_without_rescale"]:
        return found
    ends = [value * row["rescale_slope"] + row["rescale_intercept_hu"] for value in (least, greatest)]
    if any(TISSUE_HU[0] < end < TISSUE_HU[1] for end in ends):
        found.add("padding_in_tissue_range")
    return found


def is_lossy(row: dict[str, Any]) -> bool:
    """Lossy by the header's own flag, or by a transfer syntax that loses, unless the header denies what is optional."""
    if row["is_flagged_lossy"] or any(sop_class_is(uid, "lossy_transfer_syntax") for uid in row["syntaxes"]):
        return True
    may_be = any(sop_class_is(uid, "maybe_lossy_transfer_syntax") for uid in row["syntaxes"])
    return may_be and not row["is_flagged_lossless"]
