"""What was refused, at which stage and why; the path only on request."""

from __future__ import annotations

from typing import Any

import polars as pl

from ospor_batch.config import Study
from ospor_batch.stages.status import newest_run
from ospor_batch.store import Store


def list_rejects(study: Study, *, reason: str | None, stage: str | None, locate: bool) -> list[dict[str, Any]]:
    """Every reject of catalog and newest run as dicts with a column `where`: the key, or the path when locate is set.

    A center that was taken out of the study, or renamed, is not among them, though the catalog keeps what it holds.
    """
    store = Store(study.workspace)
    rows = store.current("reject").filter(pl.col("center").is_in([center.name for center in study.centers]))
    run = newest_run(study, store)
    for stem in ("train_reject", "reject"):
        if run is not None and run.has("reject", stem=stem):
            rows = pl.concat([rows, run.read("reject", stem=stem)])
    if reason is not None:
        rows = rows.filter(pl.col("reason") == reason)
    if stage is not None:
        rows = rows.filter(pl.col("stage") == stage)
    rows = rows.with_columns(where=pl.col("item_key"))
    if locate:
        paths = store.current("file", columns=["center", "file_key", "archive", "path"]).select(
            "center", item_key="file_key", located=pl.col("archive") + "/" + pl.col("path")
        )
        rows = rows.join(paths, on=["center", "item_key"], how="left")
        rows = rows.with_columns(where=pl.coalesce("located", "item_key")).drop("located")
    return rows.sort("center", "stage", "level", "reason", "item_key").to_dicts()
