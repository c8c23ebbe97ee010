"""What the headers of generated DICOM objects hold: person, study and equipment, and how a file is put together."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from datetime import date
from functools import cache
from io import BytesIO
from typing import Any, Protocol

from pydicom.dataset import Dataset
from pydicom.filebase import DicomIO
from pydicom.filewriter import write_dataset
from pydicom.sr.codedict import Code
from pydicom.uid import CTImageStorage

from ospor_batch.synthetic.anatomy import Grid
from ospor_batch.synthetic.phantom import phantoms_of
from ospor_batch.synthetic.population import Person
from ospor_batch.synthetic.seeding import scanner_uid, uid
from ospor_batch.synthetic.tag_faults import TagFault, spoil
from ospor_batch.synthetic.template import text_element
from ospor_batch.synthetic.vendor import CHARSETS, DEFLATED, IMPLICIT, Habit, Private, habit_of

IMPLEMENTATION = "2.25.180286943107355190217213283812416871907"  # of this generator, any fixed UID
CONTRAST_AGENT = "Iohexol 350"
BODY_PHANTOM = Code("113691", "DCM", "IEC Body Dosimetry Phantom")


class Imaged(Protocol):
    """What a CT header says of the volume."""

    @property
    def grid(self) -> Grid: ...
    @property
    def kvp_kv(self) -> int: ...


@dataclass(frozen=True)
class Series:
    """What all instances of one series share."""

    person: Person
    study_word: str  # parts the studies of one person
    number: int
    image_date: date
    written_patient_id: str
    is_contrast: bool = False
    is_age_known: bool = True
    is_contrast_tag_empty: bool = False
    is_kvp_known: bool = True
    tag_faults: tuple[TagFault, ...] = ()

    @property
    def habit(self) -> Habit:
        return habit_of(self.person)

    @property
    def study_uid(self) -> str:
        return self.scanner_uid("study", 0)

    @property
    def series_uid(self) -> str:
        return self.scanner_uid("series", self.number)

    @property
    def frame_uid(self) -> str:
        return self.uid_of("frame of reference")

    @property
    def accession(self) -> str:
        return self.person.ct_accession if self.study_word == "ct" else f"{self.person.ct_accession[:-1]}X"

    def sop_uid(self, instance: int) -> str:
        start, first = self.sop_uids
        return f"{start}{first + instance}"

    @property
    def sop_uids(self) -> tuple[str, int]:
        """Beginning of the UIDs of its images, and what is added to their number."""
        habit = self.habit
        return scanner_uid(*self._words("instance", self.number), stem=habit.uid_stem, is_joined=habit.numbering == "joined")

    def scanner_uid(self, word: str, number: int) -> str:
        habit = self.habit
        start, first = scanner_uid(*self._words(word), stem=habit.uid_stem, is_joined=habit.numbering == "joined")
        return f"{start}{first + number + 1}"

    def uid_of(self, *words: object) -> str:
        return uid(*self._words(*words))

    def _words(self, *words: object) -> tuple[Any, ...]:
        return (self.person.seed, self.person.center, self.person.number, self.study_word, *words)


def patient_module(series: Series) -> dict[str, Any]:
    """Patient and study values that every object of a person shares."""
    person = series.person
    module: dict[str, Any] = {
        "SpecificCharacterSet": CHARSETS[person.manner],
        "PatientName": person.name,
        "PatientID": series.written_patient_id,
        "PatientBirthDate": f"{person.birth_date:%Y%m%d}" if series.is_age_known else "",
        "PatientSex": person.sex[0].upper(),
        "StudyInstanceUID": series.study_uid,
        "SeriesInstanceUID": series.series_uid,
        "StudyID": f"{person.number}",
        "StudyDate": f"{series.image_date:%Y%m%d}",
        "StudyTime": "101500",
        "AccessionNumber": series.accession,
        "ReferringPhysicianName": "",
        "SeriesNumber": series.number,
    }
    if series.is_age_known:
        module["PatientAge"] = f"{int(person.age_at_image):03d}Y"
    return module


def shared_header(series: Series) -> Dataset:
    """Person, study, series and place."""
    ds = Dataset()
    ds.update(patient_module(series))
    day = f"{series.image_date:%Y%m%d}"
    ds.update({"SeriesDate": day, "AcquisitionDate": day, "ContentDate": day})
    ds.update({"SeriesTime": "101530", "AcquisitionTime": "101540", "ContentTime": "101600"})
    if series.person.fault != "missing_height":
        ds.PatientSize = f"{series.person.height_m:.3f}"
    ds.PatientWeight = f"{series.person.weight_kg:.1f}"
    ds.InstitutionName = f"Generated hospital {series.person.center}"
    ds.DeviceSerialNumber = f"GEN-{series.person.center[0].upper()}1"
    return ds


def ct_header(series: Series, scan: Imaged) -> Dataset:
    """Everything of a CT image but its place and pixels, with the tag faults of its series."""
    habit, ds = series.habit, shared_header(series)
    ds.SOPClassUID, ds.Modality, ds.PatientPosition = CTImageStorage, "CT", "HFS"
    ds.update({"Manufacturer": habit.manufacturer, "ManufacturerModelName": habit.model, "SoftwareVersions": habit.software})
    ds.update({"ImageType": habit.image_type, "ConvolutionKernel": habit.kernel, "FilterType": habit.filter_type})
    qct, rods = (" QCT", " PHANTOM") if phantoms_of(series.person) else ("", "")
    ds.update({"StudyDescription": habit.protocol + qct, "ProtocolName": habit.protocol + qct})
    ds.BodyPartExamined = habit.body_part
    ds.SeriesDescription = habit.description + qct + rods + (" CE PV" if series.is_contrast else "")
    ds.update({"KVP": str(scan.kvp_kv) if series.is_kvp_known else "", "XRayTubeCurrent": 180, "Exposure": 110})
    ds.update({"GantryDetectorTilt": decimal(scan.grid.tilt_deg), "SliceThickness": scan.grid.thickness})
    ds.PixelSpacing = spacing_of(scan.grid)
    ds.ReconstructionDiameter = f"{scan.grid.shape[2] * scan.grid.step[0]:g}"
    ds.update({"FrameOfReferenceUID": series.frame_uid, "PositionReferenceIndicator": ""})
    ds.update({"AcquisitionNumber": 1, "ImageOrientationPatient": orientation_of(scan.grid)})
    ds.update(habit.elements)
    if "CTDIvol" in ds:
        ds.CTDIPhantomTypeCodeSequence = [code_item(BODY_PHANTOM)]
    if habit.manufacturer.startswith("Philips"):
        ds.SpacingBetweenSlices = scan.grid.step[2]
    _contrast(ds, series, habit)
    ds.update({"RescaleIntercept": str(habit.intercept), "RescaleSlope": "1", "RescaleType": "HU"})
    ds.update({"WindowCenter": "40", "WindowWidth": "400"})
    matrix(ds, scan.grid.shape[1:], bits_stored=habit.bits_stored, is_signed=habit.is_signed)
    if habit.padding is not None:
        ds.add_new(0x00280120, "SS" if habit.is_signed else "US", habit.padding)
    put_private(ds, habit.private)
    spoil(ds, series.tag_faults)
    return ds


def matrix(
    ds: Dataset, shape: tuple[int, ...], *, bits_stored: int, is_signed: bool = False, photometric: str = "MONOCHROME2"
) -> None:
    """Set what says how 16-bit pixels are read."""
    ds.update({"SamplesPerPixel": 1, "PhotometricInterpretation": photometric, "Rows": shape[0], "Columns": shape[1]})
    ds.update({"BitsAllocated": 16, "BitsStored": bits_stored, "HighBit": bits_stored - 1})
    ds.PixelRepresentation = int(is_signed)


def decimal(value: float) -> str:
    """A decimal string; PS3.5 allows 16 characters."""
    return f"{value:.10g}"


def spacing_of(grid: Grid) -> list[str]:
    """PixelSpacing of a grid: between rows, then between columns."""
    return [decimal(grid.step[1]), decimal(grid.step[0])]


def orientation_of(grid: Grid) -> list[str]:
    """ImageOrientationPatient of a grid; to a millionth, so that a matrix of 512 stays within a hundredth of a pixel."""
    return [decimal(round(cosine, 6)) for cosine in grid.row_cosines]


def put_private(ds: Dataset, elements: tuple[Private, ...]) -> None:
    """Write private elements into blocks reserved by their creators."""
    for element in elements:
        block = ds.private_block(element.tag >> 16, element.creator, create=True)
        value = element.value
        if element.vr == "SQ":
            item = Dataset()
            for tag, vr, inner in value:
                item.add_new(tag, vr, inner)
            value = [item]
        block.add_new(element.tag & 0xFF, element.vr, value)


def code_item(code: Code) -> Dataset:
    """A coded concept as an item of a code sequence."""
    item = Dataset()
    item.update({"CodeValue": code.value, "CodingSchemeDesignator": code.scheme_designator, "CodeMeaning": code.meaning})
    return item


def as_file(ds: Dataset, *, syntax: str) -> bytes:
    """The bytes of a DICOM file (PS3.10) in the given transfer syntax."""
    meta = meta_group(str(ds.SOPClassUID), str(ds.SOPInstanceUID), syntax=syntax)
    return meta + deflated(body_of(ds, syntax=syntax), syntax=syntax)


def body_of(ds: Dataset, *, syntax: str) -> bytes:
    """The data set alone, not yet deflated."""
    ds._pixel_rep = ds.get("PixelRepresentation", 0)  # what decides between US and SS, as dcmwrite has it
    buffer = DicomIO(BytesIO())
    buffer.is_little_endian, buffer.is_implicit_VR = True, syntax == IMPLICIT
    write_dataset(buffer, ds, parent_encoding=ds.get("SpecificCharacterSet") or "iso8859")
    return bytes(buffer.parent.getvalue())


def deflated(body: bytes, *, syntax: str) -> bytes:
    """The data set as it stands in the file: compressed without a zlib header where the syntax asks for it (PS3.5 A.5)."""
    if syntax != DEFLATED:
        return body
    packer = zlib.compressobj(level=6, wbits=-zlib.MAX_WBITS)
    packed = packer.compress(body) + packer.flush()
    return packed + b"\0" * (len(packed) % 2)


def meta_group(class_uid: str, sop_uid: str, *, syntax: str) -> bytes:
    """Preamble and meta group, always explicit little endian."""
    before, after = _meta_frame(class_uid, syntax)
    elements = before + text_element(0x00020003, "UI", sop_uid, is_implicit=False) + after
    return bytes(128) + b"DICM\x02\0\0\0UL\x04\0" + struct.pack("<L", len(elements)) + elements


@cache
def _meta_frame(class_uid: str, syntax: str) -> tuple[bytes, bytes]:
    """What stands before and after the instance's UID; the same for all files of a series."""
    before = b"\x02\0\x01\0OB\0\0\x02\0\0\0\0\x01" + text_element(0x00020002, "UI", class_uid, is_implicit=False)
    rest = ((0x00020010, "UI", syntax), (0x00020012, "UI", IMPLEMENTATION), (0x00020013, "SH", "GENERATED"))
    return before, b"".join(text_element(tag, vr, value, is_implicit=False) for tag, vr, value in rest)


def _contrast(ds: Dataset, series: Series, habit: Habit) -> None:
    if series.is_contrast:
        ds.update({"ContrastBolusAgent": CONTRAST_AGENT, "ContrastBolusRoute": "IV", "ContrastBolusVolume": "90"})
    elif series.is_contrast_tag_empty:
        ds.ContrastBolusAgent = ""
    elif habit.contrast is not None:
        ds.ContrastBolusAgent = habit.contrast
