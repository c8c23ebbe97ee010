"""Write the many slices of a series from the bytes of its first: only the elements that differ are encoded anew."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from ospor_batch.errors import ContractError

UNDEFINED = 0xFFFFFFFF
SEQUENCE_END = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)


@dataclass(frozen=True)
class Template:
    """A file cut at the elements that differ between slices."""

    pieces: tuple[bytes, ...]

    @classmethod
    def of(cls, first: bytes, varying: Sequence[bytes]) -> Template:
        """Cut the first file at its encoded varying elements, given in the order of the file."""
        pieces, rest = [], first
        for element in varying:
            before, found, rest = rest.partition(element)
            if not found:
                raise ContractError(f"generated slice: element {element[:4].hex()} is not encoded as expected")
            pieces.append(before)
        return cls((*pieces, rest))

    def fill(self, varying: Sequence[bytes]) -> bytes:
        """The file with other values in the same places; lengths before them must not depend on these values."""
        parts = [part for pair in zip(self.pieces, varying, strict=False) for part in pair]
        return b"".join([*parts, self.pieces[-1]])


def text_element(tag: int, vr: str, value: str, *, is_implicit: bool) -> bytes:
    """An element of text, padded to an even length as PS3.5 asks."""
    raw = value.encode("ascii")
    raw += (b"\0" if vr == "UI" else b" ") * (len(raw) % 2)
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    return head + (struct.pack("<L", len(raw)) if is_implicit else vr.encode() + struct.pack("<H", len(raw))) + raw


def pixel_element(pixels: bytes, *, is_implicit: bool, is_encapsulated: bool) -> bytes:
    """The pixel data element; encapsulated pixels come with their item tags and get the end of sequence."""
    head = struct.pack("<HH", 0x7FE0, 0x0010)
    if is_encapsulated:
        return head + b"OB\0\0" + struct.pack("<L", UNDEFINED) + pixels + SEQUENCE_END
    length = struct.pack("<L", len(pixels))
    return head + (length if is_implicit else b"OW\0\0" + length) + pixels
