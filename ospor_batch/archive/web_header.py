"""A header that a DICOMweb server tells as JSON, as the file that the header reader reads: one set of rules for both."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, BinaryIO

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from ospor_batch.archive.content import PixelLayout
from ospor_batch.archive.header import Header
from ospor_batch.errors import ItemRefused
from ospor_batch.sources.streams import ranged

PIXELS = ("7FE00010", "7FE00008", "7FE00009")
DECIMAL, SEQUENCE = ("DS", "IS"), "SQ"
BY_HAND = (*DECIMAL, SEQUENCE)
MATRIX = ("00280010", "00280011", "00280100")  # rows, columns, bits allocated
CHARSET, SYNTAX = "00080005", "00083002"  # SpecificCharacterSet, AvailableTransferSyntaxUID
UTF_8 = "ISO_IR 192"  # what JSON text is, whatever the file's set was
PIXEL_TAG = b"\xe0\x7f\x10\x00OW\x00\x00"
LARGEST_PIXELS = 2**32 - 2


def header_file(told: Mapping[str, Any]) -> BinaryIO:
    """The told header as an uncompressed DICOM file; its pixels, which are not told, read as zeros.

    ItemRefused(broken_header) when it is no DICOM JSON.
    """
    try:
        # faults of the header become flags and rejects of the header reader instead
        with warnings.catch_warnings(), pydicom.config.disable_value_validation():
            warnings.simplefilter("ignore")
            header = _encoded(told)
            n_pixels = _pixel_bytes(told)
    except Exception as error:  # noqa: BLE001 -- a hostile answer may raise anything; the instance is refused, the crawl goes on
        raise ItemRefused("broken_header", f"DICOM JSON: {type(error).__name__}") from None
    if n_pixels is not None:
        header += PIXEL_TAG + n_pixels.to_bytes(4, "little")

    def fetch(at: int, n: int) -> bytes:
        known = header[at : at + n]
        return known + bytes(n - len(known))

    return ranged(len(header) + (n_pixels or 0), fetch)


def as_told(header: Header, told: Mapping[str, Any]) -> Header:
    """The header with the character set and the transfer syntax that the server tells; null where it does not tell them."""
    values = {"specific_character_set": _text(told, CHARSET), "transfer_syntax_uid": _text(told, SYNTAX)}
    return replace(header, values={**header.values, **values})


def _encoded(told: Mapping[str, Any]) -> bytes:
    dataset = _dataset({tag: element for tag, element in told.items() if tag not in PIXELS})
    dataset.SpecificCharacterSet = UTF_8
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID", "")
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID", "")
    out = io.BytesIO()
    pydicom.dcmwrite(out, dataset, enforce_file_format=False, implicit_vr=False, little_endian=True)
    content = out.getvalue()
    return content if content[128:132] == b"DICM" else bytes(128) + b"DICM" + content


def _dataset(told: Mapping[str, Any]) -> Dataset:
    """The elements whose values came along; decimals, in the items of sequences too, as a file would have them."""
    held = {tag: element for tag, element in told.items() if _is_held(element)}
    dataset = Dataset.from_json({tag: element for tag, element in held.items() if element.get("vr") not in BY_HAND})
    for tag, element in held.items():
        if element.get("vr") in DECIMAL:
            dataset.add_new(int(tag, 16), element["vr"], [_decimal(value) for value in element.get("Value", [])])
        elif element.get("vr") == SEQUENCE:
            dataset.add_new(int(tag, 16), SEQUENCE, [_dataset(item or {}) for item in element.get("Value", [])])
    return dataset


def _decimal(value: Any) -> Any:
    """Decimal text, which JSON tells as a number, as a file would have it: 40, never 40.0."""
    if isinstance(value, float) and value.is_integer():
        return f"{value:.0f}"
    return repr(value) if isinstance(value, int | float) else value


def _is_held(element: Any) -> bool:
    """Whether an element's value came along; large ones are told by address alone, and no column asks for them."""
    return isinstance(element, dict) and "BulkDataURI" not in element


def _pixel_bytes(told: Mapping[str, Any]) -> int | None:
    """Bytes that the pixels take uncompressed, even; null when the instance has none.

    Some servers tell compressed pixels not even by address: what has rows, columns and bits has pixels.
    """
    if not any(tag in told for tag in PIXELS) and not all(_number(told, tag) for tag in MATRIX):
        return None
    layout = PixelLayout(
        rows=_number(told, "00280010"),
        columns=_number(told, "00280011"),
        frames=_number(told, "00280008") or 1,
        samples=_number(told, "00280002") or 1,
        bits=_number(told, "00280100"),
        photometric=_text(told, "00280004") or "",
    )
    n_bytes = layout.n_bytes or 2
    return min(n_bytes + n_bytes % 2, LARGEST_PIXELS)


def _text(told: Mapping[str, Any], tag: str) -> str | None:
    element = told.get(tag)
    if not isinstance(element, dict):
        return None
    return "\\".join("" if value is None else str(_decimal(value)) for value in element.get("Value", []))


def _number(told: Mapping[str, Any], tag: str) -> int | None:
    return int(text) if (text := _text(told, tag)) and text.isdecimal() else None
