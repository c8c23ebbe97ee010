"""Make a run the one that drift is measured against."""

from __future__ import annotations

from pathlib import Path

from ospor_batch.errors import StudyError
from ospor_batch.runs import Run, run_at


def accept(folder: Path) -> Run:
    """Accept a run whose people are known (match and infer are done), stopped by drift or complete."""
    _, run = run_at(folder)
    if missing := [stage for stage in ("match", "infer") if stage not in run.stages_done]:
        raise StudyError(
            f"run {run.run_id} has not finished {', '.join(missing)}; only a run whose people are known is accepted"
        )
    return run.accepted()
