"""A trained recipe as a predictor: the model folder is opened once per worker process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ospor_batch.models.bundle import open_bundle
from ospor_batch.models.spec import Pixels, PredictorSpec
from ospor_batch.models.trainable import Answer, Example, Preparing, TrainableRecipe


@dataclass(frozen=True)
class TrainedPredictor:
    """A recipe with what its training left."""

    recipe: TrainableRecipe
    preparing: Preparing
    answers: Callable[[Sequence[Example]], Sequence[Answer]]
    batch_items: int

    def prepare(self, pixels: Pixels) -> Example:
        """Cut the inputs of one series."""
        return self.recipe.prepare(pixels, self.preparing)

    def to_device(self, batch: Sequence[Example]) -> Sequence[Example]:
        """The examples where a network reads them; unchanged for what is no network."""
        to_device = getattr(self.answers, "to_device", None)
        there: Sequence[Example] = batch if to_device is None else to_device(batch)
        return there

    def predict(self, batch: Sequence[Example]) -> Sequence[Answer]:
        """Answer for each series."""
        return self.answers(batch)


def build_trained(recipe: TrainableRecipe, spec: PredictorSpec) -> TrainedPredictor:
    """Open the model folder of the spec."""
    parameters = dict(spec.parameters)
    state = open_bundle(Path(spec.folder)).state
    answers = recipe.learner.open(state, parameters, targets=recipe.targets(parameters), device=spec.device)
    # on a CPU one by one, so that no neighbour changes an answer
    together = int(str(parameters.get("batch_size", 1))) if spec.device != "cpu" else 1
    return TrainedPredictor(recipe, Preparing(parameters, spec.masks), answers, together)
