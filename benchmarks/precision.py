"""What bfloat16 costs: python benchmarks/precision.py WORKSPACE [--json FILE]

Every trained network of a workspace answers its own prepared images in float32 and in bfloat16: seconds of CPU an image, the
largest difference of a value, and how many decisions at the model's locked threshold (the median score where it has none)
stay. A third run in float32 with the layout in memory that PyTorch has by default says what rounding alone does. WORKSPACE:
of a study that was run here, such as `ospor-batch demo --all` leaves.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from agreement import compared, in_words

from ospor_batch.models.bundle import open_bundle, read_spec
from ospor_batch.models.forward import NetworkAnswers
from ospor_batch.models.prepared import PreparedStore
from ospor_batch.models.registry import kind_of
from ospor_batch.models.trainable import Example, NetworkLearner


def examples_of(workspace: Path, said: dict[str, Any], *, most: int) -> list[Example]:
    """Prepared series of this model's own input, those it was not trained on first."""
    trains = kind_of(said["recipe"]).trains
    assert trains is not None
    found: list[Example] = []
    for is_training in (False, True):
        named = {
            "recipe": said["recipe"],
            "version": said["recipe_version"],
            "preprocessing": said["preprocessing"]["version"],
            "parameters": {name: said["parameters"][name] for name in sorted(trains.preparing)},
            "masks": said["preprocessing"]["masks"] or {},
            "is_training": is_training,
        }
        digest = hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()[:16]
        store = PreparedStore(workspace / "private" / "prepared" / digest)
        found += [store.example(item) for item in sorted(store.items)]
    return found[:most]


def answered(folder: Path, said: dict[str, Any], examples: list[Example], *, precision: str, layout: Any) -> tuple[Any, float]:
    """Scores and values of every example, and the seconds of CPU that one took."""
    trains = kind_of(said["recipe"]).trains
    assert trains is not None
    parameters = {**trains.defaults, **said["parameters"], "precision": precision}
    answers = trains.learner.open(open_bundle(folder).state, parameters, targets=trains.targets(parameters), device="cpu")
    assert isinstance(answers, NetworkAnswers)
    if layout is not None:
        answers.forward.layout = layout
        answers.forward.network.to(memory_format=layout)
    answers(examples[:1])
    began = time.thread_time()
    found = [answers([example])[0] for example in examples]
    seconds = (time.thread_time() - began) / len(examples)
    return np.array([[answer.score, answer.value] for answer in found if not isinstance(answer, Exception)]), seconds


def measure(folder: Path, workspace: Path, *, most: int) -> dict[str, Any] | None:
    spec = read_spec(folder)
    trains = kind_of(spec["recipe"]).trains
    if trains is None or not isinstance(trains.learner, NetworkLearner):
        return None
    examples = examples_of(workspace, spec, most=most)
    if not examples:
        return None
    full, of_full = answered(folder, spec, examples, precision="float32", layout=None)
    half, of_half = answered(folder, spec, examples, precision="bfloat16", layout=None)
    plain, _ = answered(folder, spec, examples, precision="float32", layout=torch.contiguous_format)
    locked = spec["threshold"]["score_cut"]
    of_layout = compared((full[:, 1], plain[:, 1]), (full[:, 0], plain[:, 0]), locked=locked)
    return {
        "recipe": spec["recipe"], "network": spec["parameters"]["network"],
        **compared((full[:, 1], half[:, 1]), (full[:, 0], half[:, 0]), locked=locked),
        "seconds": {"float32": of_full, "bfloat16": of_half},
        "rounding": of_layout["largest"], "rounding_agree": of_layout["agree"],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--most", type=int, default=400, help="Series of each model.")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for folder in sorted((given.workspace / "models").iterdir()):
        row = measure(folder, given.workspace, most=given.most) if (folder / "spec.json").is_file() else None
        if row is not None:
            rows.append(row)
            print(
                f"{row['recipe']:18} {row['network']:15} {1e3 * row['seconds']['float32']:.1f} ms float32, "
                f"{1e3 * row['seconds']['bfloat16']:.1f} ms bfloat16; {in_words(row)}; layout alone: {row['rounding']:.1g}, "
                f"{row['rounding_agree']:.4f}",
                flush=True,
            )
    if given.json:
        given.json.write_text(json.dumps({"torch": torch.__version__, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
