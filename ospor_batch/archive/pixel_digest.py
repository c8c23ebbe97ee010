"""The digest of the header values that change how pixels are read, for one row and for a table of them."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.datadict import tag_for_keyword

from ospor_batch.contracts import contract

PIXEL_GROUP = 0x0028  # the group that says how pixels are read
PIXEL_KEYWORDS = ("ImagePositionPatient", "ImageOrientationPatient", "ImagerPixelSpacing", "PresentationLUTShape")
FRAMES = ("frame_positions_mm", "frame_cosines")  # of an enhanced image; added only where they are told
SEPARATOR, ABSENT = "\x1f", "\x00"
DIGITS, WHOLE_DIGITS = 32, 64


@functools.cache
def digested() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the columns that are digested: the numbers and the texts, each in alphabetical order."""
    found = {
        f.name: f.type
        for f in contract("instance").fields
        if f.dicom and (f.dicom in PIXEL_KEYWORDS or (tag_for_keyword(f.dicom) or 0) >> 16 == PIXEL_GROUP)
    }
    texts = sorted(["transfer_syntax_uid", *(name for name, kind in found.items() if kind == "string")])
    return tuple(sorted(name for name, kind in found.items() if kind != "string")), tuple(texts)


def digest_of(values: Mapping[str, Any]) -> str:
    """SHA-256, first 32 digits, over one row."""
    names, texts = digested()
    numbers = [np.nan if values[name] is None else float(values[name]) for name in names]
    of_frames = [told for name in FRAMES if (told := values.get(name)) is not None]
    return digests_of(np.array([numbers]), joined([[text] for text in (*(values[name] for name in texts), *of_frames)]))[0]


def joined(columns: Iterable[Sequence[str | None]]) -> list[bytes]:
    """The texts of each row as they enter its digest."""
    told = ([ABSENT if text is None else text for text in column] for column in columns)
    return [row.encode() for row in map(SEPARATOR.join, zip(*told, strict=True))]


def digests_of(numbers: NDArray[np.float64], texts: Sequence[bytes]) -> list[str]:
    """The digest of each row. numbers: a row each, null as NaN; texts: joined."""
    width = 8 * numbers.shape[1]
    packed = numbers.astype("<f8", order="C").tobytes()
    digest = hashlib.sha256
    found = [
        digest(packed[at : at + width] + text).digest() for at, text in zip(range(0, len(packed), width), texts, strict=True)
    ]
    whole = b"".join(found).hex()
    return [whole[at : at + DIGITS] for at in range(0, len(whole), WHOLE_DIGITS)]
