"""Night after night: whatever comes, changes, moves or goes, the catalog equals one that was made in a single crawl."""

from __future__ import annotations

import gzip
import random
import struct
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ospor_batch.stages import catalog as stage
from ospor_batch.stages import reopened
from ospor_batch.stages.catalog import catalog
from ospor_batch.store import Store
from tests.archive.made import SEGMENTATION, ct, uid, write, write_series

from .test_crawl import Center

SPLIT_KEY = b"split-key-0123456789"
TABLES = ("file", "instance", "series", "locator", "reject", "collision", "unlisted")


@pytest.fixture
def center(tmp_path: Path, key: bytes) -> Center:
    return Center(tmp_path, key)


def night(center: Center, **more: Any) -> None:
    center.crawl(**more)
    catalog(center.study, "north", store=center.store, key=center.key, split_key=SPLIT_KEY)


def tables(store: Store) -> dict[str, pl.DataFrame]:
    return {name: store.current(name) for name in TABLES}


def made_at_once(center: Center) -> dict[str, pl.DataFrame]:
    fresh = Center.__new__(Center)
    fresh.folder, fresh.key, fresh.archive, fresh.study = center.folder, center.key, center.archive, center.study
    fresh.store = Store(center.folder / "at-once")
    night(fresh)
    found = tables(fresh.store)
    for path in sorted((center.folder / "at-once").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    return found


def assert_equal(left: dict[str, pl.DataFrame], right: dict[str, pl.DataFrame]) -> None:
    for name, rows in left.items():
        assert rows.equals(right[name]), (name, rows.height, right[name].height)


def nifti(mark: int) -> bytes:
    return gzip.compress(struct.pack("<i", 348) + bytes(340) + b"n+1\0" + bytes([mark] * 64))


def mischief(archive: Path, of: random.Random) -> None:
    """One change that a night may bring."""
    folder = archive / f"f{of.randrange(4)}"
    files = sorted(path for path in archive.rglob("*") if path.is_file())
    one = of.choice(files)
    number, series = of.randrange(6), of.randrange(1, 6)
    kind = of.randrange(8)
    target = folder / f"x{of.randrange(10**6)}.dcm"
    if kind == 0:
        write(ct(series=series, slice_=number, PatientID=f"P-{of.randrange(3)}"), target)
    elif kind == 1 and len(files) > 3:
        one.unlink()
    elif kind == 2:
        target.parent.mkdir(exist_ok=True)
        one.rename(target)
    elif kind == 3:
        write(ct(series=series, slice_=number, SeriesDescription=f"told {of.random()}"), one)
    elif kind == 4:
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(one.read_bytes())
    elif kind == 5:
        target.parent.mkdir(exist_ok=True)
        target.with_name("mask.nii.gz").write_bytes(nifti(of.randrange(9)))
    elif kind == 6:
        # a segmentation belongs to the images of its study by their frame of reference
        write(ct(series=60 + number, SOPClassUID=SEGMENTATION, Modality="SEG", SOPInstanceUID=uid(60, number)), target)
    else:
        # the same object under another series
        write(ct(series=series, slice_=number, SOPInstanceUID=uid(1, 1, 9)), target)


@pytest.mark.parametrize("seed", range(3))
def test_nights_give_the_catalog_of_one_crawl(center: Center, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if seed == 1:  # as in an archive of many buckets
        monkeypatch.setattr(reopened, "BATCH_ROWS", 4)
        monkeypatch.setattr("ospor_batch.stages.listing.GROUP_FILES", 4)
        monkeypatch.setattr("ospor_batch.stages.crawl.SLICE_PARTS", 1)
        monkeypatch.setattr("ospor_batch.stages.crawl.PART_FILES", 2)
        monkeypatch.setattr(reopened, "SHARE_ROWS", 1)
    of = random.Random(seed)
    for number in range(1, 4):
        write_series(center.archive / f"f{number}", n=3, series=number, PatientID=f"P-{number}")
    night(center)
    for _ in range(3 if seed == 1 else 4):
        for _ in range(of.randrange(1, 4)):
            mischief(center.archive, of)
        night(center)
        assert_equal(tables(center.store), made_at_once(center))


def test_no_batch_is_larger_than_one_series_or_the_limit(center: Center, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(12):
        write_series(center.archive / f"f{number}", n=1 + number % 3, series=number)
    write(ct(series=99, SOPInstanceUID=uid(1, 1, 1)), center.archive / "same-object.dcm")
    center.crawl()
    whole = [own for own in reopened.Reopening(center.store, "north", key=center.key).everything() if own.height]
    monkeypatch.setattr(reopened, "BATCH_ROWS", 4)
    # as in an archive whose every bucket alone is larger than a batch
    monkeypatch.setattr(reopened, "number_of", lambda *_: pl.lit(0))
    monkeypatch.setattr(center.store, "sizes", lambda *_, **__: [25] + [0] * 63)
    batches = reopened.Reopening(center.store, "north", key=center.key).everything()
    assert len(whole) == 1
    assert len(batches) > 4
    assert pl.concat(batches).sort("series_key").equals(whole[0].sort("series_key"))


def test_only_the_touched_series_are_judged(center: Center, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(1, 7):
        write_series(center.archive / f"f{number}", n=2, series=number)
    night(center)
    seen: list[int] = []
    real = stage.catalog_center

    def counting(instances: pl.DataFrame, files: pl.DataFrame, **told: Any) -> Any:
        seen.append(instances["series_key"].n_unique())
        return real(instances, files, **told)

    monkeypatch.setattr(stage, "catalog_center", counting)
    night(center)
    assert seen == []
    write(ct(series=3, slice_=2), center.archive / "late.dcm")
    night(center)
    assert seen == [1]
    night(center)
    assert seen == [1]


def test_other_rules_judge_everything_anew(center: Center, monkeypatch: pytest.MonkeyPatch) -> None:
    write_series(center.archive, n=3)
    night(center)
    before = center.store.sweeps().height
    night(center)
    assert center.store.sweeps().height == before
    monkeypatch.setattr(stage, "_rules_digest", lambda *_, **__: "other")
    night(center)
    night(center)
    assert center.store.sweeps().height == before + 1  # looked at once, nothing differed
    assert center.store.sweeps().row(-1, named=True)["rules_digest"] == "other"


def test_a_moved_archive_is_decided_by_its_old_verdicts(center: Center) -> None:
    write_series(center.archive / "a", n=3)
    write_series(center.archive / "b", n=3, series=2)
    night(center)
    before = tables(center.store)
    (center.archive / "a").rename(center.archive / "z")
    (center.archive / "b" / "s2-001.dcm").rename(center.archive / "b" / "renamed.dcm")
    counts = center.counts()
    assert (counts["new"], counts["changed"], counts["moved"], counts["vanished"]) == (0, 0, 4, 0)
    sweep = center.store.sweeps().row(-1, named=True)
    assert (sweep["n_new"], sweep["n_moved"], sweep["n_vanished"]) == (0, 4, 0)
    night(center)
    assert center.store.current("series").equals(before["series"])
    assert center.store.sweeps().row(-1, named=True)["n_changed"] == 0
    assert sorted(center.store.current("locator")["path"]) == sorted(
        p.relative_to(center.archive).as_posix() for p in center.archive.rglob("*.dcm")
    )


def test_a_copy_is_no_move_and_bytes_tell_duplicates_apart(center: Center) -> None:
    first = write_series(center.archive / "a", n=3)
    night(center)
    (center.archive / "copy.dcm").write_bytes(first[0].read_bytes())
    write(ct(slice_=1, SeriesDescription="longer than it was before"), center.archive / "other.dcm")
    # the same header and size, one pixel that is not the same: only the bytes tell
    pixel = bytearray(first[2].read_bytes())
    pixel[-1] ^= 1
    (center.archive / "pixel.dcm").write_bytes(pixel)
    counts = center.counts()
    assert (counts["new"], counts["moved"]) == (3, 0)
    night(center)
    refused = center.store.current("reject").filter(stage="catalog").sort("reason", "detail").select("reason", "detail")
    assert refused["reason"].to_list() == ["duplicate_different_content"] * 2 + ["duplicate_same_content"]
    assert [detail.rpartition(": ")[2] for detail in refused["detail"][:2]] == ["content", "size_bytes"]
    assert center.store.current("series")["n_instances"].to_list() == [3]


def test_a_changed_file_that_moved_is_new(center: Center) -> None:
    paths = write_series(center.archive, n=3)
    night(center)
    paths[0].unlink()
    write(ct(slice_=0, SeriesDescription="told anew, and longer"), center.archive / "elsewhere.dcm")
    counts = center.counts()
    assert (counts["new"], counts["moved"], counts["vanished"]) == (1, 0, 1)
