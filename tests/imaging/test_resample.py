"""Resampling equals SimpleITK, and keeps what a change of grid must keep."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ospor_batch.errors import ItemRefused
from ospor_batch.imaging.resample import onto_grid, resample
from tests.imaging.series import affine

SOME = np.random.default_rng(4).normal(0, 300, (9, 11, 13)).astype(np.float32)


def by_itk(values: np.ndarray, to_lps: np.ndarray, *, target: np.ndarray, shape: tuple[int, ...], order: int) -> np.ndarray:
    """The same through SimpleITK, whose axes run the other way."""
    sitk = pytest.importorskip("SimpleITK")

    def placed(image: object, frame: np.ndarray) -> object:
        turned = frame[:3, [2, 1, 0]]
        steps = np.linalg.norm(turned, axis=0)
        image.SetSpacing(steps.tolist())  # type: ignore[attr-defined]
        image.SetDirection((turned / steps).ravel().tolist())  # type: ignore[attr-defined]
        image.SetOrigin(frame[:3, 3].tolist())  # type: ignore[attr-defined]
        return image

    given_image = placed(sitk.GetImageFromArray(values), to_lps)
    wanted = placed(sitk.Image(shape[2], shape[1], shape[0], sitk.sitkFloat32), target)
    how = sitk.sitkLinear if order else sitk.sitkNearestNeighbor
    found: np.ndarray = sitk.GetArrayFromImage(sitk.Resample(given_image, wanted, sitk.Transform(), how, -1024.0))
    return found


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("turn", [0.0, 17.0], ids=["axial", "oblique"])
@pytest.mark.parametrize("spacing", [(3.0, 1.0, 2.0), (2.13, 1.71, 0.93), (7.1, 3.3, 4.1)])
def test_it_equals_simpleitk(order: int, turn: float, spacing: tuple[float, float, float]) -> None:
    to_lps = affine(turn=turn)
    found, target = resample(SOME, to_lps, spacing_mm=spacing, order=order)  # type: ignore[arg-type]
    theirs = by_itk(SOME, to_lps, target=target, shape=found.shape, order=order)
    np.testing.assert_allclose(found, theirs, atol=0.01)


@pytest.mark.parametrize("order", [0, 1])
def test_another_frame_equals_simpleitk(order: int) -> None:
    """Turned and shifted grids, places outside included; ITK may take the other voxel where a place lies midway."""
    to_lps, target = affine(), affine(turn=31.0, spacing=(2.3, 1.4, 1.1), origin=(-25.3, 1.7, 99.1))
    found = onto_grid(SOME, to_lps, to_affine=target, shape=(12, 14, 13), order=order)  # type: ignore[arg-type]
    theirs = by_itk(SOME, to_lps, target=target, shape=(12, 14, 13), order=order)
    assert (found == -1024).any()
    assert (np.abs(found - theirs) < 0.01).mean() > 0.999


def test_real_ct_equals_simpleitk(shared: Path) -> None:
    n_compared = 0
    for path in sorted((shared / "data" / "real").rglob("*.nii.gz")):
        image = nibabel.load(path)
        values = np.asanyarray(image.dataobj).astype(np.float32)
        if values.min() >= 0 or values.size > 4e5:
            continue
        to_lps = np.diag([-1.0, -1, 1, 1]) @ image.affine
        found, target = resample(values, to_lps, spacing_mm=(2.0, 2.0, 2.0))
        theirs = by_itk(values, to_lps, target=target, shape=found.shape, order=1)
        assert np.abs(found - theirs).max() < 0.5  # HU; float32 shares of voxels
        n_compared += 1
    if not n_compared:
        pytest.skip("no real NIfTI CT")


@settings(max_examples=30, deadline=None)
@given(steps=st.tuples(*[st.floats(0.6, 4.0)] * 3))
def test_a_ramp_stays_a_ramp(steps: tuple[float, float, float]) -> None:
    to_lps = affine(turn=12.0)
    index = np.stack(np.meshgrid(*(np.arange(n) for n in (9, 10, 11)), indexing="ij"))
    ramp = (to_lps[:3, :3] @ index.reshape(3, -1) + to_lps[:3, 3:]).T @ [1.0, 2.0, -0.5]
    found, target = resample(ramp.reshape(9, 10, 11), to_lps, spacing_mm=steps)
    places = np.stack(np.meshgrid(*(np.arange(n) for n in found.shape), indexing="ij")).reshape(3, -1)
    lps = target[:3, :3] @ places + target[:3, 3:]
    at = np.linalg.solve(to_lps, np.vstack([lps, np.ones(lps.shape[1])]))[:3]
    inside = ((at >= 0) & (at <= np.array([[8], [9], [10]]))).all(axis=0)
    np.testing.assert_allclose(found.ravel()[inside], (lps.T @ [1.0, 2.0, -0.5])[inside], atol=1e-3)


def test_the_same_grid_and_labels_are_exact() -> None:
    labels = np.random.default_rng(1).integers(0, 2**20, (5, 6, 7)).astype(np.int32)
    same, to_affine = resample(labels, affine(), spacing_mm=(3.0, 1.0, 2.0), order=0, fill=0)
    assert same.dtype == np.int32
    np.testing.assert_array_equal(same, labels)
    np.testing.assert_allclose(to_affine, affine(), atol=1e-9)
    twice, _ = resample(labels, affine(), spacing_mm=(1.5, 0.5, 1.0), order=0, fill=0)
    np.testing.assert_array_equal(twice[::2, ::2, ::2], labels)


def test_a_wanted_shape_is_cut_or_filled_around_the_center() -> None:
    small, _ = resample(SOME, affine(), spacing_mm=(3.0, 1.0, 2.0), shape=(5, 5, 3))
    np.testing.assert_array_equal(small, SOME[2:7, 3:8, 5:8])
    large, _ = resample(SOME, affine(), spacing_mm=(3.0, 1.0, 2.0), shape=(11, 13, 15))
    np.testing.assert_array_equal(large[1:-1, 1:-1, 1:-1], SOME)
    assert (large[0] == -1024).all()


@pytest.mark.parametrize("order", [0, 1])
def test_slabs_and_the_way_by_axis_change_nothing(monkeypatch: pytest.MonkeyPatch, order: int) -> None:
    by_axis, target = resample(SOME, affine(turn=9.0), spacing_mm=(1.33, 1.71, 1.37), order=order)  # type: ignore[arg-type]
    monkeypatch.setattr("ospor_batch.imaging.resample.SAME_AXES", -1.0)
    how = {"to_affine": target, "shape": by_axis.shape, "order": order}
    whole = onto_grid(SOME, affine(turn=9.0), **how)  # type: ignore[arg-type]
    np.testing.assert_allclose(by_axis, whole, atol=1e-3)
    monkeypatch.setattr("ospor_batch.imaging.resample.SLAB", 1)
    np.testing.assert_array_equal(whole, onto_grid(SOME, affine(turn=9.0), **how))  # type: ignore[arg-type]


@pytest.mark.parametrize("spacing", [(0.0, 1, 1), (1, -2.0, 1), (float("nan"), 1, 1)])
def test_a_spacing_that_is_none_is_refused(spacing: tuple[float, float, float]) -> None:
    with pytest.raises(ItemRefused, match="geometry_changed"):
        resample(SOME, affine(), spacing_mm=spacing)


@pytest.mark.gpu
@pytest.mark.parametrize("order", [0, 1])
def test_a_gpu_gives_what_the_processor_gives(order: int) -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU here")
    values = SOME if order else SOME.astype(np.int32)
    here, _ = resample(values, affine(turn=17.0), spacing_mm=(1.3, 0.7, 0.9), order=order)  # type: ignore[arg-type]
    there, _ = resample(values, affine(turn=17.0), spacing_mm=(1.3, 0.7, 0.9), order=order, device="cuda")  # type: ignore[arg-type]
    np.testing.assert_allclose(here, there, atol=1e-3)
