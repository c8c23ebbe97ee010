"""Recipe ct_qct_bmd: DenseNet-121 regresses volumetric BMD from each segmented vertebra (Fang, Eur Radiol 2021).

Stated: segmented bodies of L1-L4, DenseNet-121, reference QCT, three scanner vendors. Everything else is a parameter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ospor_batch.imaging.vertebra_images import AXES, Place, box_image, plane_images, share_of
from ospor_batch.models.augmentation import AUGMENTATION, augmented
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

PLANES = ("sagittal", "coronal", "axial")
BOX_AXES = (np.array([0.0, 0, 1]), np.array([0.0, 1, 0]), np.array([1.0, 0, 0]))
DEFAULTS: dict[str, Parameter] = {
    **TRAINING,
    **AUGMENTATION,
    # CT numbers are the measurement: they are not brightened, stretched or mirrored away
    "augment_contrast": 0.0,
    "augment_brightness": 0.0,
    **VERTEBRAE,
    "minimum_levels": 2,  # methods L7
    "network": "densenet121",
    "width": 64,
    "dropout": 0.0,
    "crop": "planes",  # planes: three planes through the middle as channels; box: a cube and a 3-D network
    "crop_mm": 64.0,
    "crop_pixels": 96,
    "is_masked": True,  # what lies outside the mask of the vertebra is blanked
    "aggregate": "mean",  # over vertebrae: mean | median
    "stop_on": "loss",  # correlation is blind to bias, and a cut-off of a density is not
    "is_balanced": False,
}


def prepare(pixels: Pixels, preparing: Preparing) -> Example:
    """Cut one crop a vertebra; ItemRefused levels_missing, levels_cut."""
    places, flags = entering(pixels, preparing)
    crops = [_crop(pixels, place, preparing, level=level) for level, place in places.items()]
    levels = tuple(places)
    image = scaled(np.stack(crops), preparing.parameters)
    return Example({IMAGE: image}, levels, levels, flags, measured(pixels, preparing))


def _crop(pixels: Pixels, place: Place, preparing: Preparing, *, level: str) -> Array:
    """HU (channel, *space) around a vertebra."""
    p, volume = preparing.parameters, pixels.volume
    assert volume is not None
    assert pixels.labels is not None
    side, n = float(str(p["crop_mm"])), int(str(p["crop_pixels"]))
    is_body, blank = pixels.labels == dict(preparing.masks.labels)[level], float(str(p["hu_low"]))
    found = []
    for plane in PLANES if p["crop"] == "planes" else ("box",):
        if plane == "box":
            hu = box_image(volume, place.center, side_mm=side, pixels=n)
        else:
            hu = plane_images(volume, place.center, plane=plane, side_mm=side, pixels=n)[0]  # type: ignore[arg-type]
        if p["is_masked"]:
            axes = BOX_AXES if plane == "box" else AXES[plane]  # type: ignore[index]
            share = share_of(is_body, volume, place.center, axes=axes, side_mm=side, pixels=n)
            hu = np.where(share >= 0.5, hu, blank)
        found.append(hu)
    return np.stack(found)


def network(parameters: Parameters) -> torch.nn.Module:
    """The network of the recipe, flat or 3-D by the crop."""
    from ospor_batch.models.networks import network_of

    is_flat = parameters["crop"] == "planes"
    return network_of(parameters, n_channels=len(PLANES) if is_flat else 1, n_outputs=1, spatial_dims=2 if is_flat else 3)


def augment(images: torch.Tensor, parameters: Parameters, generator: torch.Generator) -> torch.Tensor:
    """Change flat crops as images are; a cube only gets noise."""
    if parameters["crop"] == "planes":
        return augmented(images, parameters, generator)
    import torch

    return images + torch.randn(images.shape, generator=generator).to(images) * float(str(parameters["augment_noise"]))


def answer(outputs: Array, example: Example, parameters: Parameters) -> Answer:
    """The vBMD of the patient over the vertebrae, in mg/cm3."""
    values = level_values(outputs[:, 0], example)
    if (refused := refused_values(values)) is not None:
        return refused
    value = aggregated(values, str(parameters["aggregate"]))
    return Prediction(
        score=-value, value=value, unit="mg/cm3", levels=example.levels, flags=example.flags, regions=example.regions,
        level_values=tuple(values.items()),
    )  # fmt: skip


def check(parameters: Parameters) -> None:
    """StudyError names what cannot be."""
    check_vertebrae(parameters)
    check_above_zero(parameters, "crop_mm", "crop_pixels")
    check_one_of(parameters, "crop", known=("planes", "box"))
    check_one_of(parameters, "aggregate", known=("mean", "median"))


RECIPE = TrainableRecipe(
    name="ct_qct_bmd",
    version="1",
    defaults=DEFAULTS,
    preparing=(*PREPARING, "crop", "crop_mm", "crop_pixels", "is_masked"),
    reading=("aggregate", "precision"),
    targets=lambda _parameters: (Target("vbmd_mg_cm3", "value", "mg/cm3"),),
    prepare=prepare,
    learner=NetworkLearner(network=network, answer=answer, augment=augment),
    reads_masks=True,
    check=check,
    description="Regresses trabecular volumetric BMD (mg/cm3) from a crop of each lumbar vertebra; reference QCT.",
)
