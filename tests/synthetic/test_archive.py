"""The generated study as a whole: the same words make the same bytes, and everything that it promises is there."""

from __future__ import annotations

import hashlib
import shutil
import stat
from pathlib import Path

import polars as pl
import pytest

from ospor_batch.config import read_key, read_study
from ospor_batch.contracts.table import whole
from ospor_batch.errors import StudyError
from ospor_batch.pseudonym import split_position
from ospor_batch.stages.synth import ceilings
from ospor_batch.synthetic.archive import FIRST_NIGHT, PRESETS, SEED, Night, add_night, people_of, write_study
from ospor_batch.synthetic.population import CENTERS
from ospor_batch.synthetic.seeding import secret
from ospor_batch.synthetic.truth import truth_table
from tests.synthetic.conftest import Generated


def fingerprint(folder: Path) -> dict[str, tuple[str, int]]:
    """Digest of the content and time of the last change of every file."""
    return {
        path.relative_to(folder).as_posix(): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_same_seed_gives_the_same_bytes(tiny: Generated, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    write_study(tmp_path / "again", preset="tiny", progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i, len(seen)) for i in range(1, len(seen) + 1)], "progress counts persons"
    assert fingerprint(tmp_path / "again") == fingerprint(tiny.folder)


def test_another_seed_gives_other_people_with_the_same_faults(tiny: Generated) -> None:
    size = PRESETS["tiny"]
    night = Night(1, 7, {c.name: (1, size.per_center) for c in CENTERS})
    other = truth_table(people_of([night], rates=size.rates))
    assert other["vbmd_mg_cm3"].to_list() != tiny.truth["vbmd_mg_cm3"].to_list()
    assert sorted(other["fault"]) == sorted(tiny.truth["fault"])


def test_a_night_that_is_added_equals_a_study_written_with_it(tiny: Generated, tmp_path: Path) -> None:
    write_study(tmp_path / "at_once", preset="tiny", nights=2)
    shutil.copytree(tiny.folder, tmp_path / "by_night")
    before = fingerprint(tmp_path / "by_night")
    exports = {p.name: p.read_bytes() for p in (tmp_path / "by_night" / "exports").glob("*.csv")}
    added = add_night(tmp_path / "by_night")
    after = fingerprint(tmp_path / "by_night")
    assert after == fingerprint(tmp_path / "at_once")
    images = {name for name in after if name.startswith("archives/")}
    assert {path.relative_to(tmp_path / "by_night").as_posix() for path in added} == images - before.keys()
    assert all(after[name] == before[name] for name in images & before.keys()), "a night must leave earlier files alone"
    for name, content in exports.items():
        assert (tmp_path / "by_night" / "exports" / name).read_bytes().startswith(content), "exports only grow by night"


def test_it_is_not_written_over_other_files(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(StudyError, match="not empty"):
        write_study(tmp_path, preset="tiny")
    with pytest.raises(StudyError, match="no preset named 'huge'; there are tiny, demo, paper-cxr, paper-ct, scale"):
        write_study(tmp_path / "new", preset="huge")
    with pytest.raises(StudyError, match="no generated study"):
        add_night(tmp_path)


def test_study_file_is_ready(tiny: Generated) -> None:
    study = read_study(tiny.folder / "study.toml")
    assert study.study.is_generated
    assert len(read_key(study)) >= 32
    assert stat.S_IMODE((tiny.folder / "pseudonym.key").stat().st_mode) == 0o600
    for center in study.centers:
        assert all(study.resolve(archive).is_dir() for archive in center.archives)
        assert all(study.resolve(export.path).is_file() for export in center.exports)
    assert {r.key for r in study.recipes} == {"mean_hu_dxa", "mean_hu_qct"}
    assert "Nothing in this folder is clinical" in (tiny.folder / "README.txt").read_text()


def test_the_ceilings_of_every_recipe_are_told(tiny: Generated) -> None:
    keys = {
        r.key for name in ("study.toml", "recipes.toml") for r in read_study(tiny.folder / name).recipes if not r.substudy_of
    }
    rows = pl.read_parquet(tiny.folder / "ceiling.parquet")
    whole(rows, "ceiling")
    assert set(rows["recipe"]) == keys
    told = ceilings(tiny.folder / "study.toml")
    assert all(any(key in line for line in told) for key in keys)
    assert sum("osteoporosis" in line.split(":")[1] for line in told[:-1]) == rows.unique(["image", "standard"]).height


def test_truth_keeps_its_contract(tiny: Generated) -> None:
    whole(tiny.truth, "truth")
    excluded = tiny.truth.filter(tiny.truth["expected_role"] == "excluded")
    assert excluded["expected_step"].null_count() == 0
    assert not excluded["expected_prediction"].any()
    paired = tiny.truth.filter(tiny.truth["expected_role"] == "paired")
    assert paired["lowest_t"].null_count() == 0
    assert paired["is_osteoporosis"].to_list() == (paired["lowest_t"] <= -2.5).to_list()


def test_truth_of_files_names_every_file(tiny: Generated) -> None:
    rows = pl.read_parquet(tiny.folder / "truth_file.parquet")
    whole(rows, "truth_file")
    root = tiny.folder / "archives"
    sizes = {p.relative_to(root).as_posix(): p.stat().st_size for p in root.rglob("*") if p.is_file()}
    told = {f"{center}/{path}": size for center, path, size in rows.select("center", "path", "size_bytes").rows()}
    assert told == sizes
    broken = rows.filter(pl.col("expected_crawl_reason").is_in(["truncated", "not_dicom", "empty_file"]))
    assert set(tiny.unreadable) <= {root / center / path for center, path in broken.select("center", "path").rows()}


def test_truth_of_structures_has_its_masks(tiny: Generated) -> None:
    rows = pl.read_parquet(tiny.folder / "truth_structure.parquet")
    whole(rows, "truth_structure")
    imaged = tiny.truth.filter(pl.col("kvp_kv").is_not_null())
    assert rows.select("center", "patient_id").unique().height == imaged.height
    for column in ("nifti_path", "seg_path"):
        assert all((tiny.folder / path).is_file() for path in rows[column].unique())
    of_levels = (
        rows.filter(pl.col("vbmd_mg_cm3").is_not_null()).group_by("center", "patient_id").agg(pl.col("vbmd_mg_cm3").mean())
    )
    both = of_levels.join(tiny.truth, on=["center", "patient_id"])
    assert both.height == imaged.height
    assert (both["vbmd_mg_cm3"] - both["vbmd_mg_cm3_right"]).abs().max() < 0.01


def test_every_file_was_changed_long_ago(tiny: Generated) -> None:
    times = {path.stat().st_mtime for path in tiny.folder.rglob("*") if path.is_file()}
    assert times == {FIRST_NIGHT.timestamp()}


def test_vendor_and_center_are_not_the_same_thing(tiny: Generated) -> None:
    pairs = tiny.truth.drop_nulls("scanner_vendor").select("center", "scanner_vendor").unique()
    assert pairs.height > pairs["center"].n_unique()
    assert tiny.truth["scanner_vendor"].drop_nulls().n_unique() == 4


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_partition_holds_both_classes(preset: str) -> None:
    """Without both, no threshold can be chosen on tuning and no AUC be had elsewhere."""
    size = PRESETS[preset]
    night = Night(1, SEED, {center.name: (1, size.per_center) for center in CENTERS})
    truth = truth_table(people_of([night], rates=size.rates))
    scored = truth.filter((truth["expected_role"] == "paired") & truth["expected_prediction"])
    classes: dict[str, set[bool]] = {}
    for center, number, is_sick in scored.select("center", "patient_id", "is_osteoporosis").iter_rows():
        position = split_position(number, center=center, key=secret(SEED).encode())
        partition = "external" if center == "east" else "tuning" if position < size.tuning else "internal_test"
        classes.setdefault(partition, set()).add(is_sick)
    assert classes == {key: {True, False} for key in ("external", "tuning", "internal_test")}
