"""The first bytes of many files in one block of memory, so that their headers can be walked together."""

from __future__ import annotations

import contextlib
import functools
import itertools
import operator
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ospor_batch.archive import afar

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

    def kept(self, rows: Places, *, block: NDArray[np.uint8], n_bytes: int, n_before: int) -> Heads:
        """Some of the files, which lie in a row here, copied to another block, behind others; n_bytes: read of each."""
        apart = n_bytes + APART
        of = self.block[: len(self.start) * apart].reshape(-1, apart)
        block[n_before * apart : (n_before + len(rows)) * apart].reshape(-1, apart)[:] = of[rows]
        start = (n_before + np.arange(len(rows), dtype=np.int64)) * apart
        return Heads(block, start, start + (self.end - self.start)[rows], self.sizes[rows])


def together(parts: Sequence[Heads]) -> Heads:
    """Files of one block as one."""
    if len(parts) == 1:
        return parts[0]
    columns = ([getattr(part, name) for part in parts] for name in ("start", "end", "sizes"))
    return Heads(parts[0].block, *map(np.concatenate, columns))


def _folders(paths: Sequence[str]) -> Iterator[tuple[str, Sequence[str]]]:
    """Runs of files of one folder, their names in it; an empty folder where names are paths, since it has few files."""
    cut = paths[0].rfind("/") + 1 if paths else 0
    names = [path[cut:] for path in paths]
    if len(paths) >= FEWEST and "/" not in "".join(names) and all(map(str.startswith, paths, itertools.repeat(paths[0][:cut]))):
        yield paths[0][:cut] or ".", names
        return
    folders = [path[: path.rfind("/")] for path in paths]
    if len(set(folders)) * FEWEST > len(paths):
        yield "", paths
        return
    for (folder, sign), run in itertools.groupby((path.rpartition("/") for path in paths), key=operator.itemgetter(0, 1)):
        names = [name for _, _, name in run]
        if len(names) >= FEWEST:
            yield folder + sign or ".", names
        else:
            yield "", [folder + sign + name for name in names]


View = list[memoryview]


def views_of(block: NDArray[np.uint8], n: int, *, n_bytes: int, behind: int = 0) -> Iterator[View]:
    """Where the first bytes of n files go, as the system takes it; behind bytes of the block that are kept."""
    memory, apart = block.data, n_bytes + APART
    return ([memory[at : at + n_bytes]] for at in range(behind, behind + n * apart, apart))


def _read_names(names: Sequence[str], *, views: Iterator[View], beside: int | None) -> list[int]:
    """Read the first bytes of files; how many each gave, -1 where it cannot be read."""
    opened, read, close = os.open, os.readv, os.close  # three look-ups less for every file
    got = [-1] * len(names)
    for number, (name, view) in enumerate(zip(names, views, strict=False)):
        try:
            handle = opened(name, FLAGS, dir_fd=beside)
        except (OSError, ValueError):  # ValueError: a name that no system call takes
            continue
        try:
            got[number] = read(handle, view)
        except OSError:  # whoever reads it alone learns why
            pass
        finally:
            close(handle)
    return got


def _read_folder(folder: str, names: Sequence[str], *, views: Iterator[View]) -> list[int]:
    """Read the first bytes of files of one folder, which the system then looks up once."""
    if not folder:
        return _read_names(names, views=views, beside=None)
    try:
        beside = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except (OSError, ValueError):
        return [-1 for _ in zip(names, views, strict=False)]
    try:
        return _read_names(names, views=views, beside=beside)
    finally:
        os.close(beside)


def read_heads(
    paths: Sequence[str],
    sizes: Sequence[int],
    *,
    n_bytes: int,
    block: NDArray[np.uint8] | None = None,
    behind: int = 0,
    views: Sequence[View] | None = None,
) -> Heads:
    """Read the first bytes of local files; a block of an earlier call may be used again. sizes: as listed, in bytes.

    The listed size counts where a file is longer than the bytes read: one that has changed since is found so next time.
    behind: bytes of the block that are kept. views: as views_of gives them, if they are at hand.
    """
    n = len(paths)
    if block is None or len(block) < behind + room(n, n_bytes=n_bytes):
        block = new_block(n, n_bytes=n_bytes)
    left = iter(views) if views else views_of(block, n, n_bytes=n_bytes, behind=behind)
    got = afar.read(_read_folder, _folders(paths), views=left)
    start = np.arange(n, dtype=np.int64) * (n_bytes + APART) + behind
    held = np.array(got, np.int64)
    return Heads(block, start, start + np.maximum(held, 0), np.where(held < n_bytes, held, np.array(sizes, np.int64)))


def new_block(n: int, *, n_bytes: int) -> NDArray[np.uint8]:
    """Memory for the first bytes of n files, and for what is read on of them."""
    return np.empty(room(n, n_bytes=n_bytes) + LATER, np.uint8)


class Spare(threading.local):
    """The block that a thread used last, for its next one: to have the pages of new ones cleared takes 1 us a file."""

    def __init__(self) -> None:
        self._block = np.empty(0, np.uint8)

    @contextlib.contextmanager
    def block(self, n: int, *, n_bytes: int) -> Iterator[NDArray[np.uint8]]:
        """A block as `new_block` makes it, which nobody else has meanwhile."""
        block, self._block = self._block, np.empty(0, np.uint8)
        if len(block) < room(n, n_bytes=n_bytes) + LATER:
            block = new_block(n, n_bytes=n_bytes)
        try:
            yield block
        finally:
            self._block = block


def room(n: int, *, n_bytes: int) -> int:
    """Bytes of a block that n files take."""
    return n * (n_bytes + APART) + PAD
