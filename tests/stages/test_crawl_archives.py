"""Sweeps over zips, tars, a bucket and a server: only what changed is read, and what cannot be seen tonight is kept."""

from __future__ import annotations

import os
import time
import zipfile
from pathlib import Path

import pytest

from ospor_batch.errors import ArchiveError, ItemRefused
from ospor_batch.sources import web
from tests.archive.made import ct, encoded
from tests.end_to_end.packed import orthanc, request, s3_server, store_in, upload
from tests.sources.made import tarred, zipped
from tests.stages.test_crawl import Center, study_of

OLD_NS = 10**18
SERIES = {f"s/{n}": encoded(ct(InstanceNumber=n, SOPInstanceUID=f"1.2.3.{n}")) for n in range(1, 4)}


@pytest.fixture
def center(tmp_path: Path, key: bytes) -> Center:
    return Center(tmp_path, key)


def write_old(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    os.utime(path, ns=(OLD_NS, OLD_NS))


def counts(center: Center, **more: object) -> tuple[int, int, int, int, int]:
    """New, changed, vanished, unchanged, read."""
    found = center.counts(**more)
    return found["new"], found["changed"], found["vanished"], found["unchanged"], found["read"]


def test_of_a_zip_that_grew_only_the_new_members_are_read(center: Center) -> None:
    write_old(center.archive / "a.zip", zipped({name: SERIES[name] for name in ("s/1", "s/2")}))
    assert counts(center) == (2, 0, 0, 0, 2)
    assert counts(center) == (0, 0, 0, 2, 0)
    with zipfile.ZipFile(center.archive / "a.zip", "a") as grown:
        grown.writestr("s/3", SERIES["s/3"])
    assert counts(center) == (1, 0, 0, 2, 1)
    assert center.store.current("instance").height == 3


def test_of_a_tar_that_changed_every_member_is_read_again(center: Center) -> None:
    write_old(center.archive / "a.tar.gz", tarred(SERIES, mode="w:gz"))
    assert counts(center) == (3, 0, 0, 0, 3)
    assert counts(center) == (0, 0, 0, 3, 0)
    (center.archive / "a.tar.gz").write_bytes(tarred({name: SERIES[name] for name in ("s/1", "s/2")}, mode="w:gz"))
    assert counts(center) == (0, 2, 1, 0, 2)


def test_a_zip_that_is_still_arriving_waits_and_what_was_known_of_it_is_kept(center: Center) -> None:
    write_old(center.archive / "a.zip", zipped(SERIES))
    center.crawl()
    whole = (center.archive / "a.zip").read_bytes()
    (center.archive / "a.zip").write_bytes(whole[:-40])
    found = center.counts(is_sweep=True)
    assert (found["waiting"], found["vanished"]) == (1, 0)
    assert center.store.current("instance").height == 3
    write_old(center.archive / "a.zip", whole)
    center.crawl(is_sweep=True)
    assert center.fates() == {f"a.zip/{name}": ("instance", None) for name in SERIES}


def test_a_zip_that_broke_is_a_reject_and_what_was_known_of_it_is_kept(center: Center) -> None:
    write_old(center.archive / "a.zip", zipped(SERIES))
    center.crawl()
    (center.archive / "a.zip").write_bytes(b"PK\x03\x04 cut")
    summary = center.crawl()
    assert summary.closes
    assert center.fates()["a.zip"] == ("reject", "broken_archive")
    assert center.store.current("instance").height == 3


def test_every_member_has_a_fate(center: Center) -> None:
    inside = {**SERIES, "notes.txt": b"text", "../out": b"x", "cut": SERIES["s/1"][:-20], "in.zip": zipped({"in": b"y"})}
    (center.archive / "a.zip").write_bytes(zipped(inside))
    summary = center.crawl()
    assert summary.closes
    assert center.fates() == {
        **{f"a.zip/{name}": ("instance", None) for name in SERIES},
        "a.zip/notes.txt": ("reject", "not_dicom"),
        "a.zip/../out//4": ("reject", "unsafe_name"),
        "a.zip/cut": ("reject", "truncated"),
        "a.zip/in.zip/in": ("reject", "not_dicom"),
    }


def test_a_named_archive_that_broke_stops_the_center(tmp_path: Path, key: bytes) -> None:
    center = Center(tmp_path, key)
    (tmp_path / "a.zip").write_bytes(zipped(SERIES))
    center.study = study_of(tmp_path, archives=["a.zip"])
    assert counts(center) == (3, 0, 0, 0, 3)
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04")
    with pytest.raises(ArchiveError, match="nothing was changed"):
        center.crawl()
    assert center.store.current("instance").height == 3


def test_a_bucket_is_crawled_incrementally(tmp_path: Path, key: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    center = Center(tmp_path, key)
    center.study = study_of(tmp_path, archives=["s3://hospital/pacs"])
    for name in ("1", "2"):
        (center.archive / name).write_bytes(SERIES[f"s/{name}"])
    with s3_server(monkeypatch):
        upload(center.archive, bucket="hospital", prefix="pacs")
        assert counts(center) == (2, 0, 0, 0, 2)
        assert counts(center) == (0, 0, 0, 2, 0)
        (center.archive / "1").unlink()
        (center.archive / "3").write_bytes(SERIES["s/3"])
        time.sleep(1.1)  # the store's clock has seconds
        upload(center.archive, bucket="hospital", prefix="pacs")
        assert counts(center) == (1, 1, 0, 1, 2)


def test_a_server_is_crawled_incrementally(tmp_path: Path, key: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    center = Center(tmp_path, key)
    files = []
    for name in ("1", "2", "3"):
        files.append(center.archive / name)
        files[-1].write_bytes(SERIES[f"s/{name}"])
    with orthanc(tmp_path / "orthanc", monkeypatch) as root:
        center.study = study_of(tmp_path, archives=[root])
        store_in(root, files[:2])
        assert counts(center) == (2, 0, 0, 0, 2)
        assert counts(center) == (0, 0, 0, 2, 0)
        store_in(root, files[2:])
        assert counts(center) == (1, 0, 0, 2, 1)
        place = root.split("/")[2]
        first = request("GET", place, "/instances").decode().split('"')[1]
        request("DELETE", place, f"/instances/{first}")
        assert counts(center) == (0, 0, 1, 2, 0)

        assert {fate for fate, _ in center.fates().values()} == {"instance"}
        real = web.WebServer.json

        def stumbles(self: web.WebServer, path: str, query: dict[str, str | int] | None = None) -> object:
            if path.endswith("/instances"):
                raise ItemRefused("read_error", "the server: status 500", is_transient=True)
            return real(self, path, query)

        with monkeypatch.context() as broken:
            broken.setattr(web.WebServer, "json", stumbles)
            summary = center.crawl()
        assert dict(summary.notes)["vanished"] == 0
        assert center.store.current("instance").height == 2
