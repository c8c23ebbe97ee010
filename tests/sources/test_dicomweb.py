"""A DICOMweb server that pages, stumbles, lies or refuses: every instance is told once, or its study is told as not known."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from ospor_batch.archive.listing import list_archive
from ospor_batch.archive.look import look_at
from ospor_batch.archive.opening import header_source
from ospor_batch.archive.walk import Listed
from ospor_batch.errors import ArchiveError, ItemRefused
from ospor_batch.sources import locate, read_bytes, roots, web

Reply = tuple[int, str, bytes]
DICOM = bytes(128) + b"DICM" + bytes(9000)


def told(value: str | int, vr: str = "UI") -> dict[str, Any]:
    return {"vr": vr, "Value": [value]}


def study(uid: str, n: int | None = None) -> dict[str, Any]:
    return {"0020000D": told(uid)} | ({} if n is None else {"00201208": told(n, "IS")})


def instance(uid: str, **more: Any) -> dict[str, Any]:
    return {
        "0020000E": told("1.2.9"),
        "00080018": told(uid),
        "00280010": told(4, "US"),
        "00280011": told(4, "US"),
        "00280100": told(16, "US"),
    } | more


def as_json(of: Any) -> Reply:
    return 200, "application/dicom+json", json.dumps(of).encode()


class Pacs:
    """What a made server answers, and what it was asked."""

    def __init__(self) -> None:
        self.studies = [study("1.1", 3), study("1.2")]
        self.instances = {"1.1": [instance(f"1.1.{n}") for n in range(3)], "1.2": [instance("1.2.0")]}
        self.page = 1000
        self.warning = ""
        self.special: Callable[[str], Reply | None] = lambda _: None
        self.asked: list[tuple[str, dict[str, str]]] = []

    def reply(self, target: str) -> Reply:
        found = self.special(target)
        if found is not None:
            return found
        parts = urlsplit(target)
        query = {name: int(values[0]) for name, values in parse_qs(parts.query).items()}
        where = parts.path.removeprefix("/web/").split("/")
        if where == ["studies"]:
            return self._paged(self.studies, query)
        if where[0] == "studies" and where[2:] == ["instances"]:
            return self._paged(self.instances.get(where[1], []), query)
        return 404, "text/plain", b"no"

    def _paged(self, results: list[Any], query: dict[str, int]) -> Reply:
        first = query.get("offset", 0)
        found = results[first : first + min(self.page, query["limit"])]
        return as_json(found) if found else (204, "", b"")


@contextmanager
def serving(pacs: Pacs) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            pacs.asked.append((self.path, dict(self.headers)))
            status, kind, body = pacs.reply(self.path)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            if pacs.warning:
                self.send_header("Warning", pacs.warning)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"dicomweb+http://127.0.0.1:{server.server_port}/web"
    finally:
        roots.close_all()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "FIRST_PAUSE_S", 0.0)


def listing(pacs: Pacs, folder: Path) -> dict[str, Listed]:
    with serving(pacs) as root:
        found = list(list_archive(root, cache=folder))
    assert len({file.path for file in found}) == len(found)
    return {file.path: file for file in found}


ALL = {"1.1/1.2.9/1.1.0", "1.1/1.2.9/1.1.1", "1.1/1.2.9/1.1.2", "1.2/1.2.9/1.2.0"}


@pytest.mark.parametrize("page", [1, 2, 1000])
def test_every_instance_is_listed_once_however_small_the_pages(tmp_path: Path, page: int) -> None:
    pacs = Pacs()
    pacs.page = page
    found = listing(pacs, tmp_path)
    assert set(found) == ALL
    assert {file.size_bytes for file in found.values()} == {4 * 4 * 2}


def test_a_server_that_knows_no_pages_ends(tmp_path: Path) -> None:
    pacs = Pacs()
    pacs.special = lambda target: as_json(pacs.studies) if target.startswith("/web/studies?") else None
    assert set(listing(pacs, tmp_path)) == ALL


@pytest.mark.parametrize(
    ("warning", "stops"),
    [
        ('299 pacs "There are 4711 additional results that can be requested"', True),
        ('299 pacs "The fuzzymatching parameter is not supported."', False),
    ],
)
def test_a_server_that_holds_back_studies_and_gives_no_further_page_stops_the_center(
    tmp_path: Path, warning: str, *, stops: bool
) -> None:
    pacs = Pacs()
    pacs.special = lambda target: as_json(pacs.studies) if target.startswith("/web/studies?") else None
    pacs.warning = warning
    with pytest.raises(ArchiveError, match="holds back results") if stops else nullcontext():
        assert set(listing(pacs, tmp_path)) == ALL


def test_what_the_server_tells_of_an_instance_is_what_changes_it(tmp_path: Path) -> None:
    pacs = Pacs()
    before = listing(pacs, tmp_path)
    assert listing(pacs, tmp_path) == before
    pacs.studies[0] |= {"00201208": told(3, "IS"), "00081190": told("http://moved", "UR")}
    assert listing(pacs, tmp_path) == before
    pacs.instances["1.1"][1] |= {"00100020": told("another patient", "LO")}
    after = listing(pacs, tmp_path)
    assert {path for path in before if before[path] != after[path]} == {"1.1/1.2.9/1.1.1"}


def test_a_server_that_stumbles_is_asked_again(tmp_path: Path) -> None:
    pacs = Pacs()
    n_failed = iter(range(2))
    pacs.special = lambda _: (503, "text/plain", b"busy") if next(n_failed, None) is not None else None
    assert set(listing(pacs, tmp_path)) == ALL


@pytest.mark.parametrize(
    ("status", "kind", "body", "reason"),
    [
        (500, "text/plain", b"", "read_error"),
        (403, "text/plain", b"", "permission_denied"),
        (200, "text/html", b"<html>log in</html>", "read_error"),
        (200, "application/dicom+json", b'{"not": "a list"}', "read_error"),
        (200, "application/dicom+json", b"[1, 2]", "read_error"),
    ],
)
def test_a_study_that_cannot_be_told_is_a_folder_not_known(
    tmp_path: Path, status: int, kind: str, body: bytes, reason: str
) -> None:
    pacs = Pacs()
    pacs.special = lambda target: (status, kind, body) if "/1.1/instances" in target else None
    found = listing(pacs, tmp_path)
    assert set(found) == {"1.1", "1.2/1.2.9/1.2.0"}
    assert (found["1.1"].is_folder, found["1.1"].refusal) == (True, reason)


def test_a_study_told_in_part_keeps_what_was_known_of_it(tmp_path: Path) -> None:
    pacs = Pacs()
    pacs.studies[0] = study("1.1", 5)
    found = listing(pacs, tmp_path)
    assert set(found) == {*ALL, "1.1"}
    assert found["1.1"].detail == "3 of 5 instances were told"


def test_uids_that_are_none_are_refused(tmp_path: Path) -> None:
    pacs = Pacs()
    pacs.studies.append(study("../../etc"))
    pacs.instances["1.2"].append(instance("1/../2"))
    found = listing(pacs, tmp_path)
    assert {path: file.refusal for path, file in found.items() if path not in ALL} == {
        "../../etc": "bad_uid", "1.2/1.2.9/1/../2": "bad_uid",
    }  # fmt: skip


@pytest.mark.parametrize(("status", "body"), [(401, b""), (500, b""), (200, b"no json")])
def test_a_server_that_does_not_tell_its_studies_stops_the_center(tmp_path: Path, status: int, body: bytes) -> None:
    pacs = Pacs()
    pacs.special = lambda _: (status, "text/plain", body)
    with pytest.raises(ArchiveError, match="OSPOR_DICOMWEB_TOKEN_127_0_0_1_"):
        listing(pacs, tmp_path)


def test_a_server_that_is_not_there_stops_the_center(tmp_path: Path) -> None:
    with serving(Pacs()) as root:
        pass
    with pytest.raises(ArchiveError, match="does not tell its studies"):
        list(list_archive(root, cache=tmp_path))
    with pytest.raises(ArchiveError, match="does not answer"):
        look_at(root)


def test_credentials_go_to_their_own_server_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, other = Pacs(), Pacs()
    with serving(mine) as root, serving(other) as elsewhere:
        port = root.split(":")[2].split("/")[0]
        monkeypatch.setenv(f"OSPOR_DICOMWEB_TOKEN_127_0_0_1_{port}", "t0ken")
        list(list_archive(root, cache=tmp_path))
        list(list_archive(elsewhere, cache=tmp_path))
        assert look_at(root).endswith("credentials from the environment, which travel unencrypted")
        assert look_at(elsewhere).endswith("without credentials")
    assert {headers.get("Authorization") for _, headers in mine.asked} == {"Bearer t0ken"}
    assert {headers.get("Authorization") for _, headers in other.asked} == {None}


def multipart(body: bytes, *, end: bytes = b"\r\n--cut--\r\n") -> Reply:
    kind = 'multipart/related; type="application/dicom"; boundary=cut'
    return 200, kind, b"--cut\r\nContent-Type: application/dicom\r\n\r\n" + body + end


@pytest.mark.parametrize("reply", [multipart(DICOM), (200, "application/dicom", DICOM)])
def test_an_instance_is_fetched_once_and_read_from_the_private_cache(tmp_path: Path, reply: Reply) -> None:
    pacs = Pacs()
    pacs.special = lambda _: reply
    with serving(pacs) as root:
        place = locate(root, "1.1/1.2.9/1.1.0", cache=tmp_path)
        assert read_bytes(place) == read_bytes(place) == DICOM
    assert [path for path, _ in pacs.asked] == ["/web/studies/1.1/series/1.2.9/instances/1.1.0"]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (multipart(DICOM, end=b""), "read_error"),
        (multipart(b""), "read_error"),
        ((200, "text/html", b"<html>log in</html>"), "read_error"),
        ((404, "text/plain", b""), "file_missing"),
        ((401, "text/plain", b""), "permission_denied"),
    ],
)
def test_what_is_no_whole_instance_is_refused_and_not_kept(tmp_path: Path, reply: Reply, reason: str) -> None:
    pacs = Pacs()
    pacs.special = lambda _: reply
    with serving(pacs) as root, pytest.raises(ItemRefused) as refused:
        read_bytes(locate(root, "1.1/1.2.9/1.1.0", cache=tmp_path))
    assert (refused.value.reason, refused.value.is_transient) == (reason, True)
    assert [path for path in tmp_path.iterdir() if not path.name.endswith(".lock")] == []


def test_an_answer_without_end_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "LARGEST_JSON", 1000)
    pacs = Pacs()
    pacs.special = lambda _: (200, "application/dicom+json", b"[" + b" " * 5000)
    with pytest.raises(ArchiveError, match="more than 1000 bytes"):
        listing(pacs, tmp_path)


def test_headers_of_a_series_are_asked_for_once_in_a_partition(tmp_path: Path) -> None:
    pacs = Pacs()
    pacs.special = lambda target: as_json(pacs.instances["1.1"]) if target.endswith("/metadata") else None
    with serving(pacs) as root:
        for _ in range(2):
            source = header_source(root, [], cache=tmp_path)
            for n in range(3):
                with source.open(f"1.1/1.2.9/1.1.{n}") as file:
                    assert file.read(132)[128:] == b"DICM"
        with pytest.raises(ItemRefused, match="file_missing"), source.open("1.1/1.2.9/1.1.9"):
            pass
    assert len(pacs.asked) == 3
