"""The true masks of a generated person: every vertebral body in view, muscle and fat, as NIfTI and as DICOM SEG."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydicom.sr.codedict import codes

from ospor_batch.contracts.table import schema_of, whole
from ospor_batch.pseudonym import normal_patient_id
from ospor_batch.synthetic.ct import Scan
from ospor_batch.synthetic.headers import Series
from ospor_batch.synthetic.masks import Segment, nifti, segmentation, vertebra_code
from ospor_batch.synthetic.painter import TISSUE_CODES
from ospor_batch.synthetic.population import LEVELS
from ospor_batch.synthetic.vertebrae import VERSE

TRUTH_SERIES = 901
# Values of muscle and fat beside the VerSe numbers of the vertebrae
TISSUES = {"muscle": 100, "fat": 101, "visceral_fat": 102}
_CODES = {"muscle": codes.SCT.SkeletalMuscle, "fat": codes.SCT.AdiposeTissue, "visceral_fat": codes.SCT.AdiposeTissue}
SEGMENTS = (
    *(Segment(value, level, vertebra_code(level)) for level, value in VERSE.items()),
    *(Segment(value, name, _CODES[name]) for name, value in TISSUES.items()),
)


@dataclass(frozen=True)
class TrueMasks:
    """The two files of one person and their rows of the contract truth_structure; names are below the folder truth_masks."""

    files: tuple[tuple[str, bytes], ...]
    rows: tuple[dict[str, Any], ...]


def true_masks(series: Series, scan: Scan) -> TrueMasks:
    """Masks on the grid of the index series; tissue is what fills most of a voxel, before any blur or noise."""
    labels = labels_of(scan)
    person = series.person
    stem = f"{person.center}/{person.number:06d}"
    files = (
        (f"{stem}.nii.gz", nifti(labels, scan.grid, layout="slices")),
        (f"{stem}.dcm", segmentation(series, labels, grid=scan.grid, segments=SEGMENTS, number=TRUTH_SERIES,
                                     title="True structures").content),
    )  # fmt: skip
    return TrueMasks(files, tuple(_row(series, scan, labels, segment, stem) for segment in SEGMENTS if segment.value in labels))


def truth_structure_table(rows: Iterable[dict[str, Any]]) -> pl.DataFrame:
    """One row a person and structure, by center, patient and structure."""
    table = pl.DataFrame(list(rows), schema=schema_of("truth_structure"), orient="row")
    return whole(table.sort("center", "patient_id", "structure"), "truth_structure")


def labels_of(scan: Scan) -> NDArray[np.uint8]:
    """One label a voxel: VerSe numbers of the bodies, over muscle and fat."""
    labels = np.zeros(scan.grid.shape, dtype=np.uint8)
    for name, value in TISSUES.items():
        labels[scan.tissue == TISSUE_CODES[name]] = value
    return np.where(scan.bodies > 0, scan.bodies, labels).astype(np.uint8)


def _row(series: Series, scan: Scan, labels: NDArray[np.uint8], segment: Segment, stem: str) -> dict[str, Any]:
    person, mask = series.person, labels == segment.value
    level = LEVELS.index(segment.name) if segment.name in LEVELS else None
    slices = mask.any(axis=(1, 2))
    return {
        "center": person.center,
        "patient_id": normal_patient_id(person.patient_id),
        "structure": segment.name,
        "label": segment.value,
        "n_voxels": int(mask.sum()),
        "volume_ml": round(float(mask.sum()) * scan.grid.voxel_ml, 4),
        "vbmd_mg_cm3": None if level is None else round(person.level_vbmd[level], 4),
        "is_cut": bool(slices[0] or slices[-1]),
        "nifti_path": f"truth_masks/{stem}.nii.gz",
        "seg_path": f"truth_masks/{stem}.dcm",
    }
