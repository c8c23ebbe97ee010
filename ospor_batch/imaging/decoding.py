"""One DICOM file to its stored values; whatever a decoder or a header does wrong becomes a refusal.

A refusal holds the class of what went wrong, never its text: that may hold a path or a name.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import generate_frames
from pydicom.pixels.utils import get_j2k_parameters
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
)

from ospor_batch.errors import ItemRefused
from ospor_batch.imaging.codecs import preferred
from ospor_batch.imaging.plain_slice import MOST_BYTES, plain_slice
from ospor_batch.sources import Location, open_bytes

# pydicom logs faulty values as they stand, names and dates among them: they must not reach a log file
logging.getLogger("pydicom").propagate = False
Stored = npt.NDArray[np.integer]
LITTLE = {ImplicitVRLittleEndian, ExplicitVRLittleEndian}
NEEDED = ("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation", "PhotometricInterpretation", "PixelData")
NATIVE = {ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian}


class _Quiet:
    """Silences warnings, which quote header values, while any thread is inside; the filters belong to the whole process."""

    def __init__(self) -> None:
        self._lock, self._n_inside = threading.Lock(), 0
        self._kept = contextlib.ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if not self._n_inside:
                self._kept.enter_context(warnings.catch_warnings())
                warnings.simplefilter("ignore")
            self._n_inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._n_inside -= 1
            if not self._n_inside:
                self._kept.close()


QUIET = _Quiet()


@contextlib.contextmanager
def refusals(reason: str) -> Iterator[None]:
    """Turn whatever a decoder or a broken header raises into a refusal that names its class."""
    try:
        with QUIET:
            yield
    except (ItemRefused, MemoryError):
        raise
    # codecs raise anything; one poisoned file must become a reject, not the end of the run
    except Exception as error:  # noqa: BLE001
        raise ItemRefused(reason, type(error).__name__) from None


def open_dataset(path: Location) -> Any:
    """The whole data set; a file without preamble or file meta is read in the encoding that its elements have."""
    with open_bytes(path) as file:
        return _read(file)


def open_slice(path: Location) -> Any:
    """As open_dataset, for a file that may be a plain slice: then what reader.py asks for and no more, in less time."""
    with open_bytes(path) as file:
        if not isinstance(path, Path) or os.fstat(file.fileno()).st_size > MOST_BYTES:
            return _read(file)
        content = file.read()
        found = plain_slice(content)
        return found if found is not None and _common(found) is not None else _read(io.BytesIO(content))


def _read(file: BinaryIO) -> Any:
    # force: the crawl lists files without a preamble too
    dataset = pydicom.dcmread(file, force=True)
    meta = getattr(dataset, "file_meta", None)
    if meta is None or "TransferSyntaxUID" not in meta:
        dataset.file_meta = meta if meta is not None else FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = _found_syntax(dataset)
    return dataset


def _found_syntax(dataset: Any) -> str:
    is_implicit, is_little = dataset.original_encoding
    if is_implicit:
        return str(ImplicitVRLittleEndian)
    return str(ExplicitVRLittleEndian if is_little else ExplicitVRBigEndian)


def frames_of(dataset: Any) -> Stored:
    """All frames as stored values, (frame, row, column), with sign and unused bits set right; perhaps not to be written to."""
    if int(dataset.get("SamplesPerPixel", 1)) != 1:
        raise ItemRefused("decode_failed", "colour")
    pixels = _in_memory(dataset) if dataset.file_meta.TransferSyntaxUID in NATIVE else _decompressed(dataset)
    pixels = pixels.reshape(-1, *pixels.shape[-2:])
    return _signed(pixels, int(dataset.BitsStored)) if _is_sign_lost(dataset) else pixels


def _in_memory(dataset: Any) -> Stored:
    """Plain pixels as they lie in the file; pydicom would copy them and shift unused bits out that are nearly always empty."""
    pixels = _common(dataset)
    if pixels is None:
        dataset.pixel_array_options(view_only=True, correct_unused_bits=False)
        pixels = dataset.pixel_array
    unused = 8 * pixels.dtype.itemsize - int(dataset.get("BitsStored", 0))
    if pixels.dtype.kind not in "iu" or dataset.BitsAllocated == 1 or unused <= 0 or not pixels.size:
        return pixels
    least, greatest = (int(end) << unused for end in (pixels.min(), pixels.max()))
    holds = np.iinfo(pixels.dtype)
    return pixels if holds.min <= least and greatest <= holds.max else (pixels << unused) >> unused


def _common(dataset: Any) -> Stored | None:
    """One plain gray frame of 16 bits, as nearly every file has it; null for all others, and for what pydicom would refuse."""
    if dataset.file_meta.TransferSyntaxUID not in LITTLE or not all(name in dataset for name in NEEDED):
        return None
    n_rows, n_columns = dataset.Rows, dataset.Columns
    is_common = (
        dataset.BitsAllocated == 16
        and dataset.BitsStored in range(1, 17)
        and dataset.PixelRepresentation in {0, 1}
        and dataset.PhotometricInterpretation in {"MONOCHROME1", "MONOCHROME2"}
        and "NumberOfFrames" not in dataset
        and n_rows > 0
        and n_columns > 0
        and len(dataset.PixelData) >= 2 * n_rows * n_columns
    )
    if not is_common:
        return None
    kind = "<i2" if dataset.PixelRepresentation else "<u2"
    return np.frombuffer(dataset.PixelData, kind, count=n_rows * n_columns).reshape(n_rows, n_columns)


def _decompressed(dataset: Any) -> Stored:
    plugin = preferred(dataset.file_meta.TransferSyntaxUID)
    if plugin:
        try:
            return _by_plugin(dataset, plugin)
        # codecs raise anything; what one cannot read, another may
        except Exception:  # noqa: BLE001, S110
            pass
    return _by_plugin(dataset, "")


def _by_plugin(dataset: Any, plugin: str) -> Stored:
    dataset.pixel_array_options(decoding_plugin=plugin)
    pixels: Stored = dataset.pixel_array
    return pixels


def _is_sign_lost(dataset: Any) -> bool:
    """The header says unsigned and the JPEG 2000 codestream signed: decoders then wrap what is below zero."""
    if int(dataset.PixelRepresentation) == 1 or dataset.file_meta.TransferSyntaxUID not in JPEG2000TransferSyntaxes:
        return False
    frame = next(generate_frames(dataset.PixelData, number_of_frames=int(dataset.get("NumberOfFrames", None) or 1)))
    return bool(get_j2k_parameters(frame).get("is_signed", False))


def _signed(pixels: Stored, bits: int) -> Stored:
    wide = pixels.astype(np.int32)
    return np.where(wide >= 1 << (bits - 1), wide - (1 << bits), wide)


def declared(dataset: Any, name: str) -> float | None:
    """A single number of the header; null when it is absent or empty."""
    value = dataset.get(name)
    return None if value in (None, "") else float(value)


def padding_of(dataset: Any) -> tuple[float, float] | None:
    """Least and greatest stored value of padding; null when the header names none."""
    value = declared(dataset, "PixelPaddingValue")
    if value is None:
        return None
    limit = declared(dataset, "PixelPaddingRangeLimit")
    ends = [_as_stored(dataset, end) for end in (value, value if limit is None else limit)]
    return min(ends), max(ends)


def _as_stored(dataset: Any, value: float) -> float:
    """A padding value with the sign of the pixels; some writers give -2000 as 63536."""
    span = 2 ** int(dataset.BitsAllocated)
    if int(dataset.PixelRepresentation) == 1:
        return value - span if value >= span / 2 else value
    return value + span if value < 0 else value
