"""A made volume with vertebrae of known density, muscle and fat, and its labels; what recipes of CT are tried on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ospor_batch.imaging.masks import MaskRule
from ospor_batch.imaging.volume import Volume
from ospor_batch.models.spec import Parameter, Pixels
from ospor_batch.models.trainable import Case, Example, Preparing, TrainableRecipe, TrainingSet

RULE = MaskRule("*.nii*", (("T12", 19), ("L1", 20), ("L2", 21)), tissues=(("muscle", 100),))
FAT, MUSCLE = -100.0, 55.0


def spine(density_hu: float, *, muscle_mm: float = 70.0, height_m: float | None = 1.6, sex: str | None = "female") -> Pixels:
    """T12, L1 and L2 in a body of fat around muscle: 4 mm slices, 4 mm pixels; slice 0 lies next to the feet."""
    shape = (30, 60, 60)
    z, y, x = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    away = np.hypot((y - 30) * 4, (x - 30) * 4)
    hu, labels = np.full(shape, -1000.0, np.float32), np.zeros(shape, np.int32)
    hu[away < 110], hu[away < muscle_mm] = FAT, MUSCLE
    labels[away < muscle_mm] = 100
    for place, label in enumerate((21, 20, 19)):
        inside = (away < 20) & (np.abs(z - (5 + 9 * place)) <= 3)
        hu[inside], labels[inside] = density_hu + 3 * place, label
    affine = np.array([[0, 0, 4.0, -120], [0, 4, 0, -120], [4, 0, 0, 0], [0, 0, 0, 1]])
    return Pixels(Volume(hu, affine, height_m=height_m, sex=sex), labels)


def preparing(recipe: TrainableRecipe, changes: Mapping[str, Parameter], *, is_training: bool = False) -> Preparing:
    """With the recipe's defaults, changed."""
    return Preparing({**recipe.defaults, **changes}, RULE, is_training=is_training)


def data_of(
    recipe: TrainableRecipe,
    changes: Mapping[str, Parameter],
    people: Sequence[tuple[Pixels, tuple[float, ...]]],
    *,
    tuning: int,
) -> TrainingSet:
    """Examples of made people; the last so many are the tuning partition."""
    cases = tuple(Case(f"{number:032x}", targets) for number, (_, targets) in enumerate(people))
    held: dict[tuple[str, bool], Example] = {}

    def example(item: str, is_training: bool) -> Example:
        key = (item, is_training)
        if key not in held:
            held[key] = recipe.prepare(people[int(item, 16)][0], preparing(recipe, changes, is_training=is_training))
        return held[key]

    return TrainingSet(cases[: len(cases) - tuning], cases[len(cases) - tuning :], example)
