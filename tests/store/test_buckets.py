"""Buckets bound what is read and written; merging and deleting files never takes a kept run's version away."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ospor_batch.contracts import contract
from ospor_batch.contracts.table import schema_of
from ospor_batch.errors import ContractError, StudyError
from ospor_batch.store import Change, Store, SweepCounts, bucket_groups, full_key, n_buckets
from ospor_batch.store import tables as module

COUNTS = SweepCounts()


def key_of(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def file(number: int, *, folder: int = 0, size: int = 1, center: str = "north") -> dict[str, Any]:
    return {
        "center": center,
        "file_key": key_of("file", center, number),
        "archive": "a",
        "path": f"{folder}/{number}",
        "folder_key": key_of("folder", center, folder),
        "series_key": key_of("series", number),
        "size_bytes": size,
        "mtime_ns": 1,
        "fate": "instance",
        "reason": None,
        "content_digest": None,
        "reader_version": "1",
    }


def files(*rows: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=schema_of("file"), orient="row")


def commit(store: Store, rows: pl.DataFrame, *, retired: pl.DataFrame | None = None, center: str = "north") -> None:
    store.commit({"file": Change(rows, retired)}, stage="crawl", center=center, counts=COUNTS)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "a work space % ö 한 *")  # names that a URL would write otherwise


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Data files that a read was handed."""
    found: list[str] = []
    real = pl.scan_parquet

    def scan(source: Any, *args: Any, **more: Any) -> pl.LazyFrame:
        found.extend(source if isinstance(source, list) else [source])
        return real(source, *args, **more)

    monkeypatch.setattr(pl, "scan_parquet", scan)
    return found


def buckets_of(paths: list[str]) -> set[str]:
    return {part for path in paths for part in path.split("/") if part.startswith("bucket=")}


def test_large_tables_declare_their_buckets() -> None:
    assert {name: contract(name).bucket_by for name in ("file", "instance", "locator")} == {
        "file": "folder_key",
        "instance": "series_key",
        "locator": "series_key",
    }
    assert full_key("file") == ["center", "file_key", "folder_key"]
    assert full_key("locator") == ["center", "series_key", "file_key"]
    assert full_key("reject") == list(contract("reject").primary_key)


def test_only_the_buckets_asked_for_are_read(store: Store, opened: list[str]) -> None:
    commit(store, files(*(file(n, folder=n) for n in range(300))))
    commit(store, files(*(file(n, folder=n, center="south") for n in range(300))), center="south")
    opened.clear()
    one = pl.DataFrame({"folder_key": [key_of("folder", "north", 7)]})
    assert store.current("file", center="north", among=one)["path"].to_list() == ["7/7"]
    assert len(buckets_of(opened)) == 1
    opened.clear()
    assert store.current("file", center="south").height == 300
    assert all(name.startswith("bucket=south-") for name in buckets_of(opened))
    opened.clear()
    numbers = range(10)
    some = store.current("file", center="north", buckets=numbers)
    assert 0 < some.height < 300
    assert buckets_of(opened) <= {f"bucket=north-{number:02d}" for number in numbers}
    assert store.current("file", buckets=numbers).filter(center="north").equals(some)


def test_a_workspace_that_tables_cannot_lie_in_is_named(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="bracket"):
        Store(tmp_path / "work [1]")


def test_a_small_commit_writes_one_file_in_one_bucket(store: Store) -> None:
    commit(store, files(*(file(n, folder=n) for n in range(300))))
    before = set(store._folder("file").glob("bucket=*/*.parquet"))
    commit(store, files(file(7, folder=7, size=2)))
    (new,) = set(store._folder("file").glob("bucket=*/*.parquet")) - before
    assert new.parent.name.startswith("bucket=north-")


def test_groups_of_buckets_hold_every_row_once(store: Store) -> None:
    commit(store, files(*(file(n, folder=n) for n in range(300))))
    sizes = store.sizes("file", center="north")
    assert sum(sizes) == 300
    groups = bucket_groups(sizes, most=40)
    assert [number for group in groups for number in group] == list(range(n_buckets("file")))
    assert all(sum(sizes[number] for number in group) <= 40 for group in groups)
    parts = [store.current("file", center="north", buckets=group) for group in groups]
    assert pl.concat(parts).sort("center", "file_key").equals(store.current("file", center="north"))


def test_a_row_that_changes_its_bucket_leaves_the_old_one(store: Store) -> None:
    rows = [file(n, folder=n) for n in range(3)]
    commit(store, files(*rows))
    moved = rows[1] | {"folder_key": key_of("folder", "north", 99)}
    commit(store, files(moved), retired=files(rows[1]).select(full_key("file")))
    assert store.current("file").filter(path="1/1")["folder_key"].to_list() == [moved["folder_key"]]
    old = files(rows[1]).select("folder_key")
    assert store.current("file", center="north", among=old).height == 0
    commit(store, files(rows[1]), retired=files(moved).select(full_key("file")))
    assert store.current("file").height == 3


def test_what_was_ever_written_and_what_came_after_a_commit(store: Store) -> None:
    commit(store, files(*(file(n, folder=n) for n in range(4))))
    commit(store, files(file(1, folder=1, size=2)), retired=files(file(2, folder=2)).select(full_key("file")))
    after = store.ever("file", center="north", columns=["folder_key"], after=1)
    assert set(after["folder_key"]) == {key_of("folder", "north", n) for n in (1, 2)}
    sizes = store.ever("file", center="north", columns=["size_bytes"], among=files(file(1, folder=1)).select("folder_key"))
    assert sizes["size_bytes"].to_list() == [1, 2]
    with pytest.raises(ContractError, match="retire a key"):
        store.ever("file", center="north", columns=["size_bytes"], after=1)
    assert store.ever("instance", center="north", columns=["series_key"]).height == 0


def crowd(store: Store, *, n: int = module.MOST_FILES + 3) -> None:
    for number in range(n):
        commit(store, files(file(number, folder=0)))


def test_merging_leaves_every_row_and_every_pinned_version(store: Store) -> None:
    crowd(store)
    pinned, rows = store.snapshot(), store.current("file")
    contents = store.contents(pinned)
    commit(store, files(file(99, folder=0)))
    assert store.compact() > module.MOST_FILES
    assert store.compact() == 0
    now = store.current("file")
    assert now.height == rows.height + 1
    assert store.current("file", snapshot=pinned).equals(rows)
    store.vacuum(keep=[pinned], grace_hours=0)
    n_data = sum(1 for _ in store._folder("file").glob("bucket=*/*.parquet"))
    assert n_data == pinned_files(store, pinned) + 1  # the merged one; that of the last commit stands in no kept version
    assert store.current("file", snapshot=pinned).equals(rows)
    assert store.current("file").equals(now)
    assert store.contents(pinned) == contents != store.contents(store.snapshot())
    store.vacuum(keep=[], grace_hours=0)
    assert sum(1 for _ in store._folder("file").glob("bucket=*/*.parquet")) == 1
    assert store.current("file").equals(now)


def pinned_files(store: Store, snapshot: dict[str, int]) -> int:
    return len(store._door("file")._files(snapshot["file"], buckets=None))


def test_small_files_of_many_buckets_are_merged_before_reading_takes_longer(store: Store) -> None:
    for number in range(12):
        commit(store, files(file(number, folder=number % 2), file(100 + number, folder=2 + number % 2)))
    rows, n_files = store.current("file"), store._door("file")._n_files()
    assert max(n_files.values()) <= module.MOST_FILES
    assert store.compact() == sum(n_files.values())
    assert set(store._door("file")._n_files().values()) == {1}
    assert store.current("file").equals(rows)


def test_a_reader_takes_few_commits_one_by_one_and_any_version_still_stands(store: Store) -> None:
    crowd(store, n=21)
    log = store._folder("file") / "_delta_log"
    assert len(list(log.glob("*.checkpoint.parquet"))) == 2
    assert store._door("file").version() == 21
    assert [store.current("file", snapshot={"file": version}).height for version in (1, 9, 10, 11, 21)] == [1, 9, 10, 11, 21]


def test_merging_names_no_new_contents(store: Store) -> None:
    crowd(store)
    before = store.snapshot()
    store.compact()
    after = store.snapshot()
    assert before != after
    assert store.contents(before) == store.contents(after)


def test_a_late_reader_keeps_its_files_for_the_grace(store: Store) -> None:
    crowd(store)
    pinned = store.snapshot()
    store.compact()
    store.vacuum(keep=[])
    assert store.current("file", snapshot=pinned).height == module.MOST_FILES + 3


def test_a_merge_that_died_is_put_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    crowd(store)
    rows = store.current("file")
    with monkeypatch.context() as patched:
        patched.setattr(module.Writing, "finish", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            store.compact()
    assert store.current("file").equals(rows)
    commit(store, files(file(99, folder=0)))
    assert store.current("file").height == rows.height + 1
    assert store.current("file").filter(path="0/99").height == 1


def test_the_log_of_a_table_is_never_cut(store: Store) -> None:
    crowd(store, n=1)
    configuration = store._door("file")._open(None).metadata().configuration
    assert configuration["delta.enableExpiredLogCleanup"] == "false"
    assert configuration["delta.logRetentionDuration"].split()[1] == "36500"


def test_a_commit_in_pieces_is_seen_whole_or_not_at_all(store: Store) -> None:
    commit(store, files(file(0)))
    with store.writing("crawl", center="north") as writing:
        for number in range(1, 4):
            writing.append({"file": Change(files(file(number)))})
            assert Store(store.workspace).current("file").height == 1
        assert writing.finish(COUNTS) == 2
    assert store.current("file").height == 4
    die_after(store, file(9))
    assert store.current("file").height == 4
    commit(store, files(file(5)))
    assert store.current("file")["path"].str.slice(2).sort().to_list() == ["0", "1", "2", "3", "5"]


def test_a_table_that_died_first_is_put_back_once(store: Store) -> None:
    die_after(store, file(9))
    commit(store, files(file(1)))
    at = store._door("file").version()
    store.commit({"reject": Change(reject())}, stage="crawl", center="north", counts=COUNTS)
    assert store._door("file").version() == at
    assert store.current("file")["path"].to_list() == ["0/1"]


def die_after(store: Store, row: dict[str, Any]) -> None:
    """A commit that ends between its rows and its sweep row."""
    with contextlib.suppress(KeyError), store.writing("crawl", center="north") as writing:
        writing.append({"file": Change(files(row))})
        raise KeyError


def reject() -> pl.DataFrame:
    row = {"center": "north", "stage": "crawl", "level": "file", "item_key": "k", "scope": "a", "reason": "nifti", "detail": ""}
    return pl.DataFrame([row | {"is_transient": False}], schema=schema_of("reject"))


def test_columns_that_came_later_are_null_in_older_rows(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    real = module.schema_of
    monkeypatch.setattr(
        module, "schema_of", lambda name: pl.Schema({n: t for n, t in real(name).items() if n != "content_digest"})
    )
    commit(store, files(file(1)))
    monkeypatch.setattr(module, "schema_of", real)
    assert store.current("file")["content_digest"].to_list() == [None]
    commit(store, files(file(2) | {"content_digest": "0" * 64}))
    assert store.current("file")["content_digest"].null_count() == 1


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    nights=st.lists(
        st.dictionaries(st.integers(0, 8), st.tuples(st.integers(0, 3), st.one_of(st.none(), st.integers(1, 3)))),
        min_size=1,
        max_size=6,
    )
)
def test_the_current_rows_are_those_of_a_dictionary(
    tmp_path_factory: pytest.TempPathFactory, nights: list[dict[int, tuple[int, int | None]]]
) -> None:
    store = Store(tmp_path_factory.mktemp("model"))
    model: dict[int, dict[str, Any]] = {}
    for number, night in enumerate(nights):
        rows, gone = [], []
        for item, (folder, size) in night.items():
            before = model.pop(item, None)
            after = None if size is None else file(item, folder=folder, size=size)
            if before is not None and (after is None or after["folder_key"] != before["folder_key"]):
                gone.append(before)
            if after is not None:
                model[item] = after
                rows.append(after)
        commit(store, files(*rows), retired=files(*gone).select(full_key("file")))
        if number == 2:
            store.compact()
        expected = files(*model.values()).sort("center", "file_key")
        assert store.current("file").equals(expected)
