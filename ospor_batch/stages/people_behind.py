"""The people behind a count of a table: the rules by which evaluate counted, over keys instead of numbers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import polars as pl

from ospor_batch.errors import StudyError
from ospor_batch.evaluation.analysis_set import AnalysisSet
from ospor_batch.evaluation.cohort_tables import OF_LABEL
from ospor_batch.evaluation.standardization import OLDEST, WIDTH, group_said
from ospor_batch.evaluation.strata import EVERYONE
from ospor_batch.evaluation.value_tables import CALIBRATED_KVP, comparison
from ospor_batch.stages.people_compared import (
    OfRecipe,
    at_site,
    of_classes,
    of_comparison,
    of_curve,
    of_discrimination,
    of_pool,
)
from ospor_batch.stages.people_seen import Row, Seen, one_kind, seen
from ospor_batch.stages.site_recalibration import SITES

UNKNOWN = ("unknown", "unverified")
RAW_METRICS = ("pearson_r", "spearman_rho")  # of the values as predicted; all others of the calibrated ones
BY_LABEL = ("prev_label", "prev_label_standardised")  # the others count everyone scored
LABEL_EVENTS = (*BY_LABEL, "prev_label_weighted")  # events by the reference; the others count those called positive
# Tables of a run in which no number counts people: why.
NOBODY = {
    "leave_one_out": "its numbers count centers, not people; trace heterogeneity, or performance without one center",
    "roc_point": "its numbers are rates at every threshold; trace performance, whose counts stand at the locked one",
    "agreement_point": "its rows are single people, without a key on purpose; trace agreement",
    "cut_off": "it shows definitions and counts nobody",
    "checklist": "it shows items of reporting guidelines and counts nobody",
}


def people_behind(
    of: AnalysisSet, *, table: str, row: Row, column: str, cut: float | None, others: OfRecipe | None = None
) -> pl.DataFrame:
    """center, patient_key and series_key of those whom a count of a table counts; StudyError where it counts nobody.

    others: the people of another recipe, for rows that compare two.
    """
    if table == SITES:
        return at_site(of, row, column).select("center", "patient_key", "series_key")
    mine = seen(of, row, cut=cut)
    if column in {"n_eligible", "n_scored"}:
        everyone = mine.eligible if column == "n_eligible" else mine.scored
        found = _of_age(everyone, row) if table == "age_sex" else everyone
    elif table == "comparison":
        found = of_comparison(mine, row, column, others=others or _no_other)
    else:
        found = COUNTED[table](mine, row, column)
    keys = ["center", "patient_key"] if row.get("unit") == "image" and column == "n_persons" else None
    return found.select(keys or ["center", "patient_key", "series_key"])


def _no_other(recipe: str) -> AnalysisSet:
    raise StudyError(f"the row is about recipe {recipe} too, whose people are not at hand")


def _tested(seen: Seen, _: Row, column: str) -> pl.DataFrame:
    """Labelled people with a score, and the cells of their 2 x 2 table."""
    called, truth = seen.called, pl.col("truth")
    kinds = {
        "n_persons": pl.lit(value=True), "n_images": pl.lit(value=True), "n_events": truth, "tp": called & truth,
        "fp": called & ~truth, "fn": ~called & truth, "tn": ~called & ~truth,
    }  # fmt: skip
    return seen.tested.filter(one_kind(kinds, column))


def _prevalence(seen: Seen, row: Row, column: str) -> pl.DataFrame:
    people = seen.labelled if row["metric"] in BY_LABEL else seen.scored
    by_label = row["metric"] in LABEL_EVENTS
    events = seen.labelled.filter("truth") if by_label else seen.scored.filter(seen.called)
    return events if column == "n_events" else people


def _agreement(seen: Seen, row: Row, column: str) -> pl.DataFrame:
    """Those with a measured and a reference value; where a density line was applied, at its tube voltages only."""
    rows = _compared(seen.images if row.get("unit") == "image" else seen.paired)
    fitted = comparison(seen.of)
    if row.get("metric") not in RAW_METRICS and row.get("calibration_id") != "none":
        rows = rows.filter(pl.col("kvp_kv").is_in(CALIBRATED_KVP))
    elif row.get("metric", "pearson_r") not in RAW_METRICS and fitted.reason is not None:
        rows = rows.clear()  # no common unit: nobody is compared
    return rows.filter(pl.col("truth").fill_null(value=False)) if column == "n_events" else rows


def _calibration(seen: Seen, _row: Row, _column: str) -> pl.DataFrame:
    """The people that a density line was fitted on."""
    return _compared(seen.paired).filter(pl.col("kvp_kv").is_in(CALIBRATED_KVP))


def _compared(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.filter(pl.col("predicted_value").is_not_null() & pl.col("reference_value").is_not_null())


def _missingness(seen: Seen, row: Row, column: str) -> pl.DataFrame:
    lacks = {
        "score": (seen.eligible, pl.col("score").is_null()), "label": (seen.eligible, ~pl.col("is_paired")),
        "target_condition": (seen.paired, pl.col("truth").is_null()), "sex": (seen.eligible, pl.col("sex").is_in(UNKNOWN)),
        "reference_value": (seen.paired, pl.col("reference_value").is_null()),
    }  # fmt: skip
    rows, is_missing = lacks.get(row["variable"], (seen.eligible, pl.col(row["variable"]).is_null()))
    return rows.filter(is_missing) if column == "n_missing" else rows


def _age_sex(seen: Seen, row: Row, column: str) -> pl.DataFrame:
    labelled = seen.labelled
    people = {"n_positive": seen.scored.filter(seen.called), "n_labelled": labelled, "n_events": labelled.filter("truth")}
    return _of_age(people[column], row)


def _of_age(rows: pl.DataFrame, row: Row) -> pl.DataFrame:
    names = {i: group_said(i) for i in range(OLDEST // WIDTH + 1)}
    index = (pl.col("age_at_image") // WIDTH).cast(pl.Int64).clip(0, OLDEST // WIDTH)
    return rows.filter(index.replace_strict(names, return_dtype=pl.String).fill_null("unknown") == row["age_group"])


def _histogram(seen: Seen, row: Row, column: str) -> pl.DataFrame:
    width = row["bin_upper"] - row["bin_lower"]
    number = round(row["bin_lower"] / width)
    inside = seen.tested.filter((pl.col("score") / width + 1e-9).floor() == number)  # as it was counted
    return inside.filter("truth") if column == "n_events" else inside.filter(~pl.col("truth"))


def _baseline(seen: Seen, row: Row, column: str) -> pl.DataFrame:
    labels = seen.paired.select("patient_key", *sorted(OF_LABEL))
    rows = seen.eligible.drop(sorted(OF_LABEL)).join(labels, on="patient_key", how="left", maintain_order="left")
    value = pl.col(row["variable"])
    is_missing = value.is_null() if row["level"] == EVERYONE else value.is_null() | value.is_in(UNKNOWN)
    kinds = {"n_persons": pl.lit(value=True), "n_missing": is_missing, "n_level": ~is_missing & (value == row["level"])}
    return rows.filter(one_kind(kinds, column))


COUNTED: dict[str, Callable[[Seen, Row, str], pl.DataFrame]] = {
    "performance": _tested, "prevalence": _prevalence, "agreement": _agreement, "agreement_sum": _agreement,
    "calibration": _calibration, "threshold": _tested, "recalibration_point": _tested, "risk_calibration": _tested,
    "decision_curve": _tested, "missingness": _missingness, "age_sex": _age_sex, "score_histogram": _histogram,
    "baseline": _baseline, "risk_curve": of_curve, "three_class": of_classes, "discrimination": of_discrimination,
    "heterogeneity": of_pool, "comparison": partial(of_comparison, others=_no_other),
}  # fmt: skip
