"""The crawl: every file accounted for, only what changed is read, a killed one goes on, nothing empties a catalog."""

from __future__ import annotations

import gzip
import os
import re
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ospor_batch.archive.walk import LISTING_REFUSALS
from ospor_batch.compute.executor import InLine
from ospor_batch.config import Study
from ospor_batch.errors import ArchiveError, LockedError, StudyError
from ospor_batch.stages import crawl as stage
from ospor_batch.stages.crawl import crawl
from ospor_batch.stages.summary import StageSummary
from ospor_batch.store import Store
from tests.archive.made import DICOMDIR, SEGMENTATION, bare, ct, encoded, write, write_series

HOUR_NS = 3600 * 10**9


def study_of(folder: Path, *, archives: Sequence[str] = ("archive",)) -> Study:
    told = {
        "study": {"name": "test", "pseudonym_key": {"env": "OSPOR_KEY"}},
        "centers": [{"name": "north", "archives": list(archives)}],
        "references": [{"id": "dxa", "standard": "dxa_who"}],
        "recipes": [{"name": "mean_hu", "reference": "dxa", "threshold": {"fixed": 110}}],
    }
    return Study.model_validate(told).model_copy(update={"folder": folder})


class Center:
    """An archive, its workspace and the crawl of it."""

    def __init__(self, folder: Path, key: bytes) -> None:
        self.folder, self.key = folder, key
        self.archive = folder / "archive"
        self.archive.mkdir()
        self.study = study_of(folder)
        self.store = Store(self.study.workspace)

    def crawl(self, **more: Any) -> StageSummary:
        told = {"store": self.store, "executor": InLine(), "key": self.key} | more
        return crawl(self.study, "north", **told)

    def counts(self, **more: Any) -> dict[str, int]:
        return dict(self.crawl(**more).notes)

    def fates(self) -> dict[str, tuple[str, str | None]]:
        files = self.store.current("file", center="north").select("path", "fate", "reason")
        return {path: (fate, reason) for path, fate, reason in files.iter_rows()}

    def tables(self) -> dict[str, pl.DataFrame]:
        return {name: self.store.current(name) for name in ("file", "instance", "reject")}


@pytest.fixture
def center(tmp_path: Path, key: bytes) -> Center:
    return Center(tmp_path, key)


def nifti() -> bytes:
    return gzip.compress(struct.pack("<i", 348) + bytes(340) + b"n+1\0" + bytes(64))


def test_every_file_is_an_instance_or_a_typed_reject(center: Center) -> None:
    write_series(center.archive / "series", n=3)
    contents = {
        "empty": (b"", "empty_file"),
        "notes.txt": (b"a text", "not_dicom"),
        "mask.nii.gz": (nifti(), "nifti"),
        "DICOMDIR": (encoded(ct(SOPClassUID=DICOMDIR)), "dicomdir"),
        "cut.dcm": (encoded(ct())[:-40], "truncated"),
        "nameless.dcm": (encoded(ct(StudyInstanceUID=None)), "missing_uid"),
        "flat.dcm": (encoded(ct(Rows=0, BitsAllocated=0)), "contract"),
    }
    for name, (content, _) in contents.items():
        (center.archive / name).write_bytes(content)
    os.mkfifo(center.archive / "pipe")
    (center.archive / "link").symlink_to("nowhere")
    summary = center.crawl()
    expected = {name: ("reject", reason) for name, (_, reason) in contents.items()}
    expected |= {"pipe": ("reject", "special_file"), "link": ("reject", "broken_link")}
    expected |= {f"series/s1-{n:03d}.dcm": ("instance", None) for n in range(3)}
    assert center.fates() == expected
    assert (summary.requested, summary.done, summary.excluded, summary.failed) == (12, 3, 9, 0)
    assert summary.closes
    rejects = center.store.current("reject")
    assert rejects.height == 9
    assert rejects.filter(reason="contract")["detail"].to_list() == ["pixels_have_a_matrix"]


def test_a_header_that_breaks_the_reader_costs_one_file(center: Center, monkeypatch: pytest.MonkeyPatch) -> None:
    write_series(center.archive, n=3)
    (center.archive / "poison").write_bytes(bare(ct(series=66)))  # without preamble: read alone
    from ospor_batch.archive import header

    real = header._identify

    def identify(values: dict[str, Any], *args: Any, **more: Any) -> None:
        if values["series_instance_uid"].endswith(".66"):
            raise RecursionError
        real(values, *args, **more)

    monkeypatch.setattr(header, "_identify", identify)
    center.crawl()
    assert center.fates()["poison"] == ("reject", "broken_header")
    assert center.store.current("instance").height == 3


def test_keys_are_pseudonyms_and_masks_have_a_digest(center: Center) -> None:
    write_series(center.archive / "a", n=2, PatientID=lambda n: ["p 1", "P1"][n])
    write(ct(series=5, SOPClassUID=SEGMENTATION, Modality="SEG"), center.archive / "seg.dcm")
    (center.archive / "a" / "mask.nii.gz").write_bytes(nifti())
    center.crawl()
    rows = center.store.current("instance")
    assert rows.filter(modality="CT")["patient_key"].n_unique() == 1
    files = center.store.current("file")
    digested = files.filter(pl.col("content_digest").is_not_null())["path"].to_list()
    assert sorted(digested) == ["a/mask.nii.gz", "seg.dcm"]
    assert files.filter(pl.col("path").str.starts_with("a/"))["folder_key"].n_unique() == 1
    shared = center.store.current("reject")
    assert not any("mask.nii" in str(value) or "P1" in str(value) for row in shared.iter_rows() for value in row)


def test_a_second_crawl_reads_and_writes_nothing(center: Center) -> None:
    write_series(center.archive, n=3)
    (center.archive / "junk").write_bytes(b"junk")
    assert center.counts()["read"] == 4
    before = center.store.snapshot()
    assert center.counts() == {
        "new": 0, "changed": 0, "moved": 0, "vanished": 0, "unchanged": 4, "read": 0, "waiting": 0, "unreadable folders": 0,
    }  # fmt: skip
    assert center.store.snapshot() == before


def test_only_new_and_changed_files_are_read(center: Center, tmp_path: Path, key: bytes) -> None:
    paths = write_series(center.archive / "a", n=4)
    center.crawl()
    write_series(center.archive / "b", n=2, series=2)
    write(ct(slice_=0, SeriesDescription="told anew"), paths[0])
    paths[1].unlink()
    paths[2].write_bytes(b"no longer DICOM")
    counts = center.counts()
    assert counts == {
        "new": 2, "changed": 2, "moved": 0, "vanished": 1, "unchanged": 1, "read": 4, "waiting": 0, "unreadable folders": 0,
    }  # fmt: skip
    sweep = center.store.sweeps().row(-1, named=True)
    assert (sweep["n_new"], sweep["n_changed"], sweep["n_vanished"], sweep["n_read"]) == (2, 2, 1, 4)
    again = Center.__new__(Center)
    again.folder, again.key, again.archive, again.study = tmp_path, key, center.archive, center.study
    again.store = Store(tmp_path / "clean")
    again.crawl()
    for name, rows in center.tables().items():
        assert rows.equals(again.tables()[name]), name


def test_a_reject_is_not_read_again_unless_it_was_transient(center: Center, monkeypatch: pytest.MonkeyPatch) -> None:
    write_series(center.archive, n=2)
    (center.archive / "junk").write_bytes(b"junk")
    denied = center.archive / "s1-001.dcm"
    with refusing(monkeypatch, denied):
        summary = center.crawl()
    assert (summary.done, summary.excluded, summary.failed) == (1, 1, 1)
    assert center.fates()["s1-001.dcm"] == ("reject", "permission_denied")
    with refusing(monkeypatch, denied):
        before = center.store.snapshot()
        assert center.counts()["read"] == 1
        assert center.store.snapshot() == before
    assert center.counts()["read"] == 1
    assert center.fates()["s1-001.dcm"] == ("instance", None)
    assert center.store.current("reject")["reason"].to_list() == ["not_dicom"]


@contextmanager
def refusing(monkeypatch: pytest.MonkeyPatch, denied: Path) -> Iterator[None]:
    """Refuse to open one file, as the system does to users without the right; root has every right."""
    real = os.open

    def open_(path: Any, *args: Any, **more: Any) -> int:
        if Path(os.fsdecode(path)).name == denied.name:  # a file is opened by its path, or by its name in an open folder
            raise PermissionError(13, "Permission denied")
        return real(path, *args, **more)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", open_)
        yield


def test_files_below_a_folder_that_cannot_be_listed_are_not_gone(center: Center, monkeypatch: pytest.MonkeyPatch) -> None:
    write_series(center.archive / "open", n=2)
    write_series(center.archive / "closed" / "deep", n=3, series=2)
    center.crawl()
    with unlistable(monkeypatch, center.archive / "closed"):
        summary = center.crawl()
    counts = dict(summary.notes)
    assert (counts["vanished"], counts["unreadable folders"]) == (0, 1)
    assert (summary.requested, summary.done, summary.failed) == (6, 5, 1)
    assert center.store.current("instance").height == 5
    assert center.fates()["closed"] == ("reject", "permission_denied")
    assert center.crawl().done == 5
    assert "closed" not in center.fates()
    assert center.store.current("reject").height == 0


@pytest.mark.parametrize("reason", ["broken_link", "read_error"])
def test_files_below_a_link_that_leads_nowhere_now_or_to_an_empty_folder_are_not_gone(center: Center, reason: str) -> None:
    """As where an archive is made of links to shares, one of which is not mounted."""
    share = center.folder / "share"
    write_series(share / "deep", n=3)
    write_series(center.archive / "own", n=2, series=2)
    (center.archive / "2019").symlink_to(share)
    for _ in range(2):
        assert center.crawl().done == 5
    share.rename(center.folder / "away")
    if reason == "read_error":
        share.mkdir()
    summary = center.crawl()
    assert (dict(summary.notes)["vanished"], summary.done, summary.requested) == (0, 5, 6)
    assert center.fates()["2019"] == ("reject", reason)
    (center.folder / "away").replace(share)
    assert center.crawl().requested == 5


@contextmanager
def unlistable(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[None]:
    real = os.scandir

    def scandir(path: Any) -> Any:
        if not isinstance(path, int) and Path(path) == folder:
            raise PermissionError(13, "Permission denied")
        return real(path)

    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", scandir)
        yield


def test_a_sweep_lets_files_settle(center: Center) -> None:
    old, young = write_series(center.archive, n=2)
    settled = time.time_ns() - HOUR_NS
    os.utime(old, ns=(settled, settled))
    summary = center.crawl(is_sweep=True)
    assert center.fates() == {old.name: ("instance", None), young.name: ("waiting", None)}
    assert dict(summary.notes)["waiting"] == 1
    assert summary.closes
    assert center.store.current("instance").height == 1
    os.utime(young, ns=(settled, settled))
    center.crawl(is_sweep=True)
    assert center.store.current("instance").height == 2


def test_a_crawl_outside_a_sweep_waits_for_nothing(center: Center) -> None:
    write_series(center.archive, n=2)
    assert center.crawl().done == 2


def test_a_newer_reader_reads_again(center: Center, monkeypatch: pytest.MonkeyPatch) -> None:
    write_series(center.archive, n=2)
    center.crawl()
    monkeypatch.setattr(stage, "reader_version", lambda: "later")
    assert center.counts()["read"] == 2
    assert center.counts()["read"] == 0


@pytest.mark.parametrize("prepare", [lambda a: a.rmdir(), lambda _: None, lambda a: (a / "folder").mkdir()])
def test_a_missing_or_empty_root_stops_and_empties_nothing(tmp_path: Path, key: bytes, prepare: Callable[[Path], None]) -> None:
    center = Center(tmp_path, key)
    paths = write_series(center.archive, n=2)
    center.crawl()
    before = center.store.snapshot()
    for path in paths:
        path.unlink()
    prepare(center.archive)
    with pytest.raises(
        ArchiveError, match=r"center north: centers\.north\.archives names 'archive'.*nothing was changed"
    ) as stop:
        center.crawl()
    assert stop.value.exit_code == 15
    assert str(center.archive) in str(stop.value)
    assert center.store.snapshot() == before
    assert center.store.current("instance").height == 2


def test_one_missing_root_of_two_stops_before_work(tmp_path: Path, key: bytes) -> None:
    center = Center(tmp_path, key)
    write_series(center.archive, n=2)
    center.study = study_of(tmp_path, archives=("archive", "other"))
    with pytest.raises(ArchiveError, match="'other'"):
        center.crawl()
    assert center.store.snapshot() == {}


@pytest.mark.parametrize("archive", ["s3://bucket/north", "notes.txt"])
def test_an_archive_that_is_no_folder_is_named(tmp_path: Path, key: bytes, archive: str) -> None:
    (tmp_path / "notes.txt").write_bytes(b"x")
    center = Center(tmp_path, key)
    center.study = study_of(tmp_path, archives=(archive,))
    with pytest.raises(ArchiveError, match=r"centers\.north\.archives"):
        center.crawl()


def test_another_pseudonym_key_is_refused(center: Center) -> None:
    write_series(center.archive, n=1)
    center.crawl()
    with pytest.raises(StudyError, match="another key"):
        center.crawl(key=b"another-key-0123456789")


def test_a_workspace_inside_the_archive_is_not_crawled(tmp_path: Path, key: bytes) -> None:
    center = Center(tmp_path, key)
    center.study = study_of(tmp_path, archives=(".",))
    write_series(center.archive, n=2)
    center.crawl()
    assert center.counts()["unchanged"] == 2


def test_names_that_are_not_text_are_crawled(center: Center) -> None:
    name = os.fsdecode(b"\xb1\xe8\xc3\xb6\\1.dcm")
    (center.archive / name).write_bytes(encoded(ct()))
    assert center.crawl().done == 1
    assert center.counts()["read"] == 0
    assert list(center.fates()) == ["\\udcb1\\udce8ö\\u005c1.dcm"]


def test_two_crawls_do_not_write_together(center: Center) -> None:
    write_series(center.archive, n=1)
    with center.store.lock(), pytest.raises(LockedError):
        center.crawl(store=Store(center.study.workspace))


def test_the_page_for_data_engineers_names_every_reason_of_a_crawl() -> None:
    root = Path(__file__).parents[2]
    sources = [path for folder in ("archive", "sources") for path in (root / "ospor_batch" / folder).glob("*.py")]
    given = {
        reason for path in sources for reason in re.findall(r'ItemRefused\(\s*"([a-z_]+)"', path.read_text(encoding="utf-8"))
    }
    reasons = {*given, *LISTING_REFUSALS, "contract"} - {"file_missing"}  # which the crawl calls read_error
    page = (root / "docs" / "crawl.md").read_text(encoding="utf-8")
    assert len(reasons) > 20
    assert not [reason for reason in sorted(reasons) if f"`{reason}`" not in page]
