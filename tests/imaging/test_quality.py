"""A volume that shows nothing, or whose scale was cut, is refused by name; what scanners and metal do is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ospor_batch.errors import ItemRefused
from ospor_batch.imaging.quality import refuse_without_image
from ospor_batch.imaging.reader import read_volume
from tests.imaging.series import affine, write_enhanced, write_series

N = 40
Y, X = np.mgrid[-1 : 1 : N * 1j, -1 : 1 : N * 1j]
AWAY = np.hypot(Y, X)


@pytest.fixture(scope="module")
def trunk() -> np.ndarray:
    """Six slices: air, fat, muscle and a vertebra with its cortex, as noisy as a scan."""
    kinds = np.select([AWAY < 0.15, AWAY < 0.2, AWAY < 0.6, AWAY < 0.75], [150.0, 700.0, 50.0, -100.0], -1000.0)
    return np.rint(kinds + np.random.default_rng(2).normal(0, 15, (6, N, N))).clip(-1024)


def without_air(hu: np.ndarray) -> np.ndarray:
    return hu[:, 12:-12, 12:-12]


def metal(hu: np.ndarray) -> np.ndarray:
    """Rods that reach past the end of 12 bits."""
    return np.where(np.abs(AWAY - 0.3) < 0.04, 3071, hu)


@pytest.mark.parametrize(
    ("spoil", "reason", "says"),
    [
        (lambda hu: np.full_like(hu, -1024), "image_blank", "no slice of more than one value"),
        (lambda hu: np.full_like(hu, 3071), "image_blank", "no slice of more than one value"),
        (lambda hu: hu % 90 - 1020, "image_blank", "nothing but air"),
        (lambda hu: np.where(hu > -800, -1000, hu), "image_blank", "nothing but air"),
        (lambda hu: np.where(hu > 0, 60, 40), "image_blank", "different HU"),
        (lambda hu: np.where(hu > -300, 3071, hu), "image_saturated", "100 % of the body at 3071 HU"),
        (lambda hu: np.where(hu > -300, 4095, -1024 + hu % 2), "image_saturated", "100 % of the body at 4095 HU"),
        (lambda hu: hu.clip(-160, 240), "image_saturated", "at 240 HU, none above"),
        (lambda hu: hu.clip(-1024, 400), "image_saturated", "at 400 HU, none above"),
        (lambda hu: hu.clip(0, 2000), "image_saturated", "at 0 HU, none below"),
        (lambda hu: without_air(hu.clip(-1024, 255)), "image_saturated", "at 255 HU, none above"),
    ],
)
def test_an_image_that_shows_nothing_or_half_is_a_typed_refusal(
    tmp_path: Path, trunk: np.ndarray, spoil: object, reason: str, says: str
) -> None:
    assert callable(spoil)
    with pytest.raises(ItemRefused, match=says) as refused:
        read_volume(write_series(tmp_path, spoil(trunk), affine()))
    assert refused.value.reason == reason
    assert not refused.value.is_transient


def test_frames_of_one_file_and_padding_alone_are_blank_too(tmp_path: Path, trunk: np.ndarray) -> None:
    for number, hu in enumerate((np.full_like(trunk, 30), np.full_like(trunk, -1024))):
        with pytest.raises(ItemRefused, match="image_blank"):
            read_volume([write_enhanced(tmp_path / f"{number}.dcm", hu, affine(), order=range(6))])
    outside = np.full_like(trunk, -2000)
    outside[:, 0] += np.arange(N)  # so that no slice is even
    padding = {"PixelPaddingValue": 1000, "PixelPaddingRangeLimit": 1040}
    paths = write_series(tmp_path / "padded", outside, affine(), intercept=-3000.0, changes=padding)
    with pytest.raises(ItemRefused, match="image_blank"):
        read_volume(paths)


@pytest.mark.parametrize(
    "change",
    [
        lambda hu: hu,
        metal,
        lambda hu: hu.clip(-1024, 3071),
        lambda hu: hu.clip(-1000, 1500),  # air noise cut at the bottom, as most scanners do
        lambda hu: np.where(AWAY > 0.95, -2048, hu),  # the corners outside the circle, not declared as padding
        without_air,
        lambda hu: without_air(metal(hu)),
        lambda hu: np.pad(hu, ((0, 0), (100, 100), (100, 100)), constant_values=-1024),  # a forearm in a wide field
        lambda hu: np.minimum(hu, np.random.default_rng(0).normal(300, 20, hu.shape).round()),  # no bone in view
    ],
)
def test_what_scanners_and_implants_do_is_borne(tmp_path: Path, trunk: np.ndarray, change: object) -> None:
    assert callable(change)
    volume = read_volume(write_series(tmp_path, change(trunk), affine(), intercept=-4096.0))
    np.testing.assert_array_equal(volume.hu, change(trunk))


def test_a_large_volume_is_judged_by_a_sample_as_by_all_of_it(trunk: np.ndarray) -> None:
    large = np.tile(trunk, (3, 6, 6)).astype(np.float32)
    refuse_without_image(large)
    with pytest.raises(ItemRefused, match="image_saturated"):
        refuse_without_image(large.clip(-1024, 300))
    is_padding = large > -500
    with pytest.raises(ItemRefused, match="image_blank"):
        refuse_without_image(large, is_padding)


@pytest.mark.parametrize("value", [-1024, 0, 3071])
def test_a_slice_of_one_value_is_a_slice_that_is_missing(tmp_path: Path, trunk: np.ndarray, value: int) -> None:
    hu = trunk.copy()
    hu[[0, 2, 3]] = value
    volume = read_volume(write_series(tmp_path, hu, affine()))
    assert volume.n_missing_slices == 2  # the first lies beyond what is shown
    assert volume.is_padding is not None
    assert volume.is_padding.all(axis=(1, 2)).tolist() == [True, False, True, True, False, False]
    assert (volume.hu[[0, 2, 3]] == -1024).all()
    np.testing.assert_array_equal(volume.hu[[1, 4, 5]], hu[[1, 4, 5]])
