"""Stretches of a remembered layout: element headers at fixed places between two elements whose length varies.

Files of one series repeat most of their header byte for byte. What is equal to the file before needs no other proof, and
brings no new value: only the rest is compared header by header, and decoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ospor_batch.archive.elements import LONG, Element
from ospor_batch.archive.heads import Heads, Places
from ospor_batch.archive.lockstep import Wanted

Rows = NDArray[np.bool_]
WORD = 8
CHUNK = 1 << 18  # bytes compared at a time, to stay in the nearest caches; chosen by measurement
FEWEST_PAIRS = 4  # neighbours for which comparing them at once pays
FEWEST_ROWS = 24  # files from which on it shows what changes from file to file
SAMPLES = 16  # files that are looked at for it
OFTEN = 0.25  # share of them in which a value that is not remembered is another than before; chosen by measurement


@dataclass(frozen=True)
class Piece:
    """Bytes that are compared with those of the file before. word_at: from the stretch's beginning, as ``at``."""

    at: int
    width: int
    word_at: Places
    words: NDArray[np.uint64]
    slots: NDArray[np.intp]

    def is_as_remembered(self, heads: Heads, at: Places) -> Rows:
        """Which files have the remembered headers here; at: where their stretches begin."""
        if not self.word_at.size:
            return np.ones(len(at), np.bool_)
        return np.asarray((heads.words("<u8")[at[:, None] + self.word_at] == self.words).all(axis=1))


@dataclass
class Stretch:
    """Headers behind a place that varies, up to an element whose length varies (tail), or to the end (null).

    changing: elements, by their number in the run, whose values are seldom those of the file before.
    """

    run: Sequence[Element]
    words: NDArray[np.uint64]
    begin: int
    end: int
    tail: Element | None
    tail_word: np.uint64
    wanted: Wanted
    changing: frozenset[int] = frozenset()
    pieces: list[Piece] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.span = self.end - self.begin
        chosen = [e for e in self.run if e.tag in self.wanted.slot]
        self.slots = np.array([self.wanted.slot[e.tag] for e in chosen], np.intp)
        self.value_at = np.array([e.at + e.size - self.begin for e in chosen], np.int64)
        self.lengths = np.array([e.length for e in chosen], np.int64)
        self.vrs = np.array([e.vr for e in chosen], np.uint16)
        self.tail_slot = self.wanted.slot.get(self.tail.tag, -1) if self.tail is not None else -1
        self._word_at = np.array(_word_places(self.run), np.int64) - self.begin
        self._cut()

    def cut_anew(self) -> None:
        """Leave out of the pieces what was found to change from file to file."""
        if self.changing != self._left_out:
            self._cut()

    def is_fresh(self, heads: Heads, at: Places) -> NDArray[np.bool_]:
        """Which files (columns) differ in which pieces (rows) from the file before; the first differs in all.

        at: where the stretch begins in each file.
        """
        n, fresh = len(at), np.ones((len(self.pieces), len(at)), np.bool_)
        if n <= FEWEST_PAIRS or not self.pieces:
            return fresh
        bounds = np.array([(piece.at, piece.at + piece.width) for piece in self.pieces]).ravel()
        low, width = int(bounds[0]), int(bounds[-1] - bounds[0])
        held, step, bounds = heads.words(f"V{width}"), max(FEWEST_PAIRS, CHUNK // width), bounds - low
        for begin in range(0, n - 1, step):
            files = held[at[begin : begin + step + 1] + low].view(np.uint8).reshape(-1, width)
            differ = files[1:] != files[:-1]
            changed = np.logical_or.reduceat(np.append(differ.any(axis=0), [False]), bounds)[::2]
            fresh[:, begin + 1 : begin + len(files)] = changed[:, None]
            for number in np.flatnonzero(changed):
                first, behind = bounds[2 * number], bounds[2 * number + 1]
                fresh[number, begin + 1 : begin + len(files)] = differ[:, first:behind].any(axis=1)
        return fresh

    def watch(self, heads: Heads, at: Places) -> None:
        """Find the elements whose values change, in the middle of files of this stretch; at: where it begins in each."""
        first = max(0, len(at) // 2 - SAMPLES // 2)
        some = at[first : first + SAMPLES + 1]
        if len(some) < 2 or self.span == 0:
            return
        content = heads.block[some[:, None] + np.arange(self.span)]
        differ = content[1:] != content[:-1]
        found = set(self.changing)
        for number, element in enumerate(self.run):
            value = element.at + element.size - self.begin
            if element.length and differ[:, value : value + element.length].any(axis=1).mean() > OFTEN:
                found.add(number)
        self.changing = frozenset(found)

    def _cut(self) -> None:
        self._left_out = self.changing
        pieces, begin, held = [], 0, list[Element]()
        for number, element in enumerate(self.run):
            if number in self.changing:
                value = element.at + element.size - self.begin
                pieces.append(self._piece(begin, value, held))
                begin, held = value + element.length, []
            else:
                held.append(element)
        pieces.append(self._piece(begin, self.span, held))
        self.pieces = [piece for piece in pieces if piece.width]

    def _piece(self, begin: int, end: int, held: Sequence[Element]) -> Piece:
        inside = (self._word_at >= begin) & (self._word_at + WORD <= end)
        slots = [self.wanted.slot[e.tag] for e in held if e.tag in self.wanted.slot]
        return Piece(begin, end - begin, self._word_at[inside], self.words[inside], np.array(slots, np.intp))


def stretch_of(
    run: Sequence[Element], *, begin: int, tail: Element | None, end: int, block: memoryview, wanted: Wanted
) -> Stretch:
    """The stretch of a file that was walked, from begin to end; block: what it was walked in."""
    words = [int.from_bytes(block[p : p + WORD], "little") for p in _word_places(run)]
    tail_word = int.from_bytes(block[tail.at : tail.at + (6 if tail.vr else 4)], "little") if tail is not None else 0
    return Stretch(list(run), np.array(words, np.uint64), begin, end, tail, np.uint64(tail_word), wanted)


def _word_places(run: Sequence[Element]) -> list[int]:
    """Places of the words that hold all headers; a second one holds a long length."""
    return sorted([e.at for e in run] + [e.at + 4 for e in run if e.size == LONG])
