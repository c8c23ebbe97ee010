"""Presets: the published cohorts keep their sizes, dates and prevalences; header-only archives are as many files as asked."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pydicom
import pytest

from ospor_batch.archive.header import read_header
from ospor_batch.config import read_study
from ospor_batch.errors import StudyError
from ospor_batch.stages.synth import synth
from ospor_batch.synthetic.archive import write_study
from ospor_batch.synthetic.cohorts import PAPER_CT, PAPER_CXR, Cohort
from ospor_batch.synthetic.labels import exams_of, matched
from ospor_batch.synthetic.population import people
from ospor_batch.synthetic.presets import sizes_of
from ospor_batch.synthetic.scale import plan_shards, write_shard

COHORTS = {cohort.recipe: cohort for cohort in (*PAPER_CXR, *PAPER_CT)}
# people of each published cohort, as its abstract gives them
PUBLISHED = {
    "cxr_osteoporosis": [13026, 1089],
    "ct_cnn_smi": [581, 229, 198, 118],
    "ct_bmd_tbs": [402],
    "ct_qct_bmd": [586, 463, 200, 200],
    "ldct_internal_calibration": [1406],
}


def backwards(function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
    """A mapper that answers in another order."""
    return map(function, list(items)[::-1])


def fingerprint(folder: Path, *, pattern: str = "**/*") -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in sorted(folder.glob(pattern)) if p.is_file()}  # fmt: skip


def beginnings(folder: Path) -> dict[str, bytes]:
    """The first 4 KB of every archived file, where all of a header-only file lies."""
    found = {}
    for path in sorted(p for p in (folder / "archives").rglob("*") if p.is_file()):
        with path.open("rb") as file:
            found[path.relative_to(folder).as_posix()] = file.read(4096)
    return found


def test_cohorts_have_their_published_sizes() -> None:
    sizes = [*sizes_of("paper-cxr"), *sizes_of("paper-ct")]
    assert {size.cohort.recipe: list(size.counts.values()) for size in sizes if size.cohort} == PUBLISHED
    reduced = sizes_of("paper-ct", factor=0.1)
    assert [list(size.counts.values()) for size in reduced] == [[58, 23, 20, 12], [40], [59, 46, 20, 20], [141]]


@pytest.mark.parametrize("cohort", COHORTS.values(), ids=COHORTS.keys())
def test_cohorts_have_their_dates_sex_and_prevalence(cohort: Cohort) -> None:
    rates = next(size.rates for size in (*sizes_of("paper-cxr"), *sizes_of("paper-ct")) if size.cohort is cohort)
    for member in cohort.members:
        plan, n = member.plan, 500
        everyone = people(plan.name, range(1, n + 1), seed=11, night=1, rates=rates)
        assert all(plan.image_dates[0] <= person.image_date <= plan.image_dates[1] for person in everyone)
        assert min(person.age_at_image for person in everyone) >= 49.99
        exams = [matched(exams_of(person)) for person in everyone]
        assert all(exam is not None for exam in exams), "everyone of a published cohort is a pair"
        sick = [exam.vbmd_mg_cm3 < 80 if plan.exam_kind == "qct" else exam.is_osteoporosis for exam in exams if exam]
        assert plan.prevalence is not None
        error = np.sqrt(plan.prevalence * (1 - plan.prevalence) / n)
        assert np.mean(sick) == pytest.approx(plan.prevalence, abs=4 * error + 0.02), member.plan.name
        women = np.mean([person.sex == "female" for person in everyone])
        assert women == pytest.approx(plan.share_female, abs=4 * 0.5 / np.sqrt(n))
        assert {person.is_ct for person in everyone} == {cohort.image == "ct"}
        assert {person.vendor for person in everyone} == {vendor for vendor, _ in plan.vendors}


def test_published_radiographs_are_written_with_a_study_file_that_reads(tmp_path: Path) -> None:
    study_file = write_study(tmp_path / "cxr", preset="paper-cxr", factor=0.001, mapper=backwards)
    study = read_study(study_file)
    assert [center.name for center in study.centers] == ["screening", "referral"]
    assert study.analysis.image_dates is not None
    assert [day.year for day in study.analysis.image_dates] == [2010, 2019]
    for center in study.centers:
        assert all(study.resolve(archive).is_dir() for archive in center.archives)
        assert all(study.resolve(export.path).is_file() for export in center.exports)
    files = [p for p in (tmp_path / "cxr" / "archives").rglob("*") if p.is_file()]
    headers = [pydicom.dcmread(p, stop_before_pixels=True) for p in files]
    assert {h.Modality for h in headers} <= {"CR", "DX"}
    assert sum(h.ViewPosition == "PA" for h in headers) == 13 + 2, "everyone has a frontal view"
    assert {h.ViewPosition for h in headers} <= {"PA", "LL"}
    write_study(tmp_path / "again", preset="paper-cxr", factor=0.001)
    assert fingerprint(tmp_path / "again") == fingerprint(tmp_path / "cxr"), "the order of the workers must not show"


def test_published_ct_cohorts_are_four_studies(tmp_path: Path) -> None:
    first = write_study(tmp_path, preset="paper-ct", factor=0.001)
    found = sorted(p.parent.name for p in tmp_path.glob("*/study.toml"))
    assert found == sorted(cohort.recipe for cohort in PAPER_CT)
    assert first == tmp_path / "ct_cnn_smi" / "study.toml"
    for name in found:
        study = read_study(tmp_path / name / "study.toml")
        truth = pl.read_parquet(tmp_path / name / "truth.parquet")
        assert set(truth["center"]) == {center.name for center in study.centers}
        assert study.split.train + study.split.tuning + study.split.internal_test == pytest.approx(1)
    alone, name = tmp_path / "alone", "ct_bmd_tbs"
    assert synth(alone, preset="paper-ct", factor=0.001, study=name, workers=1) == alone / name / "study.toml"
    assert [path.name for path in alone.iterdir()] == [name]
    assert fingerprint(alone / name) == fingerprint(tmp_path / name), "alone or with the others: the same bytes"
    with pytest.raises(StudyError, match="ct_bmd_tbs: not an empty folder"):
        synth(alone, preset="paper-ct", factor=0.002, study=name, workers=1)
    synth(alone, preset="paper-ct", factor=0.001, study="ldct_internal_calibration", workers=1)
    assert sorted(path.name for path in alone.iterdir()) == [name, "ldct_internal_calibration"], (
        "each beside those already there"
    )


@pytest.fixture(scope="module")
def headers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scale") / "headers"
    synth(folder, preset="scale", n_files=3000, workers=1)
    return folder


def test_header_only_archives_are_exactly_as_many_files(headers: Path) -> None:
    files = [p for p in (headers / "archives").rglob("*") if p.is_file()]
    assert len(files) == 3000
    assert sorted(p.name for p in (headers / "archives").iterdir()) == ["east", "north", "south", "west"]
    on_disk = sum(p.stat().st_blocks * 512 for p in files)
    assert on_disk < 0.1 * sum(p.stat().st_size for p in files), "pixels are holes"


def test_header_only_files_are_read_like_any_other(headers: Path) -> None:
    files = sorted(p for p in (headers / "archives").rglob("*") if p.is_file())
    series: dict[str, set[str]] = {}
    for path in files[::7]:
        with path.open("rb") as file:
            values = read_header(file).values
        assert values["is_pixel_data"] is (values["modality"] != "SR")
        series.setdefault(values["series_instance_uid"], set()).add(values["sop_instance_uid"])
    assert sum(len(uids) for uids in series.values()) == len(files[::7]), "no instance twice"
    native = next(p for p in files if pydicom.dcmread(p, stop_before_pixels=True).get("SliceThickness") and
                  not pydicom.dcmread(p).file_meta.TransferSyntaxUID.is_compressed)  # fmt: skip
    assert not pydicom.dcmread(native).pixel_array.any()


def test_header_only_stacks_lean_with_their_gantry(tmp_path: Path) -> None:
    """Header, orientation and positions of a tilted series say the same, as where there are pixels; its scout does not lean."""
    (size,) = sizes_of("scale", n_files=400)
    assert size.rates.tilt > 0
    shard = plan_shards(400, seed=5, rates=replace(size.rates, tilt=1.0), detail=size.detail)[0]
    write_shard(replace(shard, out=tmp_path))
    headers = [pydicom.dcmread(p, stop_before_pixels=True) for p in sorted(tmp_path.rglob("*")) if p.is_file()]
    series: dict[str, list[pydicom.Dataset]] = {}
    for ds in headers:
        if ds.Modality == "CT":
            series.setdefault(ds.SeriesInstanceUID, []).append(ds)
    leaning = [found for found in series.values() if "LOCALIZER" not in found[0].ImageType]
    assert leaning
    for found in leaning:
        cosines = np.array(found[0].ImageOrientationPatient, dtype=float)
        normal = np.cross(cosines[:3], cosines[3:])
        steps = np.diff([list(map(float, ds.ImagePositionPatient)) for ds in found[:2]], axis=0)[0]
        angle = np.rad2deg(np.arccos(abs(normal @ steps) / np.linalg.norm(steps)))
        assert angle == pytest.approx(abs(float(found[0].GantryDetectorTilt)), abs=0.01)
        assert angle >= 5
    scouts = [found[0] for found in series.values() if "LOCALIZER" in found[0].ImageType]
    assert {float(ds.GantryDetectorTilt) for ds in scouts} <= {0.0}


def test_header_only_archives_are_the_same_each_time_and_have_a_study(headers: Path, tmp_path: Path) -> None:
    write_study(tmp_path / "again", preset="scale", n_files=3000, mapper=backwards)
    tables = ["*.parquet", "*.json", "*.toml", "exports/*"]
    for pattern in tables:
        assert fingerprint(tmp_path / "again", pattern=pattern) == fingerprint(headers, pattern=pattern) != {}
    assert beginnings(tmp_path / "again") == beginnings(headers)
    study = read_study(headers / "study.toml")
    truth = pl.read_parquet(headers / "truth.parquet")
    assert set(truth["center"]) == {center.name for center in study.centers}
    assert not truth["expected_prediction"].any()
    assert set(truth["fault"]) == {"none"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"preset": "paper-ct", "factor": 0.0}, "factor 0"),
        ({"preset": "scale", "n_files": 0}, "files 0"),
        ({"preset": "scale", "nights": 2}, "arrives in one night"),
        ({"preset": "paper"}, "no preset named"),
        ({"preset": "paper-ct", "study": "ct_bmd"}, "'ct_bmd': preset paper-ct has ct_cnn_smi, ct_bmd_tbs, ct_qct_bmd, ldct_"),
        ({"preset": "paper-cxr", "study": "cxr_osteoporosis"}, "preset paper-cxr is a single study"),
    ],
)
def test_what_cannot_be_asked_is_said(words: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=said):
        write_study(tmp_path / "out", **words)
    assert not (tmp_path / "out").exists()


def test_two_processes_write_the_same_bytes(headers: Path, tmp_path: Path) -> None:
    synth(tmp_path / "two", preset="scale", n_files=3000, workers=2)
    assert beginnings(tmp_path / "two") == beginnings(headers)
    for name in ("truth.parquet", "generated.json"):
        assert (tmp_path / "two" / name).read_bytes() == (headers / name).read_bytes()
