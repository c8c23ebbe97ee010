"""A model as a folder: weights, MONAI Bundle metadata, what it was trained on, a card; sealed by digests, no pickle.

model.safetensors   weights, and what else the recipe fitted
metadata.json       keys of MONAI's bundle metadata
spec.json           recipe, parameters, masks, training manifest digest, split, seed, versions, threshold, metrics
MODEL_CARD.md       the same in words
SHA256SUMS          digest of each file, as sha256sum writes it
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ospor_batch.errors import StorageError, StudyError
from ospor_batch.models.trainable import Array

WEIGHTS, METADATA, SPEC, CARD, SEAL = "model.safetensors", "metadata.json", "spec.json", "MODEL_CARD.md", "SHA256SUMS"
SEALED = (WEIGHTS, METADATA, SPEC, CARD)
FORMAT = "ospor_batch model 1"  # of spec.json


@dataclass(frozen=True)
class Bundle:
    """What a model folder holds, after its digests were checked."""

    digest: str
    metadata: Mapping[str, Any]
    spec: Mapping[str, Any]
    state: Mapping[str, Array]


def write_bundle(
    folder: Path, *, state: Mapping[str, Array], metadata: Mapping[str, Any], spec: Mapping[str, Any], card: str
) -> str:
    """Write a model folder, whole or not at all, and return its digest; the same content makes the same bytes.

    A model folder that stands there is replaced; StudyError when it is anything else.
    """
    from safetensors.numpy import save  # late: only trained recipes need it

    if folder.exists() and not (folder / SEAL).is_file() and not (folder.is_dir() and not any(folder.iterdir())):
        raise StudyError(f"{folder.name} exists and is no model folder: nothing was written; name a new folder")
    arrays = {name: np.ascontiguousarray(value) for name, value in sorted(state.items())}
    files = {
        WEIGHTS: save(arrays),
        METADATA: _json(metadata),
        SPEC: _json({"format": FORMAT, **spec}),
        CARD: card.encode(),
    }
    files[SEAL] = "".join(f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in SEALED).encode()
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}.unfinished")
    try:
        unfinished.mkdir(parents=True)
        for name, content in files.items():
            (unfinished / name).write_bytes(content)
        if folder.exists():
            shutil.rmtree(folder)
        unfinished.replace(folder)
    except OSError as error:
        raise StorageError(f"the model cannot be written ({type(error).__name__}, errno {error.errno}); free space") from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return _digest(files[SEAL])


def bundle_digest(folder: Path) -> str:
    """SHA-256 (first 16 digits) of the seal; reads no weights. StudyError when the folder is no model."""
    return _digest(_content(folder, SEAL))


def content_digest(path: Path) -> str:
    """SHA-256 (first 16 digits) over a file, or over every file of a folder, of a model that is not ours."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    if not files:
        raise StudyError(f"model {path.name}: neither a file nor a folder with files; say with recipes.model where it lies")
    whole = hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").digest()
        whole.update(file.relative_to(path.parent).as_posix().encode() + b"\0" + digest)
    return whole.hexdigest()[:16]


def read_spec(folder: Path) -> Mapping[str, Any]:
    """Read spec.json alone, against its digest; StudyError when it is no model or was changed."""
    seal = _seal(folder)
    return _spec(folder, _checked(folder, SPEC, seal))


def open_bundle(folder: Path) -> Bundle:
    """Read a model folder; StudyError names the file that is missing or was changed since it was written."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    seal = _seal(folder)
    content = {name: _checked(folder, name, seal) for name in SEALED}
    spec = _spec(folder, content[SPEC])
    try:
        state = load(content[WEIGHTS])
        metadata = json.loads(content[METADATA])
    except (SafetensorError, ValueError) as error:
        raise StudyError(f"model folder {folder.name}: {type(error).__name__}: {WEIGHTS} or {METADATA} is damaged") from None
    return Bundle(bundle_digest(folder), metadata, spec, state)


def _seal(folder: Path) -> dict[str, str]:
    try:
        lines = _content(folder, SEAL).decode("ascii").splitlines()
        return {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    except ValueError:
        raise StudyError(
            f"model folder {folder.name}: {SEAL} is damaged; get the model again from whoever trained it"
        ) from None


def _checked(folder: Path, name: str, seal: Mapping[str, str]) -> bytes:
    content = _content(folder, name)
    if hashlib.sha256(content).hexdigest() != seal.get(name):
        raise StudyError(
            f"model folder {folder.name}: {name} is not what {SEAL} says: it was changed or damaged after training; "
            "get the model again from whoever trained it, or train anew"
        )
    return content


def _content(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise StudyError(
            f"model folder {folder.name}: {name} cannot be read ({type(error).__name__}); a model folder holds "
            f"{', '.join((*SEALED, SEAL))}"
        ) from None


def _spec(folder: Path, content: bytes) -> Mapping[str, Any]:
    spec: dict[str, Any] = json.loads(content)
    if spec.get("format") != FORMAT:
        raise StudyError(f"model folder {folder.name}: {SPEC} has format {spec.get('format')!r}, expected {FORMAT!r}")
    return spec


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _digest(seal: bytes) -> str:
    return hashlib.sha256(seal).hexdigest()[:16]
