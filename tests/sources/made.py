"""Archives with what no honest archive holds."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from ospor_batch.archive.listing import list_archive
from ospor_batch.archive.walk import Listed
from ospor_batch.sources import locate, read_bytes


def zipped(files: dict[str, bytes], *, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return out.getvalue()


def tarred(files: dict[str, bytes], *, mode: str = "w", change: Callable[[tarfile.TarInfo], None] | None = None) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as packed:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            if change is not None:
                change(info)
            packed.addfile(info, io.BytesIO(content) if info.isreg() else None)
    return out.getvalue()


def encrypted(content: bytes) -> bytes:
    """A zip whose members say that they have a password."""
    changed = bytearray(content)
    for start, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = changed.find(start)
        while at >= 0:
            (told,) = struct.unpack_from("<H", changed, at + flags)
            struct.pack_into("<H", changed, at + flags, told | 1)
            at = changed.find(start, at + 4)
    return bytes(changed)


def listed(root: Path | str, cache: Path, **more: int) -> dict[str, Listed]:
    """What an archive lists, by path."""
    found = list(list_archive(str(root), cache=cache, **more))  # type: ignore[arg-type]
    assert len({file.path for file in found}) == len(found)
    return {file.path: file for file in found}


def refusals(root: Path | str, cache: Path) -> dict[str, str | None]:
    return {path: file.refusal for path, file in listed(root, cache).items()}


def contents(root: Path | str, cache: Path) -> dict[str, bytes]:
    """Every file that is not refused, read through its place."""
    found = listed(root, cache)
    return {path: read_bytes(locate(str(root), path, cache=cache)) for path, file in found.items() if file.refusal is None}
