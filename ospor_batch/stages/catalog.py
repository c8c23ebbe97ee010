"""Catalog one center: its current instances grouped into graded series, and where their bytes lie."""

from __future__ import annotations

import polars as pl

from ospor_batch.catalog.series import Catalogued, catalog_center
from ospor_batch.config import Study
from ospor_batch.errors import LedgerError
from ospor_batch.stages.summary import StageSummary
from ospor_batch.store import Change, Store, SweepCounts


def catalog(study: Study, center: str, *, store: Store, key: bytes, split_key: bytes) -> StageSummary:  # noqa: ARG001 -- every stage takes the study's key
    """Group, measure and grade; only series that differ from the catalog are written."""
    name = study.center(center).name
    with store.lock():
        instances = store.current("instance", center=name)
        found = catalog_center(instances, store.current("file", center=name), center=name, split_key=split_key)
        here = pl.col("center") == name
        changes = {
            "series": store.difference("series", found.series, scope=here),
            "locator": store.difference("locator", found.locator, scope=here),
            "reject": store.difference("reject", found.rejects, scope=here & (pl.col("stage") == "catalog")),
        }
        _check(instances, found)
        known = store.current("series", center=name, columns=["series_key"])
        store.commit(changes, stage="catalog", center=name, counts=_counts(changes["series"], known=known, found=found))
    return _summary(name, instances, found).check()


def _check(instances: pl.DataFrame, found: Catalogued) -> None:
    """LedgerError unless every instance stands in a series or in a reject."""
    n_kept, n_refused = int(found.series["n_instances"].sum()), found.rejects.height
    if n_kept + n_refused != instances.height:
        raise LedgerError(f"catalog: {instances.height} instances, but {n_kept} in series + {n_refused} refused")


def _counts(change: Change, *, known: pl.DataFrame, found: Catalogued) -> SweepCounts:
    n_new = change.rows.join(known, on="series_key", how="anti").height
    return SweepCounts(
        n_new=n_new,
        n_changed=change.rows.height - n_new,
        n_vanished=0 if change.retired is None else change.retired.height,
        n_unchanged=found.series.height - change.rows.height,
    )


def _summary(center: str, instances: pl.DataFrame, found: Catalogued) -> StageSummary:
    grades = found.series["grade"].value_counts().sort("grade")
    notes = [("series", found.series.height), *((f"series {grade}", n) for grade, n in grades.iter_rows())]
    n_kept = int(found.series["n_instances"].sum())
    return StageSummary("catalog", center, "instance", instances.height, n_kept, found.rejects.height, 0, tuple(notes))
