"""What a person sees while the plan runs, and the last screen: where everybody went."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from ospor_batch.plan import Finished, Step
    from ospor_batch.stages.live import Seen
    from ospor_batch.stages.status import FlowStep
    from ospor_batch.stages.summary import Progress as Told
    from ospor_batch.stages.summary import StageSummary

LINE_SECONDS = 300.0  # between two lines of progress where there is no terminal, so that a batch job's log shows that it lives
NOT_ON_SCREEN = ("study",)  # in the attrition table; on a screen it repeats the series
LABEL_STEP = "label in the window"
LEVELS = {
    "file": "files",
    "instance": "instances",
    "series": "series",
    "study": "studies",
    "person": "persons",
    "export_row": "export rows",
    "exam": "exams",
    "label": "labels",
}


def print_json(body: Any) -> None:
    """Print one machine-readable summary on standard output."""
    sys.stdout.write(json.dumps(body, indent=2, sort_keys=True, default=str) + "\n")


def plain(text: str) -> str:
    """Text in which rich reads no markup."""
    return text.replace("[", r"\[")


class Screen:
    """Progress with rate and time left on a terminal; otherwise a plain line every few minutes, and one a step."""

    def __init__(self, *, quiet: bool) -> None:
        self.console = Console(stderr=quiet, quiet=quiet)
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        more = (TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
        self._is_shown = is_shown = self.console.is_terminal and not quiet
        self._bars = Progress(*columns, *more, console=self.console, transient=True, disable=not is_shown)
        self._task: TaskID | None = None
        self._since = time.monotonic()

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bars.stop()

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[Told]:
        """Show one piece of work that is no stage of the plan."""
        with self:
            yield self._begin(title)
        self.console.print(f"{title}: {time.monotonic() - self._since:.1f} s")

    def begin(self, step: Step) -> Told:
        """Show that a step begins; the function returned is told how far it is."""
        return self._begin(step.title)

    def _begin(self, title: str) -> Told:
        if self._task is not None:
            self._bars.remove_task(self._task)
        self._since = time.monotonic()
        task = self._task = self._bars.add_task(title, total=None, rate="")

        return _Told(self._bars, task, title=title, lines=None if self._is_shown else self.console)

    def finished(self, done: Finished) -> None:
        """Print the ledger of a step that ended."""
        seconds = time.monotonic() - self._since
        if not done.summaries:
            self.console.print(f"{done.step.title}: done, {seconds:.1f} s", highlight=False)
        for s in done.summaries:
            notes = "".join(f", {n} {name}" for name, n in s.notes)
            self.console.print(
                f"{s.stage} {s.center}: {s.requested} {LEVELS.get(s.level, s.level)} = {s.done} done + {s.excluded} excluded + "
                f"{s.failed} failed{notes}, {seconds:.1f} s",
                highlight=False,
                soft_wrap=True,
            )
            for remark in s.remarks:
                self.console.print(f"  {remark}", highlight=False, soft_wrap=True, markup=False)


class _Told:
    """Shows how far a step is; its rate counts from what was there as it began."""

    def __init__(self, bars: Progress, task: TaskID, *, title: str, lines: Console | None) -> None:
        self._bars, self._task, self._title, self._lines = bars, task, title, lines
        self._since = self._lined = time.monotonic()
        self._first: int | None = None
        self._noted = ""

    def __call__(self, done: int, total: int) -> None:
        self._first = done if self._first is None else self._first
        rate = (done - self._first) / max(time.monotonic() - self._since, 1e-3)
        shown = f"{rate:.0f}/s" if rate >= 10 else f"{rate:.1f}/s"
        self._bars.update(self._task, completed=done, total=total or None, rate=f"{shown} {self._noted}".rstrip())
        if self._lines is not None and time.monotonic() - self._lined > LINE_SECONDS:
            self._lined = time.monotonic()
            left = f", {(total - done) / rate:.0f} s left" if rate > 0 and total else ""
            said = f"{self._title}: {done}{f' of {total}' if total else ''}, {shown}{left} {self._noted}"
            self._lines.print(said.rstrip(), highlight=False, soft_wrap=True)

    def note(self, text: str) -> None:
        self._noted = plain(text)


def show_inference(seen: Seen, *, console: Console) -> None:
    """Print how far inference is, as far as its process said."""
    left = "" if seen.seconds_left is None or seen.state != "running" else f", {seen.seconds_left:.0f} s left"
    present = "" if seen.n_present is None else f"{seen.n_present} of {seen.n_workers} worker(s) there, "
    slowest = f"; slowest: {seen.slowest}" if seen.slowest else ""
    lines = [
        f"inference {seen.state}: {seen.done} of {seen.total} series, {seen.items_per_second:.1f}/s{left}, "
        f"{present if seen.state == 'running' else ''}{seen.n_working} being worked on; devices busy "
        f"{100 * seen.busy_share:.0f} % of the time; last word {seen.silent_seconds:.0f} s ago",
        f"  refused so far: {', '.join(f'{n} {reason}' for reason, n in seen.rejects.items()) or 'none'}"
        + (f"; {seen.n_deaths} worker(s) died" if seen.n_deaths else ""),
        f"  seconds: {', '.join(f'{step} {seconds:.1f}' for step, seconds in seen.seconds.items())}{slowest}",
    ]
    if seen.dashboard and seen.state == "running":
        lines.append(f"  dashboard: {seen.dashboard}")
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def show_ledger(found: Sequence[StageSummary], *, console: Console) -> None:
    """Print requested = done + excluded + failed per stage and center."""
    table = Table(
        title="Ledger: requested = done + excluded + failed", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    for name in ("stage", "center", "counted"):
        table.add_column(name, overflow="fold")
    for name in ("requested", "done", "excluded", "failed", "closes"):
        table.add_column(name, justify="right")
    for s in found:
        counts = (str(n) for n in (s.requested, s.done, s.excluded, s.failed))
        table.add_row(s.stage, s.center, LEVELS.get(s.level, s.level), *counts, "yes" if s.closes else "[red]NO[/]")
    console.print(table)


def show_flow(steps: Sequence[FlowStep], *, console: Console) -> None:
    """Print, for catalog and recipes, what entered each level, what left at each step and why, and what went on."""
    for recipe in dict.fromkeys(step.recipe for step in steps):
        mine = [step for step in steps if step.recipe == recipe and step.level not in NOT_ON_SCREEN]
        title = "Where every file went" if recipe == "catalog" else f"Where everybody went: {recipe}"
        table = Table("", title=title, title_justify="left", box=SIMPLE_HEAD)
        table.add_column("left", justify="right")
        table.add_column("went on", justify="right")
        for level in dict.fromkeys(step.level for step in mine):
            rows = [step for step in mine if step.level == level]
            table.add_row(f"[bold]{LEVELS.get(level, level)}[/]", "", f"[bold]{rows[0].n_in}[/]")
            for step in rows:
                if step.n_excluded:
                    table.add_row(f"  {_why(step)}", f"-{step.n_excluded}", str(step.n_out))
                if step.note:
                    table.add_row(f"  {_why(step)}: {plain(step.note)}", "", "")
        console.print(table)
    for line in chains(steps):
        console.print(line, highlight=False, soft_wrap=True)


def chains(steps: Sequence[FlowStep]) -> list[str]:
    """One line a recipe: files -> instances -> series -> persons -> eligible -> matched -> read -> tabulated."""
    found = []
    first = [f"{_ends(steps, 'catalog', 'file')[0]} files", f"{_ends(steps, 'catalog', 'instance')[1]} instances"]
    for recipe in dict.fromkeys(step.recipe for step in steps if step.recipe != "catalog"):
        persons = [step for step in steps if step.recipe == recipe and step.level == "person"]
        if not persons:
            continue
        left = {stage: sum(s.n_excluded for s in persons if _part(s) == stage) for stage in ("criteria", "match", "infer")}
        n_eligible = persons[0].n_in - left["criteria"]
        n_matched = n_eligible - left["match"]
        links = [
            *first,
            f"{_ends(steps, recipe, 'series')[0]} series",
            f"{persons[0].n_in} persons",
            f"{n_eligible} eligible",
            f"{n_matched} matched",
            f"{n_matched - left['infer']} read",
            f"{persons[-1].n_out} tabulated",
        ]
        found.append(f"{recipe}: " + " -> ".join(links))
    return found


def _part(step: FlowStep) -> str:
    if step.stage == "match":
        return "match" if step.step == LABEL_STEP else "criteria"
    return step.stage


def _ends(steps: Sequence[FlowStep], recipe: str, level: str) -> tuple[int, int]:
    rows = [step for step in steps if step.recipe == recipe and step.level == level]
    return (rows[0].n_in, rows[-1].n_out) if rows else (0, 0)


def _why(step: FlowStep) -> str:
    """The step, and its reason where that says more."""
    plain = step.reason.replace("_", " ")
    return step.step if plain == step.step.lower().replace(":", "") else f"{step.step} ({plain})"
