"""Feed a GPU from threads and from memory: python benchmarks/gpu_feed.py [--seconds S] [--json FILE]

The engine's own pipeline (ospor_batch.inference.ahead) with inputs that threads make ahead of the device, against the same
network on inputs that lie on the device already; fp32, bf16 and compiled; pinned memory and not. Needs torch and NumPy only.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
import types
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
SIDE, BATCH = 512, 16


def pipeline() -> Callable[..., Any]:
    """The engine's pipeline by its file: the package around it needs libraries that a bare GPU machine has not."""
    for name, file in (("ospor_batch.errors", "errors.py"), ("ospor_batch.inference.ahead", "inference/ahead.py")):
        spec = importlib.util.spec_from_file_location(name, ROOT / "ospor_batch" / file)
        assert spec is not None
        assert spec.loader is not None
        sys.modules.setdefault("ospor_batch", types.ModuleType("ospor_batch"))
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    found: Callable[..., Any] = sys.modules["ospor_batch.inference.ahead"].in_batches
    return found


def network(width: int) -> torch.nn.Module:
    """A residual network of the size class of ResNet-18 where width is 64."""
    torch.manual_seed(1)

    class Block(torch.nn.Module):
        def __init__(self, before: int, after: int, stride: int) -> None:
            super().__init__()
            self.first = torch.nn.Conv2d(before, after, 3, padding=1, stride=stride, bias=False)
            self.second = torch.nn.Conv2d(after, after, 3, padding=1, bias=False)
            self.norms = torch.nn.ModuleList([torch.nn.BatchNorm2d(after), torch.nn.BatchNorm2d(after)])
            self.short = torch.nn.Conv2d(before, after, 1, stride=stride, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.relu(self.norms[0](self.first(x)))
            return torch.relu(self.norms[1](self.second(y)) + self.short(x))

    blocks = [Block(width << max(i - 1, 0) // 2 if i else 1, width << i // 2, 2 if i % 2 == 0 else 1) for i in range(8)]
    return torch.nn.Sequential(
        *blocks, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(width << 3, 1)
    ).eval()


def stored(n: int) -> list[np.ndarray]:
    """Images as a decoder gives them, 12 bits in 16."""
    random = np.random.default_rng(20220101)
    return [random.integers(0, 4096, (2000, 2000), dtype=np.uint16) for _ in range(n)]


def prepared(frame: np.ndarray, *, pin: bool) -> torch.Tensor:
    """Block means to 500 pixels, padded to 512, normalised: plain NumPy as a recipe's prepare is."""
    small = frame.reshape(500, 4, 500, 4).mean(axis=(1, 3), dtype=np.float32)
    image = torch.from_numpy(np.pad((small - small.mean()) / small.std(), 6))[None]
    return image.pin_memory() if pin and torch.cuda.is_available() else image


def measure(case: dict[str, Any], *, seconds: float, width: int) -> dict[str, Any]:
    on = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = network(width).to(on).to(memory_format=torch.channels_last)
    half = torch.bfloat16 if case["precision"] == "bf16" else torch.float32
    frames = stored(8)
    with torch.inference_mode(), torch.autocast(on.type, dtype=half, enabled=half is not torch.float32):
        held = torch.stack([prepared(frame, pin=False) for frame in frames]).repeat(BATCH // 8, 1, 1, 1)
        held = held.to(on, memory_format=torch.channels_last)
        run = torch.compile(model) if case["compiled"] else model

        def ready() -> None:
            if on.type == "cuda":
                torch.cuda.synchronize()

        for _ in range(3):
            run(held).float().cpu()
        ready()
        n, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            run(held).float().cpu()
            n += BATCH
        limit = n / (time.perf_counter() - began)

        def predict(batch: list[tuple[int, torch.Tensor]]) -> list[float]:
            together = torch.stack([image for _, image in batch])
            if case["pinned"] and on.type == "cuda":
                together = together.pin_memory()
            on_device = together.to(on, memory_format=torch.channels_last, non_blocking=True)
            return run(on_device).float().cpu()[:, 0].tolist()

        n_items = max(2 * BATCH, int(limit * seconds) // BATCH * BATCH)
        began = time.perf_counter()
        with ThreadPoolExecutor(case["threads"]) as pool:
            answers = pipeline()(
                range(n_items), submit=lambda i: pool.submit(prepared, frames[i % 8], pin=False), predict=predict,
                waiting_for=lambda result: result(), batch_items=lambda: BATCH, n_decoded=4 * BATCH,
            )  # fmt: skip
            n_done = sum(1 for _ in answers)
        rate = n_done / (time.perf_counter() - began)
        with torch.autocast(on.type, enabled=False):
            full = model(held).float()
        difference = float((run(held).float() - full).abs().max())
    return {**case, "limit": limit, "rate": rate, "of_limit": rate / limit, "largest_difference": difference}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    cases = [
        {"precision": precision, "compiled": compiled, "pinned": pinned, "threads": threads}
        for precision, compiled, pinned, threads in (
            ("fp32", False, False, 1), ("fp32", False, True, 4), ("bf16", False, True, 4), ("bf16", False, True, 16),
            ("bf16", True, True, 16),
        )
        if torch.cuda.is_available() or not compiled
    ]  # fmt: skip
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu (dry run)"
    rows = []
    for case in cases:
        rows.append(measure(case, seconds=given.seconds, width=given.width))
        row = rows[-1]
        print(
            f"{name}: {row['precision']} compiled {row['compiled']} pinned {row['pinned']} threads {row['threads']:2}: "
            f"{row['rate']:8.1f}/s of {row['limit']:8.1f}/s from memory = {row['of_limit']:.2f}; "
            f"largest difference to fp32 {row['largest_difference']:.2g}",
            flush=True,
        )
    if given.json:
        given.json.write_text(json.dumps({"device": name, "torch": torch.__version__, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
