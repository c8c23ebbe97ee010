"""Dice and surface distance per level and vendor: persons weigh the same, what was not found is counted."""

from __future__ import annotations

import polars as pl
import pytest

from ospor_batch.contracts.table import schema_of, whole
from ospor_batch.evaluation.analysis_set import AnalysisSet
from ospor_batch.evaluation.overlap_tables import overlap_rows
from tests.evaluation.test_discrimination_tables import context

SERIES = [  # item, person, partition, vendor
    ("a1", "anna", "internal_test", "ge"),
    ("a2", "anna", "internal_test", "ge"),
    ("b1", "bert", "external", "philips"),
    ("c1", "cleo", "train", "ge"),
]
VERTEBRAE = [  # item, level, Dice, distance
    ("a1", "L1", 0.8, 2.0),
    ("a1", "L2", 0.6, 4.0),
    ("a2", "L1", 1.0, 0.0),
    ("b1", "L1", 0.5, 9.0),
    ("b1", "L2", 0.0, None),  # found elsewhere: no distance
    ("b1", "L3", None, None),  # no mask beside it
    ("c1", "L1", 0.9, 1.0),
]


def rows() -> pl.DataFrame:
    series = pl.DataFrame(SERIES, schema=["item_digest", "patient_key", "partition", "scanner_vendor"], orient="row")
    vertebrae = pl.DataFrame(VERTEBRAE, schema=["item_digest", "level", "dice", "hd95_mm"], orient="row")
    found = overlap_rows(context(), AnalysisSet(series, series, series), vertebrae=vertebrae)
    return whole(pl.DataFrame(found, schema=schema_of("overlap")), "overlap")


def one(found: pl.DataFrame, **values: str) -> dict[str, object]:
    return found.filter(pl.all_horizontal(pl.col(name) == value for name, value in values.items())).row(0, named=True)


def test_persons_weigh_the_same_however_many_images_they_have() -> None:
    row = one(rows(), partition="test", scanner_vendor="all", level="L1", metric="dice")
    assert row["estimate"] == pytest.approx((0.9 + 0.5) / 2)
    assert (row["n_persons"], row["n_vertebrae"], row["lowest"], row["highest"]) == (2, 3, 0.5, 0.9)
    assert row["interval_method"] == "t_over_persons"


def test_over_levels_a_persons_mean_comes_first() -> None:
    row = one(rows(), partition="test", scanner_vendor="all", level="all", metric="dice")
    assert row["estimate"] == pytest.approx(((0.8 + 0.6 + 1.0) / 3 + 0.25) / 2)


def test_what_was_not_found_is_counted_and_never_a_zero() -> None:
    found = rows()
    assert one(found, partition="test", scanner_vendor="all", level="L2", metric="dice")["n_not_found"] == 1
    assert one(found, partition="test", scanner_vendor="philips", level="L2", metric="hd95_mm")["status_reason"] == "no_overlap"
    assert "L3" not in set(found["level"])


def test_one_person_has_no_interval_and_training_people_are_apart() -> None:
    row = one(rows(), partition="train", scanner_vendor="ge", level="L1", metric="hd95_mm")
    assert (row["estimate"], row["estimate_lower"], row["interval_method"]) == (1.0, None, "none")


def test_nothing_segmented_gives_no_rows() -> None:
    series = pl.DataFrame(SERIES, schema=["item_digest", "patient_key", "partition", "scanner_vendor"], orient="row")
    vertebrae = pl.DataFrame(schema={"item_digest": pl.String, "level": pl.String, "dice": pl.Float64, "hd95_mm": pl.Float64})
    assert overlap_rows(context(), AnalysisSet(series, series, series), vertebrae=vertebrae) == []
