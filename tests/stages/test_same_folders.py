"""Folders listed as they were are not compared, and no night ends otherwise than if they had been."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ospor_batch.archive.changes import compare
from ospor_batch.errors import StudyError
from ospor_batch.stages import crawl as stage
from ospor_batch.store import Store
from tests.archive.made import write_series
from tests.stages.test_crawl import HOUR_NS, Center, unlistable

FOLDERS = ["", "a", "a/b", "c"]
NAMES = ["1", "2", "한", "x y"]
SECOND_NS = 10**9


@pytest.fixture
def center(tmp_path: Path, key: bytes) -> Center:
    return Center(tmp_path, key)


def watched(of: Center, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many listed names each comparison is given."""
    sizes: list[int] = []

    def counted(listing: pl.DataFrame, known: pl.DataFrame, **more: Any) -> Any:
        sizes.append(listing.height)
        return compare(listing, known, **more)

    monkeypatch.setattr(stage, "compare", counted)
    return sizes


def test_from_the_second_night_on_only_folders_that_differ_are_compared(
    center: Center, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = write_series(center.archive / "a", n=3)
    write_series(center.archive / "b", n=2, series=2)
    center.crawl()
    before = center.store.snapshot()
    sizes = watched(center, monkeypatch)
    assert center.counts()["unchanged"] == 5
    assert sum(sizes) == 5
    sizes.clear()
    summary = center.crawl()
    assert sizes == []
    assert (summary.requested, summary.done, dict(summary.notes)["unchanged"]) == (5, 5, 5)
    assert center.store.snapshot() == before
    first[0].unlink()
    counts = center.counts()
    assert set(sizes) == {2}
    assert (counts["vanished"], counts["unchanged"], counts["read"]) == (1, 4, 0)
    sizes.clear()
    assert center.counts()["unchanged"] == 4
    assert sum(sizes) == 2
    sizes.clear()
    assert center.counts()["unchanged"] == 4
    assert sizes == []


def test_what_is_remembered_holds_for_one_commit_one_reader_and_one_key(
    center: Center, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_series(center.archive, n=2)[0]
    center.crawl()
    center.crawl()
    home = center.store.private / "folders"
    kept = center.folder / "kept"
    shutil.copytree(home, kept)
    with pytest.raises(StudyError, match="another key"):
        center.crawl(key=b"another key of this benchmark")
    path.unlink()
    center.crawl()
    shutil.rmtree(home)
    shutil.copytree(kept, home)  # as when the crawl died after its commit
    shutil.copy(next(center.archive.iterdir()), path)
    assert center.counts()["read"] == 1
    center.crawl()
    monkeypatch.setattr(stage, "reader_version", lambda: "later")
    assert center.counts()["read"] == 2


def test_what_is_odd_beside_plain_files_keeps_its_fate(center: Center, monkeypatch: pytest.MonkeyPatch) -> None:
    write_series(center.archive / "a", n=2)
    write_series(center.archive / "a" / "closed", n=2, series=2)
    for _ in range(2):
        center.crawl()
    (center.archive / "a" / "link").symlink_to("nowhere")
    for _ in range(3):
        with unlistable(monkeypatch, center.archive / "a" / "closed"):
            summary = center.crawl()
        assert (summary.requested, summary.done) == (6, 4)
        assert center.fates()["a/link"] == ("reject", "broken_link")
    (center.archive / "a" / "link").unlink()
    for _ in range(2):
        summary = center.crawl()
        assert (summary.requested, summary.done) == (4, 4)
    assert "a/link" not in center.fates()


ACTS = st.tuples(st.sampled_from(["put", "touch", "drop", "link", "young"]), st.sampled_from(FOLDERS), st.sampled_from(NAMES))


@settings(deadline=None, max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(nights=st.lists(st.lists(ACTS, max_size=4), min_size=5, max_size=5))
def test_every_night_ends_as_if_all_had_been_compared(
    nights: list[list[tuple[str, str, str]]], tmp_path_factory: pytest.TempPathFactory, key: bytes
) -> None:
    ours = Center(tmp_path_factory.mktemp("nights"), key)
    other = Center.__new__(Center)
    other.folder, other.key, other.archive, other.study = ours.folder, key, ours.archive, ours.study
    other.store = Store(ours.folder / "forgetful")
    (ours.archive / "stays").write_bytes(b"junk")
    at = ours.archive.stat().st_mtime_ns - 10 * HOUR_NS
    for night in nights:
        for what, folder, name in night:
            at += SECOND_NS
            act(what, ours.archive / folder / name, at=at)
        shutil.rmtree(other.store.private / "folders", ignore_errors=True)
        assert ours.counts(is_sweep=True) == other.counts(is_sweep=True)
        for table, rows in ours.tables().items():
            columns = [name for name in rows.columns if name not in {"first_seen_at", "seen_at"}]
            assert rows.select(columns).equals(other.tables()[table].select(columns)), table


def act(what: str, path: Path, *, at: int) -> None:
    """Do one thing to one name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if what in {"drop", "link"} and (path.is_file() or path.is_symlink()):
        path.unlink()
    if what == "link":
        path.symlink_to("nowhere")
    elif what in {"put", "touch", "young"}:
        if path.is_symlink():
            path.unlink()
        if what != "touch" or not path.exists():
            path.write_bytes(b"j" * (at % 97))
        if what != "young":
            os.utime(path, ns=(at, at))
