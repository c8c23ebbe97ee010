"""imagecodecs as a decoding plug-in of pydicom, where it is installed: it lets other threads run while it decodes.

The plug-ins that pydicom brings hold the interpreter lock for as long as a frame takes, so that a network beside them waits and
several threads decode no faster than one. The CPU that a frame takes is the same (benchmarks/inference.md).
"""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
from pydicom.pixels import get_decoder
from pydicom.uid import JPEG2000, JPEG2000Lossless, JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEGLSNearLossless

NAME = "imagecodecs"
_FUNCTIONS = {
    JPEGLossless: "jpegsof3_decode",
    JPEGLosslessSV1: "jpegsof3_decode",
    JPEGLSLossless: "jpegls_decode",
    JPEGLSNearLossless: "jpegls_decode",
    JPEG2000Lossless: "jpeg2k_decode",
    JPEG2000: "jpeg2k_decode",
}
DECODER_DEPENDENCIES = dict.fromkeys(_FUNCTIONS, (NAME,))  # pydicom asks a plug-in for this name
# of pydicom's own: GDCM, which it tries first, starts threads of its own and takes up to a quarter more CPU for JPEG 2000
_ELSE = {JPEG2000Lossless: "pylibjpeg", JPEG2000: "pylibjpeg"}


def is_available(uid: str) -> bool:
    """Whether frames of a transfer syntax can be decoded here; pydicom asks a plug-in this."""
    return uid in _FUNCTIONS and importlib.util.find_spec(NAME) is not None


def preferred(syntax: str) -> str:
    """Name of the plug-in to try first; empty for the order that pydicom has."""
    if syntax not in _FUNCTIONS:
        return ""
    decoder = get_decoder(syntax)
    if is_available(syntax) and NAME not in decoder.available_plugins:
        decoder.add_plugin(NAME, (__name__, "decode_frame"))
    return next((name for name in (NAME, _ELSE.get(decoder.UID, "")) if name in decoder.available_plugins), "")


def decode_frame(src: bytes, runner: Any) -> bytes:
    """One frame of gray values as pydicom wants it; what imagecodecs does not give in the declared shape, another decodes."""
    import imagecodecs

    frame = getattr(imagecodecs, _FUNCTIONS[runner.transfer_syntax])(src)
    if frame.shape != (runner.rows, runner.columns) or frame.dtype.kind not in "iu":
        raise ValueError("not one gray frame of the declared size")
    runner.set_option("bits_allocated", 8 * frame.dtype.itemsize)
    return bytes(np.ascontiguousarray(frame).tobytes())
