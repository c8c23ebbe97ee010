"""The command line: `run` for the whole plan, and what prepares, shows and repairs it."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from ospor_batch import __version__
from ospor_batch.audit import audit
from ospor_batch.errors import OsporError, nameless
from ospor_batch.screen import Screen, plain, print_json, show_flow, show_inference, show_ledger
from ospor_batch.single_stages import single_stages

INTERRUPTED = 130  # what shells report after Ctrl-C
app = typer.Typer(
    name="ospor-batch",
    help="From DICOM archives and DXA/QCT tables to per-center, per-vendor tables, with every patient accounted for.",
    epilog="Exit codes: 0 done · 10 study file · 11 contract · 12 ledger does not close · 13 drift stop · 14 pseudonym key · "
    "15 archive or export · 16 disk · 17 workspace in use · 18 nothing left to do · 19 no worker · 130 interrupted. "
    "After any of them: mend, and run the same command again; finished work is kept.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(single_stages)
app.add_typer(audit)
StudyFile = Annotated[Path, typer.Argument(metavar="STUDY", help="The study file (TOML).")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one machine-readable summary on standard output.")]


def main() -> None:
    """Run the command line; an error of ours ends with its message and its exit code, never with a traceback."""
    try:
        code = app(standalone_mode=False)
    except OsporError as error:
        _end_with(error)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except Exception as error:
        if type(error).__module__.startswith(("click", "typer")) and hasattr(error, "show"):
            error.show()
            sys.exit(getattr(error, "exit_code", 2))
        if os.environ.get("OSPOR_DEBUG") == "1":
            raise
        _end_with(nameless(error))
    if code == INTERRUPTED:  # typer turns Ctrl-C into this code by itself
        Console(stderr=True).print("interrupted: finished work is kept; run the same command again to go on")
    sys.exit(code if isinstance(code, int) else 0)


def _end_with(error: OsporError) -> NoReturn:
    Console(stderr=True).print(f"[bold red]{type(error).__name__}[/] {plain(str(error))}", highlight=False, soft_wrap=True)
    sys.exit(error.exit_code)


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(f"ospor-batch {__version__}")
        raise typer.Exit


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder to generate into; must be new or made by demo before.")] = Path("demo"),
    preset: Annotated[str, typer.Option(help="Size of the study: tiny or demo.")] = "demo",
    all_recipes: Annotated[bool, typer.Option("--all", help="Train and run all five published recipes.")] = False,
    as_json: AsJson = False,
) -> None:
    """Generate a four-center study and run it, from archive to report; no questions asked."""
    from ospor_batch.config import read_study
    from ospor_batch.stages.synth import synth

    screen = Screen(quiet=as_json)
    study_file = out / "study.toml"
    if not study_file.is_file():
        with screen.step("generate") as progress:
            study_file = synth(out, preset=preset, progress=progress)
    if all_recipes:
        study_file = study_file.with_name("recipes.toml")
    _run(read_study(study_file), screen=screen, as_json=as_json, is_sweep=False)


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write into.")],
    from_export: Annotated[
        Path | None, typer.Option("--from-export", metavar="FILE", help="Propose the column map of this export.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a commented study file, and a label template to fill in or a column map proposed from an export."""
    from ospor_batch.stages.begin import begin, begin_from

    written, look_at = (begin(folder), ()) if from_export is None else begin_from(from_export, folder=folder)
    if as_json:
        print_json({"written": written, "look_at": look_at})
        return
    for path in written:
        typer.echo(f"wrote {path}")
    for said in look_at:
        typer.echo(f"look at: {said}")
    typer.echo(f"next: fill in the lines marked <-, then  ospor-batch check {folder / 'study.toml'}")


@app.command()
def check(
    study_file: StudyFile,
    cohort: Annotated[bool, typer.Option("--cohort", help="Show the flow of the cataloged people; no pixel is read.")] = False,
    preview: Annotated[
        bool, typer.Option("--preview", help="Show the first 20 rows of every export as they are read.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Find everything that can be known before work: paths, columns, units, criteria, key, disk."""
    from ospor_batch.config import read_study
    from ospor_batch.stages.check import check_study

    study = read_study(study_file)
    if cohort:
        _check_cohort(study, as_json=as_json)
        return
    if preview:
        _preview(study, as_json=as_json)
        return
    found = check_study(study)
    if as_json:
        print_json({"is_ready": all(f.verdict != "fault" for f in found), "findings": [asdict(f) for f in found]})
    else:
        _show_findings(found)
    faults = [finding for finding in found if finding.verdict == "fault"]
    if faults:
        raise typer.Exit(faults[0].exit_code)


@app.command()
def run(study_file: StudyFile, as_json: AsJson = False) -> None:
    """Run the whole plan; resume by itself; print where every patient went."""
    from ospor_batch.config import read_study

    _run(read_study(study_file), screen=Screen(quiet=as_json), as_json=as_json, is_sweep=False)


@app.command()
def sweep(
    study_file: StudyFile,
    now: Annotated[bool, typer.Option("--now", help="Run outside the study's allowed hours, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run one incremental night: read what is new, leave files that may still be arriving, refresh the tables."""
    from ospor_batch.config import read_study
    from ospor_batch.plan import refuse_outside_hours

    study = read_study(study_file)
    if not now:
        refuse_outside_hours(study, datetime.now().astimezone())
    _run(study, screen=Screen(quiet=as_json), as_json=as_json, is_sweep=True)


@app.command()
def pool(
    releases: Annotated[list[Path], typer.Argument(metavar="RELEASE...", help="release/ folders of runs, one a center.")],
    out: Annotated[Path, typer.Option(help="Folder to write into.")] = Path("pooled"),
    as_json: AsJson = False,
) -> None:
    """Pool released aggregates of centers that cannot share rows; refuse releases that must not be pooled."""
    from ospor_batch.stages.pool import pool as pool_releases

    found = pool_releases(releases, out=out)
    if as_json:
        print_json({"table": str(found.table), "n_rows": found.rows.height, "warning": found.warning})
        return
    table = Table("recipe", "metric", "method", "n", "estimate (95 % interval)", "releases")
    for row in found.rows.iter_rows(named=True):
        table.add_row(*(plain(text) for text in _pooled_said(row)))
    Console().print(table)
    typer.echo(f"{found.warning}\nwrote {found.table}")


@app.command()
def status(study_file: StudyFile, as_json: AsJson = False) -> None:
    """Show the ledger: requested = done + excluded + failed, per stage and center. Exit code 12 when it does not close."""
    from ospor_batch.config import read_study
    from ospor_batch.stages.status import flow, inference_of, ledger, newest_run
    from ospor_batch.store import Store

    study = read_study(study_file)
    store = Store(study.workspace)
    found, newest = ledger(study, store), newest_run(study, store)
    live = None if newest is None else inference_of(newest)
    closes = all(summary.closes for summary in found)
    if as_json:
        stages = [summary.told() for summary in found]
        run_said = None if newest is None else {"run_id": newest.run_id, "state": newest.record["state"]}
        print_json({"stages": stages, "closes": closes, "run": run_said, "inference": None if live is None else asdict(live)})
    else:
        console = Console()
        show_ledger(found, console=console)
        if newest is not None and newest.has("attrition"):
            show_flow(flow(newest), console=console)
            console.print(f"run {newest.run_id}: {newest.record['state']}")
        if live is not None:
            show_inference(live, console=console)
    if not closes:
        raise typer.Exit(12)


@app.command()
def retry(study_file: StudyFile, as_json: AsJson = False) -> None:
    """Do again only what failed for a reason that may have passed, then refresh the tables."""
    from ospor_batch.config import read_study
    from ospor_batch.stages.retry import reopen
    from ospor_batch.store import Store

    study = read_study(study_file)
    found = reopen(study, Store(study.workspace))
    if not as_json:
        series = found.n_series + found.n_training
        typer.echo(f"{found.n_files} files and {series} series failed for a reason that may have passed")
    if found.is_any:
        _run(study, screen=Screen(quiet=as_json), as_json=as_json, is_sweep=False)
    elif as_json:
        print_json({"n_files": 0, "n_series": 0, "n_training": 0})


@app.command()
def synth(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write into.")],
    preset: Annotated[str, typer.Option(help="tiny, demo, paper-cxr, paper-ct or scale.")] = "demo",
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 20220101,
    factor: Annotated[float, typer.Option(help="paper-*: share of the published cohort's people.")] = 1.0,
    study: Annotated[str | None, typer.Option(help="paper-ct: the one of its studies to write, such as ct_bmd_tbs.")] = None,
    files: Annotated[int, typer.Option(help="scale: number of files, all without pixels.")] = 1_000_000,
    nights: Annotated[int, typer.Option(min=1, help="tiny and demo: nights of arrivals.")] = 1,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; one per core for large presets.")] = None,
    as_json: AsJson = False,
) -> None:
    """Generate DICOM archives, exports, truth and a ready study file. Nothing in them is clinical."""
    from ospor_batch.stages.synth import ceilings
    from ospor_batch.stages.synth import synth as generate

    with Screen(quiet=as_json).step("generate") as progress:
        made = generate(
            out, preset=preset, seed=seed, nights=nights, factor=factor, n_files=files, study=study, workers=workers,
            progress=progress,
        )  # fmt: skip
    found = {
        study_file: ceilings(study_file) for study_file in (sorted(out.glob("**/study.toml")) if study is None else [made])
    }
    if as_json:
        print_json({"studies": [{"study": at, "ceilings": lines} for at, lines in found.items()]})
        return
    for at, lines in found.items():
        typer.echo("\n".join([*lines, f"next: ospor-batch run {at}"]))


@app.command("train-masks")
def train_masks(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Model folder to write; recipes.masks.model names it.")],
    people: Annotated[int, typer.Option(min=4, help="Generated people, one volume each.")] = 60,
    steps: Annotated[int, typer.Option(min=1, help="Of training; 6000 take about ten minutes of one core.")] = 6000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same network.")] = 1,
    labelled: Annotated[Path | None, typer.Option(help="CSV of real volumes with masks: columns image and mask.")] = None,
    as_json: AsJson = False,
) -> None:
    """Train the segmentation of vertebrae, muscle and fat on generated volumes, and on real ones with masks."""
    from ospor_batch.stages.segmentation import Asked, train_segmentation

    with Screen(quiet=as_json).step("train") as progress:
        asked = Asked(people=people, seed=seed, labelled=labelled, parameters={"steps": steps})
        digest = train_segmentation(out, asked, progress=progress)
    print_json({"model": digest, "folder": out}) if as_json else typer.echo(f"model {digest} in {out}")


@app.command("seal-calibration")
def seal_calibration(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Calibration file (TOML).")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Model folder to write; recipes.model names it.")],
    as_json: AsJson = False,
) -> None:
    """Seal a calibration that was fitted elsewhere, or the rods of a phantom, to a model folder."""
    from ospor_batch.stages.calibrations import seal

    found = seal(file, out=out)
    if as_json:
        print_json(asdict(found))
        return
    kvp = "; ".join(f"{f'{kv:g} kV' if kv else 'any kV'}: n = {n}" for kv, n in zip(found.kvp_kv, found.n, strict=True))
    typer.echo(f"{found.method} of {found.vendor} {found.scanner_model}, {found.material}; {kvp}")
    typer.echo(f"SHA-256 of the file {found.sha256}\nmodel {found.digest} in {out}")


@app.command("write-calibration")
def write_calibration(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model folder, such as WORKSPACE/models/DIGEST.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Calibration file to write (TOML).")],
    as_json: AsJson = False,
) -> None:
    """Write the calibration of a model folder as a file, to be read, completed and sealed elsewhere."""
    from ospor_batch.stages.calibrations import unseal

    unseal(model, file=file)
    said = f"wrote {file}\nnext: fill in what is empty, then  ospor-batch seal-calibration {file} OUT"
    print_json({"written": [file]}) if as_json else typer.echo(said)


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Look at this machine: versions that fail together, codecs, devices, telemetry, disk."""
    from ospor_batch.stages.doctor import examine

    found = examine(Path())
    if as_json:
        print_json({"findings": [asdict(f) for f in found]})
    else:
        _show_findings(found)
    if any(f.verdict == "fault" for f in found):
        raise typer.Exit(1)


def _run(study: Any, *, screen: Screen, as_json: bool, is_sweep: bool) -> None:
    from ospor_batch.plan import run_study
    from ospor_batch.stages.status import flow, ledger
    from ospor_batch.store import Store

    n_steps = 0

    def finished(done: Any) -> None:
        nonlocal n_steps
        n_steps += 1
        screen.finished(done)

    with screen:
        run = run_study(study, is_sweep=is_sweep, progress=screen.begin, finished=finished)
    found = ledger(study, Store(study.workspace))
    report_file = run.folder / "report.html"
    if as_json:
        steps = [asdict(step) for step in flow(run)]
        closes = all(s.closes for s in found)
        print_json({"run_id": run.run_id, "closes": closes, "n_steps": n_steps, "report": str(report_file), "flow": steps})
        return
    show_flow(flow(run), console=screen.console)
    screen.console.print(f"report: {report_file}", highlight=False, soft_wrap=True)


def _check_cohort(study: Any, *, as_json: bool) -> None:
    from ospor_batch.plan import preview_cohort
    from ospor_batch.stages.status import flow_of

    attrition, guards = preview_cohort(study)
    if as_json:
        print_json({"flow": [asdict(step) for step in flow_of(attrition)], "guards": guards.to_dicts()})
    else:
        show_flow(flow_of(attrition), console=Console())


def _preview(study: Any, *, as_json: bool) -> None:
    from ospor_batch.stages.label import preview

    rows = preview(study)
    if as_json:
        print_json({"rows": rows})
        return
    for row in rows:
        said = "; ".join(f"{name} {value}" for name, value in row.items() if name not in {"center", "export", "row", "becomes"})
        typer.echo(f"{row['center']} {row['export']} row {row['row']}: {row['becomes']}: {said}")


def _pooled_said(row: dict[str, Any]) -> tuple[str, ...]:
    value, lower, upper = (row[name] for name in ("estimate", "estimate_lower", "estimate_upper"))
    said = f"not estimable: {row['status_reason']}" if value is None else f"{value:.4g}"
    said += "" if lower is None or upper is None else f" ({lower:.4g} to {upper:.4g})"
    n = "" if row["n_persons"] is None else str(row["n_persons"])
    left_out = f" ({row['releases_left_out']} left out)" if row["releases_left_out"] else ""
    return row["recipe"], row["metric"], row["method"], n, said, f"{row['n_releases']}{left_out}"


def _show_findings(found: list[Any]) -> None:
    colours = {"ok": "green", "note": "yellow", "fault": "red"}
    table = Table("what", "how", "said")
    for finding in found:
        table.add_row(plain(finding.subject), f"[{colours[finding.verdict]}]{finding.verdict}[/]", plain(finding.said))
    Console().print(table)


if __name__ == "__main__":
    main()
