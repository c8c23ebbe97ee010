"""Crawl one center's archives: every file an instance, a typed reject, or waiting until it has arrived."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl

from ospor_batch.archive.changes import NEEDED, Verdicts, compare, count_moved
from ospor_batch.archive.header import reader_version
from ospor_batch.archive.listing import list_in_folders
from ospor_batch.archive.reading import Listing, part_schema, read_files, refused_row
from ospor_batch.archive.walk import Folder, Listed, partitions
from ospor_batch.compute.executor import Executor
from ospor_batch.config import Study
from ospor_batch.contracts import contract
from ospor_batch.errors import ArchiveError, ItemRefused, LedgerError, StorageError, StudyError
from ospor_batch.stages.crawl_counts import Tally, as_they_were, counted, counted_anew, crawl_summary, sweep_counts
from ospor_batch.stages.crawl_parts import DONE, FILES, ROWS, Finished, Part, by_table
from ospor_batch.stages.crawl_rows import IDENTITY, changes, file_key, identities, keyed, unread
from ospor_batch.stages.lent_key import borrowed, lent
from ospor_batch.stages.listing import Spilled, in_slices
from ospor_batch.stages.same_folders import Group, SameFolders
from ospor_batch.stages.summary import Progress, StageSummary
from ospor_batch.store import Store, Writing, read_staged, storage_errors, write_staged, write_text

PART_FILES = 2000  # a second of reading from a warm disk, ten from a slow share: what a killed crawl may have to repeat
SLICE_PARTS = 20  # parts turned into rows at once: 40,000 rows, 0.3 GB
NOW = "now.json"  # of the crawl under way: the number of its commit, and where the key is lent
NANOSECONDS_PER_MINUTE = 60 * 10**9


@dataclass
class _Crawl:
    """One crawl under way.

    new: archives and work lists of files that are not known; work: per group of buckets those of the other files that must
    be read, for groups in which anything else differs from the catalog; held: the verdicts on the first of these groups if
    it is new, so that a small archive is compared once.
    """

    study: Study
    center: str
    store: Store
    key: bytes
    settled_before_ns: int | None
    staging: Path
    listing: Spilled
    same: SameFolders
    tally: Tally = field(default_factory=Tally)
    new: list[tuple[str, Path]] = field(default_factory=list)
    work: dict[Group, list[tuple[str, Path]]] = field(default_factory=dict)
    held: dict[Group, tuple[Verdicts, pl.DataFrame]] = field(default_factory=dict)
    n_gone: int = 0

    def verdicts(self, group: Group, *, listing: pl.DataFrame, columns: Sequence[str]) -> tuple[Verdicts, pl.DataFrame]:
        """Verdicts on the files of a group, and what was known of it; folders that are as they were are not compared."""
        known = self.store.current("file", center=self.center, buckets=group, columns=columns, is_sorted=False)
        seen = self.same.seen(group)
        found = compare(
            listing,
            known.join(seen, on="folder_key", how="anti", maintain_order="left") if seen.height else known,
            reader_version=reader_version(),
            settled_before_ns=self.settled_before_ns,
            hidden=self.listing.hidden,
        )
        if seen.height:
            same = known.join(seen, on="folder_key", how="semi", maintain_order="left")
            found = replace(found, unchanged=pl.concat([found.unchanged, same]))
        return found, known

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
        of = _begin(study, center, store=store, key=key, is_sweep=is_sweep)
        of.same.open(of.last_commit())
        of.listing.take(_list(study, center, skip=study.workspace, cache=store.cache, settled_before_ns=of.settled_before_ns))
        quiet = of.same.quiet(of.listing.sizes)
        of.tally.add(as_they_were(quiet))
        sizes = store.sizes("file", center=center)
        for group in of.listing.groups(sizes, quiet=quiet["number"].to_list()):
            _compare(of, group, is_new=not any(sizes[number] for number in group))
        with store.writing("crawl", center=center) as writing:
            n_moved = _read_and_write(of, writing, executor=executor, progress=progress)
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
    if key := borrowed(now.get("key_at")):
        part = Part(listed, work["center"], work["archive"], work["reader"], now["number"])
        part.finish(rows, key=key)
    else:
        write_staged(rows, target=listed.with_name(ROWS))
    return rows.height


def _begin(study: Study, center: str, *, store: Store, key: bytes, is_sweep: bool) -> _Crawl:
    settled = time.time_ns() - study.sweep.settle_minutes * NANOSECONDS_PER_MINUTE if is_sweep else None
    staging = store.private.absolute() / "staging" / center

    def folder_key(archive: str, folder: str) -> str:
        return file_key(archive, folder, center=center, key=key, kind="folder")

    same = SameFolders(store.private.absolute() / "folders" / center, reader_version=reader_version(), key=key)
    listing = Spilled(staging / "listing", folder_key=folder_key, same=same)
    return _Crawl(study, center, store, key, settled, staging, listing, same)


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


def _compare(of: _Crawl, group: Group, *, is_new: bool) -> None:
    """Count what is new in a group of buckets and write its work lists; is_new: nothing of it is known."""
    listing = of.listing.read(group)
    columns = contract("file").columns if is_new else [*NEEDED, "file_key", "folder_key"]
    verdicts, known = of.verdicts(group, listing=listing, columns=columns)
    _refuse_other_key(known, center=of.center, key=of.key)
    of.tally.add(counted(verdicts))
    of.n_gone += verdicts.vanished.height
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


def _work_lists(of: _Crawl, read: pl.DataFrame, *, is_new: bool) -> list[tuple[str, Path]]:
    """Archive and work list of every part that must be read."""
    found = []
    for (name,), files in read.group_by("archive", maintain_order=True):
        archive = str(name)
        # two names of one root must not share their parts
        staging = of.staging / hashlib.sha256(archive.encode()).hexdigest()[:8]
        work = {
            "root": of.study.archive_root(archive), "cache": str(of.store.cache), "reader": reader_version(),
            "center": of.center, "archive": archive, "is_new": is_new, "now": str(of.staging / NOW),
        }  # fmt: skip
        runs = partitions(files["path"].to_list(), size=PART_FILES)
        found += [(archive, _work_list(files[run], work=work, staging=staging)) for run in runs]
    return found


@dataclass
class _Slice:
    """Parts whose rows are appended together, as soon as all are read; the first of its group brings what needs no reading."""

    group: Group
    archives: dict[Path, str]
    is_first: bool
    left: set[Path]


class _Appending:
    """Appends what differs from the catalog slice by slice while others are still being read, and what is new in the end."""

    def __init__(self, of: _Crawl, writing: Writing) -> None:
        self._of = of
        self._writing = writing
        self._groups: dict[Group, tuple[Verdicts, pl.DataFrame]] = {}
        self._left: dict[Group, int] = {}
        self._n_fresh: dict[Group, int] = {}
        self._gone: list[pl.Series] = []
        self._come: list[pl.Series] = []
        self._slices: dict[Path, _Slice] = {}
        self._new: dict[Path, Part | Finished] = {
            path: Part(path, of.center, archive, reader_version(), writing.number) for archive, path in of.new
        }
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
        if isinstance(new := self._new.get(part), Part):
            self._new[part] = self._take(new)
            return
        each = self._slices.pop(part)
        each.left.discard(part)
        if not each.left:
            self._append(each)

    def finish(self) -> int:
        """Append what is new and tell how many files were moved; LedgerError when a part was never read."""
        finished = [part for part in self._new.values() if isinstance(part, Finished)]
        if self._left or len(finished) < len(self._new):
            raise LedgerError(f"crawl: {len(self._left)} groups of folders were not read whole")
        self._writing.adopt(by_table(finished))
        if self._of.n_gone:
            self._come += [part.identities() for part in finished]
        return count_moved(pl.concat(self._gone), pl.concat(self._come)) if self._come and self._gone else 0

    def _take(self, part: Part) -> Finished:
        """A part of new files; LedgerError unless each of them became a row."""
        found = part.told(key=self._of.key)
        self._of.tally.add(found.tally)
        if (n := read_staged(part.beside(FILES)).height) != found.tally.files:
            raise LedgerError(f"crawl: {n} files were to be judged, but {found.tally.files} were")
        return found

    def _append(self, each: _Slice) -> None:
        of = self._of
        if each.group not in self._groups:
            self._groups[each.group] = (
                of.held.pop(each.group)
                if each.group in of.held
                else of.verdicts(each.group, listing=of.listing.read(each.group), columns=contract("file").columns)
            )
        verdicts, known = self._groups[each.group]
        rows = [
            read_staged(path.with_name(ROWS)).with_columns(archive=pl.lit(archive)) for path, archive in each.archives.items()
        ]
        fresh = _fresh(of, [*rows, unread(verdicts)] if each.is_first else rows)
        gone = verdicts.vanished if each.is_first else verdicts.vanished.clear()
        if of.n_gone:
            self._gone.append(_identities_of(of, gone))
            new = fresh.filter(pl.col("fate") == "instance").join(known, on="file_key", how="anti")
            self._come.append(identities(new))
        self._writing.append(changes(fresh, known, gone))
        of.tally.add(counted_anew(fresh))
        self._n_fresh[each.group] += fresh.height
        self._left[each.group] -= 1
        if self._left[each.group] == 0:
            _check(verdicts, n_fresh=self._n_fresh[each.group])
            del self._left[each.group], self._groups[each.group]


def _read_and_write(of: _Crawl, writing: Writing, *, executor: Executor, progress: Progress | None) -> int:
    """Read what must be read and append what differs; return how many files were moved."""
    appending = _Appending(of, writing)
    parts = [path for work in (of.new, *of.work.values()) for _, path in work]
    done = {path for path in parts if any(path.with_name(name).is_file() for name in (DONE, ROWS))}
    for path in parts:
        if path in done:
            appending.told(path)
    todo = [str(path) for path in parts if path not in done]
    with lent(of.key) if executor.is_here else contextlib.nullcontext() as key_at:
        if parts:
            write_text(json.dumps({"number": writing.number, "key_at": key_at}), target=of.staging / NOW)
        _work(todo, executor=executor, n_parts=len(parts), progress=progress, told=appending.told)
    return appending.finish()


def _fresh(of: _Crawl, rows: list[pl.DataFrame]) -> pl.DataFrame:
    whole = pl.concat([pl.DataFrame(schema={**part_schema(), "archive": pl.String()}), *rows], how="diagonal")
    return keyed(whole, center=of.center, key=of.key, reader_version=reader_version())


def _identities_of(of: _Crawl, vanished: pl.DataFrame) -> pl.Series:
    """What the files that are gone held."""
    gone = vanished.filter(pl.col("fate") == "instance").select("file_key", "series_key")
    held = of.store.current("instance", center=of.center, columns=IDENTITY, among=gone, is_sorted=False)
    return identities(held)


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
        _work([str(half) for half in halves], executor=executor, n_parts=2, progress=None)
        rows = pl.concat([read_staged(half.with_name(ROWS)) for half in halves])
    write_staged(rows, target=target)


def _check(verdicts: Verdicts, *, n_fresh: int) -> None:
    """LedgerError unless every listed file of the group stands in exactly one place."""
    listed = verdicts.read["is_known"].sum() + verdicts.refused.height + verdicts.waiting.height
    if listed != n_fresh:
        raise LedgerError(f"crawl: {listed} files were to be judged, but {n_fresh} were")
