"""Read the usual files of a partition together; what is unusual is left to be read alone."""

from __future__ import annotations

import functools
import io
import os
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl
import pydicom
from numpy.typing import NDArray

from ospor_batch.archive.columns import Columns, is_usual, wanted_elements
from ospor_batch.archive.content import ITEM_HEADER, PixelElement, check_encapsulated, headers_of
from ospor_batch.archive.elements import UNDEFINED
from ospor_batch.archive.frames import CLASSES
from ospor_batch.archive.header import SEGMENTATIONS
from ospor_batch.archive.heads import APART, FLAGS, PAD, Heads, Spare, View, new_block, read_heads, room, together, views_of
from ospor_batch.archive.layout import Memory
from ospor_batch.archive.locate import locate
from ospor_batch.archive.lockstep import Found
from ospor_batch.archive.opening import HeaderSource
from ospor_batch.archive.runs import AT_ONCE, FEWEST_TAKEN, NEAR, Remembered, Runs
from ospor_batch.errors import ItemRefused
from ospor_batch.sources import roots
from ospor_batch.sources.local import is_file
from ospor_batch.sources.names import path_name

FIRST_BYTES = 8192  # of a file: what the headers of CT slices and radiographs take
MORE = 8  # times as many bytes of the files whose header was longer
MOST_BYTES = 4 << 20  # of one file; longer headers are read by pydicom
BACKSLASH = "\\"
BLOCK_BYTES = 16 << 20  # of first bytes in memory at a time
SPARE = Spare()


@functools.cache
def layouts() -> Memory:
    """The layouts that this process has met."""
    return Memory(wanted_elements())


def shapes() -> Remembered:
    """The shapes of headers that this thread has met last; what changes in them is learnt while they are used."""
    return _shapes_of(threading.get_ident())


@functools.lru_cache(maxsize=64)
def _shapes_of(_thread: int) -> Remembered:
    return Remembered()


class Quick(NamedTuple):
    """Files that are plainly whole instances: their places in the partition, in order, and what their headers fill."""

    numbers: NDArray[np.int64]
    columns: dict[str, pl.Series]


@dataclass(frozen=True)
class Partition:
    """Files to read: their paths and sizes as listed, their names where they are plain files on disk, and their source."""

    paths: Sequence[str]
    sizes: Sequence[int]
    source: HeaderSource
    on_disk: Sequence[str] | None = None

    def heads(
        self,
        some: NDArray[np.int64],
        *,
        n_bytes: int,
        block: NDArray[np.uint8] | None,
        behind: int = 0,
        views: Sequence[View] | None = None,
    ) -> Heads:
        """First bytes of some of the files, as `read_heads` tells them."""
        is_run = bool((some[1:] - some[:-1] == 1).all())
        at: Sequence[int] = range(int(some[0]), int(some[-1]) + 1) if is_run else some.tolist()
        paths = self.paths if self.on_disk is None else self.on_disk
        names = paths[at[0] : at[-1] + 1] if is_run else [paths[number] for number in at]
        if self.on_disk is None:
            return _streamed(names, n_bytes=n_bytes, source=self.source, block=block, behind=behind)
        sizes = self.sizes[at[0] : at[-1] + 1] if is_run else [self.sizes[number] for number in at]
        return read_heads(names, sizes, n_bytes=n_bytes, block=block, behind=behind, views=views)


def read_quickly(files: Partition, *, is_remembering: bool = True) -> Quick:
    """Read all usual files of a partition; the others are left out. is_remembering: by the layouts met, where they fit."""
    columns, numbers = Columns(layouts().wanted), [np.zeros(0, np.int64)]
    with warnings.catch_warnings(), pydicom.config.disable_value_validation():
        warnings.simplefilter("ignore")  # faults of the header become flags and rejects instead
        todo, n_bytes, runs = np.arange(len(files.paths), dtype=np.int64), FIRST_BYTES, Runs(layouts().wanted, shapes())
        while todo.size and n_bytes <= MOST_BYTES:
            longer = [np.zeros(0, np.int64)]
            for some, heads in blocks(
                files, todo, n_bytes=n_bytes, runs=runs if is_remembering and n_bytes == FIRST_BYTES else None
            ):
                memory = layouts() if is_remembering else None
                kept, short = _locate_and_add(files, some, heads, columns=columns, memory=memory, n_bytes=n_bytes)
                numbers.append(some[kept])
                longer.append(some[short])
            todo, n_bytes = np.concatenate(longer), n_bytes * MORE
        if runs.segments:
            numbers.append(columns.add_runs(runs.segments))
    number = np.concatenate(numbers)
    if not number.size:
        return Quick(number, {})
    keep = columns.is_sound(others=(*SEGMENTATIONS, *CLASSES))
    pixels = columns.pixels
    for at in np.flatnonzero(keep & (pixels.length == UNDEFINED)).tolist():
        element = PixelElement(int(pixels.offset[at]), UNDEFINED)
        keep[at] = _ends(files, int(number[at]), element, frames=int(pixels.frames[at]), size=int(pixels.file_bytes[at]))
    order = np.argsort(number, kind="stable")
    order = order[keep[order]]
    series = columns.series()
    if len(order) != len(number) or (np.diff(order) < 0).any():
        series = {column.name: column for column in pl.DataFrame(list(series.values()))[order].get_columns()}
    return Quick(number[order], series)


def _locate_and_add(
    files: Partition, some: NDArray[np.int64], heads: Heads, *, columns: Columns, memory: Memory | None, n_bytes: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The files of a block that were added, and which ones need more bytes."""
    wanted = layouts().wanted
    found = locate(heads, wanted=wanted, memory=memory)
    if files.on_disk is not None and found.is_short.any():
        heads = _read_on(files, some, heads, found=found, memory=memory, n_bytes=n_bytes)
    rows = np.flatnonzero(is_usual(heads, found, wanted=wanted))
    return columns.add(heads, found, rows=rows) if rows.size else rows, found.is_short


def _read_on(
    files: Partition, some: NDArray[np.int64], heads: Heads, *, found: Found, memory: Memory | None, n_bytes: int
) -> Heads:
    """Read on the few long headers of a block and take their places up; what the block has no room for stays short.

    So that they are decoded with the others: a column of few files takes as long as one of many.
    """
    behind = int(heads.start[-1]) + n_bytes + PAD
    while (rows := np.flatnonzero(found.is_short)).size and (n_bytes := n_bytes * MORE) <= MOST_BYTES:
        if behind + room(len(rows), n_bytes=n_bytes) > len(heads.block):
            return heads
        longer = files.heads(some[rows], n_bytes=n_bytes, block=heads.block, behind=behind)
        behind += room(len(rows), n_bytes=n_bytes)
        found.take_over(rows, locate(longer, wanted=layouts().wanted, memory=memory))
        start, end, sizes = heads.start.copy(), heads.end.copy(), heads.sizes.copy()
        start[rows], end[rows], sizes[rows] = longer.start, longer.end, longer.sizes
        heads = Heads(heads.block, start, end, sizes)
    return heads


def names_on_disk(paths: Sequence[str], *, root: str) -> list[str] | None:
    """The names of the files of a folder; null when one may lie inside an archive, or the root is no folder."""
    if "://" in root or is_file(root):
        return None
    folders = {path.rpartition("/")[0] for path in paths}
    if any(next(roots.prefixes(f"{folder}/x"), None) is not None for folder in folders):
        return None
    return [f"{root}/{path_name(path) if BACKSLASH in path else path}" for path in paths]


def blocks(
    files: Partition, todo: NDArray[np.int64], *, n_bytes: int, runs: Runs | None
) -> Iterator[tuple[NDArray[np.int64], Heads]]:
    """The first bytes of the files, a block at a time; without those that runs take up, where they are given."""
    step, n_handed_back = max(1, BLOCK_BYTES // n_bytes), FEWEST_TAKEN if runs is not None else 0
    with SPARE.block(min(step, len(todo)) + n_handed_back, n_bytes=n_bytes) as cold:
        n_hot = 0 if runs is None else min(AT_ONCE, len(todo))
        hot = new_block(n_hot, n_bytes=n_bytes)
        views = list(views_of(hot, n_hot, n_bytes=n_bytes))
        for begin in range(0, len(todo), step):
            some, at, n_left = todo[begin : begin + step], 0, 0
            left = list[tuple[NDArray[np.int64], Heads]]()
            while runs is not None and at < len(some) and not runs.is_resting:
                numbers = some[at : at + AT_ONCE]
                heads = files.heads(numbers, n_bytes=n_bytes, block=hot, views=views[: len(numbers)])
                at += AT_ONCE
                rows = runs.take(heads, numbers, apart=n_bytes + APART, is_last=at >= len(some))
                if at < len(some) and 0 < len(rows) < NEAR and rows[0] + len(rows) == len(numbers):
                    at -= len(rows)  # they are read again, with those behind them
                elif rows.size:
                    left.append((numbers[rows], heads.kept(rows, block=cold, n_bytes=n_bytes, n_before=n_left)))
                    n_left += len(rows)
            rest = some[at:] if runs is None else np.append(runs.handed_back(), some[at:])
            if rest.size:
                left.append((rest, files.heads(rest, n_bytes=n_bytes, block=cold, behind=n_left * (n_bytes + APART))))
            if left:
                yield np.concatenate([numbers for numbers, _ in left]), together([heads for _, heads in left])


def _streamed(
    paths: Sequence[str], *, n_bytes: int, source: HeaderSource, block: NDArray[np.uint8] | None, behind: int
) -> Heads:
    """The first bytes of files that no path opens; what cannot be read is left for whoever reads it alone."""
    n, apart = len(paths), n_bytes + APART
    if block is None or len(block) < behind + room(n, n_bytes=n_bytes):
        block = new_block(n, n_bytes=n_bytes)
    got, sizes = np.zeros(n, np.int64), np.full(n, -1, np.int64)
    for number, path in enumerate(paths):
        try:
            with source.open(path) as file:
                head = file.read(n_bytes)
                size = file.seek(0, io.SEEK_END) if len(head) == n_bytes else len(head)
        except ItemRefused:
            continue
        at = behind + number * apart
        block[at : at + len(head)] = np.frombuffer(head, np.uint8)
        got[number], sizes[number] = len(head), size
    start = np.arange(n, dtype=np.int64) * apart + behind
    return Heads(block, start, start + got, sizes)


def _ends(files: Partition, number: int, element: PixelElement, *, frames: int, size: int) -> bool:
    """Whether the compressed pixels of a file are all there; one where they are not is read alone, and refused there."""
    try:
        if files.on_disk is None:
            with files.source.open(files.paths[number]) as file:
                check_encapsulated(headers_of(file), element, frames=frames, size=size)
            return True
        handle = os.open(files.on_disk[number], FLAGS)
        try:  # without a buffer: of the megabytes between two headers nothing is needed
            check_encapsulated(functools.partial(os.pread, handle, ITEM_HEADER), element, frames=frames, size=size)
        finally:
            os.close(handle)
    except (ItemRefused, OSError, OverflowError, ValueError):
        return False
    return True
