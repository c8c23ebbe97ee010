"""Recipe smi_comparator: a logistic model on the skeletal muscle index, what the CNNs of ct_cnn_smi are compared with.

SMI is muscle area over height squared at one level (methods I1); height comes from the image header, and a series without
it is refused, never scored as zero. A low index means high risk: the sign of its coefficient is fitted, not assumed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ospor_batch.errors import ItemRefused, StudyError
from ospor_batch.models.ct_cnn_smi import MUSCLE, axial_muscle, check_muscle
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
from ospor_batch.models.vertebra_inputs import PREPARING, VERTEBRAE, measured

SMI, SEX = "smi_cm2_m2", "is_male"
COEFFICIENTS = "coefficients"  # intercept, per SD of SMI, of men
CENTER, SPREAD = "smi.mean", "smi.sd"
MOST_STEPS, STEADY = 100, 1e-10  # of Newton's method
DEFAULTS: dict[str, Parameter] = {
    **VERTEBRAE,
    **MUSCLE,
    "uses_sex": True,  # men have more muscle at the same bone; without it one line stands for both
    "ridge": 1e-3,  # keeps coefficients finite where an index parts the classes wholly
    "minimum_cases": 8,
    "minimum_events": 2,
}


def prepare(pixels: Pixels, preparing: Preparing) -> Example:
    """SMI (cm2/m2) and sex of one series; ItemRefused height_missing, sex_missing, and what axial_muscle refuses."""
    volume = pixels.volume
    assert volume is not None
    if volume.height_m is None:
        raise ItemRefused("height_missing", "the image header has no height between 1.2 and 2.2 m")
    if preparing.parameters["uses_sex"] and volume.sex is None:
        raise ItemRefused("sex_missing", "the image header has no sex, and uses_sex is true")
    found = axial_muscle(pixels, preparing)
    index = found.area_cm2 / volume.height_m**2
    arrays = {SMI: np.array([index]), SEX: np.array([float(volume.sex == "male")])}
    return Example(arrays, (found.level,), (found.level,), found.flags, measured(pixels, preparing))


@dataclass(frozen=True)
class LogisticLearner:
    """Logistic regression of the target on SMI and, where asked, sex; needs no tuning people."""

    def fit(self, data: TrainingSet, work: Work) -> Fitted:
        """Newton's method from zero: the same data give the same coefficients."""
        examples = [data.example(case.item_digest, True) for case in data.train]  # noqa: FBT003
        truth = np.array([case.targets[0] for case in data.train])
        index = np.array([float(example.arrays[SMI][0]) for example in examples])
        mean, spread = float(index.mean()), float(index.std())
        if not spread > 0:
            raise StudyError("smi_comparator: every series of the train partition has the same SMI; nothing can be fitted")
        design = np.stack([_row(example, work.parameters, mean=mean, spread=spread) for example in examples])
        coefficients = _newton(design, truth, ridge=float(str(work.parameters["ridge"])))
        notes: dict[str, Any] = {
            "n": len(truth), "n_events": int(truth.sum()), "smi_mean_cm2_m2": round(mean, 4), "smi_sd_cm2_m2": round(spread, 4),
            "log_odds": dict(zip(("intercept", "per_sd_of_smi", "of_men"), coefficients.round(6).tolist(), strict=False)),
        }  # fmt: skip
        return Fitted({COEFFICIENTS: coefficients, CENTER: np.array([mean]), SPREAD: np.array([spread])}, notes)

    def open(
        self, state: Mapping[str, Array], parameters: Parameters, *, targets: tuple[Target, ...], device: str
    ) -> Callable[[Sequence[Example]], Sequence[Answer]]:
        """A function from examples to probabilities."""
        del targets, device
        mean, spread = float(state[CENTER][0]), float(state[SPREAD][0])
        coefficients = np.asarray(state[COEFFICIENTS], float)

        def answers(batch: Sequence[Example]) -> Sequence[Answer]:
            rows = [_row(example, parameters, mean=mean, spread=spread) for example in batch]
            return [_answer(float(_probability(row @ coefficients)), example) for row, example in zip(rows, batch, strict=True)]

        return answers


def _row(example: Example, parameters: Parameters, *, mean: float, spread: float) -> Array:
    row = [1.0, (float(example.arrays[SMI][0]) - mean) / spread]
    return np.array([*row, float(example.arrays[SEX][0])] if parameters["uses_sex"] else row)


def _answer(probability: float, example: Example) -> Answer:
    index = f"smi_cm2_m2:{float(example.arrays[SMI][0]):.2f}"
    return Prediction(
        score=probability, value=probability, unit="probability", levels=example.levels, flags=(*example.flags, index),
        regions=example.regions,
    )  # fmt: skip


def _probability(log_odds: Any) -> Any:
    return 1 / (1 + np.exp(-np.clip(log_odds, -30, 30)))


def _newton(design: Array, truth: Array, *, ridge: float) -> Array:
    """Maximum of the likelihood less ridge times half the squared coefficients, the intercept's left out."""
    coefficients = np.zeros(design.shape[1])
    penalty = ridge * np.diag([0.0, *(1.0,) * (design.shape[1] - 1)])
    for _ in range(MOST_STEPS):
        probability = _probability(design @ coefficients)
        slope = design.T @ (truth - probability) - penalty @ coefficients
        curvature = (design * (probability * (1 - probability))[:, None]).T @ design + penalty
        step = np.linalg.solve(curvature + 1e-12 * np.eye(len(curvature)), slope)
        coefficients = coefficients + step
        if float(np.abs(step).max()) < STEADY:
            break
    return coefficients


def check(parameters: Parameters) -> None:
    """StudyError names what cannot be."""
    check_muscle(parameters)
    if not float(str(parameters["ridge"])) >= 0:
        raise StudyError(f"recipes.parameters.ridge is {parameters['ridge']}, expected 0 or above")


RECIPE = TrainableRecipe(
    name="smi_comparator",
    version="1",
    defaults=DEFAULTS,
    preparing=(*PREPARING, *(name for name in MUSCLE if name != "levels"), "uses_sex"),
    targets=lambda _parameters: (Target("is_osteoporosis", "binary", "probability"),),
    prepare=prepare,
    learner=LogisticLearner(),
    reads_masks=True,
    wants_gpu=False,
    check=check,
    description="Logistic regression of osteoporosis on the skeletal muscle index at one level, with sex.",
)
