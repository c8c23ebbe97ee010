"""Do again only what failed for a reason that may have passed: files, series to be predicted and series to be learned from."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from ospor_batch.config import Study
from ospor_batch.runs import Run
from ospor_batch.stages.status import newest_run
from ospor_batch.stages.train import REJECTS
from ospor_batch.store import Store


@dataclass(frozen=True)
class Failed:
    """Transient rejects: files and their centers; series to be predicted, series to be learned from, and their run."""

    n_files: int
    centers: tuple[str, ...]
    n_series: int
    n_training: int
    run_id: str | None

    @property
    def is_any(self) -> bool:
        return bool(self.n_files or self.n_series or self.n_training)


def failed(study: Study, store: Store) -> Failed:
    """What a retry would do again; lasting reasons are not among it."""
    files = store.current("reject").filter(pl.col("is_transient") & (pl.col("stage") == "crawl"))
    mine = files.filter(pl.col("center").is_in([center.name for center in study.centers]))
    run = newest_run(study, store)
    series, training = (0, 0) if run is None else (_transient(run, "infer"), _transient(run, "train", stem=REJECTS))
    at = run.run_id if run is not None and (series or training) else None
    return Failed(mine.height, tuple(mine["center"].unique().sort()), series, training, at)


def reopen(study: Study, store: Store) -> Failed:
    """Open the newest run at train or infer when it holds transient failures, so that the plan reads just those again.

    A training that gains series is fitted anew, and so is all that follows from it.
    """
    found = failed(study, store)
    run = newest_run(study, store)
    if run is not None and found.run_id == run.run_id:
        with store.lock():
            run.reopened(at="train" if found.n_training else "infer")
    return found


def _transient(run: Run, stage: str, *, stem: str | None = None) -> int:
    if not run.has("reject", stem=stem):
        return 0
    return run.read("reject", stem=stem).filter(pl.col("is_transient") & (pl.col("stage") == stage)).height
