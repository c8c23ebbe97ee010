"""How each scanner vendor writes its files: names, kernels, rescale, padding, order, compression."""

from __future__ import annotations

from dataclasses import dataclass

EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
RLE = "1.2.840.10008.1.2.5"


@dataclass(frozen=True)
class Habit:
    """What a vendor's CT writes; contrast is what stands in ContrastBolusAgent of a plain scan, None where nothing does."""

    manufacturer: str
    model: str
    software: str
    kernel: str | list[str]
    image_type: list[str]
    intercept: int
    is_signed: bool
    bits_stored: int
    padding: int | None
    contrast: str | None
    transfer_syntax: str
    thickness_mm: float
    spacing_mm: float
    is_head_first: bool  # whether instance number 1 is the slice next to the head
    filter_type: str
    description: str
    protocol: str
    body_part: str


HABITS: dict[str, Habit] = {
    "ge": Habit(
        manufacturer="GE MEDICAL SYSTEMS", model="LightSpeed VCT", software="gmp_vct.42", kernel="STANDARD",
        image_type=["ORIGINAL", "PRIMARY", "AXIAL"], intercept=-1024, is_signed=True, bits_stored=16, padding=-2000,
        contrast=None, transfer_syntax=EXPLICIT, thickness_mm=5.0, spacing_mm=5.0, is_head_first=True,
        filter_type="BODY FILTER", description="ABD 5mm STD", protocol="6.1 ABDOMEN", body_part="ABDOMEN",
    ),
    "siemens": Habit(
        manufacturer="SIEMENS", model="SOMATOM Definition AS+", software="syngo CT 2014A", kernel=["B30f"],
        image_type=["ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 SPI"], intercept=-1024, is_signed=False, bits_stored=12,
        padding=None, contrast=None, transfer_syntax=EXPLICIT, thickness_mm=5.0, spacing_mm=5.0, is_head_first=True,
        filter_type="FLAT", description="LSpine 5.0 B30f", protocol="LSpineRoutine", body_part="LSPINE",
    ),
    "philips": Habit(
        manufacturer="Philips", model="Brilliance 64", software="3.5.5", kernel="B",
        image_type=["ORIGINAL", "PRIMARY", "AXIAL", "HELIX"], intercept=-1024, is_signed=False, bits_stored=12,
        padding=None, contrast="NONE", transfer_syntax=RLE, thickness_mm=5.0, spacing_mm=5.0, is_head_first=False,
        filter_type="D", description="ABDOMEN 5mm", protocol="Abdomen/Hx", body_part="ABDOMEN",
    ),
    "canon": Habit(
        manufacturer="TOSHIBA", model="Aquilion ONE", software="V4.74ER005", kernel="FC08",
        image_type=["ORIGINAL", "PRIMARY", "AXIAL"], intercept=0, is_signed=True, bits_stored=16, padding=None,
        contrast=None, transfer_syntax=IMPLICIT, thickness_mm=5.0, spacing_mm=5.0, is_head_first=True,
        filter_type="LARGE", description="L-SPINE 5.0", protocol="L-Spine", body_part="SPINE",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class RadiographHabit:
    """What a center's radiograph unit writes."""

    modality: str
    manufacturer: str
    model: str
    photometric: str
    transfer_syntax: str


RADIOGRAPH_HABITS: dict[str, RadiographHabit] = {
    "north": RadiographHabit("DX", "GE Healthcare", "Optima XR640", "MONOCHROME2", EXPLICIT),
    "south": RadiographHabit("DX", "SIEMENS", "Fluorospot Compact FD", "MONOCHROME2", DEFLATED),
    "east": RadiographHabit("CR", "FUJIFILM Corporation", "FCR XC-2", "MONOCHROME1", EXPLICIT),
    "west": RadiographHabit("DX", "Philips Medical Systems", "DigitalDiagnost", "MONOCHROME1", IMPLICIT),
}

# Character set of names, as SpecificCharacterSet writes it
CHARSETS: dict[str, str | list[str]] = {
    "north": "ISO_IR 100",
    "south": ["", "ISO 2022 IR 149"],
    "east": "ISO_IR 192",
    "west": "GB18030",
}
