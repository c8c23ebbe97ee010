"""Real files, from archive to report: every one accounted for, the right ones measured, the others out for their reason."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

from ospor_batch.config import Study, read_key, read_study
from ospor_batch.plan import run_study
from ospor_batch.pseudonym import normal_patient_id, pseudonym
from ospor_batch.runs import Run
from ospor_batch.stages.status import ledger
from ospor_batch.store import Store
from tests.end_to_end import real_archive


@dataclass(frozen=True)
class Real:
    """The study made of real files, run to its end."""

    study: Study
    store: Store
    run: Run
    volumes: list[real_archive.Volume]
    n_rows: int
    manifest: list[dict[str, str]]


@pytest.fixture(scope="module")
def real(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Real:
    source = shared / "data" / "real"
    if not real_archive.label_tables(source):
        pytest.skip(f"no real label table under {source}")
    folder = tmp_path_factory.mktemp("real")
    volumes, n_rows = real_archive.write_study(source, folder)
    study = read_study(folder / "study.toml")
    run = run_study(study)
    with (source / "MANIFEST.csv").open(newline="") as listed:
        manifest = list(csv.DictReader(listed))
    return Real(study, Store(study.workspace), run, volumes, n_rows, manifest)


def selected(real: Real) -> pl.DataFrame:
    """One row a file: its path, its fate and why its series left."""
    files = real.store.current("file")
    # a series whose header tells several acquisitions apart is split: the locator knows the part of each image
    parts = real.store.current("locator").filter(pl.col("kind") == "image").select("file_key", part="series_key")
    instances = real.store.current("instance", columns=["file_key", "series_key"]).join(parts, on="file_key", how="left")
    instances = instances.select("file_key", series_key=pl.coalesce("part", "series_key"))
    rejects = real.store.current("reject").filter(pl.col("level").is_in(["file", "instance"]))
    fates = real.run.read("selection").select("series_key", "fate", "first_failed", "all_failed")
    return (
        files.select("file_key", "path")
        .join(rejects.select(file_key="item_key", refused="reason"), on="file_key", how="left")
        .join(instances, on="file_key", how="left")
        .join(fates, on="series_key", how="left")
    )


def test_real_every_file_is_accounted_for_and_the_ledger_closes(real: Real) -> None:
    files = [p for p in (real.study.folder / "archive").rglob("*") if p.is_file()]
    known = real.store.current("file")
    assert known.height == len(files)
    assert known["fate"].is_in(["instance", "reject"]).all()
    fates = selected(real)
    assert fates.filter(pl.col("refused").is_null() & pl.col("fate").is_null()).height == 0
    summaries = ledger(real.study, real.store)
    assert all(summary.closes for summary in summaries), summaries
    assert {s.stage.split()[0] for s in summaries} == {"crawl", "catalog", "label", "match", "infer"}
    rows = next(s for s in summaries if s.stage == "label")
    assert rows.requested == real.n_rows


def test_real_the_report_is_there(real: Real) -> None:
    assert real.run.is_complete
    page = (real.run.folder / "report.html").read_text()
    assert "mean_hu" in page
    assert page.count("<svg") >= 1


def test_real_volumes_are_measured_within_3_hu_of_the_plain_mask_mean(real: Real) -> None:
    if not real.volumes:
        pytest.skip("no real CT volume with a mask of L1 to L4 in the shared folder")
    vertebra, manifest = real.run.read("vertebra"), real.run.read("manifest")
    for volume in real.volumes:
        person = pseudonym(normal_patient_id(volume.patient_id) or "", kind="patient", issuer="real", key=read_key(real.study))
        listed = manifest.filter(pl.col("patient_key") == person)
        assert listed.height == 1
        assert listed["role"][0] == "paired"
        measured = vertebra.filter(pl.col("item_digest") == listed["item_digest"][0])
        assert set(measured["level"]) == set(volume.mean_hu)
        for level, mean_hu in measured.select("level", "mean_hu").iter_rows():
            assert mean_hu == pytest.approx(volume.mean_hu[level], abs=3)
        predicted = real.run.read("prediction").filter(pl.col("item_digest") == listed["item_digest"][0])
        assert predicted["predicted_value"][0] == pytest.approx(sum(volume.mean_hu.values()) / len(volume.mean_hu), abs=3)


def failed_of(real: Real, wanted: set[str]) -> dict[str, str]:
    """Why each of these files left: its refusal, or the criteria that its series failed."""
    rows = selected(real).filter(pl.col("path").is_in(sorted(wanted)))
    assert rows.height == len(wanted)
    return {r["path"]: r["refused"] or r["all_failed"] or "kept" for r in rows.iter_rows(named=True)}


@pytest.mark.parametrize(
    ("word", "criterion"),
    [("localizer", "no localizer"), ("(scout)", "no localizer"), ("coronal reformat", "original axial")],
)
def test_real_files_that_the_listing_warns_of_leave_for_that_reason(real: Real, word: str, criterion: str) -> None:
    warned = {row["path"] for row in real.manifest if word in row["note"]}
    if not warned:
        pytest.skip(f"the listing of real files names no {word}")
    for path, why in failed_of(real, warned).items():
        assert criterion in why.split(";"), (path, why)


def test_real_contrast_series_leave_at_unenhanced(real: Real) -> None:
    enhanced = {r["path"] for r in real.manifest if "contrast" in r["group"] and r["modality"] == "CT"}
    if not enhanced:
        pytest.skip("the listing of real files names no contrast series")
    for path, why in failed_of(real, enhanced).items():
        assert "unenhanced" in why.split(";"), (path, why)


def test_real_animals_are_not_patients(real: Real) -> None:
    instances = real.store.current("instance").filter(pl.col("institution_name").str.contains("(?i)veterinar"))
    if instances.height == 0:
        pytest.skip("no veterinary image among the real files")
    series = real.run.read("selection").join(instances, on="series_key", how="semi")
    assert all("human" in failed.split(";") for failed in series["all_failed"])
    assert not set(series["series_key"]) & set(real.run.read("manifest")["series_key"])


def test_real_nothing_unreadable_or_without_pixels_is_in_the_manifest(real: Real) -> None:
    bad = {r["path"] for r in real.manifest if r["pixel_check"] == "no PixelData" and not r["path"].endswith((".gz", ".nrrd"))}
    assert "kept" not in failed_of(real, bad).values()


def test_real_no_name_or_number_is_in_anything_shared(real: Real) -> None:
    private = real.store.private
    ids = set(real.store.current("instance")["patient_id"].drop_nulls()) - {""}
    shown = [p for p in real.study.workspace.rglob("*") if p.is_file() and private not in p.parents]
    # a number stands for itself only where no digit touches it: the offsets of a PDF are runs of digits
    long_ids = [re.compile(rb"(?<![0-9])" + re.escape(i.encode()) + rb"(?![0-9])") for i in ids if len(i.strip()) >= 6]
    assert long_ids
    for path in shown:
        body = path.read_bytes()
        assert not [i.pattern for i in long_ids if i.search(body)], path
