"""A study that names a site: its tuning people leave every other table, and both results stand side by side."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from ospor_batch.stages.trace import trace
from tests.stages.evaluated import Made, make, people, study


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    cohort = people(160)
    mine = [p for p in cohort if p.center == "south"]
    aside = {p.number for p in mine[::3]}
    cohort = [replace(p, partition="site_tuning") if p.number in aside else p for p in cohort]
    of = study(
        analysis={"minimum_events": 3, "bootstrap_replicates": 0},
        split={
            "train": 0.5, "tuning": 0.3, "internal_test": 0.2, "external": {"center": ["south"]},
            "site_tuning": {"south": 0.33},
        }
    )  # fmt: skip
    found = make(tmp_path_factory.mktemp("site"), cohort, of=of)
    found.evaluate()
    return found


def test_site_people_leave_the_flow_under_their_own_reason_and_stand_in_no_other_table(made: Made) -> None:
    manifest = made.run.read("manifest").filter("is_performance_index")
    n = {name: manifest.filter(pl.col("partition") == name).height for name in ("site_tuning", "external")}
    flow = made.table("attrition", level="person", reason="site_tuning")
    assert flow["n_excluded"].sum() == n["site_tuning"] > 0
    for table in ("performance", "agreement", "prevalence", "risk_calibration"):
        assert "site_tuning" not in set(made.table(table)["partition"])
    assert made.row("performance", partition="external", metric="auc")["n_persons"] == n["external"]


def test_both_results_are_of_the_same_people_under_their_own_ids(made: Made) -> None:
    rows = made.table("site_recalibration", partition="external")
    assert rows.group_by("metric").len()["len"].unique().to_list() == [2]
    assert rows.select("n_persons", "n_events").unique().height == 1
    first, second = sorted(set(rows["calibration_id"]))
    n_tuning = rows["n_tuning_persons"][0]
    assert (first, second) == (f"linear@site_tuning n={n_tuning}", "none")
    assert rows.filter(pl.col("calibration_id") == first)["threshold_id"][0].startswith(f"youden@site_tuning n={n_tuning}")
    assert rows.filter(pl.col("calibration_id") == second)["threshold_id"][0].startswith("youden@tuning n=")
    at_100_kv = [p for p in people(160) if p.center == "south" and p.density is not None and p.kvp != 120]
    assert at_100_kv  # whom the density calibration does not serve: they leave both results
    assert rows["n_persons"][0] < made.row("performance", partition="external", metric="auc")["n_persons"]
    assert {path.suffix for path in (made.run.folder / "tables").glob("site_recalibration.*")} == {".parquet", ".csv"}


def test_the_table_is_handed_to_the_report(made: Made) -> None:
    (row,) = made.run.read("exhibit", under="exhibits", stem="site_recalibration").to_dicts()
    assert (row["file"], row["kind"], row["recipe"]) == ("site_recalibration", "table", "all")


def test_every_count_of_a_site_leads_to_its_people(made: Made) -> None:
    for row in made.table("site_recalibration").iter_rows(named=True):
        named = ",".join(f"{name}={row[name]}" for name in ("recipe", "center", "metric", "calibration_id"))
        for column in ("n_persons", "n_events", "n_tuning_persons", "n_tuning_events"):
            assert trace(made.run.folder, "site_recalibration", cell=f"{column},{named}").value == row[column]
    reason = "n_excluded,level=person,reason=site_tuning,center=south"
    found = trace(made.run.folder, "attrition", cell=f"{reason},recipe={row['recipe']}")
    assert found.keys.height == found.value > 0
