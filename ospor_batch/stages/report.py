"""The report stage: reads the tables of a run, writes its figures and its page."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from ospor_batch.config import Study
from ospor_batch.contracts.table import empty
from ospor_batch.errors import ContractError
from ospor_batch.report import RunTables, compose, render
from ospor_batch.report.exhibits import Exhibits
from ospor_batch.runs import Run
from ospor_batch.stages.release import release
from ospor_batch.store import Store, storage_errors, write_text

TABLES = {
    "attrition": "tables", "prevalence": "tables", "performance": "tables", "agreement": "tables", "heterogeneity": "tables",
    "reject_count": "tables", "roc_point": "tables", "agreement_point": "tables", "linkage": "tables", "calibration": "tables",
    "threshold": "tables", "baseline": "tables", "missingness": "tables", "age_sex": "tables", "risk_calibration": "tables",
    "risk_curve": "tables", "decision_curve": "tables", "recalibration_point": "tables", "three_class": "tables",
    "leave_one_out": "tables", "comparison": "tables", "discrimination": "tables", "published": "tables", "checklist": "tables",
    "overlap": "tables", "contrast": "tables", "window": "",
}  # fmt: skip
EXHIBITS = "exhibits"
STEMS = {"reject_count": "rejects_by_reason"}
RECORDED = ("run_id", "study_digest", "snapshot", "code_version", "models")  # what does not hang on the clock


def report(study: Study, run: Run, *, store: Store) -> Path:
    """Write figures, report.html and release/ of a run from its tables alone; the same tables give the same bytes."""
    frames = {name: _table(run, name) for name in TABLES}
    page = compose(study, RunTables({name: str(run.record[name]) for name in RECORDED}, frames, _exhibits(run)))
    for picture in page.pictures:
        write_text(picture.svg, target=run.folder / "figures" / f"{picture.name}.svg")
    target = run.folder / "report.html"
    write_text(render(page), target=target)
    release(study, run, store=store)
    return target


def _table(run: Run, name: str) -> pl.DataFrame:
    """A table of the run; empty when the run has none."""
    under, stem = TABLES[name], STEMS.get(name)
    return run.read(name, under=under, stem=stem) if run.has(name, under=under, stem=stem) else empty(name)


def _exhibits(run: Run) -> Exhibits:
    """What other stages handed to the report; ContractError when two of them announce one file."""
    stems = sorted(path.stem for path in (run.folder / EXHIBITS).glob("*.parquet"))
    rows = pl.concat([empty("exhibit"), *(run.read("exhibit", under=EXHIBITS, stem=stem) for stem in stems)])
    if twice := sorted(rows.filter(pl.col("file").is_duplicated())["file"].unique()):
        raise ContractError(
            f"{EXHIBITS}/ of {', '.join(stems)}: {', '.join(twice)} announced twice; give each file its own name"
        )
    figures = rows.filter(pl.col("kind") == "figure")["file"].to_list()
    shown = rows.filter(pl.col("kind") == "table").select("file", "contract").iter_rows()
    with storage_errors():
        pictures = {name: path.read_bytes() for name in figures if (path := run.folder / "figures" / name).is_file()}
    frames = {
        stem: run.read(name, under="tables", stem=stem) for stem, name in shown if run.has(name, under="tables", stem=stem)
    }
    return Exhibits(rows, pictures, frames)
