"""Who is eligible, who is paired, and which value a measurement is compared with."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from ospor_batch.contracts.table import empty, schema_of
from ospor_batch.errors import LedgerError
from ospor_batch.evaluation.analysis_set import AnalysisSet, analysis_set, one_of, people_groups
from ospor_batch.evaluation.flow import with_last_steps

Row = dict[str, Any]


def row(person: int, series: int = 0, **changes: Any) -> Row:
    text = {field: "x" for field, dtype in schema_of("manifest").items() if dtype == pl.String}
    return text | {
        "patient_key": f"{person:032x}", "series_key": f"{person * 10 + series:032x}",
        "item_digest": f"{person * 10 + series:032x}", "center": "north", "role": "paired", "partition": "internal_test",
        "is_performance_index": True, "is_prevalence_index": True,
        "is_osteoporosis": person % 2 == 0, "is_low_bone_mass": True, "label_value": -2.0, "label_value_unit": "t_score",
        "lumbar_spine_bmd_g_cm2": 0.9, "densitometer_vendor": "hologic", "gap_days": 5, "kvp_kv": 120.0,
        "is_same_acquisition": False, "is_phantom_in_view": None, "phantom_source": None,
        "slice_thickness_mm": 1.0, "age_at_image": 60.0,
    } | changes  # fmt: skip


def gather(rows: list[Row], *, target: str = "osteoporosis") -> AnalysisSet:
    manifest = pl.DataFrame(rows, schema=schema_of("manifest"))
    predictions = manifest.select(
        "item_digest", "series_digest", score=pl.lit(-100.0), predicted_value=pl.lit(100.0), predicted_value_unit=pl.lit("HU")
    )
    return analysis_set(manifest, predictions, rejects=empty("reject"), target=target)


def test_dxa_of_one_maker_is_compared_as_areal_bmd() -> None:
    paired = gather([row(1), row(2, lumbar_spine_bmd_g_cm2=None)]).paired
    assert paired.select("reference_value", "compared_unit").rows() == [(0.9, "g/cm2"), (None, None)]


@pytest.mark.parametrize("maker", ["ge_lunar", "unknown"])
def test_areal_bmd_of_several_makers_is_not_pooled(maker: str) -> None:
    paired = gather([row(1), row(2, densitometer_vendor=maker)]).paired
    assert set(paired["compared_unit"]) == {"t_score"}
    assert set(paired["reference_value"]) == {-2.0}


def test_a_volumetric_density_is_compared_as_it_is() -> None:
    paired = gather([row(1, label_value=90.0, label_value_unit="mg/cm3")]).paired
    assert paired.select("reference_value", "compared_unit").rows() == [(90.0, "mg/cm3")]


def test_of_several_matched_images_the_one_nearest_in_time_stands_for_the_person() -> None:
    of = gather([row(1, 0, gap_days=-9, is_prevalence_index=False), row(1, 1, gap_days=4), row(1, 2, gap_days=-4)])
    assert of.paired["gap_days"].to_list() == [4]
    assert of.series["is_counted"].to_list() == [False, True, False]
    assert of.eligible.height == 1


def test_further_images_and_people_without_a_class_leave_the_flow_by_name() -> None:
    of = gather([row(1, 0, gap_days=-9, is_prevalence_index=False), row(1, 1), row(2, is_osteoporosis=None)])
    ends = {
        "recipe": "x",
        "reference_id": "x",
        "center": "north",
        "step": "s",
        "stage": "match",
        "reason": "r",
        "step_number": 1,
    }
    before = pl.DataFrame(
        [ends | {"level": level, "n_in": n, "n_excluded": 0, "n_out": n} for level, n in (("series", 3), ("person", 2))],
        schema=schema_of("attrition"),
    )
    after = with_last_steps(before, of, key={"recipe": "x", "reference_id": "x"}).filter(pl.col("stage") == "evaluate")
    steps = after.sort("level", "step_number").select("level", "reason", "n_in", "n_excluded", "n_out").rows()
    assert steps == [
        ("person", "train_or_tuning", 2, 0, 2),
        ("person", "target_unknown", 2, 1, 1),
        ("series", "train_or_tuning", 3, 0, 3),
        ("series", "prevalence_index_only", 3, 0, 3),
        ("series", "further_image", 3, 1, 2),
        ("series", "target_unknown", 2, 1, 1),
    ]


def test_the_label_side_of_a_person_does_not_hang_on_the_label_blind_index() -> None:
    blind = row(
        1, 1, is_performance_index=False, is_prevalence_index=True, densitometer_vendor="unverified", t_source="unverified",
        is_same_acquisition=None,
    )  # fmt: skip
    of = gather([row(1, 0, is_prevalence_index=False, is_same_acquisition=True), blind, row(2, is_performance_index=False)])
    first, second = of.eligible.to_dicts()
    assert (first["series_key"], first["is_paired"], first["densitometer_vendor"]) == (blind["series_key"], True, "hologic")
    assert (first["is_same_acquisition"], second["is_same_acquisition"], second["is_paired"]) == ("yes", "no", False)


def test_tube_voltage_is_text_and_unknown_is_a_group() -> None:
    of = gather([row(1), row(2, kvp_kv=None), row(3, kvp_kv=92.5)])
    assert of.paired["kvp"].to_list() == ["120", "unknown", "92.5"]


def test_the_target_may_be_low_bone_mass() -> None:
    assert gather([row(1, is_low_bone_mass=True)], target="low_bone_mass").paired["truth"].to_list() == [True]


def test_partitions_without_people_have_no_group_but_test_always() -> None:
    assert [(g.partition, g.acquisition) for g in people_groups(gather([]))] == [("test", "all")]
    found = people_groups(gather([row(1), row(2, partition="train")]))
    assert [g.partition for g in found] == ["test", "internal_test", "train"]


def test_a_row_with_prediction_and_reject_is_refused() -> None:
    manifest = pl.DataFrame([row(1)], schema=schema_of("manifest"))
    predictions = manifest.select(
        "item_digest", score=pl.lit(-1.0), predicted_value=pl.lit(1.0), predicted_value_unit=pl.lit("HU")
    )
    reject = pl.DataFrame(
        [{"center": "north", "item_key": manifest["series_key"][0], "reason": "mask_missing"}], schema=schema_of("reject")
    )
    with pytest.raises(LedgerError, match="not exactly one"):
        analysis_set(manifest, predictions, rejects=reject, target="osteoporosis")


def test_a_column_says_one_mixed_or_none() -> None:
    assert one_of(pl.Series(["a", "a", None])) == "a"
    assert one_of(pl.Series(["a", "b"])) == "mixed"
    assert one_of(pl.Series([None], dtype=pl.String)) == "unverified"
