"""Letters as pixels: what scanners burn into dose sheets, captures and radiographs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# Seven rows of five pixels each, as bits from the left; the usual dot-matrix shapes
GLYPHS: dict[str, tuple[int, ...]] = {
    "A": (14, 17, 17, 31, 17, 17, 17), "B": (30, 17, 17, 30, 17, 17, 30), "C": (14, 17, 16, 16, 16, 17, 14),
    "D": (30, 17, 17, 17, 17, 17, 30), "E": (31, 16, 16, 30, 16, 16, 31), "F": (31, 16, 16, 30, 16, 16, 16),
    "G": (14, 17, 16, 23, 17, 17, 15), "H": (17, 17, 17, 31, 17, 17, 17), "I": (14, 4, 4, 4, 4, 4, 14),
    "J": (7, 2, 2, 2, 2, 18, 12), "K": (17, 18, 20, 24, 20, 18, 17), "L": (16, 16, 16, 16, 16, 16, 31),
    "M": (17, 27, 21, 21, 17, 17, 17), "N": (17, 25, 21, 19, 17, 17, 17), "O": (14, 17, 17, 17, 17, 17, 14),
    "P": (30, 17, 17, 30, 16, 16, 16), "Q": (14, 17, 17, 17, 21, 18, 13), "R": (30, 17, 17, 30, 20, 18, 17),
    "S": (15, 16, 16, 14, 1, 1, 30), "T": (31, 4, 4, 4, 4, 4, 4), "U": (17, 17, 17, 17, 17, 17, 14),
    "V": (17, 17, 17, 17, 17, 10, 4), "W": (17, 17, 17, 21, 21, 27, 17), "X": (17, 17, 10, 4, 10, 17, 17),
    "Y": (17, 17, 10, 4, 4, 4, 4), "Z": (31, 1, 2, 4, 8, 16, 31), "0": (14, 17, 19, 21, 25, 17, 14),
    "1": (4, 12, 4, 4, 4, 4, 14), "2": (14, 17, 1, 6, 8, 16, 31), "3": (30, 1, 1, 14, 1, 1, 30),
    "4": (2, 6, 10, 18, 31, 2, 2), "5": (31, 16, 30, 1, 1, 17, 14), "6": (6, 8, 16, 30, 17, 17, 14),
    "7": (31, 1, 2, 4, 8, 8, 8), "8": (14, 17, 17, 14, 17, 17, 14), "9": (14, 17, 17, 15, 1, 2, 12),
    ".": (0, 0, 0, 0, 0, 12, 12), "-": (0, 0, 0, 14, 0, 0, 0), ":": (0, 12, 12, 0, 12, 12, 0),
    "/": (1, 1, 2, 4, 8, 16, 16),
}  # fmt: skip
HEIGHT, WIDTH = 7, 6  # of a letter with the gap after it


def written(text: str) -> NDArray[np.bool_]:
    """One line as a mask (7, 6 * letters); whatever has no shape here is a blank."""
    mask = np.zeros((HEIGHT, WIDTH * len(text)), dtype=bool)
    for place, letter in enumerate(text.upper()):
        for row, bits in enumerate(GLYPHS.get(letter, ())):
            for column in range(5):
                mask[row, WIDTH * place + column] = bool(bits >> (4 - column) & 1)
    return mask


def page(lines: Sequence[str], *, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Lines below each other from the upper left corner; what does not fit is cut off."""
    mask = np.zeros(shape, dtype=bool)
    for number, line in enumerate(lines):
        top, drawn = 4 + number * (HEIGHT + 3), written(line)
        part = mask[top : top + HEIGHT, 4 : 4 + drawn.shape[1]]
        part |= drawn[: part.shape[0], : part.shape[1]]
    return mask
