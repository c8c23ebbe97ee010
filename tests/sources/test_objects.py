"""Objects of a bucket: listed over pages, read in ranges, and refused by type."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ospor_batch.archive.listing import list_archive
from ospor_batch.archive.look import look_at
from ospor_batch.errors import ArchiveError, ItemRefused
from ospor_batch.sources import locate, objects, open_bytes, read_bytes
from ospor_batch.sources.locations import HeaderFiles
from tests.end_to_end.packed import forget_client, s3_server
from tests.sources.made import contents, listed, tarred, zipped


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    with s3_server(monkeypatch):
        import s3fs

        found = s3fs.S3FileSystem()
        found.call_s3("create_bucket", Bucket="hospital")
        yield found


def put(store: object, key: str, body: bytes, **more: str) -> None:
    store.call_s3("put_object", Bucket="hospital", Key=key, Body=body, **more)  # type: ignore[attr-defined]


def test_objects_and_archives_among_them_are_listed_and_read(store: object, tmp_path: Path) -> None:
    large = bytes(range(256)) * 2000
    put(store, "north/b/2", large)
    put(store, "north/b//odd ../name ü", b"odd")
    put(store, "north/empty", b"")
    put(store, "north/folder/", b"")
    put(store, "north/z.zip", zipped({"in/1": b"one", "t.tar.gz": tarred({"deep": b"two"}, mode="w:gz")}))
    put(store, "northern", b"not below the prefix")
    expected = {
        "b/2": large, "b//odd ../name ü": b"odd", "empty": b"", "z.zip/in/1": b"one", "z.zip/t.tar.gz/deep": b"two",
    }  # fmt: skip
    assert contents("s3://hospital/north", tmp_path) == expected
    assert contents("s3://hospital/north/", tmp_path) == expected
    assert contents("s3://hospital/north/z.zip", tmp_path) == {"z.zip/in/1": b"one", "z.zip/t.tar.gz/deep": b"two"}
    assert look_at("s3://hospital/north") == "4 objects in a bucket"
    assert look_at("s3://hospital/north/z.zip").startswith("an archive of 0 MB")


def test_a_long_listing_comes_in_pages(store: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{n:04d}" for n in range(25)]
    for name in names:
        put(store, f"p/{name}", b"x")
    client = objects._filesystem()
    real = client.call_s3
    monkeypatch.setattr(client, "call_s3", lambda method, **asked: real(method, **asked, MaxKeys=7))
    assert list(listed("s3://hospital/p", tmp_path)) == names


def test_headers_are_fetched_many_at_a_time_and_what_is_gone_fails_alone(store: object, tmp_path: Path) -> None:
    files = [(f"{n}", 100_000) for n in range(5)]
    for name, size in files:
        if name != "3":
            put(store, f"p/{name}", name.encode() * size)
    source = HeaderFiles("s3://hospital/p", files, cache=tmp_path)
    for name, size in files:
        if name == "3":
            with pytest.raises(ItemRefused) as refused, source.open(name) as file:
                file.read(10)
            assert refused.value.reason == "file_missing"
            continue
        with source.open(name) as file:
            assert file.read(10) == name.encode() * 10
            assert file.seek(0, 2) == size
            file.seek(size - 5)
            assert file.read() == name.encode() * 5


def test_an_object_that_changes_is_another(store: object, tmp_path: Path) -> None:
    put(store, "p/a", b"12")
    before = listed("s3://hospital/p", tmp_path)
    assert listed("s3://hospital/p", tmp_path) == before
    put(store, "p/a", b"21")
    assert listed("s3://hospital/p", tmp_path)["a"].mtime_ns % 10**9 != before["a"].mtime_ns % 10**9


def test_an_object_in_cold_storage_is_refused(store: object, tmp_path: Path) -> None:
    put(store, "p/cold", b"x", StorageClass="GLACIER")
    assert listed("s3://hospital/p", tmp_path)["cold"].refusal == "object_asleep"


def test_an_object_that_vanished_is_refused_for_now(store: object, tmp_path: Path) -> None:
    with pytest.raises(ItemRefused) as refused, open_bytes(locate("s3://hospital/p", "gone", cache=tmp_path)):
        pass
    assert (refused.value.reason, refused.value.is_transient) == ("file_missing", True)


def test_a_bucket_that_is_not_there_or_not_ours_stops_the_center(
    store: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ArchiveError, match="no such bucket"):
        list(list_archive("s3://nowhere/p", cache=tmp_path))
    with pytest.raises(ArchiveError, match="nothing lies below"):
        look_at("s3://hospital/empty")
    with pytest.raises(ArchiveError, match="no such object"):
        look_at("s3://hospital/no.zip")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    forget_client(objects)
    with pytest.raises(ArchiveError, match="AWS_ACCESS_KEY_ID"):
        list(list_archive("s3://hospital/p", cache=tmp_path))


def test_a_store_that_does_not_answer_is_refused_for_now(
    store: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    forget_client(objects)
    with pytest.raises(ArchiveError, match="AWS_ENDPOINT_URL"):
        list(list_archive("s3://hospital/p", cache=tmp_path))
    with pytest.raises(ItemRefused) as refused:
        read_bytes(locate("s3://hospital/p", "a", cache=tmp_path))
    assert (refused.value.reason, refused.value.is_transient) == ("read_error", True)
