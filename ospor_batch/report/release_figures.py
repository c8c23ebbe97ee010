"""Drawings of the released tables: what is withheld there is not drawn here."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from ospor_batch.config import Study
from ospor_batch.report.curves import binned_roc, calibration, forest_of, pyramid
from ospor_batch.report.figures import Picture, safe_name

SHOWN = ("auc", "sensitivity", "specificity")


def release_pictures(study: Study, tables: Mapping[str, pl.DataFrame]) -> list[Picture]:
    """Forest plots by center and by vendor, binned ROC curves, calibration and age-sex pyramid of each recipe."""
    found = []
    for recipe in study.recipes:
        mine = (pl.col("recipe") == recipe.key) & (pl.col("reference_id") == recipe.reference) & (pl.col("partition") == "test")
        rows = tables["performance"].filter(mine & (pl.col("is_same_acquisition") == "all"))
        for by in ("center", "scanner_vendor"):
            shown = rows.filter(pl.col("stratum").is_in(["overall", by]))
            if shown.filter(pl.col(by) != "all").height:
                pooled = tables["heterogeneity"].filter(mine & (pl.col("grouping") == by))
                name, said = safe_name("forest", by, recipe.key), by.replace("_", " ")
                title = f"AUC, sensitivity and specificity of {recipe.key} by {said}, 95 % intervals"
                found.append(forest_of(shown, pooled, by=by, metrics=SHOWN, name=name, title=title))
        bins = tables["score_histogram"].filter(mine)
        if bins.height:
            title = f"ROC curve of {recipe.key} from binned scores, by center"
            found.append(binned_roc(bins, name=safe_name("roc", recipe.key), title=title))
        curve = tables["risk_curve"].filter(mine)
        if curve["observed"].drop_nulls().len():
            title = f"Calibration of {recipe.key} in tenths of the people"
            found.append(calibration(curve, name=safe_name("calibration", recipe.key), title=title))
        people = tables["age_sex"].filter(mine & (pl.col("center") == "all"))
        if people["n_eligible"].drop_nulls().len():
            title = f"People of {recipe.key} by age and sex, all centers; withheld groups are not drawn"
            found.append(pyramid(people, name=safe_name("pyramid", recipe.key), title=title))
    return found
