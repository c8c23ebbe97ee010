"""Meanings of codes stand in sequences: they are read with the others, in the character set of their file."""

from __future__ import annotations

from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from .both import alone, differences, together
from .made import cr, encoded


def coded(*meanings: str, is_undefined: bool = False, **changes: Any) -> Dataset:
    items = [Dataset() for _ in meanings]
    for item, meaning in zip(items, meanings, strict=True):
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "399348003", "SCT", meaning
        item.is_undefined_length_sequence_item = is_undefined
    ds = cr(ViewCodeSequence=Sequence(items), **changes)
    ds["ViewCodeSequence"].is_undefined_length = is_undefined
    return ds


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_the_meanings_of_view_codes_are_read(syntax: UID) -> None:
    told = [coded(), coded("postero-anterior"), coded("lateral", "erect"), coded("", SeriesDescription="x"), cr()]
    files = [encoded(ds, syntax=syntax) for ds in told]
    wanted = [None, "postero-anterior", "erect\\lateral", "", None]
    assert [row["view_code"] for row in together(files).values()] == wanted
    assert [row["view_code"] for row in alone(files)] == wanted
    undefined = [encoded(coded("lateral", is_undefined=True), syntax=syntax)]
    assert alone(undefined)[0]["view_code"] == "lateral"
    assert differences([*files, *undefined]) == []


def test_meanings_are_text_in_the_character_set_of_their_own_file() -> None:
    """The same bytes under two sets are two texts, also where one was decoded before the other."""
    raw = "胸部".encode()
    marked = [coded("X" * len(raw), SpecificCharacterSet=told) for told in ("ISO_IR 192", "ISO_IR 100", None, "ISO_IR 192")]
    files = [encoded(ds).replace(b"X" * len(raw), raw) for ds in marked]
    found = [row["view_code"] for row in together(files).values()]
    assert (found[0], found[3]) == ("胸部", "胸部")
    assert found[1] != "胸部"
    assert differences(files) == differences(files * 20) == []


def test_a_meaning_of_several_values_is_joined() -> None:
    assert alone([encoded(coded("a\\b"))])[0]["view_code"] == "a\\b"
