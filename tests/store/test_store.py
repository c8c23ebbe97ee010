"""The catalog is appended to, becomes visible by its sweep row alone, and never loses a row."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from ospor_batch.contracts.table import schema_of
from ospor_batch.errors import ContractError, LockedError, StorageError
from ospor_batch.store import Change, Store, SweepCounts, read_part, write_part

COUNTS = SweepCounts()


def rejects(*items: tuple[str, str]) -> pl.DataFrame:
    rows = [
        {
            "center": "north",
            "stage": "crawl",
            "level": "file",
            "item_key": item,
            "scope": "archive",
            "reason": reason,
            "detail": "",
            "is_transient": False,
        }
        for item, reason in items
    ]
    return pl.DataFrame(rows, schema=schema_of("reject"))


def commit(store: Store, rows: pl.DataFrame, retired: pl.DataFrame | None = None) -> int | None:
    return store.commit({"reject": Change(rows, retired)}, stage="crawl", center="north", counts=COUNTS)


KEY = {"center": ["north"], "stage": ["crawl"], "level": ["file"], "scope": ["archive"]}


def test_a_later_row_replaces_and_a_retired_key_is_gone(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert commit(store, rejects(("a", "truncated"), ("b", "not_dicom"))) == 1
    assert commit(store, rejects(("a", "empty_file"))) == 2
    assert commit(store, rejects(), pl.DataFrame({**KEY, "item_key": ["b"]})) == 3
    assert store.current("reject").select("item_key", "reason").rows() == [("a", "empty_file")]


def test_difference_writes_only_what_changed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    rows = rejects(("a", "truncated"), ("b", "not_dicom"))
    commit(store, rows)
    scope = pl.col("center") == "north"
    assert store.difference("reject", rows, scope=scope).is_empty
    change = store.difference("reject", rejects(("a", "truncated"), ("c", "nifti")), scope=scope)
    assert change.rows["item_key"].to_list() == ["c"]
    assert change.retired is not None
    assert change.retired["item_key"].to_list() == ["b"]
    assert (
        store.commit({"reject": store.difference("reject", rows, scope=scope)}, stage="crawl", center="north", counts=COUNTS)
        is None
    )


def test_a_snapshot_still_reads_the_same_after_later_commits(tmp_path: Path) -> None:
    store = Store(tmp_path)
    commit(store, rejects(("a", "truncated")))
    pinned = store.snapshot()
    commit(store, rejects(("b", "not_dicom")))
    assert store.current("reject", snapshot=pinned)["item_key"].to_list() == ["a"]
    assert store.current("reject")["item_key"].to_list() == ["a", "b"]


def test_rows_of_a_commit_that_died_are_never_seen_and_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    commit(store, rejects(("a", "truncated")))
    real = store._write

    def dies_before_the_sweep_row(table: str, rows: pl.DataFrame) -> int:
        if table == "sweep":
            raise KeyboardInterrupt
        return real(table, rows)

    monkeypatch.setattr(store, "_write", dies_before_the_sweep_row)
    with pytest.raises(KeyboardInterrupt):
        commit(store, rejects(("lost", "nifti")))
    again = Store(tmp_path)
    assert again.current("reject")["item_key"].to_list() == ["a"]
    commit(again, rejects(("b", "not_dicom")))
    assert again.current("reject")["item_key"].to_list() == ["a", "b"]


def test_a_table_born_in_a_dead_commit_is_emptied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    real = store._write
    monkeypatch.setattr(store, "_write", lambda table, rows: 1 / 0 if table == "sweep" else real(table, rows))
    with pytest.raises(ZeroDivisionError):
        commit(store, rejects(("lost", "nifti")))
    again = Store(tmp_path)
    assert again.current("reject").height == 0
    commit(again, rejects(("a", "truncated")))
    assert again.current("reject")["item_key"].to_list() == ["a"]


def test_a_row_that_breaks_its_contract_stops_the_commit(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(ContractError, match=r"reason\.pattern"):
        commit(store, rejects(("a", "Not A Typed Reason")))
    assert store.snapshot() == {}


def test_private_tables_lie_behind_a_closed_door(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert stat.S_IMODE(store.private.stat().st_mode) == 0o700
    assert store._folder("file").is_relative_to(store.private)
    assert not store._folder("reject").is_relative_to(store.private)


def test_a_second_writer_is_refused_and_a_reader_is_not(tmp_path: Path) -> None:
    store = Store(tmp_path)
    commit(store, rejects(("a", "truncated")))
    with store.lock():
        with pytest.raises(LockedError, match="another run or sweep"), Store(tmp_path).lock():
            pass
        assert Store(tmp_path).current("reject").height == 1


def test_a_part_is_whole_or_absent_and_stamped(tmp_path: Path) -> None:
    target = tmp_path / "reject.parquet"
    write_part(rejects(("a", "truncated")), "reject", target=target, stamp={"run_id": "r"})
    assert read_part("reject", source=target).height == 1
    stamped = pl.read_parquet_metadata(target)
    assert stamped["contract"] == "reject@1.0.0"
    assert stamped["run_id"] == "r"
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_is_a_clear_error_and_leaves_no_half_part(tmp_path: Path) -> None:
    script = """
import resource, sys
from pathlib import Path
from tests_store_rows import rows
from ospor_batch.errors import StorageError
from ospor_batch.store import write_part
resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
try:
    write_part(rows(), "reject", target=Path(sys.argv[1]) / "reject.parquet")
except StorageError as error:
    print(error.exit_code, error)
"""
    (tmp_path / "tests_store_rows.py").write_text(
        "import polars as pl\nfrom ospor_batch.contracts.table import schema_of\n"
        "def rows():\n    return pl.DataFrame([dict(center='n', stage='crawl', level='file', item_key=str(i * 7919), scope='a',"
        " reason='nifti', detail='', is_transient=False) for i in range(5000)], schema=schema_of('reject'))\n"
    )
    out = tmp_path / "out"
    out.mkdir()
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    said = subprocess.run([sys.executable, "-c", script, str(out)], env=env, capture_output=True, text=True, check=False)
    assert said.stdout.startswith(f"{StorageError.exit_code} the disk that holds the workspace is full"), said.stderr
    assert list(out.iterdir()) == []
