"""Files read a second: this reader against compiled and Python readers, and against opening and reading alone.

    python benchmarks/crawl.py --size 20000                             generated archives of three kinds, 1 and 2 processes
    python benchmarks/crawl.py --size 5000 --real ../shared/data/real   and real files
    python benchmarks/crawl.py --size 5000 --json crawl.json

Every reader gives the values of the elements that schemas/instance.yaml names; ours gives them typed, in columns, with the
verdict on the file. Readers take turns, and the best of the rounds counts. Where other work shares the machine, the ratios
of CPU time are what to read; on a quiet one they and the wall clock agree, since all files are in the page cache.
Peers that are not installed are left out (`pip install ospor-batch[bench]`).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydicom.datadict import tag_for_keyword

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from a checkout, by its path

from benchmarks.headers import write_archive
from ospor_batch.archive import partition
from ospor_batch.archive.columns import Columns, is_usual
from ospor_batch.archive.header import SEGMENTATIONS
from ospor_batch.archive.heads import APART, new_block
from ospor_batch.archive.locate import locate
from ospor_batch.archive.opening import header_source
from ospor_batch.archive.reading import Listing, instance_rows, read_files
from ospor_batch.archive.runs import AT_ONCE, NEAR, Runs
from ospor_batch.archive.values import keywords
from ospor_batch.archive.walk import walk
from ospor_batch.store import Store

KEYWORDS = [of.name for of in keywords()]
TAGS = [of.tag for of in keywords()]
READ = 32768  # bytes: the limit that readers are held against
SLOW_FILES = 1000  # for readers below a tenth of the limit: more would take minutes and say the same
PART = 2000


class Rate(NamedTuple):
    """How fast a reader is: files a second by the wall clock, and CPU time a file."""

    files_s: float
    cpu_us: float

    def better(self, other: Rate | None) -> Rate:
        return self if other is None else Rate(max(self.files_s, other.files_s), min(self.cpu_us, other.cpu_us))


Job = Callable[[str, Sequence[Listing]], Any]


def bare(root: str, items: Sequence[Listing]) -> None:
    opened, read, close = os.open, os.read, os.close
    for path, _, _ in items:
        handle = opened(f"{root}/{path}", os.O_RDONLY)
        read(handle, READ)
        close(handle)


def ours(root: str, items: Sequence[Listing]) -> None:
    for begin in range(0, len(items), PART):
        read_files(items[begin : begin + PART], root=root, cache=Path(root) / ".cache")


def ours_walking(root: str, items: Sequence[Listing]) -> None:
    """The same without a memory of layouts."""
    for begin in range(0, len(items), PART):
        part = items[begin : begin + PART]
        quick = partition.read_quickly(_partition(root, part), is_remembering=False)
        instance_rows([part[number] for number in quick.numbers.tolist()], quick.columns)


def ours_placing(root: str, items: Sequence[Listing]) -> None:
    """Every wanted value found, none decoded."""
    memory = partition.layouts()
    for begin in range(0, len(items), PART):
        part = _partition(root, items[begin : begin + PART])
        runs, all_of = Runs(memory.wanted, partition.shapes()), np.arange(len(part.paths))
        for _, heads in partition.blocks(part, all_of, n_bytes=partition.FIRST_BYTES, runs=runs):
            locate(heads, wanted=memory.wanted, memory=memory)


def _partition(root: str, items: Sequence[Listing]) -> partition.Partition:
    paths, sizes = [path for path, _, _ in items], [size for _, size, _ in items]
    source = header_source(root, list(zip(paths, sizes, strict=True)), cache=Path(root) / ".cache")
    return partition.Partition(paths, sizes, source, partition.names_on_disk(paths, root=root))


def by_pydicom(root: str, items: Sequence[Listing]) -> None:
    import pydicom

    for path, _, _ in items:
        found = pydicom.dcmread(f"{root}/{path}", stop_before_pixels=True, force=True, specific_tags=list(TAGS))
        [found[tag].value if tag in found else None for tag in TAGS]


def by_fastdicom(root: str, items: Sequence[Listing]) -> None:
    import fastdicom

    for path, _, _ in items:
        found = fastdicom.dcmread(f"{root}/{path}", stop_before_pixels=True)
        [found.get(keyword, None) for keyword in KEYWORDS]


def by_fw_file(root: str, items: Sequence[Listing]) -> None:
    from fw_file_rs.dcm import Context

    context = Context().include_tags(list(KEYWORDS))
    for path, _, _ in items:
        context.parse_header(context.read_until_pixels(f"{root}/{path}"))


def by_gdcm(root: str, items: Sequence[Listing]) -> None:
    import gdcm

    wanted = [gdcm.Tag(tag >> 16, tag & 0xFFFF) for tag in TAGS]
    tags = gdcm.TagSetType()
    for tag in wanted:
        tags.insert(tag)
    for path, _, _ in items:
        reader = gdcm.Reader()
        reader.SetFileName(f"{root}/{path}")
        if not reader.ReadSelectedTags(tags):
            continue
        found, text = reader.GetFile().GetDataSet(), gdcm.StringFilter()
        text.SetFile(reader.GetFile())
        [text.ToString(tag) if found.FindDataElement(tag) else None for tag in wanted]


def by_simpleitk(root: str, items: Sequence[Listing]) -> None:
    import SimpleITK

    wanted = [f"{tag >> 16:04x}|{tag & 0xFFFF:04x}" for tag in TAGS]
    for path, _, _ in items:
        reader = SimpleITK.ImageFileReader()
        reader.SetFileName(f"{root}/{path}")
        reader.SetImageIO("GDCMImageIO")
        reader.ReadImageInformation()
        [reader.GetMetaData(key) if reader.HasMetaDataKey(key) else None for key in wanted]


READERS: dict[str, tuple[Job, str | None]] = {
    "open + read 32 KB": (bare, None),
    "ours, typed columns": (ours, None),
    "ours, no memory of layouts": (ours_walking, None),
    "ours, places only": (ours_placing, None),
    "fastdicom": (by_fastdicom, "fastdicom"),
    "fw-file-rs": (by_fw_file, "fw_file_rs"),
    "pydicom, specific_tags": (by_pydicom, None),
    "gdcm, selected tags": (by_gdcm, "gdcm"),
    "SimpleITK": (by_simpleitk, "SimpleITK"),
}
SLOW = {"fastdicom", "fw-file-rs", "pydicom, specific_tags", "gdcm, selected tags", "SimpleITK"}
LIMIT, PEER, ORACLE = "open + read 32 KB", "fastdicom", "pydicom, specific_tags"
SHORTEST = "lengths change from file to file"  # read by the fast ones alone: the slow ones do not care


def one_process(root: str, items: Sequence[Listing], *, rounds: int, names: Sequence[str]) -> dict[str, Rate]:
    """Each reader's best round."""
    best: dict[str, Rate] = {}
    for _ in range(rounds):
        for name in names:
            some = items[:SLOW_FILES] if name in SLOW else items
            began, used = time.perf_counter(), time.process_time()
            READERS[name][0](root, some)
            rate = Rate(len(some) / (time.perf_counter() - began), 1e6 * (time.process_time() - used) / len(some))
            best[name] = rate.better(best.get(name))
    return best


def _quietly(name: str, root: str, items: Sequence[Listing]) -> float:
    """Read; the CPU seconds that it took."""
    used = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        READERS[name][0](root, items)
    return time.process_time() - used


def two_processes(root: str, items: Sequence[Listing], *, rounds: int, names: Sequence[str]) -> dict[str, Rate]:
    """The same of two processes, started and warm before the clock runs."""
    best: dict[str, Rate] = {}
    parts = [items[begin : begin + PART] for begin in range(0, len(items), PART)]
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        for name in names:
            list(pool.map(_quietly, [name] * 4, [root] * 4, [items[:200]] * 4))
        for _ in range(rounds):
            for name in names:
                began = time.perf_counter()
                used = sum(pool.map(_quietly, [name] * len(parts), [root] * len(parts), parts))
                rate = Rate(len(items) / (time.perf_counter() - began), 1e6 * used / len(items))
                best[name] = rate.better(best.get(name))
    return best


def where_time_goes(root: str, folder: Path, *, rounds: int) -> dict[str, float]:
    """Microseconds a file from the folder to a committed row, by step."""
    from deltalake import write_deltalake

    best: dict[str, float] = {}
    for number in range(rounds):
        spent: dict[str, float] = defaultdict(float)
        clock = _Clock(spent)
        items = [(found.path, found.size_bytes, found.mtime_ns) for found in walk(Path(root)) if found.refusal is None]
        clock.tick("walk")
        frames, hot = [], new_block(AT_ONCE, n_bytes=partition.FIRST_BYTES)
        for begin in range(0, len(items), PART):
            part = items[begin : begin + PART]
            columns, numbers = _timed_columns(_partition(root, part), hot, clock)
            frames.append(instance_rows([part[number] for number in numbers], columns.series()))
            clock.tick("columns (Arrow)")
        whole = pl.concat(frames)
        clock.skip()
        write_deltalake(str(folder / f"delta-{number}"), whole.to_arrow())
        clock.tick("Delta commit")
        for name, seconds in spent.items():
            each = 1e6 * seconds / len(items)
            best[name] = min(best.get(name, each), each)
    return best


def _timed_columns(files: partition.Partition, hot: NDArray[np.uint8], clock: _Clock) -> tuple[Columns, list[int]]:
    """Read a partition as `read_quickly` does; its columns, and the numbers of the files in them."""
    memory, n, n_bytes, at = partition.layouts(), len(files.paths), partition.FIRST_BYTES, 0
    columns, runs, aside, numbers = Columns(memory.wanted), Runs(memory.wanted, partition.shapes()), [], []
    while at < n:
        some = np.arange(at, min(at + AT_ONCE, n))
        at += AT_ONCE
        heads = files.heads(some, n_bytes=n_bytes, block=hot)
        clock.tick("open and read")
        left = runs.take(heads, some, apart=n_bytes + APART, is_last=at >= n)
        if at < n and 0 < len(left) < NEAR and left[0] + len(left) == len(some):
            at -= len(left)
        else:
            aside.append(some[left])
        clock.tick("find the values")
    if (rest := np.concatenate(aside)).size:
        heads = files.heads(rest, n_bytes=n_bytes, block=None)
        clock.tick("open and read")
        found = locate(heads, wanted=memory.wanted, memory=memory)
        clock.tick("find the values")
        rows = np.flatnonzero(is_usual(heads, found, wanted=memory.wanted))
        numbers += rest[columns.add(heads, found, rows=rows)].tolist() if rows.size else []
    if runs.segments:
        numbers += columns.add_runs(runs.segments).tolist()
    columns.is_sound(others=SEGMENTATIONS)
    clock.tick("decode")
    return columns, numbers


def whole_crawl(root: str, folder: Path, *, n: int, rounds: int) -> Rate:
    """The crawl stage over a new archive, from the walk to the committed rows of all its tables."""
    from benchmarks.sweep import crawl, study_of

    best: Rate | None = None
    for number in range(rounds):
        study = study_of(folder / f"study-{number}", archive=root)
        began, used = time.perf_counter(), time.process_time()
        crawl(study, Store(study.workspace))
        spent, used = time.perf_counter() - began, time.process_time() - used
        best = Rate(n / spent, 1e6 * used / n).better(best)
    assert best is not None
    return best


class _Clock:
    def __init__(self, spent: dict[str, float]) -> None:
        self._spent, self._last = spent, time.perf_counter()

    def tick(self, name: str) -> None:
        now = time.perf_counter()
        self._spent[name] += now - self._last
        self._last = now

    def skip(self) -> None:
        self._last = time.perf_counter()


def table(title: str, rates: dict[str, Rate], *, processes: int) -> None:
    """Rates, and how CPU time stands to the limit's, to the best compiled peer's and to pydicom's."""
    print(f"\n{title}, {processes} process{'es' if processes > 1 else ''}")
    print(f"{'reader':<28}{'files/s':>10}{'CPU us':>9}{'of limit':>10}{'(CPU)':>8}{'x fastdicom':>13}{'x pydicom':>11}")
    for name, rate in rates.items():
        share = rate.files_s / rates[LIMIT].files_s
        others = [rates[other].cpu_us / rate.cpu_us if other in rates else float("nan") for other in (LIMIT, PEER, ORACLE)]
        told = f"{others[0]:>8.2f}{others[1]:>13.1f}{others[2]:>11.1f}"
        print(f"{name:<28}{rate.files_s:>10,.0f}{rate.cpu_us:>9.1f}{share:>10.2f}{told}")


def main() -> None:
    """Write the archives, run every reader, print the tables."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--size", type=int, default=20_000, help="files of the generated archive in folder order")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--real", type=Path, help="a folder of real files")
    options.add_argument("--folder", type=Path, help="where archives are written and kept; a temporary one otherwise")
    options.add_argument("--json", type=Path)
    told = options.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        report = run(told, told.folder or Path(temporary), scratch=Path(temporary))
    if told.json:
        told.json.write_text(json.dumps(report, indent=1))


def run(told: argparse.Namespace, folder: Path, *, scratch: Path) -> dict[str, Any]:
    names = [name for name, (_, module) in READERS.items() if module is None or importlib.util.find_spec(module)]
    report: dict[str, Any] = {"size": told.size, "keywords": len(KEYWORDS)}
    archives: dict[str, tuple[Path, bool]] = {}
    write_archive(folder / "series", told.size, per_series=200)
    write_archive(folder / "hostile", told.size // 2, per_series=20, is_hostile=True)
    write_archive(folder / "shortest", told.size // 4, per_series=200, is_shortest=True)
    archives["series in folder order"] = (folder / "series", False)
    archives[SHORTEST] = (folder / "shortest", False)
    archives["hostile to layouts, shuffled"] = (folder / "hostile", True)
    if told.real:
        archives["real files"] = (told.real, False)
    warnings.simplefilter("ignore")
    for title, (root, is_shuffled) in archives.items():
        items = [(x.path, x.size_bytes, x.mtime_ns) for x in walk(root) if x.refusal is None and "whole-" not in x.path]
        if is_shuffled:
            random.Random(3).shuffle(items)
        if told.real == root:  # readers that stop at what is no DICOM take part only in the files that all of them read
            items = [item for item in items if _is_read_by_all(str(root), item, names)] * 10
        bare(str(root), items)
        some = [name for name in names if name not in SLOW or title != SHORTEST or name == PEER]
        rates = one_process(str(root), items, rounds=told.rounds, names=some)
        table(f"{title} ({len(items):,} files)", rates, processes=1)
        report[title] = {"1": {name: rate._asdict() for name, rate in rates.items()}}
        if len(items) >= 2 * PART and title != SHORTEST:
            two = two_processes(str(root), items, rounds=told.rounds, names=[LIMIT, "ours, typed columns", PEER])
            table(f"{title} ({len(items):,} files)", two, processes=2)
            report[title]["2"] = {name: rate._asdict() for name, rate in two.items()}
    spent = where_time_goes(str(folder / "series"), scratch, rounds=min(told.rounds, 3))
    print("\nfrom file to committed row, us/file: " + ", ".join(f"{k} {v:.1f}" for k, v in spent.items()))
    print(f"sum {sum(spent.values()):.1f}")
    rates = report["series in folder order"]["1"]
    whole = whole_crawl(str(folder / "series"), scratch, n=told.size, rounds=min(told.rounds, 3))
    held = {name: rates[name]["cpu_us"] / whole.cpu_us for name in (LIMIT, ORACLE) if name in rates}
    print(f"whole crawl: {whole.files_s:,.0f} files/s, {whole.cpu_us:.1f} us of CPU a file")
    print("; ".join(f"{share:.2f} x {name}" for name, share in held.items()))
    return report | {"steps_us": spent, "whole_crawl": whole._asdict() | {"shares": held}}


def _is_read_by_all(root: str, item: Listing, names: Sequence[str]) -> bool:
    try:
        for name in names:
            READERS[name][0](root, [item])
    except Exception:  # noqa: BLE001 -- the peers raise errors of any kind; such a file is in nobody's round
        return False
    return partition.read_quickly(_partition(root, [item])).numbers.size == 1


if __name__ == "__main__":
    assert all(tag_for_keyword(keyword) for keyword in KEYWORDS)
    main()
