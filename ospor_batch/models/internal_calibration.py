"""Recipe ldct_internal_calibration: low-dose chest CT to vBMD by the patient's own tissues (Radiol Practice 2024;39:262).

Stated: bone segmentation, internal tissue calibration, fixed cut-off. Which tissues and which form is not: both are
parameters. Ranking is near perfect and the value still biased at the cut-off where a fit shrinks towards the mean, so that
the recalibrated value stands beside the calibrated one under an id of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from ospor_batch.errors import ItemRefused, StudyError
from ospor_batch.imaging.calibration import (
    METHODS,
    Calibration,
    Method,
    as_arrays,
    fit_calibration,
    from_arrays,
    implausible,
)
from ospor_batch.imaging.phantom import MATERIALS, Rod, find_rods, rods_of
from ospor_batch.imaging.regions import measure, trabecular_roi
from ospor_batch.imaging.tissues import TISSUES, Tissue, sample_tissues
from ospor_batch.models.spec import Parameter, Pixels, Prediction
from ospor_batch.models.trainable import (
    Answer,
    Array,
    Example,
    Fitted,
    Parameters,
    Preparing,
    Target,
    TrainableRecipe,
    TrainingSet,
    Work,
)
from ospor_batch.models.vertebra_inputs import check_one_of, entering

UNKNOWN_KVP = 0.0  # of a scan without a tube voltage, and of coefficients that are pooled over voltages
DEFAULTS: dict[str, Parameter] = {
    "levels": ("L1", "L2"),  # methods L7; a low-dose chest CT ends there
    "minimum_levels": 2,  # methods L7
    "takes_cut_levels": False,
    "erosion_mm": 0.0,  # taken off the masks; 0 for masks of the trabecular core, 4 or more for whole bodies
    "tissues": ("muscle", "fat"),  # muscle, fat, air, blood; two or more
    "method": "reference_tissue",  # reference_tissue | regression, methods I5; phantom: by rods under the patient
    "phantom_material": "",  # k2hpo4 | caha of the rods; method phantom needs it
    "phantom_rods": (),  # density in that material and diameter of each, such as "100 mg/cm3 18 mm"
    "implausible": "refuse",  # refuse | flag a tissue beyond its bounds, methods I5; fatty muscle of old people may be
    "kvp": "separate",  # separate: coefficients for each tube voltage; pooled: one set for all
    "report": "calibrated",  # calibrated | recalibrated: the bias against the reference of the train partition taken off
    "cut_mg_cm3": 80.0,  # methods L7; where the bias is told in the model card
    "near_cut_mg_cm3": 20.0,  # within which a patient is near the cut; judgement
    "unusual_spreads": 4.0,  # standard deviations of the reference patients from which a tissue is flagged; judgement
    "misfit_limit_mg_cm3": 15.0,  # of three or more tissues off their line, from which a scan is flagged; judgement
    "minimum_cases": 8,  # of the train partition, for each tube voltage
    "minimum_events": 0,
}


def prepare(pixels: Pixels, preparing: Preparing) -> Example:
    """Measure bone and tissues or rods.

    ItemRefused levels_missing, levels_cut, tissue_implausible, and those of sample_tissues and find_rods.
    """
    places, flags = entering(pixels, preparing)
    volume, labels, parameters = pixels.volume, pixels.labels, preparing.parameters
    assert volume is not None
    assert labels is not None
    known = {level: label for level, label in preparing.masks.labels if level in places}
    roi = trabecular_roi(volume, labels, levels=known, erosion_mm=float(str(parameters["erosion_mm"])))
    regions = measure(volume, roi, levels=known)
    if len(regions) < int(str(parameters["minimum_levels"])):
        raise ItemRefused("levels_missing", "too little bone left in the masks after erosion")
    if parameters["method"] == "phantom":
        tissue_hu = [rod.hu for rod in find_rods(volume, labels, levels=known, rods=rods_in(parameters))]
    else:
        tissue_hu, doubts = _tissue_hu(pixels, parameters, known=known)
        flags = (*flags, *doubts)
    levels = tuple(region.level for region in regions)
    arrays = {
        "bone_hu": np.array([region.mean_hu for region in regions]),
        "tissue_hu": np.array(tissue_hu),
        "kvp_kv": np.array([volume.kvp_kv or UNKNOWN_KVP]),
    }
    return Example(arrays, levels, levels, (*pixels.mask_flags, *flags), regions)


def _tissue_hu(pixels: Pixels, parameters: Parameters, *, known: Mapping[str, int]) -> tuple[list[float], tuple[str, ...]]:
    """CT numbers of the tissues, and flags of those beyond their bounds where they are kept."""
    assert pixels.volume is not None
    assert pixels.labels is not None
    samples = sample_tissues(pixels.volume, pixels.labels, levels=known, tissues=_tissues(parameters))
    doubted = implausible({tissue: sample.hu for tissue, sample in samples.items()})
    if doubted and parameters["implausible"] == "refuse":
        said = ", ".join(f"{tissue} {samples[cast(Tissue, tissue)].hu:.0f} HU" for tissue in doubted)
        raise ItemRefused("tissue_implausible", f"{said}: beyond the bounds of methods I5")
    return [sample.hu for sample in samples.values()], tuple(f"tissue_implausible:{tissue}" for tissue in doubted)


@dataclass(frozen=True)
class CalibrationLearner:
    """Fits coefficients on the train partition; the tuning partition only says how well they carry over."""

    def fit(self, data: TrainingSet, work: Work) -> Fitted:
        """Fit each tube voltage with enough patients; StudyError when there is none."""
        p = work.parameters
        rows = _rows(data, is_training=True)
        groups = {UNKNOWN_KVP} if _is_pooled(p) else set(rows["kvp_kv"].tolist()) - {UNKNOWN_KVP}
        fitted: dict[float, Calibration] = {}
        skipped: dict[str, int] = {}
        for kvp in sorted(groups):
            own = np.full(len(rows["kvp_kv"]), True) if _is_pooled(p) else rows["kvp_kv"] == kvp  # noqa: FBT003
            if own.sum() < int(str(p["minimum_cases"])):
                skipped[f"{kvp:g}"] = int(own.sum())
            else:
                fitted[kvp] = fit_calibration(
                    rows["bone_hu"][own],
                    rows["tissue_hu"][own],
                    density=rows["density"][own],
                    method=method_of(p),
                    tissues=read_against(p),
                    rods=[rod.density_mg_cm3 for rod in rods_in(p)],
                )
        if not fitted:
            raise StudyError(
                f"recipe ldct_internal_calibration: no tube voltage has {p['minimum_cases']} labelled training series with one"
                ' in the header; give more, lower minimum_cases, or set kvp = "pooled"'
            )
        notes = {
            "calibrations": {f"{kvp:g}": _words(one) for kvp, one in fitted.items()},
            "skipped_kvp": skipped,
            "fitted_on_train": _agreement(fitted, rows, p),
            "held_against_tuning": _agreement(fitted, _rows(data, is_training=False), p),
        }
        return Fitted(as_arrays(fitted), notes)

    def open(
        self, state: Mapping[str, Array], parameters: Parameters, *, targets: tuple[Target, ...], device: str
    ) -> Callable[[Sequence[Example]], Sequence[Answer]]:
        """Read the coefficients; the answer of a scan depends on nothing but the scan and them."""
        del targets, device  # there is one target, and sums of a dozen numbers want no device
        calibrations = opened(state, parameters)
        return lambda examples: [_answer(example, calibrations, parameters) for example in examples]


def _answer(example: Example, calibrations: Mapping[float, Calibration], parameters: Parameters) -> Answer:
    try:
        calibration = _of_scan(example.arrays, calibrations, parameters)
        tissues = example.arrays["tissue_hu"].tolist()
        values = {
            level: _reported(calibration, float(hu), tissues, parameters)
            for level, hu in zip(example.levels, example.arrays["bone_hu"], strict=True)
        }
    except ItemRefused as refusal:
        return refusal
    value = float(np.mean(list(values.values())))
    if not np.isfinite(value):
        return ItemRefused("non_finite", "the calibrated density is no finite number")
    flags = (*example.flags, *_quality(calibration, example.arrays, parameters))
    return Prediction(
        score=-value, value=value, unit="mg/cm3", levels=example.levels, flags=flags, regions=example.regions,
        level_values=tuple(values.items()),
    )  # fmt: skip


def _of_scan(arrays: Mapping[str, Array], calibrations: Mapping[float, Calibration], parameters: Parameters) -> Calibration:
    kvp = UNKNOWN_KVP if _is_pooled(parameters) else float(arrays["kvp_kv"][0])
    if kvp in calibrations:
        return calibrations[kvp]
    if kvp == UNKNOWN_KVP:
        raise ItemRefused("kvp_unknown", "the images name no one tube voltage, and coefficients are kept for each")
    had = ", ".join(f"{known:g}" for known in calibrations)
    raise ItemRefused("kvp_not_calibrated", f"{kvp:g} kV; coefficients were fitted for {had} kV")


def _reported(calibration: Calibration, bone_hu: float, tissues: Sequence[float], parameters: Parameters) -> float:
    density = calibration.density(bone_hu, tissues)
    return calibration.recalibrated(density) if parameters["report"] == "recalibrated" else density


def _quality(calibration: Calibration, arrays: Mapping[str, Array], parameters: Parameters) -> list[str]:
    """What makes a value doubtful; the scan keeps it, and a criterion may take it out."""
    tissues, bone = arrays["tissue_hu"].tolist(), float(arrays["bone_hu"].mean())
    spreads = float(str(parameters["unusual_spreads"]))
    flags = [f"tissue_unusual:{tissue}" for tissue in calibration.unusual(tissues, spreads=spreads)]
    misfit = calibration.misfit_mg_cm3(tissues)
    if misfit > float(str(parameters["misfit_limit_mg_cm3"])):
        flags.append(f"residual_high:{misfit:.0f}")
    if not calibration.bone_hu[0] <= bone <= calibration.bone_hu[1]:
        flags.append("beyond_calibrated_range")
    return flags


def _rows(data: TrainingSet, *, is_training: bool) -> dict[str, Array]:
    """Bone, tissues, tube voltage and reference density, one row a labelled series."""
    cases = [case for case in (data.train if is_training else data.tuning) if np.isfinite(case.targets[0])]
    arrays = [data.example(case.item_digest, is_training).arrays for case in cases]
    return {
        "bone_hu": np.array([float(a["bone_hu"].mean()) for a in arrays]),
        "tissue_hu": np.array([a["tissue_hu"] for a in arrays], np.float64),
        "kvp_kv": np.array([float(a["kvp_kv"][0]) for a in arrays]),
        "density": np.array([case.targets[0] for case in cases]),
    }


def _agreement(calibrations: Mapping[float, Calibration], rows: Mapping[str, Array], p: Parameters) -> dict[str, Any]:
    """Error against the reference, over all and near the cut, of the calibrated and the recalibrated density."""
    found: dict[str, Any] = {"n": len(rows["density"])}
    cut, near = float(str(p["cut_mg_cm3"])), float(str(p["near_cut_mg_cm3"]))
    for report in ("calibrated", "recalibrated"):
        errors, at = [], []
        for bone, tissues, kvp, density in zip(*(rows[n] for n in ("bone_hu", "tissue_hu", "kvp_kv", "density")), strict=True):
            try:
                one = _of_scan({"kvp_kv": np.array([kvp])}, calibrations, p)
                errors.append(_reported(one, bone, tissues.tolist(), {**p, "report": report}) - density)
                at.append(density)
            except ItemRefused:
                continue
        is_near = np.abs(np.array(at) - cut) <= near
        found[report] = {
            "n": len(errors),
            "bias_mg_cm3": _mean(errors),
            "root_mean_square_mg_cm3": None if not errors else float(np.sqrt(np.mean(np.square(errors)))),
            "n_near_cut": int(is_near.sum()),
            "bias_near_cut_mg_cm3": _mean(np.array(errors)[is_near]),
        }
    return found


def _mean(values: Sequence[float] | Array) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _words(calibration: Calibration) -> dict[str, Any]:
    names = ("intercept", "bone_hu", *calibration.tissues) if calibration.method == "regression" else calibration.tissues
    return {
        "method": calibration.method,
        "coefficients": dict(zip(names, calibration.coefficients.tolist(), strict=True)),
        "n": calibration.n,
        "residual_mg_cm3": calibration.residual_mg_cm3,
        "tissue_hu": dict(zip(calibration.tissues, calibration.tissue_hu.tolist(), strict=True)),
        "bias_intercept_mg_cm3": calibration.bias[0],
        "bias_slope": calibration.bias[1],
    }


def _tissues(parameters: Parameters) -> tuple[Tissue, ...]:
    return cast(tuple[Tissue, ...], parameters["tissues"])


def opened(state: Mapping[str, Array], parameters: Parameters) -> dict[float, Calibration]:
    """The calibrations of a model folder by tube voltage in kV; 0 is all."""
    return from_arrays(dict(state), method=method_of(parameters), tissues=read_against(parameters))


def rods_in(parameters: Parameters) -> tuple[Rod, ...]:
    """The rods of method phantom; none with any other."""
    return rods_of(cast(tuple[str, ...], parameters["phantom_rods"])) if parameters["method"] == "phantom" else ()


def read_against(parameters: Parameters) -> tuple[str, ...]:
    """The tissues, or the rods, that density is read against."""
    return tuple(rod.name for rod in rods_in(parameters)) or _tissues(parameters)


def _is_pooled(parameters: Parameters) -> bool:
    """Whether one set of coefficients is for all tube voltages; rods tell of their own scan."""
    return parameters["kvp"] == "pooled" or parameters["method"] == "phantom"


def method_of(parameters: Parameters) -> Method:
    return cast(Method, parameters["method"])


def check(parameters: Parameters) -> None:
    """StudyError names what cannot be."""
    tissues, levels = parameters["tissues"], parameters["levels"]
    assert isinstance(tissues, tuple)
    assert isinstance(levels, tuple)
    if unknown := sorted(set(tissues) - set(TISSUES)):
        raise StudyError(f"recipes.parameters.tissues: unknown {', '.join(unknown)}, expected some of {', '.join(TISSUES)}")
    if len(set(tissues)) < 2 or len(set(tissues)) < len(tissues):
        raise StudyError("recipes.parameters.tissues: expected two or more, each once")
    check_one_of(parameters, "method", known=METHODS)
    check_one_of(parameters, "implausible", known=("refuse", "flag"))
    check_one_of(parameters, "kvp", known=("separate", "pooled"))
    if parameters["method"] == "phantom":
        check_one_of(parameters, "phantom_material", known=MATERIALS)
    elif parameters.get("phantom_rods") or parameters.get("phantom_material"):
        raise StudyError('recipes.parameters.phantom_rods and phantom_material are for method = "phantom" alone')
    rods_in(parameters)
    check_one_of(parameters, "report", known=("calibrated", "recalibrated"))
    if not 1 <= int(str(parameters["minimum_levels"])) <= len(levels):
        raise StudyError(f"recipes.parameters.minimum_levels: expected 1 to the number of levels ({len(levels)})")
    if float(str(parameters["erosion_mm"])) < 0:
        raise StudyError(f"recipes.parameters.erosion_mm is {parameters['erosion_mm']}, expected 0 or more")


RECIPE = TrainableRecipe(
    name="ldct_internal_calibration",
    version="1",
    defaults=DEFAULTS,
    preparing=(
        "levels",
        "minimum_levels",
        "takes_cut_levels",
        "erosion_mm",
        "tissues",
        "implausible",
        "method",
        "phantom_rods",
    ),
    reading=("report", "unusual_spreads", "misfit_limit_mg_cm3"),
    targets=lambda _parameters: (Target("vbmd_mg_cm3", "value", "mg/cm3"),),
    prepare=prepare,
    learner=CalibrationLearner(),
    reads_masks=True,
    wants_gpu=False,
    check=check,
    description="Trabecular vBMD (mg/cm3) from CT numbers of bone, calibrated by the patient's own tissues "
    "or by rods in the scan; reference QCT.",
)
