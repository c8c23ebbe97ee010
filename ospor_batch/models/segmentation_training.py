"""Train the segmentation network on labelled volumes, each seen through label-to-image synthesis."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor, nn

from ospor_batch.errors import StudyError
from ospor_batch.imaging.volume import LabelGrid, Volume, onto_volume
from ospor_batch.models.checkpoint import open_checkpoint, restore_optimizer, save_checkpoint
from ospor_batch.models.segmentation import DEFAULTS, level_of, network_of, patch_of, to_grid, views
from ospor_batch.models.segmentation_classes import (
    DISC,
    KIND_OF,
    KINDS,
    LEVELS,
    RIB,
    SACRUM,
    STRUCTURES,
    TISSUES,
    structures_of,
)
from ospor_batch.models.segmentation_randomisation import Randomisation, Source, random_patch
from ospor_batch.models.spec import Parameter

TRAINING: dict[str, Parameter] = {
    **DEFAULTS,
    "randomisation": 1.0,  # strength of the synthesis: 0 shows the volumes nearly as they are
    "steps": 6000,  # about ten minutes of one core
    "batch": 1,
    "learning_rate": 3e-3,
    "weight_decay": 1e-4,
    "warm_up_steps": 50,
    "mixed_precision": True,  # bfloat16, also on a CPU: three times as fast where it has AVX-512 BF16
    "minimum_volumes": 4,
}
CHECKPOINT_STEPS = 100
GAP_MM = 18.0  # highest lumbar disc and the hollows of its end-plates, along the patient's axis; judgement
LANDMARKS, NEVER = (RIB, SACRUM), -30.0  # NEVER: a logit
PLACE_WEIGHT = 0.3  # of the negative log likelihood of the level; judgement


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


def with_discs(structures: npt.NDArray[np.uint8], *, spacing_mm: float) -> npt.NDArray[np.uint8]:
    """Name what lies between two bodies disc: without it, a network that has seen few steps joins the bodies."""
    is_body = (structures >= STRUCTURES.index(LEVELS[0])) & (structures <= STRUCTURES.index(LEVELS[-1]))
    reach = 2 * round(GAP_MM / spacing_mm / 2) + 1
    between = ndimage.binary_closing(is_body, structure=np.ones((reach, 1, 1), bool)) & (structures == 0)
    found: npt.NDArray[np.uint8] = np.where(between, STRUCTURES.index(DISC), structures).astype(np.uint8)
    return found


def train(
    volumes: Sequence[Labelled],
    *,
    parameters: Mapping[str, Parameter],
    seed: int,
    device: str = "cpu",
    progress: Callable[[int, float], None] | None = None,
    checkpoint: Path | None = None,
) -> nn.Module:
    """Train from random weights; the same volumes, parameters and seed give the same network on a CPU.

    progress: told (step, loss). checkpoint: a file from which a training that was killed goes on to the same weights.
    StudyError: too few volumes, no body of a named level in any of them, or a loss that is no number.
    """
    _refuse(volumes, parameters)
    torch.manual_seed(seed)  # initial weights; every later draw comes from the generator
    run = _Run(volumes, parameters, generator=torch.Generator().manual_seed(seed), device=device)
    identity = f"{seed} {volumes_digest(volumes)} {json.dumps(dict(parameters), sort_keys=True)}"
    steps = int(str(parameters["steps"]))
    if checkpoint is not None:
        run.resume(checkpoint, identity=identity)
    while run.step < steps:
        loss = run.one_step()
        if not math.isfinite(loss):
            raise StudyError(f"segmentation: the loss of step {run.step} is no number; take a lower learning_rate")
        if checkpoint is not None and run.step % CHECKPOINT_STEPS == 0:
            run.save(checkpoint, identity=identity)
        if progress is not None:
            progress(run.step, loss)
    return run.network.eval()


def volumes_digest(volumes: Sequence[Labelled]) -> str:
    """What was trained on: one digest over the voxels and labels of all volumes, in their order."""
    found = hashlib.blake2b(digest_size=16)
    for volume in volumes:
        found.update(str(volume.hu.shape).encode())
        found.update(np.ascontiguousarray(volume.hu).data)
        found.update(np.ascontiguousarray(volume.structures).data)
    return found.hexdigest()


class _Run:
    """One training under way."""

    def __init__(
        self, volumes: Sequence[Labelled], parameters: Mapping[str, Parameter], *, generator: torch.Generator, device: str
    ) -> None:
        rule = Randomisation(patch=patch_of(parameters), spacing_mm=float(str(parameters["spacing_mm"])))
        self.rule = rule.of_strength(float(str(parameters["randomisation"])))
        self.sources = [
            Source.of(torch.as_tensor(one.hu), torch.as_tensor(with_discs(one.structures, spacing_mm=rule.spacing_mm)))
            for one in volumes
        ]
        self.parameters, self.generator, self.device, self.step = parameters, generator, torch.device(device), 0
        self.network = network_of(parameters).to(device)
        self.loss = Loss().to(device)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), weight_decay=float(str(parameters["weight_decay"])))

    def one_step(self) -> float:
        """Draw a batch, learn from it, and tell the loss."""
        p = self.parameters
        self.network.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate()
        image, label, knows = _batch(self.sources, int(str(p["batch"])), rule=self.rule, generator=self.generator)
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=bool(p["mixed_precision"])):
            found = self.network(views(image).to(self.device))
        loss = self.loss(found.float(), label.to(self.device), knows.to(self.device))
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimizer.step()
        self.step += 1
        return float(loss.detach())

    def _rate(self) -> float:
        """A linear rise over the warm-up under half a cosine down to 2 % of the rate."""
        p = self.parameters
        rise = min(1.0, (self.step + 1) / int(str(p["warm_up_steps"])))
        fall = (1 + math.cos(math.pi * self.step / int(str(p["steps"])))) / 2
        return float(str(p["learning_rate"])) * rise * (0.02 + 0.98 * fall)

    def save(self, path: Path, *, identity: str) -> None:
        """Write the checkpoint, with the state of the draws."""
        heads = {"network": self.network.state_dict(), "draws": {"state": self.generator.get_state()}}
        save_checkpoint(path, heads=heads, optimizer=self.optimizer, told={"step": self.step, "identity": identity})

    def resume(self, path: Path, *, identity: str) -> None:
        """Go on from a checkpoint of the same training; another one, or one that cannot be read, is left aside."""
        found = open_checkpoint(path)
        if found is None or found[0].get("identity") != identity:
            return
        told, of = found
        self.network.load_state_dict(of["network"])
        restore_optimizer(self.optimizer, of.get("optimizer", {}))
        self.generator.set_state(of["draws"]["state"])
        self.step = int(told["step"])


def _batch(
    sources: Sequence[Source], n: int, *, rule: Randomisation, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Images, structures, and whether each tells ribs and sacrum from background."""
    picked = [sources[int(torch.randint(len(sources), (), generator=generator))] for _ in range(n)]
    drawn = [random_patch(source, rule=rule, generator=generator) for source in picked]
    knows = torch.tensor([source.has_landmarks for source in picked])
    return torch.stack([image for image, _ in drawn]), torch.stack([label for _, label in drawn]), knows


class Loss(nn.Module):  # type: ignore[misc]
    """MONAI's Dice plus cross entropy of the kinds, and how likely the true level of bodies is."""

    def __init__(self) -> None:
        from monai.losses import DiceCELoss

        super().__init__()
        self.kinds = DiceCELoss(to_onehot_y=True, softmax=True, batch=True, smooth_nr=1.0, smooth_dr=1.0)
        self.register_buffer("kind_of", torch.as_tensor(KIND_OF).long())

    def forward(self, found: Tensor, structures: Tensor, knows_landmarks: Tensor | None = None) -> Tensor:
        """found: (n, what the network puts out, z, y, x). structures: (n, z, y, x). knows_landmarks: (n,), or all do.

        Where ribs and sacrum are not labelled the network may call them what it will, if not a structure that is.
        """
        kind, logits = self.kind_of[structures], found[:, : len(KINDS)]
        if knows_landmarks is not None and not knows_landmarks.all():
            logits = torch.where(knows_landmarks.view(-1, 1, 1, 1, 1), logits, _without_landmarks(logits))
        loss: Tensor = self.kinds(logits, kind[:, None])
        is_body = kind == KINDS.index("vertebra")
        if not is_body.any():
            return loss
        place, spread = (value[is_body] for value in level_of(found))
        away = (structures[is_body] - STRUCTURES.index(LEVELS[0]) - place).abs()
        return loss + PLACE_WEIGHT * (away / spread + spread.log()).mean()  # of Laplace's distribution


def _without_landmarks(logits: Tensor) -> Tensor:
    """Logits in which background stands for ribs and sacrum too."""
    of = [KINDS.index("background"), *(KINDS.index(kind) for kind in LANDMARKS)]
    merged = logits.clone()
    merged[:, of[0]] = logits[:, of].logsumexp(dim=1)
    merged[:, of[1:]] = NEVER
    return merged


def _refuse(volumes: Sequence[Labelled], parameters: Mapping[str, Parameter]) -> None:
    least = int(str(parameters["minimum_volumes"]))
    if len(volumes) < least:
        raise StudyError(f"segmentation: {len(volumes)} labelled volumes, expected at least {least} (minimum_volumes)")
    present = {STRUCTURES[number] for volume in volumes for number in np.unique(volume.structures)}
    if not present & set(LEVELS):
        raise StudyError("segmentation: no volume holds a vertebral body; are the masks numbered as VerSe does (L1 is 20)?")
    if not present & set(TISSUES):
        raise StudyError("segmentation: no volume holds muscle (100), fat (101) or visceral fat (102)")
