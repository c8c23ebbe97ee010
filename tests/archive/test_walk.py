"""A folder tree is listed whole, in one order, and nothing in it hangs or loops."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ospor_batch.archive.walk import Folder, partitions, walk, walk_folders
from ospor_batch.errors import ArchiveError, ItemRefused
from ospor_batch.sources import local_path, open_bytes, path_name, path_text


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

    @contextmanager
    def scandir(path: Any) -> Iterator[Any]:
        if Path(path) == folder:
            raise PermissionError(13, "Permission denied")
        with real(path) as entries:
            yield entries

    monkeypatch.setattr(os, "scandir", scandir)


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


@pytest.mark.parametrize("at_once", [1, 2, 1000])
def test_folders_are_listed_together_as_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr("ospor_batch.archive.walk.AT_ONCE", at_once)
    for name in ("a/1", "a/2", "a/3", "b/\\udc80", "b/이름", "b/c/x", "z"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "a" / "link").symlink_to(tmp_path / "z")
    (tmp_path / "a" / "nowhere").symlink_to(tmp_path / "gone")
    os.mkfifo(tmp_path / "b" / "pipe")
    together = [file for item in walk_folders(tmp_path) for file in (item.files() if isinstance(item, Folder) else [item])]
    assert sorted(together) == sorted(walk(tmp_path))
    assert len(together) == 10
