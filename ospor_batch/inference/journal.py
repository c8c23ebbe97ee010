"""What a worker is at, on disk: when its process dies, whoever looks after it knows which series it was working on.

A line is written by one call of the operating system and survives the death of the process; a torn last line is ignored.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from ospor_batch.errors import StorageError

# faulthandler writes this at the head of what it says before it ends a process
TIMED_OUT = "Timeout ("


@dataclass(frozen=True)
class Left:
    """What a journal tells of a shard.

    working: item digest to the Unix time since when it was read, decoded or computed at the end; in order.
    kept: items that stand in a durable part. writing: name of a part that may or may not have become durable. is_timed_out:
    the process was ended for the time that an item took.
    """

    working: dict[str, float]
    kept: frozenset[str]
    is_timed_out: bool
    writing: str | None = None


class Journal:
    """The journal of one shard; safe to use from several threads, and from processes that open it not as new."""

    def __init__(self, target: Path, *, is_new: bool = True) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | (os.O_TRUNC if is_new else 0)
        try:
            self._file = os.open(target, flags, 0o600)
        except OSError as error:
            raise StorageError(f"a journal cannot be written ({type(error).__name__}, errno {error.errno})") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        os.close(self._file)

    def fileno(self) -> int:
        return self._file

    def begins(self, items: Iterable[str]) -> None:
        """Work on these begins: if the process dies now, it may be because of them."""
        now = f"{time.time():.3f}"
        self._write("".join(f"begins {item} {now}\n" for item in items))

    def rests(self, items: Iterable[str]) -> None:
        """These wait, for the device or for the disk; no code works on them."""
        self._write("".join(f"rests {item}\n" for item in items))

    def writes(self, part: str) -> None:
        """A part of this name is about to become durable: if the process dies before it says which items it keeps, look."""
        self._write(f"writes {part}\n")

    def keeps(self, items: Iterable[str]) -> None:
        """These stand in a durable part."""
        self._write("".join(f"keeps {item}\n" for item in items))

    def _write(self, lines: str) -> None:
        # a journal that cannot be written on a full disk must not end work that can
        with contextlib.suppress(OSError):
            os.write(self._file, lines.encode())


def read_journal(source: Path) -> Left | None:
    """What stands in a journal; null when the shard was never begun."""
    try:
        lines = source.read_text(encoding="ascii", errors="replace").split("\n")
    except FileNotFoundError:
        return None
    working: dict[str, float] = {}
    kept: set[str] = set()
    writing: str | None = None
    for line in lines[:-1]:  # what follows the last line end is torn, or nothing
        word, *rest = line.split(" ")
        if word == "begins" and len(rest) == 2:
            working[rest[0]] = float(rest[1])
        elif word in {"rests", "keeps"} and len(rest) == 1:
            working.pop(rest[0], None)
            if word == "keeps":
                kept.add(rest[0])
                writing = None
        elif word == "writes" and len(rest) == 1:
            writing = rest[0]
    return Left(working, frozenset(kept), any(line.startswith(TIMED_OUT) for line in lines), writing)
