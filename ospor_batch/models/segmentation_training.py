"""Train the segmentation network on labelled volumes, each seen through label-to-image synthesis."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ospor_batch.errors import StudyError
from ospor_batch.imaging.volume import LabelGrid, Volume, onto_volume
from ospor_batch.models.segmentation import DEFAULTS, network_of, patch_of, to_grid, views
from ospor_batch.models.segmentation_classes import CLASSES, LEVELS, VERTEBRAE, classes_of
from ospor_batch.models.segmentation_randomisation import Randomisation, random_patch
from ospor_batch.models.spec import Parameter

TRAINING: dict[str, Parameter] = {
    **DEFAULTS,
    "steps": 1500,
    "batch": 1,
    "learning_rate": 2e-3,
    "weight_decay": 1e-4,
    "warm_up_steps": 50,
    "minimum_volumes": 4,
}
# cross entropy weighs a class by what is asked of it: bodies are small, background is most of the patch; judgement
WEIGHT = {"background": 0.5, "muscle": 1.0, "fat": 0.5, "visceral_fat": 0.5}
BODY_WEIGHT = 2.0


@dataclass(frozen=True)
class Labelled:
    """One training volume on the network's grid: HU int16 and classes uint8, axes towards head, back and left."""

    hu: npt.NDArray[np.int16]
    classes: npt.NDArray[np.uint8]


def on_grid(volume: Volume, grid: LabelGrid, *, spacing_mm: float) -> Labelled:
    """Bring a volume and its labels (numbers of a file) to the network's grid."""
    hu, affine = to_grid(volume, spacing_mm=spacing_mm)
    coarse = Volume(hu.numpy(), affine)
    return Labelled(
        np.rint(np.clip(coarse.hu, -1024, 3071)).astype(np.int16),
        onto_volume(LabelGrid(classes_of(grid.labels), grid.affine), coarse).astype(np.uint8),
    )


def train(
    volumes: Sequence[Labelled],
    *,
    parameters: Mapping[str, Parameter],
    seed: int,
    device: str = "cpu",
    progress: Callable[[int, float], None] | None = None,
) -> nn.Module:
    """Train from random weights; the same volumes, parameters and seed give the same network on a CPU.

    progress: told (step, loss). StudyError: too few volumes, or no body of a named level in any of them.
    """
    _refuse(volumes, parameters)
    torch.manual_seed(seed)  # initial weights; every later draw comes from the generator
    generator = torch.Generator().manual_seed(seed)
    network = network_of(parameters).to(device)
    rule = replace(Randomisation(), patch=patch_of(parameters), spacing_mm=float(str(parameters["spacing_mm"])))
    steps, batch = int(str(parameters["steps"])), int(str(parameters["batch"]))
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=float(str(parameters["learning_rate"])), weight_decay=float(str(parameters["weight_decay"]))
    )
    warm = int(str(parameters["warm_up_steps"]))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / warm) * (0.02 + 0.98 * (1 + math.cos(math.pi * step / steps)) / 2)
    )
    loss_of = _loss().to(device)
    network.train()
    for step in range(steps):
        image, label = _batch(volumes, batch, rule=rule, generator=generator)
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(network(views(image).to(device)), label[:, None].to(device))
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        if progress is not None:
            progress(step + 1, float(loss.detach()))
    return network.eval()


def _batch(volumes: Sequence[Labelled], n: int, *, rule: Randomisation, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    drawn = []
    for _ in range(n):
        of = volumes[int(torch.randint(len(volumes), (), generator=generator))]
        hu, classes = torch.as_tensor(of.hu).float(), torch.as_tensor(of.classes)
        drawn.append(random_patch(hu, classes, rule=rule, generator=generator))
    return torch.stack([image for image, _ in drawn]), torch.stack([label for _, label in drawn])


def _loss() -> nn.Module:
    """MONAI's Dice plus cross entropy; a class that a patch does not hold costs nothing in Dice but false voxels."""
    from monai.losses import DiceCELoss

    weight = torch.tensor([WEIGHT.get(name, BODY_WEIGHT) for name in CLASSES])
    return DiceCELoss(to_onehot_y=True, softmax=True, batch=True, weight=weight, smooth_nr=1.0, smooth_dr=1.0)


def _refuse(volumes: Sequence[Labelled], parameters: Mapping[str, Parameter]) -> None:
    least = int(str(parameters["minimum_volumes"]))
    if len(volumes) < least:
        raise StudyError(f"segmentation: {len(volumes)} labelled volumes, expected at least {least} (minimum_volumes)")
    present = {CLASSES[number] for volume in volumes for number in np.unique(volume.classes)}
    if not present & set(LEVELS):
        raise StudyError(f"segmentation: no volume holds a body of {', '.join(LEVELS)}; are the masks numbered as VerSe does?")
    if not present - set(VERTEBRAE) - {"background"}:
        raise StudyError("segmentation: no volume holds muscle (100), fat (101) or visceral fat (102)")
