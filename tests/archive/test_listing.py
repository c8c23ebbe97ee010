"""Archives inside an archive root are entered as folders; what is wrong with one is told; nothing is unpacked beside it."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import random
import struct
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ospor_batch.archive.listing import list_archive, list_in_folders
from ospor_batch.archive.walk import Folder
from ospor_batch.errors import ArchiveError, ItemRefused, StudyError
from ospor_batch.sources import locate, open_bytes, path_text, read_bytes, roots
from ospor_batch.sources.containers import Limits
from ospor_batch.sources.tars import Tar, unpack
from ospor_batch.sources.zips import Zip
from tests.sources.made import contents, encrypted, listed, refusals, tarred, zipped

FILES = {"a/1": b"one", "a/2": b"two" * 9000, "b": b""}
MODES = ("w", "w:gz", "w:bz2", "w:xz")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "private" / "cache"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def packings() -> dict[str, bytes]:
    found = {f"{mode}.tar".replace(":", "_"): tarred(FILES, mode=mode) for mode in MODES}
    return found | {"d.zip": zipped(FILES), "s.ZIP": zipped(FILES, method=zipfile.ZIP_STORED)}


@pytest.mark.parametrize("name", packings())
def test_members_are_listed_as_below_a_folder_and_read_without_unpacking(root: Path, cache: Path, name: str) -> None:
    (root / name).write_bytes(packings()[name])
    assert contents(root, cache) == {f"{name}/{path}": content for path, content in FILES.items()}
    assert [path.name for path in root.iterdir()] == [name]


@pytest.mark.parametrize("name", packings())
def test_an_archive_may_be_the_root_itself(root: Path, cache: Path, name: str) -> None:
    (root / name).write_bytes(packings()[name])
    assert contents(root / name, cache) == {f"{name}/{path}": content for path, content in FILES.items()}


@pytest.mark.parametrize("packing", packings())
def test_a_root_that_is_an_archive_needs_no_name_of_one(root: Path, cache: Path, packing: str) -> None:
    (root / "export").write_bytes(packings()[packing])
    assert contents(root / "export", cache) == {f"export/{path}": content for path, content in FILES.items()}


@pytest.mark.parametrize("outer", packings())
@pytest.mark.parametrize("mode", MODES)
def test_archives_inside_archives_are_entered_once(root: Path, cache: Path, outer: str, mode: str) -> None:
    inner = tarred({"x": b"deep", "more.zip": zipped({"y": b"too deep"})}, mode=mode)
    held = {"sub/in.tar": inner, "z.zip": zipped({"q": b"r"}), "plain.zip": b"no archive at all"}
    packed = zipped(held) if outer.lower().endswith("zip") else tarred(held)
    (root / outer).write_bytes(packed)
    assert contents(root, cache) == {
        f"{outer}/sub/in.tar/x": b"deep", f"{outer}/z.zip/q": b"r", f"{outer}/plain.zip": b"no archive at all",
    }  # fmt: skip
    assert refusals(root, cache)[f"{outer}/sub/in.tar/more.zip"] == "nested_too_deep"


def test_a_name_alone_makes_no_archive_and_folders_may_be_named_like_one(root: Path, cache: Path) -> None:
    (root / "x.zip").write_bytes(b"DICM or not")
    (root / "y.tgz").write_bytes(gzip.compress(b"one file, gzipped"))
    (root / "folder.zip").mkdir()
    (root / "folder.zip" / "f").write_bytes(b"plain")
    found = contents(root, cache)
    assert set(found) == {"x.zip", "y.tgz", "folder.zip/f"}
    assert found["folder.zip/f"] == b"plain"


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_names_that_lead_out_are_refused_and_nothing_is_written(root: Path, cache: Path, pack: object) -> None:
    names = ["../../out", "/etc/passwd", "a/../../b", "C:\\windows\\x", ".."]
    packed = pack(dict.fromkeys([*names, "./good//file"], b"x"))  # type: ignore[operator]
    name = "p.zip" if pack is zipped else "p.tar"
    (root / name).write_bytes(packed)
    found = refusals(root, cache)
    assert sorted(reason or "" for reason in found.values()) == ["", *["unsafe_name"] * len(names)]
    assert found[f"{name}/good/file"] is None
    assert contents(root, cache) == {f"{name}/good/file": b"x"}
    assert not (root.parent / "out").exists()


def test_names_that_are_not_utf_8_and_long_ones_are_found_again(root: Path, cache: Path) -> None:
    odd, long = os.fsdecode(b"\xb1\xe8\\.dcm"), "/".join(["n" * 250] * 16)
    (root / "n.tar").write_bytes(tarred({odd: b"odd", long: b"long"}))
    (root / "n.zip").write_bytes(zipped({long: b"long", "이름": b"name"}))
    raw = bytearray(zipped({"k__k": b"cp949"}))
    (root / "k.zip").write_bytes(raw.replace(b"k__k", b"\xb1\xe8\xb1\xe8"))
    assert contents(root, cache) == {
        f"n.tar/{path_text(odd.replace(chr(92), '/'))}": b"odd", f"n.tar/{long}": b"long", f"n.zip/{long}": b"long",
        "n.zip/이름": b"name", f"k.zip/{path_text(os.fsdecode(bytes([0xb1, 0xe8, 0xb1, 0xe8])))}": b"cp949",
    }  # fmt: skip


def test_of_equal_names_the_last_stands_and_the_others_are_told(root: Path, cache: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        packed.writestr("a", b"first")
        with pytest.warns(UserWarning, match="Duplicate name"):
            packed.writestr("a", b"second")
    (root / "d.zip").write_bytes(out.getvalue())
    assert refusals(root, cache) == {"d.zip/a": None, "d.zip/a//0": "duplicate_name"}
    assert contents(root, cache) == {"d.zip/a": b"second"}


def test_links_devices_and_sparse_files_of_tars_are_refused_by_type(root: Path, cache: Path) -> None:
    kinds = {"sym": tarfile.SYMTYPE, "pipe": tarfile.FIFOTYPE, "disk": tarfile.BLKTYPE, "odd": b"Z", "lost": tarfile.LNKTYPE}

    def change(info: tarfile.TarInfo) -> None:
        info.type = kinds.get(info.name, tarfile.LNKTYPE if info.name == "again" else tarfile.REGTYPE)
        info.linkname = "file" if info.name == "again" else "nowhere"
        info.size = 4 if info.isreg() else 0

    (root / "t.tar").write_bytes(tarred(dict.fromkeys(["file", *kinds, "again"], b"same"), change=change))
    assert {path[6:]: reason for path, reason in refusals(root, cache).items()} == {
        "file": None, "sym": "link_in_archive", "pipe": "special_file", "disk": "special_file", "odd": "unsupported_member",
        "lost": "broken_link", "again": None,
    }  # fmt: skip
    assert contents(root, cache) == {"t.tar/file": b"same", "t.tar/again": b"same"}


def test_members_with_a_password_are_refused(root: Path, cache: Path) -> None:
    (root / "e.zip").write_bytes(encrypted(zipped(FILES)))
    assert set(refusals(root, cache).values()) == {"encrypted"}


@pytest.mark.parametrize("name", packings())
@pytest.mark.parametrize("share", [0.1, 0.6, 0.97])
def test_a_cut_archive_is_told_and_what_it_held_is_kept(root: Path, cache: Path, name: str, share: float) -> None:
    packed = packings()[name]
    (root / name).write_bytes(packed[: int(len(packed) * share)])
    found = listed(root, cache)
    if name == "w.tar" and share == 0.97:  # only the zeros behind the last member are cut
        assert set(found) == {f"{name}/{path}" for path in FILES}
    else:
        assert found[name].is_folder
        assert found[name].refusal == "broken_archive"
    with pytest.raises(ArchiveError) if len(found) == 1 else contextlib.nullcontext():
        list(list_archive(str(root / name), cache=cache))


def test_a_broken_header_inside_a_tar_does_not_end_it_in_silence(root: Path, cache: Path) -> None:
    packed = bytearray(tarred({"a": b"a", "b": b"b", "c": b"c"}))
    packed[1024 + 148] ^= 0x55  # the checksum of the second header
    (root / "h.tar").write_bytes(packed)
    assert refusals(root, cache) == {"h.tar/a": None, "h.tar": "broken_archive"}


def test_what_lies_behind_the_end_of_a_tar_is_told(root: Path, cache: Path) -> None:
    one, two = tarred({"a": b"a"}), tarred({"b": b"b"})
    (root / "joined.tar").write_bytes(one + two)
    (root / "cut_between_members.tar").write_bytes(one[:1024])
    (root / "whole.tar").write_bytes(one + bytes(10240))
    assert refusals(root, cache) == {
        "joined.tar/a": None, "joined.tar": "broken_archive",
        "cut_between_members.tar/a": None, "cut_between_members.tar": "broken_archive",
        "whole.tar/a": None,
    }  # fmt: skip


def test_a_member_whose_bytes_rotted_is_refused_when_it_is_read(root: Path, cache: Path) -> None:
    noise = random.Random(1).randbytes(5000)
    packed = bytearray(zipped({"r": noise}))
    packed[2000] ^= 0xFF
    (root / "r.zip").write_bytes(packed)
    with pytest.raises(ItemRefused) as refused:
        read_bytes(locate(str(root), "r.zip/r", cache=cache))
    assert refused.value.reason == "broken_archive"


def test_a_zip_bomb_is_refused_by_its_own_words(root: Path, cache: Path) -> None:
    (root / "bomb.zip").write_bytes(zipped({"zeros": bytes(80 << 20)}))
    found = listed(root, cache)["bomb.zip/zeros"]
    assert found.refusal == "archive_limit"
    assert "for each stored one" in found.detail


def test_a_tar_bomb_is_cut_off_while_it_is_unpacked(tmp_path: Path) -> None:
    packed = io.BytesIO(gzip.compress(bytes(8 << 20)))
    with (tmp_path / "out").open("wb") as out, pytest.raises(ItemRefused) as refused:
        unpack(packed, out, form="gz", room=3 << 20)
    assert refused.value.reason == "archive_limit"
    assert (tmp_path / "out").stat().st_size <= 3 << 20


def test_a_bomb_leaves_nothing_in_the_cache(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roots, "LIMITS", Limits(ratio=2, free_bytes=1 << 20))
    (root / "b.tar.gz").write_bytes(tarred({"z": bytes(4 << 20)}, mode="w:gz"))
    assert refusals(root, cache) == {"b.tar.gz": "archive_limit"}
    assert [path for path in cache.iterdir() if not path.name.endswith(".lock")] == []


def test_too_many_members_refuse_the_archive_before_they_are_held(tmp_path: Path) -> None:
    few = Limits(members=2)
    for of, packed in ((Zip, zipped(FILES)), (Tar, tarred(FILES))):
        more = {"token": b""} if of is Tar else {}
        with pytest.raises(ItemRefused) as refused:
            of(io.BytesIO(packed), size=len(packed), limits=few, **more)
        assert refused.value.reason == "archive_limit"


def test_a_zip_that_lies_about_its_count_and_one_whose_members_overlap_are_refused() -> None:
    packed = bytearray(zipped({str(n): b"" for n in range(60)}))
    struct.pack_into("<H", packed, packed.rfind(b"PK\x05\x06") + 10, 1)
    with pytest.raises(ItemRefused) as refused:
        Zip(io.BytesIO(packed), size=len(packed), limits=Limits(members=50))
    assert refused.value.reason == "archive_limit"
    lying = bytearray(zipped({"a": b"x" * 100}, method=zipfile.ZIP_STORED))
    struct.pack_into("<I", lying, lying.rfind(b"PK\x01\x02") + 20, 1 << 20)
    with pytest.raises(ItemRefused) as refused:
        Zip(io.BytesIO(lying), size=len(lying))
    assert refused.value.reason == "archive_limit"


def test_a_tar_header_made_to_fill_the_memory_ends_the_tar() -> None:
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 2 << 20
    packed = info.tobuf() + bytes(2 << 20)
    with pytest.raises(ItemRefused) as refused:
        Tar(io.BytesIO(packed), size=len(packed), token=b"")
    assert refused.value.reason == "broken_archive"


def test_a_young_archive_is_listed_itself_and_not_opened(root: Path, cache: Path) -> None:
    (root / "y.zip").write_bytes(b"still arriving")
    for name, mtime_ns in (("old", 1), ("by_a_wrong_clock", 10**18)):
        (root / f"{name}.zip").write_bytes(zipped({"a": b"a"}))
        os.utime(root / f"{name}.zip", ns=(1, mtime_ns))
    os.utime(root / "y.zip", ns=(1, 20))
    found = listed(root, cache, settled_before_ns=10)
    assert found["y.zip"].is_folder
    assert found["y.zip"].refusal is None
    assert set(found) == {"y.zip", "old.zip/a", "by_a_wrong_clock.zip/a"}


def test_what_changes_in_a_zip_alone_changes_its_member_and_no_other(root: Path, cache: Path) -> None:
    (root / "c.zip").write_bytes(zipped({"a": b"12", "b": b"34"}))
    before = listed(root, cache)
    (root / "c.zip").write_bytes(zipped({"a": b"12", "b": b"43", "c": b"56"}))
    after = listed(root, cache)
    assert before["c.zip/a"].size_bytes == after["c.zip/a"].size_bytes
    assert before["c.zip/a"].mtime_ns % 10**9 == after["c.zip/a"].mtime_ns % 10**9
    assert before["c.zip/b"].mtime_ns % 10**9 != after["c.zip/b"].mtime_ns % 10**9


def test_a_tar_that_changed_changes_every_member_since_it_has_no_checksums(root: Path, cache: Path) -> None:
    (root / "c.tar").write_bytes(tarred({"a": b"12"}))
    os.utime(root / "c.tar", ns=(1, 1))
    before = listed(root, cache)
    (root / "c.tar").write_bytes(tarred({"a": b"21"}))
    assert before["c.tar/a"].mtime_ns != listed(root, cache)["c.tar/a"].mtime_ns


@settings(deadline=None, max_examples=150)
@given(at=st.integers(0, 10**6), value=st.integers(0, 255), name=st.sampled_from(sorted(packings())))
@example(at=246, value=0, name="d.zip")  # a member without a name
@example(at=312, value=152, name="d.zip")  # a directory that is said to begin too far behind
def test_any_changed_byte_is_a_listing_or_a_refusal(
    tmp_path_factory: pytest.TempPathFactory, at: int, value: int, name: str
) -> None:
    folder = tmp_path_factory.mktemp("changed")
    (folder / "root").mkdir()
    packed = bytearray(packings()[name])
    packed[at % len(packed)] = value
    (folder / "root" / name).write_bytes(packed)
    for path, file in listed(folder / "root", folder / "cache").items():
        if file.refusal is None:
            try:
                read_bytes(locate(str(folder / "root"), path, cache=folder / "cache"))
            except ItemRefused as refused:
                assert refused.reason in {"broken_archive", "file_missing"}  # noqa: PT017 -- most changes are harmless


@pytest.mark.parametrize("root", ["ftp://h/x", "s3://", "dicomweb+ftp://h", "http://h/x"])
def test_a_scheme_that_is_not_read_is_named(root: str, cache: Path) -> None:
    with pytest.raises(StudyError, match="no archive that is read here"):
        list(list_archive(root, cache=cache))


def test_credentials_in_a_url_are_refused_and_not_repeated(cache: Path) -> None:
    with pytest.raises(StudyError) as refused:
        list(list_archive("dicomweb+https://me:hunter2@h/x", cache=cache))
    assert "hunter2" not in str(refused.value)


def test_a_root_that_is_no_archive_or_not_there_stops_the_center(root: Path, cache: Path) -> None:
    (root / "notes.txt").write_bytes(b"text")
    (root / "broken.zip").write_bytes(b"PK\x03\x04 and no more")
    for name in ("notes.txt", "broken.zip", "absent"):
        with pytest.raises(ArchiveError):
            list(list_archive(str(root / name), cache=cache))


def test_a_path_longer_than_the_system_opens_is_a_typed_reject(root: Path, cache: Path) -> None:
    """Names of 250 bytes down to a path of more than 4,096; made and removed step by step, since no path leads there."""
    name, here = "d" * 250, Path.cwd()
    try:
        os.chdir(root)
        for _ in range(15):
            Path(name).mkdir()
            os.chdir(name)
        Path("fits").write_bytes(b"x")
        Path(name).mkdir()
        os.chdir(name)
        Path("f" * 200).write_bytes(b"x")
        Path(name).mkdir()
        found = refusals(root, cache)
        in_folders = [
            f
            for item in list_in_folders(str(root), cache=cache)
            for f in (item.files() if isinstance(item, Folder) else [item])
        ]
    finally:
        os.chdir(here)
        subprocess.run(["rm", "-rf", root], check=True)  # it can remove what pytest cannot
    assert {file.path: file.refusal for file in in_folders} == found
    below = "/".join([name] * 15)
    assert found.pop(f"{below}/fits") is None
    assert set(found.values()) == {"name_too_long"}
    assert len(found) >= 1


def test_a_member_that_vanished_is_refused_for_now(root: Path, cache: Path) -> None:
    (root / "v.zip").write_bytes(zipped({"a": b"a"}))
    place = locate(str(root), "v.zip/gone", cache=cache)
    with pytest.raises(ItemRefused) as refused, open_bytes(place):
        pass
    assert (refused.value.reason, refused.value.is_transient) == ("file_missing", True)
    (root / "v.zip").unlink()
    with pytest.raises(ItemRefused) as refused, open_bytes(place):
        pass
    assert refused.value.reason == "file_missing"


def test_a_file_that_shrinks_while_it_is_read_costs_itself_alone(root: Path, cache: Path) -> None:
    (root / "s.zip").write_bytes(zipped({"a": bytes(200_000)}, method=zipfile.ZIP_STORED))
    with open_bytes(locate(str(root), "s.zip/a", cache=cache)) as file:
        assert file.read(10) == bytes(10)
        os.truncate(root / "s.zip", 1000)
        assert len(file.read()) < 200_000
