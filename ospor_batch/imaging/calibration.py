"""HU of trabecular bone to mineral density by the patient's own tissues: fitted on reference patients, never a constant.

Methods I5: (1) each tissue has a density of its own, and a line through the tissues of a scan gives that of bone;
(2) density is regressed on bone and tissues. A calibration holds for the tube voltage and the patients it was fitted on.
The rods of a phantom are (1) with densities that are known; bias and spread are still those of reference patients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from ospor_batch.errors import ItemRefused, StudyError

Array = npt.NDArray[np.float64]
Method = Literal["reference_tissue", "regression", "phantom"]
METHODS: tuple[Method, ...] = get_args(Method)
# methods I5: bounds outside which a tissue was mistaken, or contrast was given; judgement
PLAUSIBLE_HU = {"muscle": (20.0, 90.0), "fat": (-140.0, -70.0), "air": (-1030.0, -940.0), "blood": (15.0, 75.0)}
LEAST_CONTRAST_HU = 80.0  # muscle over fat, methods I5
HELD = 1e-3  # weight a patient of the pooled line; small beside what two tissues and bone determine; judgement
SPARE_CASES = 3  # beyond one for each coefficient, below which a fit says nothing of its own error


@dataclass(frozen=True)
class Calibration:
    """Coefficients of one tube voltage, and what is known of the patients behind them.

    tissues: or rods. coefficients: density of each in mg/cm3, or intercept, bone and tissues (regression).
    residual_mg_cm3: root mean square of fitted minus reference density. tissue_hu, tissue_sd_hu: of the patients.
    bone_hu: least and greatest. bias: intercept and slope of the calibrated on the reference density.
    """

    method: Method
    tissues: tuple[str, ...]
    coefficients: Array
    n: int
    residual_mg_cm3: float
    tissue_hu: Array
    tissue_sd_hu: Array
    bone_hu: tuple[float, float]
    bias: tuple[float, float]

    def density(self, bone_hu: float, tissue_hu: Sequence[float]) -> float:
        """mg/cm3; ItemRefused calibration_impossible when the tissues of the scan allow no rising line."""
        tissues = np.array([tissue_hu], np.float64)
        if self.method != "regression" and not _slopes(tissues, self.coefficients)[0] > 0:
            raise ItemRefused("calibration_impossible", "the line through the tissues does not rise")
        return float(_design(self.method, np.array([bone_hu]), tissues)[0] @ self.coefficients)

    def recalibrated(self, density: float) -> float:
        """The density with the bias against the reference taken off, so that a published cut-off means what it says."""
        intercept, slope = self.bias
        return (density - intercept) / slope

    def misfit_mg_cm3(self, tissue_hu: Sequence[float]) -> float:
        """Root mean square of the tissues of one scan off their common line; 0 with two tissues or a regression."""
        if self.method == "regression" or len(self.tissues) < 3:
            return 0.0
        hu = np.asarray(tissue_hu, np.float64)
        fitted = self.coefficients.mean() + _slopes(hu[None], self.coefficients)[0] * (hu - hu.mean())
        return float(np.sqrt(np.mean((fitted - self.coefficients) ** 2)))

    def unusual(self, tissue_hu: Sequence[float], *, spreads: float) -> tuple[str, ...]:
        """Tissues that read further from those of the reference patients than so many of their standard deviations."""
        away = np.abs(np.asarray(tissue_hu) - self.tissue_hu) > spreads * np.maximum(self.tissue_sd_hu, 1.0)  # 1 HU: rounding
        return tuple(tissue for tissue, is_away in zip(self.tissues, away, strict=True) if is_away)


def fit_calibration(
    bone_hu: npt.ArrayLike,
    tissue_hu: npt.ArrayLike,
    *,
    density: npt.ArrayLike,
    method: Method,
    tissues: Sequence[str],
    rods: Sequence[float] = (),
) -> Calibration:
    """Fit by least squares on reference patients; tissue_hu: (patient, tissue). rods: densities of a phantom's, not fitted.

    StudyError when there are too few patients or their tissues do not allow it.
    """
    bone, hu, known = (np.asarray(values, np.float64) for values in (bone_hu, tissue_hu, density))
    design = _design(method, bone, hu)
    n, n_coefficients = len(design), 0 if method == "phantom" else design.shape[1]
    if n < n_coefficients + SPARE_CASES:
        least = n_coefficients + SPARE_CASES
        raise StudyError(f"calibration: {n} reference patients for {n_coefficients} coefficients, expected {least} or more")
    if np.ptp(known) == 0 or np.ptp(bone) == 0:
        raise StudyError("calibration: the reference patients are alike in bone or density: nothing can be fitted")
    if method == "regression" and (same := [t for t, values in zip(tissues, hu.T, strict=True) if np.ptp(values) == 0]):
        raise StudyError(f"calibration: {', '.join(same)} reads the same in every patient: leave it out of a regression")
    coefficients = _coefficients(method, design, known, bone=bone, hu=hu, rods=rods)
    fitted = design @ coefficients
    slope = float(np.cov(known, fitted)[0, 1] / known.var(ddof=1))
    rise = coefficients[1] if method == "regression" else _slopes(hu, coefficients).mean()
    if not (rise > 0 and slope > 0):
        raise StudyError("calibration: density falls as bone gets brighter; are labels and images mixed up?")
    return Calibration(
        method=method,
        tissues=tuple(tissues),
        coefficients=coefficients,
        n=n,
        residual_mg_cm3=float(np.sqrt(np.sum((fitted - known) ** 2) / (n - n_coefficients))),
        tissue_hu=hu.mean(axis=0),
        tissue_sd_hu=hu.std(axis=0, ddof=1),
        bone_hu=(float(bone.min()), float(bone.max())),
        bias=(float(fitted.mean() - slope * known.mean()), slope),
    )


def _coefficients(method: Method, design: Array, known: Array, *, bone: Array, hu: Array, rods: Sequence[float]) -> Array:
    if method == "phantom":
        return np.asarray(rods, np.float64)
    return _least_squares(design, known) if method == "regression" else _tissue_densities(design, known, bone=bone, hu=hu)


def _design(method: Method, bone: Array, tissues: Array) -> Array:
    """One row a patient; times the coefficients it is the density."""
    if method == "regression":
        return np.column_stack([np.ones(len(bone)), bone, tissues])
    mean = tissues.mean(axis=1, keepdims=True)
    spread = ((tissues - mean) ** 2).sum(axis=1, keepdims=True)
    if not (spread > 0).all():
        raise ItemRefused("calibration_impossible", "all tissues have one CT number")
    shares: Array = 1 / tissues.shape[1] + (tissues - mean) * (bone[:, None] - mean) / spread
    return shares


def _least_squares(design: Array, known: Array) -> Array:
    return np.asarray(np.linalg.lstsq(design, known, rcond=None)[0], np.float64)


def _tissue_densities(shares: Array, known: Array, *, bone: Array, hu: Array) -> Array:
    """Densities of the tissues: least squares, held to those that the pooled line from HU to density gives to them.

    With three and more tissues the bone alone does not tell their densities apart; what it leaves open stays on the line.
    """
    slope, intercept = np.polyfit(bone, known, 1)
    on_line = intercept + slope * hu.mean(axis=0)
    weight = HELD * len(known)
    normal = shares.T @ shares + weight * np.eye(shares.shape[1])
    return np.asarray(on_line + np.linalg.solve(normal, shares.T @ (known - shares @ on_line)), np.float64)


def _slopes(tissues: Array, densities: Array) -> Array:
    """mg/cm3 for each HU of the line through the tissues of each patient."""
    away = tissues - tissues.mean(axis=1, keepdims=True)
    slopes: Array = (away * (densities - densities.mean())).sum(axis=1) / np.maximum((away**2).sum(axis=1), 1e-9)
    return slopes


def implausible(tissue_hu: dict[str, float]) -> tuple[str, ...]:
    """Tissues that read as something else (methods I5); ItemRefused tissue_implausible where they give no scale."""
    if {"muscle", "fat"} <= tissue_hu.keys() and tissue_hu["muscle"] - tissue_hu["fat"] < LEAST_CONTRAST_HU:
        raise ItemRefused("tissue_implausible", f"muscle is less than {LEAST_CONTRAST_HU:.0f} HU above fat")
    bounds = {tissue: PLAUSIBLE_HU[tissue] for tissue in tissue_hu}
    return tuple(tissue for tissue, (low, high) in bounds.items() if not low <= tissue_hu[tissue] <= high)


@dataclass(frozen=True)
class PhantomLine:
    """Density of a phantom's rods on their CT numbers: mg/cm3 = intercept + slope * HU, and the root mean square off it."""

    intercept: float
    slope: float
    residual_mg_cm3: float


def phantom_line(rod_hu: Sequence[float], densities: Sequence[float]) -> PhantomLine:
    """Fit a line through the rods of a phantom that lies in the scan; densities in mg/cm3 of the phantom's own material.

    ItemRefused phantom_missing with fewer than three rods, calibration_impossible when the line does not rise.
    """
    hu, known = np.asarray(rod_hu, np.float64), np.asarray(densities, np.float64)
    if len(hu) < 3 or len(hu) != len(known):
        raise ItemRefused("phantom_missing", f"{len(hu)} rods found, expected {len(known)}")
    if not np.isfinite(hu).all() or np.ptp(hu) <= 0:
        raise ItemRefused("calibration_impossible", "the rods have one CT number")
    slope, intercept = np.polyfit(hu, known, 1)
    if not slope > 0:
        raise ItemRefused("calibration_impossible", "the line through the rods does not rise")
    residual = float(np.sqrt(np.mean((intercept + slope * hu - known) ** 2)))
    return PhantomLine(float(intercept), float(slope), residual)


def as_arrays(calibrations: dict[float, Calibration]) -> dict[str, npt.NDArray[Any]]:
    """Calibrations by tube voltage in kV (0: pooled) as arrays, for a model folder."""
    keys = sorted(calibrations)
    rows = [calibrations[key] for key in keys]
    return {
        "kvp_kv": np.array(keys, np.float64),
        "coefficients": np.stack([c.coefficients for c in rows]),
        "n": np.array([c.n for c in rows], np.int64),
        "residual_mg_cm3": np.array([c.residual_mg_cm3 for c in rows]),
        "tissue_hu": np.stack([c.tissue_hu for c in rows]),
        "tissue_sd_hu": np.stack([c.tissue_sd_hu for c in rows]),
        "bone_hu": np.array([c.bone_hu for c in rows]),
        "bias": np.array([c.bias for c in rows]),
    }


def from_arrays(arrays: dict[str, npt.NDArray[Any]], *, method: Method, tissues: Sequence[str]) -> dict[float, Calibration]:
    """Calibrations by tube voltage from what ``as_arrays`` made."""
    return {
        float(kvp): Calibration(
            method=method,
            tissues=tuple(tissues),
            coefficients=arrays["coefficients"][at].astype(np.float64),
            n=int(arrays["n"][at]),
            residual_mg_cm3=float(arrays["residual_mg_cm3"][at]),
            tissue_hu=arrays["tissue_hu"][at].astype(np.float64),
            tissue_sd_hu=arrays["tissue_sd_hu"][at].astype(np.float64),
            bone_hu=(float(arrays["bone_hu"][at][0]), float(arrays["bone_hu"][at][1])),
            bias=(float(arrays["bias"][at][0]), float(arrays["bias"][at][1])),
        )
        for at, kvp in enumerate(arrays["kvp_kv"])
    }
