"""Write a generated study: archives, exports, truth and a ready study file."""

from __future__ import annotations

from pathlib import Path

from ospor_batch.errors import StudyError
from ospor_batch.stages.summary import Progress
from ospor_batch.store import storage_errors
from ospor_batch.synthetic.archive import write_study


def synth(out: Path, *, preset: str = "demo", seed: int = 20220101, progress: Progress | None = None) -> Path:
    """Generate into an empty or new folder; return the path of the study file."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise StudyError(f"{out}: not an empty folder; name a new one, nothing was written")
    with storage_errors():
        return write_study(out, preset=preset, seed=seed, progress=progress)
