"""The catalog stage: closes, repeats without writing, and a late instance reopens its series alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ospor_batch.errors import LedgerError
from ospor_batch.stages import catalog as stage
from ospor_batch.stages.catalog import catalog
from ospor_batch.stages.summary import StageSummary
from tests.archive.made import ct, write, write_series

from .test_crawl import Center

SPLIT_KEY = b"split-key-0123456789"


@pytest.fixture
def center(tmp_path: Path, key: bytes) -> Center:
    return Center(tmp_path, key)


def run(center: Center, split_key: bytes = SPLIT_KEY) -> StageSummary:
    center.crawl()
    return catalog(center.study, "north", store=center.store, key=center.key, split_key=split_key)


def test_every_instance_ends_in_a_series_or_a_reject(center: Center) -> None:
    write_series(center.archive / "a", n=4)
    write_series(center.archive / "b", n=5, series=2)
    write(ct(slice_=2), center.archive / "copy.dcm")
    summary = run(center)
    assert (summary.requested, summary.done, summary.excluded, summary.failed) == (10, 9, 1, 0)
    assert dict(summary.notes) == {"series": 2, "series usable": 2, "contrast tag_absent": 2}
    rejects = center.store.current("reject").filter(stage="catalog")
    assert rejects.select("level", "reason").rows() == [("instance", "duplicate_same_content")]
    assert center.store.current("locator").height == 9


def test_a_second_run_writes_nothing_and_keeps_the_rejects_of_the_crawl(center: Center) -> None:
    write_series(center.archive, n=4)
    (center.archive / "junk").write_bytes(b"junk")
    run(center)
    before = center.store.snapshot()
    run(center)
    assert center.store.snapshot() == before
    assert center.store.current("reject")["stage"].to_list() == ["crawl"]


def test_a_late_instance_reopens_its_series_alone(center: Center) -> None:
    write_series(center.archive / "a", n=4)
    write_series(center.archive / "b", n=4, series=2)
    run(center)
    first = center.store.current("series")
    write(ct(slice_=4), center.archive / "late.dcm")
    run(center)
    sweep = center.store.sweeps().filter(stage="catalog").row(-1, named=True)
    assert (sweep["n_new"], sweep["n_changed"], sweep["n_unchanged"]) == (0, 1, 1)
    second = center.store.current("series")
    assert second.join(first, on="series_digest", how="semi").height == 1
    assert sorted(second["n_instances"]) == [4, 5]


def test_a_series_whose_files_are_gone_is_gone(center: Center) -> None:
    write_series(center.archive / "a", n=4)
    gone = write_series(center.archive / "b", n=4, series=2)
    run(center)
    for path in gone:
        path.unlink()
    run(center)
    assert center.store.current("series").height == 1
    assert center.store.current("locator").height == 4
    assert center.store.sweeps().filter(stage="catalog").row(-1, named=True)["n_vanished"] == 1


def test_the_split_follows_its_own_key(center: Center) -> None:
    write_series(center.archive, n=4)
    run(center)
    (first,) = center.store.current("series")["split_position"]
    run(center, b"other-split-key-0123")
    (second,) = center.store.current("series")["split_position"]
    assert first != second


def test_a_lost_instance_stops_the_stage(center: Center, monkeypatch: pytest.MonkeyPatch) -> None:
    write_series(center.archive, n=4)
    real = stage.catalog_center

    def losing(instances: pl.DataFrame, files: pl.DataFrame, **told: Any) -> stage.Catalogued:
        return real(instances.head(3), files, **told)

    monkeypatch.setattr(stage, "catalog_center", losing)
    with pytest.raises(LedgerError, match="4 instances"):
        run(center)


def test_a_center_without_instances_has_an_empty_catalog(center: Center) -> None:
    (center.archive / "junk").write_bytes(b"junk")
    summary = run(center)
    assert summary.requested == 0
    assert center.store.current("series").height == 0
