"""Write arrays whose content is known as DICOM radiographs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForProcessing,
    ExplicitVRLittleEndian,
    generate_uid,
)


def chest(size: int = 96) -> np.ndarray:
    """Density of a toy chest, 0 to 1: dark lungs beside a bright spine, dark air above the shoulders."""
    y, x = np.mgrid[0:size, 0:size] / size - 0.5
    image = 0.6 + 0.3 * y
    for side in (-0.22, 0.22):
        image[((x - side) / 0.14) ** 2 + ((y + 0.05) / 0.3) ** 2 < 1] = 0.25
    image[np.abs(x) < 0.05] = 0.9
    image[(y < -0.35) & (np.abs(x) > 0.2)] = 0.02
    return image + 0.01 * np.random.default_rng(3).standard_normal(image.shape)


def write_film(path: Path, stored: np.ndarray, *, bits: int = 12, photometric: str = "MONOCHROME2", **changes: Any) -> Path:
    """Write stored values as one CR file; a keyword that is None takes its element away."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    is_raw = changes.pop("is_for_processing", False)
    dataset.SOPClassUID = DigitalXRayImageStorageForProcessing if is_raw else ComputedRadiographyImageStorage
    dataset.SOPInstanceUID, dataset.Modality = generate_uid(), "CR"
    dataset.PatientID, dataset.PatientName = "secret-number", "Secret^Name"
    frames = stored.reshape(-1, *stored.shape[-2:])
    dataset.Rows, dataset.Columns = frames.shape[1:]
    if len(frames) > 1:
        dataset.NumberOfFrames = len(frames)
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, photometric
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, bits, bits - 1
    dataset.PixelRepresentation = int(stored.min() < 0)
    dataset.ImagerPixelSpacing = [0.2, 0.3]
    dataset.PixelData = stored.astype(np.int16 if stored.min() < 0 else np.uint16).tobytes()
    for name, value in changes.items():
        if value is None:
            del dataset[name]
        else:
            setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)
    return path
