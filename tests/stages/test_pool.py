"""Releases of a study that was split over hospitals pool to the estimates of the whole, or are refused."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ospor_batch.config import Study
from ospor_batch.errors import ContractError, StudyError
from ospor_batch.evaluation.agreement import pearson
from ospor_batch.evaluation.discrimination import roc_area
from ospor_batch.evaluation.grouped_areas import histogram_area
from ospor_batch.stages.pool import pool
from ospor_batch.stages.release import _checksums, release
from tests.stages.evaluated import Made, make, people
from tests.stages.evaluated import study as made_up


def of(centers: tuple[str, ...], **tables: Any) -> Study:
    found = made_up(
        recipe={"threshold": {"fixed": 115.0}},
        tables={"strata": ["center"], "smallest_cell": 1, "round_to": 1} | tables,
        analysis={"minimum_events": 3, "bootstrap_replicates": 0},
    )
    kept = tuple(center for center in found.centers if center.name in centers)
    return found.model_copy(update={"centers": kept})


def hospital(folder: Path, centers: tuple[str, ...], **tables: Any) -> Made:
    cohort = [person for person in people(240) if person.center in centers]
    made = make(folder, cohort, of=of(centers, **tables))
    made.evaluate()
    release(made.study, made.run, store=made.store)
    return made


@pytest.fixture(scope="module", autouse=True)
def _without_figures() -> Iterator[None]:
    """Pooling reads tables and headers; drawing each release thrice would take most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ospor_batch.stages.release.release_pictures", lambda _study, _tables: [])
        yield


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> tuple[Made, list[Made]]:
    folder = tmp_path_factory.mktemp("split")
    whole = hospital(folder / "whole", ("east", "north", "south", "west"))
    parts = [hospital(folder / name, (name,)) for name in ("east", "north", "south", "west")]
    return whole, parts


def folders(parts: list[Made]) -> list[Path]:
    return [part.run.folder / "release" for part in parts]


def estimate(rows: pl.DataFrame, metric: str, method: str) -> dict[str, Any]:
    found = rows.filter((pl.col("metric") == metric) & (pl.col("method") == method))
    assert found.height == 1, (metric, method, found)
    return found.row(0, named=True)


def test_sums_give_the_estimates_of_the_pooled_rows(split: tuple[Made, list[Made]], tmp_path: Path) -> None:
    whole, parts = split
    rows = pool(folders(parts), out=tmp_path).rows
    for table, metrics in (
        ("performance", ("sensitivity", "specificity", "ppv", "npv", "f1", "accuracy", "lr_positive", "kappa")),
        ("prevalence", ("prev_label", "prev_test_positive")),
    ):
        for metric in metrics:
            found, expected = estimate(rows, metric, "summed_counts"), whole.row(table, metric=metric)
            assert (found["n_persons"], found["status"]) == (expected["n_persons"], expected["status"]), metric
            for name in ("estimate", "estimate_lower", "estimate_upper"):
                assert found[name] == pytest.approx(expected[name], abs=1e-12), (metric, name)
    standardised = estimate(rows, "prev_label_standardised", "summed_strata")
    expected = whole.row("prevalence", metric="prev_label_standardised")
    assert standardised["estimate"] == pytest.approx(expected["estimate"], abs=1e-12)
    assert standardised["estimate_upper"] == pytest.approx(expected["estimate_upper"], abs=1e-12)
    manifest = whole.table("agreement", metric="pearson_r", stratum="overall", partition="test", is_same_acquisition="all")
    r = estimate(rows, "pearson_r", "summed_moments")
    for name in ("estimate", "estimate_lower", "estimate_upper"):
        assert r[name] == pytest.approx(manifest[name][0], abs=1e-10)


def test_the_area_of_summed_histograms_is_that_of_binned_rows(split: tuple[Made, list[Made]], tmp_path: Path) -> None:
    whole, parts = split
    rows = pool(folders(parts), out=tmp_path).rows
    found = estimate(rows, "auc", "summed_histograms")
    bins = whole.table("score_histogram", center="all", partition="test").sort("bin_lower")
    area, variance = histogram_area(bins["n_events"].to_numpy(), bins["n_others"].to_numpy())
    assert found["estimate"] == pytest.approx(area, abs=1e-12)
    assert area is not None
    assert variance is not None
    exact = whole.row("performance", metric="auc")
    assert abs(found["estimate"] - exact["estimate"]) < 0.01  # ties within bins of 5 HU
    assert abs((found["estimate_upper"] - found["estimate_lower"]) - (exact["estimate_upper"] - exact["estimate_lower"])) < 0.02


def test_random_effects_over_releases_have_a_prediction_interval(split: tuple[Made, list[Made]], tmp_path: Path) -> None:
    row = estimate(pool(folders(split[1]), out=tmp_path).rows, "auc", "random_effects")
    assert row["n_releases"] >= 3
    assert row["prediction_lower"] <= row["estimate_lower"] < row["estimate"] < row["estimate_upper"] <= row["prediction_upper"]


def test_duplicates_that_cannot_be_seen_are_said(split: tuple[Made, list[Made]], tmp_path: Path) -> None:
    found = pool(folders(split[1]), out=tmp_path)
    assert "duplicates across centers cannot be seen" in found.warning
    assert found.warning in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize(
    ("key", "called"),
    [("model_digest", "model"), ("threshold_id", "locked threshold"), ("reference_digest", "reference standard"),
     ("criteria_digest", "criteria"), ("window_days", "window")],
)  # fmt: skip
def test_a_difference_that_matters_is_refused(split: tuple[Made, list[Made]], tmp_path: Path, key: str, called: str) -> None:
    other = changed(split[1][1], tmp_path / "other", lambda header: header["recipes"]["mean_hu"].update({key: "another"}))
    with pytest.raises(StudyError, match=called):
        pool([folders(split[1])[0], other], out=tmp_path / "out")


def test_another_contract_is_refused(split: tuple[Made, list[Made]], tmp_path: Path) -> None:
    other = changed(split[1][1], tmp_path / "other", lambda header: header["contracts"].update({"performance": "another"}))
    with pytest.raises(StudyError, match="contract of performance"):
        pool([folders(split[1])[0], other], out=tmp_path / "out")


def changed(made: Made, to: Path, change: Any) -> Path:
    """A copy of a release with another header and fitting checksums."""
    source = made.run.folder / "release"
    for path in source.rglob("*"):
        if path.is_file():
            target = to / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    header = json.loads((to / "release.json").read_text())
    change(header)
    (to / "release.json").write_text(json.dumps(header))
    _checksums(to)
    return to


def test_an_altered_file_and_the_same_release_twice_are_refused(split: tuple[Made, list[Made]], tmp_path: Path) -> None:
    first = folders(split[1])[0]
    with pytest.raises(StudyError, match="same release"):
        pool([first, first], out=tmp_path)
    other = changed(split[1][1], tmp_path / "other", lambda _header: None)
    (other / "tables" / "performance.csv").write_text("made up")
    with pytest.raises(ContractError, match="altered"):
        pool([first, other], out=tmp_path)
    with pytest.raises(StudyError, match="at least two"):
        pool([first], out=tmp_path)
    with pytest.raises(StudyError, match=r"no release\.json"):
        pool([first, tmp_path], out=tmp_path)


def test_rounded_and_withheld_releases_say_so(split: tuple[Made, list[Made]], tmp_path: Path) -> None:
    rounded = hospital(tmp_path / "rounded", ("north",), round_to=5, smallest_cell=5)
    rows = pool([folders(split[1])[0], rounded.run.folder / "release"], out=tmp_path / "out").rows
    row = estimate(rows, "prev_label", "summed_counts")
    assert "rounded to 5" in (row["basis"] or "") or "withheld" in row["releases_left_out"]
    standardised = estimate(rows, "prev_label_standardised", "summed_strata")
    assert "withheld strata" in standardised["releases_left_out"]


def test_moments_and_histograms_are_those_of_the_rows() -> None:
    score, truth = [1.0, 2.0, 2.0, 3.0, 4.0, 5.0], [0, 0, 1, 0, 1, 1]
    area = roc_area(truth, score)
    found = histogram_area([0, 1, 0, 1, 1], [1, 1, 1, 0, 0])
    assert found == (pytest.approx(area.auc), pytest.approx(area.variance))
    assert pearson(score, truth).value is not None
    assert math.isfinite(found[0] or 0)
