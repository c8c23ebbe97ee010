"""Blank and saturated CT ends as a typed reject of every recipe that reads CT; no number is made of it."""

from __future__ import annotations

import math
from pathlib import Path

import pydicom
import pytest

from ospor_batch.compute.executor import InLine
from ospor_batch.errors import ItemRefused
from ospor_batch.inference.items import Item, read_pixels
from ospor_batch.models.registry import PREDICTORS, spec_of
from ospor_batch.stages.infer import infer
from ospor_batch.store import Change, Store, SweepCounts
from tests.cohort.rows import hexed
from tests.inference.cases import LABELS, expected_mean, locator, write_spine
from tests.stages.test_infer import a_run, a_study, manifest, reasons

STORED = {"zero": 0, "ceiling": 65535, "tissue": 1074}  # 1074 is 50 HU
CT = sorted(name for name, kind in PREDICTORS.items() if kind.reads == "ct")


def fill(path: Path, value: int) -> None:
    """Write one value to all pixels of a file."""
    dataset = pydicom.dcmread(path)
    dataset.PixelData = value.to_bytes(2, "little") * (len(dataset.PixelData) // 2)
    dataset.save_as(path)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Series whose pixels are all one value, one whose scale was cut, one with one even slice, one whole."""
    for name in (*STORED, "cut", "slice", "whole"):
        write_spine(tmp_path / "archive" / name, mean_hu=120)
    for name, value in STORED.items():
        for path in (tmp_path / "archive" / name).glob("*.dcm"):
            fill(path, value)
    for path in (tmp_path / "archive" / "cut").glob("*.dcm"):
        dataset = pydicom.dcmread(path)
        dataset.PixelData = dataset.pixel_array.clip(1024, 1024 + 255).tobytes()
        dataset.save_as(path)
    fill(tmp_path / "archive" / "slice" / "0003.dcm", 0)  # of L2
    return tmp_path / "archive"


def test_images_without_an_image_are_rejects_and_the_rest_is_measured(tmp_path: Path, archive: Path) -> None:
    names = [*STORED, "cut", "slice", "whole"]
    study = a_study(tmp_path)
    store = Store(study.workspace)
    store.commit({"locator": Change(locator(archive, names))}, stage="catalog", center="north", counts=SweepCounts())
    run = a_run(store, manifest(names))
    north, _ = infer(study, run, store=store, executor=InLine())
    assert (north.requested, north.done, north.excluded, north.failed) == (6, 2, 4, 0)
    assert reasons(run) == {
        hexed("zero"): "image_blank", hexed("ceiling"): "image_blank", hexed("tissue"): "image_blank",
        hexed("cut"): "image_saturated",
    }  # fmt: skip
    rows = {row["item_digest"]: row for row in run.read("prediction").to_dicts()}
    assert rows[hexed("whole")]["predicted_value"] == pytest.approx(expected_mean(archive / "whole"), abs=1e-9)
    assert "slices_missing:1" in rows[hexed("slice")]["flags"]
    levels = run.read("vertebra").rows(named=True)
    of_slice = {row["level"]: row["mean_hu"] for row in levels if row["item_digest"] == hexed("slice")}
    assert set(of_slice) == {"L1", "L3", "L4"}
    assert all(math.isfinite(value) for row in levels for value in row.values() if isinstance(value, float))


def test_every_recipe_of_ct_refuses_it_before_it_measures(archive: Path) -> None:
    for recipe in CT:
        spec = spec_of(recipe, parameters={}, pattern="*.nii*", labels={**LABELS, "T12": 19})
        for name, reason in (("zero", "image_blank"), ("ceiling", "image_blank"), ("cut", "image_saturated")):
            item = Item(name, name, "north", tuple(sorted((archive / name).glob("*.dcm"))), ())
            with pytest.raises(ItemRefused) as refused:
                read_pixels(item, spec)
            assert refused.value.reason == reason, recipe
