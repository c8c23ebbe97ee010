"""The header of one plain slice of CT without pydicom, which takes longer for it than the voxels do.

Files as nearly every scanner writes them: Part 10, little endian, one gray frame of 16 bits, not compressed. What is found
has the names and values of a pydicom data set, as far as reader.py asks for them. Anything else, and anything odd, is
left to pydicom: null is no verdict on the file.
"""

from __future__ import annotations

import io
import struct
from types import SimpleNamespace
from typing import Any

from pydicom.datadict import DicomDictionary
from pydicom.filereader import read_sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, VR

META, UNDEFINED, SHORT, LONG = 2, 0xFFFFFFFF, 8, 12
FIRST_META = 132  # behind the preamble and its four letters (PS3.10 section 7.1)
MOST_BYTES = 2**26  # of a file that is read at once; one slice has half a megabyte
PIXELS, ITEMS = 0x7FE00010, 0xFFFE
DECIMAL, PRINTABLE = b"0123456789+-.eE ", bytes(range(0x20, 0x7F))
SIZES = {vr.encode(): LONG if vr in EXPLICIT_VR_LENGTH_32 else SHORT for vr in map(str, VR) if len(vr) == 2}
SEQUENCES = frozenset(tag for tag, entry in DicomDictionary.items() if entry[0] == "SQ")
# What the reader asks for: name, value representation, number of values
WANTED: dict[int, tuple[str, bytes, int]] = {
    0x00100040: ("PatientSex", b"CS", 1), 0x00101020: ("PatientSize", b"DS", 1), 0x00180050: ("SliceThickness", b"DS", 1),
    0x00180060: ("KVP", b"DS", 1), 0x00180088: ("SpacingBetweenSlices", b"DS", 1),
    0x00200032: ("ImagePositionPatient", b"DS", 3), 0x00200037: ("ImageOrientationPatient", b"DS", 6),
    0x00280002: ("SamplesPerPixel", b"US", 1), 0x00280004: ("PhotometricInterpretation", b"CS", 1),
    0x00280010: ("Rows", b"US", 1), 0x00280011: ("Columns", b"US", 1), 0x00280030: ("PixelSpacing", b"DS", 2),
    0x00280100: ("BitsAllocated", b"US", 1), 0x00280101: ("BitsStored", b"US", 1),
    0x00280103: ("PixelRepresentation", b"US", 1), 0x00280120: ("PixelPaddingValue", b"xs", 1),
    0x00280121: ("PixelPaddingRangeLimit", b"xs", 1), 0x00281052: ("RescaleIntercept", b"DS", 1),
    0x00281053: ("RescaleSlope", b"DS", 1),
}  # fmt: skip
# Number of frames, functional groups, offset tables, pixels as floats: not one plain slice, whatever they hold
REFUSED = frozenset({0x00280008, 0x52009229, 0x52009230, 0x7FE00001, 0x7FE00002, 0x7FE00008, 0x7FE00009})
REQUIRED = (
    "ImagePositionPatient", "ImageOrientationPatient", "PhotometricInterpretation", "Rows", "Columns", "PixelSpacing",
    "BitsAllocated", "BitsStored", "PixelRepresentation", "RescaleIntercept", "RescaleSlope", "PixelData",
)  # fmt: skip


class PlainSlice:
    """Elements by name, with the values that pydicom gives them."""

    def __init__(self, values: dict[str, Any], *, syntax: str) -> None:
        self._values = values
        self.file_meta = SimpleNamespace(TransferSyntaxUID=syntax)

    def get(self, name: str, default: Any = None) -> Any:
        """The value of an element; the default where the file has none."""
        return self._values.get(name, default)

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def __getattr__(self, name: str) -> Any:
        try:
            return self._values[name]
        except KeyError:
            raise AttributeError(name) from None


class _OddError(Exception):
    """Not as usual: pydicom reads it."""


def plain_slice(content: bytes) -> PlainSlice | None:
    """The slice of a whole file; null for what is not plain."""
    if content[FIRST_META - 4 : FIRST_META] != b"DICM":
        return None
    try:
        syntax, at = _meta(content)
        raw = _elements(content, at, is_explicit=syntax == ExplicitVRLittleEndian)
        is_signed = raw.get(0x00280103, (b"", b""))[1] == b"\1\0"
        values = {WANTED[tag][0]: _value(*WANTED[tag][1:], *found, is_signed) for tag, found in raw.items() if tag != PIXELS}
    # pydicom's own walk over a sequence raises anything; what is wrong with the file is for its reader to say
    except Exception:  # noqa: BLE001
        return None
    if PIXELS in raw:
        values["PixelData"] = raw[PIXELS][1]
    if any(values.get(name) is None for name in REQUIRED):
        return None
    return PlainSlice(values, syntax=syntax)


def _meta(content: bytes) -> tuple[str, int]:
    """Transfer syntax, and where the data set begins."""
    at, syntax = FIRST_META, b""
    while True:
        group, element, vr, length = struct.unpack_from("<HH2sH", content, at)
        if group != META:
            break
        size = SIZES[vr]
        if size == LONG:
            (length,) = struct.unpack_from("<I", content, at + SHORT)
        if element == 0x0010:
            syntax = content[at + size : at + size + length]
        at += size + length
    named = syntax.rstrip(b"\0").decode("ascii")
    if named not in {ImplicitVRLittleEndian, ExplicitVRLittleEndian}:
        raise _OddError
    looks_explicit = content[at + 4 : at + 6].isalpha() and content[at + 4 : at + 6].isupper()
    if looks_explicit != (named == ExplicitVRLittleEndian):
        raise _OddError
    return named, at


def _elements(content: bytes, at: int, *, is_explicit: bool) -> dict[int, tuple[bytes, Any]]:
    """Representation and bytes of what is wanted; tags ascend, and every value ends within the file."""
    found: dict[int, tuple[bytes, Any]] = {}
    end, last, vr, size = len(content), -1, b"", SHORT
    as_explicit, as_implicit = struct.Struct("<HH2sH").unpack_from, struct.Struct("<HHI").unpack_from
    while at != end:
        if is_explicit:
            group, element, vr, length = as_explicit(content, at)
            size = SIZES[vr]
            if size == LONG:
                length = int.from_bytes(content[at + SHORT : at + LONG], "little")
        else:
            group, element, length = as_implicit(content, at)
        tag = group << 16 | element
        if tag <= last or tag in REFUSED or group == ITEMS:
            raise _OddError
        value, last = at + size, tag
        if length == UNDEFINED:
            at = _behind_sequence(content, value, tag, vr=vr, is_explicit=is_explicit)
            continue
        at = value + length
        if at > end:
            raise _OddError
        if tag in WANTED:
            found[tag] = vr, content[value:at]
        elif tag == PIXELS:
            found[tag] = vr, memoryview(content)[value:at]
    return found


def _behind_sequence(content: bytes, at: int, tag: int, *, vr: bytes, is_explicit: bool) -> int:
    """Where a sequence of undefined length ends, as pydicom reads it."""
    if not (vr == b"SQ" if is_explicit else tag in SEQUENCES):
        raise _OddError
    file = io.BytesIO(content)  # takes no copy
    file.seek(at)
    read_sequence(file, not is_explicit, True, UNDEFINED, "iso8859")  # noqa: FBT003
    return file.tell()


def _value(wanted: bytes, n: int, vr: bytes, raw: bytes, is_signed: bool) -> Any:  # noqa: FBT001
    """The value as pydicom has it; null for none. wanted: its representation; xs is a whole number, with a sign or without."""
    if wanted == b"xs":
        if vr not in {b"", b"US", b"SS"}:
            raise _OddError
        return struct.unpack("<h" if (vr == b"SS" if vr else is_signed) else "<H", raw)[0]
    if vr not in {b"", wanted}:
        raise _OddError
    if wanted == b"US":
        return struct.unpack("<H", raw)[0]
    text = raw.rstrip(b"\0")
    if wanted == b"CS":
        if text.translate(None, PRINTABLE) or b"\\" in text:
            raise _OddError
        return text.decode("ascii").rstrip(" ")
    if not text.strip(b" "):
        return None
    if text.translate(None, DECIMAL + b"\\"):
        raise _OddError
    numbers = [float(part) for part in text.split(b"\\")]
    if len(numbers) != n:
        raise _OddError
    return numbers[0] if n == 1 else numbers
