"""How well images and labels of a center find each other: a wrong patient number looks just like no label."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from ospor_batch.cohort.pairing import LABEL_CENTER, PERSON

ALL = "all"
FEWEST_FOR_A_MONTH = 10  # labelled persons; a judgement: a share of fewer jumps by more than ten points a person


def linkage(
    chosen: pl.DataFrame, labels: pl.DataFrame, *, candidates: pl.DataFrame, centers: Sequence[str], warning_below: float
) -> pl.DataFrame:
    """Persons imaged, labelled, both and label-only, per center and month, with the share linked.

    A month counts those imaged in it, and those labelled in it; of the latter, both and in_window look at images of any
    month, since a window spans several, and of any center, since a crosswalk may join two. n_imaged_elsewhere: labelled
    here, and imaged at other centers alone.
    """
    imaged = chosen.select(*PERSON, month=_month("image_date")).unique()
    labelled = labels.select(*PERSON, month=_month("label_date")).unique()
    inside = candidates.select(center=LABEL_CENTER, patient_key="patient_key", month=_month("label_date")).unique()
    both = labelled.join(imaged.select("patient_key").unique(), on="patient_key", how="semi")
    elsewhere = both.join(imaged.select(PERSON).unique(), on=PERSON, how="anti")
    people = {
        "n_imaged": imaged, "n_labelled": labelled, "n_both": both, "n_imaged_elsewhere": elsewhere, "n_in_window": inside,
    }  # fmt: skip
    found = _grid(centers, imaged, labelled)
    for name, of in people.items():
        found = found.join(_counted(of, name), on=["center", "month"], how="left")
    counts = pl.col(*people).fill_null(0).cast(pl.Int64)
    found = found.with_columns(counts).with_columns(n_label_only=pl.col("n_labelled") - pl.col("n_both"))
    found = found.with_columns(linked_fraction=pl.when(pl.col("n_labelled") > 0).then(pl.col("n_both") / pl.col("n_labelled")))
    enough = (pl.col("month") == ALL) | (pl.col("n_labelled") >= FEWEST_FOR_A_MONTH)
    is_low = (pl.col("linked_fraction") < warning_below) & enough
    said = f"fewer than {warning_below:.0%} of the labelled persons have an eligible image: compare the patient numbers"
    return found.with_columns(warning=pl.when(is_low).then(pl.lit(said))).sort("center", "month")


def _month(column: str) -> pl.Expr:
    return pl.col(column).dt.strftime("%Y-%m")


def _grid(centers: Sequence[str], *people: pl.DataFrame) -> pl.DataFrame:
    months = pl.concat([frame.select("center", "month") for frame in people])
    totals = pl.DataFrame({"center": list(centers), "month": [ALL] * len(centers)}, schema=months.schema)
    return pl.concat([months, totals]).unique().sort("center", "month")


def _counted(people: pl.DataFrame, name: str) -> pl.DataFrame:
    by_month = people.group_by("center", "month").agg(pl.len().alias(name))
    total = people.group_by("center").agg(pl.col("patient_key").n_unique().alias(name)).with_columns(month=pl.lit(ALL))
    return pl.concat([by_month, total.select(by_month.columns)])
