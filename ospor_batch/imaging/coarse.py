"""A JPEG 2000 image decoded at a part of its resolution, which takes a part of the time; its values are not those of the whole.

The codestream holds the image in levels, each half as large as the next: a network that sees 224 pixels of 2,000 needs few of
them. Which recipe may do so is a parameter of it (cxr_osteoporosis: least_decoded_pixels).
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.encaps import generate_frames
from pydicom.pixels.utils import get_j2k_parameters
from pydicom.uid import JPEG2000TransferSyntaxes

# Markers of ISO/IEC 15444-1 annex A: coding style default (its tenth byte is the number of levels), start of a tile
START, CODING_STYLE, TILE, LEVELS_AT = b"\xff\x4f\xff\x51", 0xFF52, 0xFF90, 9


def coarse_frame(dataset: Any, *, least_pixels: int) -> tuple[npt.NDArray[np.integer], int] | None:
    """Stored values of the one gray frame, and how often its size was halved; null where it must be decoded whole.

    least_pixels: that its shorter side keeps. Whole: what is not JPEG 2000, has few levels, declares padding, which would be
    mixed with what lies beside it, or says of itself in the header what its codestream does not.
    """
    if dataset.file_meta.TransferSyntaxUID not in JPEG2000TransferSyntaxes or "PixelPaddingValue" in dataset:
        return None
    if int(dataset.get("NumberOfFrames", None) or 1) != 1 or int(dataset.get("SamplesPerPixel", 1)) != 1:
        return None
    stream = next(generate_frames(dataset.PixelData, number_of_frames=1))
    wanted = int(np.log2(max(min(dataset.Rows, dataset.Columns) / max(least_pixels, 1), 1)))
    halved = min(wanted, _n_levels(stream))
    said = get_j2k_parameters(stream)
    bits, is_signed = int(said.get("precision", 0)), bool(said.get("is_signed", False))
    if halved < 1 or not dataset.BitsStored <= bits <= 16 or (dataset.PixelRepresentation == 1) != is_signed:
        return None
    values = _decoded(stream, halved, shape=(int(dataset.Rows), int(dataset.Columns)))
    if values is None:
        return None
    values = _as_stored(values, bits=bits, is_signed=is_signed)
    low, high = (-(1 << dataset.BitsStored - 1), 1 << dataset.BitsStored - 1) if is_signed else (0, 1 << dataset.BitsStored)
    return np.clip(values, low, high - 1), halved  # at sharp edges a coarse level swings beyond


def _n_levels(stream: bytes) -> int:
    """Levels below the whole image; 0 where the codestream does not begin as it must."""
    at = stream.find(START)
    if at < 0:
        return 0
    at += 2
    while at + LEVELS_AT < len(stream):
        marker, length = (int.from_bytes(stream[place : place + 2], "big") for place in (at, at + 2))
        if marker == CODING_STYLE:
            return stream[at + LEVELS_AT]
        if marker == TILE or length < 2:
            break
        at += 2 + length
    return 0


def _decoded(stream: bytes, halved: int, *, shape: tuple[int, int]) -> npt.NDArray[np.integer] | None:
    from PIL import Image, Jpeg2KImagePlugin

    try:
        image = Jpeg2KImagePlugin.Jpeg2KImageFile(io.BytesIO(stream))
        if image.size != shape[::-1] or image.mode not in {"L", "I;16"}:
            return None
        image.reduce = halved
        values: npt.NDArray[np.integer] = np.asarray(image)
    # it takes sizes that a power of two does not divide for broken; whoever decodes whole says what is wrong otherwise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return values


def _as_stored(values: npt.NDArray[np.integer], *, bits: int, is_signed: bool) -> npt.NDArray[np.integer]:
    """Pillow fills 8 or 16 bits from above and begins at zero."""
    shift = 8 * values.dtype.itemsize - bits
    if not is_signed:
        return values >> shift
    return (values.astype(np.int32) >> shift) - (1 << (bits - 1))
