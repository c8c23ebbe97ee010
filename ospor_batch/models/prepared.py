"""Prepared examples on disk: safetensors parts in a private folder, read back by item; no pickle."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ospor_batch.errors import ItemRefused
from ospor_batch.models.trainable import Array, Example

PART, REFUSED = "part-{}.safetensors", "refused-{}.json"
OPEN_PARTS = 64  # files held open by a reader


def write_examples(examples: Mapping[str, Example], refused: Mapping[str, ItemRefused], *, folder: Path, shard: str) -> None:
    """Write the part of a shard and its refusals, each whole or not at all; examples by item digest."""
    from safetensors.numpy import save

    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    told = [{"item": i, "reason": r.reason, "detail": r.detail, "is_transient": r.is_transient} for i, r in refused.items()]
    _whole(json.dumps(told).encode(), folder / REFUSED.format(shard))
    arrays = {f"{item}/{name}": value for item, e in examples.items() for name, value in e.arrays.items()}
    words = {item: {"units": e.units, "levels": e.levels, "flags": e.flags} for item, e in examples.items()}
    _whole(save(arrays, metadata={"examples": json.dumps(words)}), folder / PART.format(shard))


class PreparedStore:
    """The examples of one folder; parts are mapped, not read, so that a training set need not fit in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._words: dict[str, dict[str, Any]] = {}
        self._part_of: dict[str, Path] = {}
        self._opened: dict[Path, Any] = {}
        self._lock = threading.Lock()
        for part in sorted(folder.glob(PART.format("*"))):
            for item, words in json.loads(_open(part).metadata()["examples"]).items():
                self._words[item], self._part_of[item] = words, part

    @property
    def items(self) -> frozenset[str]:
        return frozenset(self._part_of)

    def refusals(self) -> dict[str, ItemRefused]:
        """Refusals by item digest, those of items that another part holds left out."""
        found: dict[str, ItemRefused] = {}
        for file in sorted(self.folder.glob(REFUSED.format("*"))):
            for row in json.loads(file.read_bytes()):
                found[row["item"]] = ItemRefused(row["reason"], row["detail"], is_transient=row["is_transient"])
        return {item: refusal for item, refusal in found.items() if item not in self._part_of}

    def forget_transient(self) -> None:
        """Drop refusals that may pass, so that their items are prepared again."""
        for file in sorted(self.folder.glob(REFUSED.format("*"))):
            rows = json.loads(file.read_bytes())
            if any(row["is_transient"] for row in rows):
                _whole(json.dumps([row for row in rows if not row["is_transient"]]).encode(), file)

    def example(self, item: str) -> Example:
        """Read one example; from several threads too."""
        words = self._words[item]
        with self._lock:
            file = self._file(self._part_of[item])
            names = self._names(file, item)
            arrays: dict[str, Array] = {name: file.get_tensor(f"{item}/{name}") for name in names}
        return Example(arrays, tuple(words["units"]), tuple(words["levels"]), tuple(words["flags"]))

    def units(self, item: str) -> tuple[str, ...]:
        """Names of the units of one example; reads no array."""
        return tuple(self._words[item]["units"])

    def _file(self, part: Path) -> Any:
        if part not in self._opened:
            if len(self._opened) >= OPEN_PARTS:
                self._opened.pop(next(iter(self._opened)))
            self._opened[part] = _open(part)
        return self._opened[part]

    def _names(self, file: Any, item: str) -> list[str]:
        return [key.partition("/")[2] for key in file.keys() if key.startswith(f"{item}/")]  # noqa: SIM118 -- no mapping


def _open(part: Path) -> Any:
    from safetensors import safe_open

    return safe_open(part, framework="np")


def _whole(content: bytes, target: Path) -> None:
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.unfinished")
    try:
        unfinished.write_bytes(content)
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
