"""A memory of layouts: files of one scanner write the same elements in the same order, most of them as long as before.

A layout says which element headers stand where, in stretches between the elements whose length varies. It is never
trusted: every header of a stretch is compared, in every file, before one offset of it is used. Headers that are equal
and begin at the right place prove the next place, so that what holds to the end of the header is what a walk would find.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ospor_batch.archive.elements import (
    LONG,
    META_GROUP_END,
    PIXEL_TAGS,
    SHORT,
    UNDEFINED,
    Element,
    Odd,
    Short,
    elements,
    end_of_sequence,
)
from ospor_batch.archive.heads import Heads, Places
from ospor_batch.archive.lockstep import Found, Wanted
from ospor_batch.archive.stretch import OFTEN, Stretch, stretch_of

MOST_LAYOUTS = 16  # more scanners than write into one folder at a time
MOST_PILOTS = 8  # files of a batch that are walked one by one, to learn from
FEWEST = 24  # files for which learning pays: about as many as are walked together in the time of one pilot
HOSTILE, RESTS = 0.75, 32  # share of files that keep to no layout from which on memory rests, for so many batches
TAG_AND_VR = np.uint64(0x0000_FFFF_FFFF_FFFF)
TAG_ALONE = np.uint64(0x0000_0000_FFFF_FFFF)


@dataclass
class Layout:
    """What one scanner's headers look like; varying: the elements whose length is read from each file."""

    is_explicit: bool
    elements: Sequence[Element]
    varying: frozenset[int]
    stretches: Sequence[Stretch] = ()

    @property
    def key(self) -> tuple[object, ...]:
        """What two files of one layout share."""
        return (self.is_explicit, *((e.tag, e.vr) for e in self.elements))

    def place(self, heads: Heads, rows: Places, *, at: Places, found: Found) -> NDArray[np.bool_]:
        """Find the values of the files that keep to this layout; which of the rows did."""
        live, begins, lengths = self._walked(heads, rows, at)
        if live.size:
            live, begins, lengths, fresh = self._proved(heads, rows, live, begins=begins, lengths=lengths)
            if live.size:
                self._note(rows[live], begins, lengths, fresh, found=found, start=heads.start)
                self._learn(heads, begins, fresh)
        kept = np.zeros(len(rows), np.bool_)
        kept[live] = True
        return kept

    def _walked(self, heads: Heads, rows: Places, at: Places) -> tuple[Places, Places, Places]:
        """Files that may keep to this layout, where its stretches begin in each, and how long their tails are."""
        live, here = np.arange(len(rows)), at
        begins, lengths = [np.zeros((len(self.stretches), len(rows)), np.int64) for _ in range(2)]
        for number, stretch in enumerate(self.stretches):
            fits = here + stretch.span + (LONG if stretch.tail is not None else 0) <= heads.end[rows[live]]
            if not fits.all():
                live, here = live[fits], here[fits]
            begins[number, live] = here
            if stretch.tail is not None:
                same, here, length = self._behind_tail(heads, rows[live], here, stretch=stretch)
                lengths[number, live] = length
                if not same.all():
                    live, here = live[same], here[same]
            if not live.size:
                break
        if live.size and self.stretches[-1].tail is None:
            is_whole = heads.held[rows[live]] & (here + self.stretches[-1].span == heads.end[rows[live]])
            live = live[is_whole]
        return live, begins[:, live], lengths[:, live]

    def _proved(
        self, heads: Heads, rows: Places, live: Places, *, begins: Places, lengths: Places
    ) -> tuple[Places, Places, Places, NDArray[np.bool_]]:
        """The files all of whose headers are as remembered; and which of them differ in which piece from the file before."""
        pieces = [(number, piece) for number, stretch in enumerate(self.stretches) for piece in stretch.pieces]
        fresh = np.concatenate([stretch.is_fresh(heads, begin) for stretch, begin in zip(self.stretches, begins, strict=True)])
        kept = np.ones(len(live), np.bool_)
        for (number, piece), differs in zip(pieces, fresh, strict=True):
            good = piece.is_as_remembered(heads, begins[number, differs])
            if not good.all():
                kept &= good[np.cumsum(differs) - 1]  # equal to the file before: judged as it was
        if not kept.all():
            live, begins, lengths, fresh = live[kept], begins[:, kept], lengths[:, kept], fresh[:, kept]
        fresh[:, np.append(True, np.diff(rows[live]) != 1)[: len(live)]] = True  # the file before is of another layout
        return live, begins, lengths, fresh

    def _behind_tail(
        self, heads: Heads, rows: Places, began: Places, *, stretch: Stretch
    ) -> tuple[NDArray[np.bool_], Places, Places]:
        """Read the element whose length varies: which files have it, what follows it, and its length."""
        tail = stretch.tail
        assert tail is not None
        at = began + stretch.span
        words = np.asarray(heads.words("<u8")[at], np.uint64)
        same = (words & (TAG_AND_VR if self.is_explicit else TAG_ALONE)) == stretch.tail_word
        if tail.size == LONG:
            length = heads.words("<u4")[at + SHORT].astype(np.int64)
        else:
            length = (words >> np.uint64(48 if self.is_explicit else 32)).astype(np.int64)
        after = at + tail.size + length
        if tail.tag not in PIXEL_TAGS:
            is_open = length == UNDEFINED
            if tail.length == UNDEFINED:
                same &= is_open
                after = self._behind_sequences(heads, rows, at + tail.size, same)
                same &= after > 0
            else:
                same &= ~is_open
            same &= after <= heads.end[rows]
        return same, after, length

    def _behind_sequences(self, heads: Heads, rows: Places, at: Places, which: NDArray[np.bool_]) -> Places:
        """Where sequences of undefined length end; 0 where they do not. One equal to the one before ends as that one did."""
        after = np.zeros(len(at), np.int64)
        block, length, content = heads.memory, 0, b""
        for number in np.flatnonzero(which).tolist():
            begin, end = int(at[number]), int(heads.end[rows[number]])
            if not length or begin + length > end or block[begin : begin + length].tobytes() != content:
                try:
                    length = end_of_sequence(block, begin, end=end, is_explicit=self.is_explicit) - begin
                except (Odd, Short):
                    continue
                content = bytes(block[begin : begin + length])
            after[number] = begin + length
        return after

    def _note(
        self, into: Places, begins: Places, lengths: Places, fresh: NDArray[np.bool_], *, found: Found, start: Places
    ) -> None:
        """Write down the places of the files that keep to the layout."""
        is_run = int(into[-1] - into[0]) + 1 == len(into)
        columns = slice(int(into[0]), int(into[-1]) + 1) if is_run else into
        is_new = np.zeros((found.fresh.shape[0], len(into)), np.bool_)
        is_new[:, np.append(True, np.diff(into) != 1)] = True
        is_new[self.stretches[0].wanted.tags < META_GROUP_END] = True  # no layout proves the meta group
        number = 0
        for stretch, begin, length in zip(self.stretches, begins, lengths, strict=True):
            if stretch.slots.size:
                where = (stretch.slots, columns) if is_run else np.ix_(stretch.slots, into)
                found.offset[where] = stretch.value_at[:, None] + begin
                found.length[where] = stretch.lengths[:, None]
                found.vr[where] = stretch.vrs[:, None]
                is_new[stretch.slots] = True
            for piece in stretch.pieces:
                if piece.slots.size:
                    is_new[piece.slots] = fresh[number]
                number += 1
            self._note_tail(stretch, begin + stretch.span, length, found=found, into=into, start=start)
            if stretch.tail_slot >= 0:
                is_new[stretch.tail_slot] = True
        found.fresh[:, columns] = is_new
        found.is_done[into] = True

    def _learn(self, heads: Heads, begins: Places, fresh: NDArray[np.bool_]) -> None:
        """Cut the stretches anew where a piece is seldom that of the file before."""
        number = 0
        for stretch, begin in zip(self.stretches, begins, strict=True):
            shares = fresh[number : number + len(stretch.pieces)].mean(axis=1)
            number += len(stretch.pieces)
            if len(begin) >= FEWEST and shares.size and shares.max() > OFTEN:
                stretch.watch(heads, begin)
                stretch.cut_anew()

    def _note_tail(self, stretch: Stretch, at: Places, length: Places, *, found: Found, into: Places, start: Places) -> None:
        tail = stretch.tail
        if tail is None:
            return
        if tail.tag in PIXEL_TAGS:
            found.pixel_offset[into] = at + tail.size - start[into]
            found.pixel_length[into] = length
        elif stretch.tail_slot >= 0:
            found.offset[stretch.tail_slot, into] = at + tail.size
            found.length[stretch.tail_slot, into] = length
            found.vr[stretch.tail_slot, into] = tail.vr


def compiled(layout: Layout, *, block: memoryview, end: int, wanted: Wanted) -> Layout:
    """A layout with its stretches; block and end: of the file that it was learnt from, end behind its last value."""
    stretches, begin, run = [], layout.elements[0].at, list[Element]()
    for number, element in enumerate(layout.elements):
        if number in layout.varying or element.length == UNDEFINED or element.tag in PIXEL_TAGS:
            stretches.append(stretch_of(run, begin=begin, tail=element, end=element.at, block=block, wanted=wanted))
            run = []
            is_last = number + 1 == len(layout.elements)
            begin = end if is_last else layout.elements[number + 1].at
        else:
            run.append(element)
    if layout.elements[-1].tag not in PIXEL_TAGS:
        stretches.append(stretch_of(run, begin=begin, tail=None, end=end, block=block, wanted=wanted))
    return Layout(layout.is_explicit, layout.elements, layout.varying, tuple(stretches))


@dataclass
class Memory:
    """The layouts met last, the most useful first; it changes how fast files are read, never what is found."""

    wanted: Wanted
    layouts: list[Layout] = field(default_factory=list)
    _rest: int = 0

    def place(self, heads: Heads, rows: Places, *, at: Places, is_explicit: bool, found: Found) -> NDArray[np.bool_]:
        """Find the values of all files whose layout is known or worth learning; which of the rows are left."""
        left = np.ones(len(rows), np.bool_)
        if self._rest:
            self._rest -= 1
            return left
        for layout in [x for x in self.layouts if x.is_explicit == is_explicit]:
            if not left.any():
                return left
            self._try(layout, heads, rows, at, left=left, found=found)
        self._learn_from(heads, rows, at, is_explicit=is_explicit, left=left, found=found)
        if len(rows) >= FEWEST and left.mean() > HOSTILE:
            self._rest = RESTS
        return left

    def _learn_from(
        self, heads: Heads, rows: Places, at: Places, *, is_explicit: bool, left: NDArray[np.bool_], found: Found
    ) -> None:
        """Walk a file, and try its layout on the others, as long as that places enough of them."""
        poor = 0
        for _ in range(MOST_PILOTS):
            open_rows = np.flatnonzero(left)
            if open_rows.size < FEWEST or poor == 2:
                return
            pilot = open_rows[len(open_rows) // 2]
            layout = self._learn(heads, rows[pilot], int(at[pilot]), is_explicit=is_explicit)
            if layout is None or self._try(layout, heads, rows, at, left=left, found=found) < FEWEST:
                poor += 1

    def _try(self, layout: Layout, heads: Heads, rows: Places, at: Places, *, left: NDArray[np.bool_], found: Found) -> int:
        which = np.flatnonzero(left)
        kept = layout.place(heads, rows[which], at=at[which], found=found)
        left[which[kept]] = False
        hits = int(kept.sum())
        if hits and layout is not self.layouts[0]:
            self.layouts.remove(layout)
            self.layouts.insert(0, layout)
        return hits

    def _learn(self, heads: Heads, row: int, at: int, *, is_explicit: bool) -> Layout | None:
        """Walk one file; a layout with its elements is told which of them vary, or made."""
        try:
            walked, end = elements(heads.memory, at, end=int(heads.end[row]), is_explicit=is_explicit)
        except (Odd, Short):
            return None
        if not walked:
            return None
        layout = Layout(is_explicit, walked, frozenset())
        known = next((x for x in self.layouts if x.key == layout.key), None)
        if known is not None:
            differ = {i for i, (a, b) in enumerate(zip(walked, known.elements, strict=True)) if a.length != b.length}
            if any(UNDEFINED in (walked[i].length, known.elements[i].length) for i in differ):
                return None
            layout = Layout(is_explicit, walked, known.varying | differ)
            self.layouts.remove(known)
        layout = compiled(layout, block=heads.memory, end=end, wanted=self.wanted)
        self.layouts = [layout, *self.layouts[: MOST_LAYOUTS - 1]]
        return layout
