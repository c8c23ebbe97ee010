"""What a stage says when it is done: requested = done + excluded + failed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

from ospor_batch.errors import LedgerError

Progress = Callable[[int, int], None]
"""Called with (done, total) while a stage works; total 0: not known yet."""


@runtime_checkable
class Noting(Protocol):
    """A progress that also shows a few words beside its count."""

    def note(self, text: str) -> None:
        """Show these words from now on."""


@dataclass(frozen=True)
class StageSummary:
    """The ledger of one stage for one center (or one recipe).

    level: what is counted (file, instance, export_row, series, person); notes: further counts, in order.
    """

    stage: str
    center: str
    level: str
    requested: int
    done: int
    excluded: int
    failed: int
    notes: tuple[tuple[str, int], ...] = ()
    remarks: tuple[str, ...] = ()  # sentences for the screen

    @property
    def closes(self) -> bool:
        return self.requested == self.done + self.excluded + self.failed

    def check(self) -> StageSummary:
        """Itself, or LedgerError when the ledger does not close."""
        if not self.closes:
            raise LedgerError(
                f"{self.stage} {self.center}: {self.requested} {self.level}s requested, but {self.done} done + "
                f"{self.excluded} excluded + {self.failed} failed = {self.done + self.excluded + self.failed}"
            )
        return self

    def told(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {**asdict(self), "notes": dict(self.notes), "closes": self.closes}
