"""Too few to learn from, one class alone, nobody with a mask: every recipe says so before any epoch, with what is missing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from ospor_batch.errors import ItemRefused, NothingToDoError
from ospor_batch.models.registry import PREDICTORS, spec_of
from ospor_batch.models.trainable import TrainableRecipe
from ospor_batch.stages import train as stage
from ospor_batch.stages.training_rows import FACTS, Learners

NAMES = sorted(name for name, kind in PREDICTORS.items() if kind.trains is not None)
LABELS = {"T12": 19, "L1": 20, "L2": 21, "L3": 22, "L4": 23}
MASKS = ItemRefused("mask_missing", "no mask beside the images")


def training(name: str, n: int, *, values: tuple[float, ...] = (0.0, 1.0), refused: int = 0) -> stage.Training:
    """So many labelled series of the train partition, their values in turn, the first of them refused."""
    recipe = PREDICTORS[name].trains
    assert isinstance(recipe, TrainableRecipe)
    spec = spec_of(name, parameters={}, pattern="*.nii*", labels=LABELS)
    targets = recipe.targets(dict(spec.parameters))
    items = [f"{number:032x}" for number in range(n)]
    facts: dict[str, list[Any]] = {fact: [None] * n for fact in FACTS}
    told = {target.column: [values[number % len(values)] for number in range(n)] for target in targets}
    rows = pl.DataFrame({"item_digest": items, "partition": ["train"] * n, **facts, **told})
    key: Any = SimpleNamespace(key="mine")
    return stage.Training(Learners(key, rows, targets, dict.fromkeys(items[:refused], MASKS)), recipe, spec)


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_says_how_many_it_has_and_why_the_others_left(name: str) -> None:
    with pytest.raises(NothingToDoError, match=r"train mine: 3 labelled series .*, expected at least .*minimum_cases = \d+"):
        stage._refuse_too_few(training(name, 3))
    with pytest.raises(NothingToDoError, match=r"train mine: 0 labelled series .* \(40 refused: mask_missing 40\)"):
        stage._refuse_too_few(training(name, 40, refused=40))
    stage._refuse_too_few(training(name, 40, refused=4))


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("name", NAMES)
def test_a_classifier_is_not_learned_from_one_class(name: str, value: float) -> None:
    given = training(name, 40, values=(value,))
    if any(target.kind == "binary" for target in given.of.targets):
        with pytest.raises(NothingToDoError, match=rf"{40 * value:.0f} of 40 train series have is_.*: export labels of both"):
            stage._refuse_too_few(given)
    else:  # a density has no classes
        stage._refuse_too_few(given)
