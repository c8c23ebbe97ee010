"""Run a network on batches of examples: memory layout, precision and copies to the device, the same code on CPU and GPU."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from ospor_batch.errors import StudyError
from ospor_batch.models.packed import packed
from ospor_batch.models.trainable import (
    IMAGE,
    PRECISIONS,
    Answer,
    Array,
    Example,
    NetworkLearner,
    Parameters,
    Target,
)


class Forward:
    """A network in evaluation mode, where it computes and how.

    precision: of convolutions and products, float32 or bfloat16 (autocast); what comes out is float32. Networks of flat images
    have their channels last in memory, which oneDNN and cuDNN are faster with; of volumes it is slower on a CPU. The network
    is taken over: on a CPU its layers are replaced by such as keep their weights in oneDNN's order.
    """

    def __init__(self, network: nn.Module, *, device: str, precision: str = PRECISIONS[0]) -> None:
        if precision == "bfloat16" and device == "cpu" and not has_bfloat16():
            raise StudyError(
                "recipes.parameters.precision is 'bfloat16', but this CPU does not compute in it; leave it out, or use a GPU"
            )
        self.device, self.precision = torch.device(device), precision
        is_flat = any(isinstance(layer, nn.Conv2d) for layer in network.modules())
        self.layout = torch.channels_last if is_flat else torch.contiguous_format
        network = network.to(self.device, memory_format=self.layout).eval()
        kind = torch.float32 if precision == PRECISIONS[0] else torch.bfloat16
        self.network = packed(network, kind=kind) if device == "cpu" else network

    def to_device(self, images: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Images as one copy: in the type in which they are held, from pinned memory and without waiting on CUDA."""
        is_cuda = self.device.type == "cuda"
        shape = (sum(len(image) for image in images), *images[0].shape[1:])
        host = torch.empty(shape, dtype=images[0].dtype, pin_memory=is_cuda)
        torch.cat(list(images), out=host)
        there = host.to(self.device, non_blocking=is_cuda).to(torch.float32)
        return list(there.split([len(image) for image in images]))

    def __call__(self, images: torch.Tensor) -> Array:
        """Outputs of a batch that is on the device, (n, outputs), float32 on the host."""
        with torch.inference_mode(), self._precise():
            found: Array = self.network(images.contiguous(memory_format=self.layout)).float().cpu().numpy()
        return found

    def _precise(self) -> contextlib.AbstractContextManager[None]:
        if self.precision == "float32":
            return contextlib.nullcontext()
        context: contextlib.AbstractContextManager[None] = torch.autocast(self.device.type, dtype=torch.bfloat16)
        return context


@dataclass(frozen=True)
class NetworkAnswers:
    """From examples to answers; on a CPU each series is a batch of its own, so that no neighbour changes it."""

    learner: NetworkLearner
    forward: Forward
    parameters: Parameters
    targets: tuple[Target, ...]
    mean: Array
    spread: Array

    def to_device(self, batch: Sequence[Example]) -> list[Example]:
        """The examples with their images on the device."""
        images = [torch.from_numpy(np.ascontiguousarray(example.arrays[IMAGE])) for example in batch]
        there = self.forward.to_device(images)
        return [replace(e, arrays={**e.arrays, IMAGE: image}) for e, image in zip(batch, there, strict=True)]

    def __call__(self, batch: Sequence[Example]) -> Sequence[Answer]:
        """One answer for each example."""
        if not isinstance(batch[0].arrays[IMAGE], torch.Tensor):
            batch = self.to_device(batch)
        images = [example.arrays[IMAGE] for example in batch]
        together = [[image] for image in images] if self.forward.device.type == "cpu" else [images]
        raw = [self.forward(some[0] if len(some) == 1 else torch.cat(some)) for some in together]
        values = in_units(np.concatenate(raw), self.mean, self.spread, self.targets)
        parts = np.split(values, np.cumsum([len(image) for image in images])[:-1])
        return [self.learner.answer(part, e, self.parameters) for part, e in zip(parts, batch, strict=True)]


def has_bfloat16() -> bool:
    """Whether oneDNN computes in bfloat16 on this CPU."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def in_units(outputs: Array, mean: Array, spread: Array, targets: tuple[Target, ...]) -> Array:
    """Logits to probabilities, standardised values to their unit."""
    found = np.array(outputs, dtype=np.float64)
    for at, target in enumerate(targets):
        if target.kind == "binary":
            found[:, at] = 1 / (1 + np.exp(-np.clip(found[:, at], -60, 60)))
        else:
            found[:, at] = found[:, at] * spread[at] + mean[at]
    return found
