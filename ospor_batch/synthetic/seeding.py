"""Everything random or unique in a generated study follows from its seed and a few words."""

from __future__ import annotations

import hashlib
import uuid

import numpy as np

# The enterprise number that is kept free for examples (RFC 5612): what a generated scanner writes has the form of its
# vendor's UIDs below it, yet can never be one that a vendor issued
EXAMPLE_ARC = "1.3.6.1.4.1.32473"


def stream(seed: int, *words: object) -> np.random.Generator:
    """Random numbers of their own for each (seed, words): adding a person changes nobody else."""
    return np.random.default_rng(int.from_bytes(_digest(seed, words), "big"))


def uid(seed: int, *words: object) -> str:
    """A valid DICOM UID under 2.25 (PS3.5 B.2), the same for the same seed and words; 41 to 44 characters."""
    return f"2.25.{uuid.UUID(bytes=_digest(seed, words)[:16], version=5).int}"


def scanner_uid(seed: int, *words: object, stem: str, is_joined: bool) -> tuple[str, int]:
    """Beginning of the UIDs of one series, and the number that its images are counted from, in the form of a vendor.

    Joined to the number of the image, with nothing in between, it is the UID. is_joined: the last component is long and
    grows with the images; otherwise it is the number of the image alone, so that UIDs of one series differ in length.
    """
    digits = str(int.from_bytes(_digest(seed, words), "big")).zfill(80)
    first, second, last = digits[10:20], digits[20:29], digits[30:33]
    if is_joined:
        return f"{EXAMPLE_ARC}.{stem}.{_number(first)}.", int(_number(second + last)) * 10**6
    return f"{EXAMPLE_ARC}.{stem}.{_number(first)}.{_number(second)}.", 0


def secret(seed: int) -> str:
    """The pseudonym key of a generated study; it protects nobody and must never be used for real people."""
    return _digest(seed, ("pseudonym key of a generated study",)).hex()


def _number(digits: str) -> str:
    """A component of a UID does not begin with 0."""
    return f"1{digits[1:]}" if digits[0] == "0" else digits


def _digest(seed: int, words: tuple[object, ...]) -> bytes:
    return hashlib.sha256("\0".join([str(seed), *map(str, words)]).encode()).digest()
