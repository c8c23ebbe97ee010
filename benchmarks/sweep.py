# ruff: noqa: B023 -- what is timed is called at once
"""What a night costs: a sweep with nothing new, the memory of a large listing, 200 nights of tables, and workers beside it.

python benchmarks/sweep.py quiet --size 100000      tree of small DICOM files: first crawl, then nothing new, against find
python benchmarks/sweep.py quiet --archive FOLDER   the same over files that are there already
python benchmarks/sweep.py memory --size 10000000   listing that is generated, over as many known files; no file is made
python benchmarks/sweep.py nights --size 200        nights of new files, with and without merging and deleting
python benchmarks/sweep.py share --size 20000       crawl against bare open and read, in one process and with workers
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import polars as pl

from ospor_batch.archive.header import reader_version
from ospor_batch.archive.walk import Folder
from ospor_batch.compute.cluster import open_executor
from ospor_batch.compute.executor import InLine
from ospor_batch.config import Compute, Study
from ospor_batch.contracts.table import schema_of
from ospor_batch.runs import tidy
from ospor_batch.stages import crawl as stage
from ospor_batch.stages.catalog import catalog
from ospor_batch.stages.crawl_rows import file_keys
from ospor_batch.store import Change, Store, SweepCounts, write_data

KEY, SPLIT_KEY = b"benchmark-key-0123456789", b"benchmark-split-key-0123"
PER_FOLDER = 200
MARK = b"9" * 12  # digits of the UIDs that are replaced in every file
Rows = list[dict[str, Any]]
SPAWN = multiprocessing.get_context("spawn")


def study_of(folder: Path, *, archive: str = "archive") -> Study:
    told = {
        "study": {"name": "benchmark", "pseudonym_key": {"env": "OSPOR_KEY"}},
        "centers": [{"name": "north", "archives": [archive]}],
        "references": [{"id": "dxa", "standard": "dxa_who"}],
        "recipes": [{"name": "mean_hu", "reference": "dxa", "threshold": {"fixed": 110}}],
    }
    return Study.model_validate(told).model_copy(update={"folder": folder})


def template() -> bytes:
    """A CT slice of 8 x 8 pixels with the elements that the catalog reads; the same length for every UID."""
    import pydicom
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    ds = Dataset()
    root = "1.2.826.0.1.3680043.10.77"
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, f"{root}.1{MARK.decode()}"
    ds.SeriesInstanceUID, ds.StudyInstanceUID = f"{root}.2{MARK.decode()}", f"{root}.3{MARK.decode()}"
    ds.FrameOfReferenceUID, ds.PatientID = f"{root}.4{MARK.decode()}", f"P{MARK.decode()}"
    ds.Modality, ds.Manufacturer, ds.ConvolutionKernel, ds.KVP = "CT", "SIEMENS", "B30f", 120
    ds.ImageType, ds.PatientSex, ds.PatientBirthDate = ["ORIGINAL", "PRIMARY", "AXIAL"], "F", "19600615"
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = "20220615"
    ds.BodyPartExamined, ds.SeriesDescription, ds.SliceThickness = "ABDOMEN", "Abdomen 5.0", 5
    ds.InstanceNumber, ds.ImagePositionPatient, ds.ImageOrientationPatient = 1, [0, 0, 0], [1, 0, 0, 0, 1, 0]
    ds.Rows = ds.Columns = 8
    ds.PixelSpacing, ds.SamplesPerPixel, ds.PhotometricInterpretation = [0.8, 0.8], 1, "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation, ds.RescaleIntercept, ds.RescaleSlope = 15, 0, -1024, 1
    ds.add_new("PixelData", "OW", bytes(128))
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = CTImageStorage, ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, ds, enforce_file_format=True)
    return buffer.getvalue()


def file_of(pattern: bytes, number: int) -> bytes:
    """The file of one number: UIDs of series, study and person are shared by PER_FOLDER files."""
    instance, series = b"%012d" % number, b"%012d" % (number // PER_FOLDER)
    shared = pattern.replace(b".1" + MARK, b".1" + instance)
    return shared.replace(MARK, series)


def make_tree(root: Path, n: int) -> None:
    pattern = template()
    for first in range(0, n, PER_FOLDER):
        folder = root / f"p{first // PER_FOLDER // 8:06d}" / f"s{first // PER_FOLDER % 8}"
        folder.mkdir(parents=True)
        for number in range(first, min(n, first + PER_FOLDER)):
            (folder / f"IM{number % PER_FOLDER:06d}.dcm").write_bytes(file_of(pattern, number))


def cpu_s() -> float:
    """CPU seconds of this process and of those that it has waited for."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def timed(call: Callable[[], Any]) -> tuple[float, float]:
    """Wall clock and CPU seconds."""
    started, used = time.perf_counter(), cpu_s()
    call()
    return time.perf_counter() - started, cpu_s() - used


def peak_gib() -> float:
    """Most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def crawl(study: Study, store: Store, **more: Any) -> None:
    stage.crawl(study, "north", store=store, key=KEY, **({"executor": InLine()} | more))


def quiet(size: int, folder: Path, *, archive: Path | None = None) -> Rows:
    """First crawl and catalog of a tree, then a sweep that finds nothing new, against find -printf.

    In a folder that was crawled before (--keep) only the sweeps are measured.
    """
    root = archive or folder / "archive"
    study = study_of(folder, archive=str(root))
    store = Store(study.workspace)
    told: Rows = []

    def note(what: str, seconds: float, cpu: float, **more: Any) -> None:
        told.append({"what": what, "files": size, "seconds": seconds, "cpu_s": cpu, "files_per_s": size / seconds} | more)
        print(f"{what}: {seconds:.2f} s, {cpu:.2f} s of CPU", file=sys.stderr, flush=True)

    def catalogued() -> None:
        catalog(study, "north", store=store, key=KEY, split_key=SPLIT_KEY)

    find = ["find", str(root), "-printf", "%s %T@ %p\\n"]

    def listed() -> None:
        subprocess.run(find, stdout=subprocess.DEVNULL, check=True)

    is_first = store.sweeps().height == 0
    if is_first:
        if archive is None:
            make_tree(root, size)
        first = timed(lambda: crawl(study, store))
        size = store.sweeps()["n_new"][-1]
        note("first crawl", *first, peak_gib=peak_gib())
        # the night after a crawl compares every file once more; the nights after that only what folders are listed as
        second = timed(lambda: crawl(study, store, is_sweep=True))
        note("the first sweep, nothing new", *second)
    size = store.current("file", center="north", columns=["size_bytes"]).height
    # in turn, so that both see the same neighbours
    pairs = [(timed(listed), timed(lambda: crawl(study, store, is_sweep=True))) for _ in range(4)]
    peer, ours = (tuple(map(min, zip(*times, strict=True))) for times in zip(*pairs, strict=True))
    note("find -printf", *peer)
    note("sweep, nothing new", *ours)
    for row in told:
        if "sweep" in row["what"]:
            row |= {"ratio": row["seconds"] / peer[0], "cpu_ratio": row["cpu_s"] / peer[1], "limit": 2.0}
    if is_first:
        note("first catalog", *timed(catalogued), peak_gib=peak_gib())
        tidy(store)
        note("catalog, nothing new", *timed(catalogued))
    return told


def generated(n: int, *, first: int = 0) -> Iterator[Folder]:
    """Folders of n files, as a walk tells them; without those before the first."""
    for begin in range(first - first % PER_FOLDER, n, PER_FOLDER):
        series, numbers = begin // PER_FOLDER, range(max(first, begin), min(n, begin + PER_FOLDER))
        path = f"patient-{series // 8:07d}/study-{series // 4 % 2}/series-{series % 4:04d}"
        names = [f"IM{number % PER_FOLDER:06d}.dcm" for number in numbers]
        yield Folder(path, names, [526_000] * len(names), [1_650_000_000_000_000_000 + number for number in numbers])


def known_rows(folders: list[Folder], version: str) -> pl.DataFrame:
    paths = [f"{folder.path}/{name}" for folder in folders for name in folder.names]
    keys = file_keys([("archive", folder.path) for folder in folders], center="north", key=KEY, kind="folder")
    columns = {
        "file_key": file_keys([("archive", path) for path in paths], center="north", key=KEY),
        "path": paths,
        "folder_key": [key for folder, key in zip(folders, keys, strict=True) for _ in folder.names],
        "size_bytes": [size for folder in folders for size in folder.sizes],
        "mtime_ns": [mtime for folder in folders for mtime in folder.mtimes_ns],
    }
    told = {"center": "north", "archive": "archive", "fate": "reject", "reason": "not_dicom", "reader_version": version}
    rows = pl.DataFrame(columns).with_columns(
        **{name: pl.lit(value) for name, value in told.items()},
        series_key=pl.lit(None, pl.String),
        content_digest=pl.lit(None, pl.String),
    )
    return rows.select(schema_of("file").names())


def fill(folder: Path, size: int) -> None:
    """Write what is known of the generated listing, as a first crawl would have left it."""
    store = Store(study_of(folder).workspace)
    with store.writing("crawl", center="north") as writing:
        folders = generated(size)
        while chunk := list(itertools.islice(folders, 500_000 // PER_FOLDER)):
            writing.append({"file": Change(known_rows(chunk, reader_version()))})
        writing.finish(SweepCounts())


def memory(size: int, folder: Path) -> Rows:
    """A sweep over a generated listing, all of it known; and one that finds all of it new, as far as its work lists."""
    rows: Rows = []
    for what in ("all known", "all new, until read"):
        place = folder / what.split(",")[0].replace(" ", "-")
        place.mkdir()
        if what == "all known":
            in_process("fill", size, place)
        rows.append({"what": f"sweep, {what}", "files": size, "limit_gib": 1.0} | in_process("measure", size, place))
    return rows


def measure(folder: Path, size: int) -> dict[str, float]:
    study = study_of(folder)
    (folder / "archive").mkdir()
    stage._list = lambda *_, **__: (("archive", item) for item in generated(size))
    before = peak_gib()

    class Ended(BaseException):
        pass

    class Never(InLine):
        def map(self, _: Any, items: Any) -> Any:
            if list(items):
                raise Ended
            return iter(())

    def swept() -> None:
        with contextlib.suppress(Ended):
            crawl(study, Store(study.workspace), executor=Never())

    told = {"seconds": timed(swept)[0]}
    if Store(study.workspace).sweeps().height:  # the night after compares what the folders are listed as
        told["again_s"] = timed(swept)[0]
    return told | {"peak_gib": peak_gib(), "before_gib": before}


def in_process(what: str, size: int, folder: Path) -> dict[str, float]:
    """Run in a process of its own, so that its peak of memory is its own."""
    said = subprocess.run(
        [sys.executable, __file__, what, "--size", str(size), "--folder", str(folder)],
        check=True,
        capture_output=True,
        text=True,
    )
    return dict(json.loads(said.stdout or "{}"))


def nights(size: int, folder: Path) -> Rows:
    """Nights of 40 new files over 20,000 known ones, with a run kept every 30 nights; with and without tidying up."""
    rows: Rows = []
    for is_tidy in (False, True):
        store = Store(folder / f"tidy-{is_tidy}")
        put(store, 0, 20_000)
        kept: list[dict[str, int]] = []
        commits, merges = list[tuple[float, float]](), list[tuple[float, float]]()
        for night in range(1, size + 1):
            commits.append(timed(lambda: put(store, 20_000 + 40 * night, 40)))
            if night % 30 == 0:
                kept.append(store.snapshot())
            if is_tidy:
                merges.append(timed(lambda: tidied(store, kept)))
            if night in {1, 20, size // 4, size // 2, size}:
                rows.append(state(store, night, is_tidy=is_tidy) | mean("commit", commits[-10:]))
                rows[-1] |= mean("tidying", merges) if merges else {}
        for snapshot in kept:
            assert store.current("file", snapshot=snapshot).height > 20_000
    return rows


def tidied(store: Store, kept: Rows) -> None:
    if store.compact():
        store.vacuum(keep=kept, grace_hours=0)


def mean(what: str, times: list[tuple[float, float]]) -> dict[str, float]:
    seconds, cpu = (sum(each) / len(times) for each in zip(*times, strict=True))
    return {f"{what}_s": seconds, f"{what}_cpu_s": cpu}


def put(store: Store, first: int, n: int) -> None:
    """Commit new files as a crawl does: as data files that the tables take as they are."""
    rows = known_rows(list(generated(first + n, first=first)), "1")
    told = {"stage": "crawl", "level": "file", "scope": "archive", "detail": "", "is_transient": False}
    rejects = rows.with_columns(item_key="file_key", **{name: pl.lit(value) for name, value in told.items()})
    changes = {"file": Change(rows), "reject": Change(rejects.select(schema_of("reject").names()))}
    with store.writing("crawl", center="north") as writing, tempfile.TemporaryDirectory(dir=store.workspace) as made:
        for table, change in changes.items():
            target = Path(made, table)
            writing.adopt({table: [(target, write_data(table, change, number=writing.number, target=target))]})
        writing.finish(SweepCounts(n_new=n))


def state(store: Store, night: int, *, is_tidy: bool) -> dict[str, Any]:
    data = [path for path in store.workspace.rglob("*.parquet") if path.parent.name != "_delta_log"]
    logs = list(store.workspace.rglob("_delta_log/*"))
    times = [timed(lambda: store.current("file", center="north")) for _ in range(5)]
    read = [min(each) for each in zip(*times, strict=True)]
    return {
        "what": "tidied up" if is_tidy else "left alone",
        "night": night,
        "read_all_s": read[0],
        "read_all_cpu_s": read[1],
        "snapshot_s": min(timed(store.snapshot)[0] for _ in range(3)),
        "data_files": len(data),
        "log_files": len(logs),
        "mb": sum(path.stat().st_size for path in [*data, *logs]) / 1e6,
    }


def bare(paths: list[str]) -> int:
    n = 0
    for path in paths:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 -- the bare system calls are what is measured
            n += len(file.read(16_384))
    return n


def share(size: int, folder: Path) -> Rows:
    """Crawl of new files against bare open and read of the same: in one process and thread, and with workers beside it."""
    root = folder / "archive"
    make_tree(root, size)
    rows = []
    for workers in (0, 1, 2):
        # a process of its own, since threads are counted when it starts; with workers it is as any crawl
        os.environ["POLARS_MAX_THREADS"] = "1" if workers == 0 else str(os.cpu_count())
        with ProcessPoolExecutor(1, mp_context=SPAWN) as pool:
            rows.append(pool.submit(share_of, size, folder, workers).result())
    for row in rows[1:]:
        row["share_kept"] = row["share"] / rows[0]["share"]
    return rows


def share_of(size: int, folder: Path, workers: int) -> dict[str, Any]:
    """Best of five turns; workers: of a local cluster, 0: in line."""
    paths = [str(path) for path in sorted((folder / "archive").rglob("*.dcm"))]
    n, study = max(1, workers), study_of(folder)
    halves = [paths[i::n] for i in range(n)]
    compute = Compute(cluster="local", workers=workers) if workers else Compute(cluster="in_line")
    with SPAWN.Pool(n) as pool, open_executor(compute) as executor:
        pool.map(bare, [[]] * n)
        turns = []
        for turn in range(6):  # the first warms workers up
            read, _ = timed(lambda: pool.map(bare, halves))
            store = Store(folder / f"workspace-{workers}-{turn}")
            turns.append((read, *timed(lambda: crawl(study, store, executor=executor))))
    peer, ours, cpu = (min(times) for times in zip(*turns[1:], strict=True))
    what = f"crawl by {workers} workers" if workers else "crawl in one process"
    told = {"what": what, "files": size, "seconds": ours, "cpu_here_s": cpu, "files_per_s": size / ours}
    return told | {"bare_files_per_s": size / peer, "share": peer / ours}


def show(rows: Rows) -> None:
    with pl.Config(tbl_rows=-1, tbl_cols=-1, tbl_width_chars=180, float_precision=3, tbl_hide_dataframe_shape=True):
        print(pl.DataFrame(rows, infer_schema_length=None).drop("before_gib", strict=False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["quiet", "memory", "nights", "share", "fill", "measure"])
    parser.add_argument("--size", type=int, default=None)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--archive", type=Path, help="quiet: a folder of files that is there already")
    parser.add_argument("--keep", type=Path, help="quiet: work here and leave it; there again, only sweeps are measured")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.what == "fill":
        fill(given.folder, given.size)
        return
    if given.what == "measure":
        print(json.dumps(measure(given.folder, given.size)))
        return
    defaults = {"quiet": 100_000, "memory": 1_000_000, "nights": 200, "share": 20_000}
    work: Callable[..., Rows] = {"quiet": quiet, "memory": memory, "nights": nights, "share": share}[given.what]
    with tempfile.TemporaryDirectory(dir=os.environ.get("OSPOR_BENCHMARK_DIR")) as made:
        folder = given.keep.absolute() if given.keep else Path(made)
        folder.mkdir(parents=True, exist_ok=True)
        more = {"archive": given.archive.absolute()} if given.archive is not None and given.what == "quiet" else {}
        rows = work(given.size or defaults[given.what], folder, **more)
    show(rows)
    if given.json is not None:
        given.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
