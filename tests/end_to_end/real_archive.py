"""Make an archive and an export out of the real files that lie in the shared folder.

Nothing is named here: series, volumes, masks and table rows are taken as found. To look at it by hand:

    python -m tests.end_to_end.real_archive FOLDER_OF_REAL_FILES OUT
    ospor-batch run OUT/study.toml
"""

from __future__ import annotations

import csv
import datetime
import shutil
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

LEVELS = {"L1": 20, "L2": 21, "L3": 22, "L4": 23}  # numbering of the masks that carry L1 to L4
OTHER_ANATOMY = 25  # a mask with labels beyond the sacrum's numbers the spine in another way
IMAGE_DATE = datetime.date(2022, 5, 2)


STUDY = """
[study]
name = "real-files"
pseudonym_key = {{ file = "study.key" }}

[[centers]]
name = "real"
archives = ["archive"]
[[centers.exports]]
path = "dxa.csv"
kind = "dxa"
sex_values = {{ male = ["1"], female = ["2"] }}
[centers.exports.columns]
patient_id = "PatientNumber"
exam_date = "ExamDate"
{columns}

[[references]]
id = "dxa_any_site"
standard = "dxa_who"

[match]
before_days = 180
after_days = 180

[[criteria]]
name = "unenhanced"
rule = "unenhanced"
[[criteria]]
name = "120 kV"
rule = "kvp_120"

[[recipes]]
name = "mean_hu"
reference = "dxa_any_site"
threshold = {{ fixed = 110 }}

[tables]
strata = ["center", "scanner_vendor", "center*scanner_vendor"]
"""


@dataclass(frozen=True)
class Volume:
    """A real CT volume written out as DICOM, with the plain mean HU of each level as nibabel reads it."""

    patient_id: str
    mean_hu: dict[str, float]


def level_masks(folder: Path, ct: Path) -> list[Path]:
    """Masks of a folder on the grid of its CT that hold any of L1 to L4 in our numbering."""
    grid = nib.load(ct)
    found = []
    for path in sorted(folder.glob("*.nii*")):
        mask = nib.load(path)
        if path == ct or mask.shape != grid.shape or not np.allclose(mask.affine, grid.affine, atol=1e-3):
            continue
        labels = set(np.unique(np.asanyarray(mask.dataobj)).tolist())
        if labels & set(LEVELS.values()) and max(labels) <= OTHER_ANATOMY:
            found.append(path)
    return found


def is_ct(path: Path) -> bool:
    return float(np.asanyarray(nib.load(path).dataobj).min()) < -500  # only CT holds air


def write_series(ct: Path, folder: Path, *, patient_id: str, number: int) -> None:
    """Write a NIfTI volume as an axial DICOM series, one file a slice."""
    image = nib.as_closest_canonical(nib.load(ct))
    hu: NDArray[np.int16] = np.asanyarray(image.dataobj).astype(np.int16)
    to_lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine
    n_x, n_y, n_slices = hu.shape
    # rows run towards the left of the patient and columns towards the back, as scanners write them
    corner = to_lps @ np.array([n_x - 1, n_y - 1, 0, 1.0])
    step = np.abs(np.diag(image.affine))[:3]
    folder.mkdir(parents=True)
    for z in range(n_slices):
        ds = _slice(hu[::-1, ::-1, z].T, number=number, z=z, patient_id=patient_id)
        ds.PixelSpacing = [round(float(step[1]), 6), round(float(step[0]), 6)]
        ds.SliceThickness = round(float(step[2]), 6)
        ds.ImagePositionPatient = [round(float(v), 6) for v in corner[:3] + np.array([0, 0, z * step[2]])]
        ds.save_as(folder / f"slice{z:03d}", enforce_file_format=True)


def _slice(pixels: NDArray[np.int16], *, number: int, z: int, patient_id: str) -> FileDataset:
    root = f"1.2.826.0.1.3680043.10.543.{number}"
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = f"{root}.3.{z}"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, f"{root}.3.{z}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = f"{root}.1", f"{root}.2", f"{root}.4"
    ds.Modality, ds.Manufacturer, ds.ManufacturerModelName = "CT", "SIEMENS", "Sensation 64"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.PatientID, ds.PatientName, ds.PatientSex = patient_id, "Test^Person", "F"
    ds.PatientBirthDate = "19550101"
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = IMAGE_DATE.strftime("%Y%m%d")
    ds.BodyPartExamined, ds.SeriesDescription, ds.KVP, ds.ConvolutionKernel = "ABDOMEN", "Abdomen native", 120, "B30f"
    ds.SeriesNumber, ds.InstanceNumber = 2, z + 1
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.Rows, ds.Columns = pixels.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, 1
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = 0, 1, "HU"
    ds.PixelData = np.ascontiguousarray(pixels).tobytes()
    return ds


def make_archive(real: Path, archive: Path) -> list[Volume]:
    """Copy every real file; write NIfTI CTs out as DICOM with their masks beside; return the volumes with truth."""
    volumes: list[Volume] = []
    for part in ("ct", "cxr", "torture"):
        shutil.copytree(real / part, archive / part)
    for number, ct in enumerate(sorted(p for p in (real / "ct").rglob("*.nii*") if is_ct(p)), start=1):
        masks = level_masks(ct.parent, ct)
        if not masks:
            continue
        patient_id, folder = f"VOLUME{number}", archive / "written" / f"volume{number}"
        write_series(ct, folder, patient_id=patient_id, number=number)
        for path in sorted(ct.parent.glob("*.nii*")):
            if path != ct:
                shutil.copy(path, folder / path.name)
        volumes.append(Volume(patient_id, _plain_means(ct, masks[0])))
    return volumes


def _plain_means(ct: Path, mask: Path) -> dict[str, float]:
    hu, labels = (np.asanyarray(nib.load(path).dataobj) for path in (ct, mask))
    return {level: float(hu[labels == n].mean()) for level, n in LEVELS.items() if (labels == n).any()}


def write_export(table: Path, export: Path, patients: list[str]) -> int:
    """Write real rows of the table under invented numbers and dates; return how many rows."""
    with table.open(encoding="utf-8-sig", newline="") as source:
        rows = list(csv.reader(source))
    head, body = rows[0], rows[1:]
    with export.open("w", encoding="utf-8", newline="") as target:
        writer = csv.writer(target)
        writer.writerow(["PatientNumber", "ExamDate", *head])
        for i, row in enumerate(body):
            patient = patients[i] if i < len(patients) else f"NOIMAGE{i}"
            writer.writerow([patient, (IMAGE_DATE + datetime.timedelta(days=i % 50)).isoformat(), *row])
    return len(body)


def columns_of(table: Path) -> dict[str, str]:
    """Our columns and the header of the table that each is found under, by its words."""
    with table.open(encoding="utf-8-sig", newline="") as source:
        head = next(csv.reader(source))
    words = {
        "sex": ("sex",), "age_at_label": ("age",), "height_m": ("height",), "weight_kg": ("weight",), "tbs": ("tbs l",),
        "lumbar_spine_bmd_g_cm2": ("spine bmd",), "femoral_neck_bmd_g_cm2": ("neck bmd",), "total_hip_bmd_g_cm2": ("hip bmd",),
        "lumbar_spine_t": ("ls t-score",), "femoral_neck_t": ("femur neck t-score",), "total_hip_t": ("total hip t-score",),
    }  # fmt: skip
    return {ours: next(h for h in head if any(w in h.lower() for w in wanted)) for ours, wanted in words.items()}


def patient_ids(archive: Path) -> list[str]:
    """Every distinct patient number of the archive, as pydicom reads it."""
    found: set[str] = set()
    for path in sorted(p for p in archive.rglob("*") if p.is_file()):
        try:
            ds = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["PatientID"])
        except Exception:  # noqa: BLE001 -- the folder is full of files that are broken on purpose
            continue
        value = ds.get("PatientID")
        if isinstance(value, str) and value.strip():
            found.add(value.strip())
    return sorted(found)


def label_tables(real: Path) -> list[Path]:
    """Real tables of measurements."""
    return sorted((real / "labels").glob("*.csv"))


def write_study(real: Path, folder: Path) -> tuple[list[Volume], int]:
    """Write archive, export, key and study file; return the volumes with truth and the number of export rows."""
    table = label_tables(real)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of what is broken on purpose
        volumes = make_archive(real, folder / "archive")
        imaged = patient_ids(folder / "archive")
    n_rows = write_export(table, folder / "dxa.csv", [v.patient_id for v in volumes] + imaged)
    units = {"height_m": "cm"}
    columns = "\n".join(
        f'{ours} = {{ column = "{theirs}", unit = "{units[ours]}" }}' if ours in units else f'{ours} = "{theirs}"'
        for ours, theirs in columns_of(table).items()
    )
    (folder / "study.key").write_text("a-key-for-the-real-study\n")
    (folder / "study.toml").write_text(STUDY.format(columns=columns))
    return volumes, n_rows


if __name__ == "__main__":
    write_study(Path(sys.argv[1]), Path(sys.argv[2]))
