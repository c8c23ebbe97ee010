"""A crawl and its workers: killed ones go on, dying ones cost a file, and nothing secret travels to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ospor_batch.compute.executor import InLine, Outcome
from ospor_batch.errors import StorageError
from ospor_batch.stages import crawl as stage
from ospor_batch.store import read_staged
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

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Outcome[Any, Any]]:
        for outcome in super().map(function, items):
            if self.n_done == self.after:
                raise Killed
            self.n_done += 1
            yield outcome


def test_a_killed_crawl_goes_on_with_its_finished_parts(center: Center, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "PART_FILES", 2)
    write_series(center.archive, n=30)
    with pytest.raises(Killed):
        center.crawl(executor=Killing(after=3))
    assert center.store.snapshot() == {}
    assert list((center.store.private / "staging").rglob(stage.ROWS))
    seen: list[tuple[int, int]] = []
    counter = Killing(after=10**6)
    summary = center.crawl(executor=counter, progress=lambda done, total: seen.append((done, total)))
    assert summary.done == 30
    assert 0 < counter.n_done < seen[-1][1]
    assert seen[-1][0] == seen[-1][1]
    assert not list((center.store.private / "staging").rglob("*"))


class Dying:
    """An executor whose worker dies of one poisoned file, as a cluster reports it."""

    n_workers = 1

    def __init__(self, poison: str, error: str = "worker_died") -> None:
        self.poison, self.error = poison, error

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Outcome[Any, Any]]:
        for item in items:
            if any(self.poison in path for path in read_staged(Path(item).with_name(stage.FILES))["path"]):
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


class Looking(InLine):
    """An executor that keeps what was sent to it."""

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Outcome[Any, Any]]:
        self.items = list(items)
        return super().map(function, items)


def test_no_path_of_the_archive_and_no_key_travels_to_a_worker(center: Center) -> None:
    write_series(center.archive / "KIM^CHULSOO", n=2)
    looking = Looking()
    center.crawl(executor=looking)
    assert looking.items
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
