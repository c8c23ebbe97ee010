"""Crawl one center's archives: every file an instance, a typed reject, or waiting until it has arrived."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from ospor_batch.archive.changes import Verdicts, compare
from ospor_batch.archive.header import reader_version
from ospor_batch.archive.reading import Listing, part_schema, read_files, refused_row
from ospor_batch.archive.walk import Listed, partitions, walk
from ospor_batch.compute.executor import Executor
from ospor_batch.config import Study
from ospor_batch.contracts import contract
from ospor_batch.contracts.table import BROKEN, empty, part, schema_of
from ospor_batch.errors import ArchiveError, ItemRefused, LedgerError, StorageError, StudyError
from ospor_batch.pseudonym import normal_patient_id, pseudonym
from ospor_batch.stages.summary import Progress, StageSummary
from ospor_batch.store import Change, Store, SweepCounts, storage_errors, write_rows, write_text

PART_FILES = 1000  # a second or two of reading: what a killed crawl may have to repeat
LISTING = pl.Schema(
    {name: schema_of("file")[name] for name in ("archive", "path", "size_bytes", "mtime_ns")}
    | {"refusal": pl.String(), "detail": pl.String(), "is_folder": pl.Boolean()}
)
NANOSECONDS_PER_MINUTE = 60 * 10**9


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
        listing = _list(study, center, skip=study.workspace)
        known = store.current("file", center=center)
        _refuse_other_key(known, center=center, key=key)
        settled = time.time_ns() - study.sweep.settle_minutes * NANOSECONDS_PER_MINUTE if is_sweep else None
        verdicts = compare(listing, known, reader_version=reader_version(), settled_before_ns=settled)
        staging = store.private.absolute() / "staging" / center
        read = _read(study, verdicts.read, staging=staging, executor=executor, progress=progress)
        fresh = _with_keys(pl.concat([read, _unread(verdicts)], how="diagonal"), center=center, key=key)
        fresh = _refuse_broken_rows(fresh)
        _check(listing, fresh, verdicts)
        store.commit(_changes(fresh, known, verdicts), stage="crawl", center=center, counts=_counts(verdicts))
        with storage_errors():
            shutil.rmtree(staging, ignore_errors=True)
    return _summary(center, fresh, verdicts).check()


def read_partition(work_list: str) -> int:
    """Read the files of a work list and write their rows beside it, whole or not at all; runs on a worker."""
    listed = Path(work_list)
    work = json.loads(listed.read_text(encoding="utf-8"))
    rows = read_files([(path, size, mtime) for path, size, mtime in work["files"]], root=Path(work["root"]))
    write_rows(rows, target=listed.with_name("rows.parquet"))
    return rows.height


def _list(study: Study, center: str, *, skip: Path) -> pl.DataFrame:
    found: list[tuple[str, Listed]] = []
    for archive in study.center(center).archives:
        where = f"center {center}: centers.{center}.archives names {archive!r}"
        root = study.resolve(archive)
        if "://" in archive:
            raise ArchiveError(f"{where}: this version reads local folders only")
        if not root.is_dir():
            what = "is a file, expected a folder" if root.exists() else "is not there"
            raise ArchiveError(f"{where}: {root} {what}; nothing was changed")
        try:
            files = list(walk(root, skip=[skip]))
        except ArchiveError as error:
            raise ArchiveError(f"{where}: {error}; nothing was changed") from None
        if not files:
            raise ArchiveError(f"{where}: {root} holds no file; nothing was changed (is the share mounted?)")
        found += [(archive, file) for file in files]
    rows = [(a, f.path, f.size_bytes, f.mtime_ns, f.refusal, f.detail, f.is_folder) for a, f in found]
    return pl.DataFrame(rows, schema=LISTING, orient="row").sort("archive", "path")


def _refuse_other_key(known: pl.DataFrame, *, center: str, key: bytes) -> None:
    """StudyError when the catalog was written with another pseudonym key: mixed keys would split every patient."""
    for archive, path, file_key in known.head(1).select("archive", "path", "file_key").iter_rows():
        if _file_key(archive, path, center=center, key=key) != file_key:
            raise StudyError(
                "study.pseudonym_key: the catalog of this workspace was written with another key; "
                "give that key, or start a new workspace"
            )


def _file_key(archive: str, path: str, *, center: str, key: bytes, kind: str = "file") -> str:
    return pseudonym(f"{archive}\0{path}", kind=kind, issuer=center, key=key)


def _read(study: Study, listing: pl.DataFrame, *, staging: Path, executor: Executor, progress: Progress | None) -> pl.DataFrame:
    """Rows of every file to read, from parts that a killed crawl left and from new ones."""
    parts: list[tuple[str, Path]] = []
    for (archive,), files in listing.group_by("archive", maintain_order=True):
        root = study.resolve(str(archive)).absolute()
        items = [Listed(*row) for row in files.select("path", "size_bytes", "mtime_ns").iter_rows()]
        for run in partitions(items, size=PART_FILES):
            listings = [(item.path, item.size_bytes, item.mtime_ns) for item in run]
            parts.append((str(archive), _work_list(listings, root=root, staging=staging)))
    todo = [str(path) for _, path in parts if not path.with_name("rows.parquet").is_file()]
    _work(todo, executor=executor, n_parts=len(parts), progress=progress)
    rows = [pl.read_parquet(path.with_name("rows.parquet")).with_columns(archive=pl.lit(a)) for a, path in parts]
    return pl.concat(rows) if rows else pl.DataFrame(schema={**part_schema(), "archive": pl.String()})


def _work_list(files: Sequence[Listing], *, root: Path, staging: Path) -> Path:
    text = json.dumps({"root": str(root), "reader": reader_version(), "files": files})
    target = staging / hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32] / "files.json"
    if not target.is_file():
        write_text(text, target=target)
    return target


def _work(todo: Sequence[str], *, executor: Executor, n_parts: int, progress: Progress | None) -> None:
    done = n_parts - len(todo)
    for outcome in executor.map(read_partition, todo):
        if outcome.error == StorageError.__name__:
            raise StorageError("a worker found the disk full; free space and run again: finished parts are kept")
        if outcome.error is not None:
            _bisect(Path(outcome.item), executor=executor)
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
        halves = [_work_list(h, root=Path(work["root"]), staging=work_list.parent) for h in (files[:middle], files[middle:])]
        _work([str(half) for half in halves], executor=executor, n_parts=2, progress=None)
        rows = pl.concat([pl.read_parquet(half.with_name("rows.parquet")) for half in halves])
    write_rows(rows, target=target)


def _unread(verdicts: Verdicts) -> pl.DataFrame:
    """Rows of the files whose fate needs no reading."""
    shared = ["archive", "path", "size_bytes", "mtime_ns"]
    refused = verdicts.refused.select(
        *shared,
        "detail",
        reason=pl.col("refusal"),
        fate=pl.lit("reject"),
        is_transient=pl.col("refusal").is_in(["permission_denied", "read_error"]),
    )
    waiting = verdicts.waiting.select(*shared, fate=pl.lit("waiting"))
    return pl.concat([refused, waiting], how="diagonal").sort("archive", "path")


def _with_keys(rows: pl.DataFrame, *, center: str, key: bytes) -> pl.DataFrame:
    """Add the keyed hashes; only the driver holds the key."""

    def hashed(column: str, kind: str) -> pl.Series:
        values = [None if v is None else pseudonym(v, kind=kind, issuer="", key=key) for v in rows[column]]
        return pl.Series(f"{kind}_key", values, pl.String)

    people = [normal_patient_id(number) for number in rows["patient_id"]]
    names = list(zip(rows["archive"], rows["path"], strict=True))
    folders = [(archive, path.rpartition("/")[0]) for archive, path in names]
    return rows.with_columns(
        hashed("sop_instance_uid", "instance"),
        hashed("series_instance_uid", "series"),
        hashed("study_instance_uid", "study"),
        pl.Series("patient_key", [p and pseudonym(p, kind="patient", issuer=center, key=key) for p in people], pl.String),
        pl.Series("file_key", [_file_key(a, p, center=center, key=key) for a, p in names], pl.String),
        pl.Series("folder_key", [_file_key(a, f, center=center, key=key, kind="folder") for a, f in folders], pl.String),
        center=pl.lit(center),
        reader_version=pl.lit(reader_version()),
    )


def _refuse_broken_rows(rows: pl.DataFrame) -> pl.DataFrame:
    """Instance rows that break the contract become rejects of the file."""
    broken = part(_instances(rows), "instance").refused
    if broken.height == 0:
        return rows
    rules = broken.select("file_key", BROKEN)
    joined = rows.join(rules, on="file_key", how="left", maintain_order="left")
    is_broken = pl.col(BROKEN).is_not_null()
    return joined.with_columns(
        fate=pl.when(is_broken).then(pl.lit("reject")).otherwise("fate"),
        reason=pl.when(is_broken).then(pl.lit("contract")).otherwise("reason"),
        detail=pl.when(is_broken).then(BROKEN).otherwise("detail"),
        is_transient=pl.when(is_broken).then(pl.lit(value=False)).otherwise("is_transient"),
    ).drop(BROKEN)


def _instances(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.filter(pl.col("fate") == "instance").select(contract("instance").columns)


def _rejects(rows: pl.DataFrame) -> pl.DataFrame:
    found = rows.filter(pl.col("fate") == "reject").with_columns(
        stage=pl.lit("crawl"), level=pl.lit("file"), item_key="file_key", scope="archive"
    )
    return found.select(contract("reject").columns)


def _changes(fresh: pl.DataFrame, known: pl.DataFrame, verdicts: Verdicts) -> dict[str, Change]:
    """What differs from the catalog; a reject that was tried again in vain is no change."""
    files = fresh.select(contract("file").columns)
    changed = files.join(known, on=files.columns, how="anti", nulls_equal=True, maintain_order="left")
    rows = fresh.join(changed, on="file_key", how="semi", maintain_order="left")
    before = known.join(changed, on="file_key", how="semi")
    gone = pl.concat([before, verdicts.vanished])

    def retired(fate: str) -> pl.DataFrame:
        still = rows.filter(pl.col("fate") == fate)
        return gone.filter(pl.col("fate") == fate).join(still, on="file_key", how="anti")

    ended = retired("reject").select(
        "center", stage=pl.lit("crawl"), level=pl.lit("file"), item_key="file_key", scope="archive"
    )
    return {
        "file": Change(changed, verdicts.vanished.select("center", "file_key")),
        "instance": Change(_instances(rows) if rows.height else empty("instance"), retired("instance")),
        "reject": Change(_rejects(rows) if rows.height else empty("reject"), ended),
    }


def _check(listing: pl.DataFrame, fresh: pl.DataFrame, verdicts: Verdicts) -> None:
    """LedgerError unless every listed file stands in exactly one place."""
    judged = fresh.height + verdicts.unchanged.height
    fates = fresh["fate"].value_counts().rows_by_key("fate", unique=True)
    if judged != listing.height or not set(fates) <= {"instance", "reject", "waiting"}:
        raise LedgerError(f"crawl: {listing.height} files listed, but {judged} judged")


def _counts(verdicts: Verdicts) -> SweepCounts:
    fresh = pl.concat([verdicts.read, verdicts.refused, verdicts.waiting])
    is_new, is_same = pl.col("is_known").not_(), pl.col("is_same").fill_null(value=False)
    return SweepCounts(
        n_new=fresh.filter(is_new).height,
        n_changed=fresh.filter(~is_new & ~is_same).height,
        n_vanished=verdicts.vanished.height,
        n_unchanged=verdicts.unchanged.height + verdicts.kept.height + fresh.filter(~is_new & is_same).height,
        n_read=verdicts.read.height,
    )


def _summary(center: str, fresh: pl.DataFrame, verdicts: Verdicts) -> StageSummary:
    """The whole catalog's ledger; failed: what may succeed on another try."""
    counts = _counts(verdicts)
    files = pl.concat([fresh.select(contract("file").columns), verdicts.unchanged, verdicts.kept])
    transient = fresh.filter((pl.col("fate") == "reject") & pl.col("is_transient")).height
    transient += verdicts.kept.filter(pl.col("reason").is_in(["permission_denied", "read_error"])).height
    done = files.filter(pl.col("fate") == "instance").height
    notes = {
        "new": counts.n_new,
        "changed": counts.n_changed,
        "vanished": counts.n_vanished,
        "unchanged": counts.n_unchanged,
        "read": counts.n_read,
        "waiting": verdicts.waiting.height,
        "unreadable folders": verdicts.refused.filter("is_folder").height,
    }
    return StageSummary(
        "crawl", center, "file", files.height, done, files.height - done - transient, transient, tuple(notes.items())
    )
