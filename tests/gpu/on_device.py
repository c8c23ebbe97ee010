"""Where the tests of a GPU compute, and where they write what they measured."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any


def is_dry_run() -> bool:
    """Whether the CPU shall stand in for the GPU, to try the tests themselves."""
    return os.environ.get("OSPOR_DRY_RUN") == "cpu"


def has_gpu() -> bool:
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return bool(torch.cuda.is_available())


def device_name() -> str:
    """As a spec names it."""
    return "cuda" if has_gpu() else "cpu"


def write_down(what: str, **facts: Any) -> None:
    """Print a line of what was measured; append it to measured.jsonl in the folder that OSPOR_GPU_OUT names."""
    line = json.dumps({"what": what, "device": card(), **facts}, sort_keys=True)
    print(line)
    if "OSPOR_GPU_OUT" in os.environ:
        with (Path(os.environ["OSPOR_GPU_OUT"]) / "measured.jsonl").open("a") as file:
            file.write(line + "\n")


def card() -> str:
    if not has_gpu():
        return "cpu (dry run)"
    import torch

    return str(torch.cuda.get_device_name())
