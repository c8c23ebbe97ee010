"""The first bytes of many files in one block of memory, so that their headers can be walked together."""

from __future__ import annotations

import functools
import itertools
import operator
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.int64]
PAD = 1088  # bytes behind the last row: a word or value may be read across its end, and is then judged by the bounds
APART = 64  # bytes more from row to row than are read: at a power of two, all rows would meet in few lines of the caches
LATER = 16 << 20  # bytes of address space behind a block, for what is read on of long headers; unused ones take no memory
FEWEST = 4  # files of a folder from which on opening it first saves time
FLAGS = (
    os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
)  # O_NONBLOCK: a pipe in the place of a file does not hang, and reads as empty


@dataclass(frozen=True)
class Heads:
    """First bytes of files: file i begins at ``start[i]`` of the block, its bytes there end at ``end[i]``.

    sizes: of the whole files in bytes; -1 where a file could not be opened or read: whoever needs it opens it again
    and learns why.
    """

    block: NDArray[np.uint8]
    start: Places
    end: Places
    sizes: Places

    def words(self, dtype: str) -> NDArray[np.generic]:
        """The block as items of a type that begin at every byte."""
        item = np.dtype(dtype)
        n = len(self.block) - item.itemsize + 1
        return np.ndarray((n,), dtype=item, buffer=self.block.data, strides=(1,))

    @functools.cached_property
    def memory(self) -> memoryview:
        """The block for reading it byte by byte."""
        return self.block.data

    @functools.cached_property
    def held(self) -> NDArray[np.bool_]:
        """Whether a file's bytes are all here."""
        return np.asarray(self.end - self.start == self.sizes)


def _folders(paths: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Runs of files of one folder, their names in it; an empty folder where names are paths, since it has few files."""
    for (folder, sign), run in itertools.groupby((path.rpartition("/") for path in paths), key=operator.itemgetter(0, 1)):
        names = [name for _, _, name in run]
        if len(names) >= FEWEST:
            yield folder + sign or ".", names
        else:
            yield "", [folder + sign + name for name in names]


def _read_names(names: Sequence[str], *, memory: memoryview, n_bytes: int, beside: int | None) -> list[int]:
    """Read the first bytes of files, one behind the other; how many each gave, -1 where it cannot be read."""
    opened, read, close = os.open, os.readv, os.close  # three look-ups less for every file
    at, got = 0, [-1] * len(names)
    for number, name in enumerate(names):
        try:
            handle = opened(name, FLAGS, dir_fd=beside)
        except (OSError, ValueError):  # ValueError: a name that no system call takes
            at += n_bytes + APART
            continue
        try:
            got[number] = read(handle, [memory[at : at + n_bytes]])
        except OSError:  # whoever reads it alone learns why
            pass
        finally:
            close(handle)
        at += n_bytes + APART
    return got


def _read_folder(folder: str, names: Sequence[str], *, memory: memoryview, n_bytes: int) -> list[int]:
    """Read the first bytes of files of one folder, which the system then looks up once."""
    if not folder:
        return _read_names(names, memory=memory, n_bytes=n_bytes, beside=None)
    try:
        beside = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except (OSError, ValueError):
        return [-1] * len(names)
    try:
        return _read_names(names, memory=memory, n_bytes=n_bytes, beside=beside)
    finally:
        os.close(beside)


def read_heads(
    paths: Sequence[str], sizes: Sequence[int], *, n_bytes: int, block: NDArray[np.uint8] | None = None, behind: int = 0
) -> Heads:
    """Read the first bytes of local files; a block of an earlier call may be used again. sizes: as listed, in bytes.

    The listed size counts where a file is longer than the bytes read: one that has changed since is found so next time.
    behind: bytes of the block that are kept.
    """
    n = len(paths)
    if block is None or len(block) < behind + room(n, n_bytes=n_bytes):
        block = np.empty(behind + room(n, n_bytes=n_bytes) + LATER, np.uint8)
    memory, got = block.data[behind:], list[int]()
    for folder, names in _folders(paths):
        got += _read_folder(folder, names, memory=memory[len(got) * (n_bytes + APART) :], n_bytes=n_bytes)
    start = np.arange(n, dtype=np.int64) * (n_bytes + APART) + behind
    held = np.array(got, np.int64)
    return Heads(block, start, start + np.maximum(held, 0), np.where(held < n_bytes, held, np.array(sizes, np.int64)))


def room(n: int, *, n_bytes: int) -> int:
    """Bytes of a block that n files take."""
    return n * (n_bytes + APART) + PAD
