"""The release of a run: small cells cannot be had back, not even from two nights; files are plain, whole and private-free."""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any

import openpyxl
import polars as pl
import pytest

from ospor_batch.config import Study
from ospor_batch.contracts.table import schema_of
from ospor_batch.evaluation.disclosure import Plan, plan_release
from ospor_batch.evaluation.release_cells import System, system_of
from ospor_batch.evaluation.release_links import link
from ospor_batch.evaluation.suppression import bounds_of, is_small
from ospor_batch.stages.evaluate import csv_text
from ospor_batch.stages.release import SOURCES, _frame, release
from tests.stages.evaluated import Made, make, people, study

SMALLEST = 5


CANARY = b"canary"


def declared(base: int = 1, **more: Any) -> Study:
    strata = ["center", "scanner_vendor", "center*scanner_vendor", "kvp"]
    return study(tables={"strata": strata, "smallest_cell": SMALLEST, "round_to": base}, **more)


def opened(path: Path) -> bytes:
    """What a file says once unpacked: members of a workbook, streams of a PDF, pixels and words of a PNG."""
    body = path.read_bytes()
    if path.suffix == ".xlsx":
        with zipfile.ZipFile(io.BytesIO(body)) as book:
            return b"".join(name.encode() + book.read(name) for name in book.namelist())
    if path.suffix == ".pdf":
        return body + b"".join(_inflated(part) for part in re.findall(rb"stream\r?\n(.*?)endstream", body, flags=re.DOTALL))
    if path.suffix == ".parquet":
        return body + pl.read_parquet(path).write_csv().encode()
    return body


def _inflated(part: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(part)
    except zlib.error:
        return b""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("night-canary")
    centers = [{"name": name, "archives": [f"/canary/{name}"]} for name in ("east", "north", "south", "west")]
    found = make(folder, people(200), of=declared(centers=centers), refused={3: "mask_missing", 10: "decode_failed"})
    rejects = found.run.read("reject").with_columns(detail=pl.lit("canary in a detail"))
    found.run.write("reject", rejects)
    found.evaluate()
    row = {
        "file": "canary.svg", "kind": "figure", "recipe": "mean_hu", "contract": None, "section": "canary", "position": 0,
        "title": "canary", "caption": "canary", "alt_text": "canary", "hidden_columns": None,
    }  # fmt: skip
    found.run.write("exhibit", pl.DataFrame([row], schema=schema_of("exhibit")), under="exhibits", stem="train")
    release(found.study, found.run, store=found.store)
    return found


@pytest.fixture
def _no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of numbers: drawing each figure thrice takes most of a release."""
    monkeypatch.setattr("ospor_batch.stages.release.release_pictures", lambda _study, _tables: [])


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
    small = [i for i in range(shift) if is_small(values[i], SMALLEST) and i in hidden][::60]
    found = bounds_of(values, relations, hidden=hidden, only=small)
    assert min(high - low for low, high in found.values()) > 1 - 1e-6  # none is known exactly


@pytest.mark.usefixtures("_no_figures")
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


@pytest.mark.usefixtures("_no_figures")
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


def test_no_key_of_a_person_no_path_and_no_detail_is_in_any_file(made: Made) -> None:
    keys = made.run.read("manifest").select(
        "patient_key", "study_key", "series_key", "series_digest", "item_digest", "label_key"
    )
    hidden = {value.encode() for column in keys.columns for value in keys[column].drop_nulls()}
    assert CANARY in str(made.run.folder).encode()
    files = [path for path in (made.run.folder / "release").rglob("*") if path.is_file()]
    assert {".csv", ".parquet", ".xlsx", ".svg", ".png", ".pdf", ".md", ".json", ".txt"} <= {path.suffix for path in files}
    for path in files:
        body = opened(path)
        assert not set(re.findall(rb"[0-9a-f]{32}", body)) & hidden, path.name
        assert CANARY not in body.lower(), path.name
        assert not re.search(rb"\b20\d\d-\d\d-\d\d\b", body) or path.suffix in {".svg", ".xlsx"}, path.name  # XML name spaces
        scores = {f"{value:.3f}".encode() for value in made.run.read("prediction")["predicted_value"].drop_nulls()}
        assert len(set(re.findall(rb"\b\d+\.\d{3}\b", body)) & scores) <= 1 or path.suffix not in {".csv", ".md"}, path.name


def test_areas_of_few_or_withheld_people_are_withheld_however_they_were_made(made: Made) -> None:
    rows = pl.read_parquet(made.run.folder / "release" / "tables" / "discrimination.parquet")
    assert not {"n_persons", "n_images", "n_events", "n_missing"} & set(rows.columns)
    assert set(rows["analysis"]) == {"complete_case"}
    assert set(rows["metric"]) == {"auc", "auc_within_center", "partial_auc"}
    shown = pl.read_parquet(made.run.folder / "release" / "tables" / "performance.parquet")
    shown = shown.filter(pl.col("metric") == "auc", pl.col("stratum") == "center", pl.col("is_same_acquisition") == "all")
    areas = {(row["partition"], row["center"]): row["estimate"] for row in shown.iter_rows(named=True)}
    by_center = rows.filter(pl.col("grouping") == "center")
    assert by_center.height
    for row in by_center.iter_rows(named=True):
        assert areas[row["partition"], row["group"]] is not None or row["estimate"] is None
    compared = pl.read_parquet(made.run.folder / "release" / "tables" / "comparison.parquet")
    assert not compared["family"].is_in(["sensitivity_by_recipe", "specificity_by_recipe"]).any()


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1+1", "@cmd", "\tx", "\rx"])
def test_text_that_a_spreadsheet_would_run_gets_an_apostrophe(text: str) -> None:
    assert csv_text(pl.DataFrame({"group": [text]})).splitlines()[1].strip('"').startswith("'")
