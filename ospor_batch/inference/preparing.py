"""Cut the inputs of a training on a worker: a shard of series to a private part of examples, each item kept or refused."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ospor_batch.errors import ItemRefused, LedgerError, StorageError
from ospor_batch.inference.allocator import keep_freed_memory
from ospor_batch.inference.items import Item, fetch, read_items, read_pixels
from ospor_batch.models.prepared import write_examples
from ospor_batch.models.registry import kind_of
from ospor_batch.models.spec import PredictorSpec
from ospor_batch.models.trainable import Example, Preparing


@dataclass(frozen=True)
class PrepareTask:
    """What is sent to a worker. source: private shard file. folder: private folder of the examples."""

    shard: str
    source: Path
    folder: Path
    spec: PredictorSpec
    is_training: bool


@dataclass(frozen=True)
class PrepareReceipt:
    """What a worker answers once its part is durable."""

    shard: str
    n_items: int
    n_prepared: int
    n_refused: int


def prepare_shard(task: PrepareTask) -> PrepareReceipt:
    """Prepare every series of a shard."""
    keep_freed_memory()
    items = read_items(task.source)
    examples: dict[str, Example] = {}
    refused: dict[str, ItemRefused] = {}
    for item in items:
        try:
            examples[item.item_digest] = _prepared(item, task)
        except ItemRefused as refusal:
            refused[item.item_digest] = refusal
    try:
        write_examples(examples, refused, folder=task.folder, shard=task.shard)
    except OSError as error:
        raise StorageError(
            f"prepared images cannot be written ({type(error).__name__}, errno {error.errno}); free space and run again"
        ) from None
    receipt = PrepareReceipt(task.shard, len(items), len(examples), len(refused))
    if receipt.n_prepared + receipt.n_refused != receipt.n_items:
        raise LedgerError(f"shard {task.shard}: {receipt.n_items} items, but {receipt.n_prepared} + {receipt.n_refused}")
    return receipt


def _prepared(item: Item, task: PrepareTask) -> Example:
    recipe = kind_of(task.spec.predictor).trains
    assert recipe is not None  # the stage prepares for trained recipes only
    preparing = Preparing(dict(task.spec.parameters), task.spec.masks, is_training=task.is_training)
    try:
        fetch(item)
        example = recipe.prepare(read_pixels(item, task.spec, is_whole=True), preparing)  # a training sees everything
    except MemoryError:
        raise ItemRefused("out_of_memory", "the worker's memory does not hold it", is_transient=True) from None
    if any(value.dtype.kind == "f" and not bool((abs(value) < float("inf")).all()) for value in example.arrays.values()):
        raise ItemRefused("non_finite", "the prepared image holds values that are no finite numbers")
    return example
