"""Recipe ct_bmd_tbs: ResNet50 regresses BMD and TBS from sagittal images of each vertebra (J Comput Assist Tomogr 2023).

Stated: non-contrast CT with L1-L4, ResNet50, two targets. Deduced: twelve images a patient in training and four in the
test, so three neighbouring slices a vertebra and one. Everything else is a parameter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ospor_batch.imaging.vertebra_images import AXES, plane_images, share_of
from ospor_batch.models.augmentation import AUGMENTATION, augmented
from ospor_batch.models.auxiliary import AUXILIARY, check_auxiliary, with_auxiliary
from ospor_batch.models.spec import Parameter, Pixels, Prediction
from ospor_batch.models.trainable import (
    IMAGE,
    TRAINING,
    Answer,
    Array,
    Example,
    NetworkLearner,
    Parameters,
    Preparing,
    Target,
    TrainableRecipe,
)  # fmt: skip
from ospor_batch.models.vertebra_inputs import (
    PREPARING,
    VERTEBRAE,
    aggregated,
    check_above_zero,
    check_one_of,
    check_vertebrae,
    entering,
    level_values,
    measured,
    refused_values,
    scaled,
)  # fmt: skip

if TYPE_CHECKING:
    import torch

TARGETS = {"bmd": Target("lumbar_spine_bmd_g_cm2", "value", "g/cm2"), "tbs": Target("tbs", "value", "tbs")}
DEFAULTS: dict[str, Parameter] = {
    **TRAINING,
    **AUXILIARY,
    **AUGMENTATION,
    "augment_contrast": 0.0,  # CT numbers are the measurement
    "augment_brightness": 0.0,
    "augment_scale": 0.0,  # millimetres are, too: areal BMD grows with the size of a vertebra
    **VERTEBRAE,
    "network": "resnet50",
    "width": 64,
    "slices_in_training": 3,  # sagittal images a vertebra: deduced from 3,360 images of 280 patients
    "slices_in_test": 1,  # deduced from 280 images of 70 and 208 of 52 patients
    "slice_step_mm": 4.0,
    "image_mm": 80.0,
    "image_pixels": 128,
    "is_masked": False,  # the abstract speaks of sagittal images, not of segmented bodies
    "reports": "bmd",  # which target the prediction states: bmd | tbs; two recipe ids may share one model
    "aggregate": "mean",  # over vertebrae: mean | median
    "stop_on": "pearson_r",
    "is_balanced": False,
}


def prepare(pixels: Pixels, preparing: Preparing) -> Example:
    """Cut the sagittal images of each vertebra; ItemRefused levels_missing, levels_cut."""
    p, volume = preparing.parameters, pixels.volume
    places, flags = entering(pixels, preparing)
    assert volume is not None
    side, n = float(str(p["image_mm"])), int(str(p["image_pixels"]))
    offsets = offsets_of(preparing)
    images, units = [], []
    for level, place in places.items():
        cut = plane_images(volume, place.center, plane="sagittal", offsets_mm=offsets, side_mm=side, pixels=n)
        if p["is_masked"]:
            cut = _masked(cut, pixels, preparing, level=level, center=place.center)
        images.append(cut)
        units += [f"{level}:{number}" for number in range(len(offsets))]
    image = scaled(np.concatenate(images)[:, None], p)
    return Example({IMAGE: image}, tuple(units), tuple(places), flags, measured(pixels, preparing))


def offsets_of(preparing: Preparing) -> tuple[float, ...]:
    """Where the slices lie beside the middle of a vertebra, mm to the left."""
    n = int(str(preparing.parameters["slices_in_training" if preparing.is_training else "slices_in_test"]))
    step = float(str(preparing.parameters["slice_step_mm"]))
    return tuple((place - (n - 1) / 2) * step for place in range(n))


def _masked(cut: Array, pixels: Pixels, preparing: Preparing, *, level: str, center: Array) -> Array:
    p = preparing.parameters
    assert pixels.volume is not None
    assert pixels.labels is not None
    is_body = pixels.labels == dict(preparing.masks.labels)[level]
    shares = [
        share_of(is_body, pixels.volume, center + np.array([offset, 0, 0]), axes=AXES["sagittal"],
                 side_mm=float(str(p["image_mm"])), pixels=int(str(p["image_pixels"])))
        for offset in offsets_of(preparing)
    ]  # fmt: skip
    return np.where(np.stack(shares) >= 0.5, cut, float(str(p["hu_low"])))


def targets_of(parameters: Parameters) -> tuple[Target, ...]:
    """BMD and TBS first."""
    return with_auxiliary(tuple(TARGETS.values()), parameters)


def network(parameters: Parameters) -> torch.nn.Module:
    """One network with both targets, and what it learns beside them."""
    from ospor_batch.models.networks import network_of

    return network_of(parameters, n_channels=1, n_outputs=len(targets_of(parameters)))


def answer(outputs: Array, example: Example, parameters: Parameters) -> Answer:
    """BMD (g/cm2) or TBS of the patient over the vertebrae, as ``reports`` asks."""
    which = str(parameters["reports"])
    values = level_values(outputs[:, list(TARGETS).index(which)], example)
    if (refused := refused_values(values)) is not None:
        return refused
    value = aggregated(values, str(parameters["aggregate"]))
    return Prediction(
        score=-value, value=value, unit=TARGETS[which].unit, levels=example.levels, flags=example.flags,
        regions=example.regions, level_values=tuple(values.items()),
    )  # fmt: skip


def check(parameters: Parameters) -> None:
    """StudyError names what cannot be."""
    check_vertebrae(parameters)
    check_above_zero(parameters, "image_mm", "image_pixels", "slices_in_training", "slices_in_test", "slice_step_mm")
    check_one_of(parameters, "reports", known=tuple(TARGETS))
    check_one_of(parameters, "aggregate", known=("mean", "median"))
    check_auxiliary(parameters)


RECIPE = TrainableRecipe(
    name="ct_bmd_tbs",
    version="1",
    defaults=DEFAULTS,
    preparing=(*PREPARING, "slices_in_training", "slices_in_test", "slice_step_mm", "image_mm", "image_pixels", "is_masked"),
    reading=("reports", "aggregate", "precision"),
    targets=targets_of,
    prepare=prepare,
    learner=NetworkLearner(network=network, answer=answer, augment=augmented),
    reads_masks=True,
    check=check,
    description="Regresses areal BMD of the lumbar spine (g/cm2) and TBS from sagittal images of each lumbar vertebra.",
)
