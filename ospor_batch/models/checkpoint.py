"""The checkpoint of a training: tensors, the optimizer's state and what is told of them, in one safetensors file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

Tensors = dict[str, torch.Tensor]


def save_checkpoint(
    path: Path, *, heads: Mapping[str, Mapping[str, torch.Tensor]], optimizer: torch.optim.Optimizer, told: Mapping[str, Any]
) -> None:
    """Write the tensors of each head and the optimizer's, whole or not at all; told: as JSON."""
    tensors = {f"{head}.{name}": value for head, of in heads.items() for name, value in of.items()}
    for at, of in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{at}.{name}": value for name, value in of.items()}
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    unfinished = path.with_name(f".{path.name}")
    save_file({k: v.detach().contiguous().cpu() for k, v in tensors.items()}, unfinished, metadata={"told": json.dumps(told)})
    unfinished.replace(path)


def open_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Tensors]] | None:
    """What was told and the tensors by head; null where there is no file, or none that can be read."""
    try:
        with safe_open(path, framework="pt") as file:
            told: dict[str, Any] = json.loads(file.metadata()["told"])
            found: dict[str, Tensors] = {}
            for name in file.keys():  # noqa: SIM118 -- no mapping
                head, _, rest = name.partition(".")
                found.setdefault(head, {})[rest] = file.get_tensor(name)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        return None
    return told, found


def restore_optimizer(optimizer: torch.optim.Optimizer, saved: Mapping[str, torch.Tensor]) -> None:
    """Give an optimizer of the same parameters the state that was saved; its rates stay."""
    slots: dict[int, Tensors] = {}
    for name, value in saved.items():
        at, _, what = name.partition(".")
        slots.setdefault(int(at), {})[what] = value
    optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})
