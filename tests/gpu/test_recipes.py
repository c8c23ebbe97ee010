"""Every published recipe that is a network answers on a GPU as on the CPU; what rounding costs is written down.

Needs torch, NumPy, MONAI, pydicom, nibabel, PyYAML and pyarrow; neither polars nor Dask.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.gpu.on_device import device_name, has_gpu, need, write_down

need("torch", "monai", "pydicom", "nibabel", "yaml", "pyarrow", what="every recipe")
import torch

from ospor_batch.models.forward import has_bfloat16, in_units
from ospor_batch.models.registry import PREDICTORS
from ospor_batch.models.trainable import NetworkLearner, TrainableRecipe
from ospor_batch.models.training import MEAN, NETWORK, SPREAD

pytestmark = pytest.mark.gpu
RECIPES = {
    name: kind.trains
    for name, kind in PREDICTORS.items()
    if kind.trains is not None and isinstance(kind.trains.learner, NetworkLearner)
}
N_IMAGES, NEAR = 24, 1e-3  # of outputs that are logits, or values in units of their spread
SMALL = {"width": 8, "image_pixels": 64, "crop_pixels": 64}  # where the CPU stands in


@pytest.fixture(autouse=True)
def _exact_products() -> Iterator[None]:
    """No TF32: products of float32 are those of float32; what it costs as a GPU has it by default is measured apart."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


class Trial:
    """A recipe's network with random weights of a seed, and images of its shape."""

    def __init__(self, recipe: TrainableRecipe) -> None:
        assert isinstance(recipe.learner, NetworkLearner)
        self.learner = recipe.learner
        smaller = {} if has_gpu() else {key: value for key, value in SMALL.items() if key in recipe.defaults}
        self.parameters = {**recipe.defaults, **smaller}
        self.targets = recipe.targets(self.parameters)
        torch.manual_seed(5)
        network = self.learner.network(self.parameters)
        ones = np.ones(len(self.targets))
        weights = {NETWORK + key: value.numpy() for key, value in network.state_dict().items()}
        self.state = {**weights, MEAN: 0 * ones, SPREAD: ones}
        first = next(layer for layer in network.modules() if isinstance(layer, torch.nn.Conv2d | torch.nn.Conv3d))
        side = int(self.parameters.get("image_pixels", self.parameters.get("crop_pixels", 0)))
        shape = (1, first.in_channels, *[side] * len(first.kernel_size))
        random = np.random.default_rng(7)
        # shades and noise, so that images differ by more than their noise
        self.images = [
            torch.from_numpy((random.standard_normal(shape) + random.normal(0, 2)).astype(np.float16)) for _ in range(N_IMAGES)
        ]

    def outputs(self, device: str, *, precision: str = "float32", together: int = 1) -> np.ndarray:
        """Probabilities and standardised values, (image, target)."""
        answers: Any = self.learner.open(
            self.state, {**self.parameters, "precision": precision}, targets=self.targets, device=device
        )
        there = answers.forward.to_device(self.images)
        raw = [answers.forward(torch.cat(there[at : at + together])) for at in range(0, N_IMAGES, together)]
        return in_units(np.concatenate(raw), answers.mean, answers.spread, self.targets)


def compared(what: str, recipe: str, one: np.ndarray, other: np.ndarray) -> float:
    """The largest difference, written down with the share of equal decisions at the median."""
    most, at = float(np.abs(one - other).max()), np.median(one, axis=0)
    same = float(((one > at) == (other > at)).mean())
    write_down(what, recipe=recipe, most=most, spread=float(one.std()), same_decisions=same, n=N_IMAGES)
    return most


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_a_recipe_answers_on_a_gpu_as_on_the_cpu(recipe: str) -> None:
    trial = Trial(RECIPES[recipe])
    cpu, gpu = trial.outputs("cpu"), trial.outputs(device_name())
    assert compared("GPU against CPU, float32", recipe, cpu, gpu) < NEAR
    clear = np.abs(cpu - np.median(cpu, axis=0)) > NEAR
    assert ((cpu > np.median(cpu, axis=0)) == (gpu > np.median(cpu, axis=0)))[clear].all()
    batched = trial.outputs(device_name(), together=8)
    assert compared("batches of 8 against one by one", recipe, gpu, batched) < NEAR


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_what_faster_arithmetic_costs_is_written_down(recipe: str) -> None:
    trial = Trial(RECIPES[recipe])
    full = trial.outputs(device_name())
    torch.backends.cudnn.allow_tf32 = True  # torch's default for convolutions
    compared("TF32 convolutions against float32", recipe, full, trial.outputs(device_name()))
    if not has_gpu() and not has_bfloat16():
        pytest.skip("this CPU does not compute in bfloat16")
    half = trial.outputs(device_name(), precision="bfloat16")
    compared("bfloat16 against float32", recipe, full, half)
    assert np.isfinite(half).all()


def test_recipes_without_a_network_ask_for_no_gpu() -> None:
    others = sorted(set(PREDICTORS) - set(RECIPES))
    assert "ldct_internal_calibration" in others
    assert not any(PREDICTORS[name].wants_gpu for name in others)
