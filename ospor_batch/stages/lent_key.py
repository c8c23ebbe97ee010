"""The pseudonym key, lent to processes of this machine and user for as long as a crawl runs; it never lies on a disk."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def lent(key: bytes) -> Iterator[str | None]:
    """Where the key can be read while the block runs: in memory of this process; null where the system cannot do so.

    The system lets only processes of the same user look there, who could read the key wherever this process got it from.
    """
    try:
        handle = os.memfd_create("key")
    except (AttributeError, OSError):  # not Linux, or a Linux that forbids it
        yield None
        return
    try:
        os.fchmod(handle, 0o400)
        os.write(handle, key)
        yield f"/proc/{os.getpid()}/fd/{handle}"
    finally:
        os.close(handle)


def borrowed(place: str | None) -> bytes | None:
    """The key that is lent at a place; null where it cannot be had."""
    if place is None:
        return None
    try:
        return Path(place).read_bytes() or None
    except OSError:
        return None
