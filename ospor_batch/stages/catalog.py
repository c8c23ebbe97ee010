"""Catalog one center: its current instances grouped into graded series, and where their bytes lie."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import polars as pl

from ospor_batch.archive.same_bytes import content_digests
from ospor_batch.catalog.contrast import contrast_counts
from ospor_batch.catalog.grouping import suspects
from ospor_batch.catalog.rules import Rules
from ospor_batch.catalog.series import Catalogued, Settled, catalog_center, settle
from ospor_batch.config import Study
from ospor_batch.contracts import contract
from ospor_batch.contracts.table import empty
from ospor_batch.errors import LedgerError
from ospor_batch.stages.reopened import BATCH_ROWS, Reopening
from ospor_batch.stages.site_rules import read_rules
from ospor_batch.stages.summary import StageSummary
from ospor_batch.store import Change, Store, SweepCounts, Writing, bucket_groups

FILE = ["center", "file_key", "folder_key", "archive", "path", "size_bytes", "reason", "content_digest"]
DECIDED_BY = ("instance", "series", "locator")  # contracts whose change asks for everything anew


@dataclass(frozen=True)
class _Catalog:
    """One catalog stage under way; known: the series as they stand."""

    study: Study
    store: Store
    center: str
    key: bytes
    split_key: bytes
    rules: Rules
    known: pl.DataFrame


def catalog(study: Study, center: str, *, store: Store, key: bytes, split_key: bytes) -> StageSummary:
    """Group, measure and grade the series that new files reopen; all of them when the rules are others than last time."""
    name = study.center(center).name
    rules = read_rules(study)
    digest = _rules_digest(rules, split_key=split_key)
    with store.lock():
        of = _Catalog(study, store, name, key, split_key, rules, store.current("series", center=name))
        reopening = Reopening(store, name, key=key)
        last = store.last_commit("catalog", center=name)
        is_whole = last is None or last["rules_digest"] != digest
        batches = reopening.everything() if last is None or is_whole else reopening.after(int(str(last["sweep_number"])))
        with store.writing("catalog", center=name) as writing:
            settled, change = _recompute(of, batches, reopening=reopening, writing=writing, is_whole=is_whole)
            counts = _counts(change, known=of.known, n_series=settled.series.height)
            writing.finish(counts, rules_digest=digest, is_recorded=bool(batches))
        n_instances, n_refused = _n_instances(store, name), _n_refused(store, name)
    return _summary(name, settled, n_instances=n_instances, n_refused=n_refused).check()


def _recompute(
    of: _Catalog, batches: list[pl.DataFrame], *, reopening: Reopening, writing: Writing, is_whole: bool
) -> tuple[Settled, Change]:
    """Judge the series of every batch, settle them with those left as they were, and append what differs."""
    found = [_judge(of, own, context=reopening.context(own), writing=writing) for own in batches]
    own = pl.concat([pl.DataFrame(schema={"series_key": pl.String()}), *batches])
    untouched = of.known.join(own, left_on="whole_series_key", right_on="series_key", how="anti")
    settled = settle(pl.concat([untouched, *(batch.series for batch in found)]))
    if not batches:
        return settled, Change(empty("series"))
    here = pl.col("center") == of.center
    rejects = pl.concat([batch.rejects for batch in found]).sort("item_key")
    ours = here & (pl.col("stage") == "catalog")
    if not is_whole:
        files = of.store.ever("instance", center=of.center, columns=["file_key"], among=own)["file_key"]
        ours &= pl.col("item_key").is_in(files.implode())
    change = of.store.difference("series", settled.series, scope=here, center=of.center)
    writing.append(
        {
            "series": change,
            "collision": of.store.difference("collision", settled.collisions, scope=here, center=of.center),
            "unlisted": of.store.difference("unlisted", settled.unlisted, scope=here, center=of.center),
            "reject": of.store.difference("reject", rejects, scope=ours, center=of.center),
        }
    )
    return settled, change


def _judge(of: _Catalog, own: pl.DataFrame, *, context: pl.DataFrame, writing: Writing) -> Catalogued:
    """Judge one batch and append its locator; context: series of masks, which are judged for their own sake elsewhere."""
    instances = of.store.current("instance", center=of.center, among=pl.concat([own, context]))
    files = _files(of, instances)
    found = catalog_center(
        instances,
        files,
        center=of.center,
        split_key=of.split_key,
        key=of.key,
        rules=of.rules,
        contents=_contents(of, instances, files),
    )
    mine = instances.join(own, on="series_key", how="semi")
    series = found.series.join(own, left_on="whole_series_key", right_on="series_key", how="semi")
    rejects = found.rejects.join(mine, left_on="item_key", right_on="file_key", how="semi")
    _check(mine, series, rejects)
    before = of.known.join(own, left_on="whole_series_key", right_on="series_key", how="semi")
    parts = pl.concat([before.select("series_key"), series.select("series_key")]).unique()
    locator = found.locator.join(series, on="series_key", how="semi")
    here = pl.col("center") == of.center
    writing.append({"locator": of.store.difference("locator", locator, scope=here, center=of.center, among=parts)})
    return Catalogued(series, empty("locator"), rejects, found.collisions, found.unlisted)


def _files(of: _Catalog, instances: pl.DataFrame) -> pl.DataFrame:
    """The files of instances and those that may be masks beside them; of a folder of any size, no others."""
    folders = instances.select("folder_key").unique()
    files = of.store.current("file", center=of.center, columns=FILE, among=folders)
    return files.filter(pl.col("file_key").is_in(instances["file_key"].implode()) | pl.col("content_digest").is_not_null())


def _contents(of: _Catalog, instances: pl.DataFrame, files: pl.DataFrame) -> pl.DataFrame:
    """What tells the bytes of suspected copies apart: file_key and content; what cannot be read is like nothing else."""
    found = [pl.DataFrame(schema={"file_key": pl.String, "content": pl.String})]
    where = files.join(suspects(instances), on="file_key", how="semi").sort("archive", "path")
    for (archive,), some in where.group_by("archive", maintain_order=True):
        listed = list(some.select("path", "size_bytes").iter_rows())
        digests = content_digests(listed, root=of.study.archive_root(str(archive)), cache=of.store.cache)
        found.append(some.select("file_key", content=pl.Series(digests, dtype=pl.String).fill_null(some["file_key"])))
    return pl.concat(found)


def _rules_digest(rules: Rules, *, split_key: bytes) -> str:
    told = [rules.digest, hashlib.sha256(split_key).hexdigest(), *(contract(name).digest for name in DECIDED_BY)]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def _check(instances: pl.DataFrame, series: pl.DataFrame, rejects: pl.DataFrame) -> None:
    """LedgerError unless every instance stands in a series or in a reject."""
    n_kept, n_refused = int(series["n_instances"].sum()), rejects.height
    if n_kept + n_refused != instances.height:
        raise LedgerError(f"catalog: {instances.height} instances, but {n_kept} in series + {n_refused} refused")


def _n_instances(store: Store, center: str) -> int:
    """Current instances, counted group by group of buckets."""

    def count(group: range) -> int:
        return store.current("instance", center=center, buckets=group, columns=["file_key"], is_sorted=False).height

    return sum(count(group) for group in bucket_groups(store.sizes("instance", center=center), most=10 * BATCH_ROWS))


def _n_refused(store: Store, center: str) -> int:
    return store.current("reject", center=center, columns=["stage"]).filter(pl.col("stage") == "catalog").height


def _counts(change: Change, *, known: pl.DataFrame, n_series: int) -> SweepCounts:
    n_new = change.rows.join(known, on="series_key", how="anti").height
    return SweepCounts(
        n_new=n_new,
        n_changed=change.rows.height - n_new,
        n_vanished=0 if change.retired is None else change.retired.height,
        n_unchanged=n_series - change.rows.height,
    )


def _summary(center: str, settled: Settled, *, n_instances: int, n_refused: int) -> StageSummary:
    grades = settled.series["grade"].value_counts().sort("grade")
    notes = [("series", settled.series.height), *((f"series {grade}", n) for grade, n in grades.iter_rows())]
    notes += _remarks(settled)
    n_kept = int(settled.series["n_instances"].sum())
    return StageSummary("catalog", center, "instance", n_instances, n_kept, n_refused, 0, tuple(notes))


def _remarks(found: Settled) -> list[tuple[str, int]]:
    """Contrast evidence by kind, values that no list knows, and collisions of identity; nothing where there is none."""
    evidence = contrast_counts(found.series)
    words = found.unlisted.group_by("kind").len().sort("kind")
    return [
        *((f"contrast {kind}", n) for kind, n in evidence.select("contrast_evidence", "n_series").iter_rows()),
        *((f"unlisted {kind}", n) for kind, n in words.iter_rows()),
        *([("identity collisions", found.collisions.height)] if found.collisions.height else []),
    ]
