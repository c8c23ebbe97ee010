"""Random changes of images in training: what they may move, and what they leave."""

from __future__ import annotations

import pytest
import torch

from ospor_batch.models.augmentation import AUGMENTATION, augmented
from ospor_batch.models.spec import Parameter

STILL: dict[str, Parameter] = {**dict.fromkeys(AUGMENTATION, 0.0), "augment_mirror": False}


def images() -> torch.Tensor:
    return torch.randn((6, 1, 48, 48), generator=torch.Generator().manual_seed(2)).cumsum(-1) / 5


def changed(**parameters: Parameter) -> torch.Tensor:
    return augmented(images(), {**STILL, **parameters}, torch.Generator().manual_seed(1))


def test_nothing_asked_changes_nothing() -> None:
    assert torch.allclose(changed(), images(), atol=1e-4)


@pytest.mark.parametrize("name", ["augment_gamma", "augment_detail"])
def test_another_display_keeps_mean_and_spread_of_each_image(name: str) -> None:
    before, after = images(), changed(**{name: 0.4})
    assert (after - before).abs().amax(dim=(1, 2, 3)).median() > 0.05
    for of in (torch.mean, torch.std):
        assert torch.allclose(of(after, dim=(1, 2, 3)), of(before, dim=(1, 2, 3)), atol=1e-3)


def test_gamma_keeps_the_order_of_gray_values() -> None:
    before, after = images(), changed(augment_gamma=0.4)
    for one, other in zip(before.flatten(1), after.flatten(1), strict=True):
        assert (other[one.argsort()].diff() > -1e-4).all()


def test_the_same_generator_gives_the_same_images() -> None:
    asked: dict[str, Parameter] = {"augment_gamma": 0.3, "augment_detail": 0.3, "augment_noise": 0.02, "augment_scale": 0.08}
    assert torch.equal(changed(**asked), changed(**asked))
