"""A series of known HU is read back as it was written, in its place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import RLELossless

from ospor_batch.errors import ItemRefused
from ospor_batch.imaging.reader import read_volume
from tests.imaging.series import affine, write_enhanced, write_series

SHAPE = (5, 6, 7)


@pytest.fixture
def hu() -> np.ndarray:
    return np.random.default_rng(1).integers(-1000, 1500, SHAPE).astype(np.int16)


@pytest.mark.parametrize("to_lps", [affine(), affine(turn=20.0), affine(shear=0.3)], ids=["axial", "oblique", "tilted"])
@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 0, 4, 1, 3]])
def test_values_and_places_are_those_written_whatever_the_order(
    tmp_path: Path, hu: np.ndarray, to_lps: np.ndarray, order: list[int]
) -> None:
    volume = read_volume(write_series(tmp_path, hu, to_lps, order=order))
    assert volume.hu.dtype == np.float32
    np.testing.assert_array_equal(volume.hu, hu)
    np.testing.assert_allclose(volume.affine, to_lps, atol=1e-6)
    assert volume.is_padding is None
    assert volume.voxel_ml == pytest.approx(abs(np.linalg.det(to_lps[:3, :3])) / 1000)


def test_axes_are_told_apart(tmp_path: Path, hu: np.ndarray) -> None:
    volume = read_volume(write_series(tmp_path, hu, affine()))
    assert volume.spacing == pytest.approx((3.0, 1.0, 2.0))
    np.testing.assert_allclose(volume.origin, [-20, 5, 100])
    # slices climb to the head, rows run to the back, columns to the left
    np.testing.assert_allclose(volume.direction, [[0, 0, 1], [0, 1, 0], [1, 0, 0]], atol=1e-9)


def test_slices_written_from_head_to_foot_are_turned_to_the_normal(tmp_path: Path, hu: np.ndarray) -> None:
    downward = affine()
    downward[:3, 0] *= -1
    volume = read_volume(write_series(tmp_path, hu, downward))
    np.testing.assert_array_equal(volume.hu, hu[::-1])
    assert volume.affine[2, 0] > 0


@pytest.mark.parametrize("is_signed", [True, False])
def test_sign_and_rescale_of_each_slice_are_used(tmp_path: Path, hu: np.ndarray, is_signed: bool) -> None:
    first = write_series(tmp_path / "a", hu[:3], affine(), slope=1.0, intercept=-1024.0, is_signed=is_signed)
    upper = affine(origin=(-20.0, 5.0, 109.0))
    rest = write_series(tmp_path / "b", hu[3:], upper, slope=0.5, intercept=-2000.0, is_signed=is_signed)
    np.testing.assert_array_equal(read_volume([*first, *rest]).hu, hu)


def test_rle_equals_uncompressed(tmp_path: Path, hu: np.ndarray) -> None:
    paths = write_series(tmp_path, hu, affine(), compress=RLELossless)
    assert pydicom.dcmread(paths[0]).file_meta.TransferSyntaxUID == RLELossless
    np.testing.assert_array_equal(read_volume(paths).hu, hu)


@pytest.mark.parametrize("is_signed", [True, False])
def test_padding_becomes_air_and_is_marked(tmp_path: Path, hu: np.ndarray, is_signed: bool) -> None:
    hu[:, 0, :] = -2000
    stored = -2000 + 3000 - (3000 if is_signed else 0)
    paths = write_series(
        tmp_path, hu, affine(), intercept=0.0 if is_signed else -3000.0, is_signed=is_signed,
        changes={"PixelPaddingValue": stored},
    )  # fmt: skip
    volume = read_volume(paths)
    assert (volume.hu[:, 0] == -1024).all()
    assert volume.is_padding is not None
    assert volume.is_padding[:, 0].all()
    assert not volume.is_padding[:, 1:].any()


def test_a_padding_value_inside_tissue_is_no_padding(tmp_path: Path, hu: np.ndarray) -> None:
    hu[2, 2, 2] = 0
    volume = read_volume(write_series(tmp_path, hu, affine(), changes={"PixelPaddingValue": 1024}))
    np.testing.assert_array_equal(volume.hu, hu)
    assert volume.is_padding is None


def test_a_missing_slice_leaves_its_place_open(tmp_path: Path, hu: np.ndarray) -> None:
    paths = write_series(tmp_path, hu, affine())
    volume = read_volume([path for place, path in enumerate(paths) if place != 3])
    assert volume.n_missing_slices == 1
    assert volume.is_padding is not None
    assert volume.is_padding[3].all()
    np.testing.assert_array_equal(np.delete(volume.hu, 3, axis=0), np.delete(hu, 3, axis=0))
    np.testing.assert_allclose(volume.affine, affine(), atol=1e-6)


def test_frames_of_an_enhanced_series_are_placed_by_position(tmp_path: Path, hu: np.ndarray) -> None:
    volume = read_volume([write_enhanced(tmp_path / "e.dcm", hu, affine(turn=10.0), order=[3, 1, 0, 4, 2])])
    np.testing.assert_array_equal(volume.hu, hu)
    np.testing.assert_allclose(volume.affine, affine(turn=10.0), atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"ImagePositionPatient": tuple([0, 0, z] for z in (0, 3, 6, 6, 9))}, "two slices at one position"),
        ({"ImagePositionPatient": tuple([0, 0, z] for z in (0, 3, 7, 8.4, 12))}, "uneven distances"),
        ({"ImagePositionPatient": tuple([x, 0, 3 * i] for i, x in enumerate((0, 0, 2, 0, 0)))}, "not stand in a line"),
        ({"PixelSpacing": tuple([1, 2 + 0.1 * i] for i in range(5))}, "different spacing"),
        ({"ImageOrientationPatient": [1, 0, 0, 0.5, 0.8660254, 0]}, "right angles"),
        ({"ImagePositionPatient": tuple([0, 0, z] for z in (0, 3, 6, 9, 60))}, "slices are missing"),
    ],
)
def test_a_stack_that_is_none_is_refused(tmp_path: Path, hu: np.ndarray, changes: dict[str, object], detail: str) -> None:
    with pytest.raises(ItemRefused, match=detail) as refused:
        read_volume(write_series(tmp_path, hu, affine(), changes=changes))
    assert refused.value.reason == "geometry_changed"


def test_a_file_that_has_gone_may_come_back(tmp_path: Path, hu: np.ndarray) -> None:
    paths = write_series(tmp_path, hu, affine())
    paths[2].unlink()
    with pytest.raises(ItemRefused) as refused:
        read_volume(paths)
    assert (refused.value.reason, refused.value.is_transient) == ("file_missing", True)


@pytest.mark.parametrize("how", ["cut", "no_pixels", "no_dicom", "no_rescale", "broken_rle"])
def test_what_cannot_be_decoded_is_refused_without_naming_the_file(tmp_path: Path, hu: np.ndarray, how: str) -> None:
    paths = write_series(tmp_path, hu, affine(), compress=RLELossless if how == "broken_rle" else None)
    content = paths[2].read_bytes()
    if how == "cut":
        paths[2].write_bytes(content[:-30])
    elif how == "no_dicom":
        paths[2].write_bytes(b"a letter to Secret^Name" * 50)
    elif how == "broken_rle":
        paths[2].write_bytes(content[:-60] + b"\x80" * 60)
    else:
        dataset = pydicom.dcmread(paths[2])
        del dataset["PixelData" if how == "no_pixels" else "RescaleSlope"]
        dataset.save_as(paths[2])
    with pytest.raises(ItemRefused) as refused:
        read_volume(paths)
    assert refused.value.reason == "decode_failed"
    assert "Secret" not in refused.value.detail
    assert str(tmp_path) not in refused.value.detail


def test_real_headers_end_as_volume_or_refusal(shared: Path) -> None:
    """Every real file alone: a volume with finite HU, or a typed refusal that quotes nothing."""
    folder = shared / "data" / "real"
    files = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
    if not files:
        pytest.skip(f"no real files in {folder}")
    n_read = 0
    for path in files:
        try:
            volume = read_volume([path])
        except ItemRefused as refused:
            assert refused.reason in {"decode_failed", "geometry_changed", "image_blank", "image_saturated"}  # noqa: PT017
            assert path.name not in refused.detail  # noqa: PT017
        else:
            n_read += 1
            assert np.isfinite(volume.hu).all()
    assert n_read
