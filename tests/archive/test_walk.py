"""A folder tree is listed whole, in one order, and nothing in it hangs or loops."""

from __future__ import annotations

import errno
import itertools
import os
import socket
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ospor_batch.archive import ahead, asking, statuses
from ospor_batch.archive import walk as walk_module
from ospor_batch.archive.listing import list_archive, list_in_folders
from ospor_batch.archive.look import look_at
from ospor_batch.archive.partition import names_on_disk
from ospor_batch.archive.walk import Folder, Listed, partitions, walk, walk_folders
from ospor_batch.errors import ArchiveError, ItemRefused
from ospor_batch.sources import local_path, open_bytes, path_name, path_text
from ospor_batch.sources.names import LAST_SECOND


def paths(root: Path) -> list[str]:
    return [listed.path for listed in walk(root)]


def test_every_file_is_listed_once_in_a_stable_order(tmp_path: Path) -> None:
    for name in ("b/2", "b/1", "a/deep/er/x", "z", "a/0"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = paths(tmp_path)
    assert sorted(found) == ["a/0", "a/deep/er/x", "b/1", "b/2", "z"]
    assert found == paths(tmp_path)


def test_linked_folders_are_followed_once_and_loops_end(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "real").mkdir(parents=True)
    outside.mkdir()
    (root / "real" / "f").write_bytes(b"x")
    (outside / "g").write_bytes(b"x")
    (root / "a_link").symlink_to(root / "real")
    (root / "real" / "up").symlink_to(root)
    (root / "more").symlink_to(outside)
    assert sorted(paths(root)) == ["more/g", "real/f"]


def test_names_without_bytes_of_a_file_are_refused_by_type(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    (tmp_path / "self").symlink_to(tmp_path / "self")
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(tmp_path)
        try:
            server.bind("socket")
        finally:
            os.chdir(here)
    found = {listed.path: listed.refusal for listed in walk(tmp_path)}
    assert found == {"pipe": "special_file", "socket": "special_file", "nowhere": "broken_link", "self": "broken_link"}


def test_a_pipe_in_the_place_of_a_file_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ItemRefused) as refused, open_bytes(tmp_path / "pipe"):
        pass
    assert refused.value.reason == "special_file"


@pytest.mark.parametrize(
    "raw", [b"\xb1\xe8.dcm", b"back\\slash", b"\\udcff", b"\\u005c", "이름".encode(), b"a\\u005cudc80\xff"]
)
def test_any_name_survives_as_text_and_is_found_again(tmp_path: Path, raw: bytes) -> None:
    name = os.fsdecode(raw)
    (tmp_path / name).write_bytes(b"x")
    (text,) = paths(tmp_path)
    assert text.encode("utf-8").decode() == text
    assert path_name(text) == name
    assert path_text(name) == text
    assert local_path(tmp_path, text).read_bytes() == b"x"


def test_a_folder_that_cannot_be_listed_is_told_and_the_rest_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("open", "closed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_bytes(b"x")
    deny(monkeypatch, tmp_path / "closed")
    found = {listed.path: listed for listed in walk(tmp_path)}
    assert set(found) == {"open/f", "closed"}
    assert found["closed"].refusal == "permission_denied"
    assert found["closed"].is_folder


def deny(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Refuse to list one folder, as the system does to users without the right; root has every right."""
    real = os.scandir

    def scandir(path: Any) -> Any:
        if Path(path) == folder:
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)


@pytest.mark.parametrize("beside", [0, None], ids=["together", "one by one"])
def test_a_share_that_is_unmounted_under_way_is_not_taken_for_removed_files(tmp_path: Path, beside: int | None) -> None:
    """What is mounted over a folder goes, and the empty folder below shows again."""
    root = tmp_path / "root"
    for name in ("a/1", "b/2", "b/c/3", "d/4"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    listing = iter(walk(root) if beside is None else walk_folders(root, beside=beside, left=lambda _: None))
    first = next(listing)
    root.rename(tmp_path / "elsewhere")
    root.mkdir()
    rest = {item.path: item.refusal for item in listing if isinstance(item, Listed)}
    assert (first.path, rest) == ("a" if beside == 0 else "a/1", {"b": "read_error", "d": "read_error"})


def test_files_of_a_share_that_is_unmounted_while_they_are_asked_for_are_not_taken_for_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, real = tmp_path / "root", statuses.ask
    root.mkdir()
    (root / "1").write_bytes(b"x")

    def ask(folder: bytes, names: list[bytes]) -> bytes:
        root.rename(tmp_path / "elsewhere")
        root.mkdir()
        return real(folder, names)

    monkeypatch.setattr(statuses, "ask", ask)
    with pytest.raises(ArchiveError, match="Stale"):
        apart(root, beside=0)


@pytest.mark.parametrize("is_removed", [True, False])
def test_a_folder_that_is_there_and_does_not_answer_is_told_and_one_that_was_removed_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_removed: bool
) -> None:
    """A folder over which nothing can be mounted is there, and when it is opened there is none such (autofs)."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "c").write_bytes(b"x")
    real = os.scandir

    def scandir(path: Any) -> Any:
        if str(path).endswith("a"):
            if is_removed:
                (tmp_path / "a").rename(tmp_path.with_name("gone"))
            raise FileNotFoundError(errno.ENOENT, "No such file or directory")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = {file.path: file.refusal for file in apart(tmp_path, beside=0)}
    assert found == ({"c": None} if is_removed else {"c": None, "a": "read_error"})


def test_two_folders_to_which_a_file_system_gives_one_number_are_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a/1", "b/2", "b/c/3", "skip/4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "b" / "up").symlink_to(tmp_path)
    real = ahead.identity
    monkeypatch.setattr(ahead, "identity", lambda path: (0, 0) if str(path)[-2:] in {"/a", "/b", "/c"} else real(path))
    skip = [tmp_path / "skip"]
    assert {file.path for file in walk(tmp_path, skip=skip)} == {"a/1", "b/2", "b/c/3"}
    assert {item.path for item in walk_folders(tmp_path, skip=skip, beside=0)} == {"a", "b", "b/c"}


def test_times_beyond_what_a_column_holds_end_where_it_does(tmp_path: Path) -> None:
    """A clock that says 2400 on ext4, or 9999 elsewhere; a file behind a link is asked for alone."""
    (tmp_path / "late").write_bytes(b"x")
    os.utime(tmp_path / "late", ns=(0, 13_569_465_600 * 10**9))
    (tmp_path / "link").symlink_to("late")
    found = {file.path: file.mtime_ns for file in apart(tmp_path, beside=0)}
    assert found == {file.path: file.mtime_ns for file in walk(tmp_path)}
    assert set(found.values()) <= {LAST_SECOND * 10**9, (2**34 - 2**31 - 1) * 10**9}
    assert max(found.values()) < 2**63


def test_a_root_that_does_not_answer_stops_the_center_with_what_the_system_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a network share or a FUSE mount whose server is gone: every look at it fails."""
    real = os.stat

    def stat(path: Any, **more: Any) -> Any:
        if str(path).rstrip("/") == str(tmp_path / "share"):
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        return real(path, **more)

    monkeypatch.setattr(os, "stat", stat)
    for listed in (list_archive, list_in_folders):
        with pytest.raises(ArchiveError, match="not connected"):
            list(listed(str(tmp_path / "share"), cache=tmp_path / "cache"))
    with pytest.raises(ArchiveError):
        look_at(str(tmp_path / "share"))
    assert names_on_disk(["a/x.dcm"], root=str(tmp_path / "share")) == [str(tmp_path / "share" / "a" / "x.dcm")]


def test_a_link_to_itself_is_no_fault_of_the_archive_that_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert look_at(str(tmp_path)) == "1 entries at the top"


def test_a_root_that_cannot_be_listed_stops_the_center(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deny(monkeypatch, tmp_path)
    with pytest.raises(ArchiveError, match="PermissionError"):
        list(walk(tmp_path))


def test_what_is_skipped_is_not_listed(tmp_path: Path) -> None:
    (tmp_path / "workspace").mkdir()
    (tmp_path / "workspace" / "own").write_bytes(b"x")
    (tmp_path / "f").write_bytes(b"x")
    assert [listed.path for listed in walk(tmp_path, skip=[tmp_path / "workspace"])] == ["f"]


def test_a_new_name_moves_no_partition_but_its_own() -> None:
    items = [f"folder{n // 50:03d}/{n:05d}" for n in range(3000)]
    before = [tuple(items[part]) for part in partitions(items, size=100)]
    assert [item for part in before for item in part] == items
    wider = ["a", *items]
    after = {tuple(wider[part]) for part in partitions(wider, size=100)}
    assert len(set(before) - after) == 1


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is worth asking another process."""
    monkeypatch.setattr(asking, "ALONE", 0)
    monkeypatch.setattr(asking, "FEWEST", 0)


def apart(root: Path, *, beside: int) -> list[Listed]:
    """What walk_folders lists, one by one."""
    found = walk_folders(root, beside=beside)
    return [file for item in found for file in (item.files() if isinstance(item, Folder) else [item])]


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize(("at_once", "beside"), [(1, 0), (2, 2), (1000, 0), (1000, 1)])
def test_folders_are_listed_together_as_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int, beside: int
) -> None:
    monkeypatch.setattr("ospor_batch.archive.walk.AT_ONCE", at_once)
    for name in ("a/1", "a/2", "a/3", "b/\\udc80", "b/이름", "b/c/x", "z", os.fsdecode(b"b/\xb1\xe8")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(os.fsencode(name))
    (tmp_path / "a" / "link").symlink_to(tmp_path / "z")
    (tmp_path / "a" / "nowhere").symlink_to(tmp_path / "gone")
    (tmp_path / "b" / "c" / "up").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "b" / "pipe")
    together = apart(tmp_path, beside=beside)
    assert sorted(together) == sorted(walk(tmp_path))
    assert len(together) == 11


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("most", [1, 50_000])
def test_the_order_does_not_depend_on_the_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr("ospor_batch.archive.walk.MOST_UNDER_WAY", most)
    monkeypatch.setattr("ospor_batch.archive.walk.AT_ONCE", 7)
    for number in range(300):
        folder = tmp_path / str(number % 5) / str(number % 3)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}").write_bytes(b"x" * number)
        os.utime(folder / f"{number}", ns=(number, number * 10**9 - 7))  # before 1970, too
    alone = list(walk_folders(tmp_path, beside=0))
    assert all(list(walk_folders(tmp_path, beside=n)) == alone for n in (1, 3))
    assert sorted(apart(tmp_path, beside=2)) == sorted(walk(tmp_path))


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("when", ["never there", "gone at once", "gone later"])
def test_a_process_that_is_gone_is_not_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    for number in range(40):
        (tmp_path / f"{number % 4}").mkdir(exist_ok=True)
        (tmp_path / f"{number % 4}" / f"{number}").write_bytes(b"x")
    if when == "never there":
        monkeypatch.setattr(asking, "sys", SimpleNamespace(executable=str(tmp_path / "no-python")))
    real, n_heard = asking._Beside.hear, itertools.count()

    def hear(each: Any, **more: Any) -> None:
        if next(n_heard) == (0 if when == "gone at once" else 3):
            each._process.kill()
            each._process.wait()
        real(each, **more)

    monkeypatch.setattr(asking._Beside, "hear", hear)
    monkeypatch.setattr("ospor_batch.archive.walk.AT_ONCE", 3)
    assert sorted(apart(tmp_path, beside=2)) == sorted(walk(tmp_path))


def test_what_changes_while_it_is_asked_is_told_as_it_is_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stays", "goes", "turns"):
        (tmp_path / "a" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "a" / name).write_bytes(b"x")
    real = statuses.ask

    def ask(folder: bytes, names: list[bytes]) -> bytes:
        for name in ("goes", "turns"):
            (tmp_path / "a" / name).unlink()
        (tmp_path / "a" / "turns").mkdir()
        (tmp_path / "a" / "turns" / "inside").write_bytes(b"x")
        monkeypatch.setattr(statuses, "ask", real)
        return real(folder, names)

    monkeypatch.setattr(statuses, "ask", ask)
    assert [file.path for file in apart(tmp_path, beside=0)] == ["a/stays", "a/turns/inside"]


def test_a_folder_of_which_one_file_is_not_told_counts_as_not_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a/1", "a/2", "a/b/3", "c"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    real, taken = statuses.ask, walk_module._take

    def ask(folder: bytes, names: list[bytes]) -> bytes:
        return bytes(statuses.BYTES_A_NAME * len(names)) if folder.endswith(b"a") else real(folder, names)

    def take(entry: Any, *args: Any) -> None:
        if entry.name == "2":
            raise OSError(errno.EIO, "Input/output error")
        taken(entry, *args)

    monkeypatch.setattr(statuses, "ask", ask)
    monkeypatch.setattr(walk_module, "_take", take)
    told = {file.path: (file.refusal, file.is_folder) for file in apart(tmp_path, beside=0)}
    assert told == {"a": ("read_error", True), "a/b/3": (None, False), "c": (None, False)}


def test_any_way_of_asking_gives_the_same_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [b"one", b"two", b"gone", b"link", b"folder", b"nul\0"]
    for number, name in enumerate(names[:2]):
        (tmp_path / os.fsdecode(name)).write_bytes(b"x" * number)
        os.utime(tmp_path / os.fsdecode(name), ns=(0, -(number + 1)))
    (tmp_path / "link").symlink_to("one")
    (tmp_path / "folder").mkdir()
    by_call = statuses.ask(os.fsencode(tmp_path), names[:-1])
    monkeypatch.setattr(statuses, "_statx", None)
    assert statuses.ask(os.fsencode(tmp_path), names[:-1]) == by_call
    assert statuses.ask(os.fsencode(tmp_path), names)[10:12] == bytes(2)
    assert statuses.ask(os.fsencode(tmp_path / "none"), names) == bytes(6 * statuses.BYTES_A_NAME)


def test_an_answer_that_is_waited_for_brings_more_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "ALONE", 10)
    monkeypatch.setattr(asking, "FAR_NS", 0)
    monkeypatch.setattr(asking, "FAR", 4)
    started: list[int] = []
    real = asking.Askers._start
    monkeypatch.setattr(asking.Askers, "_start", lambda askers: (started.append(1), real(askers))[1])
    for number in range(30):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "f").write_bytes(b"x")
    assert len(list(walk_folders(tmp_path))) == 30
    assert len(started) == 4


def test_a_folder_that_answers_late_is_not_asked_alone_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of few files, too: 40,000 of a share that answers in a millisecond are 40 seconds."""
    real, n_here = statuses.ask, itertools.count()

    def late(folder: bytes, names: list[bytes]) -> bytes:
        next(n_here)
        time.sleep(0.02)
        return real(folder, names)

    monkeypatch.setattr(statuses, "ask", late)
    for number in range(100):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "f").write_bytes(b"x")
    assert len(list(walk_folders(tmp_path))) == 100
    assert next(n_here) < 90
