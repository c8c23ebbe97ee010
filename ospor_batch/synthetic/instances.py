"""DICOM files of a generated person: CT slices, scouts and radiographs, as bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite
from pydicom.pixels.encoders import RLELosslessEncoder
from pydicom.sr.codedict import Code, codes
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    ImplicitVRLittleEndian,
    RLELossless,
)

from ospor_batch.synthetic.ct import Scan
from ospor_batch.synthetic.population import Person
from ospor_batch.synthetic.radiograph import FIELD_MM
from ospor_batch.synthetic.seeding import uid
from ospor_batch.synthetic.template import Template, pixel_element, text_element
from ospor_batch.synthetic.vendor import CHARSETS, EXPLICIT, HABITS, RADIOGRAPH_HABITS, Habit

IMPLEMENTATION = "2.25.180286943107355190217213283812416871907"  # of this generator, any fixed UID
CONTRAST_AGENT = "Iohexol 350"


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

    @property
    def study_uid(self) -> str:
        return self.uid_of("study")

    @property
    def series_uid(self) -> str:
        return self.uid_of("series", self.number)

    @property
    def frame_uid(self) -> str:
        return self.uid_of("frame of reference")

    @property
    def accession(self) -> str:
        return self.person.ct_accession if self.study_word == "ct" else f"{self.person.ct_accession[:-1]}X"

    def sop_uid(self, instance: int) -> str:
        return self.uid_of("instance", self.number, instance)

    def uid_of(self, *words: object) -> str:
        return uid(self.person.seed, self.person.center, self.person.number, self.study_word, *words)


@dataclass(frozen=True)
class Instance:
    """One file: its number in the series, its SOP Instance UID and its content."""

    number: int
    sop_uid: str
    content: bytes


def ct_slices(series: Series, scan: Scan) -> Iterator[Instance]:
    """Write a CT volume slice by slice, in the order and with the rescale of its vendor; by instance number."""
    habit = HABITS[series.person.vendor]
    ds = _ct_header(series, habit, scan)
    stored = stored_values(scan, habit)
    n_slices = scan.grid.shape[0]
    template: Template | None = None
    for number in range(1, n_slices + 1):
        k = n_slices - number if habit.is_head_first else number - 1
        z = f"{round(scan.grid.origin[2] + k * scan.grid.step[2], 4)}"
        place = [f"{scan.grid.origin[0]}", f"{scan.grid.origin[1]}", z]
        pixels = _pixels(stored[k], habit)
        varying = _varying(series.sop_uid(number), number, place, pixels, syntax=habit.transfer_syntax)
        if template is None:
            ds.update({"SOPInstanceUID": series.sop_uid(number), "InstanceNumber": f"{number}"})
            ds.update({"ImagePositionPatient": place, "SliceLocation": z})
            _put_pixels(ds, pixels, syntax=habit.transfer_syntax)
            template = Template.of(as_file(ds, syntax=habit.transfer_syntax), varying)
        yield Instance(number, series.sop_uid(number), template.fill(varying))


def _varying(sop_uid: str, number: int, place: list[str], pixels: bytes, *, syntax: str) -> list[bytes]:
    """The elements that differ between slices, in the order of the file."""
    is_implicit = syntax == ImplicitVRLittleEndian
    return [
        text_element(0x00020003, "UI", sop_uid, is_implicit=False),  # the meta group is always explicit
        text_element(0x00080018, "UI", sop_uid, is_implicit=is_implicit),
        text_element(0x00200013, "IS", f"{number}", is_implicit=is_implicit),
        text_element(0x00200032, "DS", "\\".join(place), is_implicit=is_implicit),
        text_element(0x00201041, "DS", place[2], is_implicit=is_implicit),
        pixel_element(pixels, is_implicit=is_implicit, is_encapsulated=syntax == RLELossless),
    ]


def stored_values(scan: Scan, habit: Habit) -> NDArray[np.int16] | NDArray[np.uint16]:
    """CT numbers as the vendor stores them; outside the round field GE writes its padding."""
    stored = scan.hu.astype(np.int32) - habit.intercept
    if habit.padding is not None:
        _, n_y, n_x = scan.grid.shape
        y, x = np.mgrid[:n_y, :n_x]
        outside = (x - (n_x - 1) / 2) ** 2 + (y - (n_y - 1) / 2) ** 2 > (n_x / 2) ** 2
        stored[:, outside] = habit.padding
    if habit.is_signed:
        return stored.astype(np.int16)
    return np.clip(stored, 0, (1 << habit.bits_stored) - 1).astype(np.uint16)


def scout_file(series: Series, scan: Scan, pixels: NDArray[np.int16]) -> Instance:
    """Write a frontal localizer."""
    habit = HABITS[series.person.vendor]
    ds = _ct_header(series, habit, scan)
    rows, columns = pixels.shape
    x, y, z = scan.grid.origin
    high = z + (scan.grid.shape[0] - 1) * scan.grid.step[2]
    ds.update({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "SeriesDescription": "SCOUT", "InstanceNumber": 1})
    ds.RescaleType = "US"  # a localizer's values are no CT numbers (PS3.3 C.8.2.1)
    ds.update({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1], "ImagePositionPatient": [x, round(y, 4), round(high, 4)]})
    ds.PixelSpacing = [round((high - z) / (rows - 1), 5), scan.grid.step[0]]
    ds.SOPInstanceUID = series.sop_uid(1)
    ds.Rows, ds.Columns = rows, columns
    del ds.ConvolutionKernel
    low = 0 if not habit.is_signed else -32768
    stored = np.maximum(pixels.astype(np.int32) - habit.intercept, low)
    pixels_out = _pixels(stored.astype(np.int16 if habit.is_signed else np.uint16), habit)
    _put_pixels(ds, pixels_out, syntax=habit.transfer_syntax)
    return Instance(1, ds.SOPInstanceUID, as_file(ds, syntax=habit.transfer_syntax))


def radiograph_file(series: Series, pixels: NDArray[np.uint16]) -> Instance:
    """Write a PA chest radiograph; pixels are bright in bone, MONOCHROME1 units store them inverted."""
    habit = RADIOGRAPH_HABITS[series.person.center]
    is_cr = habit.modality == "CR"
    ds = _shared_header(series)
    ds.SOPClassUID = ComputedRadiographyImageStorage if is_cr else DigitalXRayImageStorageForPresentation
    ds.SOPInstanceUID, ds.InstanceNumber, ds.Modality = series.sop_uid(1), 1, habit.modality
    ds.Manufacturer, ds.ManufacturerModelName = habit.manufacturer, habit.model
    ds.update({"SeriesDescription": "Chest PA", "StudyDescription": "Chest X-ray", "BodyPartExamined": "CHEST"})
    ds.update({"ViewPosition": "PA", "PatientOrientation": ["L", "F"], "KVP": "120", "BurnedInAnnotation": "NO"})
    if not is_cr:
        _digital_xray(ds, is_inverse=habit.photometric == "MONOCHROME1")
    spacing = round(FIELD_MM / pixels.shape[0], 5)
    ds.ImagerPixelSpacing = [spacing, spacing]
    ds.update({"WindowCenter": "2048", "WindowWidth": "4096"})
    _matrix(ds, pixels.shape, bits_stored=12, is_signed=False, photometric=habit.photometric)
    stored = pixels if habit.photometric == "MONOCHROME2" else (4095 - pixels).astype(np.uint16)
    _put_pixels(ds, stored.astype("<u2").tobytes(), syntax=EXPLICIT)
    return Instance(1, ds.SOPInstanceUID, as_file(ds, syntax=habit.transfer_syntax))


def code_item(code: Code) -> Dataset:
    """A coded concept as an item of a code sequence."""
    item = Dataset()
    item.update({"CodeValue": code.value, "CodingSchemeDesignator": code.scheme_designator, "CodeMeaning": code.meaning})
    return item


def as_file(ds: Dataset, *, syntax: str) -> bytes:
    """The bytes of a DICOM file with its meta group."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    meta.TransferSyntaxUID = syntax
    meta.ImplementationClassUID, meta.ImplementationVersionName = IMPLEMENTATION, "GENERATED"
    ds.file_meta = meta
    buffer = BytesIO()
    dcmwrite(buffer, ds, enforce_file_format=True)
    return buffer.getvalue()


def other_content(instance: Instance) -> Instance:
    """The same SOP instance with another header: a comment more."""
    from pydicom import dcmread

    ds = dcmread(BytesIO(instance.content))
    ds.ImageComments = "sent again"
    return replace(instance, content=as_file(ds, syntax=ds.file_meta.TransferSyntaxUID))


def patient_module(series: Series) -> dict[str, Any]:
    """Patient and study values that every object of a person shares."""
    person = series.person
    module: dict[str, Any] = {
        "SpecificCharacterSet": CHARSETS[person.center],
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


def _shared_header(series: Series) -> Dataset:
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


def _ct_header(series: Series, habit: Habit, scan: Scan) -> Dataset:
    ds = _shared_header(series)
    ds.SOPClassUID, ds.Modality, ds.PatientPosition = CTImageStorage, "CT", "HFS"
    ds.update({"Manufacturer": habit.manufacturer, "ManufacturerModelName": habit.model, "SoftwareVersions": habit.software})
    ds.update({"ImageType": habit.image_type, "ConvolutionKernel": habit.kernel, "FilterType": habit.filter_type})
    ds.update({"StudyDescription": habit.protocol, "ProtocolName": habit.protocol, "BodyPartExamined": habit.body_part})
    ds.SeriesDescription = habit.description + (" CE PV" if series.is_contrast else "")
    ds.update({"KVP": str(scan.kvp_kv), "XRayTubeCurrent": 180, "Exposure": 110, "GantryDetectorTilt": "0"})
    ds.update({"SliceThickness": scan.grid.thickness, "PixelSpacing": [scan.grid.step[1], scan.grid.step[0]]})
    ds.update(
        {"ReconstructionDiameter": f"{scan.grid.shape[2] * scan.grid.step[0]:g}", "FrameOfReferenceUID": series.frame_uid}
    )
    ds.update({"PositionReferenceIndicator": "", "AcquisitionNumber": 1, "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]})
    if habit.manufacturer == "Philips":
        ds.SpacingBetweenSlices = scan.grid.step[2]
    _contrast(ds, series, habit)
    ds.update({"RescaleIntercept": str(habit.intercept), "RescaleSlope": "1", "RescaleType": "HU"})
    ds.update({"WindowCenter": "40", "WindowWidth": "400"})
    shape = scan.grid.shape[1:]
    _matrix(ds, shape, bits_stored=habit.bits_stored, is_signed=habit.is_signed, photometric="MONOCHROME2")
    if habit.padding is not None:
        ds.add_new(0x00280120, "SS", habit.padding)
    return ds


def _digital_xray(ds: Dataset, *, is_inverse: bool) -> None:
    ds.update({"ImageType": ["ORIGINAL", "PRIMARY", ""], "PresentationIntentType": "FOR PRESENTATION", "ImageLaterality": "U"})
    ds.update({"PixelIntensityRelationship": "LOG", "PixelIntensityRelationshipSign": 1 if is_inverse else -1})
    ds.update({"RescaleIntercept": "0", "RescaleSlope": "1", "RescaleType": "US", "LossyImageCompression": "00"})
    ds.update({"PresentationLUTShape": "INVERSE" if is_inverse else "IDENTITY", "DetectorType": "DIRECT", "PositionerType": ""})
    view = code_item(codes.SCT.PosteroAnterior)
    view.ViewModifierCodeSequence = []
    ds.update({"AcquisitionContextSequence": [], "ViewCodeSequence": [view]})
    ds.AnatomicRegionSequence = [code_item(codes.SCT.Chest)]


def _contrast(ds: Dataset, series: Series, habit: Habit) -> None:
    if series.is_contrast:
        ds.update({"ContrastBolusAgent": CONTRAST_AGENT, "ContrastBolusRoute": "IV", "ContrastBolusVolume": "90"})
    elif series.is_contrast_tag_empty:
        ds.ContrastBolusAgent = ""
    elif habit.contrast is not None:
        ds.ContrastBolusAgent = habit.contrast


def _matrix(ds: Dataset, shape: tuple[int, ...], *, bits_stored: int, is_signed: bool, photometric: str) -> None:
    ds.update({"SamplesPerPixel": 1, "PhotometricInterpretation": photometric, "Rows": shape[0], "Columns": shape[1]})
    ds.update(
        {"BitsAllocated": 16, "BitsStored": bits_stored, "HighBit": bits_stored - 1, "PixelRepresentation": int(is_signed)}
    )


def _pixels(stored: NDArray[Any], habit: Habit) -> bytes:
    """One frame as the transfer syntax wants it."""
    if habit.transfer_syntax != RLELossless:
        return stored.astype(stored.dtype.newbyteorder("<")).tobytes()
    frame = RLELosslessEncoder.encode(
        stored, rows=stored.shape[0], columns=stored.shape[1], samples_per_pixel=1, number_of_frames=1, bits_allocated=16,
        bits_stored=habit.bits_stored, pixel_representation=int(habit.is_signed), photometric_interpretation="MONOCHROME2",
        encoding_plugin="pylibjpeg",
    )  # fmt: skip
    return bytes(encapsulate([frame]))


def _put_pixels(ds: Dataset, pixels: bytes, *, syntax: str) -> None:
    is_encapsulated = syntax == RLELossless
    ds.add_new(0x7FE00010, "OB" if is_encapsulated else "OW", pixels)
    ds["PixelData"].is_undefined_length = is_encapsulated
