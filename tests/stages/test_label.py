"""The label stage: what lies in the catalog after exports were read, edited or taken away."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ospor_batch.config import Study
from ospor_batch.errors import ArchiveError, StudyError
from ospor_batch.stages.label import check_exports, label, preview
from ospor_batch.store import Store

HEADER = ("MRN", "Date", "Sex", "Age", "LS", "FN", "QCT")
ROWS = [
    ("P1", "2022-01-05", "F", "66", "-2.6", "-1.0", ""),
    ("P2", "2022-01-06", "M", "45", "-2.6", "-1.0", ""),
    ("P3", "2022-01-07", "여", "70", "-0.4", "x", ""),
    ("P4", "2022-01-08", "女", "70", "-0.4", "-0.2", "75"),
]
COLUMNS = {"patient_id": "MRN", "exam_date": "Date", "sex": "Sex", "age_at_label": "Age"}
DXA = {"path": "dxa.csv", "kind": "dxa", "columns": {**COLUMNS, "lumbar_spine_t": "LS", "femoral_neck_t": "FN"}}
QCT = {"path": "dxa.csv", "kind": "qct", "phantom_material": "k2hpo4", "columns": {**COLUMNS, "vbmd_mg_cm3": "QCT"}}
EVENTS = {"path": "events.csv", "columns": {"patient_id": "MRN", "code": "Code", "start": "From"}}


def write(path: Path, *rows: Sequence[str]) -> None:
    with path.open("w", encoding="utf-8", newline="") as handle:
        csv.writer(handle).writerows(rows)


def study(folder: Path, *, exports: Sequence[dict[str, Any]] = (DXA,), events: Sequence[dict[str, Any]] = ()) -> Study:
    raw = {
        "study": {"name": "s", "pseudonym_key": {"env": "K"}},
        "centers": [
            {"name": "north", "archives": ["a"], "exports": list(exports), "events": list(events)},
            {"name": "south", "archives": ["b"]},
        ],
        "references": [
            {"id": "any_site", "standard": "dxa_who"},
            {"id": "spine", "standard": "dxa_who", "sites": ["lumbar_spine"]},
            {"id": "acr", "standard": "qct"},
        ],
        "recipes": [{"name": "mean_hu", "reference": "any_site", "threshold": {"fixed": 100.0}}],
    }
    return Study.model_validate(raw).model_copy(update={"folder": folder})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "workspace")


def test_exports_become_exams_labels_and_rejects(tmp_path: Path, store: Store, key: bytes) -> None:
    write(tmp_path / "dxa.csv", HEADER, *ROWS)
    summary = label(study(tmp_path), "north", store=store, key=key)
    assert (summary.requested, summary.done, summary.excluded, summary.failed) == (4, 3, 1, 0)
    assert dict(summary.notes)["labels:any_site"] == 2
    labels = store.current("label", center="north")
    assert sorted(labels.select("reference_id", "category").rows()) == [
        ("any_site", "normal"),
        ("any_site", "osteoporosis"),
        ("spine", "normal"),
        ("spine", "osteoporosis"),
    ]
    rejects = store.current("reject", center="north")
    assert sorted(rejects.select("level", "scope", "reason").rows()) == [
        ("exam", "any_site", "who_not_applicable"),
        ("exam", "spine", "who_not_applicable"),
        ("export_row", "dxa.csv", "not_a_number"),
    ]
    assert set(labels["exam_key"]) <= set(store.current("exam")["exam_key"])


def test_reading_the_same_export_again_writes_nothing(tmp_path: Path, store: Store, key: bytes) -> None:
    write(tmp_path / "dxa.csv", HEADER, *ROWS)
    first = label(study(tmp_path), "north", store=store, key=key)
    before = store.snapshot()
    assert label(study(tmp_path), "north", store=store, key=key) == first
    assert store.snapshot() == before


def test_an_edited_export_replaces_its_rows(tmp_path: Path, store: Store, key: bytes) -> None:
    write(tmp_path / "dxa.csv", HEADER, *ROWS)
    label(study(tmp_path), "north", store=store, key=key)
    mended = [ROWS[0], (*ROWS[2][:5], "-0.3", ""), ("P9", *ROWS[3][1:])]
    write(tmp_path / "dxa.csv", HEADER, *mended)
    label(study(tmp_path), "north", store=store, key=key)
    assert store.current("exam").height == 3
    assert store.current("reject").height == 0
    assert store.sweeps().select("n_new", "n_changed", "n_vanished", "n_unchanged").row(-1) == (2, 0, 2, 1)
    # exactly what a clean workspace holds
    clean = Store(tmp_path / "clean")
    label(study(tmp_path), "north", store=clean, key=key)
    for table in ("exam", "label", "reject"):
        assert store.current(table).equals(clean.current(table))


def test_centers_do_not_touch_each_other_and_one_without_exports_is_fine(tmp_path: Path, store: Store, key: bytes) -> None:
    write(tmp_path / "dxa.csv", HEADER, *ROWS)
    label(study(tmp_path), "north", store=store, key=key)
    summary = label(study(tmp_path), "south", store=store, key=key)
    assert (summary.requested, summary.done) == (0, 0)
    assert store.current("exam").height == 3


def test_one_file_may_hold_dxa_and_qct(tmp_path: Path, store: Store, key: bytes) -> None:
    write(tmp_path / "dxa.csv", HEADER, *ROWS)
    summary = label(study(tmp_path, exports=[DXA, QCT]), "north", store=store, key=key)
    assert (summary.requested, summary.done) == (8, 4)
    assert dict(summary.notes)["labels:acr"] == 1
    rejects = store.current("reject").filter(level="export_row")
    assert sorted(set(rejects["scope"])) == ["dxa.csv[dxa]", "dxa.csv[qct]"]
    with pytest.raises(StudyError, match=r"names 'dxa\.csv\[dxa\]' twice"):
        label(study(tmp_path, exports=[DXA, DXA]), "north", store=store, key=key)


def test_events_are_kept_beside_the_exams(tmp_path: Path, store: Store, key: bytes) -> None:
    write(tmp_path / "events.csv", ("MRN", "Code", "From"), ("p 1", "fracture", "2022-01-01"), ("P2", "flu", "2022-01-01"))
    write(tmp_path / "dxa.csv", HEADER, *ROWS)
    summary = label(study(tmp_path, events=[EVENTS]), "north", store=store, key=key)
    assert (summary.requested, summary.done, summary.excluded) == (6, 4, 2)
    events = store.current("event")
    assert events["code"].to_list() == ["fracture"]
    assert events["patient_key"][0] in set(store.current("exam")["patient_key"])


def test_a_missing_export_stops_and_leaves_the_catalog_as_it_was(tmp_path: Path, store: Store, key: bytes) -> None:
    write(tmp_path / "dxa.csv", HEADER, *ROWS)
    label(study(tmp_path), "north", store=store, key=key)
    (tmp_path / "dxa.csv").unlink()
    with pytest.raises(ArchiveError, match=r"dxa\.csv: no such file"):
        label(study(tmp_path), "north", store=store, key=key)
    assert store.current("exam").height == 3


def test_the_first_twenty_rows_are_shown_as_they_are_read_without_numbers_and_dates(tmp_path: Path) -> None:
    many = [(f"NUMBER-{i}", "2022-01-05", "F", "66", "-2.6" if i else "x", "-1.0", "") for i in range(40)]
    write(tmp_path / "dxa.csv", HEADER, *many)
    shown = preview(study(tmp_path))
    assert [row["row"] for row in shown] == list(range(2, 23))  # row 2 is refused, and twenty exams follow
    assert (shown[0]["becomes"], shown[1]["becomes"]) == ("not_a_number", "exam")
    assert (shown[1]["lumbar_spine_t"], shown[1]["femoral_neck_t"], shown[1]["sex"]) == (-2.6, -1.0, "female")
    assert not {"NUMBER", "2022-01"} & {word for word in ("NUMBER", "2022-01") if word in str(shown)}


def test_check_says_every_fault_and_raises_nothing(tmp_path: Path) -> None:
    write(tmp_path / "dxa.csv", HEADER, *ROWS)
    assert check_exports(study(tmp_path)) == []
    renamed = {**DXA, "columns": {**COLUMNS, "lumbar_spine_t": "L-spine"}}
    faults = check_exports(study(tmp_path, exports=[renamed], events=[EVENTS]))
    assert len(faults) == 2
    assert "north: dxa.csv: columns.lumbar_spine_t is 'L-spine'" in faults[0]
    assert "north: events.csv: no such file" in faults[1]
    in_mg = {**DXA, "columns": {**COLUMNS, "lumbar_spine_t": "Age"}}
    faults = check_exports(study(tmp_path, exports=[in_mg]))
    assert "none of its 4 rows can be used: impossible_value 4 (row 2, column 'Age'" in faults[0]
