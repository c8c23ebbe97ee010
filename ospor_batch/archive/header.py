"""One DICOM header to one row: the tags that ``schemas/instance.yaml`` names, in its types."""

from __future__ import annotations

import functools
import logging
import struct
import warnings
import zlib
from dataclasses import dataclass, field
from typing import Any, BinaryIO, cast

import pydicom
from pydicom.dataset import Dataset
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag

from ospor_batch.archive import frames
from ospor_batch.archive.content import (
    PREAMBLE,
    UNDEFINED,
    PixelElement,
    PixelLayout,
    check_encapsulated,
    check_native,
    headers_of,
    kind_of,
)
from ospor_batch.archive.elements import META_GROUP_END, PIXEL_TAGS, Odd, Short, element_at
from ospor_batch.archive.pixel_digest import digest_of
from ospor_batch.archive.values import (
    CHARSET,
    Cell,
    Charset,
    Keyword,
    bad_cell,
    cell_of_value,
    charset_flags,
    keywords,
    wanted_of,
)
from ospor_batch.contracts import contract
from ospor_batch.errors import ItemRefused
from ospor_batch.sources import content_digest

READER = "4"  # raised when this module judges a file differently; files are then read again
DICOMDIR = "1.2.840.10008.1.3.10"
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.5", "1.2.840.10008.5.1.4.1.1.66.7")
DIRECTORY_RECORDS = 0x00041220
OF_FRAMES = ("frame_positions_mm", "frame_cosines")  # columns that only an enhanced image fills
UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
CUT_SEQUENCE = "No tag to read"  # how pydicom's OSError begins; any other is one of the system
MOST_READS = 5_000_000  # of one header: some 2 million elements, 1 GB of objects; the largest known have a tenth of it
LARGEST_INFLATED = 1 << 30
PREFIX = 4096
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
        raise ItemRefused("not_dicom", "compressed with gzip: unpack it" if kind == "gzip" else "no DICOM header")
    with warnings.catch_warnings(), pydicom.config.disable_value_validation():
        warnings.simplefilter("ignore")  # faults of the header become flags and rejects instead
        try:
            values = _read_dicom(file, is_bare=kind == "bare_dicom")
        except ItemRefused:
            raise
        except OSError as error:
            if str(error).startswith(CUT_SEQUENCE):
                raise ItemRefused("truncated", "a sequence ends before its last item") from None
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
    if values["sop_class_uid"] in frames.CLASSES:
        _add_frames(file, raw, values, size=size)
    values["is_pixel_data"] = raw.pixels is not None
    _check_pixels(file, raw, values, size=size)
    values["header_digest"] = digest_of(values)
    values["header_flags"] = ";".join(sorted(raw.flags))
    return values


@functools.cache
def _tags() -> tuple[int, ...]:
    return (DIRECTORY_RECORDS, *(of.tag for of in keywords()))


class _Bounded:
    """A file that gives no more bytes than it has: a length of 4 GB in a header takes no memory; and ends endless ones."""

    def __init__(self, file: BinaryIO, *, size: int) -> None:
        self._file, self._size, self._reads = file, size, 0
        self.tell, self.seek = file.tell, file.seek

    def read(self, n: int = -1) -> bytes:
        self._reads += 1
        if self._reads > MOST_READS:
            raise ItemRefused("broken_header", "more elements than a header has")
        if n > PREFIX:
            n = max(0, min(n, self._size - self._file.tell()))
        return self._file.read(n)


def _refuse_bomb(file: BinaryIO) -> None:
    """ItemRefused when a deflated data set inflates beyond all measure; pydicom inflates it as a whole."""
    head = file.read(PREFIX)
    place = head.find(DEFLATED.encode())
    file.seek(0)
    if place < 0:
        return
    file.seek(_meta_end(head))
    inflate, n_bytes = zlib.decompressobj(wbits=-zlib.MAX_WBITS), 0
    try:
        while not inflate.eof and (block := inflate.unconsumed_tail or file.read(PREFIX)):
            n_bytes += len(inflate.decompress(block, 1 << 20))
            if n_bytes > LARGEST_INFLATED:
                raise ItemRefused("broken_header", "deflated data inflates to more than 1 GiB")
    except zlib.error:
        pass  # pydicom meets it too, and it is judged there
    file.seek(0)


def _meta_end(head: bytes) -> int:
    at = PREAMBLE + 4 if head[PREAMBLE : PREAMBLE + 4] == b"DICM" else 0
    try:
        while (here := element_at(memoryview(head), at, end=len(head), is_explicit=True)).tag < META_GROUP_END:
            at = here.at + here.size + here.length
    except (Odd, Short):
        pass
    return at


def _parse(file: BinaryIO, *, size: int) -> _Raw:
    raw = _Raw(Dataset())
    bounded = cast(BinaryIO, _Bounded(file, size=size))
    state: dict[str, Any] = {}

    def note(tag: BaseTag, _vr: str | None, length: int) -> bool:
        state.update(tag=tag, length=length, value=bounded.tell())
        return tag in PIXEL_TAGS

    bounded.seek(0)
    _refuse_bomb(file)
    try:
        dataset = read_partial(bounded, stop_when=note, force=True, specific_tags=list(_tags()))
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
    values: dict[str, Any] = {"transfer_syntax_uid": _meta(raw.dataset, "TransferSyntaxUID")}
    values |= dict.fromkeys(OF_FRAMES)
    charset = Charset()
    for of in keywords():
        cell = _element(raw, of, charset=charset)
        if of.name == CHARSET:
            charset = Charset(cell.values[0] or "")
            raw.flags |= charset_flags(charset.declared)
        raw.flags.update(cell.flags)
        values.update(zip((field.name for field in of.fields), cell.values, strict=True))
    return values


def _element(raw: _Raw, of: Keyword, *, charset: Charset) -> Cell:
    """The columns of one element; an element beyond decoding costs its own values only."""
    tag = BaseTag(of.tag)
    if tag not in raw.dataset:
        return cell_of_value(of, None, stored=None, charset=charset)
    stored = getattr(raw.dataset.get_item(tag), "value", None)
    try:
        value = wanted_of(of, raw.dataset[tag].value)
    except Exception:  # noqa: BLE001 -- whatever one value raises costs that value, not the file
        return bad_cell(of)
    return cell_of_value(of, value, stored=stored if isinstance(stored, bytes) else None, charset=charset)


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
        raise ItemRefused("missing_uid", f"no {', '.join(missing)}: a de-identification must replace UIDs, not remove them")


def _add_frames(file: BinaryIO, raw: _Raw, values: dict[str, Any], *, size: int) -> None:
    """Fill what the functional groups of an enhanced image say; one that cannot be read keeps what its header says."""
    bounded = cast(BinaryIO, _Bounded(file, size=size))
    bounded.seek(0)
    charset = Charset(values["specific_character_set"] or "")
    try:
        dataset = read_partial(bounded, stop_when=_is_pixels, force=True, specific_tags=list(frames.TAGS))
        told, flags = frames.told_of_frames(dataset, values, charset=charset)
    except (struct.error, zlib.error, ItemRefused):
        told, flags = {}, {frames.UNREAD}
    values.update(told)
    raw.flags |= flags


def _is_pixels(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return tag in PIXEL_TAGS


def _check_pixels(file: BinaryIO, raw: _Raw, values: dict[str, Any], *, size: int) -> None:
    if raw.pixels is None:
        return
    if raw.pixels.length == 0:
        raw.flags.add("empty_pixel_data")
        values["is_pixel_data"] = False
        return
    frames = max(values["number_of_frames"] or 1, 1)
    if raw.pixels.length == UNDEFINED:
        check_encapsulated(headers_of(file), raw.pixels, frames=frames, size=size)
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
