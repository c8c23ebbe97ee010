"""What a recipe declares so that it can be trained, and what a learner does with it; imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy.typing as npt

from ospor_batch.errors import ItemRefused, StudyError
from ospor_batch.imaging.masks import MaskRule
from ospor_batch.imaging.regions import Region
from ospor_batch.models.heat import Box
from ospor_batch.models.spec import Parameter, Pixels, Prediction

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[Any]
Parameters = Mapping[str, Parameter]
Answer = Prediction | ItemRefused
PRECISIONS = ("float32", "bfloat16")
IMAGE = "image"  # the array that a network reads: (unit, channel, *space), of one shape for the whole recipe

# Schedule of every network, visible in the study file as parameters of its recipe. None is from a paper: the abstracts name
# no schedule. AdamW and a cosine after a short warm-up are the common choice for networks trained from random weights.
TRAINING: dict[str, Parameter] = {
    "epochs": 40,
    "batch_size": 16,
    "learning_rate": 3e-4,
    "weight_decay": 1e-4,
    "warm_up_epochs": 1,
    "patience_epochs": 10,  # stops when tuning did not improve for so long
    "stop_on": "loss",  # loss | auc | pearson_r, on the tuning people
    "is_balanced": True,  # both classes weigh the same in the loss
    "weight_average": 0.0,  # share that the moving mean of the weights keeps at each step, such as 0.998; 0: the last weights
    "statistics_units": 1024,  # images as they are that batch normalisation takes its statistics from; 0: augmented ones
    "mixed_precision": True,  # of the training: bfloat16 on CUDA
    "mixed_precision_on_cpu": False,  # the same on a CPU that computes in it: half the time; weights are of this kind of CPU
    "precision": "float32",  # float32 | bfloat16, of the trained network when it predicts, on CPU and GPU
    "threads": 2,  # of the CPU; sums depend on it in their last digits, so it is declared and not the machine's
    "minimum_cases": 8,  # of the train partition
    "minimum_events": 2,  # of each class of a binary target, in the train partition
}


# The least that each may be: batch normalisation cannot learn from one image
LEAST: dict[str, float] = {
    "epochs": 1, "batch_size": 2, "weight_decay": 0, "warm_up_epochs": 0, "patience_epochs": 1, "threads": 1,
    "minimum_cases": 2, "minimum_events": 0, "width": 2, "dropout": 0, "statistics_units": 0, "also_learns_weight": 0,
    "weight_average": 0,
}  # fmt: skip


@dataclass(frozen=True)
class Target:
    """What is learned: a column of the training rows, with the unit of its prediction.

    Columns: those of the manifest, and of the matched exam (tbs, height_m, muscle_area_cm2, vbmd_mg_cm3 ...).
    """

    column: str
    kind: Literal["binary", "value"]
    unit: str
    is_auxiliary: bool = False  # learned beside the others and never stated (models.auxiliary)


@dataclass(frozen=True)
class Preparing:
    """With what a series is prepared; is_training: for the train partition, where a recipe may cut more images."""

    parameters: Parameters
    masks: MaskRule
    is_training: bool = False


@dataclass(frozen=True)
class Example:
    """What one series became: arrays by name, ``image`` for a network, and the name of each unit (a vertebra, the image)."""

    arrays: Mapping[str, Array]
    units: tuple[str, ...] = ("image",)
    levels: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    regions: tuple[Region, ...] = ()


@dataclass(frozen=True)
class Case:
    """One labelled series: its targets (NaN where unknown) and what the manifest says of it.

    facts: center, scanner_vendor, kvp_kv, kernel_class, slice_thickness_mm, age_at_image, sex, height_m; None where unknown.
    """

    item_digest: str
    targets: tuple[float, ...]
    facts: Mapping[str, str | float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingSet:
    """The labelled series of both partitions, in a fixed order, and where their examples are read."""

    train: tuple[Case, ...]
    tuning: tuple[Case, ...]
    example: Callable[[str, bool], Example]  # of (item digest, whether it is of the train partition)


@dataclass(frozen=True)
class Work:
    """How a training runs. folder: private, for checkpoints; a second call with the same folder goes on from there."""

    parameters: Parameters
    targets: tuple[Target, ...]
    seed: int
    folder: Path
    device: str = "cpu"


@dataclass(frozen=True)
class Fitted:
    """What training leaves: arrays by name, and notes that JSON can hold (epochs, losses, coefficients in words)."""

    state: Mapping[str, Array]
    notes: Mapping[str, Any]


def check_training(parameters: Parameters) -> None:
    """StudyError names a parameter of the schedule that cannot be."""
    for name, least in LEAST.items():
        value = parameters.get(name)
        if isinstance(value, int | float) and value < least:
            raise StudyError(f"recipes.parameters.{name} is {value:g}, expected {least:g} or more")
    if float(str(parameters.get("weight_average", 0.0))) >= 1:
        raise StudyError(f"recipes.parameters.weight_average is {parameters['weight_average']}, expected less than 1")
    precision = parameters.get("precision", PRECISIONS[0])
    if precision not in PRECISIONS:
        raise StudyError(f"recipes.parameters.precision is {precision!r}, expected {' or '.join(PRECISIONS)}")
    rate = parameters.get("learning_rate")
    if isinstance(rate, int | float) and not rate > 0:
        raise StudyError(f"recipes.parameters.learning_rate is {rate:g}, expected more than 0")


class Learner(Protocol):
    """Fits a recipe and uses what was fitted; both may import torch inside."""

    def fit(self, data: TrainingSet, work: Work) -> Fitted:
        """Fit on train, stop on tuning; the same data, parameters and seed give the same state on a CPU."""

    def open(
        self, state: Mapping[str, Array], parameters: Parameters, *, targets: tuple[Target, ...], device: str
    ) -> Callable[[Sequence[Example]], Sequence[Answer]]:
        """A function from examples to answers, in their order; an answer does not depend on its neighbours."""


@dataclass(frozen=True)
class TrainableRecipe:
    """One recipe: how its inputs are cut, what it learns, who learns it.

    version: raise it with every change that can move a value. preparing: names of the parameters that ``prepare`` reads;
    reading: names of those that only predicting reads (``answer``, the precision), so that two recipes may share one trained
    model. All others are the training's.
    """

    name: str
    version: str
    defaults: Parameters
    preparing: tuple[str, ...]
    targets: Callable[[Parameters], tuple[Target, ...]]
    prepare: Callable[[Pixels, Preparing], Example]
    learner: Learner
    reads: Literal["ct", "radiograph"] = "ct"
    reads_masks: bool = False
    wants_gpu: bool = True
    reading: tuple[str, ...] = ()
    check: Callable[[Parameters], None] = lambda _parameters: None  # StudyError for a value that cannot be
    description: str = ""  # one sentence for the model card
    regions: Mapping[str, Box] = field(default_factory=dict)  # of its image, for Grad-CAM; none: it is not explained


@dataclass(frozen=True)
class NetworkLearner:
    """A learner around a torch network: fitted by models.training, one output a target.

    network: (n, channel, *space) to (n, targets); logits of binary targets, standardised values of the others.
    answer: of one series, from its outputs (unit, target) as probabilities and values in their own unit.
    augment: a batch to a batch, random numbers from the generator alone. loss: of outputs and targets, both (n, targets),
    NaN where a target is unknown; by default cross entropy and squared error.
    """

    network: Callable[[Parameters], torch.nn.Module]
    answer: Callable[[Array, Example, Parameters], Answer]
    augment: Callable[[torch.Tensor, Parameters, torch.Generator], torch.Tensor] | None = None
    loss: Callable[[torch.Tensor, torch.Tensor, Parameters], torch.Tensor] | None = None

    def fit(self, data: TrainingSet, work: Work) -> Fitted:
        """Fit by gradient descent."""
        from ospor_batch.models.training import fit_network

        return fit_network(self, data, work=work)

    def open(
        self, state: Mapping[str, Array], parameters: Parameters, *, targets: tuple[Target, ...], device: str
    ) -> Callable[[Sequence[Example]], Sequence[Answer]]:
        """Load the network on the device."""
        from ospor_batch.models.training import opened_network

        return opened_network(self, state, parameters=parameters, targets=targets, device=device)
