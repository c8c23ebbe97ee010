"""Two runs of one generated study, the later with a stricter criterion; for the tests that look back at runs."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

from ospor_batch.config import Study, read_study
from ospor_batch.plan import CENTER_STAGES, Step, begin_run, run_step
from ospor_batch.runs import Run, read_run
from ospor_batch.store import Store
from ospor_batch.synthetic.archive import write_study

EVENTS = """\
[[centers.events]]
path = "exports/north_events.csv"
columns = { patient_id = "MRN", code = "Event", start = "From", end = "To" }

"""
GUARD = """\
[[criteria]]
name = "no implant"
rule = "no_implant"
"""


@dataclass(frozen=True)
class TwoRuns:
    """Both are tabulated; strict has dropped people between 50 and 59."""

    study: Study
    strict: Study
    first: Run
    second: Run
    store: Store


def two_runs(folder: Path) -> TwoRuns:
    study_file = write_study(folder / "study", preset="tiny")
    text = re.sub(r'cluster = "\w+"(\nworkers = \d+)?', 'cluster = "in_line"', study_file.read_text())
    text = _with_events(text, study_file.parent)
    study_file.write_text(text)
    (study_file.parent / "strict.toml").write_text(text.replace("age_at_image >= 50", "age_at_image >= 60"))
    study, strict = read_study(study_file), read_study(study_file.parent / "strict.toml")
    for center in study.centers:
        for stage in CENTER_STAGES:
            run_step(study, Step(stage, center=center.name))
    store = Store(study.workspace)
    return TwoRuns(study, strict, tabulated(study, store), tabulated(strict, store), store)


def _with_events(text: str, folder: Path) -> str:
    """A file of operations at one center, one for every fourth line of its export, and a guard against them; none elsewhere."""
    with (folder / "exports" / "north_dxa.csv").open(newline="") as written:
        rows = list(csv.DictReader(written))[::4]
    said = "".join(f"{row['MRN']},cement,{row['ExamDate'].replace('2022', '2021')},\n" for row in rows if row["MRN"])
    (folder / "exports" / "north_events.csv").write_text("MRN,Event,From,To\n" + said)
    block = EVENTS + text[(at := text.index("[[centers]]", text.index("[[centers]]") + 1)) :]
    return text[:at] + block.replace("[[criteria]]", GUARD + "[[criteria]]", 1)


def tabulated(study: Study, store: Store, *, until: str = "evaluate") -> Run:
    run = begin_run(study)
    for stage in ("match", "infer", "evaluate"):
        run_step(study, Step(stage, run_id=run.run_id))
        if stage == until:
            break
    return read_run(store, run.run_id)
