"""Write arrays whose content is known as DICOM series, DICOM SEG and NIfTI masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, SegmentationStorage, generate_uid

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def affine(
    *,
    spacing: Sequence[float] = (3.0, 1.0, 2.0),
    origin: Sequence[float] = (-20.0, 5.0, 100.0),
    turn: float = 0.0,
    shear: float = 0.0,
) -> np.ndarray:
    """Index (slice, row, column) to LPS: axial, turned about x and z by so many degrees, sheared as under gantry tilt."""
    a, c = np.radians(turn), np.radians(turn / 2)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    axes = about_x @ about_z @ np.array([[0.0, 0, 1], [0, 1, 0], [1, 0, 0]])  # columns: slice, row, column
    found = np.eye(4)
    found[:3, :3] = axes * np.array(spacing)
    found[:3, 0] += found[:3, 1] * shear
    found[:3, 3] = origin
    return found


def write_series(
    folder: Path,
    hu: np.ndarray,
    to_lps: np.ndarray,
    *,
    slope: float = 1.0,
    intercept: float = -1024.0,
    is_signed: bool = False,
    order: Sequence[int] | None = None,
    changes: Mapping[str, Any] | None = None,
    compress: str | None = None,
) -> list[Path]:
    """Write one file a slice and return the paths in the order asked for (default: ascending)."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for place in range(len(hu)):
        dataset = _image(hu[place], slope=slope, intercept=intercept, is_signed=is_signed)
        _place(dataset, to_lps)
        dataset.ImagePositionPatient = _numbers(to_lps[:3, 3] + place * to_lps[:3, 0])
        for name, value in (changes or {}).items():
            setattr(dataset, name, value[place] if isinstance(value, tuple) else value)
        if compress is not None:
            dataset.compress(compress, generate_instance_uid=False)
        paths.append(folder / f"{place:04d}.dcm")
        dataset.save_as(paths[-1], enforce_file_format=True)
    return [paths[place] for place in (order or range(len(hu)))]


def write_enhanced(path: Path, hu: np.ndarray, to_lps: np.ndarray, *, order: Sequence[int]) -> Path:
    """Write an enhanced multi-frame CT whose frames stand in the order given."""
    dataset = _image(hu[0], slope=1.0, intercept=-1024.0, is_signed=False, sop_class=EnhancedCTImageStorage)
    del dataset.RescaleSlope, dataset.RescaleIntercept
    dataset.NumberOfFrames = len(hu)
    dataset.PixelData = np.stack([hu[place] + 1024 for place in order]).astype(np.uint16).tobytes()
    shared, rescale = Dataset(), Dataset()
    rescale.RescaleSlope, rescale.RescaleIntercept = 1, -1024
    shared.PixelValueTransformationSequence = [rescale]
    _shared_geometry(shared, to_lps)
    dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.PerFrameFunctionalGroupsSequence = [_frame_at(to_lps, place) for place in order]
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_segmentation(
    path: Path,
    labels: np.ndarray,
    to_lps: np.ndarray,
    *,
    names: Mapping[int, str],
    kind: str = "BINARY",
    is_reversed: bool = False,
    meanings: Mapping[int, str] | None = None,
) -> Path:
    """Write labels as a DICOM SEG; BINARY leaves out empty frames, as most writers do."""
    dataset = _image(labels[0], slope=1.0, intercept=0.0, is_signed=False, sop_class=SegmentationStorage)
    del dataset.RescaleSlope, dataset.RescaleIntercept
    dataset.Modality, dataset.SegmentationType = "SEG", kind
    dataset.SegmentSequence = [_segment(n, name, (meanings or {}).get(n, name)) for n, name in names.items()]
    shared = Dataset()
    _shared_geometry(shared, to_lps)
    dataset.SharedFunctionalGroupsSequence = [shared]
    if kind == "LABELMAP":
        wanted = [(None, place) for place in range(len(labels))]
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
        pixels = [labels[place].astype(np.uint8) for _, place in wanted]
    else:
        wanted = [(n, place) for n in names for place in range(len(labels)) if (labels[place] == n).any()]
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 1, 1, 0
        pixels = [labels[place] == n for n, place in wanted]
    if is_reversed:
        wanted, pixels = wanted[::-1], pixels[::-1]
    stacked = np.stack(pixels)
    packed = np.packbits(stacked.ravel(), bitorder="little") if kind == "BINARY" else stacked
    dataset.PixelData = packed.tobytes() + b"\0" * (packed.nbytes % 2)
    dataset.NumberOfFrames = len(wanted)
    dataset.PerFrameFunctionalGroupsSequence = [_frame_at(to_lps, place, segment=n) for n, place in wanted]
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_nifti(path: Path, labels: np.ndarray, to_lps: np.ndarray, *, axes: str = "SPR") -> Path:
    """Write labels as NIfTI with the array's axes running as asked (SPR is how an axial DICOM stack lies)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(labels, LPS_TO_RAS @ to_lps)
    turn = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(image.affine), nibabel.orientations.axcodes2ornt(tuple(axes))
    )
    nibabel.save(image.as_reoriented(turn), path)
    return path


def _image(hu: np.ndarray, *, slope: float, intercept: float, is_signed: bool, sop_class: str = CTImageStorage) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, generate_uid()
    dataset.Modality, dataset.PatientID, dataset.PatientName = "CT", "secret-number", "Secret^Name"
    dataset.Rows, dataset.Columns = hu.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = int(is_signed)
    dataset.RescaleSlope, dataset.RescaleIntercept = slope, intercept
    stored = np.rint((hu - intercept) / slope).astype(np.int16 if is_signed else np.uint16)
    dataset.PixelData = stored.tobytes()
    return dataset


def _place(dataset: Dataset, to_lps: np.ndarray) -> None:
    rows, columns = to_lps[:3, 1], to_lps[:3, 2]
    row_spacing, column_spacing = np.linalg.norm(rows), np.linalg.norm(columns)
    dataset.PixelSpacing = _numbers([row_spacing, column_spacing])
    dataset.SliceThickness = _numbers([np.linalg.norm(to_lps[:3, 0])])[0]
    dataset.ImageOrientationPatient = _numbers([*(columns / column_spacing), *(rows / row_spacing)])


def _shared_geometry(shared: Dataset, to_lps: np.ndarray) -> None:
    both = Dataset()
    _place(both, to_lps)
    measures, turn = Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = both.PixelSpacing, both.SliceThickness
    turn.ImageOrientationPatient = both.ImageOrientationPatient
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [turn]


def _frame_at(to_lps: np.ndarray, place: int, *, segment: int | None = None) -> Dataset:
    group, position = Dataset(), Dataset()
    position.ImagePositionPatient = _numbers(to_lps[:3, 3] + place * to_lps[:3, 0])
    group.PlanePositionSequence = [position]
    if segment is not None:
        named = Dataset()
        named.ReferencedSegmentNumber = segment
        group.SegmentIdentificationSequence = [named]
    return group


def _segment(number: int, label: str, meaning: str) -> Dataset:
    segment, code = Dataset(), Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "0", "99TEST", meaning
    segment.SegmentNumber, segment.SegmentLabel = number, label
    segment.SegmentedPropertyTypeCodeSequence = [code]
    return segment


def _numbers(values: Sequence[float] | np.ndarray) -> list[str]:
    return [f"{float(value):.9g}"[:16] for value in values]
