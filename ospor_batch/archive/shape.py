"""The shape of a header: which of its bytes say where its elements lie, and which are values.

Two headers that hold the same bytes wherever a shape fixes them have the same elements at the same places: each element
header is the same and stands where the one before it ends. A header of another shape is derived from a known one by the
lengths in which it differs, each read where the bytes before it prove that it stands.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ospor_batch.archive.elements import (
    CHARSET_TAG,
    LONG,
    META_CLASS,
    META_GROUP_END,
    META_SYNTAX,
    PIXEL_TAGS,
    REPRESENTATION_TAG,
    SHORT,
    UNDEFINED,
    Element,
    Odd,
    Short,
    element_at,
    elements,
)
from ospor_batch.archive.heads import Heads, Places
from ospor_batch.archive.locate import DATA, DICOMDIR, MAGIC, META_LENGTH, is_explicit_syntax
from ospor_batch.archive.lockstep import Found, Wanted

Octets = NDArray[np.uint8]
Words = NDArray[np.uint64]
WORD = 8
GOVERNING = (META_CLASS, META_SYNTAX, CHARSET_TAG, REPRESENTATION_TAG)  # values that say how others are read
MOST_LENGTHS = 24  # that may differ between two shapes; more are found as fast by a walk
LONGEST_SYNTAX = 64  # characters of a UID, as DICOM has it


@dataclass(eq=False)
class Grammar:
    """What headers of one layout share: tags, value representations, and sizes of element headers, in their order.

    is_free: elements whose value says nothing about where or how others are read. is_whole: no pixels, the file ends there.
    """

    wanted: Wanted
    tags: NDArray[np.uint32]
    vrs: NDArray[np.uint16]
    sizes: Places
    is_free: NDArray[np.bool_]
    is_whole: bool

    def __post_init__(self) -> None:
        slots = self.wanted.slot
        self.slot = np.array([slots.get(tag, -1) for tag in self.tags.tolist()], np.int64)
        self.chosen = (self.slot >= 0).nonzero()[0]
        self.number = np.full(len(slots), -1, np.int64)
        self.number[self.slot[self.chosen]] = self.chosen
        self.is_fixed = np.zeros(2 * len(self.tags) + 3, np.uint8)  # preamble, its sign, header and value by turns, the rest
        self.is_fixed[1], self.is_fixed[2:-1:2], self.is_fixed[3:-1:2] = 255, 255, np.where(self.is_free, 0, 255)


@dataclass(eq=False)
class Shape:
    """Elements of a header, by their places from its beginning; end: behind the pixel data's own header, or the file's.

    lengths: as written. changing: elements, by number, whose values are compared with no other file's.
    """

    grammar: Grammar
    at: Places
    lengths: Places
    end: int
    changing: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        self.values = self.at + self.grammar.sizes
        self.n_words = -(-self.end // WORD)
        behind = np.append(self.at[1:], self.end)
        self.widths = behind - self.values
        runs = np.empty(len(self.grammar.is_fixed), np.int64)
        runs[:2], runs[2:-1:2], runs[3:-1:2] = (DATA - 4, 4), self.grammar.sizes, self.widths
        runs[-1] = self.n_words * WORD - self.end
        self.fixed = np.repeat(self.grammar.is_fixed, runs)
        self._fixed_words = self.fixed.view(np.uint64)
        self.tail = int.from_bytes(b"\xff" * (WORD - int(runs[-1])), "little")
        self._element_of_word = self._elements_of_words(self.values // WORD, -(-behind // WORD))
        self._choose()

    def _elements_of_words(self, first: Places, behind: Places) -> NDArray[np.int64]:
        """Whose value lies in each word; -1: none. No word holds two, since a header is as long as one."""
        n = len(first)
        behind = np.where(self.widths > 0, behind, first)
        runs = np.empty(2 * n + 1, np.int64)
        runs[0], runs[1::2], runs[2:-1:2], runs[-1] = (
            first[0],
            behind - first,
            first[1:] - behind[:-1],
            self.n_words - behind[-1],
        )
        of = np.full(2 * n + 1, -1, np.int64)
        of[1::2] = np.arange(n)
        return np.repeat(of, runs)

    def _choose(self) -> None:
        """Which words are not compared with other files', which of them hold fixed bytes too, and which hold wanted values."""
        is_changing, is_gathered = np.zeros((2, len(self.at) + 1), np.bool_)  # the last one: words of no value
        is_changing[list(self.changing)] = True
        is_gathered[:-1] = is_changing[:-1] & (self.grammar.slot >= 0)
        is_ignored = is_changing[self._element_of_word]
        self.gathered = is_gathered[self._element_of_word].nonzero()[0]
        is_checked = is_ignored & (self._fixed_words != 0)
        is_checked[-3:] = True  # where headers of other lengths differ: the header of the pixels
        self.checked = is_checked.nonzero()[0]
        self.changing_slots = frozenset(self.grammar.slot[is_gathered[:-1]].tolist())
        is_ignored[: (DATA - 4) // WORD] = True  # the preamble says nothing
        self.ignored = is_ignored.nonzero()[0]

    def take_as_changing(self, words: Places) -> None:
        """From now on, compare the values no more that lie in these words."""
        self.changing |= frozenset(self._element_of_word[words].tolist()) - {-1}
        self._choose()

    def forget(self, slot: int) -> None:
        """Compare a value again that was found to change seldom."""
        if slot in self.changing_slots:
            self.changing -= {int(self.grammar.number[slot])}
            self._choose()

    def differing(self, words: Words, base: Words) -> NDArray[np.bool_]:
        """In which words that are compared headers differ from a base of this shape."""
        words = words[:, : self.n_words]
        differs = np.asarray(words != base)
        if self.end % WORD:  # what stands behind the header in its last word is none of it
            differs[:, -1] = (words[:, -1] ^ base[-1]) & np.uint64(self.tail) != 0
        differs[:, self.ignored] = False
        return differs

    def is_other(self, words: Words, base: Words, *, which: Places) -> NDArray[np.bool_]:
        """Which headers differ from a base of this shape in fixed bytes of some of their words."""
        return np.asarray(((words[:, which] ^ base[which]) & self._fixed_words[which]).any(axis=1))

    def judged(self, head: Words, base: Words) -> tuple[bool, bool]:
        """Whether one header is of this shape, and whether it has the base's values where they are compared."""
        differs = head[: self.n_words] ^ base
        if (differs & self._fixed_words).any():
            return False, False
        differs[-1] &= np.uint64(self.tail)
        differs[self.ignored] = 0
        return True, not differs.any()

    def columns(self) -> dict[int, tuple[int, int]]:
        """Of changing values, by slot: where each begins in the bytes of the words gathered, and its length."""
        found = {}
        for slot in sorted(self.changing_slots):
            number = int(self.grammar.number[slot])
            value = int(self.values[number])
            at = WORD * int(self.gathered.searchsorted(value // WORD)) + value % WORD
            found[slot] = (at, int(self.widths[number]))
        return found

    def raws(self, base: Words) -> list[bytes | None]:
        """The wanted values of one header as they are written, by slot; null: absent."""
        held = base.tobytes()
        return [None if span is None else held[span] for span in self._spans]

    @functools.cached_property
    def _spans(self) -> list[slice | None]:
        spans: list[slice | None] = [None] * len(self.grammar.number)
        of, lengths = self.grammar, np.where(self.lengths == UNDEFINED, 0, self.lengths)
        begins, ends = self.values[of.chosen].tolist(), (self.values + lengths)[of.chosen].tolist()
        for slot, begin, end in zip(of.slot[of.chosen].tolist(), begins, ends, strict=True):
            spans[slot] = slice(begin, end)
        return spans

    def note(self, found: Found, row: int, *, start: int) -> None:
        """Write down where the wanted values of a header lie that begins at start."""
        of = self.grammar
        slots = of.slot[of.chosen]
        found.offset[slots, row] = self.values[of.chosen] + start
        found.length[slots, row] = self.lengths[of.chosen]
        found.vr[slots, row] = of.vrs[of.chosen]
        found.is_done[row] = True
        found.pixel_offset[row], found.pixel_length[row] = self.pixels

    @property
    def pixels(self) -> tuple[int, int]:
        """Where the pixels begin (-1: there are none), and how long they say they are."""
        return (-1, -1) if self.grammar.is_whole else (self.end, int(self.lengths[-1]))

    def reshaped(self, head: Octets, base: Octets) -> Shape | None:
        """The shape of another header, whose elements are these in other lengths; null where it has others.

        base: a header of this shape. Up to the first fixed byte that differs both have the same elements; where it is of
        a length, the next element stands behind a value that is so long, and the comparison goes on from there.
        """
        lengths, moved = self.lengths.copy(), np.zeros(len(self.at) + 1, np.int64)
        here, shift = DATA - 4, 0
        for _ in range(MOST_LENGTHS):
            n = min(self.end, len(head) - shift) - here
            if n < 0:
                return None
            differs = (head[here + shift : here + shift + n] ^ base[here : here + n]) & self.fixed[here : here + n]
            first = int((differs != 0).argmax()) if n else 0
            if not n or not differs[first]:
                return self._moved(lengths, np.cumsum(moved)) if here + n == self.end else None
            number = int(self.at.searchsorted(here + first, side="right")) - 1
            if number < 0 or (length := self._length_in(head, number, shift, at=here + first)) is None:
                return None
            lengths[number] = length
            here = int(self.values[number])
            if not self._is_pixels(number):
                moved[number + 1] = length - int(self.lengths[number])
                shift += int(moved[number + 1])
                here += int(self.widths[number])
        return None

    def _length_in(self, head: Octets, number: int, shift: int, *, at: int) -> int | None:
        """The length of an element of another header; null where that differs in more than a length."""
        begin, size, is_pixels = int(self.at[number]), int(self.grammar.sizes[number]), self._is_pixels(number)
        length_at = SHORT if size == LONG else 6 if self.grammar.vrs[number] else 4
        if (
            not length_at <= at - begin < size
            or not (self.grammar.is_free[number] or is_pixels)
            or begin + size + shift > len(head)
        ):
            return None
        length = int.from_bytes(head[begin + length_at + shift : begin + size + shift].tobytes(), "little")
        return None if length == UNDEFINED and not is_pixels else length

    def _moved(self, lengths: Places, moved: Places) -> Shape:
        return Shape(self.grammar, self.at + moved[:-1], lengths, self.end + int(moved[-1]), self.changing)

    def _is_pixels(self, number: int) -> bool:
        return not self.grammar.is_whole and number + 1 == len(self.at)


def shape_of(heads: Heads, row: int, *, wanted: Wanted) -> Shape | None:
    """The shape of a header, by a walk over it; null where it is unusual."""
    begin, end = int(heads.start[row]), int(heads.end[row])
    try:
        walked, stop = _walked(heads.memory, begin, end=end)
    except (Odd, Short):
        return None
    is_whole = walked[-1].tag not in PIXEL_TAGS
    if is_whole and not heads.held[row]:
        return None
    told = np.array(walked, np.int64).T
    tags, vrs = told[1].astype(np.uint32), told[2].astype(np.uint16)
    is_free = (told[4] != UNDEFINED) & ~np.isin(tags, [*GOVERNING, *PIXEL_TAGS])
    return Shape(Grammar(wanted, tags, vrs, told[3], is_free, is_whole), told[0] - begin, told[4], stop - begin)


def _walked(block: memoryview, begin: int, *, end: int) -> tuple[list[Element], int]:
    """The elements of a usual file, those of the meta group before the others, and the place behind the last header."""
    at = begin + DATA
    if (
        at + SHORT >= end
        or block[at - 4 : at] != MAGIC.to_bytes(4, "little")
        or block[at : at + 8] != META_LENGTH.to_bytes(8, "little")
    ):
        raise Odd
    found = list[Element]()
    while int.from_bytes(block[at : at + 2], "little") < META_GROUP_END >> 16:
        here = element_at(block, at, end=end, is_explicit=True)
        if (found and here.tag <= found[-1].tag) or here.length == UNDEFINED:
            raise Odd
        found.append(here)
        at += here.size + here.length
        if at + SHORT > end:
            raise Short
    is_explicit = _is_explicit(block, found)
    if not is_explicit and 0x40 < block[at + 4] < 0x5B and 0x40 < block[at + 5] < 0x5B:
        raise Odd  # pydicom reads it as explicit
    data, stop = elements(block, at, end=end, is_explicit=is_explicit)
    if not data:
        raise Odd
    return found + data, stop


def _is_explicit(block: memoryview, meta: Sequence[Element]) -> bool:
    told = {e.tag: bytes(block[e.at + e.size : e.at + e.size + e.length]).rstrip(b"\0") for e in meta}
    syntax = told.get(META_SYNTAX, b"")
    is_explicit = is_explicit_syntax(syntax.rstrip(b" ")) if len(syntax) <= LONGEST_SYNTAX else None
    if is_explicit is None or told.get(META_CLASS, b"") == DICOMDIR:
        raise Odd
    return is_explicit
