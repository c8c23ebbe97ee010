"""Rows of any bucket that lie together: taken as they were written, read by bucket, and parted when they are many."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl
import pytest

from ospor_batch.store import Change, Store, n_buckets, together, write_data

from .test_buckets import COUNTS, commit, file, files


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "a work space % ö 한 *")


def adopt(store: Store, *numbers: range, center: str = "north") -> None:
    """Commit files, each range as a data file of its own."""
    with store.writing("crawl", center=center) as writing:
        written = []
        for number, each in enumerate(numbers):
            path = store.private / f"{number}.parquet"
            rows = files(*(file(n, folder=n, center=center) for n in each))
            written.append((path, write_data("file", Change(rows), number=writing.number, target=path)))
        writing.adopt({"file": written})
        writing.finish(COUNTS)


def folders(store: Store) -> set[str]:
    return {path.parent.name for path in store._folder("file").glob("bucket=*/*.parquet")}


@pytest.mark.parametrize("has_links", [True, False])
def test_data_files_are_taken_as_they_are_and_read_by_bucket(
    store: Store, monkeypatch: pytest.MonkeyPatch, *, has_links: bool
) -> None:
    if not has_links:  # as on some network file systems
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(95, "not supported")))
    commit(store, files(*(file(n, folder=n) for n in range(100))))
    adopt(store, range(100, 250), range(250, 300))
    adopt(store, range(50), center="south")
    assert {"bucket=north-all", "bucket=south-all"} < folders(store)
    assert store.current("file", center="north")["path"].sort().to_list() == sorted(f"{n}/{n}" for n in range(300))
    sizes = store.sizes("file", center="north")
    for number in range(n_buckets("file")):
        some = store.current("file", center="north", buckets=[number])
        assert some.height == sizes[number]
        assert store.current("file", buckets=[number]).filter(center="north").equals(some)
    one = files(file(260, folder=260))
    assert store.current("file", center="north", among=one.select("folder_key")).equals(one)


def test_a_later_row_replaces_one_that_lies_together(store: Store) -> None:
    adopt(store, range(5))
    commit(store, files(file(3, folder=3, size=2)), retired=files(file(4, folder=4)).select("center", "file_key", "folder_key"))
    found = store.current("file").sort("path")
    assert found.select("path", "size_bytes").rows() == [("0/0", 1), ("1/1", 1), ("2/2", 1), ("3/3", 2)]


def test_rows_that_would_be_many_together_are_parted_at_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "MOST_TOGETHER", 100)
    monkeypatch.setattr(together, "RUN_ROWS", 60)
    adopt(store, range(40), range(40, 80))
    assert folders(store) == {"bucket=north-all"}
    adopt(store, range(80, 110), range(110, 150), range(150, 160))
    assert len(folders(store)) > 10
    assert store.current("file").height == 160


def test_tidying_parts_what_lies_together_and_any_pinned_version_still_stands(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(together, "MOST_TOGETHER", 100)
    adopt(store, range(40), range(40, 80))
    commit(store, files(file(3, folder=3, size=2)))
    pinned, rows = store.snapshot(), store.current("file")
    assert store.compact() >= 2
    store.vacuum(keep=[pinned], grace_hours=0)
    assert store.current("file").equals(rows)
    assert store.current("file", snapshot=pinned).equals(rows)
    store.vacuum(keep=[], grace_hours=0)
    assert "bucket=north-all" not in folders(store)
    assert store.current("file").equals(rows)


def test_data_files_of_a_commit_that_died_are_never_seen(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    adopt(store, range(5))
    with monkeypatch.context() as patched:
        patched.setattr("ospor_batch.store.tables.Writing.finish", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            adopt(store, range(5, 9))
    assert store.current("file").height == 5
    adopt(store, range(5, 7))
    assert store.current("file").height == 7


def test_a_column_that_came_later_is_added_before_files_that_hold_it(store: Store) -> None:
    adopt(store, range(2))
    door = store._door("file")
    later = pl.DataFrame({"center": ["north"], "is_later": [True]})
    path = store.private / "later.parquet"
    later.write_parquet(path)
    schema = pl.Schema({"center": pl.String(), "is_later": pl.Boolean(), "bucket": pl.String()})
    version = door.adopt([(path, 1)], schema=schema, bucket="north-all", description="")
    found = door.scan(pl.Schema({"is_later": pl.Boolean()}), version=version).collect()
    assert found["is_later"].to_list().count(True) == 1
    assert found.height == 3
