"""One tiny generated study for all tests of this folder."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from ospor_batch.pseudonym import normal_patient_id
from ospor_batch.synthetic.archive import write_study


@dataclass(frozen=True)
class Found:
    """A DICOM file as a plain reader finds it."""

    path: Path
    header: Dataset


@dataclass(frozen=True)
class Generated:
    """A generated study with everything in it read by tools that know nothing of the generator."""

    folder: Path
    truth: pl.DataFrame
    files: dict[tuple[str, str], list[Found]]  # (center, normalised patient number) -> its DICOM files
    unreadable: list[Path]

    def person(self, fault: str) -> dict[str, object]:
        rows = self.truth.filter(pl.col("fault") == fault)
        assert rows.height == 1, f"{fault} is carried by {rows.height} persons"
        return rows.row(0, named=True)

    def files_of(self, fault: str, *, modality: str = "CT") -> list[Found]:
        person = self.person(fault)
        found = self.files[str(person["center"]), str(person["patient_id"])]
        return [file for file in found if file.header.Modality == modality]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Generated:
    folder = tmp_path_factory.mktemp("generated") / "tiny"
    write_study(folder, preset="tiny")
    files: dict[tuple[str, str], list[Found]] = defaultdict(list)
    unreadable = []
    for path in sorted((folder / "archives").rglob("*")):
        if not path.is_file() or path.name.endswith(".nii.gz"):
            continue
        try:
            header = pydicom.dcmread(path)
            number = normal_patient_id(header.PatientID)
        except (InvalidDicomError, AttributeError, EOFError, OSError):
            unreadable.append(path)
            continue
        files[path.relative_to(folder / "archives").parts[0], number or ""].append(Found(path, header))
    return Generated(folder, pl.read_parquet(folder / "truth.parquet"), dict(files), unreadable)


def volume_of(files: list[Found]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """CT numbers ordered (column, row, slice) and the affine to LPS in mm, from the headers alone."""
    ordered = sorted(files, key=lambda f: float(f.header.ImagePositionPatient[2]))
    first, last = ordered[0].header, ordered[-1].header
    planes = [
        f.header.pixel_array.astype(float) * float(f.header.RescaleSlope) + float(f.header.RescaleIntercept) for f in ordered
    ]
    row, column = np.array(first.ImageOrientationPatient[:3], float), np.array(first.ImageOrientationPatient[3:], float)
    start, end = np.array(first.ImagePositionPatient, float), np.array(last.ImagePositionPatient, float)
    affine = np.eye(4)
    affine[:3, 0] = row * float(first.PixelSpacing[1])
    affine[:3, 1] = column * float(first.PixelSpacing[0])
    affine[:3, 2] = (end - start) / (len(ordered) - 1)
    affine[:3, 3] = start
    return np.stack(planes).transpose(2, 1, 0), affine
