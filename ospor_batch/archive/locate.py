"""Find the wanted values in the first bytes of many files, by remembered layouts or element by element."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ospor_batch.archive.elements import META_CLASS, META_SYNTAX
from ospor_batch.archive.heads import Heads, Places
from ospor_batch.archive.layout import Memory
from ospor_batch.archive.lockstep import Found, Walk, Wanted

DATA = 132  # where the first element stands: behind 128 bytes of preamble and DICM
MAGIC = int.from_bytes(b"DICM", "little")
META_LENGTH = int.from_bytes(b"\x02\x00\x00\x00UL\x04\x00", "little")  # the element that every meta group begins with
IMPLICIT, EXPLICIT = b"1.2.840.10008.1.2", b"1.2.840.10008.1.2.1"
JPEG_FAMILY, RLE = b"1.2.840.10008.1.2.4.", b"1.2.840.10008.1.2.5"  # explicit, with compressed pixels
DICOMDIR = b"1.2.840.10008.1.3.10"


def locate(heads: Heads, *, wanted: Wanted, memory: Memory | None) -> Found:
    """Places of the wanted values; files that begin in an unusual way are left undone. memory null: walk every file."""
    found = Found.none_of(len(heads.start), slots=len(wanted.tags))
    rows = np.flatnonzero((heads.sizes > 0) & (heads.end - heads.start > DATA + 8))
    begins = (heads.words("<u4")[heads.start[rows] + DATA - 4] == MAGIC) & (
        heads.words("<u8")[heads.start[rows] + DATA] == META_LENGTH
    )
    rows = rows[begins]
    rows, at = Walk(heads, wanted, found, rows, heads.start[rows] + DATA, is_explicit=True).run_meta()
    found.is_done[:] = False  # a file of nothing but a meta group
    kinds = _kinds(_texts(heads, found, rows, slot=wanted.slot[META_SYNTAX]))
    is_file = _texts(heads, found, rows, slot=wanted.slot[META_CLASS]) != DICOMDIR
    for is_explicit in (True, False):
        of = (kinds == is_explicit) & is_file
        if not is_explicit:
            of &= ~_looks_explicit(heads, at)
        chosen, begin = rows[of], at[of]
        if memory is not None and chosen.size:
            left = memory.place(heads, chosen, at=begin, is_explicit=is_explicit, found=found)
            chosen, begin = chosen[left], begin[left]
        Walk(heads, wanted, found, chosen, begin, is_explicit=is_explicit).run()
    return found


def is_explicit_syntax(syntax: bytes) -> bool | None:
    """Whether a transfer syntax is explicit; null for one that is read by pydicom alone."""
    if syntax == IMPLICIT:
        return False
    return True if syntax in {EXPLICIT, RLE} or syntax.startswith(JPEG_FAMILY) else None


def _kinds(syntaxes: NDArray[np.bytes_]) -> NDArray[np.int8]:
    """1: explicit, 0: implicit, -1: read by pydicom alone; each run of one syntax is judged once."""
    begin = np.flatnonzero(np.append(True, syntaxes[1:] != syntaxes[:-1])[: len(syntaxes)])
    told = [is_explicit_syntax(syntax.rstrip(b" ")) for syntax in syntaxes[begin].tolist()]
    kinds = np.array([-1 if kind is None else int(kind) for kind in told], np.int8)
    return np.repeat(kinds, np.diff(begin, append=len(syntaxes)))


def _texts(heads: Heads, found: Found, rows: Places, *, slot: int) -> NDArray[np.bytes_]:
    """Short values without their zero bytes at the end; empty where absent or long."""
    offset, length = found.offset[slot, rows], found.length[slot, rows]
    texts = np.zeros(len(rows), "S64")
    for n_bytes in [n for n in set(length.tolist()) if 0 < n <= 64]:
        which = length == n_bytes
        texts[which] = heads.words(f"S{n_bytes}")[offset[which]]
    return texts


def _looks_explicit(heads: Heads, at: Places) -> NDArray[np.bool_]:
    """Two capital letters where an explicit element has its value representation: pydicom then reads it as explicit."""
    first, second = heads.block[np.minimum(at + 4, len(heads.block) - 1)], heads.block[np.minimum(at + 5, len(heads.block) - 1)]
    return (first > 0x40) & (first < 0x5B) & (second > 0x40) & (second < 0x5B)
