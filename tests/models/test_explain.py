"""Grad-CAM is MONAI's own, brought to the common frame; regions share the heat."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.visualize import GradCAM
from torch.nn import functional

from ospor_batch.errors import StudyError
from ospor_batch.models.explain import heat_of, layer_of
from ospor_batch.models.heat import FRAME, area_share, region_shares
from ospor_batch.models.networks import network_of

REGIONS = {"upper": (0.0, 0.5, 0.0, 1.0), "lower": (0.5, 1.0, 0.0, 1.0), "whole": (0.0, 1.0, 0.0, 1.0)}


@pytest.mark.parametrize("name", ["densenet_small", "resnet18"])
def test_it_equals_the_reference_implementation(name: str) -> None:
    torch.manual_seed(3)
    network = network_of({"network": name, "width": 8}, n_channels=1, n_outputs=2).eval()
    image = np.random.default_rng(0).standard_normal((1, 96, 96)).astype(np.float32)
    found: list[float] = []
    for output in (0, 1):
        ours = heat_of(network, image, layer=layer_of(name), output=output)
        cam = GradCAM(nn_module=network, target_layers=layer_of(name))  # its default turns 1 into 0
        theirs = 1 - cam(torch.from_numpy(image)[None], class_idx=output)
        framed = functional.interpolate(theirs, size=(FRAME, FRAME), mode="bilinear", align_corners=False, antialias=True)
        reference = framed[0, 0].detach().numpy()
        if ours.std() > 1e-3:  # its scale starts at the least value and ours at 0: the same but for a shift
            found.append(np.corrcoef(ours.ravel(), reference.ravel())[0, 1])
        assert ours.shape == (FRAME, FRAME)
        assert ours.min() >= 0
    assert found
    assert min(found) > 0.99999


def test_an_image_that_raises_nothing_has_no_heat() -> None:
    network = network_of({"network": "densenet_small", "width": 4}, n_channels=1, n_outputs=1).eval()
    with torch.no_grad():
        for weight in network.parameters():
            weight.zero_()
    heat = heat_of(network, np.ones((1, 16, 16), np.float32), layer=layer_of("densenet_small"))
    assert not heat.any()
    assert region_shares(heat, REGIONS) == {"upper": 0.0, "lower": 0.0, "whole": 0.0}


def test_a_network_without_a_declared_layer_is_refused() -> None:
    with pytest.raises(StudyError, match="no Grad-CAM of network 'unet': it is declared for densenet, resnet"):
        layer_of("unet")


@given(st.integers(0, 2**32 - 1))
def test_shares_of_parts_add_up_to_the_whole(seed: int) -> None:
    heat = np.random.default_rng(seed).random((FRAME, FRAME)).astype(np.float32)
    shares = region_shares(heat, REGIONS)
    assert shares["whole"] == pytest.approx(1)
    assert shares["upper"] + shares["lower"] == pytest.approx(1)
    assert area_share(REGIONS["upper"]) == 0.5
