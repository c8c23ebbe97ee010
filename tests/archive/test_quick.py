"""The decoders for plain values say what pydicom says, value by value and column by column."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.charset import python_encoding

from ospor_batch.archive.quick import quick, quick_cell
from ospor_batch.archive.repeated import types
from ospor_batch.archive.values import Cell, Charset, Keyword, cell_of_bytes, charset_of, keywords
from ospor_batch.archive.written import Written

from .mutants import VALUES

SETS = [charset_of(name.encode()) for name in [*python_encoding, "\\ISO 2022 IR 87", "ISO 2022 IR 13\\ISO 2022 IR 87", "hex"]]
PLAIN = [
    b"1.2.840.10008.1", b"AX", b"  AX", b"063Y", b"101112.5", b"-0", b"-0.0 ", b"1E5 ", b"+1.5", b".5", b"5.", b"1 ", b" 7\0",
    b"e5", b"1\\0\\0\\0\\1\\0 ", b"0.7\\ 0.8 ", b"1\\2\\3\\", b"-190\\-340\\-500.0", b"19600615", b"20210230", b"00010101",
    b"00000101", b"1.7976931348623159e308 ", b"123456789012", b"1234567890123 ", b"\x10\0", b"\xff\xff",
    b"\0\0\0\0\0\0\xf0?", b"\0\0\0\0\0\0\xf8\x7f", b"~", b"a-z (A_Z) {0}", b"tab\t",
]  # fmt: skip
ONE = st.one_of(
    st.sampled_from(VALUES + PLAIN), st.binary(max_size=9), st.floats(allow_nan=False).map(lambda x: repr(x).encode()),
    st.text("0123456789+-.eE \\", max_size=9).map(str.encode),
)  # fmt: skip
OF = [of for of in keywords() if len(of.vr) == 2]


@pytest.fixture(autouse=True, scope="module")
def _unjudged() -> Iterator[None]:
    """Values decode as the reader decodes them."""
    with warnings.catch_warnings(), pydicom.config.disable_value_validation():
        warnings.simplefilter("ignore")
        yield


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.sampled_from(OF), ONE, st.sampled_from(SETS))
def test_one_plain_value_is_what_pydicom_decodes(of: Keyword, raw: bytes, charset: Charset) -> None:
    found = quick_cell(of, raw, vr=of.vr, charset=charset)
    if found is not None:
        assert _exact(found) == _exact(cell_of_bytes(of, raw, vr=of.vr, charset=charset))


@pytest.mark.parametrize("raw", [b"1.2\x003.4", b"A\0B", b"1\x002 ", b"19600\x00615", b"1.2\0 "])
def test_a_zero_inside_a_text_is_for_pydicom(raw: bytes) -> None:
    for of in OF:
        found = quick_cell(of, raw, vr=of.vr, charset=charset_of(b""))
        assert found is None or _exact(found) == _exact(cell_of_bytes(of, raw, vr=of.vr, charset=charset_of(b"")))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.sampled_from(OF), st.lists(st.none() | ONE, min_size=1, max_size=6), st.sampled_from(SETS))
def test_a_column_of_plain_values_is_what_pydicom_decodes(of: Keyword, raws: list[bytes | None], charset: Charset) -> None:
    _compare(of, raws, charset=charset)


@pytest.mark.parametrize("of", OF, ids=lambda of: of.name)
def test_a_column_is_taken_in_one_pass_where_it_is_plain(of: Keyword) -> None:
    taken = {raw for raw in PLAIN + VALUES if _compare(of, [raw, None, raw], charset=Charset())}
    is_number = of.vr in {"DS", "IS"} and of.fields[0].type != "string" and of.fields[0].item is None
    assert not is_number or b"1 " in taken
    assert of.vr not in {"LO", "SH", "CS"} or {b"", b"AX", b"  AX"} <= taken
    assert of.vr != "UI" or b"1.2.840.10008.1" in taken


def _compare(of: Keyword, raws: list[bytes | None], *, charset: Charset) -> bool:
    width = max([1, *(len(raw) for raw in raws if raw)])
    written = Written(
        np.arange(len(raws), dtype=np.int64),
        np.array([raw or b"" for raw in raws], f"S{width}"),
        np.array([-1 if raw is None else len(raw) for raw in raws], np.int64),
    )
    found = quick(of, written, charset=charset)
    if found is None:
        return False
    cells = [
        Cell((None,) * len(of.fields)) if raw is None else cell_of_bytes(of, raw, vr=of.vr, charset=charset) for raw in raws
    ]
    assert not any(cell.flags for cell in cells)
    for k, (field, column) in enumerate(zip(of.fields, found, strict=True)):
        told = column.cast(types()[field.name])
        assert list(map(repr, told.to_list())) == [repr(cell.values[k]) for cell in cells]
    return True


def _exact(cell: Cell) -> tuple[object, ...]:
    return (*map(repr, cell.values), cell.flags)
