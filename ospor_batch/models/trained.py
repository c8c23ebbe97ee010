"""A trained recipe as a predictor: the model folder is opened once per worker process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ospor_batch.models.bundle import open_bundle
from ospor_batch.models.spec import Pixels, PredictorSpec
from ospor_batch.models.trainable import Answer, Example, Preparing, TrainableRecipe

SPACING = "slice_spacing_mm"  # of a CT series; in a model folder's training_data the least and the greatest
UNLIKE_TRAINING = "slice_spacing_unlike_training"  # flag of an answer
BEYOND = 1.25  # times the widest or finest spacing learned from, within which images count as alike; declared


@dataclass(frozen=True)
class TrainedPredictor:
    """A recipe with what its training left.

    spacing_mm: smallest and greatest distance of slices learned from; null where nothing says it.
    """

    recipe: TrainableRecipe
    preparing: Preparing
    answers: Callable[[Sequence[Example]], Sequence[Answer]]
    batch_items: int
    spacing_mm: tuple[float, float] | None = None
    is_reentrant = True  # answers keep nothing from one call to the next

    def prepare(self, pixels: Pixels) -> Example:
        """Cut the inputs of one series; slices that lie much finer or wider than those learned from are flagged."""
        found = self.recipe.prepare(pixels, self.preparing)
        return replace(found, flags=(*found.flags, UNLIKE_TRAINING)) if self._is_unlike(pixels) else found

    def _is_unlike(self, pixels: Pixels) -> bool:
        if self.spacing_mm is None or pixels.volume is None:
            return False
        (low, high), apart = self.spacing_mm, pixels.volume.spacing[0]
        return not low / BEYOND <= apart <= high * BEYOND

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
    bundle = open_bundle(Path(spec.folder))
    answers = recipe.learner.open(bundle.state, parameters, targets=recipe.targets(parameters), device=spec.device)
    # on a CPU one by one, so that no neighbour changes an answer
    together = int(str(parameters.get("batch_size", 1))) if spec.device != "cpu" else 1
    low, high = bundle.spec.get("training_data", {}).get(SPACING) or (None, None)  # older folders do not say it
    spacing = None if low is None or high is None else (float(low), float(high))
    return TrainedPredictor(recipe, Preparing(parameters, spec.masks), answers, together, spacing)
