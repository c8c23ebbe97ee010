"""Folders that are listed just as on a night that found the catalog to hold them: their files need no comparison.

What is remembered is a digest a folder, over its name and the names, sizes and times of its plain files. It holds for one
commit of the crawl, one reader and one key; without it every file is compared, with the same outcome.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import shutil
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl

from ospor_batch.archive.changes import TRANSIENT
from ospor_batch.archive.walk import LISTING_REFUSALS, Folder
from ospor_batch.store import number_of, storage_errors, write_rows

Group = tuple[int, ...]
"""Numbers of buckets that are compared at once."""
MOST_FOLDERS = 2_000_000  # 0.1 kB each in memory; of an archive with more none is remembered
LISTED = pl.Schema({"number": pl.Int64(), "digest": pl.Binary(), "folder_key": pl.String(), "n_files": pl.Int64()})
COUNTED = pl.Schema({"number": pl.Int64(), "n_files": pl.Int64(), "n_instances": pl.Int64()})
REMEMBERED = pl.Schema(LISTED | {"n_instances": pl.Int64(), "is_whole": pl.Boolean()})
"""number: of the bucket; is_whole: all files of the bucket lie in folders that are remembered."""


class SameFolders:
    """What one center's folders were listed as, and which of them are listed so again."""

    def __init__(self, home: Path, *, reader_version: str, key: bytes) -> None:
        self._home = home
        self._rules = json.dumps([reader_version, TRANSIENT, LISTING_REFUSALS])
        self._key = key
        self._digest_key = hmac.digest(key, b"folders", "sha256")
        self._known = pl.DataFrame(schema=REMEMBERED)
        self._seen = [self._known]
        self._fresh = [pl.DataFrame(schema=LISTED)]
        self._learnt = [self._known]
        self._n_fresh = 0
        self.archives: set[str] = set()  # with instances in folders that are listed as they were

    def open(self, commit: object) -> None:
        """Read what holds for the last commit of the crawl."""
        source = self._source(commit)
        if source.is_file():
            rows = pl.read_parquet(source)
            self._known = rows if rows.schema == REMEMBERED else self._known

    def keep(self, commit: object) -> None:
        """Write what was learnt tonight; it holds for the commit that stands now."""
        target = self._source(commit)
        rows = pl.concat(self._learnt).sort("number", "digest")
        if target.is_file() and rows.equals(self._known):
            return
        with storage_errors():
            shutil.rmtree(self._home, ignore_errors=True)
            if 0 < rows.height <= MOST_FOLDERS and self._n_fresh <= MOST_FOLDERS:
                write_rows(rows, target=target)

    def sift(
        self, archive: str, folders: Sequence[Folder], *, folder_key: Callable[[str, str], str]
    ) -> list[tuple[Folder, str]]:
        """Those of some listed folders that are not as they were, each with its key."""
        digests = [self._digest(archive, folder) for folder in folders]
        listed = pl.DataFrame(
            {"digest": digests, "place": range(len(digests))}, schema={"digest": pl.Binary, "place": pl.Int64}
        )
        if self._known.height:
            seen = self._known.join(listed, on="digest", how="semi")
            self.archives.update([archive] if seen["n_instances"].sum() else [])
            self._seen.append(seen)
            listed = listed.join(self._known, on="digest", how="anti", maintain_order="left")
        places = listed["place"].to_list()
        keys = [folder_key(archive, folders[place].path) for place in places]
        self._n_fresh += len(places)
        if self._n_fresh <= MOST_FOLDERS:
            counts = [len(folders[place].names) for place in places]
            schema = {name: dtype for name, dtype in LISTED.items() if name != "number"}
            rows = pl.DataFrame({"digest": listed["digest"], "folder_key": keys, "n_files": counts}, schema=schema)
            self._fresh.append(rows.select(_number(), *rows.columns))
        return [(folders[place], key) for place, key in zip(places, keys, strict=True)]

    def quiet(self, sizes: Sequence[int]) -> pl.DataFrame:
        """Buckets in which all is as it was, with their files and instances; sizes: of what must be compared, by bucket."""
        counts = [pl.len().alias("n"), pl.col("n_files", "n_instances").sum(), pl.col("is_whole").all()]
        of_known = self._known.group_by("number").agg(*counts)
        of_seen = pl.concat(self._seen).group_by("number").agg(n_seen=pl.len())
        alone = pl.DataFrame({"number": [at for at, n in enumerate(sizes) if n == 0]}, schema={"number": pl.Int64})
        found = of_known.join(of_seen, on="number").join(alone, on="number", how="semi")
        quiet = found.filter(pl.col("is_whole") & (pl.col("n") == pl.col("n_seen"))).select(COUNTED.names())
        self._learnt.append(self._known.join(quiet, on="number", how="semi"))
        return quiet

    def seen(self, group: Group) -> pl.DataFrame:
        """Folders of a group of buckets that are listed as they were."""
        return _within(self._seen, group)

    def learn(
        self, group: Group, *, listing: pl.DataFrame, known: pl.DataFrame, unchanged: pl.DataFrame, is_quiet: bool
    ) -> None:
        """Remember the folders of a group of which every known file was found unchanged; is_quiet: no file was not.

        listing: names that were compared. A folder with anything beside its plain files is compared every night.
        """
        of_known = known.group_by("folder_key").agg(
            n_known=pl.len().cast(pl.Int64), n_instances=(pl.col("fate") == "instance").sum().cast(pl.Int64)
        )
        of_same = unchanged.group_by("folder_key").agg(n_same=pl.len().cast(pl.Int64))
        fresh = _within(self._fresh, group).join(of_known, on="folder_key").join(of_same, on="folder_key")
        fresh = fresh.filter(pl.col("n_known") == pl.col("n_files"), pl.col("n_same") == pl.col("n_files"))
        seen = self.seen(group).join(listing, on="folder_key", how="anti")
        names = [*LISTED.names(), "n_instances"]
        both = pl.concat([fresh.select(names), seen.select(names)])
        told = both.group_by("number").agg(n_told=pl.col("n_files").sum())
        held = known.group_by(_number()).agg(n_held=pl.len().cast(pl.Int64))
        whole = held.join(told, on="number").filter(pl.col("n_told") == pl.col("n_held"))["number"].to_list()
        self._learnt.append(both.with_columns(is_whole=pl.col("number").is_in(whole) & pl.lit(is_quiet)))

    def _source(self, commit: object) -> Path:
        told = json.dumps([self._rules, commit], default=str)
        return self._home / f"{hmac.digest(self._key, told.encode(), 'sha256').hex()[:32]}.parquet"

    def _digest(self, archive: str, folder: Folder) -> bytes:
        names = "\0".join((archive, folder.path, *folder.names)).encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(b"%d:" % len(names), digest_size=16, key=self._digest_key)
        digest.update(names)
        digest.update(array("q", folder.sizes))
        digest.update(array("q", folder.mtimes_ns))
        return digest.digest()


def _number() -> pl.Expr:
    return number_of(pl.col("folder_key"), "file").cast(pl.Int64).alias("number")


def _within(rows: Sequence[pl.DataFrame], group: Group) -> pl.DataFrame:
    return pl.concat(rows).filter(pl.col("number").is_in(group))
