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
from ospor_batch.models.segmentation import DEFAULTS, PLACE_UNIT, PLACE_ZERO, network_of, patch_of, to_grid, views
from ospor_batch.models.segmentation_classes import KIND_OF, KINDS, LEVELS, STRUCTURES, TISSUES, structures_of
from ospor_batch.models.segmentation_randomisation import Randomisation, random_patch
from ospor_batch.models.spec import Parameter

TRAINING: dict[str, Parameter] = {
    **DEFAULTS,
    "steps": 1000,
    "batch": 1,
    "learning_rate": 2e-3,
    "weight_decay": 1e-4,
    "warm_up_steps": 50,
    "minimum_volumes": 4,
}
# cross entropy weighs a kind by what is asked of it: bodies are small, background is most of a patch; judgement
WEIGHT = {"background": 0.5, "vertebra": 3.0, "muscle": 1.0, "fat": 0.5, "visceral_fat": 0.5}
PLACE_WEIGHT = 2.0  # of the error of the level, in units of PLACE_UNIT levels; judgement


@dataclass(frozen=True)
class Labelled:
    """One training volume on the network's grid: HU int16 and structures uint8, axes towards head, back and left."""

    hu: npt.NDArray[np.int16]
    structures: npt.NDArray[np.uint8]


def on_grid(volume: Volume, grid: LabelGrid, *, spacing_mm: float) -> Labelled:
    """Bring a volume and its labels (numbers of a file) to the network's grid."""
    hu, affine = to_grid(volume, spacing_mm=spacing_mm)
    coarse = Volume(hu.numpy(), affine)
    return Labelled(
        np.rint(np.clip(coarse.hu, -1024, 3071)).astype(np.int16),
        onto_volume(LabelGrid(structures_of(grid.labels), grid.affine), coarse).astype(np.uint8),
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
    loss_of = Loss().to(device)
    network.train()
    for step in range(steps):
        image, label = _batch(volumes, batch, rule=rule, generator=generator)
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(network(views(image).to(device)), label.to(device))
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
        hu, structures = torch.as_tensor(of.hu).float(), torch.as_tensor(of.structures)
        drawn.append(random_patch(hu, structures, rule=rule, generator=generator))
    return torch.stack([image for image, _ in drawn]), torch.stack([label for _, label in drawn])


class Loss(nn.Module):  # type: ignore[misc]
    """MONAI's Dice plus cross entropy of the kinds, and the error of the level within bodies."""

    def __init__(self) -> None:
        from monai.losses import DiceCELoss

        super().__init__()
        weight = torch.tensor([WEIGHT[kind] for kind in KINDS])
        self.kinds = DiceCELoss(to_onehot_y=True, softmax=True, batch=True, weight=weight, smooth_nr=1.0, smooth_dr=1.0)
        self.register_buffer("kind_of", torch.as_tensor(KIND_OF).long())

    def forward(self, found: Tensor, structures: Tensor) -> Tensor:
        """found: (n, kind and place, z, y, x). structures: (n, z, y, x)."""
        kind = self.kind_of[structures]
        loss: Tensor = self.kinds(found[:, : len(KINDS)], kind[:, None])
        is_body = kind == KINDS.index("vertebra")
        if not is_body.any():
            return loss
        place = (structures[is_body] - STRUCTURES.index(LEVELS[0]) - PLACE_ZERO) / PLACE_UNIT
        return loss + PLACE_WEIGHT * nn.functional.smooth_l1_loss(found[:, len(KINDS)][is_body], place, beta=0.1)


def _refuse(volumes: Sequence[Labelled], parameters: Mapping[str, Parameter]) -> None:
    least = int(str(parameters["minimum_volumes"]))
    if len(volumes) < least:
        raise StudyError(f"segmentation: {len(volumes)} labelled volumes, expected at least {least} (minimum_volumes)")
    present = {STRUCTURES[number] for volume in volumes for number in np.unique(volume.structures)}
    if not present & set(LEVELS):
        raise StudyError("segmentation: no volume holds a vertebral body; are the masks numbered as VerSe does (L1 is 20)?")
    if not present & set(TISSUES):
        raise StudyError("segmentation: no volume holds muscle (100), fat (101) or visceral fat (102)")
