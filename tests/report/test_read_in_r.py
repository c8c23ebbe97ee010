"""The page for R users: its own lines, run by Rscript on a made-up release, give the AUC of the tables."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import polars as pl
import pytest

from ospor_batch.evaluation.grouped_areas import histogram_area
from ospor_batch.stages.release import release
from tests.conftest import ROOT
from tests.stages.test_evaluate import make, people, study

RSCRIPT = shutil.which("Rscript")
PAGE = ROOT / "docs" / "read_in_r.md"


def has_proc() -> bool:
    if RSCRIPT is None:
        return False
    asked = subprocess.run([RSCRIPT, "-e", "library(pROC)"], capture_output=True, check=False)
    return asked.returncode == 0


@pytest.mark.skipif(not has_proc(), reason="no R with pROC on this machine")
def test_the_lines_of_the_page_give_the_area_of_the_tables(tmp_path: Path) -> None:
    of = study(tables={"strata": ["center"], "smallest_cell": 3, "round_to": 1}, recipe={"threshold": {"fixed": 115.0}})
    made = make(tmp_path / "made", people(240), of=of)
    made.evaluate()
    folder = release(made.study, made.run, store=made.store)
    script = tmp_path / "page.R"
    script.write_text("\n".join(re.findall(r"```r\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)))
    asked = os.environ | {"RELEASE": str(folder), "TABLES": str(made.run.folder / "tables")}
    said = subprocess.run([str(RSCRIPT), str(script)], capture_output=True, text=True, check=True, env=asked).stdout
    exact = re.search(r"^exact mean_hu (\S+) (\S+)$", said, flags=re.MULTILINE)
    assert exact is not None
    assert float(exact[1]) == pytest.approx(float(exact[2]), abs=1e-10)
    assert float(exact[1]) == pytest.approx(made.row("performance", metric="auc")["estimate"], abs=1e-10)
    bins = pl.read_parquet(folder / "tables" / "score_histogram.parquet").filter(pl.col("partition") == "test")
    found = re.findall(r"^binned mean_hu (\S+) (\S+) (\S+)$", said, flags=re.MULTILINE)
    assert {center for center, _, _ in found} == set(bins["center"])
    for center, area, error in found:
        mine = bins.filter(pl.col("center") == center).sort("bin_lower")
        expected, variance = histogram_area(mine["n_events"].to_numpy(), mine["n_others"].to_numpy())
        assert variance is not None
        assert float(area) == pytest.approx(expected, abs=1e-10)
        assert float(error) == pytest.approx(variance**0.5, abs=1e-8)
