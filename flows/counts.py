"""The ledger of a stage as a Prefect artifact: counts and typed reasons, no name and no row."""

from __future__ import annotations

import re

from prefect.artifacts import create_table_artifact

from ospor_batch.plan import Finished


def show_counts(done: Finished) -> None:
    """Leave a table of counts beside the task run; a later run of the same stage adds a version."""
    rows = [
        {
            "stage": s.stage,
            "center": s.center,
            "counted": s.level,
            "requested": s.requested,
            "done": s.done,
            "excluded": s.excluded,
            "failed": s.failed,
            "reasons": ", ".join(f"{n} {reason}" for reason, n in s.notes),
        }
        for s in done.summaries
    ]
    remarks = [remark for s in done.summaries for remark in s.remarks]
    if rows:
        key = re.sub("[^a-z0-9]+", "-", f"ospor-{done.step.title}".lower()).strip("-")
        create_table_artifact(rows, key=key, description="\n\n".join(["requested = done + excluded + failed", *remarks]))
