"""The catalog of one workspace: tables that are appended to, and one sweep row a commit that makes them visible."""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from ospor_batch import __version__
from ospor_batch.contracts import contract, contract_names
from ospor_batch.contracts.table import conform, empty, schema_of, whole
from ospor_batch.errors import ContractError, LockedError, StudyError
from ospor_batch.store.buckets import full_key, names_of, number_of, together
from ospor_batch.store.change import HISTORY, VERSIONED, Change, stamped
from ospor_batch.store.delta import DeltaDoor
from ospor_batch.store.parts import storage_errors
from ospor_batch.store.together import DataFile, adopt, append, description, part_again

MOST_FILES = 16  # a bucket with more is merged: measured in benchmarks/sweep.py over 200 nights
GRACE_HOURS = 24  # a reader that opened its snapshot before a merge has a day to finish
EVERY_CENTER = "*"


@dataclass(frozen=True)
class SweepCounts:
    """What a stage found: items new, changed, moved, vanished and unchanged, and files opened."""

    n_new: int = 0
    n_changed: int = 0
    n_moved: int = 0
    n_vanished: int = 0
    n_unchanged: int = 0
    n_read: int = 0


class Store:
    """The tables of one workspace; private tables lie under ``private/``, mode 0700."""

    def __init__(self, workspace: Path) -> None:
        self.workspace = workspace
        self.private = workspace / "private"
        self._locks = 0
        self._last: tuple[int, str] | None = None  # the last sweep row, known while the lock is held: nobody else writes then
        if set("[]") & set(str(workspace.absolute())):
            # deltalake 1.6.6 ends the process there: it takes the path for the address of a host
            raise StudyError(f"study.workspace: {workspace.absolute()} has a bracket in its name; choose one without [ and ]")
        with storage_errors():
            self.private.mkdir(parents=True, exist_ok=True)
            self.private.chmod(0o700)

    @property
    def cache(self) -> Path:
        """Private folder of what can be made or fetched again."""
        return self.private.absolute() / "cache"

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the writer lock of the workspace; readers are never kept out. LockedError when it is taken."""
        if self._locks:
            self._locks += 1
            try:
                yield
            finally:
                self._locks -= 1
            return
        with (self.private / "writer.lock").open("a") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise LockedError(
                    f"{self.workspace}: another run or sweep is writing to this workspace; wait until it ends"
                ) from None
            self._locks, self._last = 1, None
            try:
                yield
            finally:
                self._locks, self._last = 0, None

    def snapshot(self) -> dict[str, int]:
        """Version of every catalog table as the last commit left it; empty before the first."""
        last = self._last_sweep()
        return {} if last is None else dict(sorted(json.loads(last[1]).items()))

    def contents(self, snapshot: Mapping[str, int]) -> dict[str, int]:
        """Number of the commit that gave each table of a snapshot its rows; merging files changes none.

        Versions themselves where no commit left the snapshot.
        """
        versions: dict[str, int] = {}
        found: dict[str, int] = {}
        for row in self.sweeps().select("sweep_number", "stage", "versions").iter_rows(named=True):
            now = json.loads(row["versions"])
            if row["stage"] != "compact":
                found |= {table: row["sweep_number"] for table in now if now[table] != versions.get(table)}
            versions = now
            if versions == dict(snapshot):
                return dict(sorted(found.items()))
        return dict(snapshot)

    def sweeps(self) -> pl.DataFrame:
        """Every commit of the catalog, oldest first."""
        door = self._door("sweep")
        if not door.exists:
            return empty("sweep")
        return conform(door.scan(schema_of("sweep"), version=None).collect(), "sweep").sort("sweep_number")

    def last_commit(self, stage: str, *, center: str) -> dict[str, object] | None:
        """The sweep row of the stage's last commit for a center."""
        rows = self.sweeps().filter((pl.col("stage") == stage) & (pl.col("center") == center))
        return None if rows.height == 0 else rows.row(-1, named=True)

    def current(
        self,
        table: str,
        *,
        center: str | None = None,
        snapshot: Mapping[str, int] | None = None,
        columns: Sequence[str] | None = None,
        among: pl.DataFrame | None = None,
        buckets: Sequence[int] | None = None,
        is_sorted: bool = True,
    ) -> pl.DataFrame:
        """Rows of a catalog table as of a snapshot (default: the last commit), sorted by primary key.

        among: only rows with these values in columns of the full key; buckets: only these bucket numbers of the
        center. Of a bucketed table, only the buckets that can hold them are read.
        """
        of, key = contract(table), full_key(table)
        if not of.is_catalog:
            raise ContractError(f"{table} is no catalog table")
        wanted = list(columns or of.columns)
        rows = self._rows(
            table,
            snapshot=snapshot,
            center=center,
            columns=[*dict.fromkeys([*key, *wanted])],
            buckets=_bucket_numbers(table, among=among, given=buckets),
        )
        if rows is None:
            return empty(table).select(wanted)
        if among is not None:  # streamed, so that memory follows the answer and not the buckets
            rows = rows.join(among.unique().lazy(), on=among.columns, how="semi")
        found = _last(rows.collect(engine="auto" if among is None else "streaming"), key=key)
        return (found.sort(list(of.primary_key)) if is_sorted else found).select(wanted)

    def sizes(self, table: str, *, center: str) -> list[int]:
        """Rows written to each bucket of a center, versions of one row counted each; in the order of bucket numbers."""
        version, names = self.snapshot().get(table), names_of(table, center)
        if version is None:
            return [0] * len(names)
        found = self._door(table).n_rows(version)
        sizes = [found.get(name, 0) for name in names]
        if (of := together(table, center)) in found and (by := contract(table).bucket_by) is not None:
            rows = self._door(table).scan(pl.Schema({by: pl.String()}), version=version, buckets=[of])
            for number, n in rows.select(number_of(pl.col(by), table)).collect().to_series().value_counts().iter_rows():
                sizes[number] += n
        return sizes

    def ever(
        self,
        table: str,
        *,
        center: str,
        columns: Sequence[str],
        among: pl.DataFrame | None = None,
        after: int | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> pl.DataFrame:
        """Distinct values of columns over all versions of all rows, sorted; streamed, so that memory follows the answer.

        among: only rows with these values; after: only rows written, or retired, after a commit, columns being of the
        full key, since no others stand in rows that retire one; share: the number of one share of so many, of the keyed
        hashes in the first column.
        """
        if after is not None and (unknown := set(columns) - set(full_key(table))):
            raise ContractError(f"{table}: {', '.join(sorted(unknown))} does not stand in rows that retire a key")
        needed = [*dict.fromkeys([*columns, *([] if among is None else among.columns)])]
        numbers = _bucket_numbers(table, among=among, given=None)
        rows = self._rows(table, snapshot=None, center=center, columns=needed, buckets=numbers)
        if rows is None:
            return empty(table).select(columns)
        if after is not None:
            rows = rows.filter(pl.col("sweep_number") > after)
        if among is not None:
            rows = rows.join(among.unique().lazy(), on=among.columns, how="semi")
        if share[1] > 1:
            rows = rows.filter(pl.col(columns[0]).str.slice(2, 4).str.to_integer(base=16, strict=False) % share[1] == share[0])
        return rows.select(columns).unique().collect(engine="streaming").sort(columns)

    def difference(
        self,
        table: str,
        rows: pl.DataFrame,
        *,
        scope: pl.Expr,
        center: str | None = None,
        among: pl.DataFrame | None = None,
    ) -> Change:
        """The change after which the rows of the table within scope (and among) are exactly these."""
        rows = conform(rows, table)
        key = full_key(table)
        known = self.current(table, center=center, among=among).filter(scope)
        changed = rows.join(known, on=rows.columns, how="anti", nulls_equal=True)
        return Change(changed, known.select(key).join(rows.select(key), on=key, how="anti", nulls_equal=True))

    def commit(self, changes: Mapping[str, Change], *, stage: str, center: str, counts: SweepCounts) -> int | None:
        """Append every change, then the sweep row that makes them visible; None when nothing changed.

        A crash before the sweep row leaves tables that stand ahead of it; the next commit first puts them back.
        """
        with self.writing(stage, center=center) as writing:
            writing.append(changes)
            return writing.finish(counts)

    @contextlib.contextmanager
    def writing(self, stage: str, *, center: str) -> Iterator[Writing]:
        """Begin a commit that is written in pieces; without finish() none of them is ever seen."""
        with self.lock(), storage_errors():
            last = self._last_sweep()
            yield Writing(self, stage=stage, center=center, last=last)

    def compact(self) -> int:
        """Merge the small files of crowded buckets, as a commit of its own; return how many files were merged."""
        with self.writing("compact", center=EVERY_CENTER) as writing:
            merged = writing.compact(most_files=MOST_FILES)
            if merged:
                writing.finish(SweepCounts())
            if self._door("sweep").exists:
                self._door("sweep").compact(most_files=MOST_FILES)  # read at its newest version: it needs no row
        return merged

    def vacuum(self, *, keep: Iterable[Mapping[str, int]], grace_hours: int = GRACE_HOURS) -> None:
        """Delete what no snapshot in keep, no last commit and no reader of the last hours can name."""
        with self.writing("compact", center=EVERY_CENTER) as writing:
            writing.vacuum([self.snapshot(), *keep], grace_hours=grace_hours)
            writing.finish(SweepCounts())
            if (door := self._door("sweep")).exists:
                door.vacuum(keep=[door.version()], grace_hours=grace_hours)

    def _tables(self) -> list[str]:
        return [name for name in contract_names() if contract(name).is_catalog and self._door(name).exists]

    def _door(self, table: str) -> DeltaDoor:
        return DeltaDoor(self._folder(table), name=table, is_bucketed=table != "sweep")

    def _folder(self, table: str) -> Path:
        door = self.private if contract(table).access == "private" else self.workspace
        return door / "catalog" / table

    def _last_sweep(self) -> tuple[int, str] | None:
        if self._locks and self._last is not None:
            return self._last
        rows = self.sweeps()
        self._last = None if rows.height == 0 else (rows["sweep_number"][-1], rows["versions"][-1])
        return self._last

    def _rows(
        self,
        table: str,
        *,
        snapshot: Mapping[str, int] | None,
        center: str | None,
        columns: list[str],
        buckets: Sequence[int] | None,
    ) -> pl.LazyFrame | None:
        """Every version of the rows of some buckets, with the columns of the history; None before the first commit."""
        version = (self.snapshot() if snapshot is None else snapshot).get(table)
        if version is None:
            return None
        schema = schema_of(table)
        schema = pl.Schema({name: schema[name] for name in columns} | {name: HISTORY[name] for name in VERSIONED})
        by = contract(table).bucket_by
        named = None if center is None else names_of(table, center, buckets)
        if by is None or (center is None and buckets is None):
            return self._door(table).scan(schema, version=version, buckets=named)
        is_within = pl.lit(value=True) if buckets is None else number_of(pl.col(by), table).is_in(list(buckets))
        if center is None:
            return self._door(table).scan(schema, version=version).filter(is_within)
        return self._door(table).scan(schema, version=version, buckets=named, also=(together(table, center), is_within))

    def _write(self, table: str, rows: pl.DataFrame) -> int:
        door = self._door(table)
        return append(door, rows) if door.is_bucketed else door.append(rows, description=description(table))


class Writing:
    """A commit under way; the rows of earlier, dead ones are put back before its first."""

    def __init__(self, store: Store, *, stage: str, center: str, last: tuple[int, str] | None) -> None:
        self._store = store
        self._told: dict[str, object] = {"stage": stage, "center": center, "started_at": datetime.now(UTC)}
        self._versions: dict[str, int] = {} if last is None else dict(json.loads(last[1]))
        self.number = 1 if last is None else last[0] + 1
        self._is_begun = False

    def append(self, changes: Mapping[str, Change]) -> None:
        """Append changes; several calls must not touch the same key."""
        for table in sorted(changes):
            if not changes[table].is_empty:
                self._begin()
                rows = stamped(table, changes[table], number=self.number)
                self._versions[table] = self._store._write(table, rows)

    def adopt(self, files: Mapping[str, Sequence[DataFile]]) -> None:
        """Append rows that write_data wrote for this commit, given by table as files and their numbers of rows.

        The files become the table's own as they are, until so many rows of a center lie together that they are parted.
        """
        for table in sorted(files):
            self._begin()
            self._versions[table] = adopt(self._store._door(table), files[table], center=str(self._told["center"]))

    def compact(self, *, most_files: int) -> int:
        """Merge small files of every table."""
        self._put_back()
        merged = 0
        for table in self._store._tables():
            door = self._store._door(table)
            if table != "sweep" and (n := part_again(door) + door.compact(most_files=most_files)):
                self._is_begun = True
                merged += n
                self._versions[table] = door.version()
        return merged

    def vacuum(self, named: Sequence[Mapping[str, int]], *, grace_hours: int) -> None:
        """Delete files of every table that none of the snapshots names."""
        self._put_back()
        for table in self._store._tables():
            if table != "sweep":
                door = self._store._door(table)
                versions = {snapshot[table] for snapshot in named if table in snapshot} | {door.version()}
                door.vacuum(keep=versions, grace_hours=grace_hours)
                self._versions[table] = door.version()  # deleting is written to the table's log, as a version of its own
                self._is_begun = True

    def finish(self, counts: SweepCounts, *, rules_digest: str | None = None, is_recorded: bool = False) -> int | None:
        """Write the sweep row that makes all appended rows visible.

        None when nothing was appended, unless is_recorded: then the row says that all before it was looked at.
        """
        if not (self._is_begun or is_recorded):
            return None
        row = {
            **self._told,
            "sweep_number": self.number,
            "versions": json.dumps(self._versions, sort_keys=True),
            **vars(counts),
            "rules_digest": rules_digest,
            "finished_at": datetime.now(UTC),
            "code_version": __version__,
        }
        rows = whole(pl.DataFrame([row], schema=schema_of("sweep")), "sweep")
        self._store._write("sweep", rows)
        self._store._last = (self.number, json.dumps(self._versions, sort_keys=True))
        return self.number

    def _begin(self) -> None:
        if not self._is_begun:
            self._put_back()
            self._is_begun = True

    def _put_back(self) -> None:
        for table in self._store._tables():
            if table != "sweep":
                self._versions[table] = self._store._door(table).put_back(self._versions.get(table, 0))


def _bucket_numbers(table: str, *, among: pl.DataFrame | None, given: Sequence[int] | None) -> Sequence[int] | None:
    by = contract(table).bucket_by
    if by is None or given is not None or among is None or by not in among.columns:
        return None if by is None else given
    return among.select(number_of(pl.col(by), table)).to_series().unique().sort().to_list()


def _last(rows: pl.DataFrame, *, key: list[str]) -> pl.DataFrame:
    """The last version of every key that is not retired."""
    if rows.select(key).n_unique() < rows.height:
        rows = rows.sort("sweep_number", maintain_order=True).unique(key, keep="last", maintain_order=True)
    return rows.filter(~pl.col("is_retired"))
