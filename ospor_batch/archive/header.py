"""One DICOM header to one row: the tags that ``schemas/instance.yaml`` names, in its types."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import math
import re
import struct
import warnings
import zlib
from dataclasses import dataclass, field
from datetime import date
from typing import Any, BinaryIO

import pydicom
from pydicom.charset import python_encoding
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag

from ospor_batch.archive.content import UNDEFINED, PixelElement, PixelLayout, check_encapsulated, check_native, kind_of
from ospor_batch.contracts import Field, contract
from ospor_batch.errors import ItemRefused
from ospor_batch.sources import content_digest

READER = "1"  # raised when this module judges a file differently; files are then read again
DICOMDIR = "1.2.840.10008.1.3.10"
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.5", "1.2.840.10008.5.1.4.1.1.66.7")
PIXEL_TAGS = (0x7FE00010, 0x7FE00008, 0x7FE00009)
PIXEL_GROUP = 0x0028  # the group that says how pixels are read
PIXEL_KEYWORDS = ("ImagePositionPatient", "ImageOrientationPatient", "ImagerPixelSpacing", "PresentationLUTShape")
UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
TEXTS = ("LO", "LT", "PN", "SH", "ST", "UC", "UT")  # value representations that the character set governs
DATE = re.compile(r"^(\d{4})(\d{2})(\d{2})$|^(\d{4})\.(\d{2})\.(\d{2})$")  # the second form: ACR-NEMA 2.0
LARGEST_INTEGER = 2**63
# pydicom logs faulty values as they stand, names and dates among them: they must not reach a log file
logging.getLogger("pydicom").propagate = False


@dataclass(frozen=True)
class Header:
    """The values of one file, by column of the instance contract, without keys.

    content_digest: SHA-256 of the file, for DICOM segmentations only.
    """

    values: dict[str, Any]
    content_digest: str | None


@dataclass
class _Raw:
    """What pydicom read, where the pixels lie, and how far the header reaches."""

    dataset: Dataset
    pixels: PixelElement | None = None
    end: int | None = 0
    is_open_ended: bool = False
    flags: set[str] = field(default_factory=set)


@functools.cache
def reader_version() -> str:
    """Version of this reader and of the columns that it fills."""
    return f"{READER}/{contract('instance').id}"


def read_header(file: BinaryIO) -> Header:
    """Read one file; ItemRefused with a typed reason when it is no whole, identified DICOM object.

    In text, null says that the element is absent, "" that it is there without a value.
    """
    kind = kind_of(file)
    if kind == "nifti":
        raise ItemRefused("nifti", "a volume or mask in NIfTI format")
    if kind in {"other", "gzip"}:
        raise ItemRefused("not_dicom", "compressed with gzip" if kind == "gzip" else "no DICOM header")
    with warnings.catch_warnings(), pydicom.config.disable_value_validation():
        warnings.simplefilter("ignore")  # faults of the header become flags and rejects instead
        try:
            values = _read_dicom(file, is_bare=kind == "bare_dicom")
        except (ItemRefused, OSError):
            raise
        except Exception as error:  # noqa: BLE001 -- a hostile header may raise anything; the file is refused, the crawl goes on
            raise ItemRefused("broken_header", type(error).__name__) from None
    is_mask = values["sop_class_uid"] in SEGMENTATIONS
    return Header(values, content_digest(file) if is_mask else None)


def _read_dicom(file: BinaryIO, *, is_bare: bool) -> dict[str, Any]:
    size = file.seek(0, 2)
    raw = _parse(file, size=size)
    if is_bare:
        raw.flags.add("no_preamble")
    values = _values(raw)
    _identify(values, raw, is_bare=is_bare)
    values["is_pixel_data"] = raw.pixels is not None
    _check_pixels(file, raw, values, size=size)
    values["header_digest"] = _digest(values)
    values["header_flags"] = ";".join(sorted(raw.flags))
    return values


@functools.cache
def _tags() -> tuple[int, ...]:
    keywords = {f.dicom.split(".")[0] for f in contract("instance").fields if f.dicom}
    keywords |= {"DirectoryRecordSequence", "SpecificCharacterSet"}
    return tuple(sorted(t for k in keywords if (t := tag_for_keyword(k)) is not None))


def _parse(file: BinaryIO, *, size: int) -> _Raw:
    raw = _Raw(Dataset())
    state: dict[str, Any] = {}

    def note(tag: BaseTag, _vr: str | None, length: int) -> bool:
        state.update(tag=tag, length=length, value=file.tell())
        return tag in PIXEL_TAGS

    file.seek(0)
    try:
        dataset = read_partial(file, stop_when=note, force=True, specific_tags=list(_tags()))
    except (struct.error, zlib.error):
        reason = "truncated" if file.tell() >= size else "broken_header"
        raise ItemRefused(reason, "the header ends inside an element") from None
    raw.dataset = dataset
    _refuse_directory(raw.dataset)
    is_deflated = _meta(dataset, "TransferSyntaxUID") == DEFLATED
    if state and state["tag"] in PIXEL_TAGS:
        is_little = _meta(dataset, "TransferSyntaxUID") != BIG_ENDIAN and dataset.is_little_endian is not False
        raw.pixels = PixelElement(state["value"], state["length"], is_little_endian=is_little)
        raw.end = None if is_deflated else state["value"]
    elif is_deflated or not state:
        raw.end = None
    else:
        _check_end(file, state, size=size)
    return raw


def _check_end(file: BinaryIO, last: dict[str, Any], *, size: int) -> None:
    """ItemRefused(truncated) when a header without pixels ends before its last element does."""
    if last["length"] == UNDEFINED:
        file.seek(max(size - 8, 0))
        if file.read(8) not in {b"\xfe\xff\xdd\xe0\0\0\0\0", b"\xff\xfe\xe0\xdd\0\0\0\0"}:
            raise ItemRefused("truncated", "the last sequence has no end")
        return
    end = last["value"] + last["length"]
    if end > size:
        raise ItemRefused("truncated", "the header ends inside a value")
    if 0 < size - end < 8:
        file.seek(end)
        if any(file.read()):  # zeros pad some files
            raise ItemRefused("truncated", "the header ends inside an element")


def _refuse_directory(dataset: Dataset) -> None:
    if _meta(dataset, "MediaStorageSOPClassUID") == DICOMDIR or "DirectoryRecordSequence" in dataset:
        raise ItemRefused("dicomdir", "a directory of other files")


def _meta(dataset: Dataset, keyword: str) -> str | None:
    value = dataset.file_meta.get(keyword)
    return str(value).strip("\0 ") if value else None


def _values(raw: _Raw) -> dict[str, Any]:
    charset = _charset(raw)
    values: dict[str, Any] = {"transfer_syntax_uid": _meta(raw.dataset, "TransferSyntaxUID")}
    for of in contract("instance").fields:
        if of.dicom:
            values[of.name] = _value(raw, of, charset=charset)
    return values


def _charset(raw: _Raw) -> str:
    declared = _text(_element_value(raw, "SpecificCharacterSet")) or ""
    for name in declared.split("\\"):
        if name and name not in python_encoding:
            raw.flags.add("charset_unknown")
    return declared


def _value(raw: _Raw, of: Field, *, charset: str) -> Any:
    """One value in the type of its column; null with a flag when it cannot be one."""
    assert of.dicom is not None
    keyword = of.dicom.split(".")[0]
    found = _nested(raw, of.dicom) if "." in of.dicom else _element_value(raw, keyword, charset=charset)
    if found is None:
        return None
    if of.type == "string":
        return _text(found)
    if of.item is not None:
        found = found[of.item] if _is_many(found) and len(found) > of.item else None
    elif _is_many(found) and len(found) != 1:
        if len(found):
            raw.flags.add(f"multi_value:{keyword}")
        return None
    elif _is_many(found):
        found = found[0]
    if found is None or str(found).strip("\0 ") == "":
        return None
    converted = {"date": _date, "integer": _integer, "number": _number}[of.type](found)
    if converted is None:
        raw.flags.add(f"{'bad_date' if of.type == 'date' else 'bad_value'}:{keyword}")
    return converted


def _element_value(raw: _Raw, keyword: str, *, charset: str = "") -> Any:
    """The decoded value, "" for an element without one, None when absent or beyond decoding."""
    tag = BaseTag(tag_for_keyword(keyword) or 0)
    if tag not in raw.dataset:
        return None
    stored = getattr(raw.dataset.get_item(tag), "value", None)
    try:
        value = raw.dataset[tag].value
    except Exception:  # noqa: BLE001 -- whatever one value raises costs that value, not the file
        raw.flags.add(f"bad_value:{keyword}")
        return None
    if isinstance(stored, bytes) and not stored.isascii() and dictionary_VR(tag) in TEXTS and charset in {"", "ISO_IR 6"}:
        raw.flags.add("charset_undeclared")
        value = _undeclared(stored, otherwise=value)
    return "" if value is None else value


def _undeclared(stored: bytes, *, otherwise: Any) -> Any:
    """Text beyond ASCII without a character set: UTF-8 if it is valid as such."""
    try:
        return stored.decode("utf-8").split("\\") if b"\\" in stored else stored.decode("utf-8")
    except UnicodeDecodeError:
        return otherwise


def _nested(raw: _Raw, dotted: str) -> Any:
    sequence, inner = dotted.split(".")
    items = _element_value(raw, sequence)
    if not items:
        return None
    try:
        return sorted({str(item[inner].value) for item in items if inner in item}) or None
    except Exception:  # noqa: BLE001 -- a broken item costs this value, not the file
        raw.flags.add(f"bad_value:{sequence}")
        return None


def _is_many(value: Any) -> bool:
    return not isinstance(value, str | bytes) and hasattr(value, "__len__")


def _text(value: Any) -> str | None:
    if value is None:
        return None
    parts = [str(part) for part in value] if _is_many(value) else [str(value)]
    joined = "\\".join(part.replace("\0", "").strip() for part in parts)
    return joined.encode("utf-8", "replace").decode()  # lone surrogates are no text


def _date(value: Any) -> date | None:
    if not (found := DATE.match(str(value).strip("\0 "))):
        return None
    year, month, day = (int(part) for part in found.groups() if part)
    try:
        return date(year, month, day)
    except ValueError:
        return None


def _integer(value: Any) -> int | None:
    number = _number(value)
    return int(number) if number is not None and number.is_integer() and abs(number) < LARGEST_INTEGER else None


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _identify(values: dict[str, Any], raw: _Raw, *, is_bare: bool) -> None:
    """Fill what only the meta group says; ItemRefused when the object has no identity."""
    if not values["sop_instance_uid"] and (found := _meta(raw.dataset, "MediaStorageSOPInstanceUID")):
        values["sop_instance_uid"] = found
        raw.flags.add("sop_instance_from_meta")
    if not values["sop_class_uid"] and (found := _meta(raw.dataset, "MediaStorageSOPClassUID")):
        values["sop_class_uid"] = found
        raw.flags.add("sop_class_from_meta")
    if is_bare and len(raw.dataset) == 0:
        raise ItemRefused("not_dicom", "no known element")
    of = {f.dicom: f.name for f in contract("instance").fields}
    if missing := [keyword for keyword in UIDS if not values[of[keyword]]]:
        raise ItemRefused("missing_uid", ", ".join(missing))


def _check_pixels(file: BinaryIO, raw: _Raw, values: dict[str, Any], *, size: int) -> None:
    if raw.pixels is None:
        return
    if raw.pixels.length == 0:
        raw.flags.add("empty_pixel_data")
        values["is_pixel_data"] = False
        return
    frames = max(values["number_of_frames"] or 1, 1)
    if raw.pixels.length == UNDEFINED:
        check_encapsulated(file, raw.pixels, frames=frames, size=size)
        return
    layout = PixelLayout(
        rows=values["rows"],
        columns=values["columns"],
        frames=frames,
        samples=values["samples_per_pixel"] or 1,
        bits=values["bits_allocated"],
        photometric=values["photometric_interpretation"] or "",
    )
    check_native(raw.pixels, layout=layout, size=None if raw.end is None else size)


@functools.cache
def _pixel_columns() -> tuple[str, ...]:
    found = [
        f.name
        for f in contract("instance").fields
        if f.dicom and (f.dicom in PIXEL_KEYWORDS or (tag_for_keyword(f.dicom) or 0) >> 16 == PIXEL_GROUP)
    ]
    return ("transfer_syntax_uid", *sorted(found))


def _digest(values: dict[str, Any]) -> str:
    """SHA-256, first 32 digits, over what changes how pixels are read."""
    told = json.dumps([[name, values[name]] for name in _pixel_columns()])
    return hashlib.sha256(told.encode()).hexdigest()[:32]
