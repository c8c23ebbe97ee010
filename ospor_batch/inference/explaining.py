"""Grad-CAM of a shard of series on a worker: maps in the common frame to a private part, pictures beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ospor_batch.errors import ItemRefused
from ospor_batch.inference.items import fetch, read_items, read_pixels
from ospor_batch.models.bundle import open_bundle
from ospor_batch.models.prepared import write_examples
from ospor_batch.models.registry import kind_of
from ospor_batch.models.spec import PredictorSpec
from ospor_batch.models.trainable import IMAGE, Example, NetworkLearner, Preparing

HEAT = "heat"
OPACITY = 0.45  # of the heat over the image


@dataclass(frozen=True)
class ExplainTask:
    """What is sent to a worker. folder: private. pictured: items that get a picture of their own."""

    shard: str
    source: Path
    folder: Path
    spec: PredictorSpec
    pictured: frozenset[str]


def explain_shard(task: ExplainTask) -> int:
    """Explain every series of a shard; the number of series."""
    from ospor_batch.models.explain import heat_of, layer_of
    from ospor_batch.models.training import loaded_network

    recipe, parameters = kind_of(task.spec.predictor).trains, dict(task.spec.parameters)
    assert recipe is not None  # the stage explains trained networks only
    assert isinstance(recipe.learner, NetworkLearner)
    device = task.spec.device
    state = open_bundle(Path(task.spec.folder)).state
    network, _, _ = loaded_network(recipe.learner, state, parameters=parameters, device=device)
    layer = layer_of(str(parameters["network"]))
    items = read_items(task.source)
    found: dict[str, Example] = {}
    refused: dict[str, ItemRefused] = {}
    for item in items:
        try:
            fetch(item)
            example = recipe.prepare(read_pixels(item, task.spec), Preparing(parameters, task.spec.masks))
        except ItemRefused as refusal:
            refused[item.item_digest] = refusal
            continue
        image = example.arrays[IMAGE][0]
        heat = heat_of(network, image, layer=layer, device=device)
        found[item.item_digest] = Example({HEAT: heat})
        if item.item_digest in task.pictured:
            picture(image[0], heat, target=task.folder / f"{item.item_digest}.png")
    write_examples(found, refused, folder=task.folder, shard=task.shard)
    return len(items)


def picture(image: npt.NDArray[np.floating], heat: npt.NDArray[np.float32], *, target: Path) -> None:
    """Write an image beside itself under its heat as PNG; it shows a patient and belongs in a private folder."""
    from matplotlib import colormaps
    from matplotlib.image import imsave

    gray = image.astype(np.float32)
    gray = (gray - gray.min()) / max(float(np.ptp(gray)), 1e-6)
    rows, columns = ((np.arange(side) + 0.5) * len(heat) / side for side in gray.shape)
    large = heat[np.ix_(rows.astype(int), columns.astype(int))]
    plain = np.repeat(gray[..., None], 3, axis=2)
    share = OPACITY * large[..., None]
    mixed = (1 - share) * plain + share * colormaps["inferno"](large)[..., :3]
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    imsave(target, np.concatenate([plain, mixed], axis=1))
