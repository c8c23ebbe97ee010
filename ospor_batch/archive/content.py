"""What a file is by its first bytes, and whether its pixel data is whole; its name is never asked."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, Literal

from ospor_batch.errors import ItemRefused

Kind = Literal["dicom", "bare_dicom", "nifti", "gzip", "other"]
HEAD = 1024
PREAMBLE = 128  # PS3.10 section 7.1
UNDEFINED = 0xFFFFFFFF
ITEM_HEADER = 8  # bytes: PS3.5 A.4
ITEM, SEQUENCE_END = 0xFFFEE000, 0xFFFEE0DD
NIFTI_1, NIFTI_2 = 348, 540  # sizeof_hdr of the two versions
NIFTI_1_MAGIC = 344
FIRST_GROUPS = (0x0002, 0x0004, 0x0008)  # groups that a DICOM data set can begin with
VALUE_REPRESENTATIONS = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT UV".split()
)


def kind_of(file: BinaryIO) -> Kind:
    """Sniff a file; ItemRefused(empty_file) when there is nothing in it."""
    file.seek(0)
    head = file.read(HEAD)
    if not head:
        raise ItemRefused("empty_file", "0 bytes")
    if head[PREAMBLE : PREAMBLE + 4] == b"DICM":
        return "dicom"
    if _is_nifti(head):
        return "nifti"
    if head[:2] == b"\x1f\x8b":
        return "nifti" if _is_nifti(_inflate_start(file)) else "gzip"
    return "bare_dicom" if _begins_like_dicom(head) else "other"


def _is_nifti(head: bytes) -> bool:
    if len(head) < NIFTI_1:
        return False
    sizes = {struct.unpack(order + "i", head[:4])[0] for order in "<>"}
    if NIFTI_1 in sizes:
        return head[NIFTI_1_MAGIC : NIFTI_1_MAGIC + 4] in {b"n+1\0", b"ni1\0"}
    return NIFTI_2 in sizes and head[4:8] in {b"n+2\0", b"ni2\0"}


def _inflate_start(file: BinaryIO) -> bytes:
    file.seek(0)
    try:
        return zlib.decompressobj(wbits=31).decompress(file.read(64 * HEAD), HEAD)
    except zlib.error:
        return b""


def _begins_like_dicom(head: bytes) -> bool:
    """A first element with a plausible group, and a known value representation or a short length."""
    if len(head) < 8:
        return False
    for order in "<>":
        group, element = struct.unpack(order + "HH", head[:4])
        if group not in FIRST_GROUPS or element > 0x2000:
            continue
        if head[4:6] in VALUE_REPRESENTATIONS:
            return True
        if order == "<" and struct.unpack("<I", head[4:8])[0] <= HEAD:
            return True
    return False


@dataclass(frozen=True)
class PixelElement:
    """Where the pixel data element begins its value, and how long it says that it is."""

    offset: int
    length: int
    is_little_endian: bool = True


@dataclass(frozen=True)
class PixelLayout:
    """What the header says about the size of the pixels; None where it says nothing."""

    rows: int | None
    columns: int | None
    frames: int
    samples: int
    bits: int | None
    photometric: str

    @property
    def n_bytes(self) -> int | None:
        """Bytes of uncompressed pixels; None when the header does not say."""
        if not (self.rows and self.columns and self.bits):
            return None
        values = self.rows * self.columns * self.samples * self.frames
        if self.photometric == "YBR_FULL_422":  # two pixels share their color differences: PS3.3 C.7.6.3.1.2
            values = values * 2 // 3
        return (values * self.bits + 7) // 8


def check_native(pixels: PixelElement, *, layout: PixelLayout, size: int | None) -> None:
    """ItemRefused(truncated) when uncompressed pixels are fewer than the header says; size None: held in full."""
    wanted = layout.n_bytes
    if size is not None and pixels.offset + pixels.length > size:
        raise ItemRefused("truncated", f"pixel data: {size - pixels.offset} of {pixels.length} bytes")
    if wanted is not None and pixels.length < wanted:
        raise ItemRefused("truncated", f"pixel data: {pixels.length} bytes, the matrix needs {wanted}")


ReadAt = Callable[[int], bytes]
"""The eight bytes of a file at a place; fewer at its end."""


def headers_of(file: BinaryIO) -> ReadAt:
    """Item headers of an open file."""

    def read(at: int) -> bytes:
        file.seek(at)
        return file.read(ITEM_HEADER)

    return read


def check_encapsulated(read_at: ReadAt, pixels: PixelElement, *, frames: int, size: int) -> None:
    """ItemRefused(truncated) when the fragments end early; only their lengths are read."""
    order = "<" if pixels.is_little_endian else ">"
    at, n_items = pixels.offset, 0
    while True:
        head = read_at(at)
        if len(head) < ITEM_HEADER:
            raise ItemRefused("truncated", f"compressed pixel data: no end after {max(n_items - 1, 0)} fragments")
        group, element, length = struct.unpack(order + "HHI", head)
        tag = group << 16 | element
        if tag == SEQUENCE_END:
            break
        if tag != ITEM:
            raise ItemRefused("broken_header", "compressed pixel data: an item tag was expected")
        at += ITEM_HEADER + length
        n_items += 1
        if at > size:
            raise ItemRefused("truncated", f"compressed pixel data: fragment {n_items - 1} is cut")
    if n_items - 1 < frames:  # the first item is the offset table: PS3.5 A.4
        raise ItemRefused("truncated", f"compressed pixel data: {max(n_items - 1, 0)} fragments for {frames} frames")
