"""DICOM files as scanners and transfers hurt them: their elements, and changes to bytes, lengths and values."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from ospor_batch.archive.elements import Element, Odd, Short, elements

from .made import cr, ct, encoded

VRS = [vr.encode() for vr in "AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI".split()]
VRS += [b"UL", b"UN", b"UR", b"US", b"UT", b"UV", b"ZZ", b"aa", b"\0\0"]
VALUES = [
    b"", b"\0\0", b"  ", b" \0", b"1.5 ", b"1e400 ", b"nan ", b"1_0 ", b"inf ", b"-5", b"+7", b"7.0 ", b"99999999999999999999",
    b"1\\2", b"1\\2\\3 ", b"\\", b"\\\\", b"20220230", b"1997.04.24", b"\xc3\xa9", b"\xb0\xa1", b"\x1b$)C\xb0\xa1 ", b"a\0b ",
    b"ISO_IR 192", b"\\ISO 2022 IR 87", b"GB18030 ", b"ISO_IR 999", b"ISO 2022 IR 6\\ISO 2022 IR 58 ", b"\x1b$B0B  ",
    b"\x1b$)A\xb0\xb2 ", b"\tX\n ", b"\x1c1", b"5", b"odd",
]  # fmt: skip
UNDEFINED = 0xFFFFFFFF


def scan(n: int, *, is_undefined: bool = False, **changes: Any) -> Dataset:
    """A CT slice with sequences, private blocks and values that differ from slice to slice."""
    told: dict[str, Any] = {
        "PatientSize": "1.65", "ContrastBolusAgent": "Iomeron", "WindowCenter": ["40", "50"], "CTDIvol": 7.1 + n,
        "AcquisitionTime": f"1011{n:02d}.5", "Exposure": 100 + n, "PixelRepresentation": n % 2,
        "PixelPaddingValue": -2000 if n % 2 else None,
    }  # fmt: skip
    ds = ct(slice_=n, **told | changes)
    inner, item = Dataset(), Dataset()
    inner.CodeValue, item.CodeValue, item.CodeMeaning = "d", f"X{n}", "abc"
    item.ContentSequence = Sequence([inner])
    ds.ProcedureCodeSequence, ds.RequestAttributesSequence = Sequence([item, item]), Sequence([])
    block = ds.private_block(0x0019, "SIEMENS CT VA0 COAD", create=True)
    block.add_new(0x10, "DS", "1.0")
    block.add_new(0x20, "OB", b"x" * 30)
    block.add_new(0x30, "SQ", Sequence([inner]))
    block.add_new(0x31, "UN", b"abc ")
    if is_undefined:
        ds["ProcedureCodeSequence"].is_undefined_length = True
        ds[block.get_tag(0x30)].is_undefined_length = True
        for each in ds.ProcedureCodeSequence if n % 3 else ():
            each.is_undefined_length_sequence_item = True
    return ds


def group_lengths(content: bytes) -> bytes:
    """The same file with a group length in front of group 0008."""
    at = 144 + int.from_bytes(content[140:144], "little")
    return content[:at] + b"\x08\x00\x00\x00UL\x04\x00\x10\x00\x00\x00" + content[at:]


WHOLE = [
    encoded(scan(n, is_undefined=is_undefined), syntax=syntax)
    for is_undefined in (False, True)
    for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
    for n in range(4)
] + [encoded(cr()), group_lengths(encoded(scan(1)))]


def elements_of(content: bytes) -> list[Element]:
    """The element headers of a whole file."""
    at = 144 + int.from_bytes(content[140:144], "little")
    for is_explicit in (True, False):
        try:
            return elements(memoryview(content), at, end=len(content), is_explicit=is_explicit)[0]
        except (Odd, Short):
            continue
    raise AssertionError("no whole file")


@st.composite
def hurt(draw: st.DrawFn) -> bytes:
    """A whole file with one to three changes."""
    content = bytearray(draw(st.sampled_from(WHOLE)))
    found = elements_of(bytes(content))
    for _ in range(draw(st.integers(1, 3))):
        change = draw(st.sampled_from(CHANGES))
        change(draw, content, found)
    return bytes(content)


def _byte(draw: st.DrawFn, content: bytearray, _found: list[Element]) -> None:
    if content:
        content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))


def _remove(draw: st.DrawFn, content: bytearray, _found: list[Element]) -> None:
    at = draw(st.integers(0, len(content)))
    del content[at : at + draw(st.sampled_from([1, 2, 4, 8]))]


def _insert(draw: st.DrawFn, content: bytearray, _found: list[Element]) -> None:
    at = draw(st.integers(0, len(content)))
    content[at:at] = draw(st.binary(min_size=1, max_size=8))


def _cut(draw: st.DrawFn, content: bytearray, _found: list[Element]) -> None:
    del content[draw(st.integers(0, len(content))) :]


def _vr(draw: st.DrawFn, content: bytearray, found: list[Element]) -> None:
    here = draw(st.sampled_from(found))
    if here.vr and here.at + 6 <= len(content):
        content[here.at + 4 : here.at + 6] = draw(st.sampled_from(VRS))


def _length(draw: st.DrawFn, content: bytearray, found: list[Element]) -> None:
    here = draw(st.sampled_from(found))
    told = [0, 1, 2, 3, 0xFFFF, 0x7FFFFFFF, UNDEFINED, *(max(0, here.length + more) for more in (-2, -1, 1, 2, 8))]
    _write_length(content, here, draw(st.sampled_from(told)))


def _value(draw: st.DrawFn, content: bytearray, found: list[Element]) -> None:
    here, value = draw(st.sampled_from(found)), draw(st.sampled_from(VALUES))
    if here.length == UNDEFINED or here.at + here.size > len(content):
        return
    content[here.at + here.size : here.at + here.size + here.length] = value
    _write_length(content, here, len(value))


def _write_length(content: bytearray, here: Element, length: int) -> None:
    at, n = (here.at + 4, 4) if not here.vr else (here.at + 6, 2) if here.size == 8 else (here.at + 8, 4)
    if at + n <= len(content):
        content[at : at + n] = (length & (1 << 8 * n) - 1).to_bytes(n, "little")


CHANGES = [_byte, _remove, _insert, _cut, _vr, _length, _value, _value]
