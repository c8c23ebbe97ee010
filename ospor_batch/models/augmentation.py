"""Random changes of a batch of flat images in training; random numbers come from the given generator alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ospor_batch.models.spec import Parameter
from ospor_batch.models.trainable import Parameters

if TYPE_CHECKING:
    import torch

# How far an image may be changed; none is from a paper, all are visible as parameters of the recipe
AUGMENTATION: dict[str, Parameter] = {
    "augment_rotation_degrees": 7.0,
    "augment_scale": 0.08,  # share by which it is made larger or smaller
    "augment_shift": 0.05,  # share of half the side
    "augment_contrast": 0.15,  # share by which values are spread about their mean
    "augment_brightness": 0.1,  # of the unit of the input
    "augment_noise": 0.02,  # SD in the unit of the input
    "augment_mirror": False,  # left and right
    "augment_gamma": 0.0,  # logarithm of the power that gray values are raised to, as another display curve does
    "augment_detail": 0.0,  # share by which what differs from its neighbourhood is raised or lowered, as displays do
}
NEIGHBOURHOOD = 12  # of the side that its part is; declared


def augmented(images: torch.Tensor, parameters: Parameters, generator: torch.Generator) -> torch.Tensor:
    """Turn, scale, shift, mirror, brighten and blur with noise each image (n, channel, row, column) on its own.

    MONAI's random transforms change one image at a time on the CPU; this changes a batch where it lies.
    """
    import torch
    from torch.nn import functional

    n = len(images)

    def drawn(name: str) -> torch.Tensor:
        """A number from -1 to 1 times the parameter, for each image; drawn on the CPU, so that a GPU sees the same."""
        return (2 * torch.rand(n, generator=generator) - 1) * float(str(parameters[name]))

    angle, scale = torch.deg2rad(drawn("augment_rotation_degrees")), 1 + drawn("augment_scale")
    down, right = drawn("augment_shift"), drawn("augment_shift")
    mirror = torch.where(torch.rand(n, generator=generator) < 0.5, -1.0, 1.0) if parameters["augment_mirror"] else torch.ones(n)
    contrast, brightness = 1 + drawn("augment_contrast"), drawn("augment_brightness")
    noise = torch.randn(images.shape, generator=generator) * float(str(parameters["augment_noise"]))
    turn = torch.stack(
        [
            torch.stack([scale * angle.cos() * mirror, -scale * angle.sin(), right], dim=1),
            torch.stack([scale * angle.sin() * mirror, scale * angle.cos(), down], dim=1),
        ],
        dim=1,
    ).to(images)
    grid = functional.affine_grid(turn, list(images.shape), align_corners=False)
    moved = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    if parameters["augment_gamma"] or parameters["augment_detail"]:
        moved = _displayed(moved, gamma=drawn("augment_gamma").to(images), detail=drawn("augment_detail").to(images))
    each = (-1, *(1 for _ in images.shape[1:]))
    mean = moved.mean(dim=tuple(range(1, images.ndim)), keepdim=True)
    return (moved - mean) * contrast.view(each).to(images) + mean + brightness.view(each).to(images) + noise.to(images)


def _displayed(images: torch.Tensor, *, gamma: torch.Tensor, detail: torch.Tensor) -> torch.Tensor:
    """Images under another display: detail over a box of neighbours raised, gray values bent; mean and SD of each stay."""
    from torch.nn import functional

    each, rest = (-1, 1, 1, 1), (1, 2, 3)
    box = 2 * (images.shape[-1] // (2 * NEIGHBOURHOOD)) + 1
    near = functional.avg_pool2d(images, box, stride=1, padding=box // 2, count_include_pad=False)
    raised = images + detail.view(each) * (images - near)
    low = raised.amin(dim=rest, keepdim=True)
    bent = ((raised - low) / (raised.amax(dim=rest, keepdim=True) - low).clamp_min(1e-6)) ** gamma.exp().view(each)
    spread = images.std(dim=rest, keepdim=True) / bent.std(dim=rest, keepdim=True).clamp_min(1e-6)
    return (bent - bent.mean(dim=rest, keepdim=True)) * spread + images.mean(dim=rest, keepdim=True)
