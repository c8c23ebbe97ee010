"""Everyone stands in one partition, for reasons that outlive a rotation of keys."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ospor_batch.cohort.split import assign, check_split
from ospor_batch.config import Split
from ospor_batch.errors import ContractError, LedgerError, StudyError
from ospor_batch.pseudonym import pseudonym, split_position

SHARES = {"train": 0.7, "tuning": 0.1, "internal_test": 0.2}


def people(*rows):
    schema = {"patient_key": pl.String, "center": pl.String, "scanner_vendor": pl.String, "period": pl.String}
    return pl.DataFrame(rows, schema={**schema, "split_position": pl.Float64}, orient="row")


def partitions(rows, **split):
    return {r["patient_key"]: (r["partition"], r["partition_reason"]) for r in assign(rows, split=Split(**split)).to_dicts()}


def test_shares_are_cut_from_the_position_of_the_keyed_hash():
    at = [("A", 0.0), ("B", 0.6999), ("C", 0.7), ("D", 0.79), ("E", 0.81), ("F", 0.999)]
    found = partitions(people(*((p, "n", "ge", "2022Q1", x) for p, x in at)), **SHARES)
    assert [found[p][0] for p, _ in at] == ["train", "train", "tuning", "tuning", "internal_test", "internal_test"]


def test_without_a_split_everyone_is_tested_even_without_a_position():
    assert partitions(people(("A", "n", "ge", "2022Q1", None))) == {"A": ("internal_test", "hash")}


@pytest.mark.parametrize(
    ("external", "expected"),
    [
        ({"center": ("south",)}, {"B": "center=south"}),
        ({"scanner_vendor": ("ge",)}, {"A": "scanner_vendor=ge"}),
        ({"period": ("2023",)}, {"B": "period=2023"}),
        ({"period": ("2022Q4",)}, {"A": "period=2022Q4"}),
    ],
)
def test_external_rules_win_over_the_hash(external, expected):
    rows = people(
        ("A", "north", "ge", "2022Q4", 0.1), ("B", "south", "canon", "2023Q1", 0.1), ("C", "east", "canon", "2021Q1", 0.1)
    )
    found = partitions(rows, **SHARES, external=external)
    assert {p: reason for p, (partition, reason) in found.items() if partition == "external"} == expected
    assert {found[p] for p in found.keys() - expected.keys()} == {("train", "hash")}


def test_a_person_external_under_one_recipe_is_external_under_all():
    rows = people(("A", "n", "ge", "2022Q1", 0.1), ("A", "n", "canon", "2022Q1", 0.1))
    assert partitions(rows, **SHARES, external={"scanner_vendor": ("canon",)}) == {"A": ("external", "scanner_vendor=canon")}


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(st.text("abc", min_size=1, max_size=4), st.floats(0, 0.999), max_size=20), st.randoms())
def test_one_partition_a_person_whatever_the_order(positions, random):
    rows = [(p, "n", "ge", "2022Q1", x) for p, x in positions.items() for _ in range(2)]
    once = assign(people(*rows), split=Split(**SHARES))
    random.shuffle(rows)
    assert assign(people(*rows), split=Split(**SHARES)).equals(once)
    assert once["patient_key"].to_list() == sorted(positions)


def test_a_person_of_two_centers_has_one_partition_and_external_wins():
    both = (("A", "n", "ge", "2022Q1", 0.9), ("A", "s", "ge", "2022Q1", 0.1), ("B", "n", "ge", "2022Q1", 0.1))
    assert partitions(people(*both), **SHARES) == {"A": ("train", "hash"), "B": ("train", "hash")}
    assert partitions(people(*both), **SHARES, external={"center": ("s",)}) == {
        "A": ("external", "center=s"),
        "B": ("train", "hash"),
    }


def test_a_rotated_pseudonym_key_moves_nobody():
    numbers = [f"P{i}" for i in range(200)]

    def split_under(pseudonym_key: bytes) -> dict[str, str]:
        keys = {pseudonym(n, kind="patient", issuer="n", key=pseudonym_key): n for n in numbers}
        placed = people(
            *((k, "n", "ge", "2022Q1", split_position(n, center="n", key=b"split-key-000001")) for k, n in keys.items())
        )
        return {keys[k]: p for k, (p, _) in partitions(placed, **SHARES).items()}

    before, after = split_under(b"key-of-the-first-year"), split_under(b"key-of-the-second-year")
    assert before == after
    assert set(before.values()) == {"train", "tuning", "internal_test"}


def test_what_would_leak_is_refused():
    with pytest.raises(LedgerError, match="more than one split_position"):
        partitions(people(("A", "n", "ge", "2022Q1", 0.1), ("A", "n", "ge", "2022Q1", 0.2)))
    with pytest.raises(ContractError, match="no split_position"):
        partitions(people(("A", "n", "ge", "2022Q1", None)), **SHARES)


@pytest.mark.parametrize(
    ("external", "says"),
    [
        ({"center": ("sout",)}, "split.external.center names 'sout', expected one of north, south"),
        ({"scanner_vendor": ("GE",)}, "split.external.scanner_vendor names 'GE'"),
        ({"period": ("2022-07",)}, "expected a year or quarter"),
    ],
)
def test_an_external_rule_that_cannot_be_is_named(external, says):
    with pytest.raises(StudyError, match=says):
        check_split(Split(external=external), centers=("north", "south"))


def test_a_share_of_an_external_center_is_set_aside_for_the_site() -> None:
    rows = people(
        ("A", "south", "ge", "2022Q1", 0.1), ("B", "south", "ge", "2022Q1", 0.31), ("C", "north", "ge", "2022Q1", 0.1),
        ("D", "east", "ge", "2022Q1", 0.1),
    )  # fmt: skip
    found = partitions(rows, **SHARES, external={"center": ("south", "east")}, site_tuning={"south": 0.3})
    assert {p: partition for p, (partition, _) in found.items()} == {
        "A": "site_tuning", "B": "external", "C": "train", "D": "external",
    }  # fmt: skip
    assert found["A"][1] == "center=south"


def test_a_tuned_site_must_be_external() -> None:
    for external, site, said in (
        ({"center": ("south",)}, "nowhere", "site_tuning names 'nowhere', expected one of north, south"),
        ({"center": ("south",)}, "north", "'north', none of whose people are external"),
        ({}, "south", "'south', none of whose people are external"),
    ):
        with pytest.raises(StudyError, match=said):
            check_split(Split(**SHARES, external=external, site_tuning={site: 0.3}), centers=("north", "south"))
    check_split(Split(**SHARES, external={"period": ("2023",)}, site_tuning={"north": 0.3}), centers=("north", "south"))
    with pytest.raises(ValueError, match="site_tuning of south is 1, expected between 0 and 1"):
        Split(site_tuning={"south": 1.0})


def test_a_site_cannot_be_parted_without_positions() -> None:
    rows = people(("A", "south", "ge", "2022Q1", None))
    with pytest.raises(ContractError, match="no split_position"):
        partitions(rows, external={"center": ("south",)}, site_tuning={"south": 0.3})
