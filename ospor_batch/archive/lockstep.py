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
    FIRST_ITEM_TAG,
    FIRST_PIXEL_TAG,
    HEADER_SIZE,
    LONG,
    META_GROUP_END,
    MOST_ELEMENTS,
    PIXEL_TAGS,
    SHORT,
    UNDEFINED,
    Element,
    Odd,
    Short,
    after_value,
)
from ospor_batch.archive.heads import Heads, Places

HASH_BITS = 12
HASH_SHIFT = np.uint32(32 - HASH_BITS)
KNUTH = 2654435761  # an odd multiplier near 2^32 divided by the golden ratio; the next ones are tried until no two tags meet


class Wanted:
    """Tags to find, in the order of their slots."""

    def __init__(self, tags: Sequence[int]) -> None:
        self.tags = np.array(tags, np.uint32)
        self.slot = {tag: slot for slot, tag in enumerate(tags)}
        self._factor, self._table = self._without_collision()

    def _without_collision(self) -> tuple[np.uint32, NDArray[np.int16]]:
        for step in range(1 << 16):
            factor = np.uint32((KNUTH + 2 * step) & 0xFFFFFFFF)
            places = (self.tags * factor) >> HASH_SHIFT
            if len(np.unique(places)) == len(places):
                table = np.full(1 << HASH_BITS, -1, np.int16)
                table[places] = np.arange(len(places))
                return factor, table
        raise ValueError("more tags than the table holds")

    def among(self, tags: NDArray[np.uint32]) -> tuple[NDArray[np.int16], NDArray[np.intp]]:
        """Slots of those tags that are wanted, and where they stand."""
        slot = self._table.take((tags * self._factor) >> HASH_SHIFT)
        hit = np.flatnonzero((slot >= 0) & (self.tags.take(slot, mode="clip") == tags))
        return slot[hit], hit


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

    def take_over(self, rows: Places, other: Found) -> None:
        """Put what was found of some files, read on, in the place of what was found before."""
        for name in ("offset", "length", "vr"):
            getattr(self, name)[:, rows] = getattr(other, name)
        for name in ("is_done", "is_short", "pixel_offset", "pixel_length"):
            getattr(self, name)[rows] = getattr(other, name)
        self.fresh[:, rows] = True


@dataclass
class Walk:
    """The files that are still under way: their rows, and where each one's next element begins."""

    heads: Heads
    wanted: Wanted
    found: Found
    rows: Places
    at: Places
    is_explicit: bool = field(kw_only=True)
    end: Places = field(init=False)
    last: NDArray[np.uint32] = field(init=False)

    def __post_init__(self) -> None:
        self.end = self.heads.end[self.rows]
        self.last = np.zeros(len(self.rows), np.uint32)
        self._sequences: dict[tuple[int, int], bytes] = {}
        self._words, self._lengths = self.heads.words("<u8"), self.heads.words("<u4")

    def run(self) -> None:
        """Walk every file to its pixel data or its end; one that goes on beyond all measure is left undone."""
        for _ in range(MOST_ELEMENTS):
            if not self._retire_ended():
                return
            self._step(above=None)

    def run_meta(self) -> tuple[Places, Places]:
        """Walk the meta group; the rows that left it, and where their data sets begin."""
        rows, places = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for _ in range(MOST_ELEMENTS):
            if not self._retire_ended():
                break
            left = self._step(above=META_GROUP_END)
            rows.append(left[0])
            places.append(left[1])
        return np.concatenate(rows), np.concatenate(places)

    def _retire_ended(self) -> bool:
        """Let go of files whose bytes are used up; False when none is left."""
        is_over = self.at + SHORT > self.end
        if is_over.any():
            rows = self.rows[is_over]
            is_held = self.heads.held[rows]
            self.found.is_done[rows] = is_held & (self.at[is_over] == self.end[is_over])
            self.found.is_short[rows] = ~is_held
            self._keep(~is_over)
        return bool(self.rows.size)

    def _keep(self, which: NDArray[np.bool_]) -> None:
        self.rows, self.at, self.end, self.last = self.rows[which], self.at[which], self.end[which], self.last[which]

    def _step(self, *, above: int | None) -> tuple[Places, Places]:
        words = self._words[self.at]
        halves = words.view("<u4")
        tags = (halves[::2] << np.uint32(16)) | (halves[::2] >> np.uint32(16))
        if self.is_explicit:
            letters = words.view("<u2").reshape(-1, 4)
            vr = letters[:, 2]
            size = HEADER_SIZE.take(vr)
            length = letters[:, 3].astype(np.int64)
            if (is_long := size == LONG).any():
                length[is_long] = self._lengths[self.at[is_long] + SHORT]
        else:
            vr = np.zeros(len(words), np.uint16)
            size = np.full(len(words), SHORT, np.int64)
            length = halves[1::2].astype(np.int64)
        is_special = (tags <= self.last) | (tags >= FIRST_PIXEL_TAG) | (length == UNDEFINED) | (size == 0)
        left = tags >= above if above is not None else None
        left_at = (self.rows[left], self.at[left]) if left is not None else (self.rows[:0], self.at[:0])
        value = self.at + size
        after = value + length
        if left is not None and left.any():
            is_special |= left
        if is_special.any():
            kept = np.ones(len(tags), np.bool_) if left is None else ~left
            for i in np.flatnonzero(is_special & kept):
                here = Element(int(self.at[i]), int(tags[i]), int(vr[i]), int(size[i]), int(length[i]))
                ended = self._special(here, row=int(self.rows[i]), last=int(self.last[i]), end=int(self.end[i]))
                kept[i] = ended is not None
                after[i] = ended or 0
            self._keep(kept)
            tags, vr, value, length, after = tags[kept], vr[kept], value[kept], length[kept], after[kept]
        if tags.size:
            self._note(tags, vr, value, length)
        self.last, self.at = tags, after
        return left_at

    def _special(self, here: Element, *, row: int, last: int, end: int) -> int | None:
        """Where the next element begins; None when the file ends here for this walk."""
        if here.tag <= last or here.size == 0 or here.tag >= FIRST_ITEM_TAG:
            return None
        if here.tag in PIXEL_TAGS:
            if here.at + here.size > end:
                self.found.is_short[row] = not self.heads.held[row]
                return None
            self.found.is_done[row] = True
            self.found.pixel_offset[row] = here.at + here.size - self.heads.start[row]
            self.found.pixel_length[row] = here.length
            return None
        try:
            return self._after_sequence(here, end=end)
        except Odd:
            return None
        except Short:
            self.found.is_short[row] = not self.heads.held[row]
            return None

    def _after_sequence(self, here: Element, *, end: int) -> int:
        """What follows a value of undefined length; one that is byte for byte the one of another file ends as that did."""
        block, value = self.heads.memory, here.at + here.size
        known = self._sequences.get((here.tag, here.vr))
        if known is not None and value + len(known) <= end and block[value : value + len(known)] == known:
            return value + len(known)
        after = after_value(block, here, end=end)
        self._sequences[here.tag, here.vr] = bytes(block[value:after])
        return after

    def _note(self, tags: NDArray[np.uint32], vr: NDArray[np.uint16], value: Places, length: Places) -> None:
        """Keep the places of wanted values."""
        if (tags == tags[0]).all():
            slot = self.wanted.slot.get(int(tags[0]))
            if slot is not None:
                self.found.offset[slot, self.rows] = value
                self.found.length[slot, self.rows] = length
                self.found.vr[slot, self.rows] = vr
            return
        slots, hit = self.wanted.among(tags)
        if hit.size:
            at = slots.astype(np.int64) * self.found.offset.shape[1] + self.rows[hit]  # one index: half the time of two
            self.found.offset.reshape(-1)[at] = value[hit]
            self.found.length.reshape(-1)[at] = length[hit]
            self.found.vr.reshape(-1)[at] = vr[hit]
