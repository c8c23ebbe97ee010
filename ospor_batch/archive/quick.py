"""Decoders for columns in which many files say something else (UIDs, positions, numbers): all values in one compiled pass.

Each takes what it can prove to be plain, and gives None for the rest; `values` then decodes value by value. They must
give what `values` gives: tests hold them against it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date
from struct import Struct

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from ospor_batch.archive.values import TEXTS, Cell, Charset, Keyword
from ospor_batch.archive.written import BACKSLASH, FIRST_PRINTABLE, LAST_PRINTABLE, Written

BINARY = {"US": "<u2", "SS": "<i2", "FD": "<f8"}
ASCII = frozenset(["CS", "AS", "TM", "UI"])  # value representations that no character set governs
STRUCTS = {vr: Struct(form) for vr, form in (("US", "<H"), ("SS", "<h"), ("FD", "<d"))}
DECIMAL = b"\0 0123456789+-.eE"
DECIMALS = DECIMAL + b"\\"
PRINTABLE = bytes(sorted(set(range(FIRST_PRINTABLE, LAST_PRINTABLE + 1)) - {BACKSLASH}))
INTEGER = b"\0 0123456789+-"
LONGEST_INTEGER = 12  # characters, as DICOM has it: exact as a float and as an int


def quick_cell(of: Keyword, raw: bytes, *, vr: str, charset: Charset) -> Cell | None:
    """Decode one plain value; null where it is not."""
    kind, held = of.fields[0].type, raw.rstrip(b"\0")
    if vr in STRUCTS and raw and kind != "string":
        return _binary_cell(of, raw, STRUCTS[vr])
    if b"\0" in held:  # readers disagree on what a zero inside a text is
        return None
    if kind == "string" and len(of.fields) == 1 and of.inner is None:
        is_plain = (vr in ASCII or (vr in TEXTS and charset.is_usual)) and not held.translate(None, PRINTABLE)
        return Cell((held.decode("ascii").strip(" "),)) if is_plain else None
    if not held.strip(b" ") or held.translate(None, DECIMALS):
        return None
    parts = held.decode("ascii").split("\\")
    if len(parts) != (len(of.fields) if of.fields[0].item is not None else 1):
        return None
    try:
        if kind == "date":
            return Cell((date(int(held[:4]), int(held[4:6]), int(held[6:])),)) if held.isdigit() and len(held) == 8 else None
        if vr == "IS" and len(held) <= LONGEST_INTEGER:
            return Cell((int(held) if kind == "integer" else float(int(held)),))
        numbers = tuple(map(float, parts)) if vr == "DS" and kind == "number" else ()
    except ValueError:
        return None
    return Cell(numbers) if numbers and all(map(math.isfinite, numbers)) else None


def _binary_cell(of: Keyword, raw: bytes, form: Struct) -> Cell | None:
    if len(raw) != form.size or len(of.fields) != 1:
        return None
    (number,) = form.unpack(raw)
    return Cell((number,)) if math.isfinite(number) else None


def quick(of: Keyword, written: Written, *, charset: Charset | None) -> Sequence[pl.Series] | None:
    """Decode plain values; charset: of all of them, null when they differ in what ASCII means."""
    kind = of.fields[0].type
    if of.vr in BINARY:
        return _binary(written, BINARY[of.vr]) if len(of.fields) == 1 and kind != "string" else None
    if kind == "number" and of.vr == "DS":
        return _decimals(of, written)
    if kind in {"number", "integer"}:
        return _integers(written, is_whole=kind == "integer") if of.vr == "IS" else None
    if kind != "string" or len(of.fields) > 1:
        return None
    is_plain = of.vr in ASCII or (of.vr in TEXTS and charset is not None and charset.is_usual)
    if is_plain and written.is_printable():
        texts = written.texts()
        return None if texts is None else [pl.Series(texts)]
    return None


def _binary(written: Written, dtype: str) -> Sequence[pl.Series] | None:
    """Numbers as they lie in memory, one each."""
    is_absent = written.length < 0
    if written.items.itemsize != np.dtype(dtype).itemsize or (written.length[~is_absent] != written.items.itemsize).any():
        return None
    numbers = written.octets.view(dtype)
    return [pl.Series(pa.array(numbers, mask=is_absent))] if np.isfinite(numbers).all() else None


def _decimals(of: Keyword, written: Written) -> Sequence[pl.Series] | None:
    n = len(of.fields) if of.fields[0].item is not None else 1
    if not written.is_made_of(DECIMAL if n == 1 else DECIMALS) or (texts := written.texts(is_empty_null=True)) is None:
        return None
    if n == 1:
        return None if (numbers := _numbers(texts, pa.float64())) is None else [pl.Series(numbers)]
    parts, is_told = pc.split_pattern(texts, "\\"), written.length > 0
    if (np.diff(parts.offsets.to_numpy())[is_told] != n).any():
        return None
    if (numbers := _numbers(pc.ascii_trim(parts.flatten(), characters=" "), pa.float64())) is None:
        return None
    table = np.full((len(written), n), np.nan)
    table[is_told] = numbers.to_numpy().reshape(-1, n)
    return [pl.Series(column, nan_to_null=True) for column in table.T]


def _integers(written: Written, *, is_whole: bool) -> Sequence[pl.Series] | None:
    if not written.is_made_of(INTEGER) or written.length.max() > LONGEST_INTEGER:
        return None
    if (texts := written.texts(is_empty_null=True)) is None or (numbers := _numbers(texts, pa.int64())) is None:
        return None
    return [pl.Series(numbers if is_whole else numbers.cast(pa.float64()))]


def _numbers(texts: pa.StringArray, kind: pa.DataType) -> pa.Array | None:
    """Texts as numbers; null unless all are finite ones."""
    try:
        numbers = texts.cast(kind)
    except pa.ArrowInvalid:
        return None
    return numbers if kind == pa.int64() or pc.all(pc.is_finite(numbers), min_count=0).as_py() else None
