"""A crawl and its workers: killed ones go on, dying ones cost a file, and nothing secret travels to them."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ospor_batch.compute.executor import InLine, Outcome
from ospor_batch.errors import StorageError
from ospor_batch.stages import crawl as stage
from ospor_batch.stages import crawl_parts
from ospor_batch.store import Store, SweepCounts, read_staged
from ospor_batch.store.change import HISTORY
from tests.archive.made import write_series

from .test_crawl import Center


@pytest.fixture
def center(tmp_path: Path, key: bytes) -> Center:
    return Center(tmp_path, key)


class Killed(BaseException):
    """What a signal does to a crawl."""


class Killing(InLine):
    """An executor that ends after some partitions."""

    def __init__(self, after: int) -> None:
        self.after, self.n_done = after, 0

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Outcome[Any, Any]]:
        for outcome in super().map(function, items):
            if self.n_done == self.after:
                raise Killed
            self.n_done += 1
            yield outcome


def test_a_killed_crawl_goes_on_with_its_finished_parts(center: Center, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "PART_FILES", 2)
    monkeypatch.setattr(stage, "FIRST_TIMES", 1)
    write_series(center.archive, n=30)
    with pytest.raises(Killed):
        center.crawl(executor=Killing(after=3))
    assert center.store.snapshot() == {}
    assert list((center.store.private / "staging").rglob(crawl_parts.DONE))
    seen: list[tuple[int, int]] = []
    counter = Killing(after=10**6)
    summary = center.crawl(executor=counter, progress=lambda done, total: seen.append((done, total)))
    assert summary.done == 30
    assert 0 < counter.n_done < seen[-1][1]
    assert seen[-1][0] == seen[-1][1]
    assert all(done <= total or total == 0 for done, total in seen)
    assert not list((center.store.private / "staging").rglob("*"))


def test_parts_of_a_killed_crawl_are_not_taken_under_another_key(
    center: Center, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(stage, "PART_FILES", 2)
    monkeypatch.setattr(stage, "FIRST_TIMES", 1)
    write_series(center.archive, n=12)
    with pytest.raises(Killed):
        center.crawl(executor=Killing(after=3))
    assert list((center.store.private / "staging").rglob(crawl_parts.DONE))
    center.key = bytes(32)
    assert center.crawl().done == 12
    rows = center.store.current("instance", center="north")
    assert rows["patient_key"].n_unique() == rows["study_key"].n_unique() == 1


class Sharing(InLine):
    """An executor of so many workers that keeps how long parts were."""

    def __init__(self, n_workers: int) -> None:
        self._n_workers = n_workers
        self.lengths: list[int] = []

    @property
    def n_workers(self) -> int:
        return self._n_workers

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Outcome[Any, Any]]:
        for outcome in super().map(function, items):
            self.lengths.append(int(outcome.value or 0))
            yield outcome


def test_parts_of_a_first_crawl_grow_with_what_is_found_and_every_worker_has_some(
    center: Center, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "PART_FILES", 4)
    for number in range(120):
        target = center.archive / f"f{number // 8:02d}" / f"{number}.txt"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("no image")
    alone, many = Sharing(1), Sharing(16)
    center.crawl(executor=alone)
    assert sum(alone.lengths) == 120
    assert alone.lengths[0] <= 6
    assert 8 <= max(alone.lengths) <= 24
    center.store = Store(center.store.workspace.with_name("again"))
    center.crawl(executor=many)
    assert sum(many.lengths) == 120
    assert len(many.lengths) >= 16
    assert max(many.lengths) <= 6


class Dying:
    """An executor whose worker dies of one poisoned file, as a cluster reports it."""

    n_workers = 1
    is_here = True

    def __init__(self, poison: str, error: str = "worker_died") -> None:
        self.poison, self.error = poison, error

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Outcome[Any, Any]]:
        for item in items:
            if any(self.poison in path for path in read_staged(Path(item).with_name(crawl_parts.FILES))["path"]):
                yield Outcome(item, None, self.error)
            else:
                yield Outcome(item, function(item), None)


def test_a_file_that_kills_its_worker_is_found_and_refused(center: Center) -> None:
    write_series(center.archive, n=9)
    summary = center.crawl(executor=Dying("s1-004"))
    assert (summary.requested, summary.done) == (9, 8)
    assert center.fates()["s1-004.dcm"] == ("reject", "broken_header")


def test_a_full_disk_on_a_worker_stops_the_crawl(center: Center) -> None:
    write_series(center.archive, n=2)
    with pytest.raises(StorageError):
        center.crawl(executor=Dying("s1", "StorageError"))
    assert center.crawl().done == 2


class Elsewhere(Killing):
    """An executor whose workers may be on other machines."""

    is_here = False


def test_a_worker_elsewhere_has_no_key_and_its_rows_are_the_same(center: Center, tmp_path: Path, key: bytes) -> None:
    write_series(center.archive, n=5)
    (center.archive / "notes.txt").write_text("no image")
    with pytest.raises(Killed):
        center.crawl(executor=Elsewhere(after=0))
    staging = center.store.private / "staging"
    assert json.loads(next(staging.rglob(stage.NOW)).read_text())["key_at"] is None
    assert list(staging.rglob(crawl_parts.ROWS))
    assert not list(staging.rglob(crawl_parts.DONE))
    center.crawl(executor=Elsewhere(after=10**6))
    here = Center.__new__(Center)
    here.__dict__ |= vars(center) | {"store": Store(tmp_path / "here")}
    here.crawl()
    for table in ("file", "instance", "reject"):
        assert center.store.current(table).equals(here.store.current(table))


def test_a_part_of_a_killed_crawl_counts_for_whatever_commit_comes(center: Center, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "PART_FILES", 2)
    write_series(center.archive, n=6)
    with pytest.raises(Killed):
        center.crawl(executor=Killing(after=1))
    with center.store.writing("catalog", center="south") as writing:  # another commit takes its number
        writing.finish(SweepCounts(), is_recorded=True)
    assert center.crawl().done == 6
    rows = center.store._door("instance").scan(HISTORY, version=None).collect()
    assert rows["sweep_number"].unique().to_list() == [2]


class Looking(InLine):
    """An executor that keeps what was sent to it, and what lay on the disk while it worked."""

    def __init__(self, private: Path) -> None:
        self.private = private
        self.on_disk = b""

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Outcome[Any, Any]]:
        self.items = list(items)
        self.function = function
        for outcome in super().map(function, self.items):
            self.on_disk += b"".join(path.read_bytes() for path in self.private.rglob("*") if path.is_file())
            yield outcome


def test_no_path_of_the_archive_and_no_key_travels_to_a_worker(center: Center) -> None:
    write_series(center.archive / "KIM^CHULSOO", n=2)
    looking = Looking(center.store.private)
    center.crawl(executor=looking)
    assert looking.items
    assert pickle.dumps(looking.function) == pickle.dumps(stage.read_partition)  # nothing is bound to it
    assert b"key_at" in looking.on_disk
    assert center.key not in looking.on_disk
    assert not any("KIM" in item or center.key.decode() in item for item in looking.items)
    for item in looking.items:
        assert Path(item).is_relative_to(center.store.private)


def test_a_file_gone_between_listing_and_reading_is_tried_again(center: Center, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = write_series(center.archive, n=2)
    real = stage.read_partition

    def late(work_list: str) -> int:
        paths[0].unlink()
        return real(work_list)

    monkeypatch.setattr(stage, "read_partition", late)
    assert center.crawl().failed == 1
    monkeypatch.setattr(stage, "read_partition", real)
    assert center.crawl().requested == 1
