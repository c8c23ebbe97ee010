"""Rows of the overlap table: Dice and surface distance of segmented vertebrae, per level and scanner vendor."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl
from scipy import stats

from ospor_batch.evaluation.analysis_set import PARTITIONS, AnalysisSet, partitions_within
from ospor_batch.evaluation.intervals import LEVEL, Estimate, Interval, estimated, not_estimable
from ospor_batch.evaluation.strata import EVERYONE
from ospor_batch.evaluation.tables import Context, Row, stated

METRICS = ("dice", "hd95_mm")


def overlap_rows(context: Context, of: AnalysisSet, *, vertebrae: pl.DataFrame) -> list[Row]:
    """Mean over persons of what each person's vertebrae give (methods S8); no rows where no mask stands beside a segmentation.

    vertebrae: rows of schemas/vertebra.yaml of this recipe's model. A vertebra that was not found has no overlap and is
    counted, never averaged as 0.
    """
    people = of.series.select("item_digest", "patient_key", "partition", "scanner_vendor").unique(maintain_order=True)
    measured = vertebrae.filter(pl.col("dice").is_not_null()).join(people, on="item_digest", maintain_order="left")
    rows: list[Row] = []
    for partition in ("test", *PARTITIONS):
        mine = measured.filter(pl.col("partition").is_in(partitions_within(partition)))
        for vendor in (EVERYONE, *sorted(mine["scanner_vendor"].unique())) if mine.height else ():
            here = mine if vendor == EVERYONE else mine.filter(pl.col("scanner_vendor") == vendor)
            head = {
                "recipe": context.recipe, "reference_id": context.reference_id, "partition": partition,
                "scanner_vendor": vendor, "model_digest": context.model_digest,
            }  # fmt: skip
            rows += [{**head, **row} for row in _by_level(here)]
    return rows


def _by_level(here: pl.DataFrame) -> Iterator[Row]:
    levels = sorted(here["level"].unique(), key=lambda level: (level[0] != "T", int(level[1:])))
    n_series = here["item_digest"].n_unique()
    missed = {level: n_series - here.filter(pl.col("level") == level)["item_digest"].n_unique() for level in levels}
    for level in (EVERYONE, *levels):
        of_level = here if level == EVERYONE else here.filter(pl.col("level") == level)
        for metric in METRICS:
            yield {
                "level": level,
                "metric": metric,
                "n_not_found": sum(missed.values()) if level == EVERYONE else missed[level],
                **_over_persons(of_level.filter(pl.col(metric).is_not_null()), metric),
            }


def _over_persons(rows: pl.DataFrame, metric: str) -> Row:
    means = rows.group_by("patient_key").agg(pl.col(metric).mean()).sort("patient_key")[metric].to_numpy()
    ends = (float(means.min()), float(np.median(means)), float(means.max())) if means.size else (None, None, None)
    return {
        "n_persons": means.size,
        "n_vertebrae": rows.height,
        **dict(zip(("lowest", "median", "highest"), ends, strict=True)),
        **stated(_mean(means)),
    }


def _mean(values: np.ndarray) -> Estimate:
    """Mean with limits by Student's t over persons; without limits for one person."""
    if not values.size:
        return not_estimable("no_overlap")
    mean = float(values.mean())
    if values.size == 1:
        return estimated(mean, None, method="none")
    half = float(stats.t.ppf(0.5 + LEVEL / 2, values.size - 1) * values.std(ddof=1) / np.sqrt(values.size))
    return estimated(mean, Interval(mean - half, mean + half), method="t_over_persons")
