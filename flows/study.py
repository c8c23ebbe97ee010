"""A whole study under Prefect: one task is one stage for one center; frames never pass through it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import task_run

from flows.counts import show_counts
from ospor_batch.config import read_study
from ospor_batch.errors import ArchiveError, OsporError, StorageError, nameless
from ospor_batch.plan import Step, agenda, run_step, tidy_up


def stage_and_place() -> str:
    """Name a task run after its stage and center."""
    given = task_run.parameters
    return f"{given['stage']}-{given['center'] or 'study'}"


def is_worth_another_try(_task: Any, _run: Any, state: Any) -> bool:
    """Only a full disk or a failure of no known kind may mend itself; a wrong study file does not."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, StorageError) or type(error) is OsporError


@task(
    task_run_name=stage_and_place,
    retries=2,
    retry_delay_seconds=30,
    retry_condition_fn=is_worth_another_try,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def run_stage(study_file: str, *, stage: str, center: str | None, run_id: str | None, is_sweep: bool) -> int:
    """Run one stage; return how many items it finished."""
    failed: OsporError
    try:
        done = run_step(read_study(Path(study_file)), Step(stage, center=center, run_id=run_id), is_sweep=is_sweep)
    except OsporError as error:
        failed = error
    except Exception as error:  # noqa: BLE001 -- Prefect keeps an exception's text, which may quote a patient
        failed = nameless(error)
    else:
        show_counts(done)
        return sum(summary.done for summary in done.summaries)
    raise failed


def run_plan(study_file: str, *, is_sweep: bool) -> int:
    """Hand each step of the agenda to Prefect; return how many steps ran.

    In a sweep, a center whose archive or export is missing stops alone: the others are brought up to date, then the
    error is raised, and nothing is tabulated.
    """
    n_steps = 0
    stopped: dict[str, ArchiveError] = {}
    for step in agenda(read_study(Path(study_file)), stopped=stopped):
        try:
            run_stage(study_file, stage=step.stage, center=step.center, run_id=step.run_id, is_sweep=is_sweep)
        except ArchiveError as error:
            if not is_sweep or step.center is None:
                raise
            stopped[step.center] = error
            continue
        n_steps += 1
    tidy_up(read_study(Path(study_file)))
    if stopped:
        raise ArchiveError("; ".join(str(error) for error in stopped.values()))
    return n_steps


@flow(name="ospor-study", flow_run_name="study", persist_result=False)
def run_study(study_file: str) -> int:
    """Run every step of the plan, in order; a finished step is not done again."""
    return run_plan(study_file, is_sweep=False)
