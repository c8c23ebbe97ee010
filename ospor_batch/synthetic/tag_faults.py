"""Tags that are missing or wrong, as archives have them; none of them decides what must become of a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydicom.dataset import Dataset

TagFault = Literal[
    "body_part_absent", "body_part_wrong", "descriptions_absent", "kernel_absent", "thickness_absent", "size_absent",
    "size_in_centimetres", "sex_empty", "age_zero", "acquisition_date_absent", "window_absent", "padding_undeclared",
    "private_absent",
]  # fmt: skip
# elements that each takes away
ABSENT: Mapping[str, tuple[str, ...]] = {
    "body_part_absent": ("BodyPartExamined",),
    "descriptions_absent": ("StudyDescription", "SeriesDescription", "ProtocolName"),
    "kernel_absent": ("ConvolutionKernel",),
    "thickness_absent": ("SliceThickness",),
    "size_absent": ("PatientSize", "PatientWeight"),
    "acquisition_date_absent": ("AcquisitionDate", "AcquisitionTime"),
    "window_absent": ("WindowCenter", "WindowWidth"),
    "padding_undeclared": ("PixelPaddingValue",),
}


@dataclass(frozen=True)
class TagRates:
    """Share of series that each tag fault strikes, all independent; declared, after what public archives show."""

    body_part_absent: float = 0.0
    body_part_wrong: float = 0.0
    descriptions_absent: float = 0.0
    kernel_absent: float = 0.0
    thickness_absent: float = 0.0
    size_absent: float = 0.0
    size_in_centimetres: float = 0.0
    sex_empty: float = 0.0
    age_zero: float = 0.0
    acquisition_date_absent: float = 0.0
    window_absent: float = 0.0
    padding_undeclared: float = 0.0
    private_absent: float = 0.0


SOUND = TagRates()
ALL_FAULTS: tuple[TagFault, ...] = tuple(name for name in vars(SOUND) if not name.endswith(("_wrong", "_centimetres")))  # type: ignore[misc]
# Rates of a large multi-vendor archive; declared
USUAL = TagRates(
    body_part_absent=0.08, body_part_wrong=0.03, descriptions_absent=0.02, kernel_absent=0.02, thickness_absent=0.01,
    size_absent=0.25, size_in_centimetres=0.01, sex_empty=0.01, age_zero=0.01, acquisition_date_absent=0.02,
    window_absent=0.03, padding_undeclared=0.03, private_absent=0.15,
)  # fmt: skip


def draw_faults(draw: np.random.Generator, rates: TagRates) -> tuple[TagFault, ...]:
    """The tag faults of one series, in the order of their declaration."""
    return tuple(name for name, rate in vars(rates).items() if draw.random() < rate)  # type: ignore[misc]


def spoil(ds: Dataset, faults: Sequence[TagFault]) -> None:
    """Take away or falsify elements of a header, in place."""
    for fault in faults:
        for keyword in ABSENT.get(fault, ()):
            if keyword in ds:
                del ds[keyword]
        if fault == "body_part_wrong":
            ds.BodyPartExamined = "HEAD"
        elif fault == "size_in_centimetres" and "PatientSize" in ds:
            ds.PatientSize = f"{float(ds.PatientSize) * 100:.0f}"
        elif fault == "sex_empty":
            ds.PatientSex = ""
        elif fault == "age_zero" and "PatientAge" in ds:
            ds.PatientAge = "000Y"
        elif fault == "private_absent":
            ds.remove_private_tags()
