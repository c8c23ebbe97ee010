"""What a zip or tar is, what it may hold, and how its members are told and opened; nothing in it is ever trusted."""

from __future__ import annotations

import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Literal, NamedTuple, Protocol

from ospor_batch.errors import ItemRefused

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
Format = Literal["zip", "tar", "gz", "bz2", "xz"]
# what the readers of the standard library raise on bytes that are no whole archive
BROKEN = (
    zipfile.BadZipFile, zipfile.LargeZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error,
    EOFError, ValueError, NotImplementedError, RuntimeError, IndexError, KeyError, OverflowError,
)  # fmt: skip
TAR_MAGIC_AT = 257  # POSIX.1-1988 ustar


@dataclass(frozen=True)
class Limits:
    """What an archive may ask of us; beyond it, it or its member is refused as archive_limit.

    ratio: declared bytes for each stored one, judged on members above free_bytes. The best deflate does is 1032, and
    empty slices come near it; but images of 64 MiB never shrink to a two hundredth.
    """

    members: int = 500_000  # they take about 0.2 GB of memory
    directory_bytes: int = 128 << 20
    member_bytes: int = 16 << 30
    ratio: int = 200
    free_bytes: int = 64 << 20

    def refusal_of(self, *, size: int, stored: int) -> str | None:
        """Why a member of this declared and this stored size is not opened; null when it may be."""
        if size > self.member_bytes:
            return f"declares more than {self.member_bytes} bytes"
        if size > self.free_bytes and size > self.ratio * max(stored, 1):
            return f"declares more than {self.ratio} bytes for each stored one"
        return None


LIMITS = Limits()


class Member(NamedTuple):
    """One file inside an archive; ``refusal`` when it is not opened. mtime_ns: as names.checked_time writes it."""

    path: str
    size_bytes: int
    mtime_ns: int
    refusal: str | None = None
    detail: str = ""


class Container(Protocol):
    """A zip or tar whose directory was read."""

    fault: ItemRefused | None
    """Why its list of members is not whole; null when it is."""

    def members(self) -> Iterator[Member]:
        """Every file inside, in stored order; folders are no files."""

    def holds(self, path: str) -> bool:
        """Whether a file of this path can be opened."""

    def open(self, path: str) -> BinaryIO:
        """Open a member; ItemRefused(file_missing) when there is none of this path."""

    def close(self) -> None:
        """Let go of the file."""


def is_container_name(path: str) -> bool:
    """Whether a file is named like a zip or tar; its content decides whether it is one."""
    return path[-8:].lower().endswith(SUFFIXES)


def format_of(file: BinaryIO) -> Format | None:
    """What the first bytes say; null for anything that is no archive."""
    file.seek(0)
    head = file.read(512)
    if head[:4] in {b"PK\x03\x04", b"PK\x05\x06"}:
        return "zip"
    if head[TAR_MAGIC_AT : TAR_MAGIC_AT + 5] == b"ustar" or _is_old_tar(head):
        return "tar"
    for start, name in ((b"\x1f\x8b", "gz"), (b"BZh", "bz2"), (b"\xfd7zXZ\x00", "xz")):
        if head.startswith(start):
            return name  # type: ignore[return-value]
    return None


def _is_old_tar(head: bytes) -> bool:
    """A tar header without magic: its checksum is right."""
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def missing() -> ItemRefused:
    """The refusal of a member that is not there."""
    return ItemRefused("file_missing", "no such member in the archive", is_transient=True)


class Places:
    """The members of an archive by path: the last of a name stands, as for whoever unpacks it; all are told."""

    def __init__(self) -> None:
        self.told: list[Member] = []
        self._number: dict[str, int] = {}

    def add(self, member: Member, *, is_inside: bool) -> bool:
        """Take one member and say whether it can be opened; refused names get a number, so that all differ."""
        n = len(self.told)
        if not is_inside:
            member = member._replace(refusal="unsafe_name", detail="the name leads out of the archive")
        if member.refusal is not None and (not is_inside or member.path in self._number):
            self.told.append(member._replace(path=f"{member.path}//{n}"))
            return False
        before = self._number.get(member.path)
        if before is not None:
            older = self.told[before]
            self.told[before] = older._replace(
                path=f"{older.path}//{before}",
                refusal=older.refusal or "duplicate_name",
                detail=older.detail or "a later member has the same name",
            )
        self._number[member.path] = n
        self.told.append(member)
        return member.refusal is None
