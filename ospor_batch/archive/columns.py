"""From the places of values in many headers to typed columns; a value that repeats from file to file is decoded once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ospor_batch.archive.elements import UNDEFINED
from ospor_batch.archive.heads import Heads, Places
from ospor_batch.archive.lockstep import Found, Wanted
from ospor_batch.archive.pixel_digest import digested, digests_of, joined
from ospor_batch.archive.quick import quick
from ospor_batch.archive.repeated import FIRST, Column, Steady, types, united
from ospor_batch.archive.values import TEXTS, Cell, Charset, Keyword, cell_of_bytes, charset_flags, charset_of, keywords

CHARSET_TAG, REPRESENTATION_TAG = 0x00080005, 0x00280103
META_CLASS, META_SYNTAX, DIRECTORY_RECORDS = 0x00020002, 0x00020010, 0x00041220
AMBIGUOUS = "US or SS"
SIGNS = {0: "US", 1: "SS"}  # by PixelRepresentation
LONGEST = 1024  # bytes of a value that a column takes; longer ones are left to pydicom
MOST_CELLS = 4096  # of one element, kept from file to file
STEADY = 16  # files a value, on average, in columns that are put together by their changes
FEW_LENGTHS = 4  # of one element in a batch; more are taken all at the greatest and cut
MANY = 8  # different values in a batch from which on all are decoded in one pass


_flags_of = attrgetter("flags")


def _code(vr: str) -> int:
    return int.from_bytes(vr.encode(), "little")


def wanted_elements() -> Wanted:
    """Every element that a column or a verdict needs, by slot."""
    return Wanted([META_CLASS, META_SYNTAX, DIRECTORY_RECORDS, *(of.tag for of in keywords())])


def representations(heads: Heads, found: Found, *, wanted: Wanted) -> Places:
    """PixelRepresentation of each file; 0 without one, -1 where it is not one number."""
    slot = wanted.slot[REPRESENTATION_TAG]
    length = found.length[slot]
    told = np.where(length < 0, 0, -1)
    is_one = length == 2
    told[is_one] = heads.words("<u2")[found.offset[slot, is_one]]
    return told


def is_usual(heads: Heads, found: Found, *, wanted: Wanted) -> NDArray[np.bool_]:
    """Which files hold every wanted value with its own value representation, in a usual length."""
    codes = np.zeros(len(wanted.tags), np.uint16)
    codes[[wanted.slot[META_CLASS], wanted.slot[META_SYNTAX]]] = _code("UI")
    for of in keywords():
        codes[wanted.slot[of.tag]] = _code(of.vr) if len(of.vr) == 2 else 0
    is_there = found.length >= 0
    same = (found.vr == codes[:, None]) | (found.vr == 0)
    for of in keywords():
        slot = wanted.slot[of.tag]
        if of.vr == AMBIGUOUS:
            is_known = np.isin(representations(heads, found, wanted=wanted), list(SIGNS))
            same[slot] = np.isin(found.vr[slot], [_code("US"), _code("SS")]) | ((found.vr[slot] == 0) & is_known)
    same[wanted.slot[DIRECTORY_RECORDS]] = False
    return np.asarray(((same & (found.length <= LONGEST)) | ~is_there).all(axis=0) & found.is_done)


class _Runs(NamedTuple):
    """Where in the rows a value other than before begins, the values without zero bytes at their ends, and their lengths.

    A length of -1: absent.
    """

    begin: Places
    items: list[bytes]
    lengths: list[int]

    def raws(self) -> list[bytes | None]:
        """The values as they are written; null: absent."""
        whole = map(bytes.ljust, self.items, self.lengths, repeat(b"\0"))
        if min(self.lengths) >= 0:
            return list(whole)
        return [None if n < 0 else raw for raw, n in zip(whole, self.lengths, strict=True)]


class _Batch:
    """Files of one block whose places are known; rows: their numbers in the block."""

    def __init__(self, heads: Heads, found: Found, rows: Places) -> None:
        self.heads, self.found, self.rows = heads, found, rows
        is_all = len(rows) == len(heads.start)
        self.offset = found.offset if is_all else found.offset[:, rows]
        self.length = found.length if is_all else found.length[:, rows]
        self.fresh = found.fresh if is_all else found.fresh[:, rows]
        self.fresh[:, 0] = True
        if not is_all:
            self.fresh[:, np.flatnonzero(np.diff(rows) != 1) + 1] = True  # the file before is left out
        self._widest = self.length.max(axis=1).tolist()
        self._narrowest = self.length.min(axis=1).tolist()

    def runs(self, slot: int, *, breaks: Places | None = None) -> _Runs:
        """The values of one element; breaks: more places for one to begin."""
        width = self._widest[slot]
        if width < 0:
            return _Runs(FIRST, [b""], [-1])
        which = self.fresh[slot].nonzero()[0]
        offset, length = self.offset[slot], self.length[slot]
        if len(which) < len(offset):
            offset, length = offset[which], length[which]
        items = self._items(offset, length, width=width, is_one_width=width == self._narrowest[slot])
        changes = items[1:] != items[:-1]
        if width != self._narrowest[slot]:
            changes |= length[1:] != length[:-1]
        if len(which) == len(self.rows) and changes.all():
            begin = which
        else:
            first = np.append(FIRST, changes.nonzero()[0] + 1)
            begin, items, length = which[first], items[first], length[first]
        if breaks is not None and len(breaks) > 1:
            known, begin = begin, united([begin, breaks], n=len(self.rows))
            first = known.searchsorted(begin, side="right") - 1
            items, length = items[first], length[first]
        return _Runs(begin, items.tolist(), length.tolist())

    def _items(self, offset: Places, length: Places, *, width: int, is_one_width: bool) -> NDArray[np.bytes_]:
        if is_one_width:
            return np.asarray(self.heads.words(f"S{width}")[offset], np.bytes_) if width else np.zeros(len(offset), "S1")
        lengths = set(length.tolist()) - {-1, 0}
        if len(lengths) > FEW_LENGTHS and int(offset.max()) + width <= len(self.heads.block):
            items = np.asarray(self.heads.words(f"S{width}")[offset], np.bytes_)
            bytes_of = items.view(np.uint8).reshape(-1, width)
            bytes_of *= (np.arange(width) < length[:, None]).view(np.uint8)  # zeros for what stands behind the value
            return items
        items = np.zeros(len(offset), f"S{max(width, 1)}")
        for n_bytes in lengths:
            of = length == n_bytes
            items[of] = self.heads.words(f"S{n_bytes}")[offset[of]]
        return items


@dataclass(frozen=True)
class Pixels:
    """Of each file: where its pixels begin (-1: none), how many bytes they say they are, the file's size, its frames."""

    offset: Places
    length: Places
    file_bytes: Places
    frames: NDArray[np.float64]


class Columns:
    """Typed columns of the instance contract, filled batch by batch."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._columns: dict[str, Column] = defaultdict(Column)
        self._flags: dict[int, set[str]] = defaultdict(set)
        self._cells: dict[tuple[Any, ...], dict[bytes | None, Cell]] = defaultdict(dict)
        self._places: list[tuple[Places, Places, Places]] = []
        self._n = 0

    def add(self, heads: Heads, found: Found, *, rows: Places) -> Places:
        """Decode usual files of one block, in the order of rows; those added: all but files of a broken character set."""
        batch = _Batch(heads, found, rows)
        charsets_at, charsets = self._charsets(batch)
        if None in charsets:
            counts = np.diff(charsets_at, append=len(rows))
            rows = rows[np.repeat([charset is not None for charset in charsets], counts)]
            return self.add(heads, found, rows=rows) if rows.size else rows
        self._fill(batch, charsets_at, [charset for charset in charsets if charset is not None])
        self._places.append((found.pixel_offset[rows], found.pixel_length[rows], heads.sizes[rows]))
        self._n += len(rows)
        return rows

    def _fill(self, batch: _Batch, charsets_at: Places, charsets: Sequence[Charset]) -> None:
        of_set = {charset: number for number, charset in enumerate(dict.fromkeys(charsets))}
        sets, numbers = list(of_set), np.array([of_set[charset] for charset in charsets], np.int64)
        flags = [charset_flags(charset.declared) for charset in sets]
        if any(flags):
            for at, end, number in zip(charsets_at, [*charsets_at[1:], len(batch.rows)], numbers, strict=True):
                self._remark(int(at), int(end), flags[number])
        self._add_syntax(batch)
        for of in keywords():
            if of.vr == AMBIGUOUS:
                self._add_ambiguous(of, batch)
                continue
            is_mixed = of.vr in TEXTS and len(sets) > 1
            runs = batch.runs(self._wanted.slot[of.tag], breaks=charsets_at if is_mixed else None)
            of_run = numbers[np.searchsorted(charsets_at, runs.begin, side="right") - 1] if is_mixed else None
            self._add(of, runs, n=len(batch.rows), sets=sets, of_run=of_run)

    def series(self) -> dict[str, pl.Series]:
        """A value for every file added, in that order: the columns of the contract that a header fills."""
        steady = {name: c for name, c in self._columns.items() if len(c.values) * STEADY <= self._n}
        found = Steady(steady, n=self._n).series()
        for name, column in self._columns.items():
            if name not in steady:
                found[name] = pl.Series(name, column.whole(self._n), types()[name])
        flags = [""] * self._n
        for row, told in self._flags.items():
            flags[row] = ";".join(sorted(told))
        found["header_flags"] = pl.Series("header_flags", flags, pl.String)
        found["is_pixel_data"] = pl.Series("is_pixel_data", self.pixels.offset >= 0)
        found["header_digest"] = pl.Series("header_digest", self._digests(), pl.String)
        return found

    @property
    def pixels(self) -> Pixels:
        """Where the pixels of every file added lie."""
        offset, length, size = ([part[k] for part in self._places] for k in range(3))
        frames = np.maximum(np.nan_to_num(self._columns["number_of_frames"].numbers(self._n), nan=1.0), 1.0)
        return Pixels(np.concatenate(offset), np.concatenate(length), np.concatenate(size), frames)

    def is_sound(self, *, others: Sequence[str]) -> NDArray[np.bool_]:
        """Which files are plainly whole, identified instances; the rest is judged alone. others: classes that need more."""
        of = self._columns
        sound = ~of["sop_class_uid"].is_among(others, n=self._n)
        for uid in ("study_instance_uid", "series_instance_uid", "sop_instance_uid", "sop_class_uid"):
            sound &= of[uid].is_told(self._n)
        pixels = self.pixels
        side = [of[name].numbers(self._n) for name in ("rows", "columns", "bits_allocated")]
        samples = np.nan_to_num(of["samples_per_pixel"].numbers(self._n), nan=1.0)
        n_bits = np.prod([*side, pixels.frames, samples], axis=0)
        fits = (pixels.offset + pixels.length <= pixels.file_bytes) & (pixels.length > 0) & (n_bits <= 8.0 * pixels.length)
        fits &= np.min([*side, samples], axis=0) > 0
        return np.asarray(sound & ((pixels.offset < 0) | (pixels.length == UNDEFINED) | fits))

    def _digests(self) -> list[str]:
        names, texts = digested()
        numbers = np.column_stack([self._columns[name].numbers(self._n) for name in names])
        steady = Steady({name: self._columns[name] for name in texts}, n=self._n)
        told = [joined(values) for values in zip(*(steady.columns[name] for name in texts), strict=True)]
        return digests_of(numbers, [told[at] for at in steady.repeats.tolist()])

    def _charsets(self, batch: _Batch) -> tuple[Places, list[Charset | None]]:
        """Where another character set begins, and which; null where pydicom cannot take it."""
        runs = batch.runs(self._wanted.slot[CHARSET_TAG])
        raws = runs.raws()
        found: dict[bytes | None, Charset | None] = {}
        for raw in set(raws):
            try:
                found[raw] = charset_of(raw)
            except Exception:  # noqa: BLE001 -- pydicom raises it too, and is asked for the verdict on the file
                found[raw] = None
        return runs.begin, [found[raw] for raw in raws]

    def _add_syntax(self, batch: _Batch) -> None:
        runs = batch.runs(self._wanted.slot[META_SYNTAX])
        texts = [None if not raw else raw.rstrip(b"\0 ").decode("ascii") for raw in runs.raws()]
        self._extend("transfer_syntax_uid", texts, runs.begin)

    def _add_ambiguous(self, of: Keyword, batch: _Batch) -> None:
        """Signed or not as written or, in an implicit data set, as the pixels are."""
        slot = self._wanted.slot[of.tag]
        written = batch.found.vr[slot, batch.rows]
        representation = representations(batch.heads, batch.found, wanted=self._wanted)[batch.rows]
        is_signed = np.where(written == 0, representation == 1, written == _code("SS"))
        breaks = np.concatenate([np.zeros(1, np.int64), np.flatnonzero(is_signed[1:] != is_signed[:-1]) + 1])
        runs = batch.runs(slot, breaks=breaks)
        begin, raws = runs.begin, runs.raws()
        cells = [
            self._cells_of(of, [raw], vr=SIGNS[int(signed)], charset=Charset())[0]
            for raw, signed in zip(raws, is_signed[begin].tolist(), strict=True)
        ]
        self._put(of, begin, cells, n=len(batch.rows))

    def _add(
        self,
        of: Keyword,
        runs: _Runs,
        *,
        n: int,
        sets: Sequence[Charset],
        of_run: Places | None,
    ) -> None:
        """Decode the runs of one element. sets: the character sets of the batch; of_run: which, if not the first."""
        begin = runs.begin
        if len(begin) > MANY and min(runs.lengths) >= 0:
            one = sets[0] if of_run is None or all(charset.is_ascii_safe for charset in sets) else None
            lists = quick(of, runs.items if of.vr != "FD" else [raw or b"" for raw in runs.raws()], charset=one)
            if lists is not None:
                for field_, values in zip(of.fields, lists, strict=True):
                    self._extend(field_.name, values, begin)
                return
        raws = runs.raws()
        if of_run is None:
            cells = self._cells_of(of, raws, vr=of.vr, charset=sets[0])
        else:
            cells = [Cell(())] * len(raws)
            for number in np.unique(of_run).tolist():
                places = np.flatnonzero(of_run == number).tolist()
                found = self._cells_of(of, [raws[at] for at in places], vr=of.vr, charset=sets[number])
                for at, cell in zip(places, found, strict=True):
                    cells[at] = cell
        self._put(of, begin, cells, n=n)

    def _cells_of(self, of: Keyword, raws: Sequence[bytes | None], *, vr: str, charset: Charset) -> list[Cell]:
        """The cells of values, each different one decoded once."""
        known = self._cells[of.tag, vr, charset if of.vr in TEXTS else None]
        new = [raw for raw in set(raws) if raw is not None and raw not in known]
        if len(known) + len(new) > MOST_CELLS:
            known.clear()
            new = [raw for raw in set(raws) if raw is not None]
        lists = quick(of, new, charset=charset) if len(new) > MANY else None
        if lists is None:
            known.update((raw, cell_of_bytes(of, raw, vr=vr, charset=charset)) for raw in new)
        else:
            known.update(zip(new, map(Cell, zip(*lists, strict=True)), strict=True))
        known[None] = Cell((None,) * len(of.fields))
        return [known[raw] for raw in raws]

    def _put(self, of: Keyword, begin: Places, cells: Sequence[Cell], *, n: int) -> None:
        for k, field_ in enumerate(of.fields):
            self._extend(field_.name, [cell.values[k] for cell in cells], begin)
        if not any(map(_flags_of, cells)):
            return
        for number, cell in enumerate(cells):
            if cell.flags:
                end = int(begin[number + 1]) if number + 1 < len(begin) else n
                self._remark(int(begin[number]), end, set(cell.flags))

    def _extend(self, name: str, values: Sequence[Any], begin: Places) -> None:
        column = self._columns[name]
        column.values.extend(values)
        column.places.append(begin + self._n)

    def _remark(self, begin: int, end: int, flags: set[str]) -> None:
        if flags:
            for row in range(self._n + begin, self._n + end):
                self._flags[row] |= flags
