"""Looking back at runs: every count leads to its keys, two runs are told apart, and drift stops a night before tables."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from ospor_batch.cli import app
from ospor_batch.config import Drift, Secret
from ospor_batch.contracts import contract
from ospor_batch.errors import DriftStop, LedgerError, StudyError
from ospor_batch.evaluation.analysis_set import AnalysisSet
from ospor_batch.plan import CENTER_STAGES, Step, begin_run, preview_cohort, run_step
from ospor_batch.runs import accepted_run
from ospor_batch.stages.accept import accept
from ospor_batch.stages.diff import diff
from ospor_batch.stages.drift import drifted
from ospor_batch.stages.keys_behind import analysis_of
from ospor_batch.stages.people_behind import COUNTED, NOBODY, people_behind
from ospor_batch.stages.retry import failed, reopen
from ospor_batch.stages.trace import TRACED, trace
from ospor_batch.store import Store
from tests.stages.audited import TwoRuns, tabulated, two_runs

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> TwoRuns:
    return two_runs(tmp_path_factory.mktemp("audit"))


def cells(rows: pl.DataFrame, table: str, *columns: str) -> list[tuple[str, int]]:
    key = contract(table).primary_key
    return [
        (",".join([column, *(f"{k}={row[k]}" for k in key)]), row[column])
        for row in rows.iter_rows(named=True)
        for column in columns
        if row[column] is not None
    ]


def test_every_exclusion_of_the_flow_leads_to_its_keys(runs: TwoRuns) -> None:
    rows = runs.first.read("attrition", under="tables").filter(pl.col("n_excluded") > 0)
    for cell, n in cells(rows, "attrition", "n_excluded"):
        assert trace(runs.first.folder, "attrition", cell=cell).keys.height == n, cell
    people = rows.filter((pl.col("level") == "person") & (pl.col("stage") == "match"))
    for cell, n in cells(people, "attrition", "n_in", "n_out"):
        assert trace(runs.first.folder, "attrition", cell=cell).keys.height == n, cell


def test_every_number_of_people_leads_to_their_keys(runs: TwoRuns) -> None:
    overall = pl.col("stratum").is_in(["overall", "center"]) & pl.col("partition").is_in(["test", "tuning"])
    prevalence = runs.first.read("prevalence", under="tables")
    known = overall & pl.col("metric").is_in(["prev_label", "prev_test_positive"])
    for cell, n in cells(prevalence.filter(known), "prevalence", "n_eligible", "n_persons", "n_events"):
        assert trace(runs.first.folder, "prevalence", cell=cell).keys.height == n, cell
    performance = runs.first.read("performance", under="tables").filter(overall & (pl.col("metric") == "auc"))
    for cell, n in cells(performance, "performance", "n_persons", "n_events", "tp", "fp", "fn", "tn"):
        assert trace(runs.first.folder, "performance", cell=cell).keys.height == n, cell


def test_every_table_of_a_run_is_followed_or_says_what_to_trace_instead(runs: TwoRuns) -> None:
    written = {path.stem for path in (runs.first.folder / "tables").glob("*.parquet")}
    refused = written - {*TRACED, "rejects_by_reason"}
    assert refused <= NOBODY.keys()
    for table in sorted(refused):
        counts = [f.name for f in contract(table).fields if f.name.startswith("n_") and f.suppress]
        assert not counts, f"{table} counts people in {counts}"
        with pytest.raises(StudyError, match=f"trace cannot follow {table}: it"):
            trace(runs.first.folder, table, cell="n_persons")


@pytest.mark.parametrize("table", sorted(COUNTED))
def test_every_count_of_every_followed_table_leads_to_as_many_keys(runs: TwoRuns, table: str) -> None:
    run, n_cells = runs.first, 0
    cuts = dict(run.read("threshold", under="tables").select("recipe", "score_cut").iter_rows())

    def people(recipe: str) -> AnalysisSet:
        return analysis_of(run, recipe, reference_id="dxa_any_site", target="osteoporosis")

    for recipe, reference in run.read("threshold", under="tables").select("recipe", "reference_id").iter_rows():
        of = analysis_of(run, recipe, reference_id=reference, target="osteoporosis")
        rows = run.read(table, under="tables").filter(pl.col("recipe") == recipe)
        if table in {"performance", "risk_calibration"}:  # all metrics of a cell share their counts
            rows = rows.unique([c for c in contract(table).primary_key if c != "metric"], keep="first", maintain_order=True)
        for row in rows.gather_every(max(rows.height // 40, 1)).iter_rows(named=True):
            counts = [c for c in row if (c.startswith("n_") or c in {"tp", "fp", "fn", "tn"}) and row[c] is not None]
            for column in (c for c in counts if c != "n_groups"):
                keys = people_behind(of, table=table, row=row, column=column, cut=cuts[recipe], others=people)
                assert keys.unique().height == row[column], (recipe, column, row)
                n_cells += 1
    assert n_cells or run.read(table, under="tables").height == 0


@pytest.mark.parametrize("table", ["linkage", "window", "guard", "contrast"])
def test_every_count_of_match_and_catalog_leads_to_as_many_keys(runs: TwoRuns, table: str) -> None:
    under = "tables" if runs.first.has(table, under="tables") else ""
    rows = runs.first.read(table, under=under)
    counts = [c for c in rows.columns if c.startswith("n_")]
    found = cells(rows, table, *counts)
    assert any(n > 0 for _, n in found)
    for cell, n in found:
        assert trace(runs.first.folder, table, cell=cell).keys.height == n, cell
    column = cells(rows, table, "n_struck" if table == "guard" else "n_persons" if "n_persons" in counts else "n_imaged")
    assert any(n > 0 for _, n in column)


def test_what_counts_nobody_is_said(runs: TwoRuns) -> None:
    with pytest.raises(StudyError, match="counts nobody; name a column such as n_persons"):
        trace(runs.first.folder, "agreement", cell="estimate,recipe=mean_hu_dxa,metric=pearson_r")
    with pytest.raises(StudyError, match="trace cannot follow nothing: it is no table of people; it follows"):
        trace(runs.first.folder, "nothing", cell="n_persons")


def test_what_is_not_named_is_taken_over_everyone(runs: TwoRuns) -> None:
    found = trace(runs.first.folder, "prevalence", cell="n_events,recipe=mean_hu_dxa,metric=prev_label,center=north")
    assert (found.row["stratum"], found.row["partition"], found.row["sex"]) == ("center", "test", "all")
    assert found.keys.columns == ["center", "patient_key", "series_key"]
    for table, column in (("performance", "n_events"), ("discrimination", "n_missing")):  # no metric moves their counts
        of_all = trace(runs.first.folder, table, cell=f"{column},recipe=mean_hu_dxa")
        assert of_all.keys.height == of_all.value
    with pytest.raises(StudyError, match="name recipe, one of mean_hu_dxa, mean_hu_qct"):
        trace(runs.first.folder, "prevalence", cell="n_events,metric=prev_label")
    with pytest.raises(StudyError, match="'metrik' is no column"):
        trace(runs.first.folder, "prevalence", cell="n_events,metrik=prev_label")
    with pytest.raises(StudyError, match="no run; expected a folder"):
        trace(runs.first.folder.parent, "prevalence", cell="n_events")


def test_paths_are_shown_on_request_alone(runs: TwoRuns) -> None:
    cell = "n_excluded,level=file,reason=truncated,center=north"
    assert "path" not in trace(runs.first.folder, "attrition", cell=cell).keys.columns
    located = trace(runs.first.folder, "attrition", cell=cell, locate=True).keys
    assert all((runs.study.folder / path).is_file() for path in located["path"])
    people = trace(runs.first.folder, "prevalence", cell="n_persons,recipe=mean_hu_dxa,metric=prev_label", locate=True).keys
    folders = [folder for paths in people["path"] for folder in paths.split(";")]
    assert all((runs.study.folder / folder).is_dir() for folder in folders)


def test_a_cell_that_its_keys_do_not_reproduce_is_a_ledger_error(runs: TwoRuns, tmp_path: Path) -> None:
    wrong = tmp_path / "runs" / runs.first.run_id
    wrong.parent.mkdir()
    __import__("shutil").copytree(runs.first.folder, wrong)
    rows = runs.first.read("prevalence", under="tables").with_columns(n_events=pl.col("n_events") + 1)
    rows.filter(pl.col("n_events") <= pl.col("n_persons")).write_parquet(wrong / "tables" / "prevalence.parquet")
    with pytest.raises(LedgerError, match="keys stand behind it"):
        trace(wrong, "prevalence", cell="n_events,recipe=mean_hu_dxa,metric=prev_label")


def test_diff_names_the_step_that_moved_and_the_numbers_that_followed(runs: TwoRuns) -> None:
    found = diff(runs.first.folder, runs.second.folder)
    assert [name for name, _, _ in found.made_of] == ["study_digest"]
    people = found.steps.filter((pl.col("level") == "person") & (pl.col("recipe") == "mean_hu_dxa") & pl.col("is_first"))
    assert set(people["step"]) == {"age 50 or older"}
    assert (people["n_excluded_b"] > people["n_excluded"]).all()
    assert found.steps.filter(pl.col("recipe") == "catalog").height == 0
    moved = found.estimates.filter((pl.col("table") == "prevalence") & (pl.col("recipe") == "mean_hu_dxa"))
    assert moved.height
    assert set(moved.filter(pl.col("center") == "all")["moved_from"]) == {"match series: age 50 or older (age_50_or_older)"}
    before, after = (r.read("prevalence", under="tables") for r in (runs.first, runs.second))
    where = (pl.col("recipe") == "mean_hu_dxa") & (pl.col("stratum") == "overall") & (pl.col("partition") == "test")
    ends = [t.filter(where & (pl.col("metric") == "prev_label") & (pl.col("is_same_acquisition") == "all"))["n_persons"][0]
            for t in (before, after)]  # fmt: skip
    assert ends[0] > ends[1]
    same = diff(runs.first.folder, runs.first.folder)
    assert (same.made_of, same.steps.height, same.estimates.height) == ((), 0, 0)


def test_a_sweep_that_drifts_stops_before_tables_until_somebody_accepts(runs: TwoRuns) -> None:
    bounds = runs.strict.sweep.model_copy(update={"drift": Drift(minimum_n=5, count=0.2, prevalence_points=100)})
    strict = runs.strict.model_copy(update={"sweep": bounds})
    evaluate = Step("evaluate", run_id=runs.second.run_id)
    assert accepted_run(runs.store) is None
    run_step(strict, evaluate, is_sweep=True)  # nothing to be measured against
    accept(runs.first.folder)
    assert accepted_run(runs.store).run_id == runs.first.run_id
    with pytest.raises(DriftStop) as stopped:
        run_step(strict, evaluate, is_sweep=True)
    said = str(stopped.value)
    assert stopped.value.exit_code == 13
    assert "everyone: " in said
    assert "first moved at match: age 50 or older (age_50_or_older)" in said
    assert f"ospor-batch accept workspace/runs/{runs.second.run_id}" in said
    run_step(strict, evaluate, is_sweep=False)  # a person at the keyboard may look at the tables
    accept(runs.second.folder)
    run_step(strict, evaluate, is_sweep=True)
    moves = drifted(strict, runs.first, store=runs.store)  # and now the first would be the one that moved
    assert {move.measure for move, _ in moves} == {"count"}


def test_only_a_run_whose_people_are_known_is_accepted(runs: TwoRuns, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="no run"):
        accept(tmp_path)
    other = runs.study.model_copy(update={"split": runs.study.split.model_copy(update={"tuning": 0.0, "internal_test": 1.0})})
    begun = begin_run(other)
    with pytest.raises(StudyError, match="has not finished match, infer"):
        accept(begun.folder)
    assert accept(tabulated(other, runs.store, until="infer").folder).run_id == begun.run_id


def test_the_cohort_can_be_looked_at_before_any_pixel_and_writes_nothing(runs: TwoRuns) -> None:
    before = sorted((runs.store.workspace / "runs").iterdir())
    attrition, guards = preview_cohort(runs.study)
    written = runs.first.read("attrition")
    assert attrition.equals(written)
    assert dict(guards.select("center", "status").iter_rows()) == {
        "north": "assessed", "south": "not_assessed", "east": "not_assessed", "west": "not_assessed"
    }  # fmt: skip
    assert sorted((runs.store.workspace / "runs").iterdir()) == before


def test_rows_for_people_outside_keep_every_interval_and_no_date_or_key(runs: TwoRuns) -> None:
    study_file = runs.study.folder / "study.toml"
    made = CliRunner().invoke(app, ["manifest", str(study_file), "--run", runs.first.run_id, "--shift-dates", "--json"])
    assert made.exit_code == 0, made.output
    told = json.loads(made.stdout)
    target = Path(told["file"])
    assert runs.store.private in target.parents
    rows, inside = pl.read_csv(target, try_parse_dates=True), runs.first.read("manifest")
    assert rows.height == inside.height == told["n_rows"]
    gap = (pl.col("label_date") - pl.col("image_date")).dt.total_days()
    assert rows.select(gap.ne_missing(pl.col("gap_days"))).to_series().sum() == 0
    assert rows["image_date"].null_count() == 0
    series = runs.store.current("series", snapshot=runs.first.snapshot)
    text, known = target.read_text(), ("patient_key", "study_key", "series_key", "label_key", "series_digest", "item_digest")
    assert not [v for c in known for v in inside[c].drop_nulls() if v in text]
    assert "period" not in rows.columns
    # the same people, all moved: who shares a key shares a shift, and intervals between images are those of the catalog
    by_person = rows.group_by("patient_key").agg(pl.col("image_date").max() - pl.col("image_date").min())["image_date"].sort()
    true = inside.join(series.select("series_key", "image_date"), on="series_key")
    assert by_person.to_list() == (
        true.group_by("patient_key").agg(pl.col("image_date").max() - pl.col("image_date").min())["image_date"].sort().to_list()
    )
    assert set(rows["image_date"]) != set(true["image_date"])
    assert rows["score"].drop_nulls().len() == rows.height - runs.first.read("reject").height
    plain = CliRunner().invoke(app, ["manifest", str(study_file), "--run", runs.first.run_id])
    assert plain.exit_code == 0, plain.output
    assert "image_date" not in pl.read_csv(target.with_name("people.csv")).columns
    missing = CliRunner().invoke(app, ["manifest", str(study_file), "--run", "none"])
    assert isinstance(missing.exception, StudyError)


def test_a_changed_key_needs_a_new_workspace_moves_nobody_and_can_be_joined(runs: TwoRuns) -> None:
    """docs/pseudonyms.md: one workspace has one key; partitions outlive it; series_digest joins old and new."""
    (runs.study.folder / "another.key").write_text("the key of the second year, long enough")
    secret = Secret(file="another.key")
    rotated = runs.study.model_copy(update={"study": runs.study.study.model_copy(update={"pseudonym_key": secret})})
    center = runs.study.centers[0].name
    with pytest.raises(StudyError, match="written with another key; give that key, or start a new workspace"):
        run_step(rotated, Step("crawl", center=center))
    elsewhere = rotated.study.model_copy(update={"workspace": "workspace_2023"})
    moved = rotated.model_copy(update={"study": elsewhere})
    for one in moved.centers:
        for stage in CENTER_STAGES:
            run_step(moved, Step(stage, center=one.name))
    run = begin_run(moved)
    run_step(moved, Step("match", run_id=run.run_id))
    series = [
        Store(workspace).current("series").drop_nulls("patient_key") for workspace in (runs.study.workspace, moved.workspace)
    ]
    old, new = (of.select("series_digest", "patient_key", "split_position") for of in series)
    assert not set(old["patient_key"]) & set(new["patient_key"])
    both = old.join(new, on="series_digest", suffix="_new")
    assert set(both["patient_key"]) == set(old["patient_key"])
    assert both["split_position"].equals(both["split_position_new"].alias("split_position"))
    people = both.select("patient_key", "patient_key_new").unique()
    assert people["patient_key"].is_unique().all()
    assert people["patient_key_new"].is_unique().all()
    renamed = dict(people.iter_rows())
    before = {
        renamed[person]: partition
        for person, partition in runs.first.read("split").select("patient_key", "partition").iter_rows()
    }
    assert before == dict(run.read("split").select("patient_key", "partition").iter_rows())
    # who left where, too, is as it was: a key breaks ties between series that are alike, and moves nobody
    steps = diff(runs.first.folder, run.folder).steps
    assert steps.filter((pl.col("level") == "person") & (pl.col("stage") == "match")).height == 0


def test_retry_opens_a_run_only_when_something_may_have_passed(runs: TwoRuns) -> None:
    found = failed(runs.study, runs.store)
    assert (found.n_files, found.n_series, found.run_id) == (0, 0, None)
    assert reopen(runs.study, runs.store) == found
    rejects = runs.first.read("reject")
    assert rejects.height  # somebody's mask is missing
    worker_died = rejects.with_columns(is_transient=pl.lit(value=True), reason=pl.lit("worker_died"))
    runs.first.write("reject", worker_died)
    assert reopen(runs.study, runs.store).n_series == rejects.height
    again = tabulated(runs.study, runs.store, until="infer")
    assert again.read("reject").equals(rejects)
