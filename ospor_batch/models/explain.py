"""Where a network looked: MONAI's Grad-CAM of single images, brought to one frame."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.visualize import GradCAM
from torch import nn
from torch.nn import functional

from ospor_batch.errors import StudyError
from ospor_batch.models.heat import FRAME, Heat

# The last layer that still has a place for every feature, as MONAI's documentation of GradCAM names it
LAYERS = {"densenet": "class_layers.relu", "resnet": "layer4"}


def layer_of(network: str) -> str:
    """The layer whose maps are weighed; StudyError for a network that has none declared."""
    for head, layer in LAYERS.items():
        if network.startswith(head):
            return layer
    raise StudyError(f"no Grad-CAM of network {network!r}: it is declared for {', '.join(LAYERS)}")


def heat_of(network: nn.Module, image: npt.NDArray[Any], *, layer: str, output: int = 0, device: str = "cpu") -> Heat:
    """How much each place of an image (channel, row, column) raised an output: 0 to 1 in the common frame.

    All 0 where nothing raised it.
    """
    cam = GradCAM(nn_module=network, target_layers=layer, postprocessing=_as_it_is)
    tensor = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))[None].to(device)
    raised = cam(tensor, class_idx=output)
    framed = functional.interpolate(raised, size=(FRAME, FRAME), mode="bilinear", align_corners=False, antialias=True)
    heat: Heat = framed[0, 0].detach().cpu().numpy().astype(np.float32)
    greatest = float(heat.max())
    return heat / np.float32(greatest) if greatest > 0 else np.zeros_like(heat)


def _as_it_is(raised: torch.Tensor) -> torch.Tensor:
    # MONAI's default turns the map upside down (1 where nothing is); here heat is high where the output was raised
    return raised
