"""Pictures of a shard of series under their masks on a worker, to a private part."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ospor_batch.errors import ItemRefused
from ospor_batch.imaging.overlay import overlay
from ospor_batch.inference.items import fetch, read_items, read_pixels
from ospor_batch.models.prepared import write_examples
from ospor_batch.models.spec import PredictorSpec
from ospor_batch.models.trainable import Example

PICTURE = "picture"


@dataclass(frozen=True)
class OverlayTask:
    """What is sent to a worker. folder: private."""

    shard: str
    source: Path
    folder: Path
    spec: PredictorSpec


def overlay_shard(task: OverlayTask) -> int:
    """Draw every series of a shard; the number of series."""
    items = read_items(task.source)
    found: dict[str, Example] = {}
    refused: dict[str, ItemRefused] = {}
    levels, tissues = dict(task.spec.masks.labels), dict(task.spec.masks.tissues)
    for item in items:
        try:
            fetch(item)
            pixels = read_pixels(item, task.spec)
            assert pixels.volume is not None
            assert pixels.labels is not None  # the stage draws recipes that read masks
            found[item.item_digest] = Example({PICTURE: overlay(pixels.volume, pixels.labels, levels=levels, tissues=tissues)})
        except ItemRefused as refusal:
            refused[item.item_digest] = refusal
    write_examples(found, refused, folder=task.folder, shard=task.shard)
    return len(items)
