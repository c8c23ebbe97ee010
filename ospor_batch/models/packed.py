"""Convolutions whose weights lie in memory as oneDNN computes with them.

torch brings the weights of a layer into that order anew at every call: of ResNet-18 a fifth of the time of one image, and
a quarter in bfloat16, to which it turns them at every call as well.
What comes out is equal bit for bit, since the same kernel reads the same numbers (tests/models/test_packed.py).
"""

from __future__ import annotations

import torch
from torch import nn

# torch's own rule for what it gives to oneDNN (aten/src/ATen/native/Convolution.cpp, ConvParams::use_mkldnn), and when it
# computes with one thread or several; followed, so that no layer changes the kernel that computes it
MOST_IMAGES, LARGE_KERNEL, MANY_VALUES = 16, 3, 20480


def packed(network: nn.Module, *, kind: torch.dtype = torch.float32) -> nn.Module:
    """The network with its flat convolutions in oneDNN's order, in place; for predicting on a CPU.

    kind: float32, or bfloat16 for a network that computes under autocast to it.
    """
    if not torch.backends.mkldnn.is_available():
        return network
    for name, layer in list(network.named_children()):
        if type(layer) is nn.Conv2d and layer.padding_mode == "zeros" and not isinstance(layer.padding, str):
            setattr(network, name, PackedConv2d(layer, kind))
        elif not isinstance(layer, PackedConv2d):
            packed(layer, kind=kind)
    return network


class PackedConv2d(nn.Module):  # type: ignore[misc]
    """A convolution in oneDNN's order; a call that torch would compute otherwise takes torch's own way."""

    def __init__(self, layer: nn.Conv2d, kind: torch.dtype) -> None:
        super().__init__()
        self.layer, self.kind = layer, kind
        self.shape = (list(layer.padding), list(layer.stride), list(layer.dilation), layer.groups)
        # no parameter: a tensor of oneDNN's has no layout that the module could be moved to
        self.ready: torch.Tensor | None = None

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """What the layer gives."""
        found: torch.Tensor
        if not self._is_for_onednn(images):
            found = self.layer(images)
            return found
        bias = None if self.layer.bias is None else self.layer.bias.detach().to(self.kind)
        images = images.to(self.kind)
        if self.ready is None:  # the order is that of images of this size; with others it is right, too
            weight = self.layer.weight.detach().to(self.kind)
            self.ready = torch.ops.mkldnn._reorder_convolution_weight(weight, *self.shape, list(images.shape))
        found = torch.ops.mkldnn._convolution_pointwise(images, self.ready, bias, *self.shape, "none", [], "")
        return found

    def _is_for_onednn(self, images: torch.Tensor) -> bool:
        if images.requires_grad:
            return False
        if self.kind == torch.bfloat16:
            return True
        layer, n_images = self.layer, images.shape[0]
        is_dense = (
            any(step != 1 for step in (*layer.stride, *layer.dilation))
            or n_images >= MOST_IMAGES
            or any(side != 1 for side in layer.kernel_size)
            or torch.get_num_threads() > 1
        )
        is_large = (
            layer.groups > 1
            or all(side > LARGE_KERNEL for side in layer.kernel_size)
            or n_images > 1
            or images.numel() > MANY_VALUES
        )
        return bool(is_dense and is_large) and images.dtype == torch.float32
