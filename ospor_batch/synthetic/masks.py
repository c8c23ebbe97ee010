"""Masks of L1-L4 beside the images: NIfTI as three common writers lay it out, and DICOM Segmentation."""

from __future__ import annotations

import gzip
from typing import Literal

import numpy as np
from nibabel.nifti1 import Nifti1Image
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.utils import pack_bits
from pydicom.sr.codedict import codes
from pydicom.uid import CTImageStorage, SegmentationStorage

from ospor_batch.synthetic.anatomy import FIRST_LABEL, Grid
from ospor_batch.synthetic.ct import Scan
from ospor_batch.synthetic.instances import Instance, Series, as_file, code_item, patient_module
from ospor_batch.synthetic.population import LEVELS
from ospor_batch.synthetic.vendor import EXPLICIT, HABITS

# How the voxels of a NIfTI lie: as the slices come (rows downwards), rows flipped as dcm2niix writes them, or with
# every axis in the direction RAS. The affine says the same place for each.
Layout = Literal["slices", "rows_flipped", "ras"]
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
SEG_SERIES = 900  # series number of the segmentation


def nifti(scan: Scan, *, layout: Layout) -> bytes:
    """Labels as a gzipped NIfTI whose affine (RAS, mm) puts every voxel where the images have it."""
    voxels = np.ascontiguousarray(scan.labels.transpose(2, 1, 0))  # x, y, z
    affine = LPS_TO_RAS @ _lps_affine(scan.grid)
    for axis in {"slices": (), "rows_flipped": (1,), "ras": (0, 1)}[layout]:
        affine = affine @ _flip(voxels.shape, axis)
        voxels = np.flip(voxels, axis)
    image = Nifti1Image(np.ascontiguousarray(voxels), affine)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    return gzip.compress(image.to_bytes(), compresslevel=6, mtime=0)


def segmentation(series: Series, scan: Scan) -> Instance:
    """Labels as a binary DICOM Segmentation of the given CT series, one segment a level, one frame a slice and level."""
    ds = _seg_header(series)
    frames = _seg_frames(scan)
    seg_uid = series.uid_of("instance", SEG_SERIES, 1)
    ds.SOPInstanceUID = seg_uid
    n_slices = scan.grid.shape[0]
    is_head_first = HABITS[series.person.vendor].is_head_first
    ds.ReferencedSeriesSequence = [_referenced_series(series, n_slices)]
    ds.SharedFunctionalGroupsSequence = [_shared_groups(scan.grid)]
    ds.PerFrameFunctionalGroupsSequence = [
        _frame_groups(series, scan.grid, k=k, segment=segment, number=n_slices - k if is_head_first else k + 1)
        for segment, k in frames
    ]
    ds.NumberOfFrames = len(frames)
    ds.Rows, ds.Columns = scan.grid.shape[1:]
    bits = np.stack([scan.labels[k] == FIRST_LABEL + segment - 1 for segment, k in frames]).astype(np.uint8)
    ds.add_new(0x7FE00010, "OW", pack_bits(bits.ravel(), pad=True))
    return Instance(1, seg_uid, as_file(ds, syntax=EXPLICIT))


def _lps_affine(grid: Grid) -> NDArray[np.float64]:
    affine = np.diag([*grid.step, 1.0])
    affine[:3, 3] = grid.origin
    return affine


def _flip(shape: tuple[int, ...], axis: int) -> NDArray[np.float64]:
    flip = np.eye(4)
    flip[axis, axis], flip[axis, 3] = -1.0, shape[axis] - 1
    return flip


def _seg_frames(scan: Scan) -> list[tuple[int, int]]:
    """(segment, slice) of every slice that a segment touches; segment 1 is L1."""
    return [
        (segment, int(k))
        for segment in range(1, len(LEVELS) + 1)
        for k in np.flatnonzero((scan.labels == FIRST_LABEL + segment - 1).any(axis=(1, 2)))
    ]


def _seg_header(series: Series) -> Dataset:
    ds = Dataset()
    ds.update(patient_module(series))
    day = f"{series.image_date:%Y%m%d}"
    ds.update({"SOPClassUID": SegmentationStorage, "Modality": "SEG", "SeriesNumber": SEG_SERIES, "InstanceNumber": 1})
    ds.SeriesInstanceUID = series.uid_of("series", SEG_SERIES)
    ds.update({"SeriesDate": day, "SeriesTime": "113000", "ContentDate": day, "ContentTime": "113000"})
    ds.update({"Manufacturer": "Generated", "ManufacturerModelName": "Vertebra contours", "DeviceSerialNumber": "GEN-SEG"})
    ds.update({"SoftwareVersions": "1", "SeriesDescription": "L1-L4 trabecular bodies", "ImageType": ["DERIVED", "PRIMARY"]})
    ds.update({"FrameOfReferenceUID": series.frame_uid, "PositionReferenceIndicator": ""})
    ds.update(
        {
            "ContentLabel": "L1_TO_L4",
            "ContentDescription": "Trabecular bodies L1 to L4",
            "ContentCreatorName": "Generated^Study",
        }
    )
    ds.update({"SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": 1, "BitsStored": 1})
    ds.update({"HighBit": 0, "PixelRepresentation": 0, "LossyImageCompression": "00", "SegmentationType": "BINARY"})
    ds.SegmentsOverlap = "NO"
    ds.SegmentSequence = [_segment(i + 1, level) for i, level in enumerate(LEVELS)]
    organization = Dataset()
    organization.DimensionOrganizationUID = series.uid_of("dimensions")
    ds.DimensionOrganizationSequence = [organization]
    ds.DimensionIndexSequence = [
        _dimension(series, 0x0062000B, 0x0062000A),  # ReferencedSegmentNumber in SegmentIdentificationSequence
        _dimension(series, 0x00200032, 0x00209113),  # ImagePositionPatient in PlanePositionSequence
    ]
    return ds


def _segment(number: int, level: str) -> Dataset:
    segment = Dataset()
    segment.update({"SegmentNumber": number, "SegmentLabel": level, "SegmentAlgorithmType": "MANUAL"})
    segment.SegmentedPropertyCategoryCodeSequence = [code_item(codes.SCT.AnatomicalStructure)]
    segment.SegmentedPropertyTypeCodeSequence = [code_item(getattr(codes.SCT, f"{level}Vertebra"))]
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
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    measures.update({"SliceThickness": grid.thickness, "SpacingBetweenSlices": grid.step[2]})
    measures.PixelSpacing = [grid.step[1], grid.step[0]]
    groups.PlaneOrientationSequence, groups.PixelMeasuresSequence = [orientation], [measures]
    return groups


def _frame_groups(series: Series, grid: Grid, *, k: int, segment: int, number: int) -> Dataset:
    content, place, identity, derivation, groups = Dataset(), Dataset(), Dataset(), Dataset(), Dataset()
    content.DimensionIndexValues = [segment, k + 1]
    place.ImagePositionPatient = [grid.origin[0], grid.origin[1], round(grid.origin[2] + k * grid.step[2], 4)]
    identity.ReferencedSegmentNumber = segment
    source = _reference(series, number)
    source.PurposeOfReferenceCodeSequence = [code_item(codes.DCM.SourceImageForImageProcessingOperation)]
    derivation.SourceImageSequence = [source]
    derivation.DerivationCodeSequence = [code_item(codes.DCM.Segmentation)]
    groups.FrameContentSequence, groups.PlanePositionSequence = [content], [place]
    groups.SegmentIdentificationSequence, groups.DerivationImageSequence = [identity], [derivation]
    return groups
