"""A whole study under Prefect: one task is one stage for one center; frames never pass through it."""

from __future__ import annotations

from pathlib import Path

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from ospor_batch.config import read_study
from ospor_batch.plan import Step, agenda, run_step


@task(task_run_name="{stage}-{place}", retries=2, retry_delay_seconds=30, cache_policy=NO_CACHE, persist_result=False)
def run_stage(study_file: str, *, stage: str, place: str, center: str | None, run_id: str | None, is_sweep: bool) -> int:
    """Run one stage; return how many items it finished."""
    done = run_step(read_study(Path(study_file)), Step(stage, center=center, run_id=run_id), is_sweep=is_sweep)
    return sum(summary.done for summary in done.summaries)


@flow(name="ospor-study", flow_run_name="study", persist_result=False)
def run_study(study_file: str) -> int:
    """Run every step of the plan, in order; a finished step is not done again."""
    return run_plan(study_file, is_sweep=False)


def run_plan(study_file: str, *, is_sweep: bool) -> int:
    """Hand each step of the agenda to Prefect; return how many steps ran."""
    n_steps = 0
    for step in agenda(read_study(Path(study_file))):
        place = step.center or "study"
        run_stage(
            study_file, stage=step.stage, place=place, center=step.center, run_id=step.run_id, is_sweep=is_sweep
        )
        n_steps += 1
    return n_steps
