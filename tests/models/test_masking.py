"""Masks come through one seam: beside the images, a network, or TotalSegmentator where it is installed."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel
import numpy as np
import pytest

from ospor_batch.errors import ItemRefused, StudyError
from ospor_batch.imaging.masks import RAS_TO_LPS, MaskFile
from ospor_batch.imaging.volume import Volume
from ospor_batch.models import segmentation_folder, totalsegmentator
from ospor_batch.models.masking import labels_of
from tests.models.spines import RULE, spine

UNET = replace(RULE, source="unet", version="x", folder="/nowhere", least_confidence=0.5)


def beside(folder: Path, volume: Volume, labels: np.ndarray) -> MaskFile:
    path = folder / "mask.nii.gz"
    nibabel.save(nibabel.Nifti1Image(labels.astype(np.int16), RAS_TO_LPS @ volume.affine), path)
    return MaskFile(path, "mask_nifti")


def segments(labels: np.ndarray, confidence: dict[str, float]) -> Any:
    return lambda volume, **_: (labels.copy(), confidence)


def made() -> tuple[Volume, np.ndarray]:
    pixels = spine(150)
    assert pixels.volume is not None
    assert pixels.labels is not None
    return pixels.volume, pixels.labels


def test_masks_beside_the_images_hold_levels_and_tissues(tmp_path: Path) -> None:
    volume, labels = made()
    found = labels_of(volume, [beside(tmp_path, volume, labels)], rule=RULE)
    np.testing.assert_array_equal(found.labels, labels)
    assert not found.overlaps
    without = labels_of(volume, [beside(tmp_path, volume, labels)], rule=replace(RULE, tissues=()))
    assert set(np.unique(without.labels)) == {0, 19, 20, 21}


def test_an_uncertain_level_leaves_with_a_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    volume, labels = made()
    monkeypatch.setattr(segmentation_folder, "segmented", segments(labels, {"T12": 0.9, "L1": 0.4, "L2": 0.9}))
    found = labels_of(volume, (), rule=UNET)
    assert found.flags == ("level_uncertain:L1",)
    assert not (found.labels == 20).any()
    monkeypatch.setattr(segmentation_folder, "segmented", segments(labels, dict.fromkeys(("T12", "L1", "L2"), 0.1)))
    with pytest.raises(ItemRefused, match="level_uncertain"):
        labels_of(volume, (), rule=UNET)
    monkeypatch.setattr(segmentation_folder, "segmented", segments(np.zeros_like(labels), {}))
    with pytest.raises(ItemRefused, match="levels_missing"):
        labels_of(volume, (), rule=UNET)


def test_a_segmented_level_is_held_against_the_mask_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volume, labels = made()
    moved = np.roll(labels, 2, axis=2)
    monkeypatch.setattr(segmentation_folder, "segmented", segments(moved, {}))
    found = labels_of(volume, [beside(tmp_path, volume, labels)], rule=UNET)
    l1 = found.overlaps["L1"]
    assert l1.dice == pytest.approx(2 * ((moved == 20) & (labels == 20)).sum() / (2 * (labels == 20).sum()))
    assert l1.hd95_mm == pytest.approx(8.0)  # two pixels of 4 mm
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(b"no mask")
    assert not labels_of(volume, [MaskFile(broken, "mask_nifti")], rule=UNET).overlaps


def test_totalsegmentator_is_named_where_it_is_missing() -> None:
    with pytest.raises(StudyError, match="pip install TotalSegmentator"):
        totalsegmentator.totalsegmentator_version()


def test_totalsegmentator_bodies_are_where_its_two_tasks_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    volume, labels = made()
    asked = []

    def run(image: Any, _out: Any, *, task: str, **more: Any) -> Any:
        asked.append((task, more.get("roi_subset"), more["device"]))
        np.testing.assert_array_equal(np.asanyarray(image.dataobj), volume.hu)
        if task == "total":  # whole bones: the body and something behind it
            whole = np.where(labels == 20, 31, 0) + np.where(np.roll(labels, 4, axis=1) == 20, 31, 0)
            return nibabel.Nifti1Image(np.minimum(whole, 31).astype(np.int16), image.affine)
        wanted = np.isin(labels, (19, 20, 21)) if task == "vertebrae_body" else labels == 100
        return nibabel.Nifti1Image(wanted.astype(np.int16) * (1 if task == "vertebrae_body" else 3), image.affine)

    api, names = ModuleType("totalsegmentator.python_api"), ModuleType("totalsegmentator.map_to_binary")
    api.totalsegmentator = run  # type: ignore[attr-defined]
    names.class_map = {  # type: ignore[attr-defined]
        "total": {29: "vertebrae_L3", 30: "vertebrae_L2", 31: "vertebrae_L1", 32: "vertebrae_T12"},
        "tissue_types": {1: "subcutaneous_fat", 2: "torso_fat", 3: "skeletal_muscle"},
    }
    monkeypatch.setitem(sys.modules, "totalsegmentator", ModuleType("totalsegmentator"))
    monkeypatch.setitem(sys.modules, "totalsegmentator.python_api", api)
    monkeypatch.setitem(sys.modules, "totalsegmentator.map_to_binary", names)
    found = labels_of(volume, (), rule=replace(UNET, source="totalsegmentator"))
    np.testing.assert_array_equal(found.labels == 20, labels == 20)
    np.testing.assert_array_equal(found.labels == 100, labels == 100)
    assert not np.isin(found.labels, (19, 21)).any()
    assert asked[0] == ("total", ["vertebrae_T12", "vertebrae_L1", "vertebrae_L2"], "cpu")
