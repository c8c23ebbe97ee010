"""Recipe ct_cnn_smi: CNNs on images of a vertebral body and of skeletal muscle in unenhanced chest CT (Insights Imaging 2025).

Stated: both images, five CNNs under one protocol, DenseNet-121 among them. Not stated and declared here: the level, the
sizes, and the four other families (``FAMILIES``), which are never claimed to be those of the paper. The comparator by
skeletal muscle index is models.smi_comparator.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ospor_batch.errors import ItemRefused, StudyError
from ospor_batch.imaging.body_areas import wall_muscle
from ospor_batch.imaging.orientation import body_mask
from ospor_batch.imaging.tissues import MUSCLE_HU
from ospor_batch.imaging.vertebra_images import AXES, Place, plane_images, share_of
from ospor_batch.imaging.volume import Volume
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
    check_above_zero,
    check_one_of,
    check_vertebrae,
    entering,
    measured,
    scaled,
)  # fmt: skip

if TYPE_CHECKING:
    import torch

FAMILIES = ("densenet121", "resnet18", "efficientnet_b0", "seresnet18", "vgg11")  # the first is the paper's, the others ours
AREA_MM, AREA_PIXELS = 500.0, 500  # plane in which the muscle is measured: the widest field of view, 1 mm a pixel
MUSCLE: dict[str, Parameter] = {
    "levels": ("T12",),  # the level of the axial slice; L3 where the images show it
    "muscle_from": "mask",  # mask: label muscle of recipes.masks.tissues; window: the body wall by its CT number
    "minimum_muscle_cm2": 5.0,  # below it there is no muscle in the field of view
}
DEFAULTS: dict[str, Parameter] = {
    **TRAINING,
    **AUGMENTATION,
    "augment_contrast": 0.0,  # CT numbers are what tells one bone from another: 0.1 of brightness would be 40 HU
    "augment_brightness": 0.0,
    **VERTEBRAE,
    **MUSCLE,
    "network": "densenet121",
    "width": 64,
    "dropout": 0.0,
    "body_mm": 80.0,  # side of the image of the vertebral body
    "muscle_mm": 400.0,  # side of the image of the muscle
    "image_pixels": 128,
    "is_body_masked": True,
    "stop_on": "auc",
}


@dataclass(frozen=True)
class Slice:
    """The axial slice through the middle of one vertebra: where it lies, and the share of muscle in each square mm."""

    level: str
    place: Place
    muscle: npt.NDArray[np.float32]
    flags: tuple[str, ...]

    @property
    def area_cm2(self) -> float:
        """Area of muscle (methods I1)."""
        return float(self.muscle.sum()) * (AREA_MM / AREA_PIXELS) ** 2 / 100


def axial_muscle(pixels: Pixels, preparing: Preparing) -> Slice:
    """Find the slice and its muscle; ItemRefused levels_missing, levels_cut, muscle_mask_missing, no_muscle_in_view."""
    places, flags = entering(pixels, preparing)
    ((level, place),) = places.items()
    muscle = _muscle(pixels, preparing, place, level=level)
    found = Slice(level, place, muscle, (*flags, *(("muscle_by_window",) if _is_by_window(preparing) else ())))
    least = float(str(preparing.parameters["minimum_muscle_cm2"]))
    if found.area_cm2 < least:
        raise ItemRefused("no_muscle_in_view", f"{found.area_cm2:.1f} cm2 of muscle at {level}, expected at least {least:g}")
    return found


def _is_by_window(preparing: Preparing) -> bool:
    return preparing.parameters["muscle_from"] == "window"


def _muscle(pixels: Pixels, preparing: Preparing, place: Place, *, level: str) -> npt.NDArray[np.float32]:
    """Share of muscle in the axial plane: within its mask and within the window of its CT numbers."""
    volume, labels = pixels.volume, pixels.labels
    assert volume is not None
    assert labels is not None
    hu = plane_images(volume, place.center, plane="axial", side_mm=AREA_MM, pixels=AREA_PIXELS)[0]
    is_muscle = (hu >= MUSCLE_HU[0]) & (hu <= MUSCLE_HU[1])
    if _is_by_window(preparing):
        return _of_wall(hu, level)
    label = dict(preparing.masks.tissues).get("muscle")
    if label is None or not (mask := labels == label).any():
        raise ItemRefused("muscle_mask_missing", "no muscle in the mask; name its label in recipes.masks.tissues")
    share = share_of(mask, volume, place.center, axes=AXES["axial"], side_mm=AREA_MM, pixels=AREA_PIXELS)
    found: npt.NDArray[np.float32] = np.where(is_muscle, share, np.float32(0))
    return found


def _of_wall(hu: npt.NDArray[np.float32], level: str) -> npt.NDArray[np.float32]:
    """Muscle of the body wall by its CT number, where no mask is at hand."""
    step = AREA_MM / AREA_PIXELS
    body = body_mask(Volume(hu[None], np.diag([1.0, step, step, 1.0])))[0]
    middle = ((AREA_PIXELS - 1) / 2,) * 2
    found = wall_muscle(hu, body, middle=(middle[0], middle[1]), step=(step, step), level=level)
    share: npt.NDArray[np.float32] = found.astype(np.float32)
    return share


def prepare(pixels: Pixels, preparing: Preparing) -> Example:
    """Two channels of one axial slice: the vertebral body alone, and the muscle alone, each at its own scale."""
    p, found = preparing.parameters, axial_muscle(pixels, preparing)
    body = _body_image(pixels, preparing, found)
    side, n = float(str(p["muscle_mm"])), int(str(p["image_pixels"]))
    assert pixels.volume is not None
    hu = plane_images(pixels.volume, found.place.center, plane="axial", side_mm=side, pixels=n)[0]
    muscle = np.where(_at(found.muscle, side_mm=side, pixels=n) >= 0.5, np.clip(hu, *MUSCLE_HU), MUSCLE_HU[0])
    low, high = MUSCLE_HU
    image = np.stack([scaled(body, p), (2 * (muscle - low) / (high - low) - 1).astype(np.float16)])[None]
    return Example({IMAGE: image}, (found.level,), (found.level,), found.flags, measured(pixels, preparing))


def _body_image(pixels: Pixels, preparing: Preparing, found: Slice) -> Array:
    p, volume = preparing.parameters, pixels.volume
    assert volume is not None
    assert pixels.labels is not None
    side, n, center = float(str(p["body_mm"])), int(str(p["image_pixels"])), found.place.center
    hu: Array = plane_images(volume, center, plane="axial", side_mm=side, pixels=n)[0]
    if not p["is_body_masked"]:
        return hu
    is_body = pixels.labels == dict(preparing.masks.labels)[found.level]
    share = share_of(is_body, volume, center, axes=AXES["axial"], side_mm=side, pixels=n)
    alone: Array = np.where(share >= 0.5, hu, float(str(p["hu_low"])))
    return alone


def _at(plane: npt.NDArray[np.float32], *, side_mm: float, pixels: int) -> npt.NDArray[np.float32]:
    """The plane in which muscle is measured, at the scale of an image."""
    from scipy import ndimage

    step, fine = side_mm / pixels, AREA_MM / AREA_PIXELS
    blurred = ndimage.gaussian_filter(plane, max(0.0, step / fine - 1) / 2) if step > fine else plane
    along = (np.arange(pixels) - (pixels - 1) / 2) * step / fine + (AREA_PIXELS - 1) / 2
    found: npt.NDArray[np.float32] = ndimage.map_coordinates(blurred, np.meshgrid(along, along, indexing="ij"), order=1)
    return found


def network(parameters: Parameters) -> torch.nn.Module:
    """One of the five families."""
    from ospor_batch.models.networks import network_of

    return network_of(parameters, n_channels=2, n_outputs=1)


def answer(outputs: Array, example: Example, _parameters: Parameters) -> Answer:
    """The probability of osteoporosis."""
    value = float(outputs[:, 0].mean())
    if not np.isfinite(value):
        return ItemRefused("non_finite", "the network gave no finite probability")
    return Prediction(
        score=value, value=value, unit="probability", levels=example.levels, flags=example.flags, regions=example.regions
    )


def check(parameters: Parameters) -> None:
    """StudyError names what cannot be."""
    check_muscle(parameters)
    check_above_zero(parameters, "body_mm", "muscle_mm", "image_pixels")


def check_muscle(parameters: Parameters) -> None:
    """StudyError where the parameters of ``axial_muscle`` cannot be."""
    check_vertebrae(parameters)
    levels = parameters["levels"]
    if not isinstance(levels, tuple) or len(levels) != 1:
        raise StudyError(f"recipes.parameters.levels is {levels!r}, expected one level: the axial slice is of one vertebra")
    check_one_of(parameters, "muscle_from", known=("mask", "window"))


RECIPE = TrainableRecipe(
    name="ct_cnn_smi",
    version="1",
    defaults=DEFAULTS,
    preparing=(*PREPARING, "muscle_from", "minimum_muscle_cm2", "body_mm", "muscle_mm", "image_pixels", "is_body_masked"),
    targets=lambda _parameters: (Target("is_osteoporosis", "binary", "probability"),),
    prepare=prepare,
    learner=NetworkLearner(network=network, answer=answer, augment=augmented),
    reads_masks=True,
    reading=("precision",),
    check=check,
    description="Classifies osteoporosis from images of one vertebral body and of the skeletal muscle in the same axial slice.",
)
