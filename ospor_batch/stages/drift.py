"""The drift stop of a sweep: nothing is tabulated while a stratum stands beyond its bound from the accepted run."""

from __future__ import annotations

from ospor_batch.cohort.drift import Move, first_step, moves
from ospor_batch.config import Study
from ospor_batch.errors import DriftStop
from ospor_batch.evaluation.strata import parse_strata
from ospor_batch.runs import Run, accepted_run
from ospor_batch.store import Store

SHOWN = 5  # moves named in the message; the rest are counted


def refuse_drift(study: Study, run: Run, *, store: Store) -> None:
    """DriftStop when the run moved beyond ``sweep.drift`` from the accepted one; names strata, step and what to do."""
    found = drifted(study, run, store=store)
    if not found:
        return
    said = [f"{move.said}; first moved at {step}" for move, step in found[:SHOWN]]
    more = f"\n  and {len(found) - SHOWN} more strata" if len(found) > SHOWN else ""
    lines = "\n  ".join(said)
    raise DriftStop(
        f"{len(found)} strata moved beyond sweep.drift against the accepted run; no table was made:\n  {lines}{more}\n"
        f"look at it (ospor-batch diff compares two runs), then mend what moved, or take it as the new measure: "
        f"ospor-batch accept {study.study.workspace}/runs/{run.run_id}"
    )


def drifted(study: Study, run: Run, *, store: Store) -> list[tuple[Move, str]]:
    """Every stratum beyond its bound with the step at which it began; empty where no run of the study was accepted."""
    accepted = accepted_run(store)
    if accepted is None or accepted.run_id == run.run_id or accepted.record["study"] != run.record["study"]:
        return []
    before, now = accepted.read("manifest"), run.read("manifest")
    bounds = study.sweep.drift
    strata = [s.columns for s in parse_strata(study.tables.strata) if set(s.columns) <= set(now.columns)]
    flows = accepted.read("attrition"), run.read("attrition")
    found = moves(before, now, strata=strata, target=study.analysis.target, bounds=bounds)
    return [(move, first_step(*flows, move=move, bound=bounds.count)) for move in found]
