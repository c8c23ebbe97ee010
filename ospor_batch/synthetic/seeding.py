"""Everything random or unique in a generated study follows from its seed and a few words."""

from __future__ import annotations

import hashlib
import uuid

import numpy as np

SMALLEST_LONG = 10**38  # the least number of 39 digits


def stream(seed: int, *words: object) -> np.random.Generator:
    """Random numbers of their own for each (seed, words): adding a person changes nobody else."""
    return np.random.default_rng(int.from_bytes(_digest(seed, words), "big"))


def uid(seed: int, *words: object) -> str:
    """A valid DICOM UID under 2.25 (PS3.5 B.2), the same for the same seed and words; always 44 characters."""
    number = uuid.UUID(bytes=_digest(seed, words)[:16], version=5).int
    if number < SMALLEST_LONG:
        number |= 1 << 127  # a number of 39 digits
    return f"2.25.{number}"


def secret(seed: int) -> str:
    """The pseudonym key of a generated study; it protects nobody and must never be used for real people."""
    return _digest(seed, ("pseudonym key of a generated study",)).hex()


def _digest(seed: int, words: tuple[object, ...]) -> bytes:
    return hashlib.sha256("\0".join([str(seed), *map(str, words)]).encode()).digest()
