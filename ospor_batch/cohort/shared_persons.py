"""People whom a crosswalk finds in two centers: each is counted at one of them, and in one partition."""

from __future__ import annotations

import polars as pl

from ospor_batch.cohort.criteria import LEAVES_AT, Step
from ospor_batch.config import Split
from ospor_batch.errors import StudyError

HOME = "home_center"


def refuse_shared(series: pl.DataFrame, *, split: Split) -> None:
    """StudyError when the study refuses people of two centers and the catalog has some."""
    in_several = series.group_by("patient_key").agg(pl.col("center").n_unique().alias("n")).drop_nulls("patient_key")
    n = in_several.filter(pl.col("n") > 1).height
    if n and split.shared_persons == "refuse":
        raise StudyError(
            f"split.shared_persons is 'refuse' and {n} persons stand in two centers by the crosswalk; "
            "leave one of the centers out, or give 'home_center'"
        )


def with_home(judged: pl.DataFrame) -> tuple[pl.DataFrame, Step] | None:
    """Name the home center of people with eligible series in several; None when nobody has.

    Home is where the earliest eligible image was taken (of equal days the first center by name), whatever the labels say.
    Series elsewhere leave at the step returned, so that nobody is counted twice and no partition leaks.
    judged: series with first_failed; the verdict columns are dropped, to be judged again with the step.
    """
    eligible = judged.filter(pl.col("first_failed").is_null() & pl.col("patient_key").is_not_null())
    shared = eligible.group_by("patient_key").agg(pl.col("center").n_unique().alias("n")).filter(pl.col("n") > 1)
    if not shared.height:
        return None
    homes = (
        eligible.join(shared, on="patient_key", how="semi")
        .sort("patient_key", "image_date", "center")
        .unique("patient_key", keep="first", maintain_order=True)
        .select("patient_key", pl.col("center").alias(HOME))
    )
    rows = judged.drop(LEAVES_AT, "first_failed", "all_failed").join(homes, on="patient_key", how="left", maintain_order="left")
    elsewhere = (pl.col(HOME) != pl.col("center")).fill_null(value=False)
    return rows, Step("person counted at one center", "counted_at_other_center", elsewhere)
