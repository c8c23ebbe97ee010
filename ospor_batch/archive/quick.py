"""Decoders for columns in which every file says something else (UIDs, positions, numbers): all values in one pass.

Each takes what it can prove to be plain, and gives None for the rest; `values` then decodes value by value. They must
give what `values` gives: tests hold them against it.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from itertools import repeat
from typing import Any

from ospor_batch.archive.values import TEXTS, Charset, Keyword

Lists = tuple[list[Any], ...]
"""The values of each column of an element, in the order of the files."""

BETWEEN = b"\n"
UID = b"0123456789.\n"
DECIMAL = b"0123456789+-.eE \\\n"
INTEGER = b"0123456789+- \n"
PRINTABLE = bytes(set(range(0x20, 0x7F)) - {0x5C}) + BETWEEN  # a backslash parts values
LONGEST_INTEGER = 12  # characters, as DICOM has it: exact as a float and as an int


def quick(of: Keyword, raws: Sequence[bytes], *, charset: Charset | None) -> Lists | None:
    """Decode plain values, padded at the end or not; charset: of all of them, null when they differ.

    Zero bytes at the end may be left out, save of FD, which is all bytes.
    """
    if of.vr == "FD" and len(of.fields) == 1:
        return _doubles(raws)
    if any(map(bytes.endswith, raws, repeat(b"\0"))):
        raws = [raw.rstrip(b"\0") for raw in raws]
    if of.vr == "DS" and of.fields[0].type == "number":
        return _decimals(of, raws)
    if of.vr == "IS":
        return _integers(of, raws)
    if of.fields[0].type != "string" or len(of.fields) > 1:
        return None
    if of.vr == "UI":
        return _plain(raws, UID)
    if of.vr in {"CS", "AS", "TM"} or (of.vr in TEXTS and charset is not None and charset.is_ascii_safe):
        return _plain(raws, PRINTABLE)
    return None


def _plain(raws: Sequence[bytes], allowed: bytes) -> Lists | None:
    joined = BETWEEN.join(raws)
    if joined.translate(None, allowed):
        return None
    texts = joined.decode("ascii").split("\n")
    if b" " in joined:
        texts = list(map(str.strip, texts))
    return (texts,) if len(texts) == len(raws) else None


def _decimals(of: Keyword, raws: Sequence[bytes]) -> Lists | None:
    joined = BETWEEN.join(raws)
    if joined.translate(None, DECIMAL):
        return None
    n = len(of.fields) if of.fields[0].item is not None else 1
    if set(map(bytes.count, raws, repeat(b"\\"))) != {n - 1} or joined.count(BETWEEN) != len(raws) - 1:
        return None
    try:
        numbers = list(map(float, joined.replace(b"\\", BETWEEN).split(BETWEEN)))
    except ValueError:
        return None
    if not all(map(math.isfinite, numbers)):
        return None
    return tuple(numbers[at::n] for at in range(n))


def _integers(of: Keyword, raws: Sequence[bytes]) -> Lists | None:
    joined = BETWEEN.join(raws)
    if joined.translate(None, INTEGER) or max(map(len, raws)) > LONGEST_INTEGER:
        return None
    kind = int if of.fields[0].type == "integer" else float
    try:
        numbers = list(map(int, raws))
        return (numbers if kind is int else list(map(kind, numbers)),)
    except ValueError:
        return None


def _doubles(raws: Sequence[bytes]) -> Lists | None:
    if any(len(raw) != 8 for raw in raws):
        return None
    numbers = list(struct.unpack(f"<{len(raws)}d", b"".join(raws)))
    return (numbers,) if all(map(math.isfinite, numbers)) else None
