"""Patient numbers become persons by the study's rules; numbers that cannot be one person are told and flagged, never merged."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from ospor_batch.catalog.rules import Rules
from ospor_batch.catalog.series import Catalogued, settle
from ospor_batch.pseudonym import Linkage, normal_patient_id, split_position
from tests.archive.made import uid

from .conftest import SPLIT_KEY, Catalogue
from .test_series import stack


def visit(series: int, **changes: Any) -> dict[str, Dataset]:
    """A study of one series."""
    return stack(3, series=series, StudyInstanceUID=uid(100 + series), **changes)


def kinds(found: Catalogued) -> list[str]:
    return found.collisions["kind"].to_list()


def flagged(found: Catalogued) -> int:
    return int(found.series["is_identity_collision"].sum())


def people(found: Catalogued) -> int:
    return found.series["patient_key"].n_unique()


def test_one_person_with_one_number_collides_with_nobody(catalogue: Catalogue) -> None:
    found = catalogue(visit(1) | visit(2, PatientID="P-2", PatientSex="M", PatientBirthDate="19500101"))
    assert (kinds(found), flagged(found), people(found)) == ([], 0, 2)


def test_two_numbers_in_one_study_set_both_in_doubt(catalogue: Catalogue) -> None:
    one_study = stack(3, series=1) | stack(3, series=2, PatientID="P-2")
    found = catalogue(one_study | visit(3, PatientID="P-2") | visit(4, PatientID="P-4"))
    assert kinds(found) == ["two_numbers_in_one_study"]
    assert found.collisions.select("n_values", "n_series").row(0) == (2, 2)
    # the other study of P-2 too: who is P-2 is what is not known
    assert flagged(found) == 3
    assert people(found) == 3


def test_two_numbers_in_one_series_are_two_numbers_in_its_study(catalogue: Catalogue) -> None:
    found = catalogue(stack(4, PatientID=lambda n: f"P-{n % 2}") | visit(2, PatientID="P-0") | visit(3, PatientID="P-1"))
    assert kinds(found) == ["two_numbers_in_one_study"]
    assert (flagged(found), people(found)) == (4, 2)


def test_a_copy_under_another_number_is_told_though_only_one_is_kept(catalogue: Catalogue) -> None:
    """A study that was sent before and after its patient's number was corrected: which number is right nobody knows."""
    old = {path.replace("s1", "old"): ds for path, ds in visit(1, PatientID="P-1000").items()}
    found = catalogue(visit(1) | old | visit(2) | visit(3, PatientID="P-1000") | visit(4, PatientID="P-4"))
    assert found.rejects["reason"].to_list() == ["duplicate_different_content"] * 3
    assert kinds(found) == ["copy_under_other_number", "two_numbers_in_one_study"]
    assert found.collisions["n_values"].to_list() == [2, 2]
    # the other studies of both numbers too; of a number without any other image the collision is told
    assert flagged(found) == 3
    alone = catalogue(visit(1) | old).collisions
    assert alone["item_key"].to_list() == found.collisions["item_key"].to_list()
    again = settle(found.series)
    assert again.collisions.equals(found.collisions)
    # a copy whose number is written in another way, or left out, is the same person's
    same = {path.replace("s1", "old"): ds for path, ds in visit(1, PatientID="p-1 ").items()}
    assert kinds(catalogue(visit(1) | same)) == []
    nobody = {path.replace("s1", "old"): ds for path, ds in visit(1, PatientID=None).items()}
    assert kinds(catalogue(visit(1) | nobody)) == []


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"PatientBirthDate": "19600616"}, "two_birth_dates"),
        ({"PatientSex": "M"}, "two_sexes"),
    ],
)
def test_one_number_with_two_birth_dates_or_sexes_is_flagged_everywhere(
    catalogue: Catalogue, change: dict[str, str], kind: str
) -> None:
    found = catalogue(visit(1) | visit(2, **change) | visit(3, PatientID="P-3"))
    assert kinds(found) == [kind]
    assert flagged(found) == 2
    assert found.collisions["item_key"][0] in found.series["patient_key"].to_list()


def aged(series: int, age: str, **changes: Any) -> dict[str, Dataset]:
    return visit(series, PatientID="ANONYMOUS", PatientBirthDate="", PatientAge=age, **changes)


def test_ages_that_cannot_be_one_persons_are_flagged_where_birth_dates_are_gone(catalogue: Catalogue) -> None:
    found = catalogue(aged(1, "040Y") | aged(2, "060Y") | aged(3, "080Y") | visit(4))
    assert kinds(found) == ["two_ages"]
    assert found.collisions.select("n_values", "n_series").row(0) == (3, 3)
    assert flagged(found) == 3
    assert settle(found.series).series.equals(found.series)
    later = {"StudyDate": "20270615", "SeriesDate": "20270615", "AcquisitionDate": "20270615"}
    assert kinds(catalogue(aged(1, "060Y") | aged(2, "065Y", **later))) == []
    assert kinds(catalogue(aged(1, "060Y") | aged(2, "060Y", **later))) == ["two_ages"]
    # de-identification writes all above 89 years alike
    assert kinds(catalogue(aged(1, "090Y") | aged(2, "090Y", **later))) == []
    # a birth date on other images counts too
    born = visit(3, PatientID="ANONYMOUS", PatientBirthDate="19300101")
    assert kinds(catalogue(aged(1, "060Y") | born)) == ["two_ages"]


def test_a_sex_in_full_is_the_same_sex(catalogue: Catalogue) -> None:
    found = catalogue(stack(3, PatientSex=lambda n: ["F", "FEMALE", "female "][n]) | visit(2, PatientSex="U"))
    assert (kinds(found), set(found.series["sex"])) == ([], {"female", "unknown"})


def test_what_is_not_stated_collides_with_nothing(catalogue: Catalogue) -> None:
    found = catalogue(visit(1) | visit(2, PatientBirthDate=None, PatientSex="") | visit(3, PatientID=None))
    assert (kinds(found), flagged(found)) == ([], 0)


def test_settling_twice_changes_nothing(catalogue: Catalogue) -> None:
    found = catalogue(visit(1) | visit(2, PatientSex="M") | visit(3, PatientID="P-3", BodyPartExamined=None))
    again = settle(found.series)
    assert again.series.equals(found.series)
    assert again.collisions.equals(found.collisions)
    # a collision that is resolved is taken back
    resolved = settle(found.series.with_columns(sex=pl.lit("female")))
    assert resolved.collisions.height == 0
    assert not resolved.series["is_identity_collision"].any()


def test_case_and_blanks_never_part_a_person(catalogue: Catalogue) -> None:
    found = catalogue(visit(1, PatientID=" p-1 ") | visit(2, PatientID="P -1"), rules=Rules())
    assert people(found) == 1


@pytest.mark.parametrize(("strips", "n_people"), [(False, 2), (True, 1)])
def test_leading_zeros_are_a_setting(catalogue: Catalogue, n_people: int, *, strips: bool) -> None:
    rules = Rules(linkage=Linkage(strips_leading_zeros=strips))
    found = catalogue(visit(1, PatientID="00123") | visit(2, PatientID="123"), rules=rules)
    assert people(found) == n_people
    assert found.series["split_position"].n_unique() == n_people


@pytest.mark.parametrize(("is_key", "n_people"), [(False, 1), (True, 2)])
def test_the_issuer_is_a_setting(catalogue: Catalogue, n_people: int, *, is_key: bool) -> None:
    rules = Rules(linkage=Linkage(is_issuer_key=is_key, own_issuers=frozenset({"NORTH"})))
    images = visit(1) | visit(2, IssuerOfPatientID="north") | visit(3, IssuerOfPatientID="CLINIC")
    assert people(catalogue(images, rules=rules)) == n_people


def test_a_crosswalk_joins_merged_numbers(catalogue: Catalogue) -> None:
    crosswalk = {("north", "P-1"): "A", ("north", "P-2"): "A"}
    images = stack(3, series=1) | stack(3, series=2, PatientID="p-2") | visit(3, PatientID="P-3")
    found = catalogue(images, rules=Rules(linkage=Linkage(crosswalk=crosswalk)))
    assert people(found) == 2
    assert (kinds(found), flagged(found)) == ([], 0)


def test_a_crosswalk_joins_two_centers_and_nothing_else_does() -> None:
    linkage = Linkage(crosswalk={("north", "7"): "A", ("south", "9"): "A"})
    key = b"k" * 16
    keys = {(c, n): linkage.key_of(n, center=c, key=key) for c in ("north", "south") for n in ("7", "9")}
    assert keys["north", "7"] == keys["south", "9"]
    assert len(set(keys.values())) == 3


@given(st.text(max_size=12), st.booleans(), st.booleans())
def test_without_rules_a_person_is_the_folded_number_of_the_center(text: str, is_key: bool, strips: bool) -> None:
    linkage = Linkage(strips_leading_zeros=strips, is_issuer_key=is_key)
    person = linkage.person(text, center="north")
    folded = normal_patient_id(text)
    if folded is None:
        assert person is None
        return
    assert person is not None
    assert person.issuer == "north"
    assert person.number == (folded.lstrip("0") or "0" if strips else folded)


def test_the_place_in_the_split_is_that_of_the_number(catalogue: Catalogue) -> None:
    found = catalogue(visit(1), rules=Rules())
    assert found.series["split_position"][0] == split_position("P-1", center="north", key=SPLIT_KEY)
