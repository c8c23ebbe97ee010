"""The private cache holds what it wrote whole, once, and no more than it may."""

from __future__ import annotations

import errno
import shutil
import stat
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import BinaryIO

import pytest

from ospor_batch.errors import ItemRefused, StorageError
from ospor_batch.sources.cache import LEAST_FREE_BYTES, Cache


def writes(content: bytes) -> object:
    return lambda out: out.write(content)


def names(cache: Cache) -> list[str]:
    return sorted(path.name for path in cache.folder.iterdir() if not path.name.endswith(".lock"))


def test_a_file_is_written_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "private" / "cache")
    first = cache.kept("a", "b", write=lambda out: out.write(b"one"))
    again = cache.kept("a", "b", write=lambda _: pytest.fail("written twice"))
    other = cache.kept("ab", "", write=lambda out: out.write(b"two"))
    assert first == again != other
    assert first.read_bytes() == b"one"
    assert stat.S_IMODE(first.stat().st_mode) == 0o600
    assert stat.S_IMODE(cache.folder.stat().st_mode) == 0o700


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit_bytes=250)
    for name in ("a", "b"):
        cache.kept(name, write=lambda out: out.write(bytes(100)))
        time.sleep(0.01)
    kept = cache.kept("a", write=lambda _: pytest.fail("it is there"))
    cache.kept("c", write=lambda out: out.write(bytes(100)))
    assert kept.is_file()
    assert len(names(cache)) == 2


def test_what_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    def fails(out: BinaryIO) -> None:
        out.write(b"half")
        raise ItemRefused("broken_archive")

    cache = Cache(tmp_path)
    with pytest.raises(ItemRefused):
        cache.kept("a", write=fails)
    assert names(cache) == []


def test_a_full_disk_stops_the_stage(tmp_path: Path) -> None:
    def full(_: BinaryIO) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StorageError):
        Cache(tmp_path).kept("a", write=full)


def test_a_disk_that_is_nearly_full_stops_the_stage_and_refuses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the disk cannot hold is no fault of the archive; a gigabyte is left for the catalog."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=LEAST_FREE_BYTES + 150))
    cache = Cache(tmp_path)
    cache.kept("fits", write=lambda out: out.write(bytes(100)))
    with pytest.raises(StorageError, match="free space") as stop:
        cache.kept("large", write=lambda out: [out.write(bytes(100)) for _ in range(2)])
    assert stop.value.exit_code == 16
    assert len(names(cache)) == 1


def test_the_cache_takes_half_of_a_small_disk_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def free(_: Path) -> SimpleNamespace:
        return SimpleNamespace(free=LEAST_FREE_BYTES + 1000 - sum(path.stat().st_size for path in tmp_path.iterdir()))

    monkeypatch.setattr(shutil, "disk_usage", free)
    for number in range(20):
        Cache(tmp_path).kept(f"{number}", write=lambda out: out.write(bytes(100)))
    assert len(names(Cache(tmp_path))) == 5


def test_two_at_once_write_one_file(tmp_path: Path) -> None:
    n_written = []

    def slow(out: BinaryIO) -> None:
        n_written.append(1)
        time.sleep(0.05)
        out.write(b"x")

    threads = [threading.Thread(target=Cache(tmp_path).kept, args=("a",), kwargs={"write": slow}) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(n_written) == 1
