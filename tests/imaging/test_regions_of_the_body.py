"""Orientation, body, tissues, areas and levels on bodies whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ospor_batch.errors import ItemRefused
from ospor_batch.imaging.body_areas import muscle_and_fat_areas
from ospor_batch.imaging.levels import judged_levels, level_flags
from ospor_batch.imaging.lungs import lung_fields, lung_region
from ospor_batch.imaging.orientation import body_box, body_mask, canonical, cropped
from ospor_batch.imaging.radiograph import normalised
from ospor_batch.imaging.regions import trabecular_roi
from ospor_batch.imaging.tissues import TISSUES, sample_tissues
from ospor_batch.imaging.volume import Volume
from ospor_batch.synthetic.ct import Sampling, Scan, scan
from ospor_batch.synthetic.painter import TISSUE_CODES
from ospor_batch.synthetic.physics import tissue_hu
from ospor_batch.synthetic.population import Rates, people
from ospor_batch.synthetic.radiograph import radiograph
from tests.imaging.films import chest
from tests.imaging.series import affine

PERSON = people("west", range(1, 2), seed=7, night=0, rates=Rates(0, 0, 0, 0), is_planted=False)[0]
LEVELS = {"L1": 20, "L2": 21, "L3": 22, "L4": 23}


@pytest.fixture(scope="module")
def made() -> tuple[Scan, Volume]:
    found = scan(
        PERSON, sampling=Sampling(128), spacing_mm=4.0, thickness_mm=4.0, is_contrast=False, protocol="spine", tilt_deg=0.0
    )
    x, y, z = found.grid.step
    to_lps = affine(spacing=(z, y, x), origin=found.grid.origin)
    return found, Volume(found.hu.astype(np.float32), to_lps)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
@pytest.mark.parametrize("flips", [(), (0,), (1, 2), (0, 1, 2)])
def test_canonical_undoes_any_order_of_axes(order: tuple[int, ...], flips: tuple[int, ...]) -> None:
    hu = np.arange(4 * 5 * 6, dtype=np.float32).reshape(4, 5, 6)
    turn = np.zeros((4, 4))
    turn[3, 3] = 1
    for axis, source in enumerate(order):
        turn[source, axis] = -1 if axis in flips else 1
        turn[source, 3] += hu.shape[source] - 1 if axis in flips else 0
    other = Volume(np.flip(hu.transpose(order), flips), affine() @ turn)
    back, labels = canonical(other, other.hu.astype(np.int32))
    np.testing.assert_array_equal(back.hu, hu)
    np.testing.assert_allclose(back.affine, affine(), atol=1e-9)
    assert labels is not None
    np.testing.assert_array_equal(labels, hu)


def test_the_body_is_found_without_couch_and_cropping_keeps_places(made: tuple[Scan, Volume]) -> None:
    found, volume = made
    body = body_mask(volume)
    tissue = found.tissue
    is_patient = np.isin(tissue, [TISSUE_CODES[name] for name in ("muscle", "fat", "bone", "liver")])
    assert body[is_patient].mean() > 0.97
    behind = np.argwhere(is_patient)[:, 1].max()
    assert body[:, behind + 4 :].sum() == 0  # the couch lies there
    box = body_box(body, spacing=volume.spacing, margin_mm=5.0)
    part = cropped(volume, box)
    assert part.hu.size < volume.hu.size
    index = np.array([2, 3, 4])
    first = np.array([cut.start for cut in box])
    np.testing.assert_allclose(
        part.affine[:3, :3] @ index + part.affine[:3, 3], volume.affine[:3, :3] @ (index + first) + volume.affine[:3, 3]
    )
    with pytest.raises(ItemRefused, match="body_missing"):
        body_mask(Volume(np.full((3, 40, 40), -1000, np.float32), affine()))


def test_tissues_read_as_they_are(made: tuple[Scan, Volume]) -> None:
    found, volume = made
    labels = found.labels.astype(np.int32)
    samples = sample_tissues(volume, labels, levels={"L1": 20, "L2": 21}, tissues=TISSUES)
    assert list(samples) == list(TISSUES)
    near = (labels > 0).any(axis=(1, 2))
    muscle = np.median(volume.hu[near][found.tissue[near] == TISSUE_CODES["muscle"]])  # strands of fat included
    assert samples["muscle"].hu == pytest.approx(muscle, abs=8)
    assert samples["fat"].hu == pytest.approx(tissue_hu("fat", 120), abs=12)  # a thin ring: edges count
    assert samples["blood"].hu == pytest.approx(tissue_hu("blood", 120), abs=8)
    assert samples["air"].hu == pytest.approx(-1000, abs=5)
    assert all(sample.volume_ml > 0.5 and sample.sd_hu > 0 for sample in samples.values())


def test_tissues_do_not_depend_on_the_matrix_or_the_order_of_axes(made: tuple[Scan, Volume]) -> None:
    found, volume = made
    labels = found.labels.astype(np.int32)
    plain = sample_tissues(volume, labels, levels=LEVELS, tissues=("muscle", "fat"))
    finer = Volume(volume.hu.repeat(2, axis=1).repeat(2, axis=2), affine(spacing=(4.0, 1.5625, 1.5625)))
    fine = sample_tissues(finer, labels.repeat(2, axis=1).repeat(2, axis=2), levels=LEVELS, tissues=("muscle", "fat"))
    flipped = replace(volume, hu=volume.hu[::-1, :, ::-1], affine=volume.affine @ np.diag([-1.0, 1, -1, 1]))
    turned = sample_tissues(flipped, labels[::-1, :, ::-1], levels=LEVELS, tissues=("muscle", "fat"))
    for tissue, one in plain.items():
        assert fine[tissue].hu == pytest.approx(one.hu, abs=4)
        assert turned[tissue].hu == one.hu


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda hu: np.where((hu > -29) & (hu < 150), 300, hu), "muscle_missing"),
        (lambda hu: np.where((hu > -190) & (hu < -30), 60, hu), "fat_missing"),
        (lambda hu: np.maximum(hu, 40), "fat_missing"),  # no skin in view
        (lambda hu: np.full_like(hu, -1000), "body_missing"),
    ],
)
def test_a_tissue_that_is_not_in_the_field_is_said(made: tuple[Scan, Volume], spoil: object, reason: str) -> None:
    found, volume = made
    spoiled = replace(volume, hu=spoil(volume.hu).astype(np.float32))  # type: ignore[operator]
    with pytest.raises(ItemRefused) as refused:
        sample_tissues(spoiled, found.labels.astype(np.int32), levels={"L1": 20}, tissues=("muscle", "fat"))
    assert refused.value.reason == reason
    with pytest.raises(ItemRefused, match="levels_missing"):
        sample_tissues(volume, found.labels.astype(np.int32), levels={"T8": 15}, tissues=("muscle",))


def test_areas_of_muscle_and_fat_are_near_the_truth(made: tuple[Scan, Volume]) -> None:
    """At L3 within a quarter for muscle and a tenth for fat under the skin; organs that touch the wall are the rest."""
    found, volume = made
    labels = found.bodies.astype(np.int32)
    areas = muscle_and_fat_areas(volume, labels, level="L3", levels=LEVELS)
    middle = int(np.argwhere(labels == 22)[:, 0].mean())
    cm2 = volume.spacing[1] * volume.spacing[2] / 100
    truth = {name: (found.tissue[middle] == TISSUE_CODES[name]).sum() * cm2 for name in ("muscle", "fat", "visceral_fat")}
    assert areas.muscle_cm2 == pytest.approx(truth["muscle"], rel=0.25)
    assert areas.subcutaneous_fat_cm2 == pytest.approx(truth["fat"], rel=0.2)
    assert areas.visceral_fat_cm2 == pytest.approx(truth["visceral_fat"], rel=0.25)
    assert 0 < areas.muscle_hu < 60
    assert not areas.is_cut_off
    inner = cropped(volume, (slice(None), slice(30, 100), slice(40, 90)))
    cut = muscle_and_fat_areas(inner, labels[:, 30:100, 40:90], level="L3", levels=LEVELS)
    assert cut.is_cut_off
    with pytest.raises(ItemRefused, match="levels_missing"):
        muscle_and_fat_areas(volume, labels, level="T8", levels={"T8": 15})


def blocks(heights: dict[int, int], *, size: int = 6) -> tuple[Volume, np.ndarray]:
    """Labels as blocks of a spine, label to its first slice of 3 mm."""
    labels = np.zeros((80, 20, 20), np.int32)
    for label, first in heights.items():
        labels[first : first + size, 5:15, 5:15] = label
    return Volume(labels.astype(np.float32), affine()), labels


def test_a_regular_spine_is_certain() -> None:
    judged = judged_levels(*blocks({20: 50, 21: 39, 22: 28, 23: 17}), levels=LEVELS)
    assert [level.name for level in judged] == ["L1", "L2", "L3", "L4"]
    assert all(level.confidence == 1 and not level.doubts for level in judged)
    assert level_flags(judged) == ()


@pytest.mark.parametrize(
    ("heights", "doubtful", "doubt"),
    [
        ({20: 39, 21: 50, 22: 28, 23: 17}, {"L1", "L2"}, "out_of_order"),
        ({20: 61, 21: 39, 22: 28, 23: 17}, {"L1"}, "distance"),  # one between was left out
        ({21: 30}, {"L2"}, "alone"),
    ],
)
def test_a_spine_that_cannot_be_is_doubted(heights: dict[int, int], doubtful: set[str], doubt: str) -> None:
    judged = judged_levels(*blocks(heights), levels=LEVELS)
    assert {level.name for level in judged if doubt in level.doubts} >= doubtful
    assert all(level.confidence <= 0.5 for level in judged if level.name in doubtful)


def test_two_vertebrae_under_one_label_and_a_fragment_are_doubted() -> None:
    volume, labels = blocks({20: 50, 21: 39, 22: 28, 23: 17})
    labels[labels == 20] = 21
    assert "in_pieces" in next(level for level in judged_levels(volume, labels, levels=LEVELS) if level.name == "L2").doubts
    volume, labels = blocks({20: 50, 21: 39, 22: 28, 23: 17})
    labels[39:45, :11][labels[39:45, :11] == 21] = 0
    assert any("size" in level.doubts for level in judged_levels(volume, labels, levels=LEVELS))


def test_the_trabecular_roi_loses_millimetres_not_voxels() -> None:
    labels = np.zeros((20, 40, 40), np.int32)
    labels[4:14, 10:30, 10:30] = 20
    for spacing in ((3.0, 1.0, 1.0), (1.0, 1.0, 1.0)):
        volume = Volume(labels.astype(np.float32), affine(spacing=spacing))
        roi = trabecular_roi(volume, labels, levels=LEVELS, erosion_mm=3.0)
        rows = np.flatnonzero((roi == 20).any(axis=(0, 2)))
        assert (rows[0], rows[-1]) == (13, 26)
        slices = np.flatnonzero((roi == 20).any(axis=(1, 2)))
        assert (slices[0] - 4) * spacing[0] == pytest.approx(3.0, abs=spacing[0])
    assert not trabecular_roi(volume, labels, levels=LEVELS, erosion_mm=30.0).any()
    assert trabecular_roi(volume, labels, levels=LEVELS, erosion_mm=0.0) is labels


def test_lungs_are_dark_and_on_both_sides() -> None:
    image, _, _ = normalised(chest(160))
    lungs = lung_fields(image)
    assert lungs[:, :80].mean() > 0.1
    assert lungs[:, 80:].mean() > 0.1
    assert image[lungs].mean() < 0.5 * image[~lungs].mean()
    inside, outside = lung_region(image, "lung_fields"), lung_region(image, "outside_lungs")
    assert inside.shape == (np.ptp(np.nonzero(lungs)[0]) + 1, np.ptp(np.nonzero(lungs)[1]) + 1)
    assert inside.sum() + outside.sum() == pytest.approx(image.sum(), rel=1e-4)
    made, _, _ = normalised(radiograph(PERSON, matrix=128, view="PA"))
    assert made[lung_fields(made)].mean() < made.mean()
    with pytest.raises(ItemRefused, match="lungs_missing"):
        lung_fields(np.ones((90, 90), np.float32))
