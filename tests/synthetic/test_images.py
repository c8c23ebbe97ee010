"""Images and masks lie where they say, and hold the CT numbers that the declared line gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.pixels import apply_voi_lut

from ospor_batch.synthetic.anatomy import FIRST_LABEL
from ospor_batch.synthetic.ct import LINES, PROTOCOLS, Sampling, expected_hu, scan
from ospor_batch.synthetic.faults import NO_FAULT
from ospor_batch.synthetic.population import LEVEL_OFFSET_MG_CM3, LEVELS, Rates, people
from ospor_batch.synthetic.scout import SOURCE_MM, scout, water_path_cm
from tests.synthetic.conftest import Found, Generated, volume_of

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
Labels = NDArray[np.uint8]
HARDENING_AT_MOST_HU = 4.0  # in trunks far from the one that scanners are set for


def index_series(tiny: Generated, center: str, number: str) -> list[Found]:
    """The plain axial series of a person, each slice once."""
    files = [f for f in tiny.files[center, number] if f.header.Modality == "CT" and f.header.SeriesNumber == 2]
    return list({f.header.SOPInstanceUID: f for f in files}.values())


def from_nifti(path: Path, shape: tuple[int, ...], affine: NDArray[np.float64]) -> Labels:
    """Labels on the grid of the images, each mask voxel carried there by the two affines alone."""
    mask = nib.load(path)
    voxels = np.argwhere(np.asarray(mask.dataobj) > 0)
    world = mask.affine @ np.c_[voxels, np.ones(len(voxels))].T
    there = np.linalg.inv(LPS_TO_RAS @ affine) @ world
    where = np.rint(there[:3]).astype(int)
    assert np.abs(there[:3] - where).max() < 0.01, "mask voxels must fall on image voxels"
    labels = np.zeros(shape, dtype=np.uint8)
    labels[tuple(where)] = np.asarray(mask.dataobj)[tuple(voxels.T)]
    return labels


def from_seg(seg: Found, shape: tuple[int, ...], affine: NDArray[np.float64]) -> Labels:
    """Labels from a DICOM SEG by its per-frame positions."""
    labels = np.zeros(shape, dtype=np.uint8)
    frames = seg.header.pixel_array
    named = {s.SegmentNumber: s.SegmentLabel for s in seg.header.SegmentSequence}
    for frame, groups in zip(frames, seg.header.PerFrameFunctionalGroupsSequence, strict=True):
        position = np.array([*map(float, groups.PlanePositionSequence[0].ImagePositionPatient), 1.0])
        i, j, k = np.linalg.inv(affine)[:3] @ position
        assert abs(i) < 1e-3
        assert abs(j) < 1e-3
        level = named[groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber]
        labels[:, :, round(k)][frame.T > 0] = FIRST_LABEL + LEVELS.index(level)
    return labels


def sound(tiny: Generated) -> list[tuple[str, str, float]]:
    """(center, number, vBMD) of everyone with a whole plain CT and a mask."""
    at_fault = {"missing_mask", "truncated_pixels", "truncated_header", "missing_slice", "contrast_only", "radiograph_only",
                "mixed_orientation"}  # fmt: skip
    rows = tiny.truth.filter(~tiny.truth["fault"].is_in(list(at_fault)))
    return [(r["center"], r["patient_id"], r["expected_mean_hu"]) for r in rows.iter_rows(named=True)]


def labels_of(tiny: Generated, center: str, number: str, files: list[Found], affine: NDArray[np.float64]) -> Labels:
    columns, rows = files[0].header.Columns, files[0].header.Rows
    shape = (columns, rows, len(files))
    if center == "west":
        (seg,) = [f for f in tiny.files[center, number] if f.header.Modality == "SEG"]
        assert seg.header.ReferencedSeriesSequence[0].SeriesInstanceUID == files[0].header.SeriesInstanceUID
        return from_seg(seg, shape, affine)
    folders = sorted({f.path.parent for f in files})
    (path,) = [p for folder in folders for p in folder.glob("*.nii.gz")]
    return from_nifti(path, shape, affine)


def test_masks_lie_on_the_bodies_and_their_mean_is_the_declared_line(tiny: Generated) -> None:
    errors, checked = [], set()
    for center, number, expected in sound(tiny):
        files = index_series(tiny, center, number)
        volume, affine = volume_of(files)
        labels = labels_of(tiny, center, number, files, affine)
        assert set(np.unique(labels)) == {0, *range(FIRST_LABEL, FIRST_LABEL + 4)}
        heights = [np.argwhere(labels == FIRST_LABEL + i)[:, 2].mean() for i in range(4)]
        assert heights == sorted(heights, reverse=True), "L1 lies above L4"
        means = [volume[labels == FIRST_LABEL + i].mean() for i in range(4)]
        n_voxels = sum(int((labels == FIRST_LABEL + i).sum()) for i in range(4))
        noise = 2 * PROTOCOLS["lumbar"].noise_hu / np.sqrt(n_voxels)  # the heaviest have less than twice the noise
        assert np.mean(means) == pytest.approx(expected, abs=HARDENING_AT_MOST_HU + 4 * noise), (center, number)
        errors.append(np.mean(means) - expected)
        checked.add(center)
    assert checked == {"north", "south", "east", "west"}
    assert abs(np.mean(errors)) < 1.5, "over all people the line is met without bias"


def test_segmentation_refers_to_the_slices_that_it_covers(tiny: Generated) -> None:
    for (center, number), files in tiny.files.items():
        for seg in (f for f in files if f.header.Modality == "SEG"):
            at = {
                f.header.SOPInstanceUID: [float(v) for v in f.header.ImagePositionPatient]
                for f in index_series(tiny, center, number)
            }
            for groups in seg.header.PerFrameFunctionalGroupsSequence:
                source = groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
                assert at[source] == pytest.approx([float(v) for v in groups.PlanePositionSequence[0].ImagePositionPatient])


def test_levels_average_to_the_person_and_lines_follow_the_tube_voltage() -> None:
    assert sum(LEVEL_OFFSET_MG_CM3) == pytest.approx(0)
    at = {kvp: expected_hu(100, kvp_kv=kvp) for kvp in LINES}
    assert at[100] > at[120] > at[140]


def test_tissues_have_plausible_numbers(tiny: Generated) -> None:
    row = tiny.truth.filter((tiny.truth["fault"] == NO_FAULT) & (tiny.truth["center"] == "south")).row(0, named=True)
    volume, _ = volume_of(index_series(tiny, "south", row["patient_id"]))
    volume = volume[volume > -8192]  # the padding of one of the two scanners
    counts, edges = np.histogram(volume, bins=np.arange(-1100, 900, 20))
    peak = {int(edges[i]) for i in np.argsort(counts)[-30:]}
    assert volume.min() >= -1024
    assert any(-1030 <= e <= -970 for e in peak), "air"
    assert any(-120 <= e <= -80 for e in peak), "fat"
    assert any(20 <= e <= 80 for e in peak), "soft tissue"
    assert (volume > 250).sum() > 100, "cortex"


def test_padding_of_ge_lies_outside_the_round_field(tiny: Generated) -> None:
    row = tiny.truth.filter((tiny.truth["scanner_vendor"] == "ge") & (tiny.truth["fault"] == NO_FAULT)).row(0, named=True)
    header = index_series(tiny, row["center"], row["patient_id"])[0].header
    stored = header.pixel_array
    assert header.PixelPaddingValue == -2000
    assert stored[0, 0] == -2000
    assert stored[stored.shape[0] // 2, stored.shape[1] // 2] > -100


def test_slices_read_the_same_whether_templated_or_not(tiny: Generated) -> None:
    """Later slices of a series are cut from the bytes of its first: every element must still parse and agree."""
    for center, number, _ in sound(tiny)[::4]:
        files = index_series(tiny, center, number)
        tags = {tuple(e.tag for e in f.header) for f in files}
        assert len(tags) == 1
        assert len({f.header.file_meta.MediaStorageSOPInstanceUID for f in files}) == len(files)
        assert all(f.header.file_meta.MediaStorageSOPInstanceUID == f.header.SOPInstanceUID for f in files)
        assert sorted(int(f.header.InstanceNumber) for f in files) == list(range(1, len(files) + 1))


def test_radiographs_come_in_both_photometric_interpretations(tiny: Generated) -> None:
    films = [f.header for files in tiny.files.values() for f in files if f.header.Modality in ("CR", "DX")]
    assert {f.PhotometricInterpretation for f in films} == {"MONOCHROME1", "MONOCHROME2"}
    assert {"VOILUTSequence" in f for f in films} == {True, False}
    for film in films:
        assert ("VOILUTSequence" in film) is not ("WindowCenter" in film)
        shown = apply_voi_lut(film.pixel_array, film).astype(float)
        by_shape = {"IDENTITY": "MONOCHROME2", "INVERSE": "MONOCHROME1"}  # one header says its interpretation wrong
        told = by_shape.get(film.get("PresentationLUTShape", ""), film.PhotometricInterpretation)
        bright = shown if told == "MONOCHROME2" else 4095 - shown
        n = film.Rows
        if film.ViewPosition == "LL":
            continue
        assert bright[-n // 6 :, n // 3 : -n // 3].mean() > bright[n // 2 - n // 8 : n // 2, n // 4 : n // 3].mean(), (
            "abdomen over lung"
        )


def test_a_scout_is_the_line_integral_of_the_fan_beam() -> None:
    """A rod of water casts a shadow as long as it is deep, and as wide as the fan has opened at its depth."""
    person = people("north", range(100, 101), seed=3, night=2, rates=Rates(0, 0, 0, 0))[0]
    made = scan(person, sampling=Sampling(200), spacing_mm=5, thickness_mm=5, is_contrast=False, is_noisy=False)
    for row in (20, 160):
        rod = np.full_like(made.hu, -1000)
        rod[:, row : row + 20, 60:80] = 0
        shadow = water_path_cm(replace(made, hu=rod))[3]
        depth = made.grid.origin[1] + made.grid.step[1] * (row + 9.5)
        middle = made.grid.origin[1] + made.grid.step[1] * 99.5
        narrowed = SOURCE_MM / (SOURCE_MM + depth - middle)
        assert shadow.max() == pytest.approx(20 * made.grid.step[1] / 10, rel=0.02)
        assert shadow.sum() / shadow.max() == pytest.approx(20 * narrowed, rel=0.04)
        assert (np.arange(200) * shadow).sum() / shadow.sum() - 99.5 == pytest.approx((69.5 - 99.5) * narrowed, rel=0.03)
    assert scout(made).shape == (200, 200)
    assert -1024 <= scout(made).min() < -950, "air, and the table where it is wider than the body"
    assert 300 < scout(made).max() < 3071
