"""Walk the elements of many DICOM headers together: one step reads the next element header of every file.

No offset is guessed: each header of each file is read where the element before it ended, so that files of one series and
files that share nothing take the same time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ospor_batch.archive.elements import (
    FIRST_PIXEL_TAG,
    HEADER_SIZE,
    META_GROUP_END,
    MOST_ELEMENTS,
    PIXEL_TAGS,
    SHORT,
    UNDEFINED,
    Element,
    Odd,
    Short,
    after_value,
    element_at,
    elements,
)
from ospor_batch.archive.heads import Heads, Places

Words = NDArray[np.uint64]
DATA_GROUP, PIXEL_GROUP = META_GROUP_END >> 16, FIRST_PIXEL_TAG >> 16
UNKNOWN = 1 << 40  # more bytes than an element takes: the size of a header whose value representation is none
SIZES = np.where(HEADER_SIZE == 0, UNKNOWN, HEADER_SIZE)
FEWEST = 8  # files that are walked together as fast as one after the other
MOST_PASSED = 1 << 15  # headers that are kept before they are judged, to stay in the nearer caches

HASH_BITS = 12
HASH_SHIFT = np.uint32(32 - HASH_BITS)
KNUTH = 2654435761  # an odd multiplier near 2^32 divided by the golden ratio; the next ones are tried until no two tags meet


class Wanted:
    """Tags to find, in the order of their slots."""

    def __init__(self, tags: Sequence[int]) -> None:
        self.tags = np.array(tags, np.uint32)
        self.slot = {tag: slot for slot, tag in enumerate(tags)}
        self._factor, places = self._without_collision()
        self._slots, self._held = np.zeros(1 << HASH_BITS, np.int64), np.full(1 << HASH_BITS, self.tags[0])
        self._slots[places], self._held[places] = np.arange(len(tags)), self.tags

    def _without_collision(self) -> tuple[np.uint32, NDArray[np.uint32]]:
        for step in range(1 << 16):
            factor = np.uint32((KNUTH + 2 * step) & 0xFFFFFFFF)
            places = (self.tags * factor) >> HASH_SHIFT
            if len(np.unique(places)) == len(places):
                return factor, places
        raise ValueError("more tags than the table holds")

    def among(self, tags: NDArray[np.uint32]) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
        """Slots of those tags that are wanted, and where they stand."""
        places = (tags * self._factor) >> HASH_SHIFT
        hit = (self._held.take(places) == tags).nonzero()[0]
        return self._slots.take(places.take(hit)), hit


@dataclass
class Found:
    """Where each wanted value of each file lies in the block: arrays of slots by files; length -1: absent.

    vr: as written, two letters as a number; 0 where implicit. fresh: false only where a value is surely that of the row
    before, byte for byte. A file is done, odd, or short (its header goes on behind
    the bytes at hand). pixel_offset counts from the beginning of the file; -1: no pixel data.
    """

    offset: Places
    length: Places
    vr: NDArray[np.uint16]
    fresh: NDArray[np.bool_]
    is_done: NDArray[np.bool_]
    is_short: NDArray[np.bool_]
    pixel_offset: Places
    pixel_length: Places

    @classmethod
    def none_of(cls, n: int, *, slots: int) -> Found:
        """Nothing found yet in n files."""
        return cls(
            offset=np.zeros((slots, n), np.int64),
            length=np.full((slots, n), -1, np.int64),
            vr=np.zeros((slots, n), np.uint16),
            fresh=np.ones((slots, n), np.bool_),
            is_done=np.zeros(n, np.bool_),
            is_short=np.zeros(n, np.bool_),
            pixel_offset=np.full(n, -1, np.int64),
            pixel_length=np.full(n, -1, np.int64),
        )

    def take_back(self, rows: Places) -> None:
        """Forget what was found of some files, which are odd."""
        self.is_done[rows] = self.is_short[rows] = False
        self.length[:, rows] = -1

    def take_over(self, rows: Places, other: Found) -> None:
        """Put what was found of some files, read on, in the place of what was found before."""
        for name in ("offset", "length", "vr"):
            getattr(self, name)[:, rows] = getattr(other, name)
        for name in ("is_done", "is_short", "pixel_offset", "pixel_length"):
            getattr(self, name)[rows] = getattr(other, name)
        self.fresh[:, rows] = True


@dataclass
class Walk:
    """The files that are still under way: their rows, and where each one's next element begins.

    A step only finds the next place of every file. The headers passed are judged and written down together, some steps
    later or before a file leaves: what was found of one whose tags do not ascend is taken back.
    """

    heads: Heads
    wanted: Wanted
    found: Found
    rows: Places
    at: Places
    is_explicit: bool = field(kw_only=True)
    limit: Places = field(init=False)
    last: NDArray[np.uint32] = field(init=False)

    def __post_init__(self) -> None:
        self.limit = self.heads.end[self.rows] - SHORT  # the last place where an element can begin
        self.last = np.zeros(len(self.rows), np.uint32)
        self._passed: list[tuple[Words, Places, Places]] = []
        self._sequences: dict[tuple[int, int], bytes] = {}
        self._words, self._lengths = np.asarray(self.heads.words("<u8"), np.uint64), self.heads.words("<u4")

    def run(self) -> None:
        """Walk every file to its pixel data or its end; one that goes on beyond all measure is left undone."""
        rows, at = self._walked(PIXEL_GROUP, at_least=FEWEST)
        for row, place, last in zip(self.rows.tolist(), self.at.tolist(), self.last.tolist(), strict=True):
            self._run_alone(row, place, last=last)
        words = self._words[at]
        is_pixels = np.isin(_tags(words), PIXEL_TAGS)
        for row, place in zip(rows[~is_pixels].tolist(), at[~is_pixels].tolist(), strict=True):
            self._run_alone(row, place, last=0)  # it was found to be above the one before
        rows, at = rows[is_pixels], at[is_pixels]
        size, length = self._sizes(words[is_pixels], at)
        self._end_at_pixels(rows, at + size, length)

    def run_meta(self) -> tuple[Places, Places]:
        """Walk the meta group; the rows that left it, and where their data sets begin."""
        return self._walked(DATA_GROUP, at_least=1)

    def _walked(self, group: int, *, at_least: int) -> tuple[Places, Places]:
        """Walk to elements of a group or above; the rows that reached one, and where. at_least: files to go on with."""
        reached = [(self.rows[:0], self.at[:0])]
        self._end(self.at > self.limit, self.at)
        self._go_on(self.at <= self.limit, self.at)
        for _ in range(MOST_ELEMENTS):
            if len(self.rows) < at_least:
                break
            reached.append(self._step(group))
        else:
            self._go_on(np.zeros(len(self.rows), np.bool_), self.at)
        rows, places = zip(*reached, strict=True)
        return np.concatenate(rows), np.concatenate(places)

    def _sizes(self, words: Words, at: Places) -> tuple[Places | int, Places]:
        """How many bytes the element headers take, and the values behind them."""
        if not self.is_explicit:
            return SHORT, (words >> np.uint64(32)).view(np.int64)
        size, length = SIZES.take(words.view("<u2")[2::4]), (words >> np.uint64(48)).view(np.int64)
        is_long = (size != SHORT).nonzero()[0]
        if is_long.size:
            length[is_long] = self._lengths[at[is_long] + SHORT]
        return size, length

    def _step(self, group: int) -> tuple[Places, Places]:
        """Go to the next element of every file; rows and places of those that are at one of the group or above."""
        rows, at = self.rows, self.at
        words = self._words[at]
        size, length = self._sizes(words, at)
        value = at + size
        after = value + length
        self._passed.append((words, value, length))
        is_there = words.view("<u2")[::4] >= group
        is_special = is_there | (after > self.limit)
        if not is_special.any():
            self.at = after
            if len(self._passed) * len(rows) > MOST_PASSED:
                self._go_on(~is_special, after)
            return rows[:0], at[:0]
        value[is_there], length[is_there] = 0, -1  # nothing is written down of them
        is_open = ~is_there & ((length == UNDEFINED) | (after > UNKNOWN))
        for number in is_open.nonzero()[0].tolist():
            after[number] = self._behind(int(rows[number]), int(at[number]))
        is_over = ~is_there & (after > self.limit)
        self._end(is_over, after)
        is_there &= self._go_on(~(is_there | is_over), after)
        return rows[is_there], at[is_there]

    def _end(self, which: NDArray[np.bool_], at: Places) -> None:
        """Judge files whose bytes are used up at their places."""
        rows, at = self.rows[which], at[which]
        is_held = self.heads.held[rows]
        self.found.is_done[rows] = is_held & (at == self.heads.end[rows])
        self.found.is_short[rows] = ~is_held & (at < UNKNOWN)

    def _end_at_pixels(self, rows: Places, value: Places, length: Places) -> None:
        fits = value <= self.heads.end[rows]
        self.found.is_done[rows] = fits
        self.found.is_short[rows] = ~fits & ~self.heads.held[rows] & (value < UNKNOWN)
        self.found.pixel_offset[rows] = value - self.heads.start[rows]
        self.found.pixel_length[rows] = length

    def _go_on(self, which: NDArray[np.bool_], at: Places) -> NDArray[np.bool_]:
        """Write down the headers passed, and go on with some files at their places; of which files what was found holds."""
        is_sound = self._noted() if self._passed else np.ones(len(which), np.bool_)
        if not is_sound.all():
            self.found.take_back(self.rows[~is_sound])
            which = which & is_sound
        self.rows, self.at, self.limit, self.last = self.rows[which], at[which], self.limit[which], self.last[which]
        return is_sound

    def _noted(self) -> NDArray[np.bool_]:
        """Keep the places of wanted values; of which files tags ascend and representations are known."""
        words, value, length = map(np.concatenate, zip(*self._passed, strict=True))
        self._passed.clear()
        n, found, tags = len(self.rows), self.found, _tags(words)
        slots, hit = self.wanted.among(tags)
        at = slots * found.offset.shape[1] + self.rows[hit % n]  # one index: half the time of two
        found.offset.reshape(-1)[at] = value[hit]
        found.length.reshape(-1)[at] = length[hit]
        found.vr.reshape(-1)[at] = (words[hit] >> np.uint64(32)).astype(np.uint16) if self.is_explicit else 0
        before, self.last = np.append(self.last, tags[:-n]), tags[-n:]
        return np.asarray(((tags > before) & (value < UNKNOWN)).reshape(-1, n).all(axis=0))

    def _behind(self, row: int, at: int) -> int:
        """What follows an element of undefined length; UNKNOWN: it is odd; behind the bytes at hand: it goes on there."""
        end = int(self.heads.end[row])
        try:
            return self._after_sequence(element_at(self.heads.memory, at, end=end, is_explicit=self.is_explicit), end=end)
        except Odd:
            return UNKNOWN
        except Short:
            return end + 1

    def _after_sequence(self, here: Element, *, end: int) -> int:
        """What follows a value of undefined length; one that is byte for byte the one of another file ends as that did."""
        block, value = self.heads.memory, here.at + here.size
        known = self._sequences.get((here.tag, here.vr))
        if known is not None and value + len(known) <= end and block[value : value + len(known)].tobytes() == known:
            return value + len(known)
        after = after_value(block, here, end=end)
        self._sequences[here.tag, here.vr] = bytes(block[value:after])
        return after

    def _run_alone(self, row: int, at: int, *, last: int) -> None:
        """Walk one file on from a place, behind a tag."""
        end, found = int(self.heads.end[row]), self.found
        try:
            walked, stop = elements(self.heads.memory, at, end=end, is_explicit=self.is_explicit, last=last)
        except Odd:
            return
        except Short:
            found.is_short[row] = not self.heads.held[row]
            return
        for here in walked:
            if (slot := self.wanted.slot.get(here.tag)) is not None:
                found.offset[slot, row] = here.at + here.size
                found.length[slot, row] = here.length
                found.vr[slot, row] = here.vr
        if walked[-1].tag in PIXEL_TAGS:
            self._end_at_pixels(np.array([row]), np.array([stop]), np.array([walked[-1].length]))
        else:
            found.is_done[row], found.is_short[row] = self.heads.held[row], not self.heads.held[row]


def _tags(words: Words) -> NDArray[np.uint32]:
    """Group and element of headers, by their first eight bytes."""
    halves = words.astype(np.uint32)
    return np.asarray((halves << np.uint32(16)) | (halves >> np.uint32(16)))
