"""The text that a name is stored as, and the check number that a time may carry."""

from __future__ import annotations

import re
import zlib
from pathlib import Path

SURROGATE = re.compile("[\udc80-\udcff\\\\]")
ESCAPE = re.compile(r"\\u(dc[89a-f][0-9a-f]|005c)")
DRIVE = re.compile(r"^[A-Za-z]:")
SECOND = 10**9
LAST_SECOND = 9_223_372_035  # from 1970, back as well: as far as nanoseconds in 64 bits reach (the year 2262)


def path_text(name: str) -> str:
    r"""Write a name as valid text: bytes that are not UTF-8 become ``\udcXX``, a backslash ``\u005c``; reversible."""
    return SURROGATE.sub(lambda found: f"\\u{ord(found.group()):04x}", name)


def path_name(text: str) -> str:
    """Read the name back from the text that path_text wrote."""
    return ESCAPE.sub(lambda found: chr(int(found.group(1), 16)), text)


def local_path(root: Path, text: str) -> Path:
    """The path of a file below its archive root, from the text that the catalog holds."""
    return root / path_name(text)


def member_path(name: str) -> tuple[str, bool]:
    """The path text of a name inside an archive, and whether it stays inside; an absolute or climbing name does not."""
    if "\\" in name and "/" not in name:
        name = name.replace("\\", "/")  # some archives are written with the separators of Windows
    parts = [part for part in name.split("/") if part not in {"", "."}]
    is_inside = bool(parts) and not name.startswith("/") and ".." not in parts and "\0" not in name and not DRIVE.match(name)
    return path_text("/".join(parts).replace("\0", "?")) or "unnamed", is_inside


def held_time(seconds: int, nanoseconds: int) -> int:
    """Nanoseconds since 1970; a file system may hold a wrong clock's year 9999, which ends where a column does."""
    return max(-LAST_SECOND, min(LAST_SECOND, seconds)) * SECOND + nanoseconds


def checked_time(seconds: float, token: bytes) -> int:
    """Nanoseconds since 1970 whose last nine digits are a check number over token.

    So two contents with the same size and time still differ where the source offers a checksum (CRC, ETag). Sources
    without a time that can be relied on give 0 seconds.
    """
    return int(seconds) * SECOND + zlib.crc32(token) % SECOND
