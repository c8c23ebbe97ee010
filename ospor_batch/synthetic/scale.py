"""Files without pixels, for tests at the size of a hospital: whole headers, and pixel data that is a hole in the file.

A native file has its full length and takes one block of disk: reading its pixels gives zeros. Where a scanner compresses,
one constant frame stands in every slice. Whoever copies such an archive must copy holes as holes.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import repeat
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from ospor_batch.errors import StorageError
from ospor_batch.synthetic.anatomy import Grid
from ospor_batch.synthetic.dose_report import Dose, dose_report
from ospor_batch.synthetic.folders import file_of
from ospor_batch.synthetic.headers import Series, as_file, ct_header
from ospor_batch.synthetic.instances import Instance, radiograph_header, slices_of
from ospor_batch.synthetic.patient_files import REPORT_SERIES, SCOUT_SERIES, Detail, films_of, index_series, series_of
from ospor_batch.synthetic.pixel_codecs import encode
from ospor_batch.synthetic.population import CENTERS, Person, Rates, people
from ospor_batch.synthetic.radiograph import View
from ospor_batch.synthetic.seeding import stream
from ospor_batch.synthetic.vendor import ENCAPSULATED, EXPLICIT

# slices, their distance in mm, and the share of examinations; declared: routine 5 mm, chest 3 and 1.25 mm, thin 0.8 mm
STACKS = ((45, 5.0, 0.35), (110, 3.0, 0.30), (260, 1.25, 0.25), (420, 0.8, 0.10))
SPREAD = 0.2  # half the relative range of the number of slices
FILES_A_SHARD = 4000
HOLE_SHARE = 0.5  # of the length: a file system that stores more than this keeps no holes


@dataclass(frozen=True)
class Wanted:
    """What one person has: slices, and which other files; limit cuts the last person to the size asked for."""

    number: int
    n_slices: int
    step_mm: float
    is_scout: bool
    is_report: bool
    is_radiograph: bool
    limit: int

    @property
    def n_files(self) -> int:
        return self.n_slices + self.is_scout + self.is_report + self.is_radiograph


@dataclass(frozen=True)
class Shard:
    """People of one center to be written by one task."""

    center: str
    numbers: tuple[Wanted, ...]
    seed: int
    rates: Rates
    detail: Detail
    out: Path = Path()
    time_ns: int = 0


@dataclass(frozen=True)
class _Stack:
    """A volume of which only the frame is known."""

    grid: Grid
    kvp_kv: int


def plan_shards(n_files: int, *, seed: int, rates: Rates, detail: Detail) -> list[Shard]:
    """People dealt to the centers in turn until they have exactly n_files, in shards of about a second's work."""
    open_shards: dict[str, list[Wanted]] = {center.name: [] for center in CENTERS}
    shards, left, number = [], n_files, 0
    while left > 0:
        number += 1
        for center, wanted in open_shards.items():
            if left <= 0:
                break
            person = _wanted(seed, center, number, detail)
            person = replace(person, limit=min(person.n_files, left))
            left -= person.limit
            wanted.append(person)
            if sum(w.limit for w in wanted) >= FILES_A_SHARD:
                shards.append(Shard(center, tuple(wanted), seed, rates, detail))
                wanted.clear()
    shards += [Shard(center, tuple(wanted), seed, rates, detail) for center, wanted in open_shards.items() if wanted]
    return shards


def write_shard(shard: Shard) -> int:
    """Write the files of a shard; answers how many."""
    numbers = range(shard.numbers[0].number, shard.numbers[-1].number + 1)
    everyone = people(shard.center, numbers, seed=shard.seed, night=1, rates=shard.rates, is_planted=False)
    root, n_written = shard.out / "archives" / shard.center, 0
    folders: set[str] = set()
    for person, wanted in zip(everyone, shard.numbers, strict=True):
        for series, instances in _files(person, wanted, shard.detail):
            for instance, hole in instances:
                path = f"{root}/{file_of(series, instance)}"
                folder = path.rpartition("/")[0]
                if folder not in folders:
                    Path(folder).mkdir(parents=True, exist_ok=True)
                    folders.add(folder)
                _put(path, instance.content, hole=hole, time_ns=shard.time_ns)
                n_written += 1
    return n_written


def _wanted(seed: int, center: str, number: int, detail: Detail) -> Wanted:
    draw = stream(seed, center, number, "scale").random(5)
    which = int(np.searchsorted(np.cumsum([share for *_, share in STACKS]), draw[0]))
    n_slices, step, _ = STACKS[min(which, len(STACKS) - 1)]
    n_slices = round(n_slices * (1 + SPREAD * (2 * float(draw[1]) - 1)))
    beside = detail.beside
    return Wanted(number, n_slices, step, bool(draw[2] < beside.scout), bool(draw[3] < beside.dose_report),
                  bool(draw[4] < 0.3), limit=0)  # fmt: skip


def _files(person: Person, wanted: Wanted, detail: Detail) -> Iterator[tuple[Series, Iterator[tuple[Instance, int]]]]:
    """Series with their files and the length of the hole after each, cut at the limit."""
    left = wanted.limit
    plain = index_series(person, tags=detail.tags)
    matrix, pixel = detail.sampling.matrix, detail.sampling.pixel_mm
    low = round(float(person.draws("scale").uniform(-900, 300)), 1)
    shape = (wanted.n_slices, matrix, matrix)
    grid = Grid((-180.0, -180.0, low), (pixel, pixel, wanted.step_mm), shape, wanted.step_mm, person.tilt_deg)
    stack = _Stack(grid, person.kvp_kv)
    yield plain, _first(_slices(plain, stack), left)
    left -= wanted.n_slices
    if wanted.is_scout and left > 0:
        scout = series_of(person, SCOUT_SERIES, tags=detail.tags)
        yield scout, iter([_scout(scout, stack)])
        left -= 1
    if wanted.is_report and left > 0:
        report = series_of(person, REPORT_SERIES, tags=detail.tags)
        dose = Dose(8.0, round(0.8 * wanted.n_slices * wanted.step_mm, 1), person.kvp_kv, 180, wanted.n_slices * wanted.step_mm)
        yield report, iter([(dose_report(report, dose), 0)])
        left -= 1
    if wanted.is_radiograph and left > 0:
        film, view = next(films_of(person, detail))
        yield film, iter([_radiograph(film, view, matrix=detail.radiograph_matrix)])


def _first(instances: Iterable[tuple[Instance, int]], n: int) -> Iterator[tuple[Instance, int]]:
    for place, instance in enumerate(instances):
        if place >= n:
            return
        yield instance


def _slices(series: Series, stack: _Stack) -> Iterator[tuple[Instance, int]]:
    ds, syntax = ct_header(series, stack), series.habit.transfer_syntax
    shape = stack.grid.shape[1:]
    if syntax in ENCAPSULATED:
        frame = _constant(syntax, shape, series.habit.bits_stored, is_signed=series.habit.is_signed)
        yield from ((instance, 0) for instance in slices_of(series, stack, ds=ds, frames=repeat(frame)))
        return
    for instance in slices_of(series, stack, ds=ds, frames=repeat(b"")):
        yield _with_hole(instance, 2 * shape[0] * shape[1])


def _scout(series: Series, stack: _Stack) -> tuple[Instance, int]:
    ds = ct_header(series, stack)
    ds.update({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "SeriesDescription": "SCOUT", "InstanceNumber": 1})
    x, y, z = stack.grid.origin
    high = round(z + stack.grid.shape[0] * stack.grid.step[2], 4)
    ds.update({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1], "ImagePositionPatient": [x, y, high]})
    ds.GantryDetectorTilt = "0"
    return _native(ds, series, syntax=EXPLICIT)


def _radiograph(series: Series, view: View, *, matrix: int) -> tuple[Instance, int]:
    return _native(radiograph_header(series, (matrix, matrix), view=view), series, syntax=EXPLICIT)


def _native(ds: Dataset, series: Series, *, syntax: str) -> tuple[Instance, int]:
    ds.SOPInstanceUID = series.sop_uid(1)
    ds.add_new(0x7FE00010, "OW", b"")
    return _with_hole(Instance(1, ds.SOPInstanceUID, as_file(ds, syntax=syntax)), 2 * ds.Rows * ds.Columns)


def _with_hole(instance: Instance, n_bytes: int) -> tuple[Instance, int]:
    """Say that pixels follow: the length of the pixel data is the last thing in the file so far."""
    return replace(instance, content=instance.content[:-4] + struct.pack("<L", n_bytes)), n_bytes


@cache
def _constant(syntax: str, shape: tuple[int, int], bits_stored: int, *, is_signed: bool) -> bytes:
    return encode(np.zeros(shape, dtype=np.int16 if is_signed else np.uint16), syntax=syntax, bits_stored=bits_stored)


def _put(path: str, content: bytes, *, hole: int, time_ns: int) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        os.write(handle, content)
        if hole:
            os.ftruncate(handle, len(content) + hole)
            _refuse_full(handle, len(content) + hole)
        os.utime(handle, ns=(time_ns, time_ns))
    finally:
        os.close(handle)


def _refuse_full(handle: int, size: int) -> None:
    """StorageError on a file system that stores holes in full: a million files would take half a terabyte."""
    if os.fstat(handle).st_blocks * 512 > HOLE_SHARE * size:
        raise StorageError("this file system keeps no holes in files: generate `scale` on another one")
