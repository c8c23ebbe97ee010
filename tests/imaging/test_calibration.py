"""Density by the patient's own tissues: the line it must find, and what no line can be taken from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ospor_batch.errors import ItemRefused, StudyError
from ospor_batch.imaging.calibration import METHODS, as_arrays, fit_calibration, from_arrays, implausible, phantom_line

DENSITY = {"muscle": 30.0, "fat": -70.0, "air": -820.0, "blood": 25.0}  # mg/cm3 on the line of mineral, made


def patients(n: int, *, tissues: tuple[str, ...], drift: float = 0.0, noise: float = 0.0) -> tuple[np.ndarray, ...]:
    """Bone and tissue HU of patients whose scanners differ by scale and offset, and their densities."""
    draw = np.random.default_rng(8)
    density = draw.uniform(30, 220, n)
    scale, offset = 1 / 0.8 * (1 + drift * draw.normal(0, 1, n)), drift * 100 * draw.normal(0, 1, n)
    bone = scale * density + offset
    hu = np.stack([scale * DENSITY[tissue] + offset + noise * draw.normal(0, 1, n) for tissue in tissues], axis=1)
    return bone, hu, density


@pytest.mark.parametrize(
    "tissues",
    [("muscle", "fat"), ("blood", "fat"), ("air", "blood"), ("muscle", "fat", "air"), ("muscle", "fat", "air", "blood")],
)
def test_scale_and_offset_of_a_scanner_do_not_show(tissues: tuple[str, ...]) -> None:
    bone, hu, density = patients(60, tissues=tissues, drift=0.06)
    assert np.abs(np.polyval(np.polyfit(bone, density, 1), bone) - density).max() > 8  # one line for all is wrong
    found = fit_calibration(bone, hu, density=density, method="reference_tissue", tissues=tissues)
    fitted = [found.density(b, t) for b, t in zip(bone, hu, strict=True)]
    assert np.abs(np.array(fitted) - density).max() < 3
    assert found.residual_mg_cm3 < 2


def test_two_tissues_are_the_formula_of_the_reference() -> None:
    bone, hu, density = patients(40, tissues=("muscle", "fat"), drift=0.02, noise=2.0)
    found = fit_calibration(bone, hu, density=density, method="reference_tissue", tissues=("muscle", "fat"))
    (muscle, fat), (of_muscle, of_fat) = hu[3], found.coefficients
    expected = of_fat + (of_muscle - of_fat) / (muscle - fat) * (bone[3] - fat)  # methods I5 (1)
    assert found.density(bone[3], hu[3]) == pytest.approx(expected)
    assert found.misfit_mg_cm3(hu[3]) == 0


def test_regression_equals_ordinary_least_squares() -> None:
    bone, hu, density = patients(40, tissues=("muscle", "fat"), drift=0.02, noise=3.0)
    found = fit_calibration(bone, hu, density=density, method="regression", tissues=("muscle", "fat"))
    design = np.column_stack([np.ones(40), bone, hu])
    expected = np.linalg.solve(design.T @ design, design.T @ density)
    np.testing.assert_allclose(found.coefficients, expected, rtol=1e-6, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(noise=st.floats(0, 8), method=st.sampled_from(METHODS))
def test_recalibration_takes_the_bias_off(noise: float, method: str) -> None:
    """After it, the calibrated density regresses on the reference with intercept 0 and slope 1 on the patients of the fit."""
    bone, hu, density = patients(80, tissues=("muscle", "fat"), drift=0.02, noise=noise)
    rods = [DENSITY["muscle"], DENSITY["fat"]]  # of the method that is given them
    found = fit_calibration(bone, hu, density=density, method=method, tissues=("muscle", "fat"), rods=rods)  # type: ignore[arg-type]
    fitted = np.array([found.density(b, t) for b, t in zip(bone, hu, strict=True)])
    slope, intercept = np.polyfit(density, [found.recalibrated(value) for value in fitted], 1)
    assert (slope, intercept) == (pytest.approx(1, abs=1e-6), pytest.approx(0, abs=1e-3))
    assert np.isfinite(fitted).all()


def test_a_tissue_off_the_line_shows_as_misfit_and_as_unusual() -> None:
    bone, hu, density = patients(60, tissues=("muscle", "fat", "air"), drift=0.01, noise=1.0)
    found = fit_calibration(bone, hu, density=density, method="reference_tissue", tissues=("muscle", "fat", "air"))
    usual = found.misfit_mg_cm3(hu[0])
    wrong = hu[0] + [0, 70, 0]  # fat taken where there is none
    assert found.misfit_mg_cm3(wrong) > usual + 10
    assert found.unusual(wrong, spreads=4) == ("fat",)
    assert found.unusual(hu.mean(axis=0), spreads=4) == ()


def test_it_survives_a_model_folder() -> None:
    bone, hu, density = patients(40, tissues=("muscle", "fat"), noise=2.0)
    kept = {kv: fit_calibration(bone * f, hu, density=density, method="regression", tissues=("muscle", "fat"))
            for kv, f in ((120.0, 1.0), (100.0, 1.08))}  # fmt: skip
    back = from_arrays(as_arrays(kept), method="regression", tissues=("muscle", "fat"))
    assert list(back) == [100.0, 120.0]
    for kv, one in back.items():
        assert one.density(130.0, [50.0, -100.0]) == kept[kv].density(130.0, [50.0, -100.0])
        assert (one.n, one.bias, one.bone_hu) == (kept[kv].n, kept[kv].bias, kept[kv].bone_hu)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda b, h, d: (b[:4], h[:4], d[:4]), "4 reference patients for 2 coefficients"),
        (lambda b, h, d: (b, h, d * 0 + 90), "alike in bone or density"),
        (lambda b, h, d: (b, h, -d), "falls as bone gets brighter"),
    ],
)
def test_reference_patients_that_teach_nothing_are_said(spoil: object, said: str) -> None:
    bone, hu, density = spoil(*patients(30, tissues=("muscle", "fat"), noise=2.0))  # type: ignore[operator]
    with pytest.raises(StudyError, match=said):
        fit_calibration(bone, hu, density=density, method="reference_tissue", tissues=("muscle", "fat"))


def test_a_constant_tissue_cannot_be_regressed_on() -> None:
    bone, hu, density = patients(30, tissues=("muscle", "fat"), noise=2.0)
    hu[:, 1] = -1000
    with pytest.raises(StudyError, match="fat reads the same in every patient"):
        fit_calibration(bone, hu, density=density, method="regression", tissues=("muscle", "fat"))


def test_what_reads_as_something_else_is_named() -> None:
    assert implausible({"muscle": 55.0, "fat": -100.0, "air": -1000.0, "blood": 40.0}) == ()
    assert implausible({"muscle": 120.0, "fat": -100.0}) == ("muscle",)
    assert implausible({"muscle": 50.0, "fat": -60.0}) == ("fat",)
    assert implausible({"blood": 150.0}) == ("blood",)  # contrast
    with pytest.raises(ItemRefused, match="tissue_implausible"):
        implausible({"muscle": 0.0, "fat": -70.0})
    bone, hu, density = patients(30, tissues=("muscle", "fat"))
    found = fit_calibration(bone, hu, density=density, method="reference_tissue", tissues=("muscle", "fat"))
    with pytest.raises(ItemRefused, match="does not rise"):
        found.density(100.0, [-100.0, 50.0])
    with pytest.raises(ItemRefused, match="does not rise"):
        found.density(100.0, [50.0, 50.0])


def test_rods_of_a_phantom_give_a_line_with_its_residual() -> None:
    line = phantom_line([5.0, 130.0, 255.0], [0.0, 100.0, 200.0])
    assert (line.slope, line.intercept) == (pytest.approx(0.8), pytest.approx(-4.0))
    assert line.residual_mg_cm3 == pytest.approx(0, abs=1e-9)
    assert phantom_line([5.0, 130.0, 275.0], [0.0, 100.0, 200.0]).residual_mg_cm3 > 1
    with pytest.raises(ItemRefused, match="phantom_missing"):
        phantom_line([5.0, 130.0], [0.0, 100.0])
    with pytest.raises(ItemRefused, match="does not rise"):
        phantom_line([255.0, 130.0, 5.0], [0.0, 100.0, 200.0])
