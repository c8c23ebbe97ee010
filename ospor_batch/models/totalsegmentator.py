"""TotalSegmentator as an optional source of masks (Wasserthal, Radiol Artif Intell 2023): called where it is installed.

Its vertebrae are whole bones; the bodies come from its task vertebrae_body, and a voxel is a level's body where both agree.
"""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from typing import Any

import numpy as np
import numpy.typing as npt
from nibabel import Nifti1Image

from ospor_batch.errors import StudyError
from ospor_batch.imaging.masks import RAS_TO_LPS, MaskRule
from ospor_batch.imaging.volume import Volume

PACKAGE = "TotalSegmentator"
BODY = 1  # label of bodies in its task vertebrae_body; 2 is the disc
TISSUES = {"fat": "subcutaneous_fat", "visceral_fat": "torso_fat", "muscle": "skeletal_muscle"}  # its task tissue_types


def totalsegmentator_version() -> str:
    """The installed version; StudyError says how to install it."""
    try:
        return installed(PACKAGE)
    except PackageNotFoundError:
        raise StudyError(
            f'recipes.masks.source = "totalsegmentator", but {PACKAGE} is not installed: pip install {PACKAGE} on every '
            'worker, or take "beside" or "unet"'
        ) from None


def segmented(volume: Volume, *, rule: MaskRule, device: str) -> tuple[npt.NDArray[np.int32], dict[str, float]]:
    """Labels by the numbers of the rule; it gives no confidence of a level."""
    image = Nifti1Image(np.asarray(volume.hu, np.float32), RAS_TO_LPS @ volume.affine)
    names = [f"vertebrae_{level}" for level, _ in rule.labels]
    bones = _run(image, "total", device=device, roi_subset=names)
    is_body = np.asanyarray(_run(image, "vertebrae_body", device=device).dataobj) == BODY
    numbers = {name: number for number, name in _classes("total").items()}
    values, labels = np.asanyarray(bones.dataobj), np.zeros(volume.hu.shape, np.int32)
    for level, label in rule.labels:
        labels[is_body & (values == numbers[f"vertebrae_{level}"])] = label
    if rule.tissues:
        values = np.asanyarray(_run(image, "tissue_types", device=device).dataobj)
        numbers = {name: number for number, name in _classes("tissue_types").items()}
        for name, label in rule.tissues:
            labels[(labels == 0) & (values == numbers[TISSUES[name]])] = label
    return labels, {}


def _run(image: Nifti1Image, task: str, *, device: str, **more: Any) -> Any:
    api = importlib.import_module("totalsegmentator.python_api")
    where = "gpu" if device == "cuda" else "cpu"
    return api.totalsegmentator(image, None, task=task, ml=True, quiet=True, device=where, **more)


def _classes(task: str) -> dict[int, str]:
    found: dict[int, str] = importlib.import_module("totalsegmentator.map_to_binary").class_map[task]
    return found
