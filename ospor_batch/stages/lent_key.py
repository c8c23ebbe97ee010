"""The pseudonym key, lent to processes of this machine and user for as long as a crawl runs; it never lies on a disk."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from ospor_batch.pseudonym import pseudonym


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


def borrowed(place: str | None, *, mark: str) -> bytes | None:
    """The key of this mark that is lent at a place; null where it cannot be had, or where something else lies there now."""
    if place is None:
        return None
    try:
        key = Path(place).read_bytes()
    except OSError:
        return None
    return key if key and mark_of(key) == mark else None


def mark_of(key: bytes) -> str:
    """What tells one key from another, and nobody the key: rows made with two keys would split every person."""
    return pseudonym("", kind="key", issuer="", key=key)
