"""Training alone under Prefect: everything up to the models, for a machine that has the GPU; nothing is tabulated."""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from flows.study import run_stage
from ospor_batch.config import read_study
from ospor_batch.plan import training_agenda


@flow(name="ospor-train", flow_run_name="train", persist_result=False)
def run_training(study_file: str) -> int:
    """Run every step up to training; return how many ran."""
    n_steps = 0
    for step in training_agenda(read_study(Path(study_file))):
        run_stage(study_file, stage=step.stage, center=step.center, run_id=step.run_id, is_sweep=False)
        n_steps += 1
    return n_steps
