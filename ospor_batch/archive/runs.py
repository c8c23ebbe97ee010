"""Runs of headers of one shape: proved together while they lie in the nearest caches, and kept by what differs in them.

Of a run, one header is kept whole, its base. A header joins when it holds the base's bytes wherever the shape fixes them
(see `shape`) and wherever values are not known to change; of the values that do change, each file's own are kept. So
every value is either compared with the base's, byte for byte, or taken from the file itself.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ospor_batch.archive.heads import PAD, Heads, Places
from ospor_batch.archive.lockstep import Found, Wanted
from ospor_batch.archive.repeated import FIRST
from ospor_batch.archive.shape import Shape, Words, shape_of
from ospor_batch.archive.written import FEW_VALUES, Batch, Few, Written, parted

AT_ONCE = 128  # files: their heads stay in the nearer caches
MOST_SHAPES = 32  # kept from run to run: a scanner's headers differ in the digits of a few numbers
NEAREST = 2  # shapes that another one is derived from, before the header is walked
OFTEN = 4  # times that a value changes among the files at hand from which on it is taken from each file
SELDOM = 16  # files a value, on average, from which on a changing value is compared again
FEWEST = 4  # files that a base must serve, unless others have served many
FEWEST_TAKEN = 192  # files that columns are put together for as fast as they are read again
RESTS = 4  # partitions for which runs rest, after one in which they gave up
NEAR, ALIKE = 8, 0.5  # headers behind another, one of which must share so much of its beginning for it to be a base
BEGINNING = slice(16, 256)  # words behind the preamble
# what is spent on a base in files that it must serve, by measurement of the time of each; credit is for the worst case
PRICE_RUN, PRICE_REBASED, PRICE_RESHAPED, PRICE_WALKED, PRICE_FAILED = 16, 4, 8, 16, 8
FIRST_CREDIT, MOST_CREDIT = 128, 512


@dataclass(eq=False)
class Known:
    """A shape, and the header of it that was met last."""

    shape: Shape
    base: Words

    def __post_init__(self) -> None:
        size = 0 if self.shape.grammar.is_whole else int(self.shape.grammar.sizes[-1])
        self.last = self.base.view(np.uint8)[self.shape.end - size : self.shape.end].tobytes()


@dataclass(eq=False)
class Segment:
    """Files that share a base: their numbers, their sizes in bytes, and the words of the values that change."""

    known: Known
    gathered: Places
    columns: dict[int, tuple[int, int]]
    numbers: list[Places] = field(default_factory=list)
    sizes: list[Places] = field(default_factory=list)
    values: list[Words] = field(default_factory=list)

    @property
    def n(self) -> int:
        """How many they are."""
        return sum(map(len, self.numbers))

    def octets(self) -> NDArray[np.uint8]:
        """The gathered words of every file, as bytes."""
        return np.ascontiguousarray(np.concatenate(self.values)).view(np.uint8)


@dataclass(eq=False)
class Remembered:
    """What outlives a partition: the shapes met last, the latest first, and for how many partitions runs rest."""

    shapes: list[Known] = field(default_factory=list)
    rest: int = 0


class Runs:
    """The runs of a partition."""

    def __init__(self, wanted: Wanted, remembered: Remembered) -> None:
        self.segments: list[Segment] = []
        self._wanted, self._remembered, self._shapes = wanted, remembered, remembered.shapes
        self._open: dict[int, Segment] = {}
        self._credit = -1 if remembered.rest else FIRST_CREDIT
        remembered.rest = max(remembered.rest - 1, 0)

    @property
    def is_resting(self) -> bool:
        """Whether headers share too little for it to pay."""
        return self._credit < 0

    def handed_back(self) -> Places:
        """The files taken up so far, where they are too few for columns of their own; they are no longer here."""
        numbers = [part for segment in self.segments for part in segment.numbers]
        if not self.is_resting or not 0 < sum(map(len, numbers)) < FEWEST_TAKEN:
            return FIRST[:0]
        self.segments.clear()
        self._open.clear()
        return np.sort(np.concatenate(numbers))

    def take(self, heads: Heads, numbers: Places, *, apart: int, is_last: bool) -> Places:
        """Take up the headers that are of known shapes or worth a new one; which rows are left.

        numbers: the files'. apart: bytes from one to the next; the first stands at the block's beginning. is_last: whether
        no more files come; otherwise a few at the end may be left because those behind them are not known yet.
        """
        words = heads.block[: len(numbers) * apart].view(np.uint64).reshape(len(numbers), -1)
        left, aside = np.arange(len(numbers)), list[int]()
        while left.size and not self.is_resting:
            if not is_last and len(left) < NEAR and left[0] + len(left) == len(numbers):
                break
            known = self._shapes[0] if self._shapes and len(left) == len(numbers) else None  # mostly, the one before goes on
            rows = self._fitting(known, heads, words, left) if known is not None else left[:0]
            if not rows.size or rows[0] != left[0]:
                known = self._known_for(heads, words, left)
                rows = self._fitting(known, heads, words, left) if known is not None else left[:0]
            if known is None or not rows.size or rows[0] != left[0] or (len(rows) < FEWEST and not self._is_paying):
                aside.append(int(left[0]))
                left = left[1:]
                self._credit -= PRICE_FAILED
                continue
            self._add(known, numbers[rows], heads.sizes[rows], _of(words, rows), shape=known.shape)
            self._credit = min(self._credit + len(rows) - PRICE_RUN, MOST_CREDIT)
            left = left[len(rows) :] if rows[-1] - rows[0] + 1 == len(rows) else np.setdiff1d(left, rows)
        if self.is_resting:
            self._remembered.rest = RESTS
        return np.append(np.array(aside, np.int64), left)

    @property
    def _is_paying(self) -> bool:
        return self._credit > FIRST_CREDIT

    def _known_for(self, heads: Heads, words: Words, rows: Places) -> Known | None:
        """A shape and base that the first of some headers is of; null where none is found or worth making."""
        row = int(rows[0])
        begin, n_bytes = int(heads.start[row]), int(heads.end[row] - heads.start[row])
        near: Known | None = None
        for known in self._shapes:
            end = begin + known.shape.end
            if n_bytes < known.shape.end or heads.memory[end - len(known.last) : end] != known.last:
                continue
            is_of_shape, is_same = known.shape.judged(words[row], known.base)
            if not is_of_shape:
                continue
            if known.shape.grammar.is_whole and not (heads.held[row] and n_bytes == known.shape.end):
                continue
            if is_same:
                return self._to_front(known)
            near = near or known
        if near is not None:
            self._credit -= PRICE_REBASED
            self._shapes[:] = [known for known in self._shapes if known is not near]
            return self._to_front(Known(near.shape, words[row, : near.shape.n_words].copy()))
        return self._made_for(heads, words, row, n_bytes=n_bytes) if self._is_worth(words, rows) else None

    def _is_worth(self, words: Words, rows: Places) -> bool:
        """Whether the first header is like one of those behind it, or others have been so far."""
        near = words[rows[1 : 1 + NEAR], BEGINNING] == words[int(rows[0]), BEGINNING]
        return self._is_paying or bool((near.mean(axis=1) > ALIKE).any())

    def _made_for(self, heads: Heads, words: Words, row: int, *, n_bytes: int) -> Known | None:
        head = words[row].view(np.uint8)[:n_bytes]
        shape: Shape | None = None
        for known in self._shapes[:NEAREST]:
            shape = shape or known.shape.reshaped(head, known.base.view(np.uint8))
        self._credit -= PRICE_RESHAPED if shape is not None else PRICE_WALKED
        if shape is None and (shape := shape_of(heads, row, wanted=self._wanted)) is None:
            return None
        del self._shapes[MOST_SHAPES - 1 :]
        return self._to_front(Known(shape, words[row, : shape.n_words].copy()))

    def _to_front(self, known: Known) -> Known:
        if not self._shapes or self._shapes[0] is not known:
            self._shapes[:] = [known, *(other for other in self._shapes if other is not known)]
        return known

    def _fitting(self, known: Known, heads: Heads, words: Words, rows: Places) -> Places:
        """Which headers are of a shape and equal to its base save in values that change; learns which those are."""
        shape, base = known.shape, known.base
        ends = heads.end[rows] - heads.start[rows]
        fit = (ends == shape.end) & heads.held[rows] if shape.grammar.is_whole else ends >= shape.end
        fit &= ~shape.is_other(_of(words, rows), base, which=shape.checked)
        rows = rows[fit]
        some = _of(words, rows)[:, : shape.n_words]
        differs = shape.differing(some, base)
        if not differs.any():
            return rows
        changed = np.flatnonzero(differs.any(axis=0))
        is_other = shape.is_other(some, base, which=changed)
        values = some[~is_other][:, changed]
        often = (values[1:] != values[:-1]).sum(axis=0) >= OFTEN
        if often.any():
            shape.take_as_changing(changed[often])
            differs[:, shape.ignored] = False
            is_other |= shape.is_other(some, base, which=shape.checked)
        return rows[~(is_other | differs.any(axis=1))]

    def _add(self, known: Known, numbers: Places, sizes: Places, words: Words, *, shape: Shape) -> None:
        segment = self._open.get(id(known))
        if segment is None or segment.gathered is not shape.gathered:  # what changes has been learnt meanwhile
            segment = self._open[id(known)] = Segment(known, shape.gathered, shape.columns())
            self.segments.append(segment)
        segment.numbers.append(numbers)
        segment.sizes.append(sizes)
        segment.values.append(words[:, shape.gathered])


def _of(words: Words, rows: Places) -> Words:
    """Rows in order, without a copy where they stand in a row."""
    is_run = rows.size and int(rows[-1] - rows[0]) + 1 == len(rows)
    return words[int(rows[0]) : int(rows[-1]) + 1] if is_run else words[rows]


class Gathered:
    """Segments as a batch of files, one segment behind the other; bases: one of each, as a batch of its own."""

    def __init__(self, segments: Sequence[Segment], wanted: Wanted) -> None:
        self.segments, self.counts = segments, np.array([segment.n for segment in segments], np.int64)
        self.n, self.first = int(self.counts.sum()), np.cumsum(self.counts) - self.counts
        self.bases = _bases(segments, wanted)
        self._changing = frozenset[int]().union(*(segment.columns for segment in segments))
        raws = [segment.known.shape.raws(segment.known.base) for segment in segments]
        self._raws: list[tuple[bytes | None, ...]] = list(zip(*raws, strict=True))
        self._octets = [segment.octets() if segment.columns else np.zeros((0, 0), np.uint8) for segment in segments]

    def place(self, at: Places) -> Places:
        """Where the files of some bases begin."""
        return self.first[at]

    def numbers(self) -> Places:
        """The numbers of all files."""
        return np.concatenate([part for segment in self.segments for part in segment.numbers])

    def pixels(self) -> tuple[Places, Places, Places]:
        """Where the pixels of each file begin, how long they say they are, and how long the file is, in bytes."""
        offset, length = np.array([segment.known.shape.pixels for segment in self.segments], np.int64).T
        sizes = np.concatenate([part for segment in self.segments for part in segment.sizes])
        return np.repeat(offset, self.counts), np.repeat(length, self.counts), sizes

    def values(self, slot: int, *, breaks: Places | None = None) -> Written | Few:
        """The values of one element; breaks: more places for one to begin."""
        if slot in self._changing:
            return parted(self._changing_values(slot), breaks, n=self.n)
        held = self._raws[slot]
        if held.count(held[0]) == len(held):
            few = Few(FIRST, held[:1])
        else:
            is_new = [True, *map(operator.ne, held[1:], held)]
            few = Few(self.first[is_new], list(itertools.compress(held, is_new)))
        if len(few) <= FEW_VALUES and (breaks is None or len(breaks) <= 1):
            return few
        return parted(few.many(), breaks, n=self.n)

    def _changing_values(self, slot: int) -> Written:
        """Values of which some are kept for each file; those of a base stand once for all its files."""
        bytes_of = [segment.columns[slot][1] if slot in segment.columns else -1 for segment in self.segments]
        if min(bytes_of) < 0:
            return self._mixed_values(slot)
        widths = np.array(bytes_of, np.int64)
        octets = np.zeros((self.n, max(bytes_of)), np.uint8)
        for segment, held, first in zip(self.segments, self._octets, self.first.tolist(), strict=True):
            at, n_bytes = segment.columns[slot]
            octets[first : first + len(held), :n_bytes] = held[:, at : at + n_bytes]
        items = octets.view(f"S{octets.shape[1]}").ravel()
        return self._seldom_the_same(Written(np.arange(self.n), items, np.repeat(widths, self.counts)), slot)

    def _mixed_values(self, slot: int) -> Written:
        begins, items, lengths = list[Places](), list[NDArray[np.bytes_]](), list[Places]()
        for number, (segment, octets) in enumerate(zip(self.segments, self._octets, strict=True)):
            if slot in segment.columns:
                at, n_bytes = segment.columns[slot]
                told = np.ascontiguousarray(octets[:, at : at + n_bytes]).view(f"S{n_bytes}").ravel()
            else:
                raw = self._raws[slot][number]
                told, n_bytes = np.array([raw or b""]), -1 if raw is None else len(raw)
            begins.append(np.arange(len(told)) + self.first[number])
            items.append(told)
            lengths.append(np.full(len(told), n_bytes))
        found = Written(np.concatenate(begins), np.concatenate(items), np.concatenate(lengths))
        return self._seldom_the_same(found, slot)

    def _seldom_the_same(self, found: Written, slot: int) -> Written:
        if found.is_often_new:
            return found
        found = found.without_repeats()
        self._forget(slot, len(found))
        return found

    def _forget(self, slot: int, n_values: int) -> None:
        """Have a value compared again where it turned out to change seldom."""
        if n_values * SELDOM <= self.n:
            for shape in {id(segment.known.shape): segment.known.shape for segment in self.segments}.values():
                shape.forget(slot)


def _bases(segments: Sequence[Segment], wanted: Wanted) -> Batch:
    apart = 8 * max(segment.known.shape.n_words for segment in segments)
    start = np.arange(len(segments), dtype=np.int64) * apart
    block, found = np.zeros(len(segments) * apart + PAD, np.uint8), Found.none_of(len(segments), slots=len(wanted.tags))
    for number, (segment, at) in enumerate(zip(segments, start.tolist(), strict=True)):
        base, shape = segment.known.base.view(np.uint8), segment.known.shape
        block[at : at + len(base)] = base
        shape.note(found, number, start=at)
    ends = np.array([segment.known.shape.end for segment in segments])
    return Batch(Heads(block, start, start + ends, ends), found, np.arange(len(segments)))
