"""DICOM files of a generated person: CT slices, scouts and radiographs, as bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import Code, codes
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
)

from ospor_batch.synthetic.ct import Scan
from ospor_batch.synthetic.headers import (
    Imaged,
    Series,
    as_file,
    body_of,
    code_item,
    ct_header,
    decimal,
    deflated,
    matrix,
    meta_group,
    shared_header,
)
from ospor_batch.synthetic.pixel_codecs import encode, put_pixels
from ospor_batch.synthetic.radiograph import CURVES, FIELD_MM, SOURCE_MM, View, display_table
from ospor_batch.synthetic.template import Template, pixel_element, text_element
from ospor_batch.synthetic.vendor import ENCAPSULATED, EXPLICIT, IMPLICIT, RADIOGRAPH_HABITS, Habit


@dataclass(frozen=True)
class Placed:
    """Where one image of a series lies (ImagePositionPatient; SliceLocation where it has one), and its encoded pixels."""

    place: list[str]
    location: str | None
    pixels: bytes


@dataclass(frozen=True)
class Told:
    """What a header says of a view: tag, code, description, and the side that the rows of pixels run to."""

    position: str
    code: Code
    description: str
    rows: str


VIEWS: dict[View, Told] = {
    "PA": Told("PA", codes.SCT.PosteroAnterior, "Chest PA", "L"),
    "AP": Told("AP", codes.SCT.AnteroPosterior, "Chest AP", "L"),
    "LATERAL": Told("LL", codes.SCT.LeftLateral, "Chest lateral", "P"),  # the left side lies at the detector
}


@dataclass(frozen=True)
class Instance:
    """One file: its number in the series, its SOP Instance UID and its content."""

    number: int
    sop_uid: str
    content: bytes


def ct_slices(series: Series, scan: Scan) -> Iterator[Instance]:
    """Write a CT volume slice by slice, in the order and with the rescale of its scanner; by instance number."""
    stored = stored_values(scan, series.habit)
    syntax, bits = series.habit.transfer_syntax, series.habit.bits_stored
    frames = (encode(stored[k], syntax=syntax, bits_stored=bits) for k in slice_order(series.habit, len(stored)))
    yield from slices_of(series, scan, ds=ct_header(series, scan), frames=frames)


def slices_of(series: Series, scan: Imaged, *, ds: Dataset, frames: Iterable[bytes]) -> Iterator[Instance]:
    """Write encoded frames under one header; each gets its UID, number and place."""
    x, y, low = scan.grid.origin
    order = slice_order(series.habit, scan.grid.shape[0])
    heights = (f"{round(low + k * scan.grid.step[2], 4)}" for k in order)
    members = (Placed([f"{x}", f"{y}", z], z, pixels) for z, pixels in zip(heights, frames, strict=False))
    yield from templated(series, ds, members)


def templated(series: Series, ds: Dataset, members: Iterable[Placed]) -> Iterator[Instance]:
    """Write images that differ in number, place and pixels alone; numbers begin at 1."""
    syntax = series.habit.transfer_syntax
    start, first = series.sop_uids
    template: Template | None = None
    for number, member in enumerate(members, start=1):
        sop_uid = f"{start}{first + number}"
        varying = _varying(sop_uid, number, member, syntax=syntax)
        if template is None:
            ds.update({"SOPInstanceUID": sop_uid, "InstanceNumber": f"{number}", "ImagePositionPatient": member.place})
            if member.location is not None:
                ds.SliceLocation = member.location
            put_pixels(ds, member.pixels, syntax=syntax)
            template = Template.of(body_of(ds, syntax=syntax), varying)
        body = deflated(template.fill(varying), syntax=syntax)
        yield Instance(number, sop_uid, meta_group(CTImageStorage, sop_uid, syntax=syntax) + body)


def slice_order(habit: Habit, n_slices: int) -> range:
    """Slices (0 next to the feet) in the order of their instance numbers."""
    return range(n_slices - 1, -1, -1) if habit.is_head_first else range(n_slices)


def _varying(sop_uid: str, number: int, member: Placed, *, syntax: str) -> list[bytes]:
    """The elements that differ between slices, in the order of the data set."""
    is_implicit = syntax == IMPLICIT
    told = [(0x00080018, "UI", sop_uid), (0x00200013, "IS", f"{number}"), (0x00200032, "DS", "\\".join(member.place))]
    if member.location is not None:
        told.append((0x00201041, "DS", member.location))
    return [
        *(text_element(tag, vr, value, is_implicit=is_implicit) for tag, vr, value in told),
        pixel_element(member.pixels, is_implicit=is_implicit, is_encapsulated=syntax in ENCAPSULATED),
    ]


def stored_values(scan: Scan, habit: Habit) -> NDArray[Any]:
    """CT numbers as the scanner stores them; outside the round field GE and Siemens write their padding."""
    stored = scan.hu.astype(np.int32) - habit.intercept
    low, high = (-(1 << habit.bits_stored - 1), (1 << habit.bits_stored - 1) - 1)
    if not habit.is_signed:
        low, high = 0, (1 << habit.bits_stored) - 1
    stored = np.clip(stored, low, high)
    if habit.padding is not None:
        _, n_y, n_x = scan.grid.shape
        y, x = np.mgrid[:n_y, :n_x]
        outside = (x - (n_x - 1) / 2) ** 2 + (y - (n_y - 1) / 2) ** 2 > (n_x / 2) ** 2
        stored[:, outside] = habit.padding
    return stored.astype(np.int16 if habit.is_signed else np.uint16)


def scout_file(series: Series, scan: Scan, *, pixels: NDArray[np.int16]) -> Instance:
    """Write a frontal localizer."""
    habit, ds = series.habit, ct_header(series, scan)
    x, y, _ = scan.grid.origin
    _, _, z = scan.grid.affine[:3] @ (0, scan.grid.shape[1] // 2, 0, 1)
    high = float(z) + (scan.grid.shape[0] - 1) * scan.grid.step[2]
    ds.update({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "SeriesDescription": "SCOUT", "InstanceNumber": 1})
    ds.RescaleType = "US"  # a localizer's values are no CT numbers (PS3.3 C.8.2.1)
    ds.update({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1], "ImagePositionPatient": [x, round(y, 4), round(high, 4)]})
    ds.GantryDetectorTilt = "0"
    ds.PixelSpacing = [decimal((high - float(z)) / (pixels.shape[0] - 1)), decimal(scan.grid.step[0])]
    for keyword in ("ConvolutionKernel", "SpiralPitchFactor", "TableFeedPerRotation", "PixelPaddingValue"):
        if keyword in ds:
            del ds[keyword]
    return derived_image(ds, series, hu=pixels, number=1, habit=habit)


def derived_image(ds: Dataset, series: Series, *, hu: NDArray[Any], number: int, habit: Habit) -> Instance:
    """Put CT numbers into a header as the scanner stores them, and write the file."""
    ds.SOPInstanceUID, ds.InstanceNumber = series.sop_uid(number), number
    ds.Rows, ds.Columns = hu.shape
    put_pixels(ds, derived_pixels(hu, habit), syntax=habit.transfer_syntax)
    return Instance(number, ds.SOPInstanceUID, as_file(ds, syntax=habit.transfer_syntax))


def derived_pixels(hu: NDArray[Any], habit: Habit) -> bytes:
    """CT numbers encoded as the scanner stores them."""
    low = -(1 << habit.bits_stored - 1) if habit.is_signed else 0
    high = (1 << habit.bits_stored - int(habit.is_signed)) - 1
    stored = np.clip(np.rint(hu).astype(np.int32) - habit.intercept, low, high)
    frame = stored.astype(np.int16 if habit.is_signed else np.uint16)
    return encode(frame, syntax=habit.transfer_syntax, bits_stored=habit.bits_stored)


def radiograph_file(series: Series, pixels: NDArray[np.uint16], *, view: View = "PA") -> Instance:
    """Write a chest radiograph; pixels are bright in bone.

    MONOCHROME1 units store them inverted; units with a VOI LUT store what their table makes these grays of.
    """
    habit = RADIOGRAPH_HABITS[series.person.manner]
    ds = radiograph_header(series, pixels.shape, view=view)
    stored = pixels
    if habit.has_lut:
        stored = np.searchsorted(display_table(CURVES[series.person.manner]), pixels).astype(np.uint16)
    if habit.photometric == "MONOCHROME1":
        stored = (4095 - stored).astype(np.uint16)
    put_pixels(ds, encode(stored, syntax=EXPLICIT, bits_stored=12), syntax=EXPLICIT)
    if series.person.fault == "photometric_wrong":
        ds.PhotometricInterpretation = "MONOCHROME1" if habit.photometric == "MONOCHROME2" else "MONOCHROME2"
    return Instance(1, ds.SOPInstanceUID, as_file(ds, syntax=habit.transfer_syntax))


def radiograph_header(series: Series, shape: tuple[int, ...], *, view: View = "PA") -> Dataset:
    """Everything of a radiograph but its pixels."""
    habit, told = RADIOGRAPH_HABITS[series.person.manner], VIEWS[view]
    is_cr, ds = habit.modality == "CR", shared_header(series)
    ds.SOPClassUID = ComputedRadiographyImageStorage if is_cr else DigitalXRayImageStorageForPresentation
    ds.SOPInstanceUID, ds.InstanceNumber, ds.Modality = series.sop_uid(1), 1, habit.modality
    ds.Manufacturer, ds.ManufacturerModelName = habit.manufacturer, habit.model
    ds.update({"SeriesDescription": told.description, "StudyDescription": "Chest X-ray", "BodyPartExamined": "CHEST"})
    ds.update({"ViewPosition": told.position, "PatientOrientation": [told.rows, "F"], "KVP": "120", "BurnedInAnnotation": "NO"})
    if not is_cr:
        _digital_xray(ds, is_inverse=habit.photometric == "MONOCHROME1", told=told)
    spacing = round(FIELD_MM / shape[0], 5)
    ds.ImagerPixelSpacing = [spacing, spacing]
    ds.DistanceSourceToDetector = f"{SOURCE_MM[view]:g}"
    if habit.has_lut:
        ds.VOILUTSequence = [_voi_table(display_table(CURVES[series.person.manner]))]
    else:
        ds.update({"WindowCenter": "2048", "WindowWidth": "4096"})
    matrix(ds, shape, bits_stored=12, photometric=habit.photometric)
    return ds


def _voi_table(grays: NDArray[np.uint16]) -> Dataset:
    item = Dataset()
    item.add_new(0x00283002, "US", [len(grays), 0, 12])
    item.LUTExplanation = "NORMAL"
    item.add_new(0x00283006, "OW", grays.astype("<u2").tobytes())
    return item


def turned(instance: Instance) -> Instance:
    """The same slice with the orientation of a coronal plane, as scanners that send reformats under one series write it."""
    return _rewritten(instance, ImageOrientationPatient=[1, 0, 0, 0, 0, -1])


def other_content(instance: Instance) -> Instance:
    """The same SOP instance with another header: a comment more."""
    return _rewritten(instance, ImageComments="sent again")


def _rewritten(instance: Instance, **values: Any) -> Instance:
    from pydicom import dcmread

    ds = dcmread(BytesIO(instance.content))
    ds.update(values)
    return replace(instance, content=as_file(ds, syntax=ds.file_meta.TransferSyntaxUID))


def _digital_xray(ds: Dataset, *, is_inverse: bool, told: Told) -> None:
    ds.update({"ImageType": ["ORIGINAL", "PRIMARY", ""], "PresentationIntentType": "FOR PRESENTATION", "ImageLaterality": "U"})
    ds.update({"PixelIntensityRelationship": "LOG", "PixelIntensityRelationshipSign": 1 if is_inverse else -1})
    ds.update({"RescaleIntercept": "0", "RescaleSlope": "1", "RescaleType": "US", "LossyImageCompression": "00"})
    ds.update({"PresentationLUTShape": "INVERSE" if is_inverse else "IDENTITY", "DetectorType": "DIRECT", "PositionerType": ""})
    view = code_item(told.code)
    view.ViewModifierCodeSequence = []
    ds.update({"AcquisitionContextSequence": [], "ViewCodeSequence": [view]})
    ds.AnatomicRegionSequence = [code_item(codes.SCT.Chest)]
