"""The segmentation network: training is deterministic, synthesis keeps labels, and labels come back to the volume's grid."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ospor_batch.errors import ItemRefused, StudyError
from ospor_batch.imaging.masks import MaskRule
from ospor_batch.imaging.volume import Volume
from ospor_batch.models import segmentation, segmentation_folder, segmentation_training
from ospor_batch.models.masking import labels_of
from ospor_batch.models.segmentation import outputs
from ospor_batch.models.segmentation_classes import FILE_VALUES, KIND_OF, KINDS, LEVELS, RIB, SACRUM, STRUCTURES
from ospor_batch.models.segmentation_levels import labelled_bodies
from ospor_batch.models.segmentation_randomisation import Randomisation, Source, bent, random_patch
from ospor_batch.models.segmentation_training import TRAINING, Labelled, Loss, train, with_discs
from ospor_batch.stages.segmentation import Asked, train_segmentation
from ospor_batch.stages.segmentation_volumes import generated

TINY = {
    **TRAINING,
    "patch": ("16", "16", "16"),
    "features": ("16", "16"),
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


def test_a_killed_training_goes_on_to_the_same_weights(
    volumes: list[Labelled], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segmentation_training, "CHECKPOINT_STEPS", 1)
    undisturbed = train(volumes, parameters=TINY, seed=5)

    def die(step: int, _loss: float) -> None:
        if step == 2:
            raise KeyboardInterrupt

    path, told = tmp_path / "training.safetensors", []
    with pytest.raises(KeyboardInterrupt):
        train(volumes, parameters=TINY, seed=5, progress=die, checkpoint=path)
    assert same(
        undisturbed,
        train(volumes, parameters=TINY, seed=5, progress=lambda step, _: told.append(step), checkpoint=path),
    )
    assert told == [3]
    assert not same(undisturbed, train(volumes, parameters=TINY, seed=6, checkpoint=path))  # of another training: left aside


def test_training_lowers_the_loss(volumes: list[Labelled]) -> None:
    told: list[float] = []
    train(volumes, parameters={**TINY, "steps": 30}, seed=5, progress=lambda _, loss: told.append(loss))
    assert np.mean(told[-8:]) < 0.9 * np.mean(told[:8])


def test_a_short_training_finds_the_bodies_of_a_person_that_it_never_saw() -> None:
    *seen, unseen = generated(5, seed=7, spacing_mm=4.0)
    small = {"spacing_mm": 4.0, "patch": ("32", "32", "32"), "features": ("32", "64", "64")}
    parameters = {**TRAINING, **small, "randomisation": 0.1, "steps": 350, "warm_up_steps": 20, "overlap": 0.25}
    network = train(seen, parameters=parameters, seed=1)
    with torch.inference_mode():
        probability, place, spread = outputs(torch.as_tensor(unseen.hu).float(), network, parameters=parameters)
    found = probability.argmax(dim=0).numpy() == KINDS.index("vertebra")
    truth = KIND_OF[unseen.structures] == KINDS.index("vertebra")
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.4
    _, bodies = labelled_bodies(probability[1].numpy(), place.numpy(), spread.numpy(), spacing_mm=4.0)
    assert len(bodies) >= 5
    assert {"L2", "L3"} <= {body.level for body in bodies}


def source_of(volume: Labelled) -> Source:
    return Source.of(torch.as_tensor(volume.hu), torch.as_tensor(volume.structures))


def test_a_patch_is_finite_and_its_labels_are_those_of_the_volume(volumes: list[Labelled]) -> None:
    rule, generator = Randomisation(patch=(32, 32, 32), spacing_mm=8.0), torch.Generator().manual_seed(1)
    seen = set()
    for _ in range(20):
        image, label = random_patch(source_of(volumes[0]), rule=rule, generator=generator)
        assert image.shape == label.shape == (32, 32, 32)
        assert torch.isfinite(image).all()
        seen |= set(label.unique().tolist())
    assert seen <= set(np.unique(volumes[0].structures).tolist())
    assert STRUCTURES.index("muscle") in seen


def test_without_randomisation_a_patch_shows_the_volume(volumes: list[Labelled]) -> None:
    rule = Randomisation(patch=(16, 16, 16), spacing_mm=8.0).of_strength(0)
    image, label = random_patch(source_of(volumes[0]), rule=rule, generator=torch.Generator().manual_seed(2))
    hu, structures = volumes[0].hu, volumes[0].structures
    for body in (STRUCTURES.index("fat"), STRUCTURES.index("muscle")):
        assert float(image[label == body].median()) == pytest.approx(float(np.median(hu[structures == body])), abs=30)


def test_ribs_and_sacrum_lose_their_shell_as_coarse_voxels_show_them(volumes: list[Labelled]) -> None:
    here = [STRUCTURES.index(kind) for kind in (RIB, SACRUM)]
    spreads = {}
    for even in (0.0, 1.0):
        rule = replace(Randomisation(patch=(48, 32, 48), spacing_mm=8.0).of_strength(0), even=even)
        generator, found = torch.Generator().manual_seed(4), []
        for _ in range(12):
            image, label = random_patch(source_of(volumes[0]), rule=rule, generator=generator)
            found += [float(image[label == kind].std()) for kind in here if (label == kind).sum() > 20]
        spreads[even] = np.mean(found)
    assert spreads[1.0] < 0.75 * spreads[0.0]


@pytest.mark.parametrize("curvature", [0.02, -0.02])
def test_bending_keeps_lengths_along_the_spine(curvature: float) -> None:
    z = torch.arange(-20.0, 21.0)
    radius = abs(1 / curvature)
    # points of an arc through the origin that bends to the front or to the back
    y = (radius * torch.cos(z / radius) - radius) * (1 if curvature > 0 else -1)
    arc = torch.stack([radius * torch.sin(z / radius), y, torch.zeros_like(z)], dim=-1)
    straight = bent(arc, curvature)
    torch.testing.assert_close(straight[:, 0], z, atol=1e-3, rtol=0)
    torch.testing.assert_close(straight[:, 1], torch.zeros_like(z), atol=1e-3, rtol=0)


def test_what_lies_between_two_bodies_is_disc() -> None:
    structures = np.zeros((20, 8, 8), np.uint8)
    structures[2:8, 2:6, 2:6], structures[11:17, 2:6, 2:6] = STRUCTURES.index("L3"), STRUCTURES.index("L2")
    found = with_discs(structures, spacing_mm=4.0)
    assert (found[8:11, 2:6, 2:6] == STRUCTURES.index("disc")).all()
    assert (found == STRUCTURES.index("disc")).sum() == 3 * 4 * 4
    np.testing.assert_array_equal(found[structures > 0], structures[structures > 0])


def test_a_network_that_is_very_unsure_of_the_level_keeps_a_slope() -> None:
    found = torch.zeros((1, segmentation.N_OUTPUTS, 4, 4, 4))
    found[:, -1] = 200.0
    found.requires_grad_()
    loss = Loss()(found, torch.full((1, 4, 4, 4), STRUCTURES.index("L1")))
    loss.backward()
    assert found.grad is not None
    assert torch.isfinite(loss)
    assert torch.isfinite(found.grad).all()


def test_too_few_volumes_and_masks_without_levels_are_refused(volumes: list[Labelled]) -> None:
    with pytest.raises(StudyError, match="2 labelled volumes, expected at least 4"):
        train(volumes[:2], parameters=TINY, seed=1)
    empty = [Labelled(v.hu, np.zeros_like(v.structures)) for v in volumes]
    with pytest.raises(StudyError, match="no volume holds a vertebral body"):
        train(empty, parameters=TINY, seed=1)
    with pytest.raises(StudyError, match="multiples of 2"):
        train(volumes, parameters={**TINY, "patch": ("31", "32", "32")}, seed=1)


class Boxes(nn.Module):
    """Stands for a trained network: bright voxels of the wide view are L3, the others background."""

    def forward(self, views: torch.Tensor) -> torch.Tensor:
        is_bright = views[:, 0] > 0.2
        logits = torch.full((len(views), segmentation.N_OUTPUTS, *views.shape[2:]), -9.0)
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
    parameters = {**segmentation.DEFAULTS, "patch": ("32", "32", "32"), "features": ("4", "4"), "needs_landmark": False}
    made = segmentation.segment(volume, Boxes(), parameters=parameters)
    assert [body.level for body in made.bodies] == ["L3"]
    is_body, truth = made.labels == FILE_VALUES["L3"], volume.hu > 0
    assert 2 * (is_body & truth).sum() / (is_body.sum() + truth.sum()) > 0.9


def test_a_volume_without_a_body_is_refused() -> None:
    volume = Volume(np.full((8, 32, 32), -1000, np.float32), np.diag([4.0, 4, 4, 1]))
    parameters = {**segmentation.DEFAULTS, "patch": ("32", "32", "32"), "features": ("4", "4")}
    with pytest.raises(ItemRefused, match="no_vertebra"):
        segmentation.segment(volume, Boxes(), parameters=parameters)


def test_a_level_that_can_be_counted_from_nothing_is_refused() -> None:
    affine = np.array([[0, 0, 2.0, 0], [0, 2, 0, 0], [4, 0, 0, 0], [0, 0, 0, 1]])
    volume = bright_box(affine, (20, 60, 60), (slice(6, 13), slice(20, 40), slice(20, 42)))
    parameters = {**segmentation.DEFAULTS, "patch": ("32", "32", "32"), "features": ("4", "4")}
    with pytest.raises(ItemRefused) as refused:
        segmentation.segment(volume, Boxes(), parameters=parameters)
    assert refused.value.reason == "levels_uncertain"


def test_masks_without_ribs_do_not_unteach_them() -> None:
    logits = torch.zeros((1, segmentation.N_OUTPUTS, 4, 4, 4))
    logits[:, KINDS.index("rib")] = 9.0
    structures = torch.zeros((1, 4, 4, 4), dtype=torch.long)
    unknown, known = (float(Loss()(logits, structures, torch.tensor([knows]))) for knows in (False, True))
    assert unknown < 0.1
    assert known > 2


def test_a_folder_serves_masks_and_a_changed_one_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "masks"
    digest = train_segmentation(folder, Asked(people=4, parameters=TINY))
    affine = np.array([[0, 0, 8.0, 0], [0, 8, 0, 0], [8, 0, 0, 0], [0, 0, 0, 1]])
    volume = Volume(next(generated(1, seed=9, spacing_mm=8.0)).hu.astype(np.float32), affine)
    rule = MaskRule("", (("L1", 20), ("L2", 21)), source="unet", version=digest, folder=str(folder))
    with pytest.raises(ItemRefused) as refused:  # three steps teach nothing, and that is said
        labels_of(volume, (), rule=rule)
    assert refused.value.reason in {"no_vertebra", "levels_missing", "level_uncertain", "levels_uncertain"}
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(StudyError, match=r"model\.safetensors is not what SHA256SUMS says"):
        segmentation_folder.open_segmentation(folder)
    with pytest.raises(StudyError, match="stands already"):
        train_segmentation(folder, Asked(people=4, parameters=TINY))
