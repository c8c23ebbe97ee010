"""What a person sees while the plan runs, and the last screen: where everybody went."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from ospor_batch.plan import Finished, Step
    from ospor_batch.stages.status import FlowStep
    from ospor_batch.stages.summary import Progress as Told
    from ospor_batch.stages.summary import StageSummary

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


class Screen:
    """Progress with rate and time left on a terminal, one plain line a step otherwise."""

    def __init__(self, *, quiet: bool) -> None:
        self.console = Console(stderr=quiet, quiet=quiet)
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        more = (TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
        is_shown = self.console.is_terminal and not quiet
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

        def told(done: int, total: int) -> None:
            seconds = max(time.monotonic() - self._since, 1e-3)
            self._bars.update(task, completed=done, total=total, rate=f"{done / seconds:.0f}/s")

        return told

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


def show_ledger(found: Sequence[StageSummary], *, console: Console) -> None:
    """Print requested = done + excluded + failed per stage and center."""
    table = Table("stage", "center", "counted", "requested", "done", "excluded", "failed", "closes", title="Ledger")
    for s in found:
        counts = (str(n) for n in (s.requested, s.done, s.excluded, s.failed))
        table.add_row(s.stage, s.center, LEVELS.get(s.level, s.level), *counts, "yes" if s.closes else "[red]NO[/]")
    console.print(table)


def show_flow(steps: Sequence[FlowStep], *, console: Console) -> None:
    """Print how many entered each level, what left at each step and why, and how many went on."""
    recipes = list(dict.fromkeys(step.recipe for step in steps))
    for recipe in recipes:
        title = "Where everything went: the catalog" if recipe == "catalog" else f"Where everybody went: {recipe}"
        table = Table("level", "step", "entered", "left", "went on", "reason", title=title, title_justify="left")
        mine = [step for step in steps if step.recipe == recipe]
        for level in dict.fromkeys(step.level for step in mine):
            rows = [step for step in mine if step.level == level]
            table.add_row(f"[bold]{LEVELS.get(level, level)}[/]", "", str(rows[0].n_in), "", str(rows[-1].n_out), "")
            for step in rows:
                if step.n_excluded:
                    table.add_row("", step.step, str(step.n_in), f"-{step.n_excluded}", str(step.n_out), step.reason)
        console.print(table)
