"""The report stage reads the tables of a run and writes its page and figures, the same bytes each time."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from ospor_batch.contracts.table import schema_of
from ospor_batch.errors import ContractError
from ospor_batch.runs import Run, open_run
from ospor_batch.stages.report import STEMS, TABLES, report
from ospor_batch.store import Store
from tests.report.made import Made, made_run


@pytest.fixture
def made(tmp_path: Path) -> Made:
    found = made_run()
    found.study = found.study.model_copy(update={"folder": tmp_path})
    return found


@pytest.fixture
def run(made: Made) -> Run:
    store = Store(made.study.workspace)
    begun = open_run(
        made.study, store, models={"mean_hu": ("mean_hu", "0123456789abcdef", "fedcba9876543210")}, snapshot={"series": 4}
    )
    for name, under in TABLES.items():
        begun.write(name, made.frames[name], under=under, stem=STEMS.get(name))
    return begun


def written(folder: Path) -> dict[str, bytes]:
    files = [folder / "report.html", *sorted((folder / "figures").iterdir())]
    return {path.name: path.read_bytes() for path in files}


def test_page_and_figures_are_written_beside_the_tables(made: Made, run: Run) -> None:
    target = report(made.study, run, store=Store(made.study.workspace))
    assert target == run.folder / "report.html"
    assert set(written(run.folder)) == {
        "report.html", "flow-mean-hu.svg", "roc-mean-hu.svg", "forest-mean-hu.svg", "bland-altman-mean-hu.svg",
        "flow-reference-mean-hu.svg", "windows-mean-hu.svg", "calibration-curve-mean-hu.svg",
        "decision-curve-mean-hu.svg", "pyramid-mean-hu.svg", "rejects-by-reason.svg",
    }  # fmt: skip
    page = target.read_text(encoding="utf-8")
    assert run.run_id in page
    assert str(made.study.folder) not in page


def test_a_second_report_has_the_same_bytes(made: Made, run: Run) -> None:
    store = Store(made.study.workspace)
    report(made.study, run, store=store)
    before = written(run.folder)
    report(made.study, run.marked("evaluate"), store=store)
    assert written(run.folder) == before


def test_a_run_without_tables_has_a_page_that_says_so(made: Made, run: Run) -> None:
    for path in run.folder.rglob("*.parquet"):
        if path.stem != "run":
            path.unlink()
    page = report(made.study, run, store=Store(made.study.workspace)).read_text(encoding="utf-8")
    assert "No performance was estimated in this run." in page


def announced(run: Run, *, by: str, file: str) -> None:
    row = {
        "file": file, "kind": "figure", "recipe": "mean_hu", "contract": None, "section": "Where it looked", "position": 0,
        "title": "Mean map", "caption": "Internal test.", "alt_text": "A map.", "hidden_columns": None,
    }  # fmt: skip
    run.write("exhibit", pl.DataFrame([row], schema=schema_of("exhibit")), under="exhibits", stem=by)


def test_figures_that_other_stages_announce_are_shown_and_missing_ones_said(made: Made, run: Run) -> None:
    announced(run, by="train", file="map.svg")
    announced(run, by="infer", file="gone.png")
    (run.folder / "figures").mkdir()
    (run.folder / "figures" / "map.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    target = report(made.study, run, store=Store(made.study.workspace))
    page = target.read_text(encoding="utf-8")
    assert 'src="data:image/svg+xml;base64,' in page
    assert "the figure gone.png was announced and is not there" in page
    assert not list((run.folder / "release").rglob("map.*"))


def test_two_stages_cannot_announce_one_file(made: Made, run: Run) -> None:
    announced(run, by="train", file="map.svg")
    announced(run, by="infer", file="map.svg")
    with pytest.raises(ContractError, match=r"map\.svg announced twice"):
        report(made.study, run, store=Store(made.study.workspace))
