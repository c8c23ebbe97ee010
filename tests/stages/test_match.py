"""Match on a store: what it writes, that it is the same twice, and what it refuses."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest

from ospor_batch.cohort.attrition import check_closed
from ospor_batch.config import Criterion, EventFile, Study, read_study
from ospor_batch.contracts import contract
from ospor_batch.errors import LedgerError, NothingToDoError, StudyError
from ospor_batch.runs import open_run
from ospor_batch.stages.match import match
from ospor_batch.store import Change, Store, SweepCounts
from tests.cohort.rows import GOOD_LABEL, GOOD_SERIES, completed, hexed

DAY = date(2022, 6, 1)
STUDY = """
[study]
name = "small"
pseudonym_key = { env = "NOT_READ_HERE" }
[[centers]]
name = "north"
archives = ["north"]
[[centers]]
name = "south"
archives = ["south"]
[[references]]
id = "dxa"
standard = "dxa_who"
[[references]]
id = "qct"
standard = "qct"
[match]
OVERRIDES
[[criteria]]
name = "age 50 or older"
keep = "age_at_image >= 50"
[split]
train = 0.6
internal_test = 0.4
external = { center = ["south"] }
[[recipes]]
name = "mean_hu"
reference = "dxa"
threshold = { fixed = 120.0 }
[[recipes]]
id = "mean_hu_qct"
name = "mean_hu"
reference = "qct"
threshold = { fixed = 120.0 }
criteria = []
"""
PARTS = ("selection", "candidate", "manifest", "split", "linkage", "window", "attrition")


def written(folder: Path, overrides: str = "") -> Study:
    path = folder / "study.toml"
    path.write_text(STUDY.replace("OVERRIDES", overrides))
    return read_study(path)


def series_rows(**changes) -> pl.DataFrame:
    rows = [
        {"center": "north", "patient_key": "A", "study_key": "A1", "series_key": "A1a", "split_position": 0.1},
        {"center": "north", "patient_key": "A", "study_key": "A1", "series_key": "A1b", "split_position": 0.1},
        {"center": "north", "patient_key": "B", "study_key": "B1", "series_key": "B1a", "age_at_image": 40.0},
        {"center": "south", "patient_key": "C", "study_key": "C1", "series_key": "C1a"},
    ]
    return completed("series", [{"n_instances": 2, **row, **changes} for row in rows], GOOD_SERIES)


def held(store: Store, series: pl.DataFrame) -> None:
    """Commit a catalog whose tables add up: two instances a series, one duplicate, one broken file, one refused row."""
    instances, files = [], []
    for row in series.iter_rows(named=True):
        for k in range(row["n_instances"]):
            instances.append({"center": row["center"], "file_key": f"{row['series_key']}{k}", "patient_key": "A"})
    instances.append({"center": "north", "file_key": "copy", "patient_key": "A"})
    files = [{"center": i["center"], "file_key": i["file_key"], "fate": "instance", "reason": None} for i in instances]
    files.append({"center": "north", "file_key": "broken", "fate": "reject", "reason": "truncated"})
    reject = {"center": "north", "is_transient": False, "detail": "", "scope": "north"}
    rejects = [
        {**reject, "stage": "crawl", "level": "file", "item_key": "broken", "reason": "truncated"},
        {**reject, "stage": "catalog", "level": "instance", "item_key": "copy", "reason": "duplicate_same_content"},
        {**reject, "stage": "label", "level": "export_row", "item_key": "e:2", "reason": "invalid_date"},
        {**reject, "stage": "label", "level": "exam", "item_key": "x", "reason": "no_valid_site", "scope": "dxa"},
    ]
    labels = [
        {"center": "north", "patient_key": "A", "label_key": "LA", "exam_key": "EA", "label_date": DAY + timedelta(5)},
        {"center": "south", "patient_key": "C", "label_key": "LC", "exam_key": "EC", "label_date": DAY + timedelta(500)},
    ]
    exam = {"exam_kind": "dxa", "exam_date": DAY, "sex": "female", "menopause": "post", "densitometer_vendor": "hologic"}
    exam |= {"phantom_material": "not_applicable", "lumbar_spine_t": -1.0, "row_number": 2, "n_export_rows": 3}
    exams = [
        {"center": label["center"], "patient_key": label["patient_key"], "exam_key": label["exam_key"]} for label in labels
    ]
    tables = {
        "series": series,
        "label": completed("label", labels, GOOD_LABEL),
        "exam": completed("exam", exams, exam),
        "reject": completed("reject", rejects, {}),
        "file": completed("file", files, {}),
        "instance": completed("instance", instances, {}),
    }
    changes = {name: Change(rows) for name, rows in tables.items()}
    store.commit(changes, stage="catalog", center="north", counts=SweepCounts())


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "workspace")


def ran(study: Study, store: Store):
    run = open_run(study, store, models={})
    return run, match(study, run, store=store, split_seed_key=b"seed")


def test_every_table_is_written_and_the_ledger_closes(tmp_path, store):
    held(store, series_rows())
    run, summaries = ran(written(tmp_path), store)
    assert [(s.stage, s.center, s.level, s.requested, s.done, s.excluded, s.failed) for s in summaries] == [
        ("match", "mean_hu", "person", 3, 2, 1, 0),
        ("match", "mean_hu_qct", "person", 3, 3, 0, 0),
    ]
    assert summaries[0].notes == (("paired", 1), ("image_only", 1), ("candidates", 2 - 1))
    manifest = run.read("manifest")
    assert {(r["recipe"], r["patient_key"], r["role"], r["partition"]) for r in manifest.to_dicts()} == {
        ("mean_hu", hexed("A"), "paired", "train"),
        ("mean_hu", hexed("C"), "image_only", "external"),
        ("mean_hu_qct", hexed("A"), "image_only", "train"),
        ("mean_hu_qct", hexed("B"), "image_only", "train"),
        ("mean_hu_qct", hexed("C"), "image_only", "external"),
    }
    assert run.read("split")["patient_key"].to_list() == sorted(manifest["patient_key"].unique())
    assert run.read("selection").height == 2 * series_rows().height


def test_a_label_that_stands_for_several_series_is_told_unless_the_study_forbids_it(tmp_path, store):
    second = pl.col("series_key") == hexed("A1b")
    held(store, series_rows().with_columns(study_key=pl.when(second).then(pl.lit(hexed("A2"))).otherwise("study_key")))
    told = {}
    for reuse in ("allow", "forbid"):
        folder = tmp_path / reuse
        folder.mkdir()
        _, summaries = ran(written(folder, f'index_series = "all"\nlabel_reuse = "{reuse}"'), store)
        told[reuse] = summaries[0].notes
    assert ("labels of several series", 1) in told["allow"]
    assert not [name for name, _ in told["forbid"] if name == "labels of several series"]


def test_dates_that_were_shifted_apart_stop_before_any_match(tmp_path, store):
    held(store, series_rows())
    study = written(tmp_path)
    events = EventFile(path="e.csv", columns={"patient_id": "a", "code": "b", "start": "c"}, date_shift="trial-A")
    north = study.centers[0].model_copy(update={"events": (events,)})
    with pytest.raises(StudyError, match="dates of north: e.csv: date_shift is trial-A, that of the archives none"):
        ran(study.model_copy(update={"centers": (north, *study.centers[1:])}), store)


def test_a_criterion_may_name_only_findings_that_the_catalog_has(tmp_path, store):
    held(store, series_rows())
    study = written(tmp_path)
    barred = Criterion(name="upright", rule="without_findings", findings=("tilted",))
    run, _ = ran(study.model_copy(update={"criteria": (barred,)}), store)
    assert "upright" in run.read("attrition")["step"].to_list()
    wrong = study.model_copy(update={"criteria": (barred.model_copy(update={"findings": ("tiltet",)}),)})
    with pytest.raises(StudyError, match="the catalog has no finding 'tiltet'; the nearest allowed is 'tilted'"):
        ran(wrong, store)


def test_attrition_spans_files_to_persons_and_adds_up(tmp_path, store):
    held(store, series_rows())
    run, _ = ran(written(tmp_path), store)
    rows = run.read("attrition")
    check_closed(rows)

    def ends(level, recipe="catalog", reference="catalog", center="north"):
        mine = rows.filter(
            pl.col("level") == level,
            pl.col("recipe") == recipe,
            pl.col("reference_id") == reference,
            pl.col("center") == center,
        ).sort("step_number")
        return mine["n_in"][0], mine["n_out"][-1]

    assert ends("file") == (8, 7)
    assert ends("instance") == (7, 6)
    assert ends("export_row") == (4, 3)
    assert ends("exam", reference="dxa") == (2, 1)
    assert ends("exam", reference="qct") == (0, 0)
    assert ends("series", "mean_hu", "dxa") == (3, 1)
    assert ends("person", "mean_hu", "dxa") == (2, 1)
    assert ends("person", "mean_hu", "dxa", "south") == (1, 0)
    assert ends("label", "mean_hu", "dxa") == (1, 1)


def test_twice_gives_the_same_bytes(tmp_path, store):
    held(store, series_rows())
    study = written(tmp_path)
    run, _ = ran(study, store)
    before = {name: run.path(name).read_bytes() for name in PARTS}
    ran(study, store)
    assert {name: run.path(name).read_bytes() for name in PARTS} == before


def test_shared_outputs_hold_no_date(tmp_path, store):
    held(store, series_rows())
    run, _ = ran(written(tmp_path), store)
    for name in PARTS:
        assert contract(name).access == "shared"
        assert not [c for c, dtype in run.read(name).schema.items() if dtype in (pl.Date, pl.Datetime)]


def test_nobody_left_names_the_step_and_keeps_the_tables(tmp_path, store):
    held(store, series_rows(modality="MR"))
    study = written(tmp_path)
    run = open_run(study, store, models={})
    with pytest.raises(NothingToDoError, match=r"nobody is left; recipe mean_hu: the last 3 persons left at 'CT' \(not_ct\)"):
        match(study, run, store=store, split_seed_key=b"seed")
    assert run.read("manifest").height == 0
    assert run.read("selection")["first_failed"].unique().to_list() == ["CT"]


def test_nobody_known_names_the_step_of_the_last_series(tmp_path, store):
    held(store, series_rows(patient_key=None, split_position=None))
    with pytest.raises(NothingToDoError, match="the last 4 series left at 'patient number known'"):
        ran(written(tmp_path), store)


def test_an_empty_catalog_says_so(tmp_path, store):
    with pytest.raises(NothingToDoError, match="the catalog holds no series"):
        ran(written(tmp_path), store)


def test_a_catalog_that_does_not_add_up_is_a_ledger_error(tmp_path, store):
    held(store, series_rows())
    store.commit({"series": Change(series_rows(n_instances=3))}, stage="catalog", center="north", counts=SweepCounts())
    with pytest.raises(
        LedgerError, match="match north: 7 files are instances, the instance table holds 7, of which 9 stand in series"
    ):
        ran(written(tmp_path), store)


def test_centers_that_the_study_no_longer_names_do_not_enter(tmp_path, store):
    held(store, series_rows())
    path = tmp_path / "study.toml"
    path.write_text(
        STUDY.replace("OVERRIDES", "")
        .replace('[[centers]]\nname = "south"\narchives = ["south"]\n', "")
        .replace("external", "# ")
    )
    run, _ = ran(read_study(path), store)
    assert run.read("manifest")["center"].unique().to_list() == ["north"]
    assert run.read("attrition")["center"].unique().to_list() == ["north"]


def test_overrides_are_read_and_honoured(tmp_path, store):
    held(store, series_rows())
    study = written(tmp_path, 'overrides = "choice.csv"')
    (tmp_path / "choice.csv").write_text(f"study_key,series_key\n{hexed('A1')},{hexed('A1b')}\n")
    run, _ = ran(study, store)
    chosen = run.read("selection").filter(pl.col("study_key") == hexed("A1"), pl.col("fate") == "chosen")
    assert chosen["series_key"].unique().to_list() == [hexed("A1b")]
    assert chosen["choice_reason"].str.starts_with("override; ").all()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "choice.csv cannot be read as CSV"),
        ("study,series_key\n1,2\n", "choice.csv has no column study_key; found study, series_key"),
        (
            f"study_key,series_key\n{hexed('A1')},nobody\n",
            "choice.csv row 2, column series_key: expected a key",
        ),
        (f"study_key,series_key\n{hexed('A1')},{hexed('C1a')}\n", "1 rows name a series that its study does not have"),
    ],
)
def test_a_bad_override_file_is_named(tmp_path, store, text, says):
    held(store, series_rows())
    study = written(tmp_path, 'overrides = "choice.csv"')
    if text is not None:
        (tmp_path / "choice.csv").write_text(text)
    with pytest.raises(StudyError) as caught:
        ran(study, store)
    assert says in str(caught.value)
