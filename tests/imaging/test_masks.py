"""Masks of every kind land on the voxels they were drawn on, or are refused for a reason."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest

from ospor_batch.errors import ItemRefused
from ospor_batch.imaging.masks import MaskFile, MaskRule, levels_on
from ospor_batch.imaging.reader import read_volume
from ospor_batch.imaging.segments import structure_named
from ospor_batch.imaging.volume import LabelGrid, Volume, onto_volume
from tests.imaging.series import affine, write_enhanced, write_nifti, write_segmentation

SHAPE = (6, 9, 8)
RULE = MaskRule("*.nii*", (("L1", 20), ("L2", 21)))
NAMES = {1: "L1", 2: "L2 vertebra"}


@pytest.fixture
def labels() -> np.ndarray:
    drawn = np.zeros(SHAPE, np.uint8)
    drawn[1:3, 2:6, 1:5] = 21
    drawn[3:5, 3:6, 2:6] = 20
    drawn[0, 0, 7] = 26  # another structure, at a corner
    return drawn


def a_volume(to_lps: np.ndarray, shape: tuple[int, ...] = SHAPE) -> Volume:
    return Volume(np.zeros(shape, np.float32), to_lps)


def of_kind(path: Path) -> MaskFile:
    return MaskFile(path, "mask_dicom_seg" if path.suffix == ".dcm" else "mask_nifti")


def refusal(volume: Volume, *paths: Path, rule: MaskRule = RULE) -> ItemRefused:
    with pytest.raises(ItemRefused) as refused:
        levels_on(volume, [of_kind(path) for path in paths], rule=rule)
    assert not refused.value.is_transient
    return refused.value


@pytest.mark.parametrize("axes", ["SPR", "RAS", "LPS", "PIR", "LAS", "ASL"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nifti_lands_on_the_same_voxels_however_its_axes_run(
    tmp_path: Path, labels: np.ndarray, axes: str, suffix: str
) -> None:
    path = write_nifti(tmp_path / f"mask{suffix}", labels, affine(), axes=axes)
    found = levels_on(a_volume(affine()), [of_kind(path)], rule=RULE)
    np.testing.assert_array_equal(found, np.where(labels == 26, 0, labels))


@pytest.mark.parametrize("to_lps", [affine(turn=20.0), affine(shear=0.3)], ids=["oblique", "tilted"])
def test_nifti_of_an_oblique_or_tilted_stack_is_exact_too(tmp_path: Path, labels: np.ndarray, to_lps: np.ndarray) -> None:
    path = write_nifti(tmp_path / "mask.nii", labels, to_lps)
    np.testing.assert_array_equal(levels_on(a_volume(to_lps), [of_kind(path)], rule=RULE), np.where(labels == 26, 0, labels))


def test_a_crop_lands_in_its_place(tmp_path: Path, labels: np.ndarray) -> None:
    to_lps = affine()
    corner = to_lps.copy()
    corner[:3, 3] = (to_lps @ [1, 2, 1, 1])[:3]
    path = write_nifti(tmp_path / "mask.nii", labels[1:5, 2:6, 1:6].copy(), corner, axes="RAS")
    np.testing.assert_array_equal(levels_on(a_volume(to_lps), [of_kind(path)], rule=RULE), np.where(labels == 26, 0, labels))


def test_a_coarse_mask_is_looked_up_by_the_nearest_voxel(tmp_path: Path) -> None:
    coarse = np.zeros((3, 3, 3), np.uint8)
    coarse[1, 1, 1] = 20
    grid = affine(spacing=(6.0, 2.0, 4.0))
    grid[:3, 3] = (affine() @ [0.5, 0.5, 0.5, 1])[:3]  # its voxel (0,0,0) covers the volume's first eight
    path = write_nifti(tmp_path / "mask.nii", coarse, grid)
    found = levels_on(a_volume(affine(), (6, 6, 6)), [of_kind(path)], rule=RULE)
    expected = np.zeros((6, 6, 6))
    expected[2:4, 2:4, 2:4] = 20
    np.testing.assert_array_equal(found, expected)


def test_an_oblique_mask_equals_the_lookup_of_each_voxel_on_its_own() -> None:
    rng = np.random.default_rng(3)
    grid = LabelGrid(np.zeros((8, 9, 10), np.int32), affine(spacing=(2.0, 1.1, 1.7), turn=7.0))
    grid.labels[3:6, 3:6, 3:7] = rng.integers(0, 3, (3, 3, 4))
    volume = a_volume(affine(origin=(-21.0, 3.0, 98.0)), (7, 12, 9))
    found = onto_volume(grid, volume)
    for index in np.ndindex(volume.hu.shape):
        place = np.linalg.inv(grid.affine) @ volume.affine @ [*index, 1]
        near = np.floor(place[:3] + 0.5).astype(int)
        is_inside = (near >= 0).all() and (near < grid.labels.shape).all()
        assert found[index] == (grid.labels[tuple(near)] if is_inside else 0)
    assert found.any()


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
@pytest.mark.parametrize("is_reversed", [False, True])
@pytest.mark.parametrize("to_lps", [affine(), affine(turn=15.0)], ids=["axial", "oblique"])
def test_segments_are_placed_by_position(
    tmp_path: Path, labels: np.ndarray, kind: str, is_reversed: bool, to_lps: np.ndarray
) -> None:
    drawn = np.where(labels == 20, 1, np.where(labels == 21, 2, 0)).astype(np.uint8)
    path = write_segmentation(tmp_path / "seg.dcm", drawn, to_lps, names=NAMES, kind=kind, is_reversed=is_reversed)
    np.testing.assert_array_equal(levels_on(a_volume(to_lps), [of_kind(path)], rule=RULE), np.where(labels == 26, 0, labels))


def test_a_segment_may_be_named_by_its_code(tmp_path: Path, labels: np.ndarray) -> None:
    drawn = (labels == 20).astype(np.uint8)
    path = write_segmentation(
        tmp_path / "seg.dcm", drawn, affine(), names={1: "Segment_1"}, meanings={1: "First lumbar vertebra"}
    )
    np.testing.assert_array_equal(levels_on(a_volume(affine()), [of_kind(path)], rule=RULE), np.where(labels == 20, 20, 0))


def test_segments_of_frames_far_apart_leave_the_slices_between_empty(tmp_path: Path) -> None:
    drawn = np.zeros(SHAPE, np.uint8)
    drawn[0, 2:4, 2:4] = drawn[4, 2:4, 2:4] = 1
    path = write_segmentation(tmp_path / "seg.dcm", drawn, affine(), names={1: "L1"})
    found = levels_on(a_volume(affine()), [of_kind(path)], rule=RULE)
    np.testing.assert_array_equal(found, np.where(drawn, 20, 0))


def test_a_file_outside_the_pattern_is_not_looked_at(tmp_path: Path, labels: np.ndarray) -> None:
    good = write_nifti(tmp_path / "mask.nii", labels, affine())
    write_nifti(tmp_path / "other.nii", labels, affine())
    rule = MaskRule("mask*", RULE.labels)
    assert levels_on(a_volume(affine()), [of_kind(good), of_kind(tmp_path / "other.nii")], rule=rule).any()
    assert refusal(a_volume(affine()), tmp_path / "other.nii", rule=rule).reason == "mask_missing"


def test_an_image_beside_the_mask_does_not_stand_in_its_way(tmp_path: Path, labels: np.ndarray) -> None:
    good = write_nifti(tmp_path / "mask.nii", labels, affine())
    image = write_nifti(tmp_path / "ct.nii", (labels.astype(np.int16) - 1000), affine())
    assert levels_on(a_volume(affine()), [of_kind(image), of_kind(good)], rule=RULE).any()
    assert refusal(a_volume(affine()), image).reason == "mask_geometry_mismatch"


def test_two_files_with_the_levels_are_ambiguous(tmp_path: Path, labels: np.ndarray) -> None:
    paths = [write_nifti(tmp_path / name, labels, affine()) for name in ("a.nii", "b.nii.gz")]
    assert refusal(a_volume(affine()), *paths).reason == "mask_ambiguous"


def test_two_segments_of_one_level_are_ambiguous(tmp_path: Path, labels: np.ndarray) -> None:
    drawn = np.where(labels == 20, 1, np.where(labels == 21, 2, 0)).astype(np.uint8)
    path = write_segmentation(tmp_path / "seg.dcm", drawn, affine(), names={1: "L1", 2: "L1 body"})
    assert refusal(a_volume(affine()), path).reason == "mask_ambiguous"


def test_other_levels_alone_are_levels_missing(tmp_path: Path, labels: np.ndarray) -> None:
    nifti = write_nifti(tmp_path / "mask.nii", np.where(labels > 0, 26, 0).astype(np.uint8), affine())
    assert refusal(a_volume(affine()), nifti).reason == "levels_missing"
    seg = write_segmentation(tmp_path / "seg.dcm", (labels > 0).astype(np.uint8), affine(), names={1: "Liver"})
    assert refusal(a_volume(affine()), nifti, seg).reason == "levels_missing"


@pytest.mark.parametrize("how", ["fractions", "negative", "elsewhere", "no_place", "four_dimensions"])
def test_what_is_no_mask_of_these_images_is_a_mismatch(tmp_path: Path, labels: np.ndarray, how: str) -> None:
    path = tmp_path / "mask.nii"
    if how == "fractions":
        write_nifti(path, labels + np.float32(0.25), affine())
    elif how == "negative":
        write_nifti(path, labels.astype(np.int16) - 1, affine())
    elif how == "elsewhere":
        write_nifti(path, labels, affine(origin=(300.0, 5.0, 100.0)))
    elif how == "no_place":
        image = nibabel.Nifti1Image(labels, None)
        image.header["sform_code"] = image.header["qform_code"] = 0
        nibabel.save(image, path)
    else:
        nibabel.save(nibabel.Nifti1Image(np.stack([labels, labels], axis=-1), np.eye(4)), path)
    assert refusal(a_volume(affine()), path).reason == "mask_geometry_mismatch"


@pytest.mark.parametrize("how", ["cut", "cut_gzip", "letter", "fractional"])
def test_a_broken_mask_is_unreadable(tmp_path: Path, labels: np.ndarray, how: str) -> None:
    path = tmp_path / ("mask.dcm" if how == "fractional" else "mask.nii")
    if how == "fractional":
        drawn = (labels == 20).astype(np.uint8)
        write_segmentation(path, drawn, affine(), names={1: "L1"}, kind="FRACTIONAL")
    elif how == "letter":
        path.write_bytes(b"Dear colleague, " * 60)
    else:
        write_nifti(path, labels, affine())
        content = path.read_bytes()
        path.write_bytes(gzip.compress(content)[:-40] if how == "cut_gzip" else content[:-40])
    found = refusal(a_volume(affine()), path)
    assert found.reason == "mask_unreadable"
    assert str(tmp_path) not in found.detail


def test_a_mask_that_has_gone_may_come_back(tmp_path: Path) -> None:
    with pytest.raises(ItemRefused) as refused:
        levels_on(a_volume(affine()), [MaskFile(tmp_path / "mask.nii", "mask_nifti")], rule=RULE)
    assert (refused.value.reason, refused.value.is_transient) == ("file_missing", True)


def test_a_mask_fits_the_frames_of_an_enhanced_series(tmp_path: Path, labels: np.ndarray) -> None:
    hu = np.where(labels > 0, labels * 10, np.random.default_rng(0).integers(-900, 900, labels.shape)).astype(np.int16)
    volume = read_volume([write_enhanced(tmp_path / "e.dcm", hu, affine(), order=[5, 0, 3, 1, 4, 2])])
    found = levels_on(volume, [of_kind(write_nifti(tmp_path / "m.nii", labels, affine(), axes="PIR"))], rule=RULE)
    assert (volume.hu[found == 20] == 200).all()


@pytest.mark.filterwarnings("ignore")
def test_real_segments_cover_the_slices_they_were_drawn_on(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every real CT folder with a DICOM SEG: the first segment, taken for L1, against its frames placed one by one."""
    monkeypatch.setattr("ospor_batch.imaging.reader._levels_of", lambda dataset, levels: {1: 20})
    n_compared = 0
    for path in sorted((shared / "data" / "real").rglob("*")):
        if not path.is_file() or not pydicom.misc.is_dicom(path):
            continue
        seg = pydicom.dcmread(path)
        if seg.get("Modality") != "SEG" or seg.get("SegmentationType") != "BINARY":
            continue
        images = [
            other for other in sorted(path.parent.iterdir())
            if other.is_file() and pydicom.misc.is_dicom(other)
            and (header := pydicom.dcmread(other, stop_before_pixels=True)).get("Modality") == "CT"
            and header.get("FrameOfReferenceUID") == seg.get("FrameOfReferenceUID")
        ]  # fmt: skip
        if len(images) < 2:
            continue
        volume = read_volume(images)
        found = levels_on(volume, [MaskFile(path, "mask_dicom_seg")], rule=RULE)
        expected = np.zeros(volume.hu.shape, bool)
        for groups, frame in zip(seg.PerFrameFunctionalGroupsSequence, seg.pixel_array, strict=True):
            height = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float)
            place = np.linalg.inv(volume.affine) @ [*height, 1]
            np.testing.assert_allclose(place[1:3], 0, atol=0.01)
            expected[round(place[0])] |= frame.astype(bool)
        np.testing.assert_array_equal(found == 20, expected)
        n_compared += int(expected.any())
    if not n_compared:
        pytest.skip("no real DICOM SEG beside its CT")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("muscle", "muscle"), ("Skeletal muscle", "muscle"), ("visceral_fat", "visceral_fat"), ("Adipose tissue", "fat"),
        ("Heart muscle", None), ("L3", "L3"), ("fat of L3", None), ("", None),
    ],
)  # fmt: skip
def test_names_of_segments_mean_levels_or_tissues(text: str, found: str | None) -> None:
    assert structure_named(text) == found
