"""The faults that are planted, and what must become of each person who carries one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["paired", "image_only", "excluded"]

NO_FAULT = "none"
# steps of the attrition table, in its order
NOT_CT = "CT"
NOT_A_RADIOGRAPH = "radiograph"
UNREADABLE = "readable stack"
OUTSIDE_PERIOD = "image date in the study period"
TOO_YOUNG = "age 50 or older"
AGE_UNKNOWN = "age 50 or older: unknown"
ENHANCED = "unenhanced"
ENHANCEMENT_UNKNOWN = "unenhanced: unknown"
OTHER_KVP = "120 kV"
KVP_UNKNOWN = "120 kV: unknown"


@dataclass(frozen=True)
class Fault:
    """One planted fault: the center that carries it and the fate under the DXA reference of a person who is otherwise sound."""

    name: str
    center: str
    role: Role
    step: str | None = None
    is_predicted: bool = True


# west has a QCT export alone: under the DXA reference its people are image_only
FAULTS: tuple[Fault, ...] = (
    Fault("truncated_pixels", "north", "excluded", UNREADABLE, is_predicted=False),
    Fault("duplicate_same_content", "north", "paired"),
    Fault("two_labels_tie", "north", "paired"),
    Fault("label_outside_window", "north", "image_only"),
    Fault("invalid_date", "north", "image_only"),
    Fault("patient_id_blanks", "north", "paired"),
    Fault("duplicate_exam", "north", "paired"),
    Fault("dose_report_beside", "north", "paired"),
    Fault("coronal_beside", "north", "paired"),
    Fault("photometric_wrong", "north", "paired"),  # of the radiograph beside the CT
    Fault("missing_slice", "south", "excluded", UNREADABLE, is_predicted=False),
    Fault("scout_beside", "south", "paired"),
    Fault("missing_height", "south", "paired"),
    Fault("impossible_bmd", "south", "image_only"),
    Fault("korean_name", "south", "paired"),
    Fault("patient_id_case", "south", "paired"),
    Fault("image_before_period", "south", "excluded", OUTSIDE_PERIOD, is_predicted=False),
    Fault("enhanced_beside", "south", "paired"),
    Fault("extended_scale", "south", "paired"),
    Fault("tilted", "south", "paired"),
    Fault("truncated_header", "east", "excluded", UNREADABLE, is_predicted=False),
    Fault("contrast_only", "east", "excluded", ENHANCED, is_predicted=False),
    Fault("contrast_beside", "east", "paired"),
    Fault("under_50_at_label", "east", "image_only"),
    Fault("missing_mask", "east", "paired", is_predicted=False),
    Fault("duplicate_different_content", "east", "paired"),
    Fault("capture_beside", "east", "paired"),
    Fault("tags_absent", "east", "paired"),
    Fault("cropped_field", "east", "paired"),
    Fault("lateral_beside", "east", "paired"),  # of the radiograph beside the CT
    Fault("kvp_100_only", "west", "excluded", OTHER_KVP, is_predicted=False),
    Fault("contrast_tag_empty", "west", "excluded", ENHANCEMENT_UNKNOWN, is_predicted=False),
    Fault("radiograph_only", "west", "excluded", NOT_CT, is_predicted=False),
    Fault("non_dicom_files", "west", "image_only"),
    Fault("chinese_name", "west", "image_only"),
    Fault("under_50_at_image", "west", "excluded", TOO_YOUNG, is_predicted=False),
    Fault("kvp_absent", "west", "excluded", KVP_UNKNOWN, is_predicted=False),
    Fault("mixed_orientation", "west", "excluded", UNREADABLE, is_predicted=False),
    Fault("age_unknown", "west", "excluded", AGE_UNKNOWN, is_predicted=False),
)


def faults_of(center: str) -> tuple[Fault, ...]:
    """The faults that a center carries, in a fixed order."""
    return tuple(fault for fault in FAULTS if fault.center == center)


def fault(name: str) -> Fault:
    return next(fault for fault in FAULTS if fault.name == name)
