"""Where the tests of a GPU compute, and where they write what they measured."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import pytest


def is_dry_run() -> bool:
    """Whether the CPU shall stand in for the GPU, to try the tests themselves."""
    return os.environ.get("OSPOR_DRY_RUN") == "cpu"


def has_gpu() -> bool:
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return bool(torch.cuda.is_available())


def need(*modules: str, what: str) -> None:
    """Skip a module of tests, saying what to install; nothing is imported."""
    gone = [name for name in modules if importlib.util.find_spec(name) is None]
    if gone:
        pytest.skip(f"{what} needs {', '.join(gone)}: install it, or bring its wheel", allow_module_level=True)


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
