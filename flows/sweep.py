"""One incremental night under Prefect: what the archives received is read, and the tables are made anew."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from prefect import flow

from flows.study import run_plan
from ospor_batch.config import read_study
from ospor_batch.plan import refuse_outside_hours


@flow(name="ospor-sweep", flow_run_name="sweep", persist_result=False)
def run_sweep(study_file: str) -> int:
    """Run one night; refuse outside the study's allowed hours."""
    refuse_outside_hours(read_study(Path(study_file)), datetime.now().astimezone())
    return run_plan(study_file, is_sweep=True)
