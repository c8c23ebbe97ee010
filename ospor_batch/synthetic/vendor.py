"""How each scanner vendor writes its files: names, kernels, rescale, padding, order, compression, private blocks, UIDs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ospor_batch.synthetic.population import Person

EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"
JPEG_LS = "1.2.840.10008.1.2.4.80"
JPEG_2000 = "1.2.840.10008.1.2.4.90"
RLE = "1.2.840.10008.1.2.5"
ENCAPSULATED = frozenset({JPEG_LOSSLESS, JPEG_LS, JPEG_2000, RLE})

Numbering = Literal["running", "joined"]  # the last component counts images, or is a long number that grows with them


@dataclass(frozen=True)
class Private:
    """One private element; tag as written once its block is reserved at 0x10."""

    creator: str
    tag: int
    vr: str
    value: Any


@dataclass(frozen=True)
class Habit:
    """What a scanner writes; contrast is what stands in ContrastBolusAgent of a plain scan, None where nothing does."""

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
    uid_stem: str  # see seeding.scanner_uid
    numbering: Numbering
    dose_name: str  # description of the dose sheet
    dose_number: int  # its series number
    elements: dict[str, Any] = field(default_factory=dict)  # further public elements, by keyword
    private: tuple[Private, ...] = ()


_GE_PRIVATE = (
    Private("GEMS_IDEN_01", 0x00091001, "LO", "CT_LIGHTSPEED"),
    Private("GEMS_IDEN_01", 0x00091002, "SH", "CT01"),
    Private("GEMS_IDEN_01", 0x00091004, "SH", "LightSpeed"),
    Private("GEMS_ACQU_01", 0x00191002, "SL", 912),
    Private("GEMS_ACQU_01", 0x00191023, "DS", "39.375"),
    Private("GEMS_ACQU_01", 0x00191027, "DS", "600"),
    Private("GEMS_ACQU_01", 0x00191039, "SS", 16),
    Private("GEMS_PARM_01", 0x00431010, "US", 400),
    Private("GEMS_PARM_01", 0x00431027, "SH", "0.984:1"),
    Private("GEMS_PARM_01", 0x00431029, "OB", bytes(2068)),  # histogram tables
    Private("GEMS_PARM_01", 0x00431031, "DS", ["0.0", "0.0"]),
    Private("GEMS_HELIOS_01", 0x00451006, "CS", "OUT OF GANTRY"),
    Private("GEMS_HELIOS_01", 0x0045103B, "LO", "NONE"),
)
_SIEMENS_PRIVATE = (
    Private("SIEMENS CT VA0  COAD", 0x001910B0, "DS", "23.0"),
    Private("SIEMENS CT VA0  COAD", 0x00191054, "DS", "0.5"),
    Private("SIEMENS CT VA0  COAD", 0x001910AE, "IS", "1152"),
    Private("SIEMENS MEDCOM HEADER", 0x00291008, "CS", "MEDCOM 1"),
    Private("SIEMENS MEDCOM HEADER", 0x00291010, "OB", bytes(range(256)) * 4),
    # a sequence inside a private block: readers must step over it
    Private("SIEMENS MEDCOM HEADER", 0x00291040, "SQ", ((0x00290010, "LO", "SIEMENS MEDCOM HEADER"), (0x00291041, "CS", "CT"))),
)
_PHILIPS_PRIVATE = (
    Private("ELSCINT1", 0x01F11001, "CS", "HELIX"),
    Private("ELSCINT1", 0x01F11007, "DS", "41.2"),
    Private("ELSCINT1", 0x01F11026, "DS", "0.923"),
    Private("ELSCINT1", 0x01F11027, "DS", "0.75"),
    Private("ELSCINT1", 0x01F11032, "CS", "RIGHT_ON_LEFT"),
)
_CANON_PRIVATE = (
    Private("TOSHIBA_MEC_CT3", 0x7005100A, "DS", "41.5"),
    Private("TOSHIBA_MEC_CT3", 0x7005100B, "SH", "ORG"),
    Private("TOSHIBA_MEC_CT3", 0x7005101B, "SH", "FC08"),
    Private("TOSHIBA_MEC_CT3", 0x70051023, "DS", "0.828"),
    Private("TOSHIBA_MEC_CT3", 0x70051040, "FD", 412.7),
)
_TUBE: dict[str, Any] = {"RotationDirection": "CW", "DataCollectionDiameter": "500", "DistanceSourceToDetector": "950"}

_GE = Habit(
    manufacturer="GE MEDICAL SYSTEMS", model="LightSpeed VCT", software="gmp_vct.42", kernel="STANDARD",
    image_type=["ORIGINAL", "PRIMARY", "AXIAL"], intercept=-1024, is_signed=True, bits_stored=16, padding=-2000,
    contrast=None, transfer_syntax=EXPLICIT, thickness_mm=5.0, spacing_mm=5.0, is_head_first=True,
    filter_type="BODY FILTER", description="ABD 5mm STD", protocol="6.1 ABDOMEN", body_part="ABDOMEN",
    uid_stem="840.113619.2.55", numbering="running", dose_name="Dose Report", dose_number=999, private=_GE_PRIVATE,
    elements={**_TUBE, "ScanOptions": "HELICAL MODE", "FocalSpots": "1.2", "ExposureTime": "600", "GeneratorPower": "21600",
              "SpiralPitchFactor": 0.984, "SingleCollimationWidth": 0.625, "TotalCollimationWidth": 40.0,
              "TableHeight": "162.5", "TableFeedPerRotation": 39.375, "StationName": "CT01"},
)  # fmt: skip
_SIEMENS = Habit(
    manufacturer="SIEMENS", model="SOMATOM Definition AS+", software="syngo CT 2014A", kernel=["B30f"],
    image_type=["ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 SPI"], intercept=-1024, is_signed=False, bits_stored=12,
    padding=None, contrast=None, transfer_syntax=EXPLICIT, thickness_mm=5.0, spacing_mm=5.0, is_head_first=True,
    filter_type="FLAT", description="LSpine 5.0 B30f", protocol="LSpineRoutine", body_part="LSPINE",
    uid_stem="12.2.1107.5.1.4", numbering="joined", dose_name="Patient Protocol", dose_number=501, private=_SIEMENS_PRIVATE,
    elements={**_TUBE, "DistanceSourceToPatient": "595", "FocalSpots": "1.2", "ExposureTime": "500", "GeneratorPower": "36",
              "DateOfLastCalibration": "20220103", "TimeOfLastCalibration": "071502.000000", "TableHeight": "151",
              "SpiralPitchFactor": 0.6, "SingleCollimationWidth": 0.6, "TotalCollimationWidth": 38.4,
              "ExposureModulationType": "XYZ_EC", "CTDIvol": 7.9, "StationName": "CTAWP73452"},
)  # fmt: skip
_PHILIPS = Habit(
    manufacturer="Philips", model="Brilliance 64", software="3.5.5", kernel="B",
    image_type=["ORIGINAL", "PRIMARY", "AXIAL", "HELIX"], intercept=-1024, is_signed=False, bits_stored=12,
    padding=None, contrast="NONE", transfer_syntax=RLE, thickness_mm=5.0, spacing_mm=5.0, is_head_first=False,
    filter_type="D", description="ABDOMEN 5mm", protocol="Abdomen/Hx", body_part="ABDOMEN",
    uid_stem="46.670589.33.1", numbering="joined", dose_name="Dose Info", dose_number=350, private=_PHILIPS_PRIVATE,
    elements={**_TUBE, "ScanOptions": "HELIX", "ExposureTime": "812", "TableHeight": "98.5", "CTDIvol": 9.4,
              "SingleCollimationWidth": 0.625, "TotalCollimationWidth": 40.0},
)  # fmt: skip
_CANON = Habit(
    manufacturer="TOSHIBA", model="Aquilion ONE", software="V4.74ER005", kernel="FC08",
    image_type=["ORIGINAL", "PRIMARY", "AXIAL"], intercept=0, is_signed=True, bits_stored=16, padding=None,
    contrast=None, transfer_syntax=IMPLICIT, thickness_mm=5.0, spacing_mm=5.0, is_head_first=True,
    filter_type="LARGE", description="L-SPINE 5.0", protocol="L-Spine", body_part="SPINE",
    uid_stem="392.200036.9116.2", numbering="running", dose_name="Dose Summary", dose_number=9000,
    private=_CANON_PRIVATE,
    elements={**_TUBE, "ScanOptions": "HELICAL_CT", "ExposureTime": "500", "FocalSpots": "1.6", "TableHeight": "89.0",
              "CTDIvol": 10.2, "StationName": "AQONE"},
)  # fmt: skip


# The scanners of each vendor; a person is imaged on one of them. The first writes plain pixels, the second compressed ones
SCANNERS: dict[str, tuple[Habit, ...]] = {
    "ge": (
        _GE,
        replace(
            _GE, model="Revolution CT", software="revo_ct_22bc.50", transfer_syntax=JPEG_LOSSLESS, protocol="5.4 ABD PELVIS"
        ),
    ),
    "siemens": (
        _SIEMENS,
        # photon counting scanners write a wider range of CT numbers than 12 bits hold
        replace(
            _SIEMENS,
            manufacturer="Siemens Healthineers",
            model="NAEOTOM Alpha",
            software="syngo CT VA50A",
            kernel=["Br40f", "2"],
            image_type=["ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM8 SPI"],
            intercept=-8192,
            bits_stored=16,
            padding=0,
            transfer_syntax=JPEG_LS,
            description="LSpine 5.0 Br40",
        ),
    ),
    "philips": (
        _PHILIPS,
        replace(
            _PHILIPS, manufacturer="Philips Healthcare", model="IQon - Spectral CT", software="4.7.7", transfer_syntax=JPEG_2000
        ),
    ),
    "canon": (
        _CANON,
        replace(
            _CANON,
            manufacturer="Canon Medical Systems",
            model="Aquilion Prime SP",
            software="V10.2SP0021",
            transfer_syntax=EXPLICIT,
            kernel=["FC18", "AiCE"],
        ),
    ),
}
HABITS: dict[str, Habit] = {vendor: scanners[0] for vendor, scanners in SCANNERS.items()}
SECOND_SCANNER = 0.4  # share of the people who are imaged on the second; declared


def habit_of(person: Person) -> Habit:
    """The scanner that a person is imaged on; files that are cut short come from one that writes plain pixels."""
    scanners = SCANNERS[person.vendor]
    if person.fault.startswith("truncated_"):
        return scanners[0]
    if person.fault == "extended_scale":
        return scanners[1]
    return scanners[int(person.draws("scanner").random() < SECOND_SCANNER)]


@dataclass(frozen=True)
class RadiographHabit:
    """What a center's radiograph unit writes."""

    modality: str
    manufacturer: str
    model: str
    photometric: str
    transfer_syntax: str
    has_lut: bool = False  # display by a VOI LUT sequence, not by a window


RADIOGRAPH_HABITS: dict[str, RadiographHabit] = {
    "north": RadiographHabit("DX", "GE Healthcare", "Optima XR640", "MONOCHROME2", EXPLICIT),
    "south": RadiographHabit("DX", "SIEMENS", "Fluorospot Compact FD", "MONOCHROME2", DEFLATED, has_lut=True),
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
