"""Real CT with real masks: the mean of every label equals the plain mean that nibabel gives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest

from ospor_batch.imaging.masks import MaskFile, MaskRule, levels_on
from ospor_batch.imaging.reader import read_volume
from ospor_batch.imaging.regions import measure
from tests.imaging.series import LPS_TO_RAS, write_series

LEVELS = ("T8", "T9", "T10", "T11", "T12", "L1", "L2", "L3", "L4", "L5")
NEAREST_HU = 0.01  # float32 against float64


def nifti_values(path: Path) -> np.ndarray:
    return np.asanyarray(nibabel.load(path).dataobj)


def is_image(values: np.ndarray) -> bool:
    return bool(values.min() < 0)


def pairs(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Every NIfTI CT with every NIfTI map of labels of the same shape beside it."""
    by_folder: dict[Path, list[Path]] = {}
    for path in sorted(folder.rglob("*.nii.gz")):
        by_folder.setdefault(path.parent, []).append(path)
    for files in by_folder.values():
        for image in filter(lambda path: is_image(nifti_values(path)), files):
            for mask in files:
                if mask != image and nibabel.load(mask).shape == nibabel.load(image).shape:
                    yield image, mask


def test_real_series_lie_where_simpleitk_puts_them(shared: Path) -> None:
    """Every series of three and more files: HU, and each corner in the patient."""
    sitk = pytest.importorskip("SimpleITK")
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    n_compared = 0
    folders = sorted({path.parent for path in (shared / "data" / "real" / "ct").rglob("*") if path.is_file()})
    for folder in folders:
        for series in sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder)):
            names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), series)
            if len(names) < 3:
                continue
            volume, theirs = read_volume([Path(name) for name in names]), sitk.ReadImage(names)
            assert volume.hu.shape == theirs.GetSize()[::-1]
            last = np.array(volume.hu.shape) - 1
            for corner in np.ndindex(2, 2, 2):
                index = np.array(corner) * last
                place = theirs.TransformIndexToPhysicalPoint([int(at) for at in index[::-1]])  # their axes run x, y, z
                np.testing.assert_allclose((volume.affine @ [*index, 1])[:3], place, atol=1e-2)
            kept = np.ones(volume.hu.shape, bool) if volume.is_padding is None else ~volume.is_padding
            np.testing.assert_allclose(volume.hu[kept], sitk.GetArrayFromImage(theirs)[kept], atol=NEAREST_HU)
            n_compared += 1
    if not n_compared:
        pytest.skip("no real series")


def rule_of(values: np.ndarray) -> MaskRule:
    """Any ten labels of a map, under the names of levels."""
    labels = [int(label) for label in np.unique(values) if label > 0]
    return MaskRule("*.nii*", tuple(zip(LEVELS, labels, strict=False)))


def test_real_nifti_pairs_written_as_dicom(shared: Path, tmp_path: Path) -> None:
    n_compared = 0
    for number, (image, mask) in enumerate(pairs(shared / "data" / "real")):
        loaded, labels = nibabel.load(image), nifti_values(mask)
        hu = nifti_values(image)
        # as an axial stack: slices to the head, rows to the back, columns to the left
        turn = nibabel.orientations.ornt_transform(
            nibabel.io_orientation(loaded.affine), nibabel.orientations.axcodes2ornt(("S", "P", "L"))
        )
        stack = loaded.as_reoriented(turn)
        paths = write_series(tmp_path / str(number), np.asanyarray(stack.dataobj), LPS_TO_RAS @ stack.affine, intercept=-8192.0)
        volume = read_volume(paths)
        rule = rule_of(labels)
        regions = measure(volume, levels_on(volume, [MaskFile(mask, "mask_nifti")], rule=rule), levels=dict(rule.labels))
        assert {region.level for region in regions} == set(dict(rule.labels))
        for region in regions:
            inside = labels == dict(rule.labels)[region.level]
            assert region.n_voxels == inside.sum()
            assert abs(region.mean_hu - hu[inside].mean()) < NEAREST_HU
            assert region.sd_hu == pytest.approx(hu[inside].std(), abs=NEAREST_HU)
            assert region.volume_ml == pytest.approx(inside.sum() * np.prod(loaded.header.get_zooms()) / 1000, rel=1e-5)
            n_compared += 1
    if not n_compared:
        pytest.skip("no NIfTI CT with masks")


def test_real_dicom_series_with_a_nifti_mask(shared: Path) -> None:
    """DICOM folders below a NIfTI map: the map turned to LPS by nibabel, the slices sorted by height with pydicom alone."""
    n_compared = 0
    for mask in sorted((shared / "data" / "real").rglob("*.nii.gz")):
        values = nifti_values(mask)
        for folder in sorted(path for path in mask.parent.iterdir() if path.is_dir()):
            paths = sorted(path for path in folder.iterdir() if path.is_file())
            slices = sorted((pydicom.dcmread(path) for path in paths), key=lambda d: float(d.ImagePositionPatient[2]))
            hu = np.stack([s.pixel_array * float(s.RescaleSlope) + float(s.RescaleIntercept) for s in slices])
            turned = nibabel.as_closest_canonical(nibabel.load(mask))
            labels = np.asanyarray(turned.dataobj)[::-1, ::-1].transpose(2, 1, 0)  # RAS to LPS
            assert hu.shape == labels.shape
            volume = read_volume(list(reversed(paths)))
            rule = rule_of(values)
            regions = measure(volume, levels_on(volume, [MaskFile(mask, "mask_nifti")], rule=rule), levels=dict(rule.labels))
            for region in regions:
                inside = labels == dict(rule.labels)[region.level]
                assert region.n_voxels == inside.sum()
                assert abs(region.mean_hu - hu[inside].mean()) < NEAREST_HU
                n_compared += 1
    if not n_compared:
        pytest.skip("no DICOM series with a NIfTI mask")
