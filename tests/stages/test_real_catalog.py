"""Real files from folder to graded series: nothing lost, and the verdicts are those of the listing beside the files."""

from __future__ import annotations

import csv
import hashlib
import re
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

from ospor_batch.catalog.vendor import NOBODY
from ospor_batch.catalog.vocabulary import fold
from ospor_batch.compute.executor import InLine
from ospor_batch.stages.catalog import catalog
from ospor_batch.stages.crawl import crawl
from ospor_batch.stages.summary import StageSummary
from ospor_batch.store import Store

from .test_crawl import study_of

# other real files may be put in the place of those that were judged by hand: it is said, and the judged ones are held
pytestmark = pytest.mark.filterwarnings("default:.* real files are not in the golden table")
GOLDEN = Path(__file__).parent.parent / "catalog" / "golden.csv"
KEY, SPLIT_KEY = b"test-key-0123456789", b"split-key-0123456789"


@dataclass(frozen=True)
class Real:
    """What became of the real files: one row an instance with its path and its series."""

    files: pl.DataFrame
    instances: pl.DataFrame
    series: pl.DataFrame
    rejects: pl.DataFrame
    locator: pl.DataFrame
    collisions: pl.DataFrame
    unlisted: pl.DataFrame
    summaries: tuple[StageSummary, StageSummary]
    manifest: list[dict[str, str]]

    def of(self, paths: set[str]) -> pl.DataFrame:
        """Series of these files; a file that is no instance has none."""
        keys = self.instances.filter(pl.col("path").is_in(sorted(paths)))["series_key"]
        return self.series.filter(pl.col("whole_series_key").is_in(keys.implode()))


@pytest.fixture(scope="module")
def real(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Real:
    source = shared / "data" / "real"
    if not source.is_dir():
        pytest.skip(f"no real files at {source}")
    folder = tmp_path_factory.mktemp("real")
    study = study_of(folder)
    shutil.copytree(source, folder / "archive")
    store = Store(study.workspace)
    summaries = (
        crawl(study, "north", store=store, executor=InLine(), key=KEY),
        catalog(study, "north", store=store, key=KEY, split_key=SPLIT_KEY),
    )
    with (source / "MANIFEST.csv").open(newline="", encoding="utf-8") as rows:
        manifest = list(csv.DictReader(rows))
    files = store.current("file")
    instances = store.current("instance").join(files.select("file_key", "path"), on="file_key")
    tables = (store.current(name) for name in ("series", "reject", "locator", "collision", "unlisted"))
    return Real(files, instances, *tables, summaries, manifest)


def noted(real: Real, words: str) -> set[str]:
    found = {row["path"] for row in real.manifest if re.search(words, row["note"])}
    if not found:
        pytest.skip(f"the listing of the real files notes no {words}")
    return found


def test_real_files_all_end_in_a_series_or_a_reject(real: Real) -> None:
    crawled, catalogued = real.summaries
    assert crawled.closes
    assert catalogued.closes
    assert crawled.failed == 0
    assert {row["path"] for row in real.manifest} <= set(real.files["path"])
    refused = real.rejects.filter(stage="crawl")
    assert real.instances.height + refused.height == real.files.height
    assert set(refused["item_key"]) == set(real.files.filter(fate="reject")["file_key"])
    kept = real.instances.join(real.rejects, left_on="file_key", right_on="item_key", how="anti")
    assert int(real.series["n_instances"].sum()) == kept.height


def test_real_series_count_the_frames_of_the_listing(real: Real) -> None:
    frames = {row["path"]: int(row["frames"] or 1) for row in real.manifest if (row["frames"] or "1").isdigit()}
    kept = real.instances.join(real.rejects, left_on="file_key", right_on="item_key", how="anti")
    kept = kept.filter("is_pixel_data")
    counted = (
        kept.with_columns(frames=pl.col("path").replace_strict(frames, default=None))
        .group_by("series_key")
        .agg(wanted=pl.col("frames").sum(), is_told=pl.col("frames").is_not_null().all())
    )
    told = counted.filter("is_told").join(real.series, on="series_key")
    assert told.height > 0
    assert told["wanted"].to_list() == told["n_slices"].to_list()


def test_real_scouts_are_localizers(real: Real) -> None:
    found = real.of(noted(real, r"localizer|\(scout\)"))
    assert found.height > 0
    assert found["is_localizer"].all()


def test_real_stacks_and_radiographs_are_no_localizers(real: Real) -> None:
    assert not real.of(noted(real, r"axial|frontal chest"))["is_localizer"].any()


def test_real_reformats_are_derived(real: Real) -> None:
    found = real.of(noted(real, r"reformat"))
    assert found["is_derived"].all()
    assert not found["orientation"].is_in(["axial"]).any()


def test_real_axial_slices_are_axial(real: Real) -> None:
    found = real.of(noted(real, r"axial (abdomen|slice)")).filter(modality="CT")
    assert found.height > 0
    assert (found["orientation"] == "axial").all()


def test_real_contrast_is_given_where_a_tag_names_an_agent(real: Real) -> None:
    named = real.instances.filter((pl.col("modality") == "CT") & (pl.col("contrast_bolus_agent").fill_null("") != ""))
    found = real.series.filter(pl.col("whole_series_key").is_in(named["series_key"].unique().implode()))
    assert found.height > 0
    assert (found["contrast_evidence"] == "given").all()


def test_real_silence_about_contrast_is_never_given(real: Real) -> None:
    tags = [pl.col(name).fill_null("") == "" for name in ("contrast_bolus_agent", "contrast_bolus_route")]
    texts = [pl.col(name).fill_null("") == "" for name in ("series_description", "protocol_name", "study_description")]
    silent = (
        real.instances.group_by("series_key").agg(pl.all_horizontal(*tags, *texts).all().alias("is_silent")).filter("is_silent")
    )
    found = real.series.filter(modality="CT").join(silent, left_on="whole_series_key", right_on="series_key", how="semi")
    assert found["contrast_evidence"].is_in(["tag_absent", "tag_empty"]).all()


def test_real_animals_are_not_human(real: Real) -> None:
    animals = real.instances.filter(pl.col("institution_name").str.contains("(?i)veterinar"))
    if animals.height == 0:
        pytest.skip("no veterinary image among the real files")
    of_animals = pl.col("whole_series_key").is_in(animals["series_key"].unique().implode())
    assert not real.series.filter(of_animals)["is_human"].any()
    assert real.series.filter(~of_animals)["is_human"].all()


def test_real_lossy_files_are_lossy(real: Real) -> None:
    found = real.of(noted(real, r"lossy"))
    assert found["is_lossy"].all()


def test_real_segmentations_are_masks_of_the_images_that_they_name(real: Real) -> None:
    named = set(real.instances["referenced_series_uid"].drop_nulls())
    pointed = real.instances.filter(pl.col("series_instance_uid").is_in(sorted(named)) & (pl.col("modality") == "CT"))
    if pointed.height == 0:
        pytest.skip("no real segmentation names a CT series among the real files")
    found = real.series.filter(pl.col("whole_series_key").is_in(pointed["series_key"].unique().implode()))
    assert (found["mask_kind"] != "none").all()


def test_real_vendors_are_known(real: Real) -> None:
    nobody = [text for text in real.instances["manufacturer"].drop_nulls().unique() if NOBODY.fullmatch(fold(text))] + [""]
    stated = real.instances.filter(
        pl.col("modality").is_in(["CT", "CR", "DX"]), ~pl.col("manufacturer").fill_null("").is_in(nobody)
    )
    found = real.series.filter(pl.col("whole_series_key").is_in(stated["series_key"].unique().implode()))
    unknown = found.filter(scanner_vendor="unknown")
    assert unknown.height == 0
    assert found.filter(pl.col("scanner_vendor") != "other").height > 0


@dataclass(frozen=True)
class Judged:
    """What the golden table says of one file, and what the catalog made of it."""

    path: str
    golden: dict[str, str]
    found: dict[str, str]
    is_copy: bool


@pytest.fixture(scope="module")
def judged(real: Real, shared: Path) -> list[Judged]:
    """Every real file that was judged by hand: header read and picture looked at; found again by its bytes."""
    with GOLDEN.open(newline="", encoding="utf-8") as rows:
        golden = {row["sha256"]: row for row in csv.DictReader(rows)}
    paths = {
        row["path"]: hashlib.sha256((shared / "data" / "real" / row["path"]).read_bytes()).hexdigest() for row in real.manifest
    }
    unjudged = [digest[:12] for digest in paths.values() if digest not in golden]
    if len(unjudged) == len(paths):
        pytest.skip(f"none of {len(paths)} real files stands in the golden table")
    if unjudged:
        warnings.warn(f"{len(unjudged)} real files are not in the golden table: {', '.join(unjudged[:20])}", stacklevel=1)
    return [_judged(real, path, golden[digest]) for path, digest in sorted(paths.items()) if digest in golden]


def _judged(real: Real, path: str, golden: dict[str, str]) -> Judged:
    file = real.files.row(by_predicate=pl.col("path") == path, named=True)
    refused = real.rejects.filter(pl.col("item_key") == file["file_key"])
    if file["fate"] == "reject":
        return Judged(path, golden, {"verdict": "reject", "reason": file["reason"]}, is_copy=False)
    uid = real.instances.filter(pl.col("file_key") == file["file_key"])["sop_instance_uid"]
    same = real.instances.filter(pl.col("sop_instance_uid").is_in(uid.implode()))
    kept = same.join(real.rejects, left_on="file_key", right_on="item_key", how="anti").row(0, named=True)
    at = real.locator.filter(kind="image", file_key=kept["file_key"])["series_key"]
    own = pl.col("series_key").is_in(at.implode()) if len(at) else pl.col("whole_series_key") == kept["series_key"]
    series = real.series.filter(own).row(0, named=True)
    columns = {"modality": "modality", "vendor": "scanner_vendor", "model": "scanner_model", "region": "body_region"}
    found = {name: series[column] or "" for name, column in columns.items()}
    if refused.height:
        return Judged(path, golden, found | {"reason": refused["reason"][0]}, is_copy=True)
    return Judged(path, golden, found | {"verdict": series["grade"], "reason": series["grade_reason"] or ""}, is_copy=False)


def test_real_files_are_judged_as_by_hand(judged: list[Judged]) -> None:
    wrong = []
    for one in judged:
        expected = {k: v for k, v in one.golden.items() if k in one.found and not (one.is_copy and k == "reason")}
        found = {k: one.found[k] for k in expected}
        if found != expected:
            wrong.append(f"{one.path}: by hand {expected}, catalogued {found}")
    assert not wrong, "\n".join(wrong)


def test_real_copies_of_one_object_are_kept_once(real: Real, judged: list[Judged]) -> None:
    copies = [one for one in judged if one.is_copy]
    assert {one.found["reason"] for one in copies} <= {"duplicate_same_content", "duplicate_different_content"}
    assert real.instances.height - real.instances["sop_instance_uid"].n_unique() == real.rejects.filter(stage="catalog").height


def test_real_numbers_of_several_people_are_collisions(real: Real) -> None:
    """Made-up and emptied patient numbers join strangers: they must be told, not merged."""
    born = real.instances.filter(pl.col("patient_id").fill_null("") != "").group_by(pl.col("patient_id").str.to_uppercase())
    several = born.agg(n=pl.col("patient_birth_date").drop_nulls().n_unique(), keys=pl.col("patient_key").first())
    wanted = set(several.filter(pl.col("n") > 1)["keys"].drop_nulls())
    assert wanted <= set(real.collisions.filter(kind="two_birth_dates")["item_key"])
    hit = real.series.filter(pl.col("patient_key").is_in(sorted(wanted)))
    assert hit["is_identity_collision"].all()


def test_real_written_values_without_a_place_are_listed(real: Real) -> None:
    odd = real.series.filter(pl.col("modality").is_in(["CT", "CR", "DX"]), sop_class="image", scanner_vendor="other")
    assert set(odd["manufacturer_raw"]) <= set(real.unlisted.filter(kind="vendor")["written"])
