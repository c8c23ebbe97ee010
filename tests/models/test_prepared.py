"""Prepared examples come back as they were written; a refusal that may pass is forgotten, another is not."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np

from ospor_batch.errors import ItemRefused
from ospor_batch.models.prepared import PreparedStore, write_examples
from ospor_batch.models.trainable import IMAGE, Example

ONE = Example(
    {IMAGE: np.arange(8, dtype=np.float16).reshape(2, 1, 2, 2), "kvp_kv": np.array([120.0])},
    units=("L1", "L2"), levels=("L1", "L2"), flags=("level_missing:L3",),
)  # fmt: skip


def test_an_example_comes_back(tmp_path: Path) -> None:
    write_examples({"a": ONE, "ab": Example({IMAGE: np.zeros((1, 1, 2, 2))})}, {}, folder=tmp_path / "p", shard="s")
    held = PreparedStore(tmp_path / "p")
    assert held.items == {"a", "ab"}
    found = held.example("a")
    assert found.arrays.keys() == ONE.arrays.keys()
    assert all(np.array_equal(found.arrays[name], ONE.arrays[name]) for name in ONE.arrays)
    assert found.arrays[IMAGE].dtype == np.float16
    assert (found.units, found.levels, found.flags) == (ONE.units, ONE.levels, ONE.flags)
    assert held.units("a") == ("L1", "L2")
    assert stat.S_IMODE((tmp_path / "p").stat().st_mode) == 0o700  # pixels of patients


def test_a_refusal_that_may_pass_is_tried_again(tmp_path: Path) -> None:
    refused = {"b": ItemRefused("image_blank", "nothing"), "c": ItemRefused("read_failed", "", is_transient=True)}
    write_examples({"a": ONE}, refused, folder=tmp_path, shard="s")
    held = PreparedStore(tmp_path)
    assert {item: r.reason for item, r in held.refusals().items()} == {"b": "image_blank", "c": "read_failed"}
    held.forget_transient()
    assert {item: r.is_transient for item, r in PreparedStore(tmp_path).refusals().items()} == {"b": False}
    write_examples({"b": ONE}, {}, folder=tmp_path, shard="t")
    assert not PreparedStore(tmp_path).refusals()  # what was prepared after all is no refusal


def test_a_folder_without_parts_holds_nothing(tmp_path: Path) -> None:
    held = PreparedStore(tmp_path / "none")
    assert not held.items
    assert not held.refusals()
