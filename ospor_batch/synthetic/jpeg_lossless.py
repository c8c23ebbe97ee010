"""JPEG Lossless, first-order prediction (ITU-T T.81 process 14, selection value 1), as PACS archives store CT."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST_CATEGORY = 16  # stands for the difference 32768 alone and has no further bits


@dataclass(frozen=True)
class Table:
    """A Huffman table: categories (bits of the difference) by length of code, and how many codes have 1 to 16 bits."""

    categories: tuple[int, ...]
    of_length: tuple[int, ...]

    def codes(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Code and length of each category (T.81 annex C)."""
        codes, lengths = np.zeros(LARGEST_CATEGORY + 1, dtype=np.int64), np.zeros(LARGEST_CATEGORY + 1, dtype=np.int64)
        code, place = 0, 0
        for length, n_codes in enumerate(self.of_length, start=1):
            for _ in range(n_codes):
                codes[self.categories[place]], lengths[self.categories[place]] = code, length
                code, place = code + 1, place + 1
            code <<= 1
        return codes, lengths


# CT noise falls in categories 3 to 6 most often; the all-ones code stays free. An image of one value has a table of its own
USUAL = Table((4, 3, 5, 2, 6, 1, 0, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16), (0, 1, 5, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0))


def encode(frame: NDArray[Any]) -> bytes:
    """One frame of 16-bit stored values; signed ones are coded by their bits, as DICOM does (PS3.5 8.2.1)."""
    values = np.ascontiguousarray(frame).view(np.uint16).astype(np.int32)
    difference = _differences(values)
    category = np.where(difference == 0, 0, np.floor(np.log2(np.abs(difference) + 0.5)).astype(np.int64) + 1)
    extra = np.where(difference < 0, difference + (1 << category) - 1, difference)
    table = USUAL if category[1:].any() else Table((0, int(category[0]) or 1), (1, 1, *[0] * 14))
    codes, lengths = table.codes()
    n_extra = np.where(category == LARGEST_CATEGORY, 0, category)
    bits = _packed((codes[category] << n_extra) | np.where(n_extra > 0, extra, 0), lengths[category] + n_extra)
    return _head(frame.shape, table) + bits.replace(b"\xff", b"\xff\0") + b"\xff\xd9"


def _differences(values: NDArray[np.int32]) -> NDArray[np.int64]:
    """Differences to the left neighbour, in the first column to the one above, modulo 2^16 into -32767..32768."""
    guess = np.empty_like(values)
    guess[:, 1:] = values[:, :-1]
    guess[1:, 0] = values[:-1, 0]
    guess[0, 0] = 1 << 15
    wrapped = ((values - guess + 32767) & 0xFFFF) - 32767
    return wrapped.ravel().astype(np.int64)


def _packed(words: NDArray[np.int64], lengths: NDArray[np.int64]) -> bytes:
    """Words of differing length one after the other; the last byte is filled with ones."""
    ends = np.cumsum(lengths)
    which = np.repeat(np.arange(len(words)), lengths)
    shift = ends[which] - 1 - np.arange(int(ends[-1]))
    bits = ((words[which] >> shift) & 1).astype(np.uint8)
    filled = np.concatenate([bits, np.ones(-len(bits) % 8, dtype=np.uint8)])
    return np.packbits(filled).tobytes()


def _head(shape: tuple[int, ...], huffman: Table) -> bytes:
    frame = struct.pack(">HHBHHBBBB", 0xFFC3, 11, 16, shape[0], shape[1], 1, 1, 0x11, 0)
    table = struct.pack(">HHB", 0xFFC4, 3 + 16 + len(huffman.categories), 0) + bytes((*huffman.of_length, *huffman.categories))
    scan = struct.pack(">HHBBBBBB", 0xFFDA, 8, 1, 1, 0, 1, 0, 0)
    return b"\xff\xd8" + frame + table + scan
