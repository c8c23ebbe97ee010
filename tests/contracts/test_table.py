"""A contract parts the rows that keep it from those that break it, each with its reason."""

from __future__ import annotations

import polars as pl
import pytest

from ospor_batch.contracts import contract, contract_names
from ospor_batch.contracts.table import checks, conform, empty, part, schema_of, whole
from ospor_batch.errors import ContractError

ROW = {
    "recipe": "r",
    "reference_id": "d",
    "center": "north",
    "level": "person",
    "step_number": 1,
    "step": "CT",
    "stage": "match",
    "reason": "not_ct",
    "n_in": 10,
    "n_excluded": 3,
    "n_out": 7,
}


def attrition(*changes: dict[str, object]) -> pl.DataFrame:
    return pl.DataFrame([{**ROW, "step_number": i + 1, **c} for i, c in enumerate(changes)], schema=schema_of("attrition"))


@pytest.mark.parametrize("name", contract_names())
def test_every_rule_of_every_contract_can_be_asked(name: str) -> None:
    nulls = pl.DataFrame({column: [None] for column in schema_of(name)}, schema=schema_of(name))
    judged = nulls.select(ok.alias(rule) for rule, ok in checks(contract(name)).items())
    assert all(dtype == pl.Boolean for dtype in judged.dtypes)
    assert part(empty(name), name).kept.height == 0


def test_kept_and_refused_are_the_input_and_each_refusal_names_its_rule() -> None:
    rows = attrition({}, {"n_out": 8}, {"level": "galaxy"}, {"n_in": -1, "n_excluded": 0, "n_out": -1})
    parted = part(rows, "attrition")
    assert parted.kept.height == 1
    assert parted.refused["broken_rules"].to_list() == [
        "subtracts_exactly",
        "level.enum",
        "n_in.minimum;n_out.minimum",
    ]


def test_a_required_value_may_not_be_null_and_a_pattern_is_held() -> None:
    rows = pl.DataFrame(
        {
            "patient_key": ["0" * 32, None, "not a key"],
            "center": ["a", "b", "c"],
            "partition": ["train"] * 3,
            "partition_reason": ["hash"] * 3,
        }
    )
    assert part(rows, "split").refused["broken_rules"].to_list() == ["patient_key.required", "patient_key.pattern"]


def test_a_number_that_is_none_never_passes() -> None:
    row = {f.name: None for f in contract("vertebra").fields} | {
        "item_digest": "0" * 32,
        "series_digest": "0" * 32,
        "model_digest": "m",
        "parameter_digest": "p",
        "level": "L1",
        "n_voxels": 1,
        "volume_ml": 1.0,
        "mean_hu": float("nan"),
        "sd_hu": float("inf"),
        "is_touching_edge": False,
    }
    refused = part(pl.DataFrame([row], schema=schema_of("vertebra")), "vertebra").refused
    assert refused["broken_rules"].to_list() == ["mean_hu.finite;mean_hu.maximum;sd_hu.finite"]


def test_no_table_takes_a_number_that_is_none() -> None:
    for name in contract_names():
        numbers = [field.name for field in contract(name).fields if field.type == "number"]
        row = {column: [float("nan") if column in numbers else None] for column in schema_of(name)}
        broken = part(pl.DataFrame(row, schema=schema_of(name)), name).refused["broken_rules"].to_list()
        assert {f"{number}.finite" for number in numbers} <= set(";".join(broken).split(";")), name


def test_a_shared_primary_key_stops() -> None:
    with pytest.raises(ContractError, match="repeat a primary key"):
        part(attrition({"step_number": 1}, {"step_number": 1}), "attrition")


def test_whole_says_which_rule_and_how_often() -> None:
    with pytest.raises(ContractError, match=r"1 of 2 rows .* subtracts_exactly \(1 rows\)"):
        whole(attrition({}, {"n_out": 0}), "attrition")


def test_columns_are_held_by_name_and_type() -> None:
    rows = attrition({})
    with pytest.raises(ContractError, match="columns missing: step"):
        conform(rows.drop("step"), "attrition")
    with pytest.raises(ContractError, match="does not declare: extra"):
        conform(rows.with_columns(extra=1), "attrition")
    with pytest.raises(ContractError, match="attrition.n_in: type String"):
        conform(rows.with_columns(n_in=pl.lit("ten")), "attrition")


def test_the_arrow_schema_is_the_polars_schema() -> None:
    for name in contract_names():
        assert contract(name).arrow_schema().names == list(schema_of(name))


def test_an_unknown_contract_names_the_known_ones() -> None:
    with pytest.raises(ContractError, match="no contract named 'seris'"):
        contract("seris")
