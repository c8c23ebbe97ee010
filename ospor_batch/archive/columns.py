"""From the places of values in many headers to typed columns; a value that repeats from file to file is decoded once."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ospor_batch.archive.elements import CHARSET_TAG, META_CLASS, META_SYNTAX, REPRESENTATION_TAG, UNDEFINED
from ospor_batch.archive.heads import Heads, Places
from ospor_batch.archive.lockstep import Found, Wanted
from ospor_batch.archive.pixel_digest import digested, digests_of, joined
from ospor_batch.archive.quick import quick, quick_cell
from ospor_batch.archive.repeated import FIRST, Column, Steady, numbers_of, types
from ospor_batch.archive.runs import Gathered, Segment
from ospor_batch.archive.values import Cell, Charset, Keyword, cell_of_bytes, charset_flags, charset_of, keywords
from ospor_batch.archive.written import Batch, Few, Written

DIRECTORY_RECORDS = 0x00041220
AMBIGUOUS = "US or SS"
SIGNS = {0: "US", 1: "SS"}  # by PixelRepresentation
LONGEST = 1024  # bytes of a value that a column takes; longer ones are left to pydicom
MOST_CELLS, MOST_KINDS = 512, 256  # values of one element and character set that are kept, and how many such kinds
MANY = 32  # different values in a batch from which on all are decoded in one pass


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


@functools.cache
def known_cells() -> dict[tuple[Any, ...], dict[bytes | None, Cell]]:
    """Values that were decoded last, by element, value representation and character set: what a cell depends on."""
    return defaultdict(dict)


@dataclass(frozen=True)
class Pixels:
    """Of each file: where its pixels begin (-1: none), how many bytes they say they are, the file's size, its frames."""

    offset: Places
    length: Places
    file_bytes: Places
    frames: NDArray[np.float64]


def _are_known(begin: Places, which: Places, charsets: Sequence[Charset | None], *, n: int) -> NDArray[np.bool_]:
    """Of which files pydicom can take the character set."""
    return np.repeat(np.array([charset is not None for charset in charsets])[which], np.diff(begin, append=n))


def _cell(of: Keyword, raw: bytes | None, *, vr: str, charset: Charset) -> Cell:
    if raw is None:
        return Cell((None,) * len(of.fields))
    return quick_cell(of, raw, vr=vr, charset=charset) or cell_of_bytes(of, raw, vr=vr, charset=charset)


class Columns:
    """Typed columns of the instance contract, filled batch by batch."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._columns: dict[str, Column] = defaultdict(Column)
        self._flags: dict[int, set[str]] = defaultdict(set)
        self._known = known_cells()
        self._places: list[tuple[Places, Places, Places]] = []
        self._n = 0

    def add(self, heads: Heads, found: Found, *, rows: Places) -> Places:
        """Decode usual files of one block, in the order of rows; those added: all but files of a broken character set."""
        batch = Batch(heads, found, rows)
        begin, which, charsets = self._charsets(batch)
        if None in charsets:
            rows = rows[_are_known(begin, which, charsets, n=batch.n)]
            return self.add(heads, found, rows=rows) if rows.size else rows
        self._fill(batch, begin, which, [charset for charset in charsets if charset is not None])
        self.__dict__.pop("pixels", None)  # they are more now
        self._places.append((found.pixel_offset[rows], found.pixel_length[rows], heads.sizes[rows]))
        self._n += len(rows)
        return rows

    def add_runs(self, segments: Sequence[Segment]) -> Places:
        """Decode the usual files of some runs; the numbers of those added."""
        gathered = Gathered(segments, self._wanted)
        begin, which, charsets = self._charsets(gathered.bases)
        fine = is_usual(gathered.bases.heads, gathered.bases.found, wanted=self._wanted)
        fine &= _are_known(begin, which, charsets, n=len(segments))
        if not fine.all():
            usual = [segment for segment, is_fine in zip(segments, fine.tolist(), strict=True) if is_fine]
            return self.add_runs(usual) if usual else FIRST[:0]
        self._fill(gathered, gathered.place(begin), which, [charset for charset in charsets if charset is not None])
        self.__dict__.pop("pixels", None)
        self._places.append(gathered.pixels())
        self._n += gathered.n
        return gathered.numbers()

    def _fill(self, batch: Batch | Gathered, begin: Places, which: Places, charsets: Sequence[Charset]) -> None:
        """Decode all columns. begin: where another character set holds; which: of them it is."""
        flags = [charset_flags(charset.declared) for charset in charsets]
        if any(flags):
            for at, end, number in zip(begin.tolist(), [*begin[1:].tolist(), batch.n], which.tolist(), strict=True):
                self._remark(at, end, flags[number])
        self._add_syntax(batch)
        plainest = charsets[0] if all(charset.is_usual for charset in charsets) else None
        for of in keywords():
            if of.vr == AMBIGUOUS:
                self._add_ambiguous(of, batch)
                continue
            written = batch.values(self._wanted.slot[of.tag])
            if self._add_plain(of, written, charset=plainest):
                continue
            if of.is_text and len(charsets) > 1:
                self._add_mixed(of, batch, begin, which, kinds=[(of.vr, charset) for charset in charsets])
            else:
                raws, numbers = written.distinct()
                self._put(of, written.begin, self._cells(of, raws, vr=of.vr, charset=charsets[0]), numbers, n=batch.n)

    def series(self) -> dict[str, pl.Series]:
        """A value for every file added, in that order: the columns of the contract that a header fills."""
        steady = {name: c for name, c in self._columns.items() if c.is_steady(self._n) and c.n_values > 1}
        found = Steady(steady, n=self._n).series()
        for name, column in self._columns.items():
            if name not in steady:
                found[name] = column.whole(self._n, name=name)
        flags = [""] * self._n
        for row, told in self._flags.items():
            flags[row] = ";".join(sorted(told))
        found["header_flags"] = pl.Series("header_flags", flags, pl.String)
        found["is_pixel_data"] = pl.Series("is_pixel_data", self.pixels.offset >= 0)
        found["header_digest"] = pl.Series("header_digest", self._digests(), pl.String)
        return found

    @functools.cached_property
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
        numbers = numbers_of([self._columns[name] for name in names], n=self._n)
        steady = Steady({name: self._columns[name] for name in texts}, n=self._n)
        told = joined([steady.rows[name].to_list() for name in texts])
        return digests_of(numbers, [told[at] for at in steady.repeats.tolist()])

    def _charsets(self, batch: Batch) -> tuple[Places, Places, list[Charset | None]]:
        """Where another character set begins, which it is, and all of them; null where pydicom cannot take it."""
        written = batch.values(self._wanted.slot[CHARSET_TAG])
        raws, which = written.distinct()
        found: list[Charset | None] = []
        for raw in raws:
            try:
                found.append(charset_of(raw))
            except Exception:  # noqa: BLE001 -- pydicom raises it too, and is asked for the verdict on the file
                found.append(None)
        charsets = list(dict.fromkeys(found))
        return written.begin, np.array([charsets.index(charset) for charset in found])[which], charsets

    def _add_syntax(self, batch: Batch | Gathered) -> None:
        written = batch.values(self._wanted.slot[META_SYNTAX])
        raws, which = written.distinct()
        texts = [None if not raw else raw.rstrip(b"\0 ").decode("ascii") for raw in raws]
        self._extend("transfer_syntax_uid", texts, which, written.begin)

    def _add_ambiguous(self, of: Keyword, batch: Batch | Gathered) -> None:
        """Signed or not as written or, in an implicit data set, as the pixels are."""
        slot, bases = self._wanted.slot[of.tag], batch.bases
        vr = bases.found.vr[slot, bases.rows]
        representation = representations(bases.heads, bases.found, wanted=self._wanted)[bases.rows]
        is_signed = np.where(vr == 0, representation == 1, vr == _code("SS")).astype(np.int64)
        first = np.append(FIRST, np.flatnonzero(is_signed[1:] != is_signed[:-1]) + 1)
        kinds = [(SIGNS[0], Charset()), (SIGNS[1], Charset())]
        self._add_mixed(of, batch, batch.place(first), is_signed[first], kinds=kinds)

    def _add_plain(self, of: Keyword, written: Written | Few, *, charset: Charset | None) -> bool:
        """Decode many values in one pass, if they are all plain; whether they were. charset: null where it differs."""
        if len(written) <= MANY:
            return False
        if (columns := quick(of, written.many() if isinstance(written, Few) else written, charset=charset)) is None:
            return False
        for field_, values in zip(of.fields, columns, strict=True):
            self._columns[field_.name].add(values, written.begin + self._n)
        return True

    def _add_mixed(
        self, of: Keyword, batch: Batch | Gathered, begin: Places, which: Places, *, kinds: Sequence[tuple[str, Charset]]
    ) -> None:
        """Decode values of more than one value representation or character set; begin: where another holds, which: it is."""
        written = batch.values(self._wanted.slot[of.tag], breaks=begin)
        raws, of_raw = written.distinct()
        of_kind = which[begin.searchsorted(written.begin, side="right") - 1]
        pairs, numbers = np.unique(of_raw * len(kinds) + of_kind, return_inverse=True)
        cells = list[Cell]()
        for pair in pairs.tolist():
            vr, charset = kinds[pair % len(kinds)]
            cells += self._cells(of, [raws[pair // len(kinds)]], vr=vr, charset=charset)
        self._put(of, written.begin, cells, numbers, n=batch.n)

    def _cells(self, of: Keyword, raws: Sequence[bytes | None], *, vr: str, charset: Charset) -> list[Cell]:
        """The cells of values, each decoded once."""
        if len(self._known) > MOST_KINDS:  # a file may declare any set
            self._known.clear()
        known = self._known[of.tag, vr, charset if of.is_text else None]
        cells = list[Cell]()
        for raw in raws:
            if (cell := known.get(raw)) is None:
                if len(known) >= MOST_CELLS:
                    known.clear()
                known[raw] = cell = _cell(of, raw, vr=vr, charset=charset)
            cells.append(cell)
        return cells

    def _put(self, of: Keyword, begin: Places, cells: Sequence[Cell], which: Places, *, n: int) -> None:
        """Add different cells to their columns; which: of them stands at each place."""
        for k, field_ in enumerate(of.fields):
            self._extend(field_.name, [cell.values[k] for cell in cells], which, begin)
        if not any(map(_flags_of, cells)):
            return
        for at, number in enumerate(which.tolist()):
            if cells[number].flags:
                end = int(begin[at + 1]) if at + 1 < len(begin) else n
                self._remark(int(begin[at]), end, set(cells[number].flags))

    def _extend(self, name: str, values: Sequence[Any], which: Places, begin: Places) -> None:
        if len(which) > MANY:
            self._columns[name].add(pl.Series(values, dtype=types()[name])[which], begin + self._n)
        else:
            self._columns[name].add([values[number] for number in which.tolist()], begin + self._n)

    def _remark(self, begin: int, end: int, flags: set[str]) -> None:
        if flags:
            for row in range(self._n + begin, self._n + end):
                self._flags[row] |= flags
