"""The evaluate stage on a small made-up manifest with predictions, written and read through a run."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

import polars as pl
import pytest

from ospor_batch.contracts import contract
from ospor_batch.errors import LedgerError, StudyError
from ospor_batch.stages.evaluate import csv_text
from tests.stages.evaluated import LABEL_COLUMNS, TABLES, Made, Person, key_of, make, manifest_rows, people, study


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    found = make(
        tmp_path_factory.mktemp("study"), people(160), refused={2: "mask_missing", 7: "decode_failed", 24: "mask_missing"}
    )
    found.evaluate()
    return found


def test_every_table_is_written_as_parquet_and_csv(made: Made) -> None:
    folder = made.run.folder / "tables"
    assert {path.stem for path in folder.glob("*.parquet")} == TABLES
    assert {path.stem for path in folder.glob("*.csv")} == TABLES
    assert not list(folder.glob(".*"))


def test_the_flow_ends_with_the_n_of_the_tables(made: Made) -> None:
    flow = made.table("attrition")
    for center in ("all", "east", "north", "south", "west"):
        mine = flow if center == "all" else flow.filter(pl.col("center") == center)
        row = made.row("performance", stratum="overall" if center == "all" else "center", center=center, metric="auc")
        for level, n in (("person", row["n_persons"]), ("series", row["n_images"])):
            steps = mine.filter(pl.col("level") == level)
            assert steps.filter(pl.col("step_number") == steps["step_number"].max())["n_out"].sum() == n
    reasons = flow.filter((pl.col("level") == "person") & (pl.col("stage") != "match"))
    assert reasons.sort("step_number")["reason"].unique(maintain_order=True).to_list() == [
        "decode_failed", "mask_missing", "train_or_tuning",
    ]  # fmt: skip
    assert reasons.group_by("center").agg(pl.col("step").len())["step"].unique().to_list() == [3]


def test_counts_are_those_of_the_people(made: Made) -> None:
    cohort = [p for p in people(160) if p.partition in {"internal_test", "external"}]
    scored = [p for p in cohort if p.number not in {2, 7, 24}]
    cut = made.run.read("threshold", under="tables")["score_cut"][0]
    labelled = [p for p in scored if p.density is not None]
    row = made.row("performance", metric="sensitivity")
    assert (row["n_eligible"], row["n_scored"], row["n_persons"]) == (len(cohort), len(scored), len(labelled))
    assert row["tp"] == sum(p.density < 80 and -p.hu >= cut for p in labelled if p.density and p.hu)
    assert row["fn"] == sum(p.density < 80 and -p.hu < cut for p in labelled if p.density and p.hu)
    assert row["estimate"] == row["tp"] / (row["tp"] + row["fn"])
    assert row["verified_fraction"] == sum(p.density is not None for p in cohort) / len(cohort)
    by_test = made.row("prevalence", metric="prev_test_positive")
    assert by_test["n_persons"] == len(scored)
    assert by_test["n_events"] == sum(-p.hu >= cut for p in scored if p.hu)
    by_label = made.row("prevalence", metric="prev_label")
    assert by_label["n_persons"] == sum(p.density is not None for p in cohort)  # a missing score leaves the label standing
    assert made.row("prevalence", metric="prev_corrected")["status"] == "estimated"


def test_strata_add_up_to_overall(made: Made) -> None:
    for stratum in ("center", "scanner_vendor", "center*scanner_vendor", "kvp"):
        for column in ("n_eligible", "n_scored", "n_persons", "tp", "fp", "fn", "tn"):
            parts = made.table("performance", stratum=stratum, partition="test", is_same_acquisition="all", metric="auc")
            assert parts[column].sum() == made.row("performance", metric="auc")[column], (stratum, column)


def test_test_people_are_never_mixed_with_train_or_tuning(made: Made) -> None:
    rows = made.table("performance", stratum="overall", is_same_acquisition="all", metric="auc")
    n = {row["partition"]: row["n_persons"] for row in rows.to_dicts()}
    assert n["test"] == n["internal_test"] + n["external"]
    assert {"train", "tuning"} <= n.keys()
    for partition in ("train", "tuning"):
        assert made.table("performance", partition=partition)["stratum"].unique().to_list() == ["overall"]
        assert made.row("prevalence", partition=partition, metric="prev_corrected")["status_reason"] == "train_or_tuning_people"


def test_labels_of_the_very_scan_are_rows_of_their_own(made: Made) -> None:
    parts = {kind: made.row("performance", is_same_acquisition=kind, metric="auc") for kind in ("all", "yes", "no")}
    assert parts["all"]["n_persons"] == parts["yes"]["n_persons"] + parts["no"]["n_persons"]
    assert parts["yes"]["verified_fraction"] is None
    assert made.row("prevalence", is_same_acquisition="yes", metric="prev_corrected")["status_reason"] == "no_image_only_people"


def test_the_threshold_is_locked_on_tuning_people_and_named_in_every_row(made: Made) -> None:
    locked = made.run.read("threshold", under="tables").row(0, named=True)
    tuning = [p for p in people(160) if p.partition == "tuning" and p.density is not None and p.number not in {2, 7, 24}]
    assert (locked["partition"], locked["n_persons"]) == ("tuning", len(tuning))
    assert locked["threshold_id"].startswith(f"youden@tuning n={len(tuning)} -> ")
    for name in ("performance", "prevalence", "agreement"):
        assert made.table(name)["threshold_id"].unique().to_list() == [locked["threshold_id"]]


def test_densities_are_calibrated_on_train_people_at_120_kv(made: Made) -> None:
    line = made.table("calibration").row(0, named=True)
    fitted = [p for p in people(160) if p.partition == "train" and p.density and p.kvp == 120 and p.number not in {2, 7, 24}]
    assert (line["partition"], line["n_persons"], line["to_unit"]) == ("train", len(fitted), "mg/cm3")
    assert line["slope_lower"] < line["slope"] < line["slope_upper"]
    bias = made.row("agreement", metric="bias")
    assert bias["calibration_id"] == line["calibration_id"] == f"density@train kvp=120 n={len(fitted)}"
    assert abs(bias["estimate"]) < 10
    r = made.row("agreement", metric="pearson_r")
    assert r["calibration_id"] == "none"
    assert bias["n_persons"] < r["n_persons"]  # people at 100 kV have a rank but no density
    points = made.table("agreement_point", partition="test")
    assert points.height == bias["n_persons"]
    assert points["difference"].mean() == pytest.approx(bias["estimate"])
    at_100 = made.row("agreement", stratum="kvp", kvp="100", metric="bias")
    assert (at_100["status_reason"], at_100["n_persons"]) == ("no_persons", 0)


def test_centers_are_pooled_and_those_left_out_are_named(made: Made) -> None:
    by_center = made.table("heterogeneity", partition="test", grouping="center", metric="prev_label").row(0, named=True)
    assert by_center["n_groups"] == 4
    assert by_center["prediction_lower"] <= by_center["estimate_lower"] <= by_center["estimate_upper"]
    by_vendor = made.table("heterogeneity", partition="test", grouping="scanner_vendor", metric="auc").row(0, named=True)
    assert (by_vendor["status_reason"], by_vendor["estimate"]) == ("fewer_than_3_groups", None)


def test_refused_items_are_counted_by_reason(made: Made) -> None:
    counted = made.table("reject_count")
    assert counted.select("center", "reason", "n").rows() == [
        ("east", "mask_missing", 1), ("south", "mask_missing", 1), ("west", "decode_failed", 1),
    ]  # fmt: skip


def test_roc_points_run_from_nobody_to_everybody(made: Made) -> None:
    curve = made.table("roc_point", partition="test", center="all")
    assert curve.select("false_positive_rate", "true_positive_rate").rows()[0] == (0.0, 0.0)
    assert curve.select("false_positive_rate", "true_positive_rate").rows()[-1] == (1.0, 1.0)


def test_a_second_evaluation_gives_the_same_bytes(made: Made, tmp_path: Path) -> None:
    shuffled = people(160)
    shuffled.reverse()
    other = make(tmp_path / "other", shuffled, refused={2: "mask_missing", 7: "decode_failed", 24: "mask_missing"})
    other.evaluate()
    for path in sorted((made.run.folder / "tables").glob("*.csv")):
        assert path.read_bytes() == (other.run.folder / "tables" / path.name).read_bytes(), path.name


def test_without_a_split_a_tuned_threshold_is_not_estimable_but_the_auc_is(tmp_path: Path) -> None:
    cohort = people(80)
    for person in cohort:
        person.partition = "internal_test"
    found = make(tmp_path, cohort)
    found.evaluate()
    assert found.row("performance", metric="auc")["status"] == "estimated"
    sensitivity = found.row("performance", metric="sensitivity")
    assert (sensitivity["status_reason"], sensitivity["tp"], sensitivity["estimate"]) == ("no_threshold", None, None)
    assert sensitivity["threshold_id"] == "youden@tuning n=0 -> not_estimable (no_tuning_people)"
    assert found.row("prevalence", metric="prev_test_positive")["status_reason"] == "no_threshold"
    assert found.row("prevalence", metric="prev_label")["status"] == "estimated"
    assert found.row("agreement", metric="bias")["status_reason"] == "no_calibration_people"
    assert found.row("agreement", metric="pearson_r")["status"] == "estimated"
    assert not found.table("calibration").height


def test_a_fixed_cut_off_in_hu_calls_low_values_positive(tmp_path: Path) -> None:
    cohort = [Person("north", i, "internal_test", hu, density) for i, (hu, density) in enumerate(
        [(90.0, 60.0), (100.0, 70.0), (110.0, 75.0), (111.0, 79.0), (110.0, 100.0), (150.0, 120.0), (140.0, None), (95.0, None)]
    )]  # fmt: skip
    of = study(recipe={"threshold": {"fixed": 110}})
    found = make(tmp_path, cohort, of=of)
    found.evaluate()
    row = found.row("performance", metric="sensitivity")
    assert (row["tp"], row["fp"], row["fn"], row["tn"]) == (3, 1, 1, 1)
    assert row["threshold_id"] == "fixed -> -110.0 HU"
    assert found.row("performance", metric="auc")["status_reason"] == "too_few_non_events"
    assert found.row("prevalence", metric="prev_test_positive")["n_events"] == 5


def test_prevalence_goes_by_the_label_blind_index_and_performance_by_the_matched_one(tmp_path: Path) -> None:
    cohort = [
        Person("north", i, "internal_test", 150.0 if i % 2 else 90.0, 100.0 if i % 2 else 70.0, blind_hu=50.0) for i in range(8)
    ]
    found = make(tmp_path, cohort, of=study(recipe={"threshold": {"fixed": 110}}))
    found.evaluate()
    assert found.row("prevalence", metric="prev_test_positive")["n_events"] == 8
    row = found.row("performance", metric="accuracy")
    assert (row["tp"], row["tn"], row["n_persons"]) == (4, 4, 8)
    series = found.table("attrition", level="series", reason="prevalence_index_only")
    assert series["n_excluded"].sum() == 8


def test_centers_without_people_have_rows_that_say_so(tmp_path: Path) -> None:
    cohort = [person for person in people(80) if person.center != "west"]
    for person in cohort:
        if person.center == "east" and person.density is not None:
            person.density = 120.0  # nobody has the condition here
    found = make(tmp_path, cohort, of=study(recipe={"threshold": {"fixed": 110}}))
    found.evaluate()
    west = found.row("performance", stratum="center", center="west", metric="auc")
    assert (west["status_reason"], west["n_eligible"], west["n_persons"]) == ("no_persons", 0, 0)
    assert found.row("performance", stratum="center", center="east", metric="auc")["status_reason"] == "no_events"
    assert found.row("performance", stratum="center", center="east", metric="sensitivity")["status_reason"] == "no_events"
    left_out = found.table("heterogeneity", partition="test", grouping="center", metric="auc")["groups_left_out"][0]
    assert "east: no_events" in left_out


def test_nobody_at_all_gives_tables_of_reasons(tmp_path: Path) -> None:
    found = make(tmp_path, [])
    found.evaluate()
    rows = found.table("performance", stratum="overall")
    assert set(rows["status"]) == {"not_estimable"}
    assert rows["estimate"].null_count() == rows.height


def test_nobody_scored_gives_tables_of_reasons(tmp_path: Path) -> None:
    cohort = people(40)
    found = make(tmp_path, cohort, refused={person.number: "mask_missing" for person in cohort})
    found.evaluate()
    assert found.row("performance", metric="auc")["status_reason"] == "no_persons"
    assert found.row("prevalence", metric="prev_label")["status"] == "estimated"
    assert found.row("agreement", metric="pearson_r")["status_reason"] == "no_persons"


def test_a_manifest_row_without_outcome_stops_the_stage(tmp_path: Path) -> None:
    found = make(tmp_path, people(40))
    lost = found.run.read("prediction").slice(1)
    found.run.write("prediction", lost)
    with pytest.raises(LedgerError, match="not exactly one of prediction and reject"):
        found.evaluate()


def test_an_attrition_that_does_not_meet_the_manifest_stops_the_stage(tmp_path: Path) -> None:
    found = make(tmp_path, people(40))
    wrong = found.run.read("attrition").with_columns(n_out=pl.col("n_out") - 1, n_excluded=pl.col("n_excluded") + 1)
    found.run.write("attrition", wrong)
    with pytest.raises(LedgerError, match="run match again"):
        found.evaluate()


def test_a_misspelt_stratum_stops_before_any_table(tmp_path: Path) -> None:
    found = make(tmp_path, people(40), of=study(tables={"strata": ["centre"]}))
    with pytest.raises(StudyError, match="did you mean 'center'"):
        found.evaluate()
    assert not (found.run.folder / "tables").exists()


def test_csv_cells_that_a_spreadsheet_would_run_get_an_apostrophe() -> None:
    rows = pl.DataFrame(
        {"text": ["=1+1", "+1", "-180/+180", "@a", "plain", "\tx", None], "number": [-1.5, 1 / 3, 1e-9, 1e20, 0.1, 2.0, 3.0]}
    )
    read = list(csv.DictReader(io.StringIO(csv_text(rows))))
    assert [row["text"] for row in read] == ["'=1+1", "'+1", "'-180/+180", "'@a", "plain", "'\tx", ""]
    assert [float(row["number"]) for row in read] == rows["number"].to_list()


def test_csv_rows_are_sorted_by_the_key_and_hold_no_run(made: Made) -> None:
    for name in ("performance", "attrition"):
        rows = made.run.read(name, under="tables")
        key = list(contract(name).primary_key)
        assert rows.select(key).equals(rows.select(key).sort(key))
        assert made.run.run_id not in (made.run.folder / "tables" / f"{name}.csv").read_text(encoding="utf-8")


def test_bad_input_leaves_gaps_that_say_why(tmp_path: Path) -> None:
    """No positives in one center, three people of a vendor, infinite scores, half of the predictions missing."""
    cohort = people(160)
    for person in cohort:
        if person.center == "west" and person.density is not None:
            person.density = 95.0 + person.number % 20
        if person.number in {0, 1, 2}:
            person.vendor = "rare"
    refused = {person.number: "mask_missing" for person in cohort if person.center == "south" and person.number % 8 == 2}
    made = make(tmp_path, cohort, refused=refused)
    infinite = [key_of("item", row["series_key"]) for i in (8, 9, 12) for row in manifest_rows(cohort[i])]
    part = made.run.path("prediction")  # what a predictor of somebody else may leave
    is_hit = pl.col("item_digest").is_in(infinite)
    pl.read_parquet(part).with_columns(score=pl.when(is_hit).then(pl.lit(math.inf)).otherwise("score")).write_parquet(part)
    made.evaluate()
    west = made.table("performance", stratum="center", center="west", partition="test", is_same_acquisition="all", metric="auc")
    assert west["status_reason"].to_list() == ["no_events"]
    rare = made.table("performance", stratum="scanner_vendor", scanner_vendor="rare", partition="test", metric="auc")
    assert set(rare["status"]) <= {"not_estimable"}
    flow = made.table("attrition", level="person", reason="score_not_finite")
    assert flow["n_excluded"].sum() == sum(p.density is not None for p in cohort if p.number in {8, 9, 12})
    missing = made.table("missingness", partition="test", variable="score", center="south").row(0, named=True)
    assert 0.4 < missing["share_missing"] < 0.6
    for path in (made.run.folder / "tables").glob("*.parquet"):
        rows = pl.read_parquet(path)
        for column, dtype in rows.schema.items():
            assert dtype != pl.Float64 or bool(rows[column].drop_nulls().is_finite().all()), (path.stem, column)


def test_several_images_a_person_are_rows_of_their_own_with_intervals_over_persons(tmp_path: Path) -> None:
    cohort = people(160)
    for person in cohort:
        person.kvp = 120.0
        if person.hu is not None and person.density is not None:
            person.blind_hu = round(person.hu + person.number % 7 - 3, 3)
    made = make(tmp_path, cohort)
    listed = made.run.read("manifest")
    labels = [name for name in listed.columns if name in {*LABEL_COLUMNS, "is_performance_index"}]
    matched = listed.filter("is_performance_index").select("patient_key", *labels)
    others = listed.filter(~pl.col("is_performance_index") & pl.col("patient_key").is_in(matched["patient_key"].to_list()))
    both = others.drop(labels).join(matched, on="patient_key", how="left").select(listed.columns)
    rest = listed.join(others.select("series_key"), on="series_key", how="anti")
    made.run.write("manifest", pl.concat([rest, both]).sort("recipe", "series_key"))
    made.evaluate()
    person = made.table("discrimination", partition="test", grouping="overall", analysis="complete_case", unit="person")
    image = made.table("discrimination", partition="test", grouping="overall", analysis="complete_case", unit="image")
    (alone,) = person.filter(pl.col("interval") == "delong_logit", pl.col("metric") == "auc").to_dicts()
    (several,) = image.filter(pl.col("interval") == "obuchowski_logit").to_dicts()
    assert (several["n_images"], several["n_persons"]) == (2 * alone["n_persons"], alone["n_persons"])
    width = {row["unit"]: row["estimate_upper"] - row["estimate_lower"] for row in (alone, several)}
    assert width["image"] > 0.85 * width["person"]  # the second image of a person is nearly the first again
    repeated = made.table("agreement", partition="test", stratum="overall", unit="image").to_dicts()
    assert {row["metric"] for row in repeated} == {"bias", "sd_of_differences", "loa_lower", "loa_upper"}
    assert {row["n_images"] for row in repeated} == {2 * alone["n_persons"]}
    further = made.table("attrition", level="series").filter(pl.col("reason") != "not_index")
    assert further["n_excluded"].sum() >= alone["n_persons"]  # counted in the flow, not lost
