"""Inputs of the radiograph recipe: region, square, size and normalisation, and what is refused."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from ospor_batch.errors import ItemRefused, StudyError
from ospor_batch.imaging.masks import MaskRule
from ospor_batch.imaging.radiograph import Radiograph
from ospor_batch.models.cxr_osteoporosis import RECIPE, REGIONS, padded_square, region_of
from ospor_batch.models.registry import spec_of
from ospor_batch.models.spec import Pixels
from ospor_batch.models.trainable import IMAGE, Preparing


def prepared(image: npt.NDArray[np.float32], *, flags: tuple[str, ...] = (), **parameters: object) -> npt.NDArray[np.float16]:
    read = Radiograph(image.astype(np.float32), (0.5, 0.5), (0, *image.shape, 0)[:4], flags)  # type: ignore[arg-type]
    preparing = Preparing({**RECIPE.defaults, "image_pixels": 32, **parameters}, MaskRule("*", ()))
    found: npt.NDArray[np.float16] = RECIPE.prepare(Pixels(radiograph=read), preparing).arrays[IMAGE]
    return found


def ramp(rows: int = 40, columns: int = 60) -> npt.NDArray[np.float32]:
    return np.linspace(0, 1, rows * columns, dtype=np.float32).reshape(rows, columns)


def test_an_image_becomes_a_normalised_square() -> None:
    found = prepared(ramp())
    assert found.shape == (1, 1, 32, 32)
    assert float(found.astype(np.float32).mean()) == pytest.approx(0, abs=1e-2)
    assert float(found.astype(np.float32).std()) == pytest.approx(1, abs=1e-2)
    plain = prepared(ramp(), normalise="none")
    assert 0 <= float(plain.min()) <= float(plain.max()) <= 1


def test_padding_stretches_nothing() -> None:
    square = padded_square(ramp(40, 60) + 1)
    assert square.shape == (60, 60)
    assert np.array_equal(square[10:50], ramp(40, 60) + 1)
    assert (square[:10] == 1).all()


def test_regions_are_parts_of_the_image() -> None:
    image = ramp(100, 100)
    assert np.array_equal(region_of(image, "whole"), image)
    assert np.array_equal(np.concatenate([region_of(image, "upper"), region_of(image, "lower")]), image)
    assert np.array_equal(np.concatenate([region_of(image, "right"), region_of(image, "left")], axis=1), image)
    assert all(region_of(image[:3, :3], name).size for name in REGIONS)


def test_what_cannot_be_scored_is_refused_with_its_reason() -> None:
    with pytest.raises(ItemRefused, match="looks_lateral"):
        prepared(ramp(), flags=("looks_lateral",))
    assert prepared(ramp(), flags=("looks_lateral",), refuse_lateral=False).size
    with pytest.raises(ItemRefused, match="image_blank: the region spine shows nothing"):
        prepared(np.ones((40, 60), np.float32), region="spine")


def test_an_inverted_image_is_turned_over() -> None:
    upright, inverted = prepared(ramp()), prepared(1 - ramp(), flags=("looks_inverted",))
    assert np.allclose(upright, inverted, atol=2e-2)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"region": "heart"}, "parameters.region is 'heart', expected one of whole, upper"),
        ({"image_pixels": 8}, "parameters.image_pixels is 8, expected 16 to 4096"),
        ({"normalise": "z"}, "parameters.normalise is 'z', expected image or none"),
        ({"image_pixels": "256"}, "parameters.image_pixels of cxr_osteoporosis is '256', expected a whole number such as 512"),
        ({"image_size": 256}, "unknown image_size"),
        ({"also_learns": ("smoking",)}, "parameters.also_learns: 'smoking', expected some of is_female, age_at_image"),
        ({"also_learns": ("height_m", "height_m")}, "parameters.also_learns names one twice: height_m, height_m"),
        ({"also_learns_weight": -1.0}, "parameters.also_learns_weight is -1, expected 0 or more"),
        ({"epochs": 0}, "parameters.epochs is 0, expected 1 or more"),
        ({"batch_size": 1}, "parameters.batch_size is 1, expected 2 or more"),
        ({"learning_rate": 0}, "parameters.learning_rate is 0, expected more than 0"),
    ],
)
def test_a_parameter_that_cannot_be_is_named(given: dict[str, object], said: str) -> None:
    with pytest.raises(StudyError, match=said):
        spec_of("cxr_osteoporosis", parameters=given, pattern="*", labels={})  # type: ignore[arg-type]
