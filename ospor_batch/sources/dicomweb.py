"""A DICOMweb server as an archive: QIDO-RS for the index, WADO-RS for headers and whole instances."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from ospor_batch.errors import ArchiveError, ItemRefused
from ospor_batch.sources.cache import Cache
from ospor_batch.sources.containers import LIMITS
from ospor_batch.sources.names import SECOND, path_text
from ospor_batch.sources.web import WebServer, variables

SCHEME = "dicomweb+"
PAGE = 1000
UID = re.compile(r"^[0-9.]{1,64}$")
STUDY, SERIES, INSTANCE = "0020000D", "0020000E", "00080018"
N_INSTANCES, N_SERIES_INSTANCES = "00201208", "00201209"
SIZES = ("00280010", "00280011", "00280100", "00280008", "00280002")  # rows, columns, bits, frames, samples
# what changes without the images: counts, modalities and classes in study, address, availability
FLEETING = ("00201206", "00201208", "00201209", "00080061", "00080062", "00081190", "00080056", "00081198")
INSTANCE_TYPE = 'multipart/related; type="application/dicom"; transfer-syntax=*'
TAIL = 4096  # what may follow the last boundary


class Told(NamedTuple):
    """One instance by study, series and SOP instance UID, or (``refusal``) a study whose instances were not all told.

    size_bytes: bytes of the pixels as the server declares them, uncompressed; it does not say what the file takes.
    mtime_ns: a check number over all that the index says; a server offers no time.
    """

    path: str
    size_bytes: int
    mtime_ns: int
    refusal: str | None = None
    detail: str = ""
    is_folder: bool = False


class DicomWeb:
    """One server, given as dicomweb+http://... or dicomweb+https://..."""

    def __init__(self, root: str) -> None:
        self._web = WebServer(root.removeprefix(SCHEME))
        self.place = self._web.place

    def listing(self) -> Iterator[Told]:
        """Every instance, study by study in order of UIDs. ArchiveError when the server does not tell its studies.

        A study that cannot be told whole stands itself, so that what was known of it is kept.
        """
        try:
            studies = sorted(self._pages("studies", of=STUDY), key=lambda study: _first(study, STUDY) or "")
        except ItemRefused as refusal:
            raise ArchiveError(f"the server does not tell its studies ({refusal.detail}); {self.hint()}") from None
        for study in studies:
            yield from self._study(study)

    def close(self) -> None:
        self._web.close()

    def answers(self) -> bool:
        """Whether the server has any study; ItemRefused when it does not answer."""
        return bool(self._web.json("studies", {"limit": 1}))

    def hint(self) -> str:
        """Which variables let us in."""
        token, user, password = variables(self._web.place)
        return f"set {token}, or {user} and {password}, if it wants credentials"

    def headers(self, path: str) -> dict[str, dict[str, Any]]:
        """Headers of the whole series of an instance in the DICOM JSON model, by path."""
        series = path.rpartition("/")[0]
        study, _, of = series.partition("/")
        found = self._web.json(f"studies/{study}/series/{of}/metadata") or []
        if not isinstance(found, list):
            raise ItemRefused("read_error", "the server's answer is no list of headers", is_transient=True)
        return {f"{series}/{_first(told, INSTANCE)}": told for told in found if isinstance(told, dict)}

    def fetch(self, path: str, out: BinaryIO) -> None:
        """Write a whole instance, as it is stored, to a file on disk."""
        study, series, instance = path.split("/")
        where = f"studies/{study}/series/{series}/instances/{instance}"
        kind = self._web.save(where, accept=INSTANCE_TYPE, out=out, limit=LIMITS.member_bytes)
        if kind.lower().startswith("multipart/"):
            _take_part(out, boundary=_boundary(kind))
        _refuse_other(out)

    def _study(self, study: dict[str, Any]) -> Iterator[Told]:
        uid = _first(study, STUDY) or ""
        if not UID.match(uid):
            yield Told(path_text(uid) or "unnamed", 0, 0, "bad_uid", "a study UID of other characters", is_folder=True)
            return
        try:
            found = list(self._pages(f"studies/{uid}/instances", of=INSTANCE, n_expected=_count(study)))
        except ItemRefused as refusal:
            reason = "permission_denied" if refusal.reason == "permission_denied" else "read_error"
            yield Told(uid, 0, 0, reason, refusal.detail, is_folder=True)
            return
        told = [_told(uid, study, instance) for instance in found]
        yield from sorted(told)
        n_wanted = _count(study)
        if n_wanted is not None and len(found) < n_wanted:
            yield Told(uid, 0, 0, "read_error", f"{len(found)} of {n_wanted} instances were told", is_folder=True)

    def _pages(self, where: str, *, of: str, n_expected: int | None = None) -> Iterator[dict[str, Any]]:
        """All results, each UID once, by pages; a server may hold its pages smaller than asked for."""
        seen: set[str] = set()
        while n_expected is None or len(seen) < n_expected:
            page, is_cut = self._web.page(where, {"limit": PAGE, "offset": len(seen)})
            page = page or []
            if not isinstance(page, list) or not all(isinstance(told, dict) for told in page):
                raise ItemRefused("read_error", "the server's answer is no list of results", is_transient=True)
            fresh = {uid: told for told in page if (uid := _first(told, of) or "") not in seen}
            if not fresh and is_cut:
                raise ItemRefused("read_error", "the server holds back results and gives no further page", is_transient=True)
            if not fresh:
                return
            seen |= set(fresh)
            yield from fresh.values()


def cached(server: DicomWeb, *, root: str, path: str, cache: Cache) -> Path:
    """An instance in the private cache, fetched when it is not there."""
    return cache.kept("dicomweb", root, path, write=lambda out: server.fetch(path, out))


def _told(study_uid: str, study: dict[str, Any], instance: dict[str, Any]) -> Told:
    uids = [study_uid, _first(instance, SERIES) or "", _first(instance, INSTANCE) or ""]
    path = path_text("/".join(uids))
    if not all(UID.match(uid) for uid in uids):
        return Told(path, 0, 0, "bad_uid", "a UID of other characters")
    known = [[key, of.get(key)] for of in (study, instance) for key in sorted(of) if key not in FLEETING]
    return Told(path, _size(instance), zlib.crc32(json.dumps(known).encode()) % SECOND)


def _size(instance: dict[str, Any]) -> int:
    rows, columns, bits, frames, samples = (_number(instance, tag) for tag in SIZES)
    return (rows or 0) * (columns or 0) * (frames or 1) * (samples or 1) * ((bits or 0) // 8)


def _count(study: dict[str, Any]) -> int | None:
    return _number(study, N_INSTANCES)


def _number(told: dict[str, Any], tag: str) -> int | None:
    try:
        number = int(_first(told, tag) or "")
    except ValueError:
        return None
    return number if 0 <= number < 2**31 else None


def _first(told: dict[str, Any], tag: str) -> str | None:
    """The first value of an element as text; null where the result does not have it."""
    element = told.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return str(values[0]) if isinstance(values, list) and values and values[0] is not None else None


def _boundary(kind: str) -> bytes:
    found = re.search(r'boundary="?([^";]+)"?', kind)
    if found is None:
        raise ItemRefused("read_error", "a multipart answer without a boundary", is_transient=True)
    return b"--" + found.group(1).encode()


def _take_part(file: BinaryIO, *, boundary: bytes) -> None:
    """Cut a multipart answer down to its one part, in place."""
    file.flush()
    with Path(file.name).open("r+b") as both:
        head = both.read(2 * TAIL)
        start = head.find(b"\r\n\r\n", max(head.find(boundary), 0))
        size = both.seek(0, 2)
        both.seek(max(0, size - TAIL))
        tail = both.read()
        end = tail.rfind(b"\r\n" + boundary + b"--")
        if boundary not in head or start < 0 or end < 0:
            raise ItemRefused("read_error", "a multipart answer that is not whole", is_transient=True)
        _shift(both, start + 4, size - len(tail) + end)
    file.seek(0, 2)


def _refuse_other(file: BinaryIO) -> None:
    """ItemRefused(read_error) when the body is no DICOM file, such as a page that asks to log in."""
    file.flush()
    with Path(file.name).open("rb") as same:
        if same.read(132)[128:] != b"DICM":
            raise ItemRefused("read_error", "the server sent no DICOM file", is_transient=True)


def _shift(file: BinaryIO, start: int, end: int) -> None:
    at = 0
    while start < end:
        file.seek(start)
        block = file.read(min(1 << 20, end - start))
        file.seek(at)
        file.write(block)
        start, at = start + len(block), at + len(block)
    file.truncate(at)
