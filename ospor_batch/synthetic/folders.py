"""Where each center keeps its files: four folder layouts and ways of naming."""

from __future__ import annotations

from typing import Literal

from ospor_batch.synthetic.headers import Series
from ospor_batch.synthetic.instances import Instance
from ospor_batch.synthetic.masks import Layout

# north: patient/study/series; south: by date; east: numbered names without extension, as on a DICOM disc whose DICOMDIR
# was lost; west: one flat folder, in which only a DICOM SEG can say which series it belongs to
MASKS: dict[str, Layout | Literal["seg"]] = {"north": "rows_flipped", "south": "ras", "east": "slices", "west": "seg"}
MASK_NAME = {"north": "vertebrae.nii.gz", "south": "l1_l4_mask.nii.gz", "east": "SEG.nii.gz"}
RESENT = {"north": "_resent", "south": "resent", "east": "RESENT", "west": "resent"}


def folder_of(series: Series) -> str:
    """Folder of a series below the archive root; empty for the root itself."""
    person, day = series.person, series.image_date
    if person.manner == "north":
        kind = "CT" if series.study_word == "ct" else "DX"
        return f"{person.patient_id}/{day:%Y%m%d}_{kind}/{series.number:03d}"
    if person.manner == "south":
        return f"{day:%Y/%m/%d}/{series.accession}/SE{series.number:03d}"
    if person.manner == "east":
        study = 1 if series.study_word == "ct" else 2
        return f"PA{person.number:05d}/ST{study:05d}/SE{series.number:05d}"
    return ""


def file_of(series: Series, instance: Instance) -> str:
    """Path of an instance below the archive root."""
    name = {
        "north": f"IM-{series.number:04d}-{instance.number:04d}.dcm",
        "south": f"{instance.number:05d}.dcm",
        "east": f"IM{instance.number:05d}",
        "west": f"{instance.sop_uid}.dcm",
    }[series.person.manner]
    folder = folder_of(series)
    return f"{folder}/{name}" if folder else name
