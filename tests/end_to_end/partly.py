"""A study run up to a stage: what comes after it is proved elsewhere, and takes as long as all before."""

from __future__ import annotations

from ospor_batch.config import Study
from ospor_batch.plan import agenda, run_step
from ospor_batch.runs import Run, read_run
from ospor_batch.store import Store


def run_to(study: Study, stage: str) -> Run:
    """The run as it stands when a stage of it is done."""
    for step in agenda(study):
        run_step(study, step)
        if step.stage == stage:
            assert step.run_id is not None
            return read_run(Store(study.workspace), step.run_id)
    raise AssertionError(f"no {stage} on the agenda")
