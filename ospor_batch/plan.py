"""The order of stages, once; the command line and the flows both read it.

crawl, catalog and label run per center and fill the catalog; match, infer, evaluate and report run per study on a
run that is pinned to the catalog as it stood.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, time
from typing import Literal

import polars as pl

from ospor_batch.compute.cluster import open_executor
from ospor_batch.compute.executor import Executor
from ospor_batch.config import Study, read_key
from ospor_batch.errors import ArchiveError, NothingToDoError, StudyError
from ospor_batch.runs import Run, latest_run, open_run, read_run, tidy, unfinished_run
from ospor_batch.stages.catalog import catalog
from ospor_batch.stages.crawl import crawl
from ospor_batch.stages.drift import refuse_drift
from ospor_batch.stages.evaluate import evaluate
from ospor_batch.stages.explain import explain, explains
from ospor_batch.stages.infer import infer
from ospor_batch.stages.label import label
from ospor_batch.stages.locked_models import keep_models
from ospor_batch.stages.match import match, matched
from ospor_batch.stages.report import report
from ospor_batch.stages.specs import digests
from ospor_batch.stages.substudies import compare_substudies
from ospor_batch.stages.summary import Progress, StageSummary
from ospor_batch.stages.train import train
from ospor_batch.store import Store

CENTER_STAGES = ("crawl", "catalog", "label")
RUN_STAGES = ("match", "train", "infer", "evaluate", "explain", "report")
STAGES = CENTER_STAGES + RUN_STAGES
Scope = Literal["center", "study"]


@dataclass(frozen=True)
class Step:
    """One stage for one center, or one stage of one run."""

    stage: str
    center: str | None = None
    run_id: str | None = None
    recompute: bool = False  # infer forgets what is stored of its items first

    @property
    def scope(self) -> Scope:
        return "center" if self.center is not None else "study"

    @property
    def title(self) -> str:
        return f"{self.stage} {self.center}" if self.center else self.stage


@dataclass(frozen=True)
class Finished:
    """A step that ran, with its ledger."""

    step: Step
    summaries: tuple[StageSummary, ...]


def agenda(study: Study, *, stopped: Collection[str] = ()) -> Iterator[Step]:
    """The steps of a study in order; lazily, since a run is named after the catalog that the first steps fill.

    A run that was begun and not completed is finished first, on the snapshot it is pinned to. stopped: centers whose
    further steps are left out, looked at before each step; while there is one, no new run is begun.
    """
    store = Store(study.workspace)
    begun = unfinished_run(study, store)
    if begun is not None:
        yield from run_steps(study, begun)
    for center in study.centers:
        for stage in CENTER_STAGES:
            if center.name not in stopped:
                yield Step(stage, center=center.name)
    if not stopped:
        yield from run_steps(study, begin_run(study))


def training_agenda(study: Study) -> Iterator[Step]:
    """The steps up to the models; StudyError when the study trains nothing."""
    if "train" not in run_stages(study):
        raise StudyError("train: no recipe of this study is trained; a rule needs no training, and a model is given already")
    for step in agenda(study):
        yield step
        if step.stage == "train":
            return


def begin_run(study: Study) -> Run:
    """The run on the catalog as it stands; begun when it is not there yet."""
    return open_run(study, Store(study.workspace), models=digests(study))


def run_stages(study: Study) -> tuple[str, ...]:
    """The stages of a run of this study, in order; those that have nothing to do in it are left out."""
    wanted = {"train": any(recipe.is_trained for recipe in study.recipes), "explain": any(map(explains, study.recipes))}
    return tuple(stage for stage in RUN_STAGES if wanted.get(stage, True))


def run_steps(study: Study, run: Run) -> Iterator[Step]:
    """What a run still has to do; nothing when it is complete."""
    if not run.is_complete:
        for stage in run_stages(study):
            if stage not in run.stages_done:
                yield Step(stage, run_id=run.run_id)


def run_step(
    study: Study,
    step: Step,
    *,
    store: Store | None = None,
    executor: Executor | None = None,
    is_sweep: bool = False,
    progress: Progress | None = None,
) -> Finished:
    """Run one step; opens the study's own store and cluster when none are given."""
    store = store or Store(study.workspace)
    with store.lock():
        if step.center is not None:
            found = [_center_step(study, step, store=store, executor=executor, is_sweep=is_sweep, progress=progress)]
        else:
            found = _run_step(study, step, store=store, executor=executor, is_sweep=is_sweep, progress=progress)
    return Finished(step, tuple(summary.check() for summary in found))


def run_study(
    study: Study,
    *,
    is_sweep: bool = False,
    progress: Callable[[Step], Progress] | None = None,
    finished: Callable[[Finished], None] | None = None,
) -> Run:
    """Run the whole plan in this process and return the complete run.

    In a sweep, a center whose archive or export is missing stops alone: the others are brought up to date, then the
    error is raised, and nothing is tabulated while a center is missing. progress: asked before each step for a
    function that is told (done, total); finished: told of each step.
    """
    store = Store(study.workspace)
    with store.lock(), contextlib.ExitStack() as opened:
        executor: Executor | None = None
        stopped: dict[str, ArchiveError] = {}
        for step in agenda(study, stopped=stopped):
            if step.stage in {"crawl", "train", "infer"} and executor is None:
                executor = opened.enter_context(open_executor(study.compute.cpu))
            told = None if progress is None else progress(step)
            try:
                done = run_step(study, step, store=store, executor=executor, is_sweep=is_sweep, progress=told)
            except ArchiveError as error:
                if not is_sweep or step.center is None:
                    raise
                stopped[step.center] = error
                continue
            if finished is not None:
                finished(done)
        tidy(store)
        if stopped:
            raise ArchiveError("; ".join(str(error) for error in stopped.values()))
    run = latest_run(store)
    assert run is not None
    return run


def tidy_up(study: Study) -> None:
    """Merge the small files that nights leave behind and delete what no kept run can name."""
    tidy(Store(study.workspace))


def preview_cohort(study: Study) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The flow and the guards of the catalog as it stands, before any pixel is read; nothing is written."""
    store = Store(study.workspace)
    snapshot = store.snapshot()
    if "series" not in snapshot:
        raise NothingToDoError("check --cohort: nothing is cataloged yet; run crawl, catalog and label first")
    found = matched(study, store=store, snapshot=snapshot, split_seed_key=split_key(study))
    return found.attrition, pl.concat([cohort.guard for cohort in found.cohorts.values()])


def refuse_outside_hours(study: Study, now: datetime) -> None:
    """NothingToDoError when a sweep may not run at this local time of day."""
    hours = study.sweep.allowed_hours
    if hours is None:
        return
    first, last = (time.fromisoformat(part) for part in hours.split("-"))
    at = now.time()
    inside = first <= at <= last if first <= last else at >= first or at <= last
    if not inside:
        raise NothingToDoError(f"sweep.allowed_hours is {hours} and it is {at:%H:%M}: nothing was done")


def _center_step(
    study: Study, step: Step, *, store: Store, executor: Executor | None, is_sweep: bool, progress: Progress | None
) -> StageSummary:
    assert step.center is not None
    key = read_key(study)
    if step.stage == "catalog":
        return catalog(study, step.center, store=store, key=key, split_key=split_key(study))
    if step.stage == "label":
        return label(study, step.center, store=store, key=key)
    with _executor(study, executor) as opened:
        return crawl(study, step.center, store=store, executor=opened, key=key, is_sweep=is_sweep, progress=progress)


def _run_step(
    study: Study, step: Step, *, store: Store, executor: Executor | None, is_sweep: bool, progress: Progress | None
) -> list[StageSummary]:
    run = begin_run(study) if step.run_id is None else read_run(store, step.run_id)
    found: list[StageSummary] = []
    if step.stage == "match":
        found = match(study, run, store=store, split_seed_key=split_key(study))
    elif step.stage == "train" and is_sweep:
        keep_models(study, run, store=store)
    elif step.stage == "train":
        with _executor(study, executor) as opened:
            found = train(study, run, store=store, executor=opened, progress=progress)
    elif step.stage == "explain":
        with _executor(study, executor) as opened:
            found = explain(study, run, store=store, executor=opened)
    elif step.stage == "infer":
        with _executor(study, executor) as opened:
            found = infer(study, run, store=store, executor=opened, progress=progress, recompute=step.recompute)
    elif step.stage == "evaluate":
        if is_sweep:
            refuse_drift(study, run, store=store)
        found = evaluate(study, run, store=store)
        compare_substudies(study, run)
    else:
        report(study, run, store=store)
    run = run.marked(step.stage)
    if set(run_stages(study)) <= set(run.stages_done):
        run.completed()
    return found


@contextlib.contextmanager
def _executor(study: Study, given: Executor | None) -> Iterator[Executor]:
    if given is not None:
        yield given
    else:
        with open_executor(study.compute.cpu) as opened:
            yield opened


def split_key(study: Study) -> bytes:
    """The key of the split: its own secret, else the study's seed, so that it outlives a rotation of the pseudonym key."""
    seed = str(study.study.seed).encode()
    if study.split.key is None:
        return b"split:" + seed
    return read_key(study, study.split.key) + b":" + seed
