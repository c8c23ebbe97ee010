"""A JPEG 2000 image at a part of its resolution: near the means of its pixels, in its place; whatever does not fit is whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import UID, JPEG2000Lossless, JPEGLSLossless

from ospor_batch.errors import StudyError
from ospor_batch.imaging.coarse import coarse_frame
from ospor_batch.imaging.decoding import frames_of
from ospor_batch.imaging.radiograph import read_radiograph
from ospor_batch.inference.items import Item, read_pixels
from ospor_batch.models.cxr_osteoporosis import RECIPE
from ospor_batch.models.registry import spec_of
from ospor_batch.synthetic.pixel_codecs import encode, put_pixels
from tests.imaging.films import chest, write_film


def film(folder: Path, *, size: int = 512, syntax: UID = JPEG2000Lossless, signed: bool = False, **changes: object) -> Path:
    stored = np.clip(4000 * chest(size), 0, 4095).astype(np.int16) - (2048 if signed else 0)
    path = write_film(folder / "film.dcm", stored, **changes)
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = syntax
    put_pixels(dataset, encode(stored if signed else stored.astype(np.uint16), syntax=syntax, bits_stored=12), syntax=syntax)
    dataset.save_as(path)
    return path


@pytest.mark.parametrize("signed", [False, True])
def test_values_are_near_the_means_of_the_whole(tmp_path: Path, signed: bool) -> None:
    dataset = pydicom.dcmread(film(tmp_path, signed=signed))
    whole = frames_of(dataset)[0]
    found = coarse_frame(dataset, least_pixels=128)
    assert found is not None
    values, halved = found
    assert (values.shape, halved) == ((128, 128), 2)
    means = whole.reshape(128, 4, 128, 4).mean(axis=(1, 3))
    assert np.abs(values - means).mean() < 0.02 * np.ptp(whole)
    assert abs(float(values.mean() - means.mean())) < 0.005 * np.ptp(whole)


def test_a_radiograph_keeps_its_field_and_its_extent(tmp_path: Path) -> None:
    path = film(tmp_path)
    whole, coarse = read_radiograph([path]), read_radiograph([path], least_pixels=128)
    assert coarse.image.shape == (128, 128)
    assert np.abs(np.array(coarse.field) - whole.field).max() <= 8
    assert whole.spacing_mm is not None
    assert coarse.spacing_mm == tuple(4 * step for step in whole.spacing_mm)
    assert coarse.flags == whole.flags
    means = whole.image.reshape(128, 4, 128, 4).mean(axis=(1, 3))
    assert np.abs(coarse.image - means).mean() < 0.02


@pytest.mark.parametrize(
    ("changes", "least"),
    [
        ({"syntax": JPEGLSLossless}, 128),
        ({"PixelPaddingValue": 0}, 128),
        ({"PixelRepresentation": 1}, 128),  # the codestream is unsigned
        ({}, 257),  # half of it is less
        ({"size": 509}, 64),  # which Pillow takes for broken
    ],
    ids=["another syntax", "padding", "unlike its header", "too small", "no power of two"],
)
def test_what_does_not_fit_is_decoded_whole(tmp_path: Path, changes: dict[str, object], least: int) -> None:
    path = film(tmp_path, **changes)  # type: ignore[arg-type]
    dataset = pydicom.dcmread(path)
    assert coarse_frame(dataset, least_pixels=least) is None
    whole, asked = read_radiograph([path]), read_radiograph([path], least_pixels=least)
    np.testing.assert_array_equal(whole.image, asked.image)
    assert whole.field == asked.field


def test_a_broken_codestream_is_left_to_those_who_decode_whole(tmp_path: Path) -> None:
    path = film(tmp_path)
    dataset = pydicom.dcmread(path)
    data = bytearray(dataset.PixelData)
    data[200:] = bytes(len(data) - 200)
    dataset.PixelData = bytes(data)
    assert coarse_frame(dataset, least_pixels=128) is None


def test_the_recipe_decodes_whole_unless_it_is_told_otherwise() -> None:
    assert RECIPE.defaults["least_decoded_pixels"] == 0
    assert "least_decoded_pixels" in RECIPE.reading
    with pytest.raises(StudyError, match="least_decoded_pixels is 100, expected 0"):
        RECIPE.check({**RECIPE.defaults, "least_decoded_pixels": 100})


def test_predicting_may_see_a_part_and_training_sees_the_whole(tmp_path: Path) -> None:
    parameters = {"image_pixels": 64, "least_decoded_pixels": 128}
    spec = spec_of("cxr_osteoporosis", parameters=parameters, pattern="*", labels={})
    whole = spec_of("cxr_osteoporosis", parameters={"image_pixels": 64}, pattern="*", labels={})
    assert spec.parameter_digest != whole.parameter_digest
    item = Item("0", "0", "north", (film(tmp_path),), ())
    predicted, learned = read_pixels(item, spec).radiograph, read_pixels(item, spec, is_whole=True).radiograph
    assert predicted is not None
    assert learned is not None
    assert (predicted.image.shape, learned.image.shape) == ((128, 128), (512, 512))
