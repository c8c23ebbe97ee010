"""Commands that look back: from a cell to its keys, between two runs, at examples, at sources; and those that answer a stop."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ospor_batch.screen import plain, print_json

audit = typer.Typer()
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, such as WORKSPACE/runs/latest.")]
StudyFile = Annotated[Path, typer.Argument(metavar="STUDY", help="The study file (TOML).")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one machine-readable summary on standard output.")]
BLANKS = dict.fromkeys(map(ord, "\t\n\r\v\f"), " ")
SHOWN = 40  # rows of a table on the screen; --json has all


@audit.command()
def trace(
    run: RunFolder,
    table: Annotated[
        str,
        typer.Argument(metavar="TABLE", help="attrition, reject_count, or a table of people, such as prevalence."),
    ],
    cell: Annotated[str, typer.Argument(metavar="CELL", help="COLUMN,KEY=VALUE,... such as n_events,center=north,metric=auc.")],
    locate: Annotated[bool, typer.Option("--locate", help="Show paths too: private, they may hold names of patients.")] = False,
    as_json: AsJson = False,
) -> None:
    """Go from a table cell back to the keys behind it; they must be as many as the cell says."""
    from ospor_batch.stages.trace import trace as traced

    found = traced(run, table, cell=cell, locate=locate)
    if as_json:
        print_json(
            {"table": table, "column": found.column, "row": found.row, "value": found.value, "keys": found.keys.to_dicts()}
        )
        return
    typer.echo(f"{table}.{found.column} = {found.value}: {found.keys.height} keys behind it")
    _show(found.keys.to_dicts(), list(found.keys.columns))


@audit.command()
def diff(
    run_a: Annotated[Path, typer.Argument(metavar="RUN_A", help="Folder of the former run.")],
    run_b: Annotated[Path, typer.Argument(metavar="RUN_B", help="Folder of the later run.")],
    as_json: AsJson = False,
) -> None:
    """Show which counts and estimates moved between two runs, and from which step."""
    from ospor_batch.stages.diff import diff as compared

    found = compared(run_a, run_b)
    if as_json:
        made_of = [{"name": n, "a": a, "b": b} for n, a, b in found.made_of]
        print_json({"made_of": made_of, "steps": found.steps.to_dicts(), "estimates": found.estimates.to_dicts()})
        return
    for name, a, b in found.made_of:
        typer.echo(f"{name}: {a} -> {b}")
    typer.echo(f"{found.steps.height} steps of the flow moved, {found.estimates.height} rows of the tables")
    steps = ["recipe", "center", "level", "stage", "step", "reason", "n_excluded", "n_excluded_b", "n_out", "n_out_b"]
    _show(found.steps.to_dicts(), steps)
    _show(
        found.estimates.to_dicts(),
        ["table", "row", "center", "n_persons", "n_persons_b", "estimate", "estimate_b", "moved_from"],
    )


@audit.command()
def accept(run: RunFolder, as_json: AsJson = False) -> None:
    """Make a run the one that drift is measured against; a sweep that drift stopped then goes on."""
    from ospor_batch.stages.accept import accept as accepted

    found = accepted(run)
    if as_json:
        print_json({"accepted": found.run_id})
        return
    typer.echo(f"run {found.run_id} is the one that drift is measured against from now on")


@audit.command()
def assure(study_file: StudyFile, as_json: AsJson = False) -> None:
    """Hold the study's own example patients against its rules; exit code 10 when one meets another fate than expected."""
    from ospor_batch.config import read_study
    from ospor_batch.errors import StudyError
    from ospor_batch.stages.assure import assure as judged

    found = judged(read_study(study_file))
    broken = [one for one in found if one.faults]
    if as_json:
        print_json({"n_examples": len(found), "n_broken": len(broken), "examples": [asdict(one) for one in found]})
    else:
        for one in found:
            typer.echo(f"{'FAULT' if one.faults else 'ok':5} {one.name}" + "".join(f"\n      {fault}" for fault in one.faults))
        typer.echo(f"{len(found)} examples, {len(broken)} not as expected")
    if broken:
        raise typer.Exit(StudyError.exit_code)


@audit.command()
def manifest(
    study_file: StudyFile,
    run: Annotated[str | None, typer.Option(help="Id of the run; without it the latest complete one.")] = None,
    shift_dates: Annotated[
        bool, typer.Option("--shift-dates", help="Add dates, moved per person by a keyed number of days.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write one row a person and series, for statisticians outside: other keys, no true date; into the private folder."""
    from ospor_batch.config import read_key, read_study
    from ospor_batch.stages.people_file import run_of, write_people

    study = read_study(study_file)
    folder = run_of(study.workspace, run)
    target, n_rows = write_people(folder, key=read_key(study), with_shifted_dates=shift_dates)
    if as_json:
        print_json({"file": str(target), "n_rows": n_rows, "has_shifted_dates": shift_dates})
        return
    typer.echo(f"{n_rows} rows: {target}")
    typer.echo("single people stand in it: it is for whom your agreement names, and no release")


@audit.command()
def rejects(
    study_file: StudyFile,
    reason: Annotated[str | None, typer.Option(help="Only this reason.")] = None,
    stage: Annotated[str | None, typer.Option(help="Only this stage.")] = None,
    locate: Annotated[bool, typer.Option("--locate", help="Show paths too: private, they may hold names of patients.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what was refused, at which stage and why: counted by reason, or one by one."""
    from ospor_batch.config import read_study
    from ospor_batch.stages.rejects import list_rejects

    found = list_rejects(read_study(study_file), reason=reason, stage=stage, locate=locate)
    if as_json:
        print_json({"n_rejects": len(found), "rejects": found})
        return
    if reason is None and stage is None and not locate:
        _show(_by_reason(found), ["center", "stage", "level", "reason", "n", "such as"], limit=len(found))
        typer.echo(f"{len(found)} rejects; --reason or --stage lists them one by one, --locate with their paths")
        return
    rows = [{**row, "path" if locate else "key": row["where"]} for row in found]
    columns = ["center", "stage", "level", "reason", "detail", "path" if locate else "key"]
    _lines(rows, columns, what="rejects")


@audit.command()
def words(study_file: StudyFile, as_json: AsJson = False) -> None:
    """Show what headers hold that no word list places, to be added to the study file; private: free text."""
    from ospor_batch.config import read_study
    from ospor_batch.stages.doubts import list_words

    found = list_words(read_study(study_file))
    if as_json:
        print_json({"n_words": len(found), "words": found})
        return
    _lines(found, ["center", "kind", "scanner_vendor", "written", "n_series"], what="written values without a place")


@audit.command()
def collisions(
    study_file: StudyFile,
    locate: Annotated[
        bool, typer.Option("--locate", help="Show folders too: private, they may hold names of patients.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show patient numbers that cannot belong to one person; their series leave at the step of identity."""
    from ospor_batch.config import read_study
    from ospor_batch.stages.doubts import list_collisions

    found = list_collisions(read_study(study_file), locate=locate)
    if as_json:
        print_json({"n_collisions": len(found), "collisions": found})
        return
    _lines(found, ["center", "kind", "n_values", "n_series", "where"], what="collisions")


@audit.command()
def montage(
    study_file: StudyFile,
    recipe: Annotated[str | None, typer.Option(help="Only this recipe.")] = None,
    run: Annotated[str | None, typer.Option(help="Id of the run; without it the latest complete one.")] = None,
    series: Annotated[int, typer.Option(min=1, help="Of each recipe; those with quality flags come first.")] = 24,
    as_json: AsJson = False,
) -> None:
    """Draw CT slices under their masks, to look whether masks and levels fit; into the private folder."""
    from ospor_batch.compute.cluster import open_executor
    from ospor_batch.config import read_study
    from ospor_batch.runs import run_at
    from ospor_batch.stages.montage import montage as drawn
    from ospor_batch.stages.people_file import run_of

    study = read_study(study_file)
    store, of = run_at(run_of(study.workspace, run))
    with open_executor(study.compute.cpu) as executor:
        found = drawn(study, of, store=store, executor=executor, recipe=recipe, most=series)
    if as_json:
        print_json({"montages": [{**asdict(one), "sheets": [str(sheet) for sheet in one.sheets]} for one in found]})
        return
    for one in found:
        refused = "".join(f", {n} {reason}" for reason, n in one.refused.items())
        typer.echo(f"{one.recipe}: {one.n_series} series{refused}" + "".join(f"\n  {sheet}" for sheet in one.sheets))
    typer.echo("single patients stand on these sheets: they are no release")


@audit.command(name="cut-offs")
def cut_offs(
    standard: Annotated[str | None, typer.Option(help="Only this standard, such as dxa_who or t_reference.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print every threshold, reference population and equation that labels rest on, with its source."""
    from ospor_batch.stages.label import table_of_cut_offs

    rows = table_of_cut_offs(standard)
    if as_json:
        print_json({"cut_offs": rows})
        return
    for row in rows:
        typer.echo("{standard} {name}: {item} ({applies_to}): {rule} {value:g} {unit} [{status}] {source}".format(**row))
    typer.echo("status: V checked against a public source; C confirmed by arithmetic; M from memory, not read in the original")


@audit.command()
def contract(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Contract to print; without it, all names.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print a data contract: every column with its type, unit, meaning and bounds."""
    from ospor_batch.contracts import contract as read
    from ospor_batch.contracts import contract_names

    if name is None:
        titles = {known: read(known).title for known in contract_names()}
        said = "\n".join(f"{known:16} {title}" for known, title in titles.items())
        print_json({"contracts": titles}) if as_json else typer.echo(said)
        return
    of = read(name)
    if as_json:
        print_json(asdict(of))
        return
    console = Console()
    console.print(f"[bold]{of.id}[/]  {of.title}\n{of.grain}; {of.access}; key: {', '.join(of.primary_key)}", highlight=False)
    table = Table("column", "type", "unit", "access", "meaning", "bounds")
    for field in of.fields:
        bounds = "; ".join(f"{kind} {_shown(bound)}" for kind, bound in field.constraints)
        table.add_row(field.name, field.type, field.unit or "", field.access, plain(field.description), plain(bounds))
    console.print(table)
    for rule, sql in of.rules:
        console.print(f"rule {rule}: {plain(sql)}", highlight=False)


def _by_reason(rejects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row a center, stage, level and reason, with their number and what one of them says."""
    told = ("center", "stage", "level", "reason")
    n = Counter(tuple(row[c] for c in told) for row in rejects)
    one = {tuple(row[c] for c in told): row["detail"] for row in reversed(rejects)}
    return [{**dict(zip(told, key, strict=True)), "n": count, "such as": one[key]} for key, count in n.items()]


def _show(rows: list[dict[str, Any]], columns: list[str], *, limit: int = SHOWN) -> None:
    if not rows:
        return
    table = Table()
    for column in columns:
        table.add_column(column, overflow="fold")  # a key or a reason that is cut off cannot be looked up
    for row in rows[:limit]:
        table.add_row(*(plain(_short(row[c])) for c in columns))
    Console().print(table)
    if len(rows) > limit:
        typer.echo(f"... and {len(rows) - limit} more; --json prints all")


def _lines(rows: list[dict[str, Any]], columns: list[str], *, what: str) -> None:
    """A table on a terminal; elsewhere a line a row, for what reads lines: a text may hold anything."""
    if sys.stdout.isatty():
        _show(rows, columns, limit=len(rows))
        typer.echo(f"{len(rows)} {what}")
        return
    for cells in (columns, *([_short(row[c]) for c in columns] for row in rows)):
        typer.echo("\t".join(cells))


def _short(value: Any) -> str:
    """A value on one line; what would move a terminal's cursor, as names of files may, is written out."""
    if value is None:
        return ""
    text = f"{value:.4g}" if isinstance(value, float) else str(value).translate(BLANKS)
    return text if text.isprintable() else "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _shown(bound: Any) -> str:
    return ", ".join(map(str, bound)) if isinstance(bound, tuple) else str(bound)
