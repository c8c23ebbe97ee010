"""DICOM files whose content is known, written by the test that reads them."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

ROOT = "1.2.826.0.1.3680043.10.77"
CT = "1.2.840.10008.5.1.4.1.1.2"
CR = "1.2.840.10008.5.1.4.1.1.1"
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
DICOMDIR = "1.2.840.10008.1.3.10"
SIDE = 8


def uid(*numbers: int) -> str:
    return ".".join([ROOT, *map(str, numbers)])


def ct(*, series: int = 1, slice_: int = 0, **changes: Any) -> Dataset:
    """One axial CT slice of 8 x 8 pixels; a change to None removes the element."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = CT, uid(series, slice_ + 1, 9)
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = uid(100), uid(series), uid(100, 1)
    ds.Modality, ds.Manufacturer, ds.ConvolutionKernel, ds.KVP = "CT", "SIEMENS", "B30f", 120
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.PatientID, ds.PatientSex, ds.PatientBirthDate = "P-1", "F", "19600615"
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = "20220615"
    ds.BodyPartExamined, ds.SeriesDescription = "ABDOMEN", "Abdomen 5.0"
    ds.SeriesNumber, ds.InstanceNumber, ds.SliceThickness = 2, slice_ + 1, 5
    ds.ImagePositionPatient, ds.ImageOrientationPatient = [0, 0, 5.0 * slice_], [1, 0, 0, 0, 1, 0]
    ds.Rows = ds.Columns = SIDE
    ds.PixelSpacing, ds.SamplesPerPixel, ds.PhotometricInterpretation = [0.8, 0.8], 1, "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, 0
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = -1024, 1, "HU"
    ds.PixelData = bytes(2 * SIDE * SIDE)
    return change(ds, changes)


def cr(**changes: Any) -> Dataset:
    """One frontal chest radiograph."""
    geometry = dict.fromkeys(("ImagePositionPatient", "ImageOrientationPatient", "RescaleIntercept", "RescaleSlope"))
    told = {
        "SOPClassUID": CR,
        "Modality": "CR",
        "BodyPartExamined": "CHEST",
        "ViewPosition": "PA",
        "SeriesDescription": "Thorax",
    }
    return ct(**geometry | told | changes)


def change(ds: Dataset, changes: Mapping[str, Any]) -> Dataset:
    with pydicom.config.disable_value_validation():  # what scanners write is not always valid
        for keyword, value in changes.items():
            if keyword in ds:
                delattr(ds, keyword)
            if value is not None:
                setattr(ds, keyword, value)
    return ds


def encoded(ds: Dataset, *, syntax: UID = ExplicitVRLittleEndian) -> bytes:
    """The bytes of a whole file."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ds.get("SOPClassUID", CT)
    meta.MediaStorageSOPInstanceUID = ds.get("SOPInstanceUID", uid(9))
    meta.TransferSyntaxUID = syntax
    ds.file_meta = meta
    buffer = io.BytesIO()
    if "PixelData" in ds:
        ds["PixelData"].VR = "OW"
    with warnings.catch_warnings(), pydicom.config.disable_value_validation():
        warnings.simplefilter("ignore")
        pydicom.dcmwrite(buffer, ds, enforce_file_format=True)
    return buffer.getvalue()


def bare(ds: Dataset, *, is_implicit: bool = True) -> bytes:
    """The bytes of a data set without preamble and meta group."""
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, ds, implicit_vr=is_implicit, little_endian=True, enforce_file_format=False)
    return buffer.getvalue()


def write(ds: Dataset, path: Path, *, syntax: UID = ExplicitVRLittleEndian) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(ds, syntax=syntax))
    return path


def write_series(folder: Path, *, n: int = 5, series: int = 1, **changes: Any) -> list[Path]:
    """A CT series, one file a slice; a change that is a function is called with the slice number."""
    paths = []
    for number in range(n):
        here = {keyword: value(number) if callable(value) else value for keyword, value in changes.items()}
        paths.append(write(ct(series=series, slice_=number, **here), folder / f"s{series}-{number:03d}.dcm"))
    return paths
