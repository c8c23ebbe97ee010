"""One element's value in the types of the instance contract: what pydicom decodes, judged once for every reader."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Any, NamedTuple

from pydicom.charset import convert_encodings, default_encoding, python_encoding
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement, convert_raw_data_element, empty_value_for_VR
from pydicom.tag import BaseTag
from pydicom.values import convert_string

from ospor_batch.contracts import Field, contract

CHARSET = "SpecificCharacterSet"
TEXTS = ("LO", "LT", "PN", "SH", "ST", "UC", "UT")  # value representations that the character set governs
DATE = re.compile(r"^(\d{4})(\d{2})(\d{2})$|^(\d{4})\.(\d{2})\.(\d{2})$")  # the second form: ACR-NEMA 2.0
ESCAPE = re.compile("\x1b[\x20-\x2f]+[\x30-\x7e]")  # an ISO 2022 escape that a decoder left in its text
DICOM_CODECS = frozenset(python_encoding.values())  # letters, digits and most signs of ASCII stand for themselves in each
LARGEST_INTEGER = 2**63
LOST = "\ufffd"  # what a decoder writes where bytes are no text in the declared set


@dataclass(frozen=True)
class Keyword:
    """One DICOM element and the columns that it fills; inner: the keyword wanted from the items of a sequence."""

    name: str
    tag: int
    vr: str
    fields: tuple[Field, ...]
    inner: str | None = None

    @property
    def is_text(self) -> bool:
        """Whether the character set governs it, or what it holds."""
        return self.vr in TEXTS or self.inner is not None


class Cell(NamedTuple):
    """An element's value for each of its columns, and what is to be remarked on it."""

    values: tuple[Any, ...]
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Charset:
    """A specific character set as declared (backslash-joined, empty: none), and the codecs that pydicom takes for it."""

    declared: str = ""
    encodings: tuple[str, ...] = (default_encoding,)

    @property
    def is_declared(self) -> bool:
        return self.declared not in {"", "ISO_IR 6"}

    @property
    def is_usual(self) -> bool:
        """Whether ASCII means the same as without a set, save backslash and tilde, which are others in Japanese ones."""
        return self.encodings[0] in DICOM_CODECS


@functools.cache
def keywords() -> tuple[Keyword, ...]:
    """Every element that a column asks for, by tag."""
    grouped: dict[str, list[Field]] = {}
    for of in contract("instance").fields:
        if of.dicom:
            grouped.setdefault(of.dicom, []).append(of)
    found = []
    for dotted, fields in grouped.items():
        name, _, inner = dotted.partition(".")
        tag = tag_for_keyword(name) or 0
        found.append(Keyword(name, tag, dictionary_VR(tag), tuple(fields), inner or None))
    return tuple(sorted(found, key=lambda of: of.tag))


def charset_of(raw: bytes | None) -> Charset:
    """The character set by the bytes of its element; raises whatever pydicom raises."""
    if not raw:
        return Charset()
    told = convert_string(raw, is_little_endian=True)
    return Charset(text_of(told) or "", tuple(convert_encodings(told)))


def charset_flags(declared: str) -> set[str]:
    """A remark for a character set that DICOM does not know."""
    return {"charset_unknown" for name in declared.split("\\") if name and name not in python_encoding}


def cell_of_bytes(of: Keyword, raw: bytes, *, vr: str | None, charset: Charset) -> Cell:
    """The columns of an element, from its bytes; vr: as written, null in an implicit data set."""
    stored = raw or empty_value_for_VR(vr, raw=True)
    element = RawDataElement(BaseTag(of.tag), vr, len(raw), stored, 0, is_implicit_VR=vr is None, is_little_endian=True)
    try:
        value = wanted_of(of, convert_raw_data_element(element, encoding=list(charset.encodings)).value)
    except Exception:  # noqa: BLE001 -- whatever one value raises costs that value, not the file
        return bad_cell(of)
    return cell_of_value(of, value, stored=raw, charset=charset)


def wanted_of(of: Keyword, decoded: Any) -> Any:
    """What columns are filled from: the decoded value, or the inner values of a sequence; "" when there is nothing in it."""
    if of.inner is None:
        return "" if decoded is None else decoded
    return sorted({text_of(item[of.inner].value) or "" for item in decoded or () if of.inner in item}) or None


def bad_cell(of: Keyword) -> Cell:
    """An element that cannot be decoded."""
    return Cell((None,) * len(of.fields), (f"bad_value:{of.name}",))


def cell_of_value(of: Keyword, value: Any, *, stored: bytes | None, charset: Charset) -> Cell:
    """The columns of an element, from its value as pydicom decodes it; null: absent. stored: its bytes if they are known."""
    flags: list[str] = []
    if stored is not None and of.vr in TEXTS and not stored.isascii():
        if not charset.is_declared:
            flags.append("charset_undeclared")
            value = _undeclared(stored, otherwise=value)
        elif LOST in str(value):
            flags.append("charset_lossy")
    return Cell(tuple(_typed(of, field, value, flags) for field in of.fields), tuple(flags))


def _undeclared(stored: bytes, *, otherwise: Any) -> Any:
    """Text beyond ASCII without a character set: UTF-8 if it is valid as such."""
    try:
        text = stored.decode("utf-8")
    except UnicodeDecodeError:
        return otherwise
    return text.split("\\") if "\\" in text else text


def _typed(of: Keyword, field: Field, value: Any, flags: list[str]) -> Any:
    """One value in the type of its column; null with a flag when it cannot be one."""
    if value is None:
        return None
    if field.type == "string":
        return text_of(value)
    if field.item is not None:
        value = value[field.item] if is_many(value) and len(value) > field.item else None
    elif is_many(value) and len(value) != 1:
        if len(value):
            flags.append(f"multi_value:{of.name}")
        return None
    elif is_many(value):
        value = value[0]
    if value is None or str(value).strip("\0 ") == "":
        return None
    converted = _CONVERSIONS[field.type](value)
    if converted is None:
        flags.append(f"{'bad_date' if field.type == 'date' else 'bad_value'}:{of.name}")
    return converted


def is_many(value: Any) -> bool:
    """Whether a decoded value is a list of values."""
    return not isinstance(value, str | bytes) and hasattr(value, "__len__")


def text_of(value: Any) -> str | None:
    """A value as text: padding gone, several values joined by backslashes."""
    if value is None:
        return None
    parts = [str(part) for part in value] if is_many(value) else [str(value)]
    joined = "\\".join(part.replace("\0", "").strip() for part in parts)
    if "\x1b" in joined:
        joined = ESCAPE.sub("", joined)
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


_CONVERSIONS: dict[str, Callable[[Any], Any]] = {"date": _date, "integer": _integer, "number": _number}
