"""The segmentation network as a model folder: written after training, opened once per worker process."""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ospor_batch.errors import StudyError
from ospor_batch.imaging.masks import MaskRule
from ospor_batch.imaging.volume import Volume
from ospor_batch.models.bundle import bundle_digest, open_bundle, write_bundle
from ospor_batch.models.segmentation import N_OUTPUTS, VERSION, network_of, segment, state_of
from ospor_batch.models.segmentation_classes import FILE_VALUES, KINDS
from ospor_batch.models.spec import Parameter

RECIPE = "segmentation"
_one_at_a_time = threading.Lock()  # a network's windows fill the processor or the card


def write_segmentation(
    folder: Path, network: nn.Module, *, parameters: Mapping[str, Parameter], training: Mapping[str, Any], card: str
) -> str:
    """Write the model folder and return its digest. training: what it was trained on, measured and with which versions."""
    kept = {name: list(value) if isinstance(value, tuple) else value for name, value in parameters.items()}
    spec = {"recipe": RECIPE, "recipe_version": VERSION, "parameters": kept, "kinds": list(KINDS)}
    return write_bundle(
        folder, state=state_of(network), metadata=_metadata(training), spec={**spec, "training": dict(training)}, card=card
    )


def open_segmentation(folder: Path) -> tuple[nn.Module, dict[str, Parameter]]:
    """Open a model folder; StudyError when it is another recipe's, of another version, or was changed."""
    bundle = open_bundle(folder)
    found = bundle.spec.get("recipe"), bundle.spec.get("recipe_version"), tuple(bundle.spec.get("kinds", ()))
    if found != (RECIPE, VERSION, KINDS):
        raise StudyError(
            f"recipes.masks.model: {folder.name} holds a model of recipe {found[0]!r}, version {found[1]!r}; expected "
            f"{RECIPE!r}, version {VERSION!r}: train it anew"
        )
    parameters = {name: tuple(value) if isinstance(value, list) else value for name, value in bundle.spec["parameters"].items()}
    network = network_of(parameters)
    network.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in bundle.state.items()})
    return network.eval(), parameters


def segmented(volume: Volume, *, rule: MaskRule, device: str) -> tuple[npt.NDArray[np.int32], dict[str, float]]:
    """Labels by the numbers of the rule, and the confidence of each level found; of two bodies of one level the larger."""
    network, parameters = _opened(rule.folder, rule.version, device)
    with _one_at_a_time:
        found = segment(volume, network, parameters=parameters, device=device)
    labels = np.zeros(found.labels.shape, np.int32)
    for name, label in (*rule.labels, *rule.tissues):
        labels[found.labels == FILE_VALUES[name]] = label
    return labels, {body.level: body.confidence for body in found.bodies}


@functools.cache
def _opened(folder: str, version: str, device: str) -> tuple[nn.Module, dict[str, Parameter]]:
    """The network of this process; version: the digest of the folder, so that a changed one is opened anew."""
    if bundle_digest(Path(folder)) != version:
        raise StudyError(f"recipes.masks.model: {Path(folder).name} was changed since the run began; start a new run")
    network, parameters = open_segmentation(Path(folder))
    return network.to(device), parameters


def _metadata(training: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of MONAI's bundle metadata."""
    return {
        "version": VERSION,
        "changelog": {"1": "first", "2": "disc as a kind, spread of the level, a finer grid", VERSION: "levels by landmarks"},
        "monai_version": str(training.get("versions", {}).get("monai", "")),
        "pytorch_version": str(training.get("versions", {}).get("torch", "")),
        "numpy_version": str(training.get("versions", {}).get("numpy", "")),
        "required_packages_version": {},
        "name": "Vertebral bodies, muscle and fat in CT",
        "task": "Segmentation of vertebral bodies with their level, muscle and fat",
        "description": "U-Net on an isotropic grid, trained on generated volumes by label-to-image synthesis.",
        "authors": "ospor_batch",
        "copyright": "",
        "network_data_format": {
            "inputs": {"image": {"type": "image", "format": "hounsfield", "num_channels": 2, "modality": "CT"}},
            "outputs": {"pred": {"type": "probabilities", "num_channels": N_OUTPUTS,
                                 "channel_def": dict(enumerate((*KINDS, "level", "spread")))}},
        },
    }  # fmt: skip
