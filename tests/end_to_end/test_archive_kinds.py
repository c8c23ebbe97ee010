"""The same files in a folder, in zips, in tars, in a bucket and in Orthanc give the same tables."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

from ospor_batch.config import Study, Threshold, read_study
from ospor_batch.plan import agenda, begin_run, run_step
from ospor_batch.runs import Run
from ospor_batch.stages.check import check_study
from ospor_batch.store import Store
from ospor_batch.synthetic.archive import write_study
from tests.end_to_end.packed import as_mixture, as_tar, as_zip, files_of, orthanc, s3_server, store_in, upload

CENTERS = ("north", "west")  # the masks of one are NIfTI files beside the images, of the other DICOM segmentations
BY_PLACE = ["file_key", "folder_key", "archive", "path", "mtime_ns", "item_key", "scope"]


@dataclass(frozen=True)
class Ran:
    study: Study
    run: Run

    def tables(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted((self.run.folder / "tables").glob("*.csv"))}

    def current(self, table: str) -> pl.DataFrame:
        rows = Store(self.study.workspace).current(table)
        kept = rows.drop([name for name in BY_PLACE if name in rows.columns])
        return kept.sort(kept.columns)

    def predictions(self) -> pl.DataFrame:
        return self.run.read("prediction")

    def checked(self) -> list[tuple[str, str]]:
        return [(found.verdict, found.said) for found in check_study(self.study) if found.subject.startswith("archive of")]


def ran(base: Study, archives: dict[str, str], *, workspace: str) -> Ran:
    """Run the study with other archives in a workspace of its own; thresholds are fixed, since few people are left."""
    centers = tuple(c.model_copy(update={"archives": (archives[c.name],)}) for c in base.centers if c.name in archives)
    recipes = tuple(r.model_copy(update={"threshold": Threshold(fixed=110)}) for r in base.recipes)
    section = base.study.model_copy(update={"workspace": workspace})
    split = base.split.model_copy(update={"train": 0.0, "tuning": 0.0, "internal_test": 1.0, "external": {}})
    study = base.model_copy(update={"study": section, "centers": centers, "recipes": recipes, "split": split})
    for step in agenda(study):
        if step.stage != "report":
            run_step(study, step)
    return Ran(study, begin_run(study))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return read_study(write_study(tmp_path_factory.mktemp("kinds"), preset="tiny"))


@pytest.fixture(scope="module")
def folders(base: Study) -> Ran:
    return ran(base, {name: f"archives/{name}" for name in CENTERS}, workspace="of_folders")


def same(found: Ran, expected: Ran) -> None:
    """Equal tables, and equal rows of the catalog but for where the files lie."""
    assert found.tables() == expected.tables()
    assert expected.predictions().height > 0
    assert found.predictions().equals(expected.predictions())
    for table in ("file", "instance", "series", "locator", "reject"):
        assert found.current(table).equals(expected.current(table)), table


def test_zipped_and_tarred_archives_give_the_tables_of_the_folders(base: Study, folders: Ran) -> None:
    archives = base.folder / "archives"
    as_zip(archives / "north", archives / "north.zip")
    as_tar(archives / "west", archives / "west.tar.gz")
    found = ran(base, {"north": "archives/north.zip", "west": "archives/west.tar.gz"}, workspace="of_archives")
    same(found, folders)
    assert [verdict for verdict, _ in found.checked()] == ["ok", "ok"]
    assert not list((archives.parent / "of_archives" / "private" / "cache").glob(".*.unfinished"))


def test_archives_inside_folders_and_inside_each_other_give_the_tables_of_the_folders(base: Study, folders: Ran) -> None:
    archives = base.folder / "archives"
    for name in CENTERS:
        as_mixture(archives / name, archives / f"{name}_packed")
    same(ran(base, {name: f"archives/{name}_packed" for name in CENTERS}, workspace="of_mixtures"), folders)


def test_a_bucket_gives_the_tables_of_the_folders(base: Study, folders: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    archives = base.folder / "archives"
    packed = archives / "uploaded"
    packed.mkdir()
    as_zip(archives / "west", packed / "west.zip")
    with s3_server(monkeypatch):
        upload(archives / "north", bucket="hospital", prefix="pacs/north")
        upload(packed, bucket="hospital", prefix="pacs/west")
        found = ran(base, {"north": "s3://hospital/pacs/north", "west": "s3://hospital/pacs/west"}, workspace="of_buckets")
        same(found, folders)
        assert all(verdict == "ok" and "objects" in said for verdict, said in found.checked())


def test_orthanc_gives_the_tables_of_the_folder(base: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with orthanc(tmp_path / "orthanc", monkeypatch) as root:
        taken = store_in(root, files_of(base.folder / "archives" / "west"))
        copies = base.folder / "archives" / "west_taken"
        copies.mkdir()
        for path in taken:
            shutil.copy2(path, copies / path.name)
        found = ran(base, {"west": root}, workspace="of_orthanc")
        ((verdict, said),) = found.checked()
    assert verdict == "ok"
    assert "QIDO-RS" in said
    expected = ran(base, {"west": "archives/west_taken"}, workspace="of_taken")
    assert found.tables() == expected.tables()
    # a server tells no file size, which is part of the digests of series and items
    values = ["predictor", "score", "predicted_value", "n_vertebrae", "levels", "flags"]
    rows, wanted = (of.predictions().select(values).sort(values) for of in (found, expected))
    assert wanted.height > 0
    assert rows.equals(wanted)
