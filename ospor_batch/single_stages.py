"""Commands that run one stage of the plan alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ospor_batch.screen import Screen

single_stages = typer.Typer()
StudyFile = Annotated[Path, typer.Argument(metavar="STUDY", help="The study file (TOML).")]
Centers = Annotated[list[str] | None, typer.Option(help="Only this center.")]


@single_stages.command()
def crawl(study_file: StudyFile, center: Centers = None) -> None:
    """Read the header of every file of the archives: each becomes an instance or a reject with its reason."""
    _center_stage("crawl", study_file, center)


@single_stages.command()
def catalog(study_file: StudyFile, center: Centers = None) -> None:
    """Group instances into series, harmonise and grade them."""
    _center_stage("catalog", study_file, center)


@single_stages.command()
def label(study_file: StudyFile, center: Centers = None) -> None:
    """Read the exports and draw one label per exam and reference."""
    _center_stage("label", study_file, center)


@single_stages.command()
def match(study_file: StudyFile) -> None:
    """Apply the criteria, choose series, pair them with labels and write the manifest."""
    _run_stages("match", study_file)


@single_stages.command()
def train(study_file: StudyFile) -> None:
    """Train the recipes of the study; a model that was trained on the same people before is used again."""
    _run_stages("train", study_file)


@single_stages.command()
def infer(
    study_file: StudyFile,
    recompute: Annotated[bool, typer.Option("--recompute", help="Also what is in the prediction store already.")] = False,
) -> None:
    """Predict what is in the manifest and not yet in the prediction store."""
    _run_stages("infer", study_file, recompute=recompute)


@single_stages.command()
def evaluate(study_file: StudyFile) -> None:
    """Make the tables of prevalence, performance and agreement."""
    _run_stages("evaluate", study_file)


@single_stages.command()
def explain(study_file: StudyFile) -> None:
    """Show where the networks looked: mean Grad-CAM per class and the share of each region."""
    _run_stages("explain", study_file)


@single_stages.command()
def report(study_file: StudyFile) -> None:
    """Write the report of the run."""
    _run_stages("report", study_file)


def _center_stage(stage: str, study_file: Path, centers: list[str] | None) -> None:
    from ospor_batch.config import read_study
    from ospor_batch.plan import Step, run_step

    study = read_study(study_file)
    screen = Screen(quiet=False)
    with screen:
        for name in centers or [center.name for center in study.centers]:
            step = Step(stage, center=study.center(name).name)
            screen.finished(run_step(study, step, progress=screen.begin(step)))


def _run_stages(stage: str, study_file: Path, *, recompute: bool = False) -> None:
    from ospor_batch.config import read_study
    from ospor_batch.plan import Step, begin_run, run_step

    study = read_study(study_file)
    run = begin_run(study)
    run_id = (run.reopened(at=stage) if recompute else run).run_id  # tables of older predictions are made anew by `run`
    screen = Screen(quiet=False)
    with screen:
        step = Step(stage, run_id=run_id, recompute=recompute)
        screen.finished(run_step(study, step, progress=screen.begin(step)))
    typer.echo(f"run {run_id}")
