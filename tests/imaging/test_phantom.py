"""Rods under the patient are found wherever they lie, read as they are, and never found where there are none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

from ospor_batch.errors import ItemRefused, StudyError
from ospor_batch.imaging.phantom import find_rods, rods_of
from ospor_batch.imaging.volume import Volume
from tests.imaging.rods import LEVELS, RODS, lying, rod_hu, under
from tests.imaging.series import LPS_TO_RAS


@pytest.mark.parametrize("kvp", [80, 120, 140])
@pytest.mark.parametrize("material", ["k2hpo4", "caha"])
def test_rods_read_as_their_attenuation_says(kvp: int, material: str) -> None:
    volume, labels = lying(120.0, kvp=kvp, material=material)
    found = find_rods(volume, labels, levels=LEVELS, rods=RODS)
    assert [one.rod for one in found] == list(RODS)
    expected = [rod_hu(rod, kvp=kvp, material=material) for rod in RODS]
    np.testing.assert_allclose([one.hu for one in found], expected, atol=2)
    assert all(one.sd_hu < 12 for one in found)


@pytest.mark.parametrize("gap_mm", [0.0, 25.0])
def test_order_of_rods_axes_and_place_do_not_matter(gap_mm: float) -> None:
    volume, labels = lying(90.0, rods=(RODS[2], RODS[0], RODS[3], RODS[1]), gap_mm=gap_mm)
    straight = find_rods(volume, labels, levels=LEVELS, rods=RODS)
    flip = np.diag([-1.0, 1, -1, 1])
    flip[:3, 3] = volume.hu.shape[0] - 1, 0, volume.hu.shape[2] - 1
    turned = replace(volume, hu=volume.hu[::-1, :, ::-1], affine=volume.affine @ flip)
    assert find_rods(turned, labels[::-1, :, ::-1], levels=LEVELS, rods=RODS[::-1]) == straight[::-1]
    np.testing.assert_allclose([one.hu for one in straight], [rod_hu(rod) for rod in RODS], atol=2)


def test_rods_of_two_diameters_are_told_apart() -> None:
    rods = rods_of(("0 mg/cm3 26 mm", "75 mg/cm3 18 mm", "150 mg/cm3 26 mm"))
    volume, labels = lying(90.0, rods=rods)
    found = find_rods(volume, labels, levels=LEVELS, rods=rods)
    np.testing.assert_allclose([one.hu for one in found], [rod_hu(rod) for rod in rods], atol=2)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        ({"rods": ()}, "phantom_missing"), ({"rods": RODS[:3]}, "phantom_missing"),
        ({"rods": tuple(replace(rod, diameter_mm=30.0) for rod in RODS)}, "phantom_missing"),
        ({"pixel_mm": 5.0}, "phantom_unresolved"), ({"scale": -1.0}, "phantom_missing"),
    ],
)  # fmt: skip
def test_a_phantom_that_is_not_there_is_a_typed_refusal(spoil: dict[str, object], reason: str) -> None:
    volume, labels = lying(90.0, **spoil)  # type: ignore[arg-type]
    with pytest.raises(ItemRefused) as refused:
        find_rods(volume, labels, levels=LEVELS, rods=RODS)
    assert refused.value.reason == reason


def test_levels_out_of_view_are_said() -> None:
    volume, labels = lying(90.0)
    with pytest.raises(ItemRefused, match="levels_missing"):
        find_rods(volume, np.zeros_like(labels), levels=LEVELS, rods=RODS)


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (("0 mg/cm3 18 mm", "50 mg/cm3", "100 mg/cm3 18 mm"), "'50 mg/cm3' is no rod"),
        (("0 mg/cm3 18 mm", "50 mg/cm3 18 mm"), "expected 3 or more, each of another density; found 2"),
        (("0 mg/cm3 18 mm", "50 mg/cm3 18 mm", "50 mg/cm3 20 mm"), "each of another density"),
        (("0 mg/cm3 0 mm", "50 mg/cm3 18 mm", "90 mg/cm3 20 mm"), "is no rod"),
    ],
)
def test_rods_that_cannot_be_are_named(texts: tuple[str, ...], said: str) -> None:
    with pytest.raises(StudyError, match=said):
        rods_of(texts)


def real_volumes(folder: Path) -> Iterator[tuple[Volume, np.ndarray, dict[str, int]]]:
    """Every real NIfTI CT with a map of labels of its shape beside it."""
    for path in sorted(folder.rglob("*.nii.gz")):
        image = nibabel.load(path)
        hu = np.asanyarray(image.dataobj)
        if not hu.min() < 0:
            continue
        for beside in sorted(path.parent.glob("*.nii.gz")):
            if beside != path and nibabel.load(beside).shape == image.shape:
                labels = np.asanyarray(nibabel.load(beside).dataobj).astype(np.int32)
                known = {f"L{at}": int(label) for at, label in enumerate(np.unique(labels[labels > 0])[:4], start=1)}
                yield Volume(hu.astype(np.float32), LPS_TO_RAS @ image.affine), labels, known
                break


def test_real_tables_are_no_phantoms_and_rods_in_them_are_found(shared: Path) -> None:
    n_tried = 0
    for volume, labels, levels in real_volumes(shared / "data" / "real"):
        with pytest.raises(ItemRefused) as refused:
            find_rods(volume, labels, levels=levels, rods=RODS)
        assert refused.value.reason in {"phantom_missing", "phantom_unresolved"}
        if refused.value.reason == "phantom_missing" and volume.hu.shape[2] * volume.spacing[2] > 250:
            found = find_rods(*under(volume, labels), levels=levels, rods=RODS)
            np.testing.assert_allclose([one.hu for one in found], [rod_hu(rod) for rod in RODS], atol=4)
            n_tried += 1
    if not n_tried:
        pytest.skip("no real CT of a whole trunk with masks")
