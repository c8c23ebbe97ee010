"""However a vendor stores a radiograph, the same picture comes out: bright is dense, 0 to 1 within the field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from ospor_batch.errors import ItemRefused
from ospor_batch.imaging.radiograph import looks, normalised, read_radiograph
from ospor_batch.synthetic.population import Rates, people
from ospor_batch.synthetic.radiograph import radiograph
from tests.imaging.films import chest, write_film

STEP = 2 / 4095  # two gray values of 12 bits over the field's range
CHEST = np.rint(np.clip(chest(), 0, 1) * 4095)
AS_IT_IS, _, _ = normalised(CHEST)


def read(path: Path, stored: np.ndarray, **how: Any) -> Any:
    return read_radiograph([write_film(path / "film.dcm", stored, **how)])


def test_the_plain_case(tmp_path: Path) -> None:
    film = read(tmp_path, CHEST)
    assert film.image.dtype == np.float32
    assert (film.image.min(), film.image.max()) == (0.0, 1.0)
    np.testing.assert_array_equal(film.image, AS_IT_IS)
    assert film.spacing_mm == (0.2, 0.3)
    assert film.flags == ()


def table(entries: np.ndarray, *, first: int = 0, bits: int = 16) -> Dataset:
    lut = Dataset()
    lut.add_new("LUTDescriptor", "US", [len(entries), first, bits])
    lut.add_new("LUTData", "OW", entries.astype(np.uint16).tobytes())
    return lut


@pytest.mark.parametrize(
    ("stored", "how", "flags"),
    [
        (4095 - CHEST, {"photometric": "MONOCHROME1"}, ("monochrome1",)),
        (CHEST - 2000, {"bits": 16}, ()),  # signed
        (CHEST, {"RescaleSlope": 3.0, "RescaleIntercept": -77.0}, ()),
        (CHEST, {"WindowCenter": 2048, "WindowWidth": 4096}, ("voi_lut",)),
        (CHEST, {"WindowCenter": [2048, 9], "WindowWidth": [4096, 1]}, ("voi_lut",)),  # the first of two
        (CHEST, {"VOILUTSequence": [table(np.arange(4096) * 16)]}, ("voi_lut",)),
        (4095 - CHEST, {"VOILUTSequence": [table(np.arange(4096)[::-1] * 16)]}, ("voi_lut",)),
        (4095 - CHEST, {"ModalityLUTSequence": [table(np.arange(4096)[::-1])]}, ()),
        (CHEST, {"WindowCenter": 90000, "WindowWidth": 10}, ("voi_not_used",)),  # hides everything
        (CHEST, {"WindowCenter": 2048, "WindowWidth": 0}, ("voi_not_used",)),  # forbidden by PS3.3 C.11.2
        (CHEST[:, ::-1], {"PatientOrientation": ["R", "F"]}, ("turned",)),
        (CHEST[::-1, ::-1], {"PatientOrientation": ["R", "H"]}, ("turned",)),
        (CHEST, {"PatientOrientation": ["L", "F"]}, ()),
    ],
)  # fmt: skip
def test_the_same_picture_whatever_the_header(tmp_path: Path, stored: np.ndarray, how: Any, flags: tuple[str, ...]) -> None:
    film = read(tmp_path, stored, **how)
    assert film.flags == flags
    np.testing.assert_allclose(film.image, AS_IT_IS, atol=STEP)


def test_a_lut_is_preferred_to_a_window(tmp_path: Path) -> None:
    film = read(tmp_path, CHEST, WindowCenter=100, WindowWidth=50, VOILUTSequence=[table(np.arange(4096) * 16)])
    np.testing.assert_allclose(film.image, AS_IT_IS, atol=STEP)


def test_a_window_clips_as_a_viewer_does(tmp_path: Path) -> None:
    film = read(tmp_path, CHEST, WindowCenter=1500, WindowWidth=2000)
    expected, _, _ = normalised(np.clip(CHEST, 500.5, 2499.5))
    np.testing.assert_allclose(film.image, expected, atol=STEP)


@pytest.mark.parametrize(("relation", "sign"), [("LIN", 1), ("LOG", 1), ("LOG", -1)])
def test_a_detectors_signal_becomes_density(tmp_path: Path, relation: str, sign: int) -> None:
    density = np.clip(chest(), 0, 1)
    if relation == "LIN":
        stored = np.rint(60000 * np.exp(-3 * density))
    else:
        stored = np.rint(60000 * (density if sign < 0 else 1 - density))
    film = read(
        tmp_path, stored, bits=16, is_for_processing=True, PixelIntensityRelationship=relation,
        PixelIntensityRelationshipSign=sign,
    )  # fmt: skip
    assert film.flags == ("for_processing",)
    np.testing.assert_allclose(film.image, AS_IT_IS, atol=0.003)


def test_shutters_are_cut_and_do_not_move_the_scale(tmp_path: Path) -> None:
    framed = np.full((130, 120), 4095.0)
    framed[20:116, 10:106] = CHEST
    film = read(tmp_path, framed)
    assert film.field == (20, 116, 10, 106)
    assert film.flags == ("cropped",)
    np.testing.assert_allclose(film.image, AS_IT_IS, atol=STEP)


def test_padding_is_dark_and_does_not_move_the_scale(tmp_path: Path) -> None:
    stored = CHEST.copy()
    stored[40:44, 40:50] = 4000
    plain = read(tmp_path, stored)
    padded = read(tmp_path, np.where(stored == 4000, 5000, stored), bits=16, PixelPaddingValue=5000)
    assert "padded" in padded.flags
    assert (padded.image[40:44, 40:50] == 0).all()
    assert np.abs(np.delete(padded.image, range(40, 44), 0) - np.delete(plain.image, range(40, 44), 0)).max() < 0.02


@pytest.mark.parametrize(
    ("how", "spacing"),
    [
        ({"PixelSpacing": [0.14, 0.14]}, (0.2, 0.3)),
        ({"ImagerPixelSpacing": None, "PixelSpacing": [0.14, 0.15]}, (0.14, 0.15)),
        ({"ImagerPixelSpacing": [0, 0], "NominalScannedPixelSpacing": [0.5, 0.5]}, (0.5, 0.5)),
        ({"ImagerPixelSpacing": None}, None),
    ],
)
def test_the_spacing_that_can_be(tmp_path: Path, how: Any, spacing: tuple[float, float] | None) -> None:
    film = read(tmp_path, CHEST, **how)
    assert film.spacing_mm == spacing
    assert ("spacing_missing" in film.flags) == (spacing is None)


@pytest.mark.parametrize(
    ("stored", "how", "reason"),
    [
        (np.zeros((64, 64)), {}, "image_blank"),
        (np.tile([1.0, 2.0], (64, 32)), {}, "image_blank"),
        (np.where(CHEST > 700, 4095, CHEST), {}, "image_saturated"),
        (np.where(CHEST < 3000, 0, CHEST), {}, "image_saturated"),
        (np.stack([CHEST, CHEST]), {}, "several_radiographs"),
        (CHEST, {"photometric": "PALETTE COLOR"}, "decode_failed"),
        (CHEST, {"PixelData": b"12"}, "decode_failed"),
        (CHEST, {"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 4095}, "image_blank"),
    ],
)
def test_what_shows_no_chest_is_refused(tmp_path: Path, stored: np.ndarray, how: Any, reason: str) -> None:
    with pytest.raises(ItemRefused) as refused:
        read(tmp_path, stored, **how)
    assert refused.value.reason == reason
    assert "Secret" not in str(refused.value)
    assert str(tmp_path) not in str(refused.value)


def test_of_two_views_the_frontal_one_is_read(tmp_path: Path) -> None:
    frontal = write_film(tmp_path / "a.dcm", CHEST, ViewPosition="PA")
    beside = write_film(tmp_path / "b.dcm", CHEST[::-1], ViewPosition="LL")
    film = read_radiograph([beside, frontal])
    assert "several_images" in film.flags
    np.testing.assert_array_equal(film.image, AS_IT_IS)
    with pytest.raises(ItemRefused, match="several_radiographs"):
        read_radiograph([frontal, frontal])
    with pytest.raises(ItemRefused, match="file_missing"):
        read_radiograph([tmp_path / "gone.dcm"])


@settings(max_examples=25, deadline=None)
@given(slope=st.floats(0.1, 20), shift=st.floats(-5000, 5000), grain=st.integers(0, 2**31 - 1))
def test_exposure_does_not_show(slope: float, shift: float, grain: int) -> None:
    values = CHEST + np.random.default_rng(grain).normal(0, 20, CHEST.shape)
    plain, field, _ = normalised(values)
    other, same_field, _ = normalised(slope * values + shift)
    assert field == same_field
    np.testing.assert_allclose(plain, other, atol=2e-3)
    assert np.isfinite(other).all()


@pytest.mark.parametrize("view", ["PA", "AP", "LATERAL"])
@pytest.mark.parametrize("center", ["north", "west"])
def test_view_and_inversion_are_seen_on_the_pixels(view: Any, center: str) -> None:
    for person in people(center, range(1, 3), seed=7, night=0, rates=Rates(0.1, 0.1, 0.1, 0.1)):
        made = radiograph(person, matrix=96, view=view).astype(float)
        found = normalised(made)[2]
        assert "looks_inverted" not in found
        assert ("looks_lateral" in found) == (view == "LATERAL")
        assert ("looks_inverted" in normalised(-made)[2]) == (view != "LATERAL")


def test_real_radiographs_come_out_alike(shared: Path) -> None:
    """Dark lungs beside a bright middle on every real chest; the one whose header lies is flagged."""
    folder = shared / "data" / "real" / "cxr"
    paths = [path for path in sorted(folder.glob("*")) if path.suffix != ".png"] if folder.is_dir() else []
    if not paths:
        pytest.skip("no real radiographs")
    for path in paths:
        film = read_radiograph([path])
        assert np.isfinite(film.image).all()
        assert (film.image.min(), film.image.max()) == (0.0, 1.0)
        assert ("looks_inverted" in film.flags) == ("fake" in path.name)
        assert "looks_lateral" not in film.flags
        assert film.spacing_mm is None or min(film.spacing_mm) > 0
        assert looks(1 - film.image).count("looks_inverted") == 1 - film.flags.count("looks_inverted")
