"""Members of a tar: listed by hopping from header to header, opened in place; compressed tars are unpacked to the cache."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO, Literal, cast

from ospor_batch.errors import ItemRefused
from ospor_batch.sources.cache import within
from ospor_batch.sources.containers import LIMITS, Limits, Member, Places, missing
from ospor_batch.sources.names import checked_time, member_path
from ospor_batch.sources.streams import window

BLOCK = 1 << 20
RECORD = 512
LONGEST_HEADER = 1 << 20  # extended headers hold names and numbers; a longer one is made to fill the memory
XZ_MEMORY = 256 << 20  # xz -9 needs 65 MiB


class Tar:
    """An uncompressed tar. token: what changes when the tar does, since tar has no checksum of its members."""

    def __init__(self, file: BinaryIO, *, size: int, token: bytes, limits: Limits = LIMITS) -> None:
        """Read the headers. ItemRefused: broken_archive, archive_limit; a tar that breaks off later has a fault."""
        self.fault: ItemRefused | None = None
        self._file, self._size, self._token, self._limits = file, size, token, limits
        self._entries: dict[str, tuple[int, int]] = {}
        self._told = self._index()

    def members(self) -> Iterator[Member]:
        return iter(self._told)

    def holds(self, path: str) -> bool:
        return path in self._entries

    def open(self, path: str) -> BinaryIO:
        if path not in self._entries:
            raise missing()
        start, size = self._entries[path]
        return window(self._file, start=start, size=size)

    def close(self) -> None:
        self._file.close()

    def _index(self) -> list[Member]:
        places = Places()
        self._file.seek(0)
        try:
            tar = tarfile.open(fileobj=cast("BinaryIO", _Guarded(self._file)), mode="r:", encoding="utf-8")  # noqa: SIM115 -- it holds no file
            while (info := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # it would keep a kilobyte for each member
                if info.offset_data + info.size > self._size and info.isreg():
                    raise tarfile.ReadError
                self._take(info, places)
                if len(places.told) > self._limits.members:
                    raise ItemRefused("archive_limit", f"tar: more than {self._limits.members} members")
            self._refuse_more(tar.offset, n_members=len(places.told))
        except (tarfile.TarError, ValueError, EOFError, OverflowError, zlib.error) as error:
            self.fault = ItemRefused("broken_archive", f"tar: {type(error).__name__} after {len(places.told)} members")
            if not places.told:
                raise self.fault from None
        return places.told

    def _refuse_more(self, end: int, *, n_members: int) -> None:
        """Tell what the reader passes over in silence: a broken header, a cut between two members, a second tar joined on.

        A whole tar ends with zeros.
        """
        self._file.seek(end)
        head = self._file.read(RECORD)
        if not head or any(head):
            raise tarfile.ReadError
        while block := self._file.read(BLOCK):
            if block.count(0) < len(block):
                said = f"tar: more lies behind its end after {n_members} members, as where tars were joined"
                self.fault = ItemRefused("broken_archive", said)
                return

    def _take(self, info: tarfile.TarInfo, places: Places) -> None:
        if info.isdir():
            return
        path, is_inside = member_path(info.name)
        place: tuple[int, int] | None = (info.offset_data, info.size)
        refusal, detail = _refusal(info, self._limits)
        if info.islnk():
            place = self._entries.get(member_path(info.linkname)[0])
            if place is None:
                refusal, detail = "broken_link", "a hard link to no earlier member"
        size = 0 if place is None else place[1]
        member = Member(path, size, checked_time(0, self._token), refusal, detail)
        if places.add(member, is_inside=is_inside) and place is not None:
            self._entries[path] = place


def _refusal(info: tarfile.TarInfo, limits: Limits) -> tuple[str | None, str]:
    if info.issym():
        return "link_in_archive", "links inside archives are not followed"
    if info.islnk():
        return None, ""
    if info.ischr() or info.isblk() or info.isfifo():
        return "special_file", "a pipe or device"
    if not info.isreg() or info.issparse():
        return "unsupported_member", "a sparse file" if info.issparse() else "an unknown type of tar member"
    if info.size > limits.member_bytes:
        return "archive_limit", f"declares more than {limits.member_bytes} bytes"
    return None, ""


class _Guarded:
    """A file that refuses to be read in blocks that no header needs."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= LONGEST_HEADER:
            raise tarfile.ReadError
        return self._file.read(size)


def unpack(file: BinaryIO, out: BinaryIO, *, form: Literal["gz", "bz2", "xz"], room: int) -> None:
    """Write what a compressed file holds, block by block. ItemRefused: archive_limit beyond room bytes, broken_archive."""
    check, written = within(room), 0
    file.seek(0)
    try:
        for block in _unpacked(file, form):
            written += len(block)
            check(written)
            out.write(block)
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, ValueError) as error:
        raise ItemRefused("broken_archive", f"{form}: {type(error).__name__}") from None


def _unpacked(file: BinaryIO, form: Literal["gz", "bz2", "xz"]) -> Iterator[bytes]:
    if form == "xz":
        yield from _unpacked_xz(file)
        return
    with gzip.GzipFile(fileobj=file) if form == "gz" else bz2.BZ2File(file) as stream:
        while True:
            try:
                block = stream.read(BLOCK)
            except OSError as error:
                if error.errno is None and form == "bz2":  # how bz2 tells of broken data
                    raise ValueError from None
                raise
            if not block:
                return
            yield block


def _unpacked_xz(file: BinaryIO) -> Iterator[bytes]:
    content = file.read(BLOCK)
    while content:
        reader = lzma.LZMADecompressor(memlimit=XZ_MEMORY)
        while not reader.eof:
            if reader.needs_input and not content:
                content = file.read(BLOCK)
                if not content:
                    raise EOFError
            yield reader.decompress(content, BLOCK)
            content = b""
        # streams may follow each other, with zeros between
        content = reader.unused_data.lstrip(b"\0") or file.read(BLOCK).lstrip(b"\0")
