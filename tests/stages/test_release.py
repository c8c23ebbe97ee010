"""The release of a run: small cells cannot be had back, not even from two nights; files are plain, whole and private-free."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import openpyxl
import polars as pl
import pytest

from ospor_batch.config import Study
from ospor_batch.evaluation.disclosure import Plan, plan_release
from ospor_batch.evaluation.release_cells import System, system_of
from ospor_batch.evaluation.release_links import link
from ospor_batch.evaluation.suppression import bounds_of, is_small
from ospor_batch.stages.evaluate import csv_text
from ospor_batch.stages.release import SOURCES, _frame, release
from tests.stages.test_evaluate import Made, make, people, study

SMALLEST = 5


def declared(base: int = 1) -> Study:
    strata = ["center", "scanner_vendor", "center*scanner_vendor", "kvp"]
    return study(tables={"strata": strata, "smallest_cell": SMALLEST, "round_to": base})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    found = make(tmp_path_factory.mktemp("night"), people(200), of=declared())
    found.evaluate()
    release(found.study, found.run, store=found.store)
    return found


def planned(made: Made, last: dict[str, tuple[int, bool]] | None = None) -> tuple[System, Plan]:
    frames = {name: _frame(made.run, name) for name in SOURCES}
    system = system_of(frames)
    link(system, frames)
    return system, plan_release(frames, smallest=SMALLEST, last=last)


def hidden_cells(system: System, plan: Plan) -> set[int]:
    named = {"|".join(map(str, key)): at for key, at in system.cells.keys.items()}
    return {named[name] for name in plan.withheld_names} | system.cells.unpublished


def test_no_small_count_follows_from_the_printed_ones(made: Made) -> None:
    system, plan = planned(made)
    small = [i for i, value in enumerate(system.cells.values) if is_small(value, SMALLEST)]
    assert len(small) > 20
    hidden = hidden_cells(system, plan)
    assert {i for i in small if i not in system.cells.unpublished} <= hidden
    found = bounds_of(system.cells.values, system.cells.relations, hidden=hidden, only=small[::25])
    assert min(high - low for low, high in found.values()) >= SMALLEST - 1e-5


def test_the_files_hold_the_marker_where_the_plan_withholds(made: Made) -> None:
    folder = made.run.folder / "release" / "tables"
    rows = pl.read_parquet(folder / "performance.parquet")
    csv = pl.read_csv(folder / "performance.csv", infer_schema=False)
    assert rows.height == csv.height
    seen = 0
    for row, text in zip(rows.iter_rows(named=True), csv.iter_rows(named=True), strict=True):
        for column in filter(None, row["withheld"].split(";")):
            assert row[column] is None
            assert text[column] == "withheld"
            seen += 1
        for column in ("tp", "fp", "fn", "tn", "n_persons", "n_events"):
            assert row[column] is None or not is_small(row[column], SMALLEST)
    assert seen


def test_an_estimate_never_stands_beside_withheld_cells(made: Made) -> None:
    rows = pl.read_parquet(made.run.folder / "release" / "tables" / "performance.parquet")
    told = rows.filter(pl.col("withheld").str.contains("tp|fn|fp|tn") & (pl.col("metric") != "auc"))
    assert told.height
    assert told["estimate"].drop_nulls().len() == 0
    assert set(told["status"]) <= {"withheld", "not_estimable"}
    assert set(told.filter(pl.col("status") == "withheld")["status_reason"]) == {"small_cell"}


def test_two_nights_give_no_small_count_away(tmp_path: Path) -> None:
    """Everybody who was there stays; attack both nights' printed counts at once."""
    cohort = people(204)
    first = make(tmp_path / "one", cohort[:200], of=declared())
    first.evaluate()
    before, plan_before = planned(first)
    last = {name: (n, name in plan_before.withheld_names) for name, n in plan_before.counts.items()}
    second = make(tmp_path / "two", cohort, of=declared())
    second.evaluate()
    after, plan_after = planned(second, last)
    values = [*before.cells.values, *after.cells.values]
    shift = len(before.cells.values)
    relations = [*before.cells.relations, *({i + shift: c for i, c in r.items()} for r in after.cells.relations)]
    hidden = hidden_cells(before, plan_before) | {i + shift for i in hidden_cells(after, plan_after)}
    for key, at in before.cells.keys.items():  # nobody leaves: tonight's count is last night's and somebody more
        other = after.cells.keys.get(key)
        if other is not None and key[0] != "rest" and after.cells.values[other] >= before.cells.values[at]:
            hidden.add(len(values))
            relations.append({at: 1.0, len(values): 1.0, other + shift: -1.0})
            values.append(after.cells.values[other] - before.cells.values[at])
    small = [i for i in range(shift) if is_small(values[i], SMALLEST) and i in hidden][::30]
    found = bounds_of(values, relations, hidden=hidden, only=small)
    assert min(high - low for low, high in found.values()) > 1 - 1e-6  # none is known exactly


def test_a_release_whose_counts_moved_by_few_is_the_last_one_again(tmp_path: Path) -> None:
    first = make(tmp_path, people(200), of=declared())
    first.evaluate()
    release(first.study, first.run, store=first.store)
    of = declared().model_copy(update={"analysis": first.study.analysis.model_copy(update={"ppv_prevalence": 0.2})})
    second = make(tmp_path, people(203), of=of)
    second.evaluate()
    folder = release(second.study, second.run, store=second.store)
    assert second.run.run_id != first.run.run_id
    assert f"tables of run {first.run.run_id} again" in (folder / "README.md").read_text()
    old = first.run.folder / "release" / "tables" / "performance.csv"
    assert (folder / "tables" / "performance.csv").read_bytes() == old.read_bytes()


def test_rounded_counts_and_shares_built_from_them(tmp_path: Path) -> None:
    made = make(tmp_path, people(200), of=declared(base=5))
    made.evaluate()
    folder = release(made.study, made.run, store=made.store)
    rows = pl.read_parquet(folder / "tables" / "performance.parquet")
    for column in ("tp", "fp", "fn", "tn", "n_persons", "n_eligible"):
        assert (rows[column].drop_nulls() % 5 == 0).all()
    told = rows.filter((pl.col("metric") == "sensitivity") & pl.col("estimate").is_not_null()).to_dicts()
    assert told
    for row in told:
        assert row["estimate"] == pytest.approx(row["tp"] / (row["tp"] + row["fn"]))


def test_the_same_run_gives_the_same_bytes(made: Made) -> None:
    def files() -> dict[str, str]:
        folder = made.run.folder / "release"
        return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*.*")}

    before = files()
    release(made.study, made.run, store=made.store)
    assert files() == before


def test_checksums_header_workbook_and_readme(made: Made) -> None:
    folder = made.run.folder / "release"
    for line in (folder / "checksums.txt").read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    header = json.loads((folder / "release.json").read_text())
    assert header["recipes"]["mean_hu"]["threshold_id"].startswith("youden@tuning")
    book = openpyxl.load_workbook(io.BytesIO((folder / "tables" / "tables.xlsx").read_bytes()))
    assert "performance" in book.sheetnames
    text = (folder / "README.md").read_text()
    rows = pl.read_parquet(folder / "tables" / "performance.parquet")
    assert all(f"`{column}`" in text for column in rows.columns)
    for name in ("roc_point", "agreement_point"):
        assert not list(folder.rglob(f"{name}.*"))


def test_no_key_of_a_person_is_in_any_file(made: Made) -> None:
    keys = made.run.read("manifest").select("patient_key", "series_key", "item_digest")
    hidden = {value.encode() for column in keys.columns for value in keys[column]}
    for path in (made.run.folder / "release").rglob("*"):
        if path.is_file():
            body = path.read_bytes()
            assert not [value for value in list(hidden)[:50] if value in body], path.name


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1+1", "@cmd", "\tx", "\rx"])
def test_text_that_a_spreadsheet_would_run_gets_an_apostrophe(text: str) -> None:
    assert csv_text(pl.DataFrame({"group": [text]})).splitlines()[1].strip('"').startswith("'")
