"""Stored values to the bytes of a transfer syntax; every encoder here is lossless and gives the same bytes each time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders import RLELosslessEncoder

from ospor_batch.errors import ContractError
from ospor_batch.synthetic import jpeg_lossless
from ospor_batch.synthetic.vendor import ENCAPSULATED, JPEG_2000, JPEG_LOSSLESS, JPEG_LS

PIXEL_DATA = 0x7FE00010
MOST_RESOLUTIONS = 6  # five wavelet levels, as most encoders have it


def encode(frame: NDArray[Any], *, syntax: str, bits_stored: int) -> bytes:
    """One frame of monochrome stored values (8 or 16 bits), natively RGB too (row, column, sample), as the syntax wants it.

    Compressed frames come with their basic offset table and item tag, without the end of the sequence.
    """
    if syntax not in ENCAPSULATED:
        return frame.astype(frame.dtype.newbyteorder("<")).tobytes()
    return bytes(encapsulate([_compressed(frame, syntax=syntax, bits_stored=bits_stored)]))


def put_pixels(ds: Dataset, pixels: bytes, *, syntax: str) -> None:
    """Set encoded pixels; 8-bit native pixels are padded to an even length."""
    is_encapsulated = syntax in ENCAPSULATED
    ds.add_new(PIXEL_DATA, "OB" if is_encapsulated or ds.BitsAllocated <= 8 else "OW", pixels + b"\0" * (len(pixels) % 2))
    ds["PixelData"].is_undefined_length = is_encapsulated


def _compressed(frame: NDArray[Any], *, syntax: str, bits_stored: int) -> bytes:
    if syntax == JPEG_LOSSLESS:
        return jpeg_lossless.encode(frame)
    if syntax in {JPEG_LS, JPEG_2000}:
        return _by_gdcm(frame, syntax=syntax, bits_stored=bits_stored)
    told = {"rows": frame.shape[0], "columns": frame.shape[1], "number_of_frames": 1, "bits_stored": bits_stored,
            "bits_allocated": frame.itemsize * 8, "pixel_representation": int(frame.dtype.kind == "i"),
            "samples_per_pixel": 1, "photometric_interpretation": "MONOCHROME2"}  # fmt: skip
    return bytes(RLELosslessEncoder.encode(np.ascontiguousarray(frame), encoding_plugin="pylibjpeg", **told))


def _by_gdcm(frame: NDArray[Any], *, syntax: str, bits_stored: int) -> bytes:
    """JPEG-LS and JPEG 2000 through the codecs of GDCM; a small image gets fewer wavelet levels than the usual five."""
    import gdcm  # late: 0.2 s

    if syntax == JPEG_LS:
        codec = gdcm.JPEGLSCodec()
    else:
        codec = gdcm.JPEG2000Codec()
        codec.SetReversible(True)  # noqa: FBT003 -- GDCM has no keywords
        codec.SetNumberOfResolutions(min(MOST_RESOLUTIONS, min(frame.shape).bit_length()))
    codec.SetPixelFormat(gdcm.PixelFormat(1, frame.itemsize * 8, bits_stored, bits_stored - 1, int(frame.dtype.kind == "i")))
    codec.SetNumberOfDimensions(2)
    codec.SetDimensions((frame.shape[1], frame.shape[0], 1))
    codec.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2))
    native, coded = (gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010)) for _ in range(2))
    native.SetByteStringValue(frame.astype(frame.dtype.newbyteorder("<")).tobytes())
    if not codec.Code(native, coded):
        raise ContractError("generated image: the frame could not be compressed")
    buffer = coded.GetSequenceOfFragments().GetFragment(0).GetByteValue().GetBuffer()
    return bytes(buffer.encode("utf-8", errors="surrogateescape") if isinstance(buffer, str) else buffer)
