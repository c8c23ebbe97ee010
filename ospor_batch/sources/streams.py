"""Seekable files over what is none: a part of a file, a stream that only runs forward, ranges fetched from afar."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, BinaryIO, cast

SKIP = 1 << 20  # bytes passed over at a time
BUFFER = 1 << 13  # what a header seldom exceeds; a larger one would be unpacked in vain
Fetch = Callable[[int, int], bytes]
"""Offset and number of bytes to the bytes there; fewer only where the source ends."""


class _Ranged(io.RawIOBase):
    name = ""  # pydicom asks buffered files for one

    def __init__(self, size: int, fetch: Fetch) -> None:
        super().__init__()
        self._size, self._fetch, self._at = size, fetch, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence])
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        wanted = min(len(view), self._size - self._at)
        content = self._fetch(self._at, wanted) if wanted > 0 else b""
        view[: len(content)] = content
        self._at += len(content)
        return len(content)

    def readall(self) -> bytes:
        content = self._fetch(self._at, self._size - self._at) if self._at < self._size else b""
        self._at += len(content)
        return content


def ranged(size: int, fetch: Fetch) -> BinaryIO:
    """A buffered, seekable file of that many bytes over a function that fetches some."""
    return cast("BinaryIO", io.BufferedReader(_Ranged(size, fetch), BUFFER))


def window(file: BinaryIO, *, start: int, size: int) -> BinaryIO:
    """A part of a seekable file as a file of its own."""

    def fetch(at: int, n: int) -> bytes:
        file.seek(start + at)
        return file.read(n)

    return ranged(size, fetch)


def restarting(begin: Callable[[], BinaryIO], *, size: int) -> BinaryIO:
    """A seekable file over a stream that only runs forward: a step back begins it anew, nothing is held."""
    stream = begin()
    passed = 0

    def fetch(at: int, n: int) -> bytes:
        nonlocal stream, passed
        if at < passed:
            stream, passed = begin(), 0
        while passed < at:
            skipped = len(stream.read(min(SKIP, at - passed)))
            if not skipped:
                return b""
            passed += skipped
        content = stream.read(n)
        passed += len(content)
        return content

    return ranged(size, fetch)
