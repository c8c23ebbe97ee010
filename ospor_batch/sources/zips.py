"""Members of a zip: listed from its directory, opened in place, never unpacked to disk."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator
from typing import IO, BinaryIO, cast

from ospor_batch.errors import ItemRefused
from ospor_batch.sources.containers import BROKEN, LIMITS, Limits, Member, Places, missing
from ospor_batch.sources.names import checked_time, member_path
from ospor_batch.sources.streams import restarting, window

END = b"PK\x05\x06"
END_AT_MOST = 22 + 65_535  # the end record and its comment: APPNOTE.TXT 4.3.16
ENTRY = b"PK\x01\x02"
SMALLEST_ENTRY = 46
LOCAL_HEADER = 30
ENCRYPTED, UTF_8 = 0x1, 0x800  # general purpose flags: APPNOTE.TXT 4.4.4
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
SYMLINK, KIND = 0o120000, 0o170000
BLOCK = 1 << 20


class Zip:
    """A zip file; fault is always null, since a directory that is not whole refuses the zip."""

    def __init__(self, file: BinaryIO, *, size: int, limits: Limits = LIMITS) -> None:
        """Read the directory. ItemRefused: broken_archive, archive_limit."""
        self.fault: ItemRefused | None = None
        self._file = file
        try:
            _refuse_large(file, size=size, limits=limits)
            self._zip = zipfile.ZipFile(file)
        except BROKEN as error:
            raise ItemRefused("broken_archive", f"zip: {type(error).__name__}") from None
        self._entries: dict[str, zipfile.ZipInfo] = {}
        self._told = self._index(size=size, limits=limits)
        self._zip.NameToInfo.clear()  # a second directory that nobody asks

    def members(self) -> Iterator[Member]:
        return iter(self._told)

    def holds(self, path: str) -> bool:
        return path in self._entries

    def open(self, path: str) -> BinaryIO:
        """Open a member in place; what is stored as it is can be read from anywhere at once."""
        info = self._entries.get(path)
        if info is None:
            raise missing()
        if info.compress_type == zipfile.ZIP_STORED:
            return window(self._file, start=self._start(info), size=info.file_size)
        return restarting(lambda: cast("BinaryIO", _Told(self._begin(info))), size=info.file_size)

    def close(self) -> None:
        self._zip.close()
        self._file.close()

    def _begin(self, info: zipfile.ZipInfo) -> IO[bytes]:
        try:
            return self._zip.open(info)
        except BROKEN as error:
            raise ItemRefused("broken_archive", f"zip member: {type(error).__name__}") from None

    def _start(self, info: zipfile.ZipInfo) -> int:
        self._file.seek(info.header_offset)
        header = self._file.read(LOCAL_HEADER)
        if header[:4] != b"PK\x03\x04" or len(header) < LOCAL_HEADER:
            raise ItemRefused("broken_archive", "zip: a member is not where the directory says")
        name, extra = struct.unpack("<HH", header[26:30])
        return int(info.header_offset + LOCAL_HEADER + name + extra)

    def _index(self, *, size: int, limits: Limits) -> list[Member]:
        entries = self._zip.infolist()
        if len(entries) > limits.members:
            raise ItemRefused("archive_limit", f"zip: more than {limits.members} members")
        if sum(info.compress_size for info in entries) > size:
            raise ItemRefused("archive_limit", "zip: its members overlap")
        if any(info.header_offset < 0 for info in entries):
            raise ItemRefused("broken_archive", "zip: its directory tells of members before its beginning")
        places = Places()
        for info in entries:
            if info.filename.endswith("/"):  # is_dir takes no name that is empty
                continue
            path, is_inside = member_path(_name(info))
            refusal, detail = _refusal(info, limits)
            member = Member(path, info.file_size, _time(info), refusal, detail)
            if places.add(member, is_inside=is_inside):
                self._entries[path] = info
        return places.told


class _Told:
    """A member as it is unpacked; broken data is told as a refusal wherever it shows."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def read(self, size: int) -> bytes:
        try:
            return self._stream.read(size)
        except BROKEN as error:
            raise ItemRefused("broken_archive", f"zip member: {type(error).__name__}") from None


def _refuse_large(file: BinaryIO, *, size: int, limits: Limits) -> None:
    """ItemRefused(archive_limit) before a directory is read that would not fit into memory."""
    file.seek(max(0, size - END_AT_MOST))
    tail = file.read(END_AT_MOST)
    at = tail.rfind(END)
    if at < 0 or len(tail) - at < 22:
        raise ItemRefused("broken_archive", "zip: it has no directory, as after a cut transfer")
    n_entries, n_bytes, start = struct.unpack("<HII", tail[at + 10 : at + 20])
    if 0xFFFF in {n_entries} or 0xFFFFFFFF in {n_bytes, start}:
        place = tail.find(b"PK\x06\x06")
        if place >= 0 and len(tail) - place >= 56:
            n_entries, n_bytes, start = struct.unpack("<QQQ", tail[place + 32 : place + 56])
    if n_entries > limits.members or n_bytes > limits.directory_bytes:
        raise ItemRefused("archive_limit", f"zip: more than {limits.members} members")
    if n_bytes // SMALLEST_ENTRY > limits.members and _count(file, size=size, n_bytes=n_bytes) > limits.members:
        raise ItemRefused("archive_limit", f"zip: more than {limits.members} members")


def _count(file: BinaryIO, *, size: int, n_bytes: int) -> int:
    """Entries in the directory, whatever the end record says; it ends where the end record begins."""
    file.seek(max(0, size - END_AT_MOST - n_bytes))
    found, rest = 0, b""
    while block := file.read(BLOCK):
        found += (rest + block).count(ENTRY)
        rest = block[-3:]
    return found


def _name(info: zipfile.ZipInfo) -> str:
    """The name as its bytes say: UTF-8 if valid, whether it is declared or not; other bytes as surrogates."""
    if info.flag_bits & UTF_8:
        return info.orig_filename
    try:
        return info.orig_filename.encode("cp437").decode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return info.orig_filename


def _refusal(info: zipfile.ZipInfo, limits: Limits) -> tuple[str | None, str]:
    if info.flag_bits & ENCRYPTED:
        return "encrypted", "a member with a password"
    if info.external_attr >> 16 & KIND == SYMLINK:
        return "link_in_archive", "links inside archives are not followed"
    if info.compress_type not in METHODS:
        return "unsupported_member", f"zip compression method {info.compress_type}"
    beyond = limits.refusal_of(size=info.file_size, stored=info.compress_size)
    return ("archive_limit", beyond) if beyond else (None, "")


def _time(info: zipfile.ZipInfo) -> int:
    """The CRC as the check number: zip keeps times without a zone, so that they may lie in the future."""
    return checked_time(0, struct.pack("<I", info.CRC))
