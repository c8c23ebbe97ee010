"""Commands that run one stage of the plan alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ospor_batch.screen import Screen, print_json

if TYPE_CHECKING:
    from ospor_batch.config import Study
    from ospor_batch.plan import Step

single_stages = typer.Typer()
StudyFile = Annotated[Path, typer.Argument(metavar="STUDY", help="The study file (TOML).")]
Centers = Annotated[list[str] | None, typer.Option(help="Only this center.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one machine-readable summary on standard output.")]


@single_stages.command()
def crawl(study_file: StudyFile, center: Centers = None, as_json: AsJson = False) -> None:
    """Read the header of every file of the archives: each becomes an instance or a reject with its reason."""
    _center_stage("crawl", study_file, center, as_json=as_json)


@single_stages.command()
def catalog(study_file: StudyFile, center: Centers = None, as_json: AsJson = False) -> None:
    """Group instances into series, harmonise and grade them."""
    _center_stage("catalog", study_file, center, as_json=as_json)


@single_stages.command()
def label(study_file: StudyFile, center: Centers = None, as_json: AsJson = False) -> None:
    """Read the exports and draw one label per exam and reference."""
    _center_stage("label", study_file, center, as_json=as_json)


@single_stages.command()
def match(study_file: StudyFile, as_json: AsJson = False) -> None:
    """Apply the criteria, choose series, pair them with labels and write the manifest."""
    _run_stages("match", study_file, as_json=as_json)


@single_stages.command()
def train(study_file: StudyFile, as_json: AsJson = False) -> None:
    """Train the recipes of the study; a model that was trained on the same people before is used again."""
    _run_stages("train", study_file, as_json=as_json)


@single_stages.command()
def infer(
    study_file: StudyFile,
    recompute: Annotated[bool, typer.Option("--recompute", help="Also what is in the prediction store already.")] = False,
    as_json: AsJson = False,
) -> None:
    """Predict what is in the manifest and not yet in the prediction store."""
    _run_stages("infer", study_file, recompute=recompute, as_json=as_json)


@single_stages.command()
def evaluate(study_file: StudyFile, as_json: AsJson = False) -> None:
    """Make the tables of prevalence, performance and agreement."""
    _run_stages("evaluate", study_file, as_json=as_json)


@single_stages.command()
def explain(study_file: StudyFile, as_json: AsJson = False) -> None:
    """Show where the networks looked: mean Grad-CAM per class and the share of each region."""
    _run_stages("explain", study_file, as_json=as_json)


@single_stages.command()
def report(study_file: StudyFile, as_json: AsJson = False) -> None:
    """Write the report of the run."""
    _run_stages("report", study_file, as_json=as_json)


def _center_stage(stage: str, study_file: Path, centers: list[str] | None, *, as_json: bool) -> None:
    from ospor_batch.config import read_study
    from ospor_batch.plan import Step

    study = read_study(study_file)
    steps = [Step(stage, center=study.center(name).name) for name in centers or [center.name for center in study.centers]]
    stages = _run(study, steps, quiet=as_json)
    if as_json:
        print_json({"stages": stages})


def _run_stages(stage: str, study_file: Path, *, recompute: bool = False, as_json: bool) -> None:
    from ospor_batch.config import read_study
    from ospor_batch.plan import Step, begin_run

    study = read_study(study_file)
    run = begin_run(study)
    run_id = (run.reopened(at=stage) if recompute else run).run_id  # tables of older predictions are made anew by `run`
    stages = _run(study, [Step(stage, run_id=run_id, recompute=recompute)], quiet=as_json)
    if as_json:
        print_json({"stages": stages, "run_id": run_id})
    else:
        typer.echo(f"run {run_id}")


def _run(study: Study, steps: Sequence[Step], *, quiet: bool) -> list[dict[str, Any]]:
    from ospor_batch.plan import run_step

    told, screen = list[dict[str, Any]](), Screen(quiet=quiet)
    with screen:
        for step in steps:
            done = run_step(study, step, progress=screen.begin(step))
            screen.finished(done)
            told += [summary.told() for summary in done.summaries]
    return told
