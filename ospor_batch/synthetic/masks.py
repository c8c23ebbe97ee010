"""Masks of what the images show: NIfTI as three common writers lay it out, and DICOM Segmentation."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
from nibabel.nifti1 import Nifti1Image
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.utils import pack_bits
from pydicom.sr.codedict import Code, codes
from pydicom.uid import CTImageStorage, SegmentationStorage

from ospor_batch.synthetic.anatomy import FIRST_LABEL, Grid
from ospor_batch.synthetic.headers import Series, body_of, code_item, meta_group, orientation_of, patient_module, spacing_of
from ospor_batch.synthetic.instances import Instance
from ospor_batch.synthetic.population import LEVELS
from ospor_batch.synthetic.template import pixel_element, text_element
from ospor_batch.synthetic.vendor import EXPLICIT

# How the voxels of a NIfTI lie: as the slices come (rows downwards), rows flipped as dcm2niix writes them, or with
# every axis in the direction RAS. The affine says the same place for each.
Layout = Literal["slices", "rows_flipped", "ras"]
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
SOURCE = codes.DCM.SourceImageForImageProcessingOperation
SEG_SERIES = 900  # series number of the segmentation beside the images
Labels = NDArray[np.uint8]


@dataclass(frozen=True)
class Segment:
    """One structure: its value in the labels, its name and what it is."""

    value: int
    name: str
    code: Code


def vertebra_code(level: str) -> Code:
    """What a vertebra is called; S1 counts as sacrum."""
    found: Code = codes.SCT.Sacrum if level == "S1" else getattr(codes.SCT, f"{level}Vertebra")
    return found


CORES = tuple(Segment(FIRST_LABEL + i, level, vertebra_code(level)) for i, level in enumerate(LEVELS))


def nifti(labels: Labels, grid: Grid, *, layout: Layout) -> bytes:
    """Labels as a gzipped NIfTI whose affine (RAS, mm) puts every voxel where the images have it."""
    voxels = np.ascontiguousarray(labels.transpose(2, 1, 0))  # x, y, z
    affine = LPS_TO_RAS @ grid.affine
    for axis in {"slices": (), "rows_flipped": (1,), "ras": (0, 1)}[layout]:
        affine = affine @ _flip(voxels.shape, axis)
        voxels = np.flip(voxels, axis)
    image = Nifti1Image(np.ascontiguousarray(voxels), affine)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=0 if grid.tilt_deg else 1)  # a quaternion cannot say that the stack is sheared
    return gzip.compress(image.to_bytes(), compresslevel=6, mtime=0)


def segmentation(
    series: Series, labels: Labels, *, grid: Grid, segments: Sequence[Segment], number: int = SEG_SERIES,
    title: str = "L1-L4 trabecular bodies",
) -> Instance:  # fmt: skip
    """Labels as a binary DICOM Segmentation of the given CT series: a segment a structure, a frame a slice and structure."""
    ds = _seg_header(series, number=number, title=title)
    present = [segment for segment in segments if (labels == segment.value).any()]
    frames = _seg_frames(labels, present)
    seg_uid = series.uid_of("instance", number, 1)
    ds.SOPInstanceUID = seg_uid
    ds.SegmentSequence = [_segment(place, segment) for place, segment in enumerate(present, start=1)]
    ds.ReferencedSeriesSequence = [_referenced_series(series, grid.shape[0])]
    ds.SharedFunctionalGroupsSequence = [_shared_groups(grid)]
    ds.update({"NumberOfFrames": len(frames), "Rows": grid.shape[1], "Columns": grid.shape[2]})
    bits = np.stack([labels[k] == segment.value for _, segment, k in frames]).astype(np.uint8)
    groups = _Frames(series, grid).sequence((place, k) for place, _, k in frames)
    pixels = pixel_element(pack_bits(bits.ravel(), pad=True), is_implicit=False, is_encapsulated=False)
    head = meta_group(SegmentationStorage, seg_uid, syntax=EXPLICIT) + body_of(ds, syntax=EXPLICIT)
    return Instance(1, seg_uid, head + groups + pixels)  # nothing else of the object has a tag this high


def _flip(shape: tuple[int, ...], axis: int) -> NDArray[np.float64]:
    flip = np.eye(4)
    flip[axis, axis], flip[axis, 3] = -1.0, shape[axis] - 1
    return flip


def _seg_frames(labels: Labels, segments: Sequence[Segment]) -> list[tuple[int, Segment, int]]:
    """(number, segment, slice) of every slice that a segment touches; numbers begin at 1."""
    return [
        (number, segment, int(k))
        for number, segment in enumerate(segments, start=1)
        for k in np.flatnonzero((labels == segment.value).any(axis=(1, 2)))
    ]


def _seg_header(series: Series, *, number: int, title: str) -> Dataset:
    ds = Dataset()
    ds.update(patient_module(series))
    day = f"{series.image_date:%Y%m%d}"
    ds.update({"SOPClassUID": SegmentationStorage, "Modality": "SEG", "SeriesNumber": number, "InstanceNumber": 1})
    ds.SeriesInstanceUID = series.uid_of("series", number)
    ds.update({"SeriesDate": day, "SeriesTime": "113000", "ContentDate": day, "ContentTime": "113000"})
    ds.update({"Manufacturer": "Generated", "ManufacturerModelName": "Vertebra contours", "DeviceSerialNumber": "GEN-SEG"})
    ds.update({"SoftwareVersions": "1", "SeriesDescription": title, "ImageType": ["DERIVED", "PRIMARY"]})
    ds.update({"FrameOfReferenceUID": series.frame_uid, "PositionReferenceIndicator": ""})
    ds.update({"ContentLabel": "CONTOURS", "ContentDescription": title, "ContentCreatorName": "Generated^Study"})
    ds.update({"SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": 1, "BitsStored": 1})
    ds.update({"HighBit": 0, "PixelRepresentation": 0, "LossyImageCompression": "00", "SegmentationType": "BINARY"})
    ds.SegmentsOverlap = "NO"
    organization = Dataset()
    organization.DimensionOrganizationUID = series.uid_of("dimensions")
    ds.DimensionOrganizationSequence = [organization]
    ds.DimensionIndexSequence = [
        _dimension(series, 0x0062000B, 0x0062000A),  # ReferencedSegmentNumber in SegmentIdentificationSequence
        _dimension(series, 0x00200032, 0x00209113),  # ImagePositionPatient in PlanePositionSequence
    ]
    return ds


def _segment(number: int, of: Segment) -> Dataset:
    segment = Dataset()
    segment.update({"SegmentNumber": number, "SegmentLabel": of.name, "SegmentAlgorithmType": "MANUAL"})
    segment.SegmentedPropertyCategoryCodeSequence = [code_item(codes.SCT.AnatomicalStructure)]
    segment.SegmentedPropertyTypeCodeSequence = [code_item(of.code)]
    return segment


def _dimension(series: Series, pointer: int, group: int) -> Dataset:
    item = Dataset()
    item.DimensionOrganizationUID = series.uid_of("dimensions")
    item.DimensionIndexPointer, item.FunctionalGroupPointer = pointer, group
    return item


def _referenced_series(series: Series, n_slices: int) -> Dataset:
    referenced = Dataset()
    referenced.SeriesInstanceUID = series.series_uid
    referenced.ReferencedInstanceSequence = [_reference(series, number) for number in range(1, n_slices + 1)]
    return referenced


def _reference(series: Series, number: int) -> Dataset:
    item = Dataset()
    item.update({"ReferencedSOPClassUID": CTImageStorage, "ReferencedSOPInstanceUID": series.sop_uid(number)})
    return item


def _shared_groups(grid: Grid) -> Dataset:
    orientation, measures, groups = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = orientation_of(grid)
    measures.update({"SliceThickness": grid.thickness, "SpacingBetweenSlices": grid.step[2]})
    measures.PixelSpacing = spacing_of(grid)
    groups.PlaneOrientationSequence, groups.PixelMeasuresSequence = [orientation], [measures]
    return groups


class _Frames:
    """Encoded functional groups of frames; what frames of one slice or one structure share is encoded once.

    A person has a hundred frames and more: writing each through pydicom takes ten times as long as imaging the person.
    """

    def __init__(self, series: Series, grid: Grid) -> None:
        self.series, self.grid = series, grid
        self.places: dict[int, tuple[bytes, bytes]] = {}
        self.identities: dict[int, bytes] = {}

    def sequence(self, frames: Iterable[tuple[int, int]]) -> bytes:
        """The element PerFrameFunctionalGroupsSequence for (segment, slice) of each frame, explicit little endian."""
        items = b"".join(
            struct.pack("<HHL", 0xFFFE, 0xE000, len(body)) + body for body in (self._item(*frame) for frame in frames)
        )
        return struct.pack("<HH2sHL", 0x5200, 0x9230, b"SQ", 0, len(items)) + items

    def _item(self, segment: int, k: int) -> bytes:
        """One frame, elements by tag; slice 0 lies next to the feet."""
        if k not in self.places:
            self.places[k] = self._place(k)
        if segment not in self.identities:
            self.identities[segment] = _encoded("SegmentIdentificationSequence", ReferencedSegmentNumber=segment)
        derivation, place = self.places[k]
        index = struct.pack("<HH2sHLL", 0x0020, 0x9157, b"UL", 8, segment, k + 1)  # DimensionIndexValues
        item = struct.pack("<HHL", 0xFFFE, 0xE000, len(index)) + index
        content = struct.pack("<HH2sHL", 0x0020, 0x9111, b"SQ", 0, len(item)) + item  # FrameContentSequence
        return derivation + content + place + self.identities[segment]

    def _place(self, k: int) -> tuple[bytes, bytes]:
        grid = self.grid
        source = self.series.sop_uid(grid.shape[0] - k if self.series.habit.is_head_first else k + 1)
        reference = _text(0x00081150, "UI", CTImageStorage) + _text(0x00081155, "UI", source)
        image = _sequence(0x00082112, reference + _coded("PurposeOfReferenceCodeSequence", SOURCE))
        derivation = _sequence(0x00089124, image + _coded("DerivationCodeSequence", codes.DCM.Segmentation))
        at = [grid.origin[0], grid.origin[1], round(grid.origin[2] + k * grid.step[2], 4)]
        return derivation, _sequence(0x00209113, _text(0x00200032, "DS", "\\".join(map(str, at))))


def _text(tag: int, vr: str, value: str) -> bytes:
    return text_element(tag, vr, value, is_implicit=False)


def _sequence(tag: int, item: bytes) -> bytes:
    """A sequence of one item, explicit little endian, lengths told."""
    body = struct.pack("<HHL", 0xFFFE, 0xE000, len(item)) + item
    return struct.pack("<HH2sHL", tag >> 16, tag & 0xFFFF, b"SQ", 0, len(body)) + body


@cache
def _coded(keyword: str, code: Code) -> bytes:
    """A code sequence, which is the same in every file."""
    return _encoded(keyword, **{element.keyword: element.value for element in code_item(code)})


def _encoded(keyword: str, **values: Any) -> bytes:
    """A sequence of one item as it stands in an explicit little endian file."""
    item, holder = Dataset(), Dataset()
    item.update(values)
    setattr(holder, keyword, [item])
    return body_of(holder, syntax=EXPLICIT)
