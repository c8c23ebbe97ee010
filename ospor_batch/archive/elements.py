"""The grammar of DICOM element headers, little endian, as far as it is usual; what is unusual is left to pydicom.

A reader that takes a file here must take it as pydicom would: tags in ascending order, known value representations, items
that end where they say. Anything else is Odd, which is no verdict on the file.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydicom.datadict import DicomDictionary
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, VR

UNDEFINED = 0xFFFFFFFF
META_CLASS, META_SYNTAX, META_GROUP_END = 0x00020002, 0x00020010, 0x00030000
CHARSET_TAG, REPRESENTATION_TAG = 0x00080005, 0x00280103
PIXEL_TAGS = (0x7FE00008, 0x7FE00009, 0x7FE00010)
FIRST_PIXEL_TAG, FIRST_ITEM_TAG = 0x7FE00000, 0xFFFE0000
ITEM_GROUP = 0xFFFE
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
LONG, SHORT = 12, 8  # bytes of an explicit element header with a length of 32 bits, and of any other header
DEEPEST = 12  # levels of open sequences
MOST_ELEMENTS = 20_000  # in one level; more is left to pydicom

HEADER_SIZE: NDArray[np.int64] = np.zeros(1 << 16, np.int64)  # by the two letters of a value representation; 0: unknown
for _vr in VR:
    if len(_vr) == 2:
        HEADER_SIZE[int.from_bytes(_vr.encode(), "little")] = LONG if _vr in EXPLICIT_VR_LENGTH_32 else SHORT
_SIZES = {code: int(HEADER_SIZE[code]) for code in np.flatnonzero(HEADER_SIZE).tolist()}
_SEQUENCE, _UNKNOWN = (int.from_bytes(vr, "little") for vr in (b"SQ", b"UN"))
_SEQUENCES = frozenset(tag for tag, entry in DicomDictionary.items() if entry[0] == "SQ")

_explicit, _implicit, _length = Struct("<HHHH").unpack_from, Struct("<HHI").unpack_from, Struct("<I").unpack_from


class Odd(Exception):  # noqa: N818 -- no error: pydicom reads this file
    """Not as usual."""


class Short(Exception):  # noqa: N818 -- no error: more bytes of the file are needed
    """The bytes at hand end before the header does."""


class Element(NamedTuple):
    """One element header at ``at``; its value begins after ``size`` bytes. vr: two letters as a number, 0 if implicit."""

    at: int
    tag: int
    vr: int
    size: int
    length: int


def element_at(block: memoryview, at: int, *, end: int, is_explicit: bool) -> Element:
    """Read one element header."""
    if at + SHORT > end:
        raise Short
    if not is_explicit:
        group, element, length = _implicit(block, at)
        return Element(at, group << 16 | element, 0, SHORT, length)
    group, element, vr, length = _explicit(block, at)
    tag = group << 16 | element
    if tag >= FIRST_ITEM_TAG:
        return Element(at, tag, 0, SHORT, _length(block, at + 4)[0])
    size = _SIZES.get(vr, 0)
    if size != SHORT:
        length = _long_length(block, at, size, end=end)
    return Element(at, tag, vr, size, length)


def elements(block: memoryview, at: int, *, end: int, is_explicit: bool, last: int = -1) -> tuple[list[Element], int]:
    """Headers of one level up to the pixel data, which is included, and the place of what follows; ascending tags only.

    last: the tag before the first.
    """
    found: list[Element] = []
    while at != end:
        here = element_at(block, at, end=end, is_explicit=is_explicit)
        if here.tag <= last or here.tag >= FIRST_ITEM_TAG or len(found) == MOST_ELEMENTS:
            raise Odd
        found.append(here)
        last, value = here.tag, at + here.size
        if here.tag in PIXEL_TAGS:
            return found, value
        at = after_value(block, here, end=end)
        if at > end:
            raise Short
    return found, at


def after_value(block: memoryview, here: Element, *, end: int, depth: int = 0) -> int:
    """Where the value of an element ends; a sequence of undefined length is walked to its delimiter."""
    value = here.at + here.size
    if here.length != UNDEFINED:
        return value + here.length
    if here.size == LONG:
        is_sequence = here.vr in {_SEQUENCE, _UNKNOWN}
    else:
        is_sequence = here.tag in _SEQUENCES or (here.tag >> 16 & 1 == 1 and _starts_with_item(block, value, end=end))
    if not is_sequence:
        raise Odd
    return end_of_sequence(block, value, end=end, is_explicit=here.size == LONG, depth=depth + 1)


def end_of_sequence(block: memoryview, at: int, *, end: int, is_explicit: bool, depth: int = 1) -> int:
    """Where a sequence of undefined length ends, behind its delimiter; at: its first item."""
    if depth > DEEPEST:
        raise Odd
    while True:
        if at + SHORT > end:
            raise Short
        group, element, length = _implicit(block, at)
        tag = group << 16 | element
        at += SHORT
        if tag == SEQUENCE_END:
            if length:
                raise Odd
            return at
        if tag != ITEM:
            raise Odd
        at = _end_of_item(block, at, length, end=end, is_explicit=is_explicit, depth=depth)


def _end_of_item(block: memoryview, at: int, length: int, *, end: int, is_explicit: bool, depth: int) -> int:
    """Every element of an item is walked: an item whose elements end elsewhere than it says is Odd."""
    stop = end if length == UNDEFINED else at + length
    if stop > end:
        raise Short
    if at == stop and length != UNDEFINED:
        return at
    if at + SHORT > end:
        raise Short
    if is_explicit:  # pydicom takes an item of an explicit data set as implicit where its first element looks so
        is_explicit = 0x40 < block[at + 4] < 0x5B and 0x40 < block[at + 5] < 0x5B
        if not is_explicit and length != UNDEFINED and length < SHORT:
            raise Odd
    return _end_of_elements(block, at, stop if length != UNDEFINED else None, end=end, is_explicit=is_explicit, depth=depth)


def _end_of_elements(block: memoryview, at: int, stop: int | None, *, end: int, is_explicit: bool, depth: int) -> int:
    """Where the elements of an item end: at stop, or behind its delimiter (stop null)."""
    last = end if stop is None else stop
    vr, size = 0, SHORT
    while at != stop:
        if at + SHORT > end:
            raise Short
        if is_explicit:
            group, element, vr, length = _explicit(block, at)
            size = _SIZES.get(vr, 0)
        else:
            group, element, length = _implicit(block, at)
        if group == ITEM_GROUP:
            if stop is not None or element != ITEM_END & 0xFFFF or _length(block, at + 4)[0]:
                raise Odd
            return at + SHORT
        if size != SHORT:
            length = _long_length(block, at, size, end=end)
        if length == UNDEFINED:
            at = after_value(block, Element(at, group << 16 | element, vr, size, length), end=end, depth=depth)
        else:
            at += size + length
        if at > last:
            raise Odd if last < end else Short
    return at


def _long_length(block: memoryview, at: int, size: int, *, end: int) -> int:
    """The 32 bits of length of an explicit element; size: of its header, 0 where its value representation is unknown."""
    if size != LONG:
        raise Odd
    if at + LONG > end:
        raise Short
    return int(_length(block, at + SHORT)[0])


def _starts_with_item(block: memoryview, at: int, *, end: int) -> bool:
    if at + SHORT > end:
        raise Short
    group, element, _ = _implicit(block, at)
    return bool((group << 16 | element) == ITEM)
