"""A root that is not mounted stops its center alone, and nothing is tabulated while a center is missing."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest

from ospor_batch.compute.executor import InLine
from ospor_batch.config import Study
from ospor_batch.errors import ArchiveError
from ospor_batch.plan import run_study
from ospor_batch.runs import all_runs
from ospor_batch.stages import crawl as stage
from ospor_batch.stages.check import check_study
from ospor_batch.stages.crawl import crawl
from ospor_batch.stages.rejects import list_rejects
from ospor_batch.stages.summary import StageSummary
from ospor_batch.store import Store
from tests.archive.made import write_series


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.setenv("OSPOR_KEY", "test-key-0123456789")
    told = {
        "study": {"name": "test", "pseudonym_key": {"env": "OSPOR_KEY"}},
        "centers": [{"name": name, "archives": [name]} for name in ("away", "north")],
        "references": [{"id": "dxa", "standard": "dxa_who"}],
        "recipes": [{"name": "mean_hu", "reference": "dxa", "threshold": {"fixed": 110}}],
        "sweep": {"settle_minutes": 0},
    }
    return Study.model_validate(told).model_copy(update={"folder": tmp_path})


def test_a_root_that_is_not_mounted_stops_its_center_alone(study: Study) -> None:
    write_series(study.folder / "north", n=3)
    with pytest.raises(ArchiveError, match="center away") as stop:
        run_study(study, is_sweep=True)
    assert stop.value.exit_code == 15
    store = Store(study.workspace)
    assert store.current("series")["center"].to_list() == ["north"]
    assert all_runs(store) == []


def test_archives_that_hold_the_same_files_are_told_before_any_work(study: Study) -> None:
    for name in ("north/inner", "away", "northern"):
        write_series(study.folder / name, n=1)
    (study.folder / "link").symlink_to("north")
    centers = {
        "north": ("north", "north/inner/", "northern"),
        "south": ("link", "s3://b/a"),
        "east": ("s3://b/a/", "s3://b/ab"),
    }
    told = tuple(study.centers[0].model_copy(update={"name": name, "archives": of}) for name, of in centers.items())
    found = check_study(study.model_copy(update={"centers": told}))
    said = {(of.verdict, of.said.partition(":")[0] if "s3" not in of.said else "s3") for of in found if " lies in" in of.said}
    assert said == {
        ("note", "north/inner/ of north is, or lies in, north of north"),
        ("fault", "link of south is, or lies in, north of north"),
        ("fault", "north/inner/ of north is, or lies in, link of south"),
        ("fault", "s3"),
    }


def test_rejects_are_told_of_the_centers_that_the_study_names(study: Study) -> None:
    """As after a center was renamed: its old name still stands in the catalog."""
    for name in ("away", "north"):
        (study.folder / name).mkdir()
        (study.folder / name / "notes.txt").write_text("no image")
        crawl(study, name, store=Store(study.workspace), executor=InLine(), key=b"test-key-0123456789")
    assert len(list_rejects(study, reason=None, stage=None, locate=True)) == 2
    study = study.model_copy(update={"centers": (study.center("north"),)})
    (only,) = list_rejects(study, reason=None, stage=None, locate=True)
    assert only["where"] == "north/notes.txt"


@pytest.mark.parametrize("is_compared", [True, False], ids=["compared", "listed as they were"])
def test_a_root_with_nothing_but_a_file_in_its_place_empties_no_catalog(study: Study, is_compared: bool) -> None:
    """As a note that says that the share is not mounted; beside it the other archive of the center is as it was."""
    write_series(study.folder / "north", n=3)
    write_series(study.folder / "more", n=2, series=2)
    two = study.center("north").model_copy(update={"archives": ("north", "more")})
    study = study.model_copy(update={"centers": (two,)})
    store, key = Store(study.workspace), b"test-key-0123456789"

    def nightly() -> StageSummary:
        return crawl(study, "north", store=store, executor=InLine(), key=key)

    assert [nightly().done for _ in range(1 if is_compared else 3)][-1] == 5
    before = store.snapshot()
    (study.folder / "more").rename(study.folder / "elsewhere")
    (study.folder / "more").mkdir()
    (study.folder / "more" / "NOT_MOUNTED").write_text("")
    with pytest.raises(ArchiveError, match=r"archives names 'more': none of the 2 images .* nothing was changed"):
        nightly()
    assert store.snapshot() == before
    write_series(study.folder / "more", n=1, series=3)  # other images: it is there, and was filled anew
    assert nightly().done == 4
    (study.folder / "more" / "NOT_MOUNTED").unlink()
    study = study.model_copy(update={"centers": (study.center("north").model_copy(update={"archives": ("north",)}),)})
    assert nightly().done == 3  # whoever takes an archive out of the study may do so


@pytest.mark.parametrize("is_new", [True, False], ids=["new", "changed"])
def test_a_root_that_goes_while_its_files_are_read_rejects_none_of_them(
    study: Study, monkeypatch: pytest.MonkeyPatch, is_new: bool
) -> None:
    folder, store, key = study.folder / "north", Store(study.workspace), b"test-key-0123456789"
    files = [*write_series(folder, n=3), *write_series(folder / "more", n=3, series=2)]
    if not is_new:
        crawl(study, "north", store=store, executor=InLine(), key=key)
        for file in files:
            os.utime(file, ns=(1, 1))
    before, real, n_read = store.snapshot(), stage.read_partition, itertools.count()
    monkeypatch.setattr(stage, "PART_FILES", 1)

    def unmounted(work_list: str) -> int:
        if next(n_read) == 3:
            folder.rename(study.folder / "elsewhere")
            folder.mkdir()
        return real(work_list)

    with monkeypatch.context() as patched:
        patched.setattr(stage, "read_partition", unmounted)
        with pytest.raises(ArchiveError, match=r"center north.*went while it was read.*nothing was changed"):
            crawl(study, "north", store=store, executor=InLine(), key=key)
    assert store.snapshot() == before
    folder.rmdir()
    (study.folder / "elsewhere").rename(folder)
    again = crawl(study, "north", store=store, executor=InLine(), key=key)
    assert (again.done, again.failed) == (6, 0)  # what was read stands, what failed is read again


def test_outside_a_sweep_a_missing_root_stops_before_work(study: Study) -> None:
    write_series(study.folder / "north", n=3)
    with pytest.raises(ArchiveError, match="center away"):
        run_study(study)
    assert Store(study.workspace).snapshot() == {}
