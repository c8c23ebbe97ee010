"""A part of a crawl whose files are all new: its rows, with their keys, as data files that the catalog takes as they are."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from ospor_batch.archive.reading import part_schema
from ospor_batch.stages.crawl_counts import Tally, counted_anew
from ospor_batch.stages.crawl_rows import IDENTITY, as_new, identities, keyed
from ospor_batch.store import read_staged, write_data, write_data_rows, write_text
from ospor_batch.store.together import DataFile

FILES, ROWS, DONE = "files.arrow", "rows.arrow", "done.json"
"""Of a part, beside its work list: what must be read; what was, without keys; that its data files are whole."""


def cut(paths: Sequence[str], *, size: int) -> list[slice]:
    """Runs of half to one and a half times ``size``, cut where names say so: a new name elsewhere moves few cuts.

    Runs of one length keep all workers busy to the end.
    """
    found, begin, digest, some = list[slice](), 0, zlib.crc32, max(1, size // 2)
    while len(paths) - begin > some:
        longest = min(begin + size + some, len(paths))
        end = next((at for at in range(begin + some, longest) if digest(paths[at].encode()) % some == 0), longest)
        found.append(slice(begin, end))
        begin = end
    return [*found, slice(begin, len(paths))] if begin < len(paths) else found


def is_finished(work_list: Path) -> bool:
    """Whether a killed crawl left the rows of a part, of which none was refused for a reason that may have passed."""
    done, rows = work_list.with_name(DONE), work_list.with_name(ROWS)
    if done.is_file():
        is_sound = not json.loads(done.read_text(encoding="utf-8"))["tally"]["transient"]
    else:
        is_sound = rows.is_file() and not read_staged(rows)["is_transient"].any()
    if not is_sound:
        done.unlink(missing_ok=True)
        rows.unlink(missing_ok=True)
    return is_sound


@dataclass(frozen=True)
class Part:
    """Where a part's work list lies, and what its rows are of; number: of the commit that they are for."""

    work_list: Path
    center: str
    archive: str
    reader_version: str
    number: int

    def beside(self, name: str) -> Path:
        return self.work_list.with_name(name)

    def finish(self, rows: pl.DataFrame, *, key: bytes) -> None:
        """Write the rows' data files, and last that they are there."""
        if rows.columns != part_schema().names():
            rows = pl.concat([pl.DataFrame(schema=part_schema()), rows], how="diagonal")
        rows = rows.with_columns(archive=pl.lit(self.archive))
        fresh = keyed(rows, center=self.center, key=key, reader_version=self.reader_version)
        written = {
            table: write_data(table, change, number=self.number, target=self.beside(f"{table}.parquet"))
            for table, change in as_new(fresh).items()
            if not change.is_empty
        }
        write_text(
            json.dumps({"number": self.number, "rows": written, "tally": vars(counted_anew(fresh))}), target=self.beside(DONE)
        )

    def told(self, *, key: bytes) -> Finished:
        """What was written of the part; keys and stamps are put in here where no worker could, or did for another commit."""
        if not self.beside(DONE).is_file():
            self.finish(read_staged(self.beside(ROWS)), key=key)
        done = json.loads(self.beside(DONE).read_text(encoding="utf-8"))
        files = {table: (self.beside(f"{table}.parquet"), n_rows) for table, n_rows in done["rows"].items()}
        if done["number"] != self.number:
            for path, _ in files.values():
                write_data_rows(pl.read_parquet(path).with_columns(sweep_number=pl.lit(self.number, pl.Int64)), target=path)
            write_text(json.dumps(done | {"number": self.number}), target=self.beside(DONE))
        return Finished(files, Tally(**done["tally"]))


@dataclass(frozen=True)
class Finished:
    """The data files of a part, by table, and its counts."""

    files: dict[str, DataFile]
    tally: Tally

    def identities(self) -> pl.Series:
        """What its files hold, to know those that were moved."""
        if "instance" not in self.files:
            return pl.Series("what", [], pl.UInt64)
        return identities(pl.read_parquet(self.files["instance"][0], columns=IDENTITY))


def by_table(parts: Sequence[Finished]) -> dict[str, list[DataFile]]:
    """The data files of parts, in their order."""
    found: dict[str, list[DataFile]] = {}
    for part in parts:
        for table, file in part.files.items():
            found.setdefault(table, []).append(file)
    return found
