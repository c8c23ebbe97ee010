"""Osteoporosis from a frontal chest radiograph (after Jang 2022): one network, label lowest T <= -2.5 at any site.

The abstract names neither network nor size, schedule or normalisation; each is a parameter with a visible default.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ospor_batch.errors import ItemRefused, StudyError
from ospor_batch.imaging.lungs import LUNG_REGIONS, lung_region
from ospor_batch.models.augmentation import AUGMENTATION, augmented
from ospor_batch.models.auxiliary import AUXILIARY, check_auxiliary, with_auxiliary
from ospor_batch.models.spec import COARSE, Parameter, Pixels, Prediction
from ospor_batch.models.trainable import (
    IMAGE,
    TRAINING,
    Array,
    Example,
    NetworkLearner,
    Parameters,
    Preparing,
    Target,
    TrainableRecipe,
)

if TYPE_CHECKING:
    import torch

VERSION = "1"  # raise it with every change below that can move a value
WHOLE = "whole"
# Boxes of the exposed field as shares of its height and width: top, bottom, left, right of the picture, where the patient's
# left lies on the right. Declared; the abstract says that sub-regions were compared, not how they were cut.
REGIONS: dict[str, tuple[float, float, float, float]] = {
    WHOLE: (0.0, 1.0, 0.0, 1.0),
    "upper": (0.0, 0.5, 0.0, 1.0),
    "lower": (0.5, 1.0, 0.0, 1.0),
    "left": (0.0, 1.0, 0.5, 1.0),
    "right": (0.0, 1.0, 0.0, 0.5),
    "spine": (0.0, 1.0, 0.35, 0.65),
    "clavicles": (0.0, 0.3, 0.0, 1.0),
    "right_lung": (0.15, 0.75, 0.05, 0.45),
    "left_lung": (0.15, 0.75, 0.55, 0.95),
    "below_diaphragm": (0.7, 1.0, 0.0, 1.0),
}
DEFAULTS: dict[str, Parameter] = {
    **TRAINING,
    **AUXILIARY,
    **AUGMENTATION,
    "augment_gamma": 0.3,  # another hospital's display bends gray values and raises detail otherwise
    "augment_detail": 0.4,
    "network": "densenet121",  # [?] of the abstract
    "width": 64,
    "dropout": 0.0,
    "image_pixels": 512,  # [?]
    "region": WHOLE,
    "normalise": "image",  # image: mean 0 and SD 1 of each image; none: 0 to 1 as read
    "explain_images": 100,  # Grad-CAM of at most so many test images of each partition and class; 0: none
    "explain_pictures": 8,  # of them so many of each as private pictures
    "refuse_lateral": True,  # of images whose pixels look like a lateral view
    # pixels that the shorter side of a JPEG 2000 image keeps when it is decoded to be predicted; 0: decoded whole. It moves
    # scores by a sixth of their spread (benchmarks/inference.md)
    COARSE: 0,
}
SMALLEST, LARGEST = 16, 4096  # pixels a side


def prepare(pixels: Pixels, preparing: Preparing) -> Example:
    """Cut the region, pad it to a square with its own darkest value, resize and normalise.

    ItemRefused: looks_lateral, image_blank, lungs_missing.
    """
    found, p = pixels.radiograph, preparing.parameters
    assert found is not None  # registry: it reads radiographs
    if p["refuse_lateral"] and "looks_lateral" in found.flags:
        raise ItemRefused("looks_lateral", "no spine stands out in the middle, as it does in a frontal view")
    image = found.image
    if "looks_inverted" in found.flags:
        image = (1 - image).astype(np.float32)
    cut = region_of(image, str(p["region"]))
    square = resized(padded_square(cut), int(str(p["image_pixels"])))
    spread = float(square.std())
    if spread < 1e-3:  # of a scale from 0 to 1: nothing is seen in this region
        raise ItemRefused("image_blank", f"the region {p['region']} shows nothing")
    if p["normalise"] == "image":
        square = (square - square.mean()) / spread
    return Example({IMAGE: square[None, None].astype(np.float16)}, flags=found.flags)


def region_of(image: npt.NDArray[np.float32], name: str) -> npt.NDArray[np.float32]:
    """The part of an image that a named region covers; ItemRefused lungs_missing."""
    if name in LUNG_REGIONS:
        return lung_region(image, name)
    top, bottom, left, right = REGIONS[name]
    n_rows, n_columns = image.shape
    rows = slice(round(top * n_rows), max(round(bottom * n_rows), round(top * n_rows) + 1))
    columns = slice(round(left * n_columns), max(round(right * n_columns), round(left * n_columns) + 1))
    return image[rows, columns]


def padded_square(image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The image in the middle of a square of its darkest value, so that nothing is stretched."""
    n_rows, n_columns = image.shape
    if n_rows == n_columns:
        return image
    side = max(n_rows, n_columns)
    whole = np.full((side, side), float(image.min()), np.float32)
    top, left = (side - n_rows) // 2, (side - n_columns) // 2
    whole[top : top + n_rows, left : left + n_columns] = image
    return whole


def resized(image: npt.NDArray[np.float32], pixels: int) -> npt.NDArray[np.float32]:
    """A square image at another size: bilinear, averaged over what a pixel covers when it becomes smaller."""
    import torch
    from torch.nn import functional

    tensor = torch.from_numpy(np.ascontiguousarray(image))[None, None]
    made = functional.interpolate(tensor, size=(pixels, pixels), mode="bilinear", align_corners=False, antialias=True)
    found: npt.NDArray[np.float32] = made[0, 0].numpy()
    return found


def targets_of(parameters: Parameters) -> tuple[Target, ...]:
    """Osteoporosis first."""
    return with_auxiliary((Target("is_osteoporosis", "binary", "probability"),), parameters)


def network(parameters: Parameters) -> torch.nn.Module:
    """One channel in, one logit out; behind it what is learned beside it."""
    from ospor_batch.models.networks import network_of

    return network_of(parameters, n_channels=1, n_outputs=len(targets_of(parameters)))


def answer(outputs: Array, example: Example, _parameters: Parameters) -> Prediction:
    """The chance of osteoporosis is score and value."""
    chance = float(outputs[:, 0].mean())
    return Prediction(score=chance, value=chance, unit="probability", levels=(), flags=example.flags, regions=())


def check(parameters: Parameters) -> None:
    """StudyError names a parameter that cannot be."""
    if parameters["region"] not in (*REGIONS, *LUNG_REGIONS):
        known = ", ".join((*REGIONS, *LUNG_REGIONS))
        raise StudyError(f"recipes.parameters.region is {parameters['region']!r}, expected one of {known}")
    if not SMALLEST <= int(str(parameters["image_pixels"])) <= LARGEST:
        raise StudyError(f"recipes.parameters.image_pixels is {parameters['image_pixels']}, expected {SMALLEST} to {LARGEST}")
    least = int(str(parameters.get(COARSE, 0)))
    if least and least < 2 * int(str(parameters["image_pixels"])):  # with less, a third of the decisions moved
        raise StudyError(
            f"recipes.parameters.{COARSE} is {least}, expected 0 (decoded whole) or at least twice image_pixels "
            f"({parameters['image_pixels']})"
        )
    if parameters["normalise"] not in {"image", "none"}:
        raise StudyError(f"recipes.parameters.normalise is {parameters['normalise']!r}, expected image or none")
    check_auxiliary(parameters)


RECIPE = TrainableRecipe(
    name="cxr_osteoporosis",
    version=VERSION,
    defaults=DEFAULTS,
    preparing=("image_pixels", "region", "normalise", "refuse_lateral"),
    targets=targets_of,
    prepare=prepare,
    learner=NetworkLearner(network=network, answer=answer, augment=augmented),
    reads="radiograph",
    reading=("explain_images", "explain_pictures", "precision", COARSE),
    regions={name: box for name, box in REGIONS.items() if name != WHOLE},
    check=check,
    description="Chance that the lowest T-score of the declared sites is -2.5 or less, from a frontal chest radiograph.",
)
