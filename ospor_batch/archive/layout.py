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

from ospor_batch.archive.elements import LONG, PIXEL_TAGS, SHORT, UNDEFINED, Element, Odd, Short, elements, end_of_sequence
from ospor_batch.archive.heads import Heads, Places
from ospor_batch.archive.lockstep import Found, Wanted

MOST_LAYOUTS = 16  # more scanners than write into one folder at a time
MOST_PILOTS = 8  # files of a batch that are walked one by one, to learn from
FEWEST = 24  # files for which learning pays: about as many as are walked together in the time of one pilot
HOSTILE, RESTS = 0.75, 8  # share of files that keep to no layout from which on memory rests, for so many batches
TAG_AND_VR = np.uint64(0x0000_FFFF_FFFF_FFFF)
TAG_ALONE = np.uint64(0x0000_0000_FFFF_FFFF)


@dataclass(frozen=True)
class _Stretch:
    """Headers at fixed places behind ``at``, up to an element whose length varies, or to the end."""

    word_at: Places
    words: NDArray[np.uint64]
    slots: NDArray[np.intp]
    value_at: Places
    lengths: Places
    vrs: NDArray[np.uint16]
    span: int
    tail: Element | None
    tail_word: np.uint64
    tail_slot: int


@dataclass
class Layout:
    """What one scanner's headers look like; varying: the elements whose length is read from each file."""

    is_explicit: bool
    elements: Sequence[Element]
    varying: frozenset[int]
    stretches: Sequence[_Stretch] = ()

    @property
    def key(self) -> tuple[object, ...]:
        """What two files of one layout share."""
        return (self.is_explicit, *((e.tag, e.vr) for e in self.elements))

    def place(self, heads: Heads, rows: Places, *, at: Places, found: Found) -> NDArray[np.bool_]:
        """Find the values of the files that keep to this layout; which of the rows did."""
        live, here = np.arange(len(rows)), at
        path: list[tuple[Places, Places, Places]] = []
        for stretch in self.stretches:
            live, here = self._keeping(heads, rows, live, here, stretch=stretch)
            if not live.size:
                return np.zeros(len(rows), np.bool_)
            began = here
            length = np.zeros(len(live), np.int64)
            if stretch.tail is not None:
                live, began, here, length = self._behind_tail(heads, rows, live, began, stretch=stretch)
            path.append((live, began, length))
        if self.stretches[-1].tail is None:
            rows_left = rows[live]
            is_whole = heads.held[rows_left] & (here + self.stretches[-1].span == heads.end[rows_left])
            live = live[is_whole]
        kept = np.zeros(len(rows), np.bool_)
        kept[live] = True
        self._note(path, rows, live, found=found, start=heads.start)
        return kept

    def _keeping(self, heads: Heads, rows: Places, live: Places, at: Places, *, stretch: _Stretch) -> tuple[Places, Places]:
        """The files whose headers in this stretch are as remembered."""
        fits = at + stretch.span + (LONG if stretch.tail is not None else 0) <= heads.end[rows[live]]
        if not fits.all():
            live, at = live[fits], at[fits]
        if stretch.word_at.size:
            same = (heads.words("<u8")[at[:, None] + stretch.word_at] == stretch.words).all(axis=1)
            if not same.all():
                live, at = live[same], at[same]
        return live, at

    def _behind_tail(
        self, heads: Heads, rows: Places, live: Places, began: Places, *, stretch: _Stretch
    ) -> tuple[Places, Places, Places, Places]:
        """Read the element whose length varies; what is left, where its stretch began, what follows it, and its length."""
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
                after = self._behind_sequences(heads, rows[live], at + tail.size, same)
                same &= after > 0
            else:
                same &= ~is_open
            same &= after <= heads.end[rows[live]]
        return live[same], began[same], after[same], length[same]

    def _behind_sequences(self, heads: Heads, rows: Places, at: Places, which: NDArray[np.bool_]) -> Places:
        """Where sequences of undefined length end; 0 where they do not. One equal to the one before ends as that one did."""
        after = np.zeros(len(at), np.int64)
        block, length, content = heads.memory, 0, b""
        for number in np.flatnonzero(which).tolist():
            begin, end = int(at[number]), int(heads.end[rows[number]])
            if not length or begin + length > end or block[begin : begin + length] != content:
                try:
                    length = end_of_sequence(block, begin, end=end, is_explicit=self.is_explicit) - begin
                except (Odd, Short):
                    continue
                content = bytes(block[begin : begin + length])
            after[number] = begin + length
        return after

    def _note(
        self, path: Sequence[tuple[Places, Places, Places]], rows: Places, live: Places, *, found: Found, start: Places
    ) -> None:
        """Write down the places of the files that kept to the layout to its end."""
        into = rows[live]
        for stretch, (passed, began, length) in zip(self.stretches, path, strict=True):
            chosen = np.searchsorted(passed, live)
            begin = began[chosen]
            if stretch.slots.size:
                found.offset[np.ix_(stretch.slots, into)] = stretch.value_at[:, None] + begin
                found.length[np.ix_(stretch.slots, into)] = stretch.lengths[:, None]
                found.vr[np.ix_(stretch.slots, into)] = stretch.vrs[:, None]
            tail = stretch.tail
            if tail is None:
                continue
            value = begin + stretch.span + tail.size
            if tail.tag in PIXEL_TAGS:
                found.pixel_offset[into] = value - start[into]
                found.pixel_length[into] = length[chosen]
            elif stretch.tail_slot >= 0:
                found.offset[stretch.tail_slot, into] = value
                found.length[stretch.tail_slot, into] = length[chosen]
                found.vr[stretch.tail_slot, into] = tail.vr
        found.is_done[into] = True


def compiled(layout: Layout, *, block: memoryview, end: int, wanted: Wanted) -> Layout:
    """A layout with its stretches; block and end: of the file that it was learnt from, end behind its last value."""
    stretches, begin, run = [], layout.elements[0].at, list[Element]()
    for number, element in enumerate(layout.elements):
        if number in layout.varying or element.length == UNDEFINED or element.tag in PIXEL_TAGS:
            stretches.append(_stretch(run, begin=begin, tail=element, end=element.at, block=block, wanted=wanted))
            run = []
            is_last = number + 1 == len(layout.elements)
            begin = end if is_last else layout.elements[number + 1].at
        else:
            run.append(element)
    if layout.elements[-1].tag not in PIXEL_TAGS:
        stretches.append(_stretch(run, begin=begin, tail=None, end=end, block=block, wanted=wanted))
    return Layout(layout.is_explicit, layout.elements, layout.varying, tuple(stretches))


def _stretch(
    run: Sequence[Element], *, begin: int, tail: Element | None, end: int, block: memoryview, wanted: Wanted
) -> _Stretch:
    places = [e.at for e in run] + [e.at + 4 for e in run if e.size == LONG]  # a second word holds a long length
    chosen = [e for e in run if e.tag in wanted.slot]
    word = int.from_bytes(block[tail.at : tail.at + (6 if tail.vr else 4)], "little") if tail is not None else 0
    return _Stretch(
        word_at=np.array(places, np.int64) - begin,
        words=np.array([int.from_bytes(block[p : p + 8], "little") for p in places], np.uint64),
        slots=np.array([wanted.slot[e.tag] for e in chosen], np.intp),
        value_at=np.array([e.at + e.size - begin for e in chosen], np.int64),
        lengths=np.array([e.length for e in chosen], np.int64),
        vrs=np.array([e.vr for e in chosen], np.uint16),
        span=end - begin,
        tail=tail,
        tail_word=np.uint64(word),
        tail_slot=wanted.slot.get(tail.tag, -1) if tail is not None else -1,
    )


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
