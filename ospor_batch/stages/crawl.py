"""Crawl one center's archives: every file an instance, a typed reject, or waiting until it has arrived."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl

from ospor_batch.archive.ahead import Identity
from ospor_batch.archive.changes import NEEDED, Verdicts, compare
from ospor_batch.archive.header import reader_version
from ospor_batch.archive.listing import list_in_folders
from ospor_batch.archive.presence import presence, refuse_gone
from ospor_batch.archive.reading import Listing, part_schema, read_files, refused_row
from ospor_batch.archive.walk import Folder, Listed, partitions
from ospor_batch.compute.executor import Executor
from ospor_batch.config import Study
from ospor_batch.contracts import contract
from ospor_batch.contracts.table import empty
from ospor_batch.errors import ArchiveError, ItemRefused, StorageError, StudyError
from ospor_batch.stages.crawl_appending import Appending
from ospor_batch.stages.crawl_counts import Tally, as_they_were, counted, crawl_summary, instance_archives, sweep_counts
from ospor_batch.stages.crawl_parts import FILES, ROWS, Part, cut, is_finished
from ospor_batch.stages.crawl_progress import Watch
from ospor_batch.stages.crawl_rows import file_key, unread
from ospor_batch.stages.lent_key import borrowed, lent, mark_of
from ospor_batch.stages.listing import Spilled, as_found
from ospor_batch.stages.same_folders import Group, SameFolders
from ospor_batch.stages.summary import Progress, StageSummary
from ospor_batch.store import Store, Writing, read_staged, storage_errors, write_staged, write_text

PART_FILES = 2000  # a second of reading from a warm disk, ten from a slow share: what a killed crawl may have to repeat
FIRST_TIMES = 4  # as long may parts of a first crawl become: each costs as much as 400 to 1,000 files, whatever it holds
SLICE_PARTS = 20  # parts turned into rows at once: 40,000 rows, 0.3 GB
TABLES = ("file", "instance", "reject")  # that a part fills
NOW = "now.json"  # of the crawl under way: the number of its commit, and where the key is lent
NANOSECONDS_PER_MINUTE = 60 * 10**9


@dataclass
class Crawl:
    """One crawl under way.

    found: what is listed, about a part at a time, where nothing of the center is known: all of it is new;
    new: archives and work lists of files that are not known; work: per group of buckets those of the other files that must
    be read, for groups in which anything else differs from the catalog; held: the verdicts on the first of these groups if
    it is new, so that a small archive is compared once; emptied: instances that went, by archive; alive: archives that still
    hold one; begun: how each archive is named in errors, its root, and what tells that from another in its place.
    """

    study: Study
    center: str
    store: Store
    key: bytes
    settled_before_ns: int | None
    reader: str
    staging: Path
    listing: Spilled
    same: SameFolders
    watch: Watch
    tally: Tally = field(default_factory=Tally)
    found: Iterator[pl.DataFrame] | None = None
    new: list[tuple[str, Path]] = field(default_factory=list)
    work: dict[Group, list[tuple[str, Path]]] = field(default_factory=dict)
    held: dict[Group, tuple[Verdicts, pl.DataFrame]] = field(default_factory=dict)
    n_gone: int = 0
    emptied: Counter[str] = field(default_factory=Counter)
    alive: set[str] = field(default_factory=set)
    begun: list[tuple[str, str, Identity | None]] = field(default_factory=list)

    def verdicts(self, group: Group, *, listing: pl.DataFrame, columns: Sequence[str]) -> tuple[Verdicts, pl.DataFrame]:
        """Verdicts on the files of a group, and what was known of it; folders that are as they were are not compared."""
        known = self.store.current("file", center=self.center, buckets=group, columns=columns, is_sorted=False)
        seen = self.same.seen(group)
        found = compare(
            listing,
            known.join(seen, on="folder_key", how="anti", maintain_order="left") if seen.height else known,
            reader_version=self.reader,
            settled_before_ns=self.settled_before_ns,
            hidden=self.listing.hidden,
        )
        if seen.height:
            same = known.join(seen, on="folder_key", how="semi", maintain_order="left")
            found = replace(found, unchanged=pl.concat([found.unchanged, same]))
        return found, known

    def work_list(self, files: pl.DataFrame, *, is_new: bool) -> Path:
        """The work list of some files of one archive."""
        archive = str(files["archive"][0])
        # two names of one root must not share their parts
        staging = self.staging / hashlib.sha256(archive.encode()).hexdigest()[:8]
        work = {
            "root": self.study.archive_root(archive), "cache": str(self.store.cache), "reader": self.reader,
            "center": self.center, "archive": archive, "is_new": is_new, "now": str(self.staging / NOW),
            # parts that a killed crawl made are of no use to one with another key or other columns
            "key": mark_of(self.key), "contracts": [contract(table).digest for table in TABLES],
        }  # fmt: skip
        target = _work_list(files, work=work, staging=staging)
        self.watch.expect(target, n_files=files.height)
        return target

    def last_commit(self) -> list[object]:
        """What names the commit that gave the center its files."""
        row = self.store.last_commit("crawl", center=self.center) or {}
        return [row.get("sweep_number"), row.get("finished_at")]


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
        of = _begin(study, center, store=store, key=key, is_sweep=is_sweep, watch=Watch(progress))
        of.same.open(of.last_commit())
        listed = of.watch.listing(_list(of))
        sizes = store.sizes("file", center=center)
        if any(sizes):
            of.listing.take(listed)
            quiet = of.same.quiet(of.listing.sizes)
            of.tally.add(as_they_were(quiet))
            of.watch.note("comparing with the catalog")
            for group in of.listing.groups(sizes, quiet=quiet["number"].to_list()):
                _compare(of, group, is_new=not any(sizes[number] for number in group))
            of.watch.all_found()
        else:
            of.found = as_found(listed, size=2 * PART_FILES)
        with store.writing("crawl", center=center) as writing:
            n_moved = _read_and_write(of, writing, executor=executor)
            _refuse_gone(of)
            _refuse_emptied(of)
            writing.finish(sweep_counts(of.tally, n_moved=n_moved))
        of.same.keep(of.last_commit())
        with storage_errors():
            shutil.rmtree(of.staging, ignore_errors=True)
    return crawl_summary(center, of.tally, n_moved=n_moved).check()


def read_partition(work_list: str) -> int:
    """Read the files of a work list and write their rows beside it, whole or not at all; runs on a worker.

    Rows of new files are written as the catalog takes them where the key is lent to this process, and without keys elsewhere.
    """
    listed = Path(work_list)
    work = json.loads(listed.read_text(encoding="utf-8"))
    items: list[Listing] = list(read_staged(listed.with_name(FILES)).iter_rows())
    rows = read_files(items, root=work["root"], cache=Path(work["cache"]))
    now = json.loads(Path(work["now"]).read_text(encoding="utf-8")) if work["is_new"] else {}
    if key := borrowed(now.get("key_at"), mark=work["key"]):
        part = Part(listed, work["center"], work["archive"], work["reader"], now["number"])
        part.finish(rows, key=key)
    else:
        write_staged(rows, target=listed.with_name(ROWS))
    return rows.height


def _begin(study: Study, center: str, *, store: Store, key: bytes, is_sweep: bool, watch: Watch) -> Crawl:
    settled = time.time_ns() - study.sweep.settle_minutes * NANOSECONDS_PER_MINUTE if is_sweep else None
    staging = store.private.absolute() / "staging" / center

    def folder_key(archive: str, folder: str) -> str:
        return file_key(archive, folder, center=center, key=key, kind="folder")

    reader = reader_version()
    same = SameFolders(store.private.absolute() / "folders" / center, reader_version=reader, key=key)
    listing = Spilled(staging / "listing", folder_key=folder_key, same=same)
    return Crawl(study, center, store, key, settled, reader, staging, listing, same, watch)


def _list(of: Crawl) -> Iterator[tuple[str, Folder | Listed]]:
    """Archive and name of every file, as they are found; ArchiveError for a root that is missing or holds nothing.

    All roots are looked at before the first is listed to its end.
    """
    begun = []
    for archive in of.study.center(of.center).archives:
        root = of.study.archive_root(archive)
        named = f"{archive!r}" if archive == root else f"{archive!r}: {root}"
        where = f"center {of.center}: centers.{of.center}.archives names {named}"
        of.begun.append((where, root, presence(root)))
        left = functools.partial(of.watch.left, archive)
        settled, skip = of.settled_before_ns, [of.study.workspace]
        listing = list_in_folders(root, cache=of.store.cache, skip=skip, settled_before_ns=settled, left=left)
        with _named(where):
            first = next(listing, None)
        if first is None:
            raise ArchiveError(f"{where} holds no file; nothing was changed (is the share mounted?)")
        begun.append((where, archive, itertools.chain([first], listing)))
    for where, archive, listing in begun:
        with _named(where):
            for file in listing:
                yield archive, file


@contextlib.contextmanager
def _named(where: str) -> Iterator[None]:
    try:
        yield
    except ArchiveError as error:
        raise ArchiveError(f"{where}: {error}; nothing was changed") from None


def _refuse_other_key(known: pl.DataFrame, *, center: str, key: bytes) -> None:
    """StudyError when the catalog was written with another pseudonym key: mixed keys would split every patient."""
    for archive, path, known_key in known.head(1).select("archive", "path", "file_key").iter_rows():
        if file_key(archive, path, center=center, key=key) != known_key:
            raise StudyError(
                "study.pseudonym_key: the catalog of this workspace was written with another key; "
                "give that key, or start a new workspace"
            )


def _refuse_gone(of: Crawl) -> None:
    """ArchiveError when files failed for a reason that may pass and a root is gone: that is no fault of the files."""
    if of.tally.transient:
        for where, root, before in of.begun:
            with _named(where):
                refuse_gone(root, before)


def _refuse_emptied(of: Crawl) -> None:
    """ArchiveError for one that held images and holds none: a note in the place of what is not mounted empties nothing."""
    for archive in of.study.center(of.center).archives:
        if of.emptied[archive] and archive not in of.alive | of.same.archives:
            raise ArchiveError(
                f"center {of.center}: centers.{of.center}.archives names {archive!r}: none of the {of.emptied[archive]} images "
                "that it held is there, and no other; nothing was changed (is the share mounted? If it is meant to be empty, "
                "take it out of archives)"
            )


def _compare(of: Crawl, group: Group, *, is_new: bool) -> None:
    """Count what is new in a group of buckets and write its work lists; is_new: nothing of it is known."""
    listing = of.listing.read(group)
    columns = contract("file").columns if is_new else [*NEEDED, "file_key", "folder_key"]
    verdicts, known = of.verdicts(group, listing=listing, columns=columns)
    _refuse_other_key(known, center=of.center, key=of.key)
    of.tally.add(counted(verdicts))
    of.n_gone += verdicts.vanished.height
    of.emptied.update(instance_archives(verdicts.vanished))
    of.alive.update(instance_archives(verdicts.unchanged), instance_archives(verdicts.kept))
    of.same.learn(group, listing=listing, known=known, unchanged=verdicts.unchanged, is_quiet=verdicts.is_quiet)
    if verdicts.is_quiet:
        return
    is_known = pl.col("is_known")
    of.new += _work_lists(of, verdicts.read.filter(~is_known), is_new=True)
    read = verdicts.read.filter(is_known)
    if not (read.height or verdicts.refused.height or verdicts.waiting.height or verdicts.vanished.height):
        return
    if is_new and not of.work:
        of.held[group] = verdicts, known
    of.work[group] = _work_lists(of, read, is_new=False)


def _work_lists(of: Crawl, read: pl.DataFrame, *, is_new: bool) -> list[tuple[str, Path]]:
    """Archive and work list of every part that must be read."""
    found = []
    for (name,), files in read.group_by("archive", maintain_order=True):
        archive = str(name)
        runs = partitions(files["path"].to_list(), size=PART_FILES)
        found += [(archive, of.work_list(files[run], is_new=is_new)) for run in runs]
    return found


def _read_and_write(of: Crawl, writing: Writing, *, executor: Executor) -> int:
    """Read what must be read and append what differs; return how many files were moved."""
    appending = Appending(of, writing, slice_parts=SLICE_PARTS)

    def told(part: Path) -> None:
        appending.told(part)
        of.watch.read(part)

    with lent(of.key) if executor.is_here else contextlib.nullcontext() as key_at:
        if of.found or of.new or of.work:
            write_text(json.dumps({"number": writing.number, "key_at": key_at}), target=of.staging / NOW)
        _work(_parts(of, appending, n_workers=executor.n_workers), executor=executor, told=told)
    if of.new or of.work or of.found:
        of.watch.note("all read; writing the catalog")
    return appending.finish()


def _parts(of: Crawl, appending: Appending, *, n_workers: int) -> Iterator[Path]:
    """Every work list, as it is found."""
    for archive, path in itertools.chain(of.new, _found(of, appending, n_workers=n_workers)):
        appending.expect(archive, path)
        yield path
    for work in of.work.values():
        yield from (path for _, path in work)


def _found(of: Crawl, appending: Appending, *, n_workers: int) -> Iterator[tuple[str, Path]]:
    """Archive and work list of parts of a center of which nothing is known, while other files are being listed.

    Parts grow with what has been found, so that few wait for the last of them, and large archives have large ones.
    """
    left, nothing, n_found = pl.DataFrame(), empty("file"), 0
    for number, listing in enumerate(of.found or ()):
        archive = str(listing["archive"][0])
        if left.height and left["archive"][0] != archive:
            yield left["archive"][0], of.work_list(left, is_new=True)
            left = left.clear()
        verdicts = compare(listing, nothing, reader_version=of.reader, settled_before_ns=of.settled_before_ns)
        of.tally.add(counted(verdicts))
        appending.take(archive, unread(verdicts), staging=of.staging / "unread" / str(number))
        left = pl.concat([left, verdicts.read]) if left.height else verdicts.read
        n_found += listing.height
        size = max(PART_FILES, min(FIRST_TIMES * PART_FILES, n_found // (2 * n_workers)))
        runs = cut(left["path"].to_list(), size=size)
        yield from ((archive, of.work_list(left[run], is_new=True)) for run in runs[:-1])
        left = left[runs[-1]] if runs else left
    rest = [(str(left["archive"][0]), of.work_list(left, is_new=True))] if left.height else []
    of.watch.all_found()
    yield from rest


def _work_list(files: pl.DataFrame, *, work: Mapping[str, object], staging: Path) -> Path:
    """Write what a worker must read; the same files have the same place, where their rows may lie already."""
    told = json.dumps(work)
    digest = hashlib.sha256("\0".join([told, *files["path"]]).encode())
    for column in ("size_bytes", "mtime_ns"):
        digest.update(files[column].to_numpy().tobytes())
    target = staging / digest.hexdigest()[:32] / "work.json"
    if not target.is_file():
        write_staged(files.select("path", "size_bytes", "mtime_ns"), target=target.with_name(FILES))
        write_text(told, target=target)
    return target


def _work(parts: Iterable[Path], *, executor: Executor, told: Callable[[Path], None] = lambda _: None) -> None:
    """Read parts on the executor; told is called with each that is done, here, while others are being read or found."""

    def todo() -> Iterator[str]:
        for part in parts:
            if is_finished(part):
                told(part)
            else:
                yield str(part)

    for outcome in executor.map(read_partition, todo()):
        if outcome.error == StorageError.__name__:
            raise StorageError("a worker found the disk full; free space and run again: finished parts are kept")
        if outcome.error is not None:
            _bisect(Path(outcome.item), executor=executor)
        told(Path(outcome.item))


def _bisect(work_list: Path, *, executor: Executor) -> None:
    """Read a partition that killed its worker in halves, until the poisoned file stands alone as a reject."""
    work = json.loads(work_list.read_text(encoding="utf-8"))
    files = read_staged(work_list.with_name(FILES))
    target = work_list.with_name(ROWS)
    if files.height == 1:
        row = refused_row(files.row(0), ItemRefused("broken_header", "reading it ended the worker"))
        rows = pl.DataFrame([row], schema=part_schema())
    else:
        middle = files.height // 2
        halves = [
            _work_list(h, work=work | {"is_new": False}, staging=work_list.parent) for h in (files[:middle], files[middle:])
        ]
        _work(halves, executor=executor)
        rows = pl.concat([read_staged(half.with_name(ROWS)) for half in halves])
    write_staged(rows, target=target)
