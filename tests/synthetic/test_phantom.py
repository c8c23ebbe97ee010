"""A phantom under a generated patient: read from its DICOM files it gives the line it was made by, or says why not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from ospor_batch.errors import ItemRefused
from ospor_batch.imaging.calibration import phantom_line
from ospor_batch.imaging.masks import MaskFile, MaskRule, levels_on
from ospor_batch.imaging.phantom import RodSample, find_rods, rods_of
from ospor_batch.imaging.reader import read_volume
from ospor_batch.imaging.regions import measure
from ospor_batch.synthetic import anatomy, patient_files
from ospor_batch.synthetic.ct import Sampling
from ospor_batch.synthetic.labels import exams_of
from ospor_batch.synthetic.patient_files import Detail
from ospor_batch.synthetic.phantom import PHANTOMS, Phantom, is_cut, phantoms_of
from ospor_batch.synthetic.physics import EFFECTIVE_KEV, mineral_slope
from ospor_batch.synthetic.population import LEVEL_OFFSET_MG_CM3, Person, Rates, people
from ospor_batch.synthetic.truth import truth_table

RATES = Rates(0, 0, 0, 0, phantom=1.0)
LEVELS = {"L1": 20, "L2": 21}
RULE = MaskRule("*.nii*", tuple(LEVELS.items()))
EVERYONE = people("west", range(1, 41), seed=5, night=2, rates=RATES)
SOLID = Phantom("caha", (0.0, 75.0, 150.0, 300.0), 18.0)  # another model, whose rods make a line as well


def the_first(*, cut: bool) -> Person:
    return next(person for person in EVERYONE if phantoms_of(person) and is_cut(person) is cut)


def read_back(person: Person, folder: Path, *, rods: Phantom) -> tuple[Sequence[RodSample], dict[str, float]]:
    """The rods and the mean HU of each level, from the person's files alone."""
    masks, images = [], []
    for file in patient_files.patient_files(person, detail=Detail(Sampling(64), 64)):
        path = folder / Path(file.path).name
        path.write_bytes(file.content)
        if file.kind == "mask_seg":
            masks.append(MaskFile(path, "mask_dicom_seg"))
        elif file.kind == "axial":
            images.append(path)
    said = pydicom.dcmread(images[0], stop_before_pixels=True)
    assert "PHANTOM" in said.SeriesDescription
    volume = read_volume(images)
    labels = levels_on(volume, masks, rule=RULE)
    bone = {region.level: region.mean_hu for region in measure(volume, labels, levels=LEVELS)}
    return find_rods(volume, labels, levels=LEVELS, rods=rods_of(rods.rods)), bone


def test_rods_read_from_the_files_give_the_line_and_the_density_that_they_were_made_with(tmp_path: Path) -> None:
    person = the_first(cut=False)
    rods, bone = read_back(person, tmp_path, rods=PHANTOMS["k2hpo4"])
    densities = PHANTOMS["k2hpo4"].densities
    assert [one.rod.density_mg_cm3 for one in rods] == list(densities)
    slope = mineral_slope("k2hpo4", EFFECTIVE_KEV[person.kvp_kv])
    np.testing.assert_allclose([one.hu for one in rods], [slope * density for density in densities], atol=8)  # cupping: 5
    assert all(one.row_mm > 0 for one in rods)
    line = phantom_line([one.hu for one in rods], densities)
    assert line.slope == pytest.approx(1 / slope, rel=0.03)
    assert line.residual_mg_cm3 < 2
    found = np.mean([line.intercept + line.slope * hu for hu in bone.values()])
    assert found == pytest.approx(person.vbmd_mg_cm3 + np.mean(LEVEL_OFFSET_MG_CM3[:2]), abs=12)


def test_two_phantoms_under_one_patient_are_ambiguous(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second phantom of another model lies below: both make a line, and they say different things of bone."""
    person = the_first(cut=False)
    monkeypatch.setattr(anatomy, "phantoms_of", lambda _: (PHANTOMS["k2hpo4"], SOLID))
    with pytest.raises(ItemRefused) as refused:
        read_back(person, tmp_path, rods=PHANTOMS["k2hpo4"])
    assert refused.value.reason == "phantom_ambiguous"


def test_a_field_of_view_that_cuts_the_rods_is_said(tmp_path: Path) -> None:
    person = the_first(cut=True)
    with pytest.raises(ItemRefused) as refused:
        read_back(person, tmp_path, rods=PHANTOMS["k2hpo4"])
    assert refused.value.reason == "phantom_missing"


def test_who_lies_on_a_phantom_follows_the_rate_and_the_truth_says_it() -> None:
    read_from_scan = [person for person in EVERYONE if any(exam.gap_days == 0 for exam in exams_of(person))]
    assert [person for person in EVERYONE if phantoms_of(person)] == read_from_scan
    fewer = [replace(person, phantom_share=0.4) for person in EVERYONE]
    assert 0 < sum(bool(phantoms_of(person)) for person in fewer) < len(read_from_scan)
    assert not any(phantoms_of(replace(person, phantom_share=0.0)) for person in EVERYONE)
    assert not any(phantoms_of(person) for person in people("north", range(1, 21), seed=5, night=2, rates=RATES))
    truth = truth_table(EVERYONE)
    assert truth["has_phantom"].sum() == len(read_from_scan)
    assert set(truth["phantom_rods"].drop_nulls()) == {"0 mg/cm3 18 mm; 50 mg/cm3 18 mm; 100 mg/cm3 18 mm; 200 mg/cm3 18 mm"}
    assert truth["is_phantom_cut"].drop_nulls().sum() == sum(is_cut(person) for person in read_from_scan)


def test_nobody_without_a_phantom_is_imaged_otherwise_for_it() -> None:
    (one,) = people("north", range(100, 101), seed=3, night=2, rates=RATES)
    detail = Detail(Sampling(64), 64)
    with_rate, without = (patient_files.scan_of(p, detail, is_contrast=False) for p in (one, replace(one, phantom_share=0.0)))
    np.testing.assert_array_equal(with_rate.hu, without.hu)
