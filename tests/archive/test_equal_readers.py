"""Files that are read together say what pydicom says of each alone, or are left to it."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless

from ospor_batch.archive import lockstep
from ospor_batch.archive.columns import is_usual, wanted_elements
from ospor_batch.archive.elements import elements
from ospor_batch.archive.heads import Heads, read_heads
from ospor_batch.archive.layout import Memory
from ospor_batch.archive.locate import locate
from ospor_batch.archive.opening import header_source
from ospor_batch.archive.partition import Partition, read_quickly
from ospor_batch.archive.reading import part_schema, read_alone, read_files
from ospor_batch.archive.values import keywords
from ospor_batch.archive.walk import walk

from .both import Held, alone, differences, together
from .made import SEGMENTATION, bare, ct, encoded, uid, write_series
from .mutants import WHOLE, hurt, scan

FEW = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def test_whole_files_are_all_read_together_and_equal() -> None:
    assert sorted(together(WHOLE)) == list(range(len(WHOLE)))
    assert differences(WHOLE) == []


@FEW
@given(st.lists(hurt(), min_size=6, max_size=12))
def test_hurt_files_say_the_same_or_are_refused_alike(files: list[bytes]) -> None:
    assert differences([*files, *WHOLE[:6], *files]) == []


def test_a_file_cut_anywhere_is_read_as_pydicom_reads_it() -> None:
    for content in (WHOLE[0], WHOLE[4], WHOLE[8]):
        assert differences([content[:end] for end in range(128, len(content), 11)]) == []


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_a_header_longer_than_the_first_bytes_is_read_on(syntax: Any) -> None:
    for n_bytes in (9_000, 70_000, 600_000):
        ds = scan(1)
        ds.private_block(0x0009, "LONG", create=True).add_new(0x10, "OB", bytes(n_bytes))
        content = encoded(ds, syntax=syntax)
        assert list(together([content])) == [0]
        assert differences([content, WHOLE[0], content[:-200]]) == []


def test_a_header_beyond_all_measure_is_left_to_pydicom() -> None:
    ds = scan(1)
    ds.private_block(0x0009, "LONG", create=True).add_new(0x10, "OB", bytes(40 << 20))
    content = encoded(ds)
    assert together([content]) == {}
    assert alone([content])[0]["fate"] == "instance"


@pytest.mark.parametrize(
    "charset", ["", "ISO_IR 6", "ISO_IR 100", "ISO_IR 192", "GB18030", "GBK", "\\ISO 2022 IR 87", "\\ISO 2022 IR 149",
                "ISO 2022 IR 13\\ISO 2022 IR 87", "\\ISO 2022 IR 58", "ISO_IR 999", "ISO_IR 192\\GBK", "hex", "ISO-IR 100"],
)  # fmt: skip
def test_text_of_every_kind_is_equal_in_every_declared_set(charset: str) -> None:
    texts = [
        "흉부 CT".encode(), "腹部".encode("gb18030"), b"\x1b$)C" + "흉부".encode("euc_kr"), "Kopf für".encode("latin-1"),
        b"\x1b$B" + "腹部".encode("iso2022_jp")[3:], b"\x1b$)A" + "腹部".encode("gb2312"), b"plain ", b"two\\parts ",
        b"\xff\xfe",
    ]  # fmt: skip
    files = []
    for n, raw in enumerate(texts):
        held = raw + b" " * (len(raw) % 2)
        ds = scan(n, SpecificCharacterSet="Q" * len(charset), SeriesDescription="X" * len(held))
        files.append(encoded(ds).replace(b"Q" * len(charset), charset.encode(), 1).replace(b"X" * len(held), held))
    assert len(together(files)) == len(files)
    assert differences(files) == []
    assert differences(files * 3) == []


def test_text_that_is_none_in_its_declared_set_is_flagged() -> None:
    content = encoded(scan(1, SpecificCharacterSet="ISO_IR 192", SeriesDescription="XXXX")).replace(
        b"XXXX", b"\xb0\xa1\xb0\xa1"
    )
    assert together([content])[0]["header_flags"] == "charset_lossy"
    assert alone([content])[0]["header_flags"] == "charset_lossy"


def test_no_escape_sequence_is_left_in_chinese_text() -> None:
    raw = b"\x1b$)A" + "腹部".encode("gb2312")
    ds = scan(1, SpecificCharacterSet=["", "ISO 2022 IR 58"], SeriesDescription="X" * len(raw))
    assert together([encoded(ds).replace(b"X" * len(raw), raw)])[0]["series_description"] == "腹部"


@pytest.mark.parametrize(
    "content",
    [
        encoded(ct(SOPClassUID=SEGMENTATION)),  # its content is digested
        bare(ct()),
        encoded(ct(Rows=80)),
        encoded(ct(SeriesInstanceUID="")),
        encoded(ct(StudyInstanceUID=None)),
        encoded(ct(PixelData=b"")),
        encoded(ct(), syntax=ImplicitVRLittleEndian).replace(b"1.2.840.10008.1.2\0", b"1.2.840.10008.1.9\0"),
    ],
)
def test_what_is_unusual_is_left_to_pydicom(content: bytes) -> None:
    assert together([content, WHOLE[0]]).keys() == {1}


def test_the_series_that_an_image_refers_to_is_read_from_its_sequence() -> None:
    items = [Dataset(), Dataset()]
    items[0].SeriesInstanceUID, items[1].SeriesInstanceUID = uid(7), uid(6)
    files = [
        encoded(scan(n, ReferencedSeriesSequence=items[:n]), syntax=s)
        for n in range(3)
        for s in (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
    ]
    assert [row["referenced_series_uid"] for row in together(files).values()] == [None] * 2 + [uid(7)] * 2 + [
        f"{uid(6)}\\{uid(7)}"
    ] * 2
    assert differences(files) == []


def test_compressed_pixels_are_followed_to_their_end() -> None:
    ds = scan(1, PixelData=encapsulate([b"\xff\x4f" + bytes(62)]))
    ds["PixelData"].is_undefined_length = True
    content = encoded(ds, syntax=JPEG2000Lossless)
    assert list(together([content, content[:-8], content[:-30]])) == [0]
    assert differences([content]) == []


def test_memory_of_layouts_changes_nothing(tmp_path: Path) -> None:
    rng = random.Random(5)
    names = []
    for n in range(400):
        content = rng.choice(WHOLE) if n % 3 else encoded(scan(n % 50, SeriesDescription="y" * rng.randrange(40)))
        names.append(str(tmp_path / f"{n:03d}"))
        Path(names[-1]).write_bytes(content)
    heads = read_heads(names, [Path(name).stat().st_size for name in names], n_bytes=4096)
    wanted = wanted_elements()
    walked, memory = locate(heads, wanted=wanted, memory=None), Memory(wanted)
    for _ in range(3):
        found = locate(heads, wanted=wanted, memory=memory)
        assert memory.layouts
        assert walked.is_done.all()
        for name in ("length", "vr", "is_done", "pixel_offset", "pixel_length"):
            assert np.array_equal(getattr(found, name), getattr(walked, name)), name
        assert np.array_equal(found.offset[found.length >= 0], walked.offset[walked.length >= 0])


SAME = {"PixelRepresentation": 1, "PixelPaddingValue": -2000}
SLICES = [encoded(scan(n % 7, InstanceNumber=n, ImagePositionPatient=[0, 0, n], **SAME)) for n in range(90)]


@st.composite
def nights(draw: st.DrawFn) -> list[bytes]:
    """A series, some of whose files say something else in the same length, are hurt, or come from another series."""
    files = list(SLICES)
    for _ in range(draw(st.integers(0, 12))):
        at, where = draw(st.integers(0, 89)), draw(st.integers(140, len(SLICES[0]) - 130))
        content = bytearray(files[at])
        where = min(where, len(content) - 1)  # it may have been cut before
        kind = draw(st.integers(0, 3))
        if kind == 0:
            content[where] = draw(st.sampled_from(b" 0159A\\\0"))
        elif kind == 1:
            content[where : where + 8] = draw(st.binary(min_size=8, max_size=8))
        elif kind == 2:
            content = bytearray(draw(st.sampled_from(WHOLE)))
        else:
            del content[where:]
        for other in range(at, min(90, at + draw(st.integers(1, 4)))):  # the same change in files that follow each other
            files[other] = bytes(content) if kind == 2 else bytes(content[: len(content)])
    return files


@FEW
@given(nights())
def test_what_is_taken_from_the_file_before_is_what_a_walk_finds(files: list[bytes]) -> None:
    names, sizes = [str(number) for number in range(len(files))], [len(content) for content in files]
    part = Partition(names, sizes, Held(files))
    for _ in range(2):  # the second time with what was learnt
        remembered, walked = read_quickly(part), read_quickly(part, is_remembering=False)
        assert remembered.numbers.tolist() == walked.numbers.tolist()
        for name, column in walked.columns.items():
            assert remembered.columns[name].equals(column), name


def test_a_series_is_read_from_the_file_before_where_it_repeats_it() -> None:
    memory, wanted = Memory(wanted_elements()), wanted_elements()
    content = b"".join(one.ljust(4096, b"\0") for one in SLICES)
    start = np.arange(90, dtype=np.int64) * 4096
    sizes = np.array([len(one) for one in SLICES])
    heads = Heads(np.frombuffer(content + bytes(64), np.uint8), start, start + sizes, sizes)
    for _ in range(3):
        found = locate(heads, wanted=wanted, memory=memory)
    slot = {of.name: wanted.slot[of.tag] for of in keywords()}
    assert found.fresh[slot["StudyInstanceUID"]].mean() < 0.5
    assert found.fresh[slot["AcquisitionTime"]].all()
    assert differences(SLICES) == []


def test_each_file_has_its_own_transfer_syntax_whatever_the_data_sets_share() -> None:
    """The meta group is walked for each file; a layout, which begins behind it, proves nothing of it."""
    one = ct(PixelData=encapsulate([bytes(range(64))]))
    one["PixelData"].is_undefined_length = True
    first = encoded(one, syntax=JPEG2000Lossless)
    second = first.replace(b"1.2.840.10008.1.2.4.90", b"1.2.840.10008.1.2.4.91")
    assert first != second
    mixed = [*[first] * 40, *[second] * 40, first, second, first]
    found = together(mixed)
    assert [found[i]["transfer_syntax_uid"][-2:] for i in range(len(mixed))] == [*["90"] * 40, *["91"] * 40, "90", "91", "90"]
    assert differences(mixed) == []


def test_files_walked_together_and_alone_have_the_same_elements() -> None:
    content = WHOLE[12]
    at = 144 + int.from_bytes(content[140:144], "little")
    found, end = elements(memoryview(content), at, end=len(content), is_explicit=False)
    assert content[end:] == bytes(128)
    assert [e.tag for e in found] == sorted(e.tag for e in found)


@pytest.mark.parametrize("whole", [WHOLE[0], WHOLE[12]], ids=["explicit", "implicit, undefined lengths"])
def test_hurt_headers_walked_together_are_found_as_each_one_alone(whole: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    hurt_at = [(at, bits) for at in range(132, len(whole) - 100, 3) for bits in (0x01, 0x22, 0xFF)]
    files = [whole[:at] + bytes([whole[at] ^ bits]) + whole[at + 1 :] for at, bits in hurt_at]
    files += [one[: len(one) - 130 - at % 900] for at, one in enumerate(files)]
    files.append(whole.replace(b"\x28\0\x03\1US\2\0", b"\x28\0\x03\1ZZ\2\0\2\0\0\0"))
    start = np.arange(len(files), dtype=np.int64) * 4096
    sizes = np.array([len(one) for one in files])
    block = np.frombuffer(b"".join(one.ljust(4096, b"\0") for one in files) + bytes(1088), np.uint8)
    heads = Heads(block, start, start + sizes, sizes + np.arange(len(files)) % 3 // 2)  # of every third, more is to come
    found = []
    for fewest in (1, len(start) + 1):
        monkeypatch.setattr(lockstep, "FEWEST", fewest)
        found.append(locate(heads, wanted=wanted_elements(), memory=None))
        is_usual(heads, found[-1], wanted=wanted_elements())
    one, other = found
    assert 0.2 < one.is_done.mean() < 0.95
    for name in ("is_done", "is_short"):
        assert (getattr(one, name) == getattr(other, name)).all(), name
    for name in ("offset", "vr"):
        is_there = one.is_done & (one.length >= 0)
        assert (getattr(one, name) == getattr(other, name))[is_there].all(), name
    for name in ("length", "pixel_offset", "pixel_length"):
        assert (getattr(one, name) == getattr(other, name))[..., one.is_done].all(), name


def test_rows_come_in_the_order_of_the_files(tmp_path: Path) -> None:
    write_series(tmp_path, n=30)
    (tmp_path / "s1-003a.txt").write_text("no header")
    (tmp_path / "s1-011a.dcm").write_bytes(bare(ct(slice_=40)))
    (tmp_path / "s1-020a.dcm").write_bytes(b"")
    (tmp_path / "s1-021a.dcm").symlink_to(tmp_path / "gone")
    os.mkfifo(tmp_path / "s1-022a.dcm")
    items = [(path.name, path.lstat().st_size, 7) for path in sorted(tmp_path.iterdir())]
    rows = read_files(items, root=str(tmp_path), cache=tmp_path / "cache")
    assert rows.schema == part_schema()
    assert rows["path"].to_list() == [path for path, _, _ in items]
    assert rows["fate"].value_counts(sort=True).rows() == [("instance", 31), ("reject", 4)]
    assert rows.filter(fate="instance")["mtime_ns"].to_list() == [7] * 31


def test_real_files_are_equal_column_by_column(shared: Path, tmp_path: Path) -> None:
    root = shared / "data" / "real"
    if not root.is_dir():
        pytest.skip(f"no real files at {root}")
    items = [(found.path, found.size_bytes, found.mtime_ns) for found in walk(root) if found.refusal is None]
    rows = read_files(items, root=str(root), cache=tmp_path)
    source = header_source(str(root), [(path, size) for path, size, _ in items], cache=tmp_path)
    for row, item in zip(rows.rows(named=True), items, strict=True):
        assert row == read_alone(item, source), item[0]


def test_long_headers_on_disk_are_read_on_beside_short_ones(tmp_path: Path) -> None:
    lengths = [0, 9_000, 0, 0, 70_000, 600_000, 9_000, 0, 9_000, 0]
    for number, n_bytes in enumerate(lengths):
        ds = scan(number)
        if n_bytes:
            ds.private_block(0x0009, "LONG", create=True).add_new(0x10, "OB", bytes(n_bytes))
        content = encoded(ds)
        (tmp_path / f"{number}.dcm").write_bytes(content if number != 6 else content[:-400])
    items = [(path.name, path.stat().st_size, 7) for path in sorted(tmp_path.iterdir())]
    source = header_source(str(tmp_path), [(path, size) for path, size, _ in items], cache=tmp_path)
    part = Partition([i[0] for i in items], [i[1] for i in items], source, [str(tmp_path / i[0]) for i in items])
    assert read_quickly(part).numbers.tolist() == [number for number in range(10) if number != 6]
    for row, item in zip(read_files(items, root=str(tmp_path), cache=tmp_path).rows(named=True), items, strict=True):
        assert row == read_alone(item, source)
