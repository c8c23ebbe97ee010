"""Folders that answer late are opened together; what is listed, and in which order, does not change."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from ospor_batch.archive import ahead
from ospor_batch.archive.ahead import Ahead
from ospor_batch.archive.walk import walk_folders

DELAY_S = 0.005


def tree(root: Path) -> None:
    for name in (f"p{n // 6:02d}/s{n % 6}/{kind}/f" for n in range(60) for kind in ("a", "b")):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_bytes(b"x")


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Every folder takes a while to open; how many are being opened, at each opening."""
    real, lock, under_way, seen = ahead._open, threading.Lock(), [0], list[int]()

    def slow(path: str) -> Any:
        with lock:
            under_way[0] += 1
            seen.append(under_way[0])
        time.sleep(DELAY_S)
        try:
            return real(path)._replace(waited_ns=int(DELAY_S * 10**9))
        finally:
            with lock:
                under_way[0] -= 1

    monkeypatch.setattr(ahead, "_open", slow)
    return seen


def test_folders_that_answer_late_are_opened_together(tmp_path: Path, late: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path)
    found = list(walk_folders(tmp_path, beside=0))
    assert max(late) > 4
    assert len(late) == 1 + 10 + 60 + 120  # each once
    monkeypatch.undo()
    assert found == list(walk_folders(tmp_path, beside=0))


def test_where_folders_answer_at_once_nothing_is_opened_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path)
    monkeypatch.setattr(Ahead, "_begin", lambda *_: pytest.fail("nobody waits"))
    monkeypatch.setattr(ahead, "SLOW_NS", 10**9)
    assert len(list(walk_folders(tmp_path, beside=0))) == 120


def test_what_is_opened_ahead_in_vain_is_closed(tmp_path: Path, late: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a listing that ends early, and of a folder that is skipped, into which nobody looks."""
    tree(tmp_path)
    monkeypatch.setattr(ahead, "MOST_HELD", 5)
    monkeypatch.setattr(ahead, "FIRST", 1)
    n_open = len(list(Path("/proc/self/fd").iterdir()))
    listing = walk_folders(tmp_path, beside=0, skip=[tmp_path / "p05"])
    found = [item.path for _, item in zip(range(70), listing, strict=False)]
    assert not any(path.startswith("p05") for path in found)
    assert len(late) > 60
    listing.close()  # type: ignore[attr-defined]
    assert len(list(Path("/proc/self/fd").iterdir())) == n_open


def test_a_folder_that_fails_ahead_fails_when_it_is_listed(
    tmp_path: Path, late: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    tree(tmp_path)
    slow = ahead._open

    def closed(path: str) -> Any:
        if path.endswith("p07"):
            raise PermissionError(13, "Permission denied")
        return slow(path)

    monkeypatch.setattr(ahead, "_open", closed)
    found = {item.path: getattr(item, "refusal", None) for item in walk_folders(tmp_path, beside=0)}
    assert found.pop("p07") == "permission_denied"
    assert len(found) == 9 * 12
    assert max(late) > 4
