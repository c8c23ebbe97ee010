"""How well images and labels of a center find each other: a wrong patient number looks just like no label."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from ospor_batch.cohort.pairing import GAP, LABEL_CENTER, PERSON

ALL = "all"
FLAGS = ["is_imaged", "is_labelled", "is_both", "is_imaged_elsewhere", "is_in_window"]
COUNTS = ["n_imaged", "n_labelled", "n_both", "n_imaged_elsewhere", "n_in_window"]
CELL = ["center", "month", "patient_key"]
SHIFTED_SHARE = 0.2  # of those with both: more with one gap outside the window are a shift of dates (methods M2)
SAME_SHIFT_DAYS = 7  # gaps of one shift differ by no more than people do from their usual appointment (judgement)
FEWEST_FOR_A_MONTH = 10  # labelled persons; a judgement: a share of fewer jumps by more than ten points a person


def linked(chosen: pl.DataFrame, labels: pl.DataFrame, *, pairs: pl.DataFrame) -> pl.DataFrame:
    """Who is imaged and who labelled in each month of a center, and of the latter who has an image; rows of `linked`.

    pairs: of every gap, judged in is_candidate. Of the labelled, is_both and is_in_window look at images of any month, since a
    window spans several, and of any center, since a crosswalk may join two.
    """
    candidates = pairs.filter("is_candidate")
    imaged = chosen.select(*PERSON, month=_month("image_date")).unique()
    labelled = labels.select(*PERSON, month=_month("label_date")).unique()
    inside = candidates.select(center=LABEL_CENTER, patient_key="patient_key", month=_month("label_date")).unique()
    both = labelled.join(imaged.select("patient_key").unique(), on="patient_key", how="semi")
    elsewhere = both.join(imaged.select(PERSON).unique(), on=PERSON, how="anti")
    found = pl.concat([imaged, labelled]).unique()
    for name, of in zip(FLAGS, (imaged, labelled, both, elsewhere, inside), strict=True):
        mark = of.with_columns(pl.lit(value=True).alias(name))
        found = found.join(mark, on=CELL, how="left")
    return found.with_columns(pl.col(FLAGS).fill_null(value=False)).sort(CELL)


def linkage(
    people: pl.DataFrame, *, pairs: pl.DataFrame, window: pl.Expr, centers: Sequence[str], warning_below: float
) -> pl.DataFrame:
    """Persons imaged, labelled, both and label-only, per center and month, with the share linked.

    people: as linked gives them. n_imaged_elsewhere: labelled here, and imaged at other centers alone. pairs: of every gap;
    window: true of pairs inside it.
    """
    found = _grid(centers, people)
    for name, flag in zip(COUNTS, FLAGS, strict=True):
        found = found.join(_counted(people.filter(flag), name), on=["center", "month"], how="left")
    counts = pl.col(COUNTS).fill_null(0).cast(pl.Int64)
    found = found.with_columns(counts).with_columns(n_label_only=pl.col("n_labelled") - pl.col("n_both"))
    found = found.with_columns(linked_fraction=pl.when(pl.col("n_labelled") > 0).then(pl.col("n_both") / pl.col("n_labelled")))
    found = found.join(_common_gap(pairs, window), on="center", how="left")
    return _warned(found, below=warning_below).drop("share", "common").sort("center", "month")


def _warned(found: pl.DataFrame, *, below: float) -> pl.DataFrame:
    """Add the warnings: few of the labelled are imaged; many share one gap outside the window."""
    enough = (pl.col("month") == ALL) | (pl.col("n_labelled") >= FEWEST_FOR_A_MONTH)
    is_low = (pl.col("linked_fraction") < below) & enough
    few = f"fewer than {below:.0%} of the labelled persons have an eligible image: compare the patient numbers"
    is_shifted = (pl.col("share") > SHIFTED_SHARE) & (pl.col("month") == ALL) & (pl.col("n_both") >= FEWEST_FOR_A_MONTH)
    shifted = pl.format(
        "{}% of those with both have their nearest label about {} days from the image, outside the window: "
        "were the dates of images and labels shifted alike?",
        (100 * pl.col("share")).round(0).cast(pl.Int64),
        "common",
    )
    said = [pl.when(is_low).then(pl.lit(few)), pl.when(is_shifted).then(shifted)]
    both = pl.concat_str(said, separator="; ", ignore_nulls=True)
    return found.with_columns(warning=pl.when(is_low | is_shifted).then(both))


def _common_gap(pairs: pl.DataFrame, window: pl.Expr) -> pl.DataFrame:
    """Per center of the labels: the commonest nearest gap outside the window in days, and the share of people who have it."""
    people = [LABEL_CENTER, "patient_key"]
    nearest = pairs.select(*people, GAP, is_inside=window).sort(pl.col(GAP).abs(), GAP)
    nearest = nearest.unique(people, keep="first", maintain_order=True)
    found = []
    for (center,), rows in nearest.sort(people).group_by(LABEL_CENTER, maintain_order=True):
        far = rows.filter(~pl.col("is_inside"))[GAP].sort().to_numpy()
        if not far.size:
            continue
        first = np.searchsorted(far, far - SAME_SHIFT_DAYS, "left")
        n_near = np.searchsorted(far, far + SAME_SHIFT_DAYS, "right") - first
        best = int(n_near.argmax())
        middle = int(far[first[best] + n_near[best] // 2])
        found.append({"center": center, "share": int(n_near[best]) / rows.height, "common": middle})
    return pl.DataFrame(found, schema={"center": pl.String, "share": pl.Float64, "common": pl.Int64})


def _month(column: str) -> pl.Expr:
    return pl.col(column).dt.strftime("%Y-%m")


def _grid(centers: Sequence[str], people: pl.DataFrame) -> pl.DataFrame:
    months = people.select("center", "month")
    totals = pl.DataFrame({"center": list(centers), "month": [ALL] * len(centers)}, schema=months.schema)
    return pl.concat([months, totals]).unique().sort("center", "month")


def _counted(people: pl.DataFrame, name: str) -> pl.DataFrame:
    by_month = people.group_by("center", "month").agg(pl.len().alias(name))
    total = people.group_by("center").agg(pl.col("patient_key").n_unique().alias(name)).with_columns(month=pl.lit(ALL))
    return pl.concat([by_month, total.select(by_month.columns)])
