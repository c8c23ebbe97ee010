"""The segmentation network: training is deterministic, synthesis keeps labels, and labels come back to the volume's grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ospor_batch.errors import ItemRefused, StudyError
from ospor_batch.imaging.masks import MaskRule
from ospor_batch.imaging.volume import Volume
from ospor_batch.models import segmentation, segmentation_folder
from ospor_batch.models.masking import labels_of
from ospor_batch.models.segmentation_classes import FILE_VALUES, KINDS, LEVELS, STRUCTURES
from ospor_batch.models.segmentation_randomisation import Randomisation, random_patch
from ospor_batch.models.segmentation_training import TRAINING, Labelled, train
from ospor_batch.stages.segmentation import Asked, generated, train_segmentation

TINY = {
    **TRAINING,
    "patch": ("32", "32", "32"),
    "features": ("4", "4", "4", "4", "4", "4"),
    "spacing_mm": 8.0,
    "steps": 3,
    "warm_up_steps": 1,
}


@pytest.fixture(scope="module")
def volumes() -> list[Labelled]:
    return list(generated(4, seed=3, spacing_mm=8.0))


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_the_same_seed_trains_the_same_network(volumes: list[Labelled]) -> None:
    first, again = (train(volumes, parameters=TINY, seed=5) for _ in range(2))
    assert same(first, again)
    assert not same(first, train(volumes, parameters=TINY, seed=6))


def test_training_lowers_the_loss(volumes: list[Labelled]) -> None:
    told: list[float] = []
    train(volumes, parameters={**TINY, "steps": 30}, seed=5, progress=lambda _, loss: told.append(loss))
    assert np.mean(told[-8:]) < 0.9 * np.mean(told[:8])


def test_a_patch_is_finite_and_its_labels_are_those_of_the_volume(volumes: list[Labelled]) -> None:
    rule, generator = Randomisation(patch=(32, 32, 32), spacing_mm=8.0), torch.Generator().manual_seed(1)
    seen = set()
    for _ in range(20):
        image, label = random_patch(
            torch.as_tensor(volumes[0].hu).float(), torch.as_tensor(volumes[0].structures), rule=rule, generator=generator
        )
        assert image.shape == label.shape == (32, 32, 32)
        assert torch.isfinite(image).all()
        seen |= set(label.unique().tolist())
    assert seen <= set(np.unique(volumes[0].structures).tolist())
    assert STRUCTURES.index("muscle") in seen


def test_too_few_volumes_and_masks_without_levels_are_refused(volumes: list[Labelled]) -> None:
    with pytest.raises(StudyError, match="2 labelled volumes, expected at least 4"):
        train(volumes[:2], parameters=TINY, seed=1)
    empty = [Labelled(v.hu, np.zeros_like(v.structures)) for v in volumes]
    with pytest.raises(StudyError, match="no volume holds a vertebral body"):
        train(empty, parameters=TINY, seed=1)
    with pytest.raises(StudyError, match="multiples of 16"):
        train(volumes, parameters={**TINY, "patch": ("30", "32", "32")}, seed=1)


class Boxes(nn.Module):
    """Stands for a trained network: bright voxels of the wide view are L3, the others background."""

    def forward(self, views: torch.Tensor) -> torch.Tensor:
        is_bright = views[:, 0] > 0.2
        logits = torch.full((len(views), len(KINDS) + 1, *views.shape[2:]), -9.0)
        logits[:, 0] = torch.where(is_bright, -9.0, 9.0)
        logits[:, KINDS.index("vertebra")] = torch.where(is_bright, 9.0, -9.0)
        logits[:, len(KINDS)] = (LEVELS.index("L3") - segmentation.PLACE_ZERO) / segmentation.PLACE_UNIT
        return logits


def bright_box(affine: np.ndarray, shape: tuple[int, int, int], where: tuple[slice, slice, slice]) -> Volume:
    hu = np.full(shape, -100, np.float32)
    hu[where] = 500
    return Volume(hu, affine)


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, 1), (1, -1, -1), (-1, -1, 1)])
def test_labels_lie_where_the_body_lies_whatever_the_orientation(flips: tuple[int, int, int]) -> None:
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0.0, 0, 1.5], [0, 1.5, 0], [5, 0, 0]]) * np.array(flips)
    affine[:3, 3] = (30, -80, 200)
    volume = bright_box(affine, (24, 80, 80), (slice(8, 14), slice(20, 50), slice(30, 60)))
    parameters = {**segmentation.DEFAULTS, "patch": ("32", "32", "32"), "features": ("4", "4", "4", "4", "4", "4")}
    made = segmentation.segment(volume, Boxes(), parameters=parameters)
    assert [body.level for body in made.bodies] == ["L3"]
    is_body, truth = made.labels == FILE_VALUES["L3"], volume.hu > 0
    assert 2 * (is_body & truth).sum() / (is_body.sum() + truth.sum()) > 0.9


def test_a_volume_without_a_body_is_refused() -> None:
    volume = Volume(np.full((8, 32, 32), -1000, np.float32), np.diag([4.0, 4, 4, 1]))
    parameters = {**segmentation.DEFAULTS, "patch": ("32", "32", "32"), "features": ("4", "4", "4", "4", "4", "4")}
    with pytest.raises(ItemRefused, match="no_vertebra"):
        segmentation.segment(volume, Boxes(), parameters=parameters)


def test_a_folder_serves_masks_and_a_changed_one_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "masks"
    digest = train_segmentation(folder, Asked(people=4, parameters=TINY))
    affine = np.array([[0, 0, 8.0, 0], [0, 8, 0, 0], [8, 0, 0, 0], [0, 0, 0, 1]])
    volume = Volume(next(generated(1, seed=9, spacing_mm=8.0)).hu.astype(np.float32), affine)
    rule = MaskRule("", (("L1", 20), ("L2", 21)), source="unet", version=digest, folder=str(folder))
    with pytest.raises(ItemRefused) as refused:  # three steps teach nothing, and that is said
        labels_of(volume, (), rule=rule)
    assert refused.value.reason in {"no_vertebra", "levels_missing", "level_uncertain"}
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(StudyError, match=r"model\.safetensors is not what SHA256SUMS says"):
        segmentation_folder.open_segmentation(folder)
    with pytest.raises(StudyError, match="stands already"):
        train_segmentation(folder, Asked(people=4, parameters=TINY))
