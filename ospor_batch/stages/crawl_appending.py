"""What a crawl appends: what differs from the catalog slice by slice, while others are read; in the end what is new."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from ospor_batch.archive.changes import Verdicts, count_moved
from ospor_batch.archive.reading import part_schema
from ospor_batch.contracts import contract
from ospor_batch.errors import LedgerError
from ospor_batch.stages.crawl_counts import counted_anew, instance_archives
from ospor_batch.stages.crawl_parts import ROWS, Finished, Part, by_table
from ospor_batch.stages.crawl_rows import IDENTITY, changes, identities, keyed, unread
from ospor_batch.stages.listing import in_slices
from ospor_batch.stages.same_folders import Group
from ospor_batch.store import Writing, read_staged

if TYPE_CHECKING:
    from ospor_batch.stages.crawl import Crawl


@dataclass
class _Slice:
    """Parts whose rows are appended together, as soon as all are read; the first of its group brings what needs no reading."""

    group: Group
    archives: dict[Path, str]
    is_first: bool
    left: set[Path]


class Appending:
    """Appends what differs from the catalog slice by slice while others are still being read, and what is new in the end."""

    def __init__(self, of: Crawl, writing: Writing, *, slice_parts: int) -> None:
        self._of = of
        self._writing = writing
        self._groups: dict[Group, tuple[Verdicts, pl.DataFrame]] = {}
        self._left: dict[Group, int] = {}
        self._n_fresh: dict[Group, int] = {}
        self._gone: list[pl.Series] = []
        self._come: list[pl.Series] = []
        self._slices: dict[Path, _Slice] = {}
        self._new: dict[Path, Part | Finished] = {}
        for group, work in of.work.items():
            archives = {path: archive for archive, path in work}
            runs = list(in_slices(list(archives), size=slice_parts))
            self._left[group], self._n_fresh[group] = len(runs), 0
            for number, parts in enumerate(runs):
                each = _Slice(group, {path: archives[path] for path in parts}, number == 0, set(parts))
                self._slices |= dict.fromkeys(parts, each)
                if not parts:
                    self._append(each)

    def _part(self, archive: str, work_list: Path) -> Part:
        return Part(work_list, self._of.center, archive, self._of.reader, self._writing.number)

    def expect(self, archive: str, work_list: Path) -> None:
        """A part of new files will be read."""
        self._new[work_list] = self._part(archive, work_list)

    def take(self, archive: str, rows: pl.DataFrame, *, staging: Path) -> None:
        """New files that need no reading."""
        if rows.height:
            part = self._part(archive, staging / "work.json")
            part.finish(rows, key=self._of.key)
            self._new[part.work_list] = self._take(part, n=rows.height)

    def told(self, part: Path) -> None:
        """A part was read."""
        if isinstance(new := self._new.get(part), Part):
            self._new[part] = self._take(new, n=self._of.watch.size(part))
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

    def _take(self, part: Part, *, n: int) -> Finished:
        """A part of so many new files; LedgerError unless each of them became a row."""
        found = part.told(key=self._of.key)
        self._of.tally.add(found.tally)
        self._of.alive.update([part.archive] if found.tally.done else [])
        if n != found.tally.files:
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
        of.alive.update(instance_archives(fresh))
        self._n_fresh[each.group] += fresh.height
        self._left[each.group] -= 1
        if self._left[each.group] == 0:
            _check(verdicts, n_fresh=self._n_fresh[each.group])
            del self._left[each.group], self._groups[each.group]


def _fresh(of: Crawl, rows: list[pl.DataFrame]) -> pl.DataFrame:
    whole = pl.concat([pl.DataFrame(schema={**part_schema(), "archive": pl.String()}), *rows], how="diagonal")
    return keyed(whole, center=of.center, key=of.key, reader_version=of.reader)


def _identities_of(of: Crawl, vanished: pl.DataFrame) -> pl.Series:
    """What the files that are gone held."""
    gone = vanished.filter(pl.col("fate") == "instance").select("file_key", "series_key")
    held = of.store.current("instance", center=of.center, columns=IDENTITY, among=gone, is_sorted=False)
    return identities(held)


def _check(verdicts: Verdicts, *, n_fresh: int) -> None:
    """LedgerError unless every listed file of the group stands in exactly one place."""
    listed = verdicts.read["is_known"].sum() + verdicts.refused.height + verdicts.waiting.height
    if listed != n_fresh:
        raise LedgerError(f"crawl: {listed} files were to be judged, but {n_fresh} were")
