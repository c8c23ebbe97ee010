"""Whether a patient is a person: veterinary practices send their animals to the same archives."""

from __future__ import annotations

from typing import Any

import pytest

from tests.archive.made import cr

from .conftest import Catalogue
from .test_series import findings, only, stack


@pytest.mark.parametrize(
    "changes",
    [
        {"PatientSpeciesDescription": "Canine"},
        {"PatientBreedDescription": "Beagle"},
        {"PatientSexNeutered": "ALTERED"},
        {"ResponsiblePersonRole": "OWNER"},
        {"InstitutionName": "City Veterinary Hospital"},
        {"AcquisitionDeviceProcessingDescription": "CANINE LATERAL THORAX"},
    ],
)
def test_animals_are_not_human(catalogue: Catalogue, changes: dict[str, Any]) -> None:
    row = only(catalogue({"r": cr(**changes)}))
    assert not row["is_human"]
    assert "not_human" in findings(row)


@pytest.mark.parametrize(
    "changes",
    [
        {"ResponsiblePersonRole": "PARENT"},
        {"PatientSpeciesDescription": "Homo sapiens"},
        {"PatientSpeciesDescription": "H. sapiens"},
        {"InstitutionName": "St. Dogan"},
        {"StudyDescription": "CAT scan of the chest"},
        {"StudyDescription": "impacted canine"},
        {"StudyDescription": "bovine arch"},
    ],
)
def test_people_are_human(catalogue: Catalogue, changes: dict[str, Any]) -> None:
    assert only(catalogue({"r": cr(**changes)}))["is_human"]


def test_a_cat_is_an_animal_on_a_radiograph_and_a_scan_in_ct(catalogue: Catalogue) -> None:
    assert not only(catalogue({"r": cr(ProtocolName="Cat thorax")}))["is_human"]
    assert only(catalogue(stack(StudyDescription="CAT CHEST")))["is_human"]
