"""Values as they are written in the headers of many files: where another one begins, and its bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import repeat

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ospor_batch.archive.heads import Heads, Places
from ospor_batch.archive.lockstep import Found
from ospor_batch.archive.repeated import FIRST, united

FIRST_PRINTABLE, LAST_PRINTABLE = 0x20, 0x7D  # characters of ASCII that stand for themselves in every set, save the backslash
BACKSLASH, SPACE = 0x5C, 0x20
ABSENT: Places = np.full(1, -1, np.int64)
NARROW = 256  # bytes of values for which it is kept which bytes of every length are held
FEW_VALUES = 64  # up to which a loop over them takes less time than Arrow
SAMPLE, OFTEN = 128, 0.5  # values looked at, and the share that differ from the one before from which on all are decoded


@dataclass(frozen=True)
class Written:
    """Values of one element with zeros behind them, and the places where they begin to hold; length -1: absent."""

    begin: Places
    items: NDArray[np.bytes_]
    length: Places

    def __len__(self) -> int:
        return len(self.begin)

    @cached_property
    def octets(self) -> NDArray[np.uint8]:
        """The bytes of all values, each with its zeros."""
        return np.ascontiguousarray(self.items).view(np.uint8)

    def _changes(self, n: int) -> NDArray[np.bool_]:
        """Which of the first values, but the first, are others than the one before."""
        items, length = self.items[:n], self.length[:n]
        return np.asarray((items[1:] != items[:-1]) | (length[1:] != length[:-1]))

    @property
    def is_often_new(self) -> bool:
        """Whether it takes longer to leave out what repeats than to decode it again."""
        changes = self._changes(SAMPLE)
        return bool(np.count_nonzero(changes) > OFTEN * len(changes))

    def without_repeats(self) -> Written:
        """Each value once, in a row of equal ones."""
        first = np.append(FIRST, self._changes(len(self)).nonzero()[0] + 1)
        return Written(self.begin[first], self.items[first], self.length[first])

    def is_made_of(self, allowed: bytes) -> bool:
        """Whether no other bytes occur."""
        return not self.octets.tobytes().translate(None, allowed)

    def is_printable(self) -> bool:
        """Whether all bytes are ASCII that stands for itself, or zero; a backslash parts values."""
        is_other = self.octets - np.uint8(FIRST_PRINTABLE) > LAST_PRINTABLE - FIRST_PRINTABLE  # zero turns into a large one
        n_zeros = self.octets.size - np.count_nonzero(self.octets)
        return bool(np.count_nonzero(is_other) == n_zeros and not (self.octets == BACKSLASH).any())

    def to_first_zero(self, *, is_null: NDArray[np.bool_]) -> pa.Array | None:
        """The values as Arrow takes them, which stops at a zero; null where one goes on behind it."""
        held = pa.array(self.items, mask=is_null)
        n_bytes = np.frombuffer(held.buffers()[1], np.int32)[len(held)]
        return held if n_bytes == np.count_nonzero(self.octets) else None

    def texts(self, *, is_empty_null: bool = False) -> pa.StringArray | None:
        """ASCII values without zeros and spaces at their ends; null where one has a zero inside."""
        held = self.to_first_zero(is_null=self.length <= 0 if is_empty_null else self.length < 0)
        if held is None:
            return None
        is_known, offsets, content = held.buffers()
        told = pa.StringArray.from_buffers(len(held), offsets, content, is_known)
        return pc.ascii_trim(told, characters=" ") if (self.octets == SPACE).any() else told

    def raws(self) -> list[bytes | None]:
        """The values as they are written; null: absent."""
        lengths = self.length.tolist()
        whole = map(bytes.ljust, self.items.tolist(), lengths, repeat(b"\0"))
        if min(lengths) >= 0:
            return list(whole)
        return [None if n < 0 else raw for raw, n in zip(whole, lengths, strict=True)]

    def distinct(self) -> tuple[list[bytes | None], Places]:
        """Each different value once, and which of them stands at each place."""
        if len(self) > FEW_VALUES:
            held = self.to_first_zero(is_null=self.length < 0)
            if held is not None and np.count_nonzero(self.octets) == np.maximum(self.length, 0).sum():
                known = held.dictionary_encode(null_encoding="encode")
                return known.dictionary.to_pylist(), known.indices.to_numpy().astype(np.int64)
        raws = self.raws()
        number: dict[bytes | None, int] = {}
        which = [number.setdefault(raw, len(number)) for raw in raws]
        return list(number), np.array(which, np.int64)


@dataclass(frozen=True)
class Few:
    """A few values as they are written, and the places where they begin to hold; null: absent."""

    begin: Places
    held: Sequence[bytes | None]

    def __len__(self) -> int:
        return len(self.held)

    def raws(self) -> list[bytes | None]:
        """The values as they are written; null: absent."""
        return list(self.held)

    def distinct(self) -> tuple[list[bytes | None], Places]:
        """Each different value once, and which of them stands at each place."""
        number = {raw: at for at, raw in enumerate(dict.fromkeys(self.held))}
        return list(number), np.array([number[raw] for raw in self.held], np.int64)

    def many(self) -> Written:
        """The same as arrays."""
        lengths = [-1 if raw is None else len(raw) for raw in self.held]
        items = np.array([raw or b"" for raw in self.held], f"S{max(1, *lengths)}")
        return Written(self.begin, items, np.array(lengths, np.int64))


def parted(written: Written, breaks: Places | None, *, n: int) -> Written:
    """The same values of n files, which begin anew at some more places."""
    if breaks is None or len(breaks) <= 1:
        return written
    begin = united([written.begin, breaks], n=n)
    which = written.begin.searchsorted(begin, side="right") - 1
    return Written(begin, written.items[which], written.length[which])


class Batch:
    """Files of one block whose places are known; rows: their numbers in the block."""

    def __init__(self, heads: Heads, found: Found, rows: Places) -> None:
        self.heads, self.found, self.rows, self.n = heads, found, rows, len(rows)
        is_all = len(rows) == len(heads.start)
        self.offset = found.offset if is_all else found.offset[:, rows]
        self.length = found.length if is_all else found.length[:, rows]
        self.fresh = found.fresh if is_all else found.fresh[:, rows]
        self.fresh[:, 0] = True
        if not is_all:
            self.fresh[:, np.flatnonzero(np.diff(rows) != 1) + 1] = True  # the file before is left out
        self._widest = self.length.max(axis=1).tolist()
        self._narrowest = self.length.min(axis=1).tolist()
        self._last = int(self.offset.max())

    def place(self, at: Places) -> Places:
        """Where files begin that are alike: where they stand."""
        return at

    @property
    def bases(self) -> Batch:
        """Files of which the others repeat what governs their values: all of them."""
        return self

    def values(self, slot: int, *, breaks: Places | None = None) -> Written:
        """The values of one element; breaks: more places for one to begin."""
        width = self._widest[slot]
        if width < 0:
            return Written(FIRST, np.zeros(1, "S1"), ABSENT)
        which = self.fresh[slot].nonzero()[0]
        offset, length = self.offset[slot], self.length[slot]
        if len(which) < len(offset):
            offset, length = offset[which], length[which]
        items = self._items(offset, length, width=width, is_one_width=width == self._narrowest[slot])
        written = Written(which, items, length)
        if len(which) < self.n or not written.is_often_new:
            written = written.without_repeats()
        return parted(written, breaks, n=self.n)

    def _items(self, offset: Places, length: Places, *, width: int, is_one_width: bool) -> NDArray[np.bytes_]:
        if width == 0:
            return np.zeros(len(offset), "S1")
        heads = self.heads
        if self._last + width > len(heads.block):  # the widest behind the last one's place: seldom so long
            heads = replace(heads, block=np.append(heads.block, np.zeros(width, np.uint8)))
        items = np.asarray(heads.words(f"S{width}")[offset], np.bytes_)
        if not is_one_width:  # zeros for what stands behind the value
            octets = items.view(np.uint8)
            octets *= _ones(width)[length].view(np.uint8) if width <= NARROW else _are_held(length, width)
        return items


def _are_held(length: Places, width: int) -> NDArray[np.uint8]:
    """Ones for the bytes of values that are so long, and zeros behind them."""
    return (np.arange(width) < length[:, None]).view(np.uint8).ravel()


@cache
def _ones(width: int) -> NDArray[np.void]:
    """The same for every length; the last is for -1, absent."""
    return _are_held(np.append(np.arange(width + 1), ABSENT), width).view(f"V{width}")
