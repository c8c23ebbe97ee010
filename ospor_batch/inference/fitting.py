"""Fit one recipe on one worker: from private examples to what its learner leaves, and its answers for the tuning people."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ospor_batch.errors import ItemRefused, StorageError, StudyError
from ospor_batch.inference.allocator import keep_freed_memory
from ospor_batch.models.prepared import PreparedStore
from ospor_batch.models.registry import kind_of
from ospor_batch.models.spec import PredictorSpec
from ospor_batch.models.trainable import Array, Case, Example, TrainingSet, Work

CASES, STATE, NOTES = "cases.json", "fitted.safetensors", "fitted.json"


@dataclass(frozen=True)
class FitTask:
    """What is sent to a worker.

    folder: private, holds the cases and takes checkpoints and result. train, tuning: private folders of the examples.
    """

    folder: Path
    train: Path
    tuning: Path
    spec: PredictorSpec
    seed: int


@dataclass(frozen=True)
class Fit:
    """What a fit left on disk. answers: (item digest, score, value) of tuning series, score and value null when refused."""

    state: Mapping[str, Array]
    notes: Mapping[str, Any]
    answers: tuple[tuple[str, float | None, float | None], ...]


def write_cases(folder: Path, *, train: tuple[Case, ...], tuning: tuple[Case, ...]) -> None:
    """Write who is learned from; private, without names or dates."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    told = {name: [_told(case) for case in cases] for name, cases in (("train", train), ("tuning", tuning))}
    (folder / CASES).write_text(json.dumps(told))


def fit_recipe(task: FitTask) -> int:
    """Fit and leave the result in the task's folder; the number of cases learned from. Does nothing that is done."""
    from safetensors.numpy import save

    told = json.loads((task.folder / CASES).read_bytes())
    train, tuning = (tuple(_case(row) for row in told[name]) for name in ("train", "tuning"))
    if (task.folder / NOTES).is_file():
        return len(train)
    _refuse_missing_gpu(task.spec.device)
    keep_freed_memory()  # activations come and go with every batch: without it a third of the time is the kernel's
    recipe = kind_of(task.spec.predictor).trains
    assert recipe is not None  # the stage fits trained recipes only
    stores = {True: PreparedStore(task.train), False: PreparedStore(task.tuning)}

    def example(item: str, is_training: bool) -> Example:  # noqa: FBT001
        return stores[is_training].example(item)

    parameters = dict(task.spec.parameters)
    targets = recipe.targets(parameters)
    work = Work(parameters, targets, task.seed, task.folder, task.spec.device)
    fitted = recipe.learner.fit(TrainingSet(train, tuning, example), work)
    answers = recipe.learner.open(fitted.state, parameters, targets=targets, device=task.spec.device)
    said = [(case.item_digest, answers([example(case.item_digest, False)])[0]) for case in tuning]  # noqa: FBT003
    rows = [[item, None, None] if isinstance(one, ItemRefused) else [item, one.score, one.value] for item, one in said]
    try:
        _whole(save(dict(fitted.state)), task.folder / STATE)
        _whole(json.dumps({"notes": fitted.notes, "answers": rows}).encode(), task.folder / NOTES)
    except OSError as error:
        raise StorageError(f"the fit cannot be written ({type(error).__name__}, errno {error.errno}); free space") from None
    return len(train)


def read_fit(folder: Path) -> Fit:
    """Read what a fit left."""
    from safetensors.numpy import load

    told = json.loads((folder / NOTES).read_bytes())
    return Fit(load((folder / STATE).read_bytes()), told["notes"], tuple(tuple(row) for row in told["answers"]))


def _refuse_missing_gpu(device: str) -> None:
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise StudyError("compute.gpu is given, but torch sees no GPU in its workers")


def _told(case: Case) -> dict[str, Any]:
    # JSON has no NaN: an unknown target is null
    return {
        "item": case.item_digest,
        "targets": [None if value != value else value for value in case.targets],  # noqa: PLR0124
        "facts": dict(case.facts),
    }


def _case(row: Mapping[str, Any]) -> Case:
    targets = tuple(float("nan") if value is None else float(value) for value in row["targets"])
    return Case(row["item"], targets, row["facts"])


def _whole(content: bytes, target: Path) -> None:
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.unfinished")
    try:
        unfinished.write_bytes(content)
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
