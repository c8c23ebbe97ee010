"""A network with its weights in oneDNN's order answers bit for bit as it did."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch")

from ospor_batch.models.forward import has_bfloat16
from ospor_batch.models.networks import network_of
from ospor_batch.models.packed import PackedConv2d, packed


@pytest.mark.parametrize("name", ["densenet_small", "efficientnet_b0", "resnet18", "vgg11"])
@pytest.mark.parametrize(("n_threads", "kind"), [(1, torch.float32), (2, torch.float32), (1, torch.bfloat16)])
def test_the_bits_are_those_of_torch(name: str, n_threads: int, kind: torch.dtype) -> None:
    if kind == torch.bfloat16 and not has_bfloat16():
        pytest.skip("no bfloat16 on this CPU")
    torch.manual_seed(2)
    network = network_of({"network": name, "width": 16}, n_channels=2, n_outputs=1).eval().to(memory_format=torch.channels_last)
    ready, before = packed(copy.deepcopy(network), kind=kind), torch.get_num_threads()
    assert any(isinstance(layer, PackedConv2d) for layer in ready.modules())
    torch.set_num_threads(n_threads)
    try:
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=kind == torch.bfloat16):
            for shape in ((1, 2, 64, 64), (1, 2, 96, 80), (3, 2, 64, 64)):  # a batch takes other ways than one image
                images = torch.randn(shape).contiguous(memory_format=torch.channels_last)
                assert torch.equal(ready(images), network(images))
    finally:
        torch.set_num_threads(before)


def test_layers_of_volumes_stay_as_they_are() -> None:
    network = network_of({"network": "resnet18", "width": 8}, n_channels=1, n_outputs=1, spatial_dims=3).eval()
    assert not any(isinstance(layer, PackedConv2d) for layer in packed(network).modules())
