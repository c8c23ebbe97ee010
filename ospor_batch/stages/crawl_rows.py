"""Rows of a crawl: keyed hashes, fates, and what of them differs from the catalog."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import polars as pl

from ospor_batch.archive.changes import TRANSIENT, Verdicts
from ospor_batch.contracts import contract
from ospor_batch.contracts.table import BROKEN, empty, part
from ospor_batch.pseudonym import normal_patient_id, pseudonym, pseudonyms
from ospor_batch.store import Change, full_key

IDENTITY = ["instance_key", "header_digest", "size_bytes"]
"""What a file keeps when it is moved or renamed."""


def file_keys(names: Iterable[tuple[str, str]], *, center: str, key: bytes, kind: str = "file") -> list[str]:
    """The keys of many files or folders, each named by archive root and path."""
    return pseudonyms((f"{archive}\0{path}" for archive, path in names), kind=kind, issuer=center, key=key)


def file_key(archive: str, path: str, *, center: str, key: bytes, kind: str = "file") -> str:
    """Keyed hash of archive root and path (kind "folder": of a folder)."""
    return file_keys([(archive, path)], center=center, key=key, kind=kind)[0]


def unread(verdicts: Verdicts) -> pl.DataFrame:
    """Rows of the files whose fate needs no reading."""
    shared = ["archive", "path", "size_bytes", "mtime_ns"]
    refused = verdicts.refused.select(
        *shared,
        "detail",
        reason=pl.col("refusal"),
        fate=pl.lit("reject"),
        is_transient=pl.col("refusal").is_in(TRANSIENT),
    )
    waiting = verdicts.waiting.select(*shared, fate=pl.lit("waiting"))
    return pl.concat([refused, waiting], how="diagonal").sort("archive", "path")


def keyed(rows: pl.DataFrame, *, center: str, key: bytes, reader_version: str) -> pl.DataFrame:
    """Add the keyed hashes, and turn instances that break the contract into rejects; the key is in memory alone."""

    def patients(numbers: list[str]) -> list[str | None]:
        normal = [normal_patient_id(number) for number in numbers]
        return [None if one is None else pseudonym(one, kind="patient", issuer=center, key=key) for one in normal]

    names = list(zip(rows["archive"].to_list(), rows["path"].to_list(), strict=True))
    in_folders = [(archive, path.rpartition("/")[0]) for archive, path in names]
    places = list(dict.fromkeys(in_folders))
    folders = dict(zip(places, file_keys(places, center=center, key=key, kind="folder"), strict=True))
    rows = rows.with_columns(
        *(_each(rows[f"{kind}_instance_uid"], kind, key=key) for kind in ("series", "study")),
        _each(rows["sop_instance_uid"], "instance", key=key),
        _mapped(rows["patient_id"], patients).alias("patient_key"),
        pl.Series("file_key", file_keys(names, center=center, key=key), pl.String),
        pl.Series("folder_key", [folders[place] for place in in_folders], pl.String),
        center=pl.lit(center),
        reader_version=pl.lit(reader_version),
    )
    return _refuse_broken(rows)


def changes(fresh: pl.DataFrame, known: pl.DataFrame, vanished: pl.DataFrame) -> dict[str, Change]:
    """What differs from the catalog; a reject that was tried again in vain is no change."""
    if known.height + vanished.height == 0:
        return as_new(fresh)
    files = fresh.select(contract("file").columns)
    changed, rows = files, fresh
    if known.height:
        changed = files.join(known, on=files.columns, how="anti", nulls_equal=True, maintain_order="left")
        rows = fresh.join(changed, on="file_key", how="semi", maintain_order="left")
    before = known.join(changed, on="file_key", how="semi")
    gone = pl.concat([before, vanished])

    def retired(fate: str) -> pl.DataFrame:
        still = rows.filter(pl.col("fate") == fate)
        return gone.filter(pl.col("fate") == fate).join(still, on=["file_key", "series_key"], how="anti", nulls_equal=True)

    ended = retired("reject").select(
        "center", stage=pl.lit("crawl"), level=pl.lit("file"), item_key="file_key", scope="archive"
    )
    return {
        "file": Change(changed, vanished.select(full_key("file"))),
        "instance": Change(_instances(rows) if rows.height else empty("instance"), retired("instance"), is_parted=True),
        "reject": Change(_rejects(rows) if rows.height else empty("reject"), ended),
    }


def as_new(fresh: pl.DataFrame) -> dict[str, Change]:
    """The rows of files of which the catalog knows none."""
    return {
        "file": Change(fresh.select(contract("file").columns)),
        "instance": Change(_instances(fresh), is_parted=True),
        "reject": Change(_rejects(fresh)),
    }


def identities(instances: pl.DataFrame) -> pl.Series:
    """One number an instance, the same for the same object wherever its file lies; good for counting only."""
    return instances.select(pl.struct(IDENTITY).hash(seed=0).alias("what")).to_series()


def _each(values: pl.Series, kind: str, *, key: bytes) -> pl.Series:
    def keys(identifiers: list[str]) -> list[str]:
        return pseudonyms(identifiers, kind=kind, issuer="", key=key)

    return _mapped(values, keys).alias(f"{kind}_key")


def _mapped(values: pl.Series, to: Callable[[list[str]], Sequence[str | None]]) -> pl.Series:
    """Apply to all distinct values, once; null stays null."""
    different = values.unique(maintain_order=True).drop_nulls()
    found = pl.Series(to(different.to_list()), dtype=pl.String)
    return found if len(found) == len(values) else values.replace_strict(different, found, default=None)


def _refuse_broken(rows: pl.DataFrame) -> pl.DataFrame:
    """Instance rows that break the contract become rejects of the file."""
    if not (rows["fate"] == "instance").all():
        rows = rows.with_columns(series_key=pl.when(pl.col("fate") == "instance").then("series_key"))
    broken = part(_instances(rows), "instance").refused
    if broken.height == 0:
        return rows
    joined = rows.join(broken.select("file_key", BROKEN), on="file_key", how="left", maintain_order="left")
    is_broken = pl.col(BROKEN).is_not_null()
    return joined.with_columns(
        fate=pl.when(is_broken).then(pl.lit("reject")).otherwise("fate"),
        reason=pl.when(is_broken).then(pl.lit("contract")).otherwise("reason"),
        detail=pl.when(is_broken).then(BROKEN).otherwise("detail"),
        is_transient=pl.when(is_broken).then(pl.lit(value=False)).otherwise("is_transient"),
        series_key=pl.when(~is_broken).then("series_key"),
    ).drop(BROKEN)


def _instances(rows: pl.DataFrame) -> pl.DataFrame:
    is_instance = rows["fate"] == "instance"
    # by their names alone: as expressions, so many columns take ten times as long
    return (rows if is_instance.all() else rows.filter(is_instance))[list(contract("instance").columns)]


def _rejects(rows: pl.DataFrame) -> pl.DataFrame:
    found = rows.filter(pl.col("fate") == "reject").with_columns(
        stage=pl.lit("crawl"), level=pl.lit("file"), item_key="file_key", scope="archive"
    )
    return found.select(contract("reject").columns)
