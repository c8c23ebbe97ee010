"""A header becomes a row in the contract's types, or a typed refusal; no fault of a file is an exception of ours."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import struct
from datetime import date
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
)

from ospor_batch.archive.header import Header, read_header
from ospor_batch.contracts import contract
from ospor_batch.errors import ItemRefused

from .made import DICOMDIR, SEGMENTATION, bare, ct, encoded, uid


def read(content: bytes) -> Header:
    return read_header(io.BytesIO(content))


def values(**changes: Any) -> dict[str, Any]:
    return read(encoded(ct(**changes))).values


def refusal(content: bytes) -> str:
    with pytest.raises(ItemRefused) as refused:
        read(content)
    return refused.value.reason


def nifti() -> bytes:
    return struct.pack("<i", 348) + bytes(340) + b"n+1\0" + bytes(64)


def test_values_come_in_the_types_of_the_contract() -> None:
    row = values()
    wanted = {f.name for f in contract("instance").fields if f.dicom}
    assert wanted <= set(row)
    assert row["acquisition_date"] == date(2022, 6, 15)
    assert (row["rows"], row["kvp_kv"], row["image_type"]) == (8, 120.0, "ORIGINAL\\PRIMARY\\AXIAL")
    assert (row["position_z_mm"], row["row_cosine_x"], row["pixel_spacing_row_mm"]) == (0.0, 1.0, 0.8)
    assert row["is_pixel_data"] is True
    assert row["header_flags"] == ""


def test_an_absent_element_is_null_and_an_empty_one_is_empty() -> None:
    assert values()["contrast_bolus_agent"] is None
    assert values(ContrastBolusAgent="")["contrast_bolus_agent"] == ""
    assert values(ContrastBolusAgent="Iomeron")["contrast_bolus_agent"] == "Iomeron"


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_transfer_syntaxes_give_one_row(syntax: UID) -> None:
    ours, plain = read(encoded(ct(), syntax=syntax)).values, values()
    differing = {name for name in plain if ours[name] != plain[name]}
    assert differing <= {"transfer_syntax_uid", "header_digest"}
    assert ours["transfer_syntax_uid"] == syntax


def test_big_endian_is_read() -> None:
    assert read(encoded(ct(), syntax=ExplicitVRBigEndian)).values["rows"] == 8


@pytest.mark.parametrize("is_implicit", [True, False])
def test_a_file_without_preamble_is_read_and_flagged(is_implicit: bool) -> None:
    row = read(bare(ct(), is_implicit=is_implicit)).values
    assert row["header_flags"] == "no_preamble"
    assert row["transfer_syntax_uid"] is None
    assert row["patient_id"] == "P-1"


@pytest.mark.parametrize("written", ["20220230", "2022", "202206", "99999999", "unknown"])
def test_an_invalid_date_is_null_and_flagged(written: str) -> None:
    row = values(StudyDate=written)
    assert row["study_date"] is None
    assert row["header_flags"] == "bad_date:StudyDate"
    assert row["acquisition_date"] == date(2022, 6, 15)


def test_dates_of_acr_nema_are_dates_and_an_empty_one_is_no_fault() -> None:
    assert values(StudyDate="1997.04.24")["study_date"] == date(1997, 4, 24)
    row = values(StudyDate="")
    assert (row["study_date"], row["header_flags"]) == (None, "")


def test_a_value_that_is_no_number_costs_that_value_only() -> None:
    content = encoded(ct(SliceThickness="5.00")).replace(b"5.00", b"five")
    row = read(content).values
    assert row["slice_thickness_mm"] is None
    assert row["header_flags"] == "bad_value:SliceThickness"


def test_several_voltages_are_no_voltage() -> None:
    row = values(KVP=[80, 140])
    assert (row["kvp_kv"], row["header_flags"]) == (None, "multi_value:KVP")


@pytest.mark.parametrize(
    ("charset", "text", "raw"),
    [
        ("ISO_IR 192", "흉부 CT 腹部", "흉부 CT 腹部".encode()),
        ("GB18030", "腹部平扫", "腹部平扫".encode("gb18030")),
        ("\\ISO 2022 IR 149", "조영", b"\x1b$)C" + "조영".encode("euc_kr")),
        ("ISO_IR 100", "Kopf für", "Kopf für".encode("latin-1")),
    ],
)
def test_text_is_read_in_its_character_set(charset: str, text: str, raw: bytes) -> None:
    assert read(in_charset(charset, raw)).values["series_description"] == text


def in_charset(charset: str, raw: bytes) -> bytes:
    ds = ct(SpecificCharacterSet=charset.split("\\") if charset else None, SeriesDescription="X" * (len(raw) + len(raw) % 2))
    return encoded(ds).replace(b"X" * (len(raw) + len(raw) % 2), raw.ljust(len(raw) + len(raw) % 2))


def test_undeclared_text_is_read_as_utf_8_where_it_is_that() -> None:
    row = read(in_charset("", "흉부".encode())).values
    assert (row["series_description"], row["header_flags"]) == ("흉부", "charset_undeclared")
    assert "charset_undeclared" in read(in_charset("", "흉부".encode("euc_kr"))).values["header_flags"]


def test_an_unknown_character_set_is_flagged_not_fatal() -> None:
    assert "charset_unknown" in read(in_charset("ISO_IR 999", b"chest ")).values["header_flags"]


def test_uids_of_the_meta_group_stand_in_for_missing_ones() -> None:
    content = encoded(ct()).replace(uid(1, 1, 9).encode(), b" " * len(uid(1, 1, 9)))
    assert refusal(content) == "missing_uid"
    ds = ct()
    whole = encoded(ds)
    place = whole.rindex(uid(1, 1, 9).encode())
    row = read(whole[:place] + b" " * len(uid(1, 1, 9)) + whole[place + len(uid(1, 1, 9)) :]).values
    assert row["sop_instance_uid"] == uid(1, 1, 9)
    assert row["header_flags"] == "sop_instance_from_meta"


def test_the_series_that_a_segmentation_names_is_read_and_its_content_digested() -> None:
    item = Dataset()
    item.SeriesInstanceUID = uid(7)
    content = encoded(ct(SOPClassUID=SEGMENTATION, Modality="SEG", ReferencedSeriesSequence=[item]))
    header = read(content)
    assert header.values["referenced_series_uid"] == uid(7)
    assert header.content_digest == hashlib.sha256(content).hexdigest()
    assert read(encoded(ct())).content_digest is None


def test_the_digest_follows_what_changes_pixels_and_nothing_else() -> None:
    plain = values()["header_digest"]
    assert values(SeriesDescription="other", PatientID="P-2")["header_digest"] == plain
    for change in ({"RescaleIntercept": 0}, {"ImagePositionPatient": [0, 0, 1]}, {"PixelSpacing": [1, 1]}, {"HighBit": 14}):
        assert values(**change)["header_digest"] != plain


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty_file"),
        (b"a text", "not_dicom"),
        (b"x" * 5000, "not_dicom"),
        (b"\x89PNG\r\n\x1a\n" + bytes(300), "not_dicom"),
        (gzip.compress(b"a text" * 100, mtime=0), "not_dicom"),
        (nifti(), "nifti"),
        (gzip.compress(nifti(), mtime=0), "nifti"),
        (bytes(128) + b"DICM", "missing_uid"),
        (encoded(ct(SOPInstanceUID=None, StudyInstanceUID=None)), "missing_uid"),
        (encoded(ct(SeriesInstanceUID="")), "missing_uid"),
        (encoded(ct(SOPClassUID=DICOMDIR)), "dicomdir"),
    ],
)
def test_what_is_no_instance_is_refused_for_its_reason(content: bytes, reason: str) -> None:
    assert refusal(content) == reason


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_a_file_cut_anywhere_is_truncated_or_has_no_identity(syntax: UID) -> None:
    content = encoded(ct(), syntax=syntax)
    n_pixels = 2 * 8 * 8
    for end in range(140, len(content), 7):
        reason = refused_reason(content[:end])
        # a header that ends between two elements is whole; without pixels it is an instance without pixel data
        assert reason in {"truncated", "missing_uid", "broken_header", None}, end
        if end > len(content) - n_pixels:
            assert reason == "truncated"


def refused_reason(content: bytes) -> str | None:
    try:
        assert read(content).values["is_pixel_data"] is False
    except ItemRefused as refused:
        return refused.reason
    return None


def test_a_matrix_larger_than_the_pixels_is_truncated() -> None:
    assert refusal(encoded(ct(Rows=80))) == "truncated"
    assert refusal(encoded(ct(NumberOfFrames=2))) == "truncated"


def test_compressed_pixels_need_their_end_and_a_fragment_a_frame() -> None:
    def compressed(**changes: Any) -> bytes:
        ds = ct(PixelData=encapsulate([b"\xff\x4f" + bytes(62)]), **changes)
        ds["PixelData"].is_undefined_length = True
        return encoded(ds, syntax=JPEG2000Lossless)

    whole = compressed()
    assert read(whole).values["is_pixel_data"] is True
    assert refusal(whole[:-8]) == "truncated"
    assert refusal(whole[:-30]) == "truncated"
    assert refusal(compressed(NumberOfFrames=2)) == "truncated"


def test_random_damage_never_raises_anything_else() -> None:
    content = bytearray(encoded(ct()))
    state = 12345
    for _ in range(400):
        hurt = bytearray(content)
        for _ in range(4):
            state = (1103515245 * state + 12345) % 2**31  # a fixed sequence: the same files every time
            hurt[132 + state % (len(hurt) - 132)] = state // 7 % 256
        with contextlib.suppress(ItemRefused):
            read(bytes(hurt))
