"""Headers that are taken up as a run say what a walk over each of them finds, whatever one of them holds."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from ospor_batch.archive import columns, partition
from ospor_batch.archive.columns import wanted_elements
from ospor_batch.archive.heads import APART, PAD, Heads, Spare, new_block
from ospor_batch.archive.lockstep import Found
from ospor_batch.archive.opening import header_source
from ospor_batch.archive.partition import Partition, read_quickly, shapes
from ospor_batch.archive.reading import read_alone, read_files
from ospor_batch.archive.runs import AT_ONCE, Runs
from ospor_batch.archive.shape import shape_of
from ospor_batch.archive.written import Batch

from .both import Held, differences
from .made import ct, encoded, uid
from .mutants import scan

HEAD = 8192
SAME: dict[str, Any] = {"PixelRepresentation": 1, "PixelPaddingValue": -2000}


def run_of(n: int, *, syntax: Any = ExplicitVRLittleEndian, **changes: Any) -> list[bytes]:
    """A series whose values change from file to file, in the same lengths."""
    told = SAME | changes
    return [encoded(scan(at % 9, InstanceNumber=100 + at, ImagePositionPatient=[0, 0, 100 + at], **told), syntax=syntax)
            for at in range(n)]  # fmt: skip


EXPLICIT, IMPLICIT = run_of(60), run_of(60, syntax=ImplicitVRLittleEndian)


@pytest.fixture(autouse=True)
def _nothing_remembered() -> Iterator[None]:
    partition._shapes_of.cache_clear()
    columns.known_cells().clear()
    yield
    partition._shapes_of.cache_clear()
    columns.known_cells().clear()


def flipped(content: bytes, at: int, bits: int) -> bytes:
    """The same file with other bits in one byte."""
    return content[:at] + bytes([content[at] ^ bits]) + content[at + 1 :]


def hold(files: Sequence[bytes], *, times: int = 2) -> int:
    """Read files as runs, the second time by what was learnt, and walked one by one; how many were read."""
    part = Partition([str(number) for number in range(len(files))], [len(one) for one in files], Held(files))
    walked = read_quickly(part, is_remembering=False)
    for _ in range(times):
        found = read_quickly(part)
        assert found.numbers.tolist() == walked.numbers.tolist()
        for name, column in walked.columns.items():
            assert found.columns[name].equals(column), name
    return len(walked.numbers)


def sifted(files: Sequence[bytes], runs: Runs) -> list[int]:
    """The files that runs leave."""
    left = list[int]()
    for begin in range(0, len(files), AT_ONCE):
        some, apart = files[begin : begin + AT_ONCE], HEAD + APART
        source = Held(some)
        heads = Partition(list(map(str, range(len(some)))), [len(x) for x in some], source).heads(
            np.arange(len(some)), n_bytes=HEAD, block=new_block(AT_ONCE, n_bytes=HEAD)
        )
        left += (begin + runs.take(heads, begin + np.arange(len(some)), apart=apart, is_last=True)).tolist()
    return left


@pytest.mark.parametrize("files", [EXPLICIT, IMPLICIT], ids=["explicit", "implicit"])
def test_a_series_is_taken_up_on_few_bases(files: list[bytes]) -> None:
    runs = Runs(wanted_elements(), shapes())
    assert sifted(files, runs) == []
    assert len(runs.segments) <= 2
    assert sum(segment.n for segment in runs.segments) == len(files)


@pytest.mark.parametrize(
    ("files", "flip", "is_near"), [(EXPLICIT, 0x01, False), (IMPLICIT, 0x20, True)], ids=["explicit", "implicit"]
)
def test_any_one_byte_of_a_file_in_the_run_counts_for_that_file_alone(files: list[bytes], flip: int, is_near: bool) -> None:
    """Preamble, meta group, headers, lengths, values, pixels: every byte, some in each run, side by side or far apart."""
    odd = range(3, len(files), 2)
    n_runs = -(-len(files[0]) // len(odd))
    for number in range(n_runs):
        run = list(files)
        places = range(number * len(odd), len(files[0])) if is_near else range(number, len(files[0]), n_runs)
        for at, which in zip(places, odd, strict=False):
            run[which] = flipped(run[which], at, flip)
        assert hold(run, times=1) >= len(files) - len(odd)


def test_a_file_of_a_run_says_what_pydicom_says_of_it_alone() -> None:
    run = list(EXPLICIT)
    for number, at in zip(range(1, 60, 2), range(132, len(run[0]) - 130, len(run[0]) // 30), strict=False):
        run[number] = flipped(run[number], at, 0x11)
    assert differences(run) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"SpecificCharacterSet": "ISO_IR 192"},
        {"SpecificCharacterSet": "ISO_IR 101"},
        {"PixelRepresentation": 0, "PixelPaddingValue": 63536},
        {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1"},
        {"PixelData": bytes(100)},
        {"PixelData": None},
        {"SeriesDescription": "of another length"},
        {"SeriesDescription": ""},
        {"KVP": None},
    ],
    ids=str,
)
def test_what_governs_a_file_is_its_own(changes: dict[str, Any]) -> None:
    told = {"SpecificCharacterSet": "ISO_IR 100", "SeriesDescription": "Kopf f\xfcr"}
    one, other = run_of(80, **told), run_of(80, **told | changes)
    mixed = [b if at in {7, 30, 31, 55} or at >= 70 else a for at, (a, b) in enumerate(zip(one, other, strict=True))]
    assert hold(mixed) >= 65
    assert differences(mixed[20:40] + mixed[60:]) == []


def test_lengths_that_change_from_file_to_file_and_series_that_alternate_are_told_apart() -> None:
    swinging = [encoded(scan(at % 5, InstanceNumber=at, ImagePositionPatient=[0, 0, [1, 22.5, -333.25, 4][at % 4]], **SAME))
                for at in range(120)]  # fmt: skip
    others = run_of(60, SeriesInstanceUID=uid(77), SeriesDescription="Abdomen 5.1")
    assert hold(swinging) == 120
    assert hold([one for pair in zip(EXPLICIT, others, strict=True) for one in pair]) == 120
    assert hold([*EXPLICIT[:50], *others[:3], *IMPLICIT[:50], *others[3:], EXPLICIT[50], *swinging]) == 281
    assert differences([*EXPLICIT[:20], *others[:3], *IMPLICIT[:5], *swinging[:20]]) == []


def test_files_without_pixels_end_where_their_shape_does() -> None:
    run = [encoded(ct(slice_=at % 9, PixelData=None, InstanceNumber=100 + at)) for at in range(60)]
    run[20], run[30], run[40] = run[20] + bytes(8), run[30][:-1], run[40] + run[41][-20:]
    assert hold(run) >= 57
    assert differences(run[10:45]) == []


def test_sequences_of_undefined_length_are_the_same_or_walked() -> None:
    files = [encoded(scan(4 if at % 7 else 5, is_undefined=True, InstanceNumber=100 + at, **SAME)) for at in range(70)]
    assert hold(files) == 70
    assert differences(files[:20]) == []


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_a_shape_derived_from_another_is_the_one_that_a_walk_finds(syntax: Any) -> None:
    wanted = wanted_elements()
    told = [{"SeriesDescription": text, "ImagePositionPatient": [0, 0, z], "SeriesInstanceUID": uid(int(z) * 7)}
            for text, z in (("", 1), ("a", 22.25), ("some longer text", 1), ("x" * 300, 333))]  # fmt: skip
    files = [encoded(scan(3, **SAME | change), syntax=syntax) for change in told]
    heads = Partition(list(map(str, range(4))), [len(x) for x in files], Held(files)).heads(
        np.arange(4), n_bytes=HEAD, block=None
    )
    walked = [shape_of(heads, row, wanted=wanted) for row in range(4)]
    heads_of = [np.frombuffer(one.ljust(HEAD, b"\0"), np.uint8) for one in files]
    for a, base in zip(walked, heads_of, strict=True):
        for b, head in zip(walked, heads_of, strict=True):
            assert a is not None
            assert b is not None
            found = a.reshaped(head[: b.end], base)
            assert found is not None
            assert (found.end, found.at.tolist(), found.lengths.tolist()) == (b.end, b.at.tolist(), b.lengths.tolist())
            assert np.array_equal(found.fixed, b.fixed)
            assert a.reshaped(head[: b.end - 1], base) is None


def test_first_bytes_are_those_of_the_files_asked_for_in_any_order(tmp_path: Path) -> None:
    names = [f"{at}.bin" for at in range(5)]
    for at, name in enumerate(names):
        (tmp_path / name).write_bytes(bytes([at] * 9))
    held = Held([bytes([at] * 9) for at in range(5)])
    parts = [
        Partition([*"01234"], [9] * 5, held),
        Partition(names, [9] * 5, held, [str(tmp_path / name) for name in names]),
    ]
    for part in parts:
        for numbers in ([1, 0, 3], [0, 1, 2, 3, 4], [4], [2, 3], [0, 4], [3, 1]):
            heads = part.heads(np.array(numbers), n_bytes=HEAD, block=None)
            assert heads.block[heads.start + 8].tolist() == numbers
            assert heads.sizes.tolist() == [9] * len(numbers)


@pytest.mark.parametrize("n_bytes", [1, 8, 256, 257, 8000])
def test_values_of_many_lengths_take_no_more_memory_than_their_bytes(n_bytes: int) -> None:
    lengths = [n_bytes, -1, 0, n_bytes // 2, n_bytes]
    content = bytes(range(1, 251)) * 160 + bytes(PAD)
    start = np.arange(5) * 8000
    found = Found.none_of(5, slots=1)
    found.offset[0], found.length[0] = start, lengths
    heads = Heads(np.frombuffer(content, np.uint8), start, start + 8000, np.full(5, 8000))
    tracemalloc.start()
    try:
        raws = Batch(heads, found, np.arange(5)).values(0).raws()
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
    told = [None if n < 0 else content[at : at + n] for at, n in zip(start.tolist(), lengths, strict=True)]
    assert raws == told


def test_the_block_of_a_thread_is_used_again_and_never_by_two_readers() -> None:
    spare = Spare()
    with spare.block(10, n_bytes=64) as first, spare.block(10, n_bytes=64) as second:
        assert not np.shares_memory(first, second)
    with spare.block(5, n_bytes=64) as again:
        assert again is first
    with spare.block(1000, n_bytes=8192) as larger:
        assert len(larger) > 1000 * 8192


def test_few_files_of_a_run_among_many_others_are_read_with_them(tmp_path: Path) -> None:
    """Headers of their own, some longer than the first bytes, and in no order of lengths: runs give up, and hand back."""
    long = [ct(slice_=at) for at in range(70)]
    for at, ds in enumerate(long):
        block = ds.private_block(0x0009, "LONG", create=True)
        for number in range(1 + at * 7 % 40):
            block.add_new(0x10 + number, "LO", "x" * (at * 13 % 50))
        if at % 3 == 0:
            block.add_new(0xF0, "OB", bytes(9_000 + at))
    others = [encoded(ds) for ds in long]
    files = [*others[:3], *EXPLICIT[:9], *others[3:], *EXPLICIT[9:13]]
    items = []
    for at, content in enumerate(files):
        (tmp_path / f"{at:03d}").write_bytes(content)
        items.append((f"{at:03d}", len(content), 7))
    source = header_source(str(tmp_path), [(path, size) for path, size, _ in items], cache=tmp_path / "cache")
    part = Partition([i[0] for i in items], [i[1] for i in items], source, [str(tmp_path / i[0]) for i in items])
    found, walked = read_quickly(part), read_quickly(part, is_remembering=False)
    assert found.numbers.tolist() == walked.numbers.tolist() == list(range(len(files)))
    for name, column in walked.columns.items():
        assert found.columns[name].equals(column), name


def test_files_that_vanish_end_or_turn_into_others_while_a_run_is_read_are_judged_alone(tmp_path: Path) -> None:
    names = [f"{at:03d}.dcm" for at in range(300)]
    long = [encoded(scan(at % 9, InstanceNumber=100 + at, PixelData=bytes(20_000), Rows=100, Columns=100, **SAME))
            for at in range(300)]  # fmt: skip
    for name, content in zip(names, long, strict=True):
        (tmp_path / name).write_bytes(content)
    items = [(name, (tmp_path / name).stat().st_size, 7) for name in names]
    (tmp_path / names[10]).unlink()
    (tmp_path / names[50]).write_bytes(b"")
    (tmp_path / names[90]).write_bytes(long[90][:700])
    (tmp_path / names[100]).write_bytes(long[100][:-1])
    (tmp_path / names[127]).write_bytes(EXPLICIT[3])
    (tmp_path / names[128]).write_bytes(IMPLICIT[3])
    (tmp_path / names[140]).unlink()
    os.mkfifo(tmp_path / names[140])
    (tmp_path / names[200]).unlink()
    (tmp_path / names[200]).mkdir()
    (tmp_path / names[299]).write_text("no header")
    source = header_source(str(tmp_path), [(path, size) for path, size, _ in items], cache=tmp_path / "cache")
    for _ in range(2):
        rows = read_files(items, root=str(tmp_path), cache=tmp_path / "cache").rows(named=True)
        assert [row["path"] for row in rows] == names
        assert sum(row["fate"] == "instance" for row in rows) == 300 - 6  # the one that was cut in its pixels is listed whole
        for number in (9, 10, 11, 50, 51, 90, 127, 128, 129, 140, 200, 201, 298, 299):
            assert rows[number] == read_alone(items[number], source), names[number]


def test_what_is_remembered_of_values_is_bounded_whatever_sets_files_declare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "MOST_KINDS", 20)
    monkeypatch.setattr(columns, "MOST_CELLS", 3)
    files = [encoded(scan(at % 9, SpecificCharacterSet=f"UNKNOWN {at}", **SAME)) for at in range(40)]
    assert hold(files) == 40
    assert len(columns.known_cells()) <= 21
    assert max(map(len, columns.known_cells().values())) <= 3


def test_runs_rest_where_every_header_has_a_shape_of_its_own() -> None:
    files = [encoded(scan(3, SeriesDescription="x" * (at * 37 % 61), ProtocolName="y" * (at * 29 % 53), **SAME))
             for at in range(140)]  # fmt: skip
    assert hold(files, times=1) == 140
    assert Runs(wanted_elements(), shapes()).is_resting
    assert hold([*files, *EXPLICIT]) == 200
    assert not Runs(wanted_elements(), partition.Remembered()).is_resting
