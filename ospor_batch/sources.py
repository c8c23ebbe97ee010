"""The bytes of a file, wherever it lies, and the text that its name is stored as."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ospor_batch.errors import ItemRefused

BLOCK = 1 << 20
SURROGATE = re.compile("[\udc80-\udcff\\\\]")
ESCAPE = re.compile(r"\\u(dc[89a-f][0-9a-f]|005c)")


def path_text(name: str) -> str:
    r"""Write a name as valid text: bytes that are not UTF-8 become ``\udcXX``, a backslash ``\u005c``; reversible."""
    return SURROGATE.sub(lambda found: f"\\u{ord(found.group()):04x}", name)


def path_name(text: str) -> str:
    """Read the name back from the text that path_text wrote."""
    return ESCAPE.sub(lambda found: chr(int(found.group(1), 16)), text)


def local_path(root: Path, text: str) -> Path:
    """The path of a file below its archive root, from the text that the catalog holds."""
    return root / path_name(text)


@contextlib.contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file for reading; ItemRefused says why it, or a read in the body, failed.

    Reasons: file_missing, permission_denied, read_error (transient), special_file.
    """
    try:
        # without O_NONBLOCK, a pipe that took the name of a file would hang the crawl
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise ItemRefused("special_file", "not a regular file")
            yield file
    except OSError as error:
        raise _refusal(error) from None


def read_bytes(path: Path) -> bytes:
    """The whole content of a file."""
    with open_bytes(path) as file:
        return file.read()


def content_digest(file: BinaryIO) -> str:
    """SHA-256 of the content from its first byte."""
    file.seek(0)
    digest = hashlib.sha256()
    while block := file.read(BLOCK):
        digest.update(block)
    return digest.hexdigest()


def _refusal(error: OSError) -> ItemRefused:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return ItemRefused("file_missing", "no longer there", is_transient=True)
    if isinstance(error, PermissionError):
        return ItemRefused("permission_denied", "the system refuses to open it", is_transient=True)
    return ItemRefused("read_error", type(error).__name__, is_transient=True)
