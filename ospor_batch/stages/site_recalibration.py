"""Recalibration at the external centers that a study names: the rows of a recipe, and the words of their table."""

from __future__ import annotations

import polars as pl

from ospor_batch.config import Recipe, Study
from ospor_batch.contracts.table import schema_of
from ospor_batch.evaluation.analysis_set import AnalysisSet
from ospor_batch.evaluation.site_recalibration import site_recalibration_rows
from ospor_batch.evaluation.tables import Context, Row
from ospor_batch.evaluation.value_tables import Comparison
from ospor_batch.runs import Run
from ospor_batch.stages.specs import threshold_rule

SITES = "site_recalibration"  # the table; of studies that name a site alone
CAPTION = (
    "Both results are of the same external people, none of whom a recalibration was fitted on: calibration_id none is the "
    "model as it came, the others were fitted on the site's own tuning people alone (intercept and slope are of those). "
    "bias_at_cut is predicted minus reference where the reference stands at the cut-off: where it is positive, a fixed cut-off "
    "misses people. A recalibrated result holds for this site and says nothing of the next one."
)


def site_rows(study: Study, recipe: Recipe, *, context: Context, of: AnalysisSet, fitted: Comparison) -> list[Row]:
    """Rows of a recipe at the centers that the study recalibrates at; none without any."""
    centers = tuple(study.split.site_tuning)
    return site_recalibration_rows(context, of, fitted=fitted, rule=threshold_rule(recipe), centers=centers)


def announce_sites(run: Run) -> None:
    """Hand the table to the report."""
    words = {
        "file": SITES, "kind": "table", "recipe": "all", "contract": SITES, "section": "Recalibrated at the site",
        "position": 0, "title": "Each model at the external center, as it came and recalibrated there", "caption": CAPTION,
        "alt_text": None, "hidden_columns": "reference_id;model_digest;interval_method;partition",
    }  # fmt: skip
    run.write("exhibit", pl.DataFrame([words], schema=schema_of("exhibit")), under="exhibits", stem=SITES)
