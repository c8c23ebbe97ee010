"""Do again only what failed for a reason that may have passed: files that could not be read, shards whose worker died."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from ospor_batch.config import Study
from ospor_batch.stages.status import newest_run
from ospor_batch.store import Store


@dataclass(frozen=True)
class Failed:
    """Transient rejects: how many files, at which centers; how many series of which run."""

    n_files: int
    centers: tuple[str, ...]
    n_series: int
    run_id: str | None


def failed(study: Study, store: Store) -> Failed:
    """What a retry would do again; lasting reasons are not among it."""
    files = store.current("reject").filter(pl.col("is_transient") & (pl.col("stage") == "crawl"))
    mine = files.filter(pl.col("center").is_in([center.name for center in study.centers]))
    run = newest_run(study, store)
    series = 0
    if run is not None and run.has("reject"):
        series = run.read("reject").filter(pl.col("is_transient") & (pl.col("stage") == "infer")).height
    return Failed(
        mine.height, tuple(mine["center"].unique().sort()), series, run.run_id if run is not None and series else None
    )


def reopen(study: Study, store: Store) -> Failed:
    """Open the newest run at infer when it holds transient failures, so that running the plan reads just those again."""
    found = failed(study, store)
    run = newest_run(study, store)
    if run is not None and found.run_id == run.run_id:
        with store.lock():
            run.reopened(at="infer")
    return found
