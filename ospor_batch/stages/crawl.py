"""Crawl one center's archives: every file an instance, a typed reject, or waiting until it has arrived."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import polars as pl

from ospor_batch.archive.changes import NEEDED, TRANSIENT, Verdicts, compare, count_moved
from ospor_batch.archive.header import reader_version
from ospor_batch.archive.listing import list_in_folders
from ospor_batch.archive.reading import Listing, part_schema, read_files, refused_row
from ospor_batch.archive.walk import Folder, Listed, partitions
from ospor_batch.compute.executor import Executor
from ospor_batch.config import Study
from ospor_batch.contracts import contract
from ospor_batch.errors import ArchiveError, ItemRefused, LedgerError, StorageError, StudyError
from ospor_batch.stages.crawl_rows import IDENTITY, changes, file_key, identities, keyed, unread
from ospor_batch.stages.listing import Spilled, in_slices
from ospor_batch.stages.summary import Progress, StageSummary
from ospor_batch.store import Store, SweepCounts, Writing, storage_errors, write_rows, write_text

PART_FILES = 2000  # a second of reading from a warm disk, ten from a slow share: what a killed crawl may have to repeat
SLICE_PARTS = 20  # parts turned into rows at once: 40,000 rows, 0.3 GB
NANOSECONDS_PER_MINUTE = 60 * 10**9


@dataclass
class _Tally:
    """Counts of a crawl, summed over groups of buckets."""

    n_new: int = 0
    n_changed: int = 0
    n_vanished: int = 0
    n_unchanged: int = 0
    n_read: int = 0
    waiting: int = 0
    unreadable_folders: int = 0
    files: int = 0
    done: int = 0
    transient: int = 0

    def add(self, other: _Tally) -> None:
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))


@dataclass
class _Crawl:
    """One crawl under way.

    work: per group of buckets its archives and work lists, for groups in which anything differs from the catalog.
    """

    study: Study
    center: str
    store: Store
    key: bytes
    settled_before_ns: int | None
    staging: Path
    listing: Spilled
    tally: _Tally = field(default_factory=_Tally)
    work: dict[range, list[tuple[str, Path]]] = field(default_factory=dict)
    n_gone: int = 0

    def verdicts(self, group: range, *, columns: Sequence[str]) -> tuple[Verdicts, pl.DataFrame]:
        """Verdicts on the files of a group, and what was known of it."""
        known = self.store.current("file", center=self.center, buckets=group, columns=columns, is_sorted=False)
        found = compare(
            self.listing.read(group),
            known,
            reader_version=reader_version(),
            settled_before_ns=self.settled_before_ns,
            hidden=self.listing.hidden,
        )
        return found, known


def crawl(
    study: Study,
    center: str,
    *,
    store: Store,
    executor: Executor,
    key: bytes,
    is_sweep: bool = False,
    progress: Progress | None = None,
) -> StageSummary:
    """Read the files that are new or changed and commit once; a killed crawl goes on where its finished parts end."""
    with store.lock():
        of = _begin(study, center, store=store, key=key, is_sweep=is_sweep)
        of.listing.take(_list(study, center, skip=study.workspace, cache=store.cache, settled_before_ns=of.settled_before_ns))
        for group in of.listing.groups(store.sizes("file", center=center)):
            _compare(of, group)
        with store.writing("crawl", center=center) as writing:
            n_moved = _read_and_write(of, writing, executor=executor, progress=progress)
            writing.finish(_counts(of.tally, n_moved=n_moved))
        with storage_errors():
            shutil.rmtree(of.staging, ignore_errors=True)
    return _summary(center, of.tally, n_moved=n_moved).check()


def read_partition(work_list: str) -> int:
    """Read the files of a work list and write their rows beside it, whole or not at all; runs on a worker."""
    listed = Path(work_list)
    work = json.loads(listed.read_text(encoding="utf-8"))
    rows = read_files(
        [(path, size, mtime) for path, size, mtime in work["files"]], root=work["root"], cache=Path(work["cache"])
    )
    write_rows(rows, target=listed.with_name("rows.parquet"))
    return rows.height


def _begin(study: Study, center: str, *, store: Store, key: bytes, is_sweep: bool) -> _Crawl:
    settled = time.time_ns() - study.sweep.settle_minutes * NANOSECONDS_PER_MINUTE if is_sweep else None
    staging = store.private.absolute() / "staging" / center

    def folder_key(archive: str, folder: str) -> str:
        return file_key(archive, folder, center=center, key=key, kind="folder")

    return _Crawl(study, center, store, key, settled, staging, Spilled(staging / "listing", folder_key=folder_key))


def _list(
    study: Study, center: str, *, skip: Path, cache: Path, settled_before_ns: int | None
) -> Iterator[tuple[str, Folder | Listed]]:
    """Archive and name of every file, as they are found; ArchiveError for a root that is missing or holds nothing."""
    for archive in study.center(center).archives:
        where = f"center {center}: centers.{center}.archives names {archive!r}"
        root = study.archive_root(archive)
        n_files = 0
        try:
            for file in list_in_folders(root, cache=cache, skip=[skip], settled_before_ns=settled_before_ns):
                n_files += len(file.names) if isinstance(file, Folder) else 1
                yield archive, file
        except ArchiveError as error:
            raise ArchiveError(f"{where}: {root}: {error}; nothing was changed") from None
        if n_files == 0:
            raise ArchiveError(f"{where}: {root} holds no file; nothing was changed (is the share mounted?)")


def _refuse_other_key(known: pl.DataFrame, *, center: str, key: bytes) -> None:
    """StudyError when the catalog was written with another pseudonym key: mixed keys would split every patient."""
    for archive, path, known_key in known.head(1).select("archive", "path", "file_key").iter_rows():
        if file_key(archive, path, center=center, key=key) != known_key:
            raise StudyError(
                "study.pseudonym_key: the catalog of this workspace was written with another key; "
                "give that key, or start a new workspace"
            )


def _compare(of: _Crawl, group: range) -> None:
    """Count what is new in a group of buckets and write its work lists."""
    verdicts, known = of.verdicts(group, columns=[*NEEDED, "file_key"])
    _refuse_other_key(known, center=of.center, key=of.key)
    of.tally.add(_found(verdicts))
    of.n_gone += verdicts.vanished.height
    if verdicts.is_quiet:
        return
    of.work[group] = []
    for (archive,), files in verdicts.read.group_by("archive", maintain_order=True):
        root = of.study.archive_root(str(archive))
        # two names of one root must not share their parts
        staging = of.staging / hashlib.sha256(str(archive).encode()).hexdigest()[:8]
        items: list[Listing] = list(files.select("path", "size_bytes", "mtime_ns").iter_rows())
        for run in partitions(files["path"].to_list(), size=PART_FILES):
            of.work[group].append((str(archive), _work_list(items[run], root=root, cache=of.store.cache, staging=staging)))


@dataclass
class _Slice:
    """Parts whose rows are appended together, as soon as all are read; the first of its group brings what needs no reading."""

    group: range
    archives: dict[Path, str]
    is_first: bool
    left: set[Path]


class _Appending:
    """Appends slices of a crawl while others are still being read."""

    def __init__(self, of: _Crawl, writing: Writing) -> None:
        self._of = of
        self._writing = writing
        self._groups: dict[range, tuple[Verdicts, pl.DataFrame]] = {}
        self._left: dict[range, int] = {}
        self._n_fresh: dict[range, int] = {}
        self._gone: list[pl.Series] = []
        self._come: list[pl.Series] = []
        self._slices: dict[Path, _Slice] = {}
        for group, work in of.work.items():
            archives = {path: archive for archive, path in work}
            runs = list(in_slices(list(archives), size=SLICE_PARTS))
            self._left[group], self._n_fresh[group] = len(runs), 0
            for number, parts in enumerate(runs):
                each = _Slice(group, {path: archives[path] for path in parts}, number == 0, set(parts))
                self._slices |= dict.fromkeys(parts, each)
                if not parts:
                    self._append(each)

    def told(self, part: Path) -> None:
        """A part was read."""
        each = self._slices.pop(part)
        each.left.discard(part)
        if not each.left:
            self._append(each)

    def n_moved(self) -> int:
        """How many files were moved; LedgerError when a part was never read."""
        if self._left:
            raise LedgerError(f"crawl: {len(self._left)} groups of folders were not read whole")
        return count_moved(pl.concat(self._gone), pl.concat(self._come)) if self._come and self._gone else 0

    def _append(self, each: _Slice) -> None:
        of = self._of
        if each.group not in self._groups:
            self._groups[each.group] = of.verdicts(each.group, columns=contract("file").columns)
        verdicts, known = self._groups[each.group]
        rows = [
            pl.read_parquet(path.with_name("rows.parquet")).with_columns(archive=pl.lit(archive))
            for path, archive in each.archives.items()
        ]
        fresh = _fresh(of, [*rows, unread(verdicts)] if each.is_first else rows)
        gone = verdicts.vanished if each.is_first else verdicts.vanished.clear()
        if of.n_gone:
            self._gone.append(_identities_of(of, gone))
            new = fresh.filter(pl.col("fate") == "instance").join(known, on="file_key", how="anti")
            self._come.append(identities(new))
        self._writing.append(changes(fresh, known, gone))
        of.tally.add(_judged(fresh))
        self._n_fresh[each.group] += fresh.height
        self._left[each.group] -= 1
        if self._left[each.group] == 0:
            _check(verdicts, n_fresh=self._n_fresh[each.group])
            del self._left[each.group], self._groups[each.group]


def _read_and_write(of: _Crawl, writing: Writing, *, executor: Executor, progress: Progress | None) -> int:
    """Read what must be read and append what differs; return how many files were moved."""
    appending = _Appending(of, writing)
    parts = [path for work in of.work.values() for _, path in work]
    done = [path for path in parts if path.with_name("rows.parquet").is_file()]
    for path in done:
        appending.told(path)
    todo = [str(path) for path in parts if path not in set(done)]
    _work(todo, executor=executor, n_parts=len(parts), progress=progress, told=appending.told)
    return appending.n_moved()


def _fresh(of: _Crawl, rows: list[pl.DataFrame]) -> pl.DataFrame:
    whole = pl.concat([pl.DataFrame(schema={**part_schema(), "archive": pl.String()}), *rows], how="diagonal")
    return keyed(whole, center=of.center, key=of.key, reader_version=reader_version())


def _identities_of(of: _Crawl, vanished: pl.DataFrame) -> pl.Series:
    """What the files that are gone held."""
    gone = vanished.filter(pl.col("fate") == "instance").select("file_key", "series_key")
    held = of.store.current("instance", center=of.center, columns=IDENTITY, among=gone, is_sorted=False)
    return identities(held)


def _work_list(files: Sequence[Listing], *, root: str, cache: Path, staging: Path) -> Path:
    text = json.dumps({"root": root, "cache": str(cache), "reader": reader_version(), "files": files})
    target = staging / hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32] / "files.json"
    if not target.is_file():
        write_text(text, target=target)
    return target


def _work(
    todo: Sequence[str],
    *,
    executor: Executor,
    n_parts: int,
    progress: Progress | None,
    told: Callable[[Path], None] | None = None,
) -> None:
    """Read parts on the executor; told is called with each that is done, here, while others are being read."""
    done = n_parts - len(todo)
    for outcome in executor.map(read_partition, todo):
        if outcome.error == StorageError.__name__:
            raise StorageError("a worker found the disk full; free space and run again: finished parts are kept")
        if outcome.error is not None:
            _bisect(Path(outcome.item), executor=executor)
        if told is not None:
            told(Path(outcome.item))
        done += 1
        if progress is not None:
            progress(done, n_parts)


def _bisect(work_list: Path, *, executor: Executor) -> None:
    """Read a partition that killed its worker in halves, until the poisoned file stands alone as a reject."""
    work = json.loads(work_list.read_text(encoding="utf-8"))
    files = [(path, size, mtime) for path, size, mtime in work["files"]]
    target = work_list.with_name("rows.parquet")
    if len(files) == 1:
        row = refused_row(files[0], ItemRefused("broken_header", "reading it ended the worker"))
        rows = pl.DataFrame([row], schema=part_schema())
    else:
        middle = len(files) // 2
        place = {"root": work["root"], "cache": Path(work["cache"]), "staging": work_list.parent}
        halves = [_work_list(h, **place) for h in (files[:middle], files[middle:])]
        _work([str(half) for half in halves], executor=executor, n_parts=2, progress=None)
        rows = pl.concat([pl.read_parquet(half.with_name("rows.parquet")) for half in halves])
    write_rows(rows, target=target)


def _check(verdicts: Verdicts, *, n_fresh: int) -> None:
    """LedgerError unless every listed file of the group stands in exactly one place."""
    listed = verdicts.read.height + verdicts.refused.height + verdicts.waiting.height
    if listed != n_fresh:
        raise LedgerError(f"crawl: {listed} files were to be judged, but {n_fresh} were")


def _found(verdicts: Verdicts) -> _Tally:
    """Counts that a group's verdicts give before anything is read."""
    fresh = pl.concat([verdicts.read, verdicts.refused, verdicts.waiting])
    is_new, is_same = pl.col("is_known").not_(), pl.col("is_same").fill_null(value=False)
    stay = pl.concat([verdicts.unchanged, verdicts.kept])
    return _Tally(
        n_new=fresh.filter(is_new).height,
        n_changed=fresh.filter(~is_new & ~is_same).height,
        n_vanished=verdicts.vanished.height,
        n_unchanged=stay.height + fresh.filter(~is_new & is_same).height,
        n_read=verdicts.read.height,
        waiting=verdicts.waiting.height,
        unreadable_folders=verdicts.refused.filter("is_folder").height,
        files=stay.height,
        done=stay.filter(pl.col("fate") == "instance").height,
        transient=verdicts.kept.filter(pl.col("reason").is_in(TRANSIENT)).height,
    )


def _judged(fresh: pl.DataFrame) -> _Tally:
    """Counts of files that were judged tonight."""
    is_transient = (pl.col("fate") == "reject") & pl.col("is_transient")
    return _Tally(
        files=fresh.height,
        done=fresh.filter(pl.col("fate") == "instance").height,
        transient=fresh.filter(is_transient).height,
    )


def _counts(tally: _Tally, *, n_moved: int) -> SweepCounts:
    return SweepCounts(
        n_new=tally.n_new - n_moved,
        n_changed=tally.n_changed,
        n_moved=n_moved,
        n_vanished=tally.n_vanished - n_moved,
        n_unchanged=tally.n_unchanged,
        n_read=tally.n_read,
    )


def _summary(center: str, tally: _Tally, *, n_moved: int) -> StageSummary:
    """The whole catalog's ledger; failed: what may succeed on another try."""
    counts = _counts(tally, n_moved=n_moved)
    notes = {
        "new": counts.n_new,
        "changed": counts.n_changed,
        "moved": counts.n_moved,
        "vanished": counts.n_vanished,
        "unchanged": counts.n_unchanged,
        "read": counts.n_read,
        "waiting": tally.waiting,
        "unreadable folders": tally.unreadable_folders,
    }
    excluded = tally.files - tally.done - tally.transient
    return StageSummary("crawl", center, "file", tally.files, tally.done, excluded, tally.transient, tuple(notes.items()))
