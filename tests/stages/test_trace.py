"""From the counts of a table that no generated study fills back to the keys behind them."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from ospor_batch.contracts import contract
from ospor_batch.contracts.table import schema_of
from ospor_batch.errors import StudyError
from ospor_batch.stages.trace import trace
from tests.stages.evaluated import Made, make, people

LEVELS = ("T12", "L1", "L2", "L3")


def vertebrae(made: Made) -> pl.DataFrame:
    """Overlaps of the scored items: some levels not found, some surfaces without a distance, one item without a mask."""
    rows = []
    for i, row in enumerate(made.run.read("prediction").sort("item_digest").iter_rows(named=True)):
        for k, level in enumerate(LEVELS):
            if (i + k) % 5 == 0:
                continue
            dice = None if i == 0 else 0.5 + 0.01 * ((i + k) % 40)
            rows.append({
                **{name: row[name] for name in ("item_digest", "series_digest", "model_digest", "parameter_digest")},
                "level": level, "n_voxels": 100, "volume_ml": 1.0, "mean_hu": 100.0, "sd_hu": 10.0, "is_touching_edge": False,
                "predicted_value": None, "dice": dice, "hd95_mm": None if dice is None or (i + k) % 7 == 0 else 2.0,
            })  # fmt: skip
    return pl.DataFrame(rows, schema=schema_of("vertebra"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    cohort = people()
    cohort[5].blind_hu = 100.0  # two series of one person
    found = make(tmp_path_factory.mktemp("traced"), cohort)
    found.run.write("vertebra", vertebrae(found))
    found.evaluate()
    return found


def test_every_count_of_overlap_leads_to_as_many_keys(made: Made) -> None:
    rows = made.table("overlap")
    assert set(rows["level"]) == {"all", *LEVELS}
    assert {"test", "internal_test", "external", "tuning", "train"} == set(rows["partition"])
    for row in rows.gather_every(7).iter_rows(named=True):  # every level, metric and partition in turn
        named = ",".join(f"{name}={row[name]}" for name in contract("overlap").primary_key)
        for column in ("n_persons", "n_vertebrae", "n_not_found"):
            assert trace(made.run.folder, "overlap", cell=f"{column},{named}").keys.height == row[column], (column, named)
    assert rows["n_not_found"].max() > 0  # type: ignore[operator]
    assert rows.filter(pl.col("n_persons") < pl.col("n_vertebrae")).height


def test_keys_of_overlap_are_of_the_vertebra(made: Made, tmp_path: Path) -> None:
    cell = "n_vertebrae,partition=test,level=L1,metric=dice"
    keys = trace(made.run.folder, "overlap", cell=cell).keys
    assert {"center", "patient_key", "item_digest", "level"} == set(keys.columns)
    assert set(keys["level"]) == {"L1"}
    with pytest.raises(StudyError, match="counts nobody"):
        trace(made.run.folder, "overlap", cell=cell.replace("n_vertebrae", "estimate"))
