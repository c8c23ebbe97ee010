"""The bytes of a file on disk; what the system refuses becomes a typed refusal."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ospor_batch.errors import ItemRefused

BLOCK = 1 << 20


@contextlib.contextmanager
def open_file(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file for reading; ItemRefused says why it, or a read in the body, failed.

    Reasons: file_missing, permission_denied, read_error (transient), special_file, name_too_long.
    """
    try:
        with handle_of(path) as file:
            yield file
    except OSError as error:
        raise refusal_of(error) from None


def is_file(path: str | Path) -> bool:
    """Whether a path leads to a file; no where the system does not answer, as of a share that is gone: listing it tells why."""
    return os.path.isfile(path)  # noqa: PTH113 -- Path.is_file raises there


def handle_of(path: Path) -> BinaryIO:
    """Open a regular file; OSError, or ItemRefused(special_file)."""
    # without O_NONBLOCK, a pipe that took the name of a file would hang the crawl
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ItemRefused("special_file", "not a regular file")
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def content_digest(file: BinaryIO) -> str:
    """SHA-256 of the content from its first byte."""
    file.seek(0)
    digest = hashlib.sha256()
    while block := file.read(BLOCK):
        digest.update(block)
    return digest.hexdigest()


def refusal_of(error: OSError) -> ItemRefused:
    """What the system said, as a refusal without path."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return ItemRefused("file_missing", "no longer there", is_transient=True)
    if isinstance(error, PermissionError):
        return ItemRefused("permission_denied", "the system refuses to open it", is_transient=True)
    if error.errno == errno.ENAMETOOLONG:
        return ItemRefused("name_too_long", "the path is longer than the system opens")
    return ItemRefused("read_error", type(error).__name__, is_transient=True)
