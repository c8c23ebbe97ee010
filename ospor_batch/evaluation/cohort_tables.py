"""Rows that describe the people: baseline, what is missing, age and sex, scores by class, and sums for pooling."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

from ospor_batch.evaluation.analysis_set import People, performance_people
from ospor_batch.evaluation.standardization import OLDEST, WIDTH, group_said
from ospor_batch.evaluation.strata import EVERYONE
from ospor_batch.evaluation.tables import Context, Row
from ospor_batch.evaluation.value_tables import NO_CALIBRATION, Comparison, compared_values

NUMBERS = ("age_at_image", "gap_days", "label_value", "lumbar_spine_bmd_g_cm2", "kvp_kv", "slice_thickness_mm")
LEVELS = (
    "sex", "age_band", "category", "scanner_vendor", "densitometer_vendor", "contrast_evidence", "kvp", "slice_thickness",
    "kernel_class", "t_reference",
)  # fmt: skip
OF_LABEL = {"gap_days", "label_value", "lumbar_spine_bmd_g_cm2", "category", "densitometer_vendor", "t_reference"}
GROUPINGS = ("overall", "center", "scanner_vendor")
NOT_KNOWN = {"unknown", "unverified"}
BIN_WIDTHS = {"HU": 5.0, "mg/cm3": 5.0, "g/cm2": 0.02, "t_score": 0.1, "tbs": 0.02, "1": 0.02}  # of a score, by its unit
ORIGINS = {"HU": 100.0, "mg/cm3": 100.0}  # near the middle of people, so that squares keep their digits
HANDLED = {
    "score": "left out of performance; counted in the flow",
    "label": "left out of performance and of prevalence by reference; never taken as negative",
    "target_condition": "left out of performance and of prevalence by reference",
    "age_at_image": "own stratum unknown; left out of standardisation",
    "sex": "own stratum unknown; left out of standardisation",
    "kvp_kv": "own stratum unknown; left out of density calibration",
    "slice_thickness_mm": "own stratum unknown",
    "reference_value": "left out of agreement",
}


def baseline_rows(context: Context, people: People) -> list[Row]:
    """Table 1: each variable of the eligible per center and vendor, with standardised mean differences from the others."""
    everyone = _described(people)
    found = []
    for grouping in GROUPINGS:
        names = [EVERYONE] if grouping == "overall" else sorted(set(everyone[grouping]))
        for name in names:
            inside = pl.lit(value=True) if grouping == "overall" else pl.col(grouping) == name
            mine, others = everyone.filter(inside), everyone.filter(~inside)
            base = _base(context, people) | {"grouping": grouping, "group": name}
            found += [base | row for row in _variables(mine, others)]
    return found


def missingness_rows(context: Context, people: People) -> list[Row]:
    """How many lack what, per center and together, and what was done with them."""
    found = []
    for center in (EVERYONE, *context.centers):
        at = pl.lit(value=True) if center == EVERYONE else pl.col("center") == center
        eligible, paired = people.eligible.filter(at), people.paired.filter(at)
        counted = {
            "score": (eligible, eligible["score"].null_count()),
            "label": (eligible, int((~eligible["is_paired"]).sum())),
            "target_condition": (paired, paired["truth"].null_count()),
            "age_at_image": (eligible, eligible["age_at_image"].null_count()),
            "sex": (eligible, int(eligible["sex"].is_in(NOT_KNOWN).sum())),
            "kvp_kv": (eligible, eligible["kvp_kv"].null_count()),
            "slice_thickness_mm": (eligible, eligible["slice_thickness_mm"].null_count()),
            "reference_value": (paired, paired["reference_value"].null_count()),
        }
        for variable, (rows, n_missing) in counted.items():
            share = n_missing / rows.height if rows.height else None
            said = {"variable": variable, "handling": HANDLED[variable], "n_missing": n_missing, "share_missing": share}
            found.append(_base(context, people) | {"center": center, "n_persons": rows.height} | said)
    return found


def age_sex_rows(context: Context, people: People) -> list[Row]:
    """Eligible, scored, called positive, labelled and with the condition, by sex and five-year group."""
    cut = context.threshold.score_cut
    called = pl.lit(None, pl.Int64) if cut is None else (pl.col("score") >= cut).sum().cast(pl.Int64)
    groups = ["center", "sex", "age_group"]
    parts = []
    for center in (EVERYONE, *context.centers):
        frames = [_at(frame, center).with_columns(age_group=_five_years()) for frame in (people.eligible, people.paired)]
        eligible = (
            frames[0]
            .group_by(groups)
            .agg(n_eligible=pl.len().cast(pl.Int64), n_scored=pl.col("score").count().cast(pl.Int64), n_positive=called)
        )
        labelled = (
            frames[1]
            .group_by(groups)
            .agg(n_labelled=pl.col("truth").count().cast(pl.Int64), n_events=pl.col("truth").sum().cast(pl.Int64))
        )
        parts.append(eligible.join(labelled, on=groups, how="full", coalesce=True))
    counted = pl.concat(parts).with_columns(pl.col("n_eligible", "n_scored", "n_labelled", "n_events").fill_null(0))
    if cut is not None:
        counted = counted.with_columns(pl.col("n_positive").fill_null(0))
    return [_base(context, people) | row for row in counted.sort(groups).iter_rows(named=True)]


def histogram_rows(context: Context, people: People) -> list[Row]:
    """Scores of people with a known class in bins whose edges are multiples of a width fixed by the unit."""
    width = BIN_WIDTHS.get(context.threshold.unit, 0.02)
    found = []
    for center in (EVERYONE, *context.centers):
        scored = performance_people(_at(people.paired, center))
        number = np.floor(scored["score"].to_numpy() / width + 1e-9).astype(np.int64)
        truth = scored["truth"].to_numpy().astype(bool)
        for at in np.unique(number).tolist():
            inside = number == at
            found.append(
                _base(context, people) | {
                    "center": center, "score_unit": context.threshold.unit, "bin_lower": round(at * width, 9),
                    "bin_upper": round((at + 1) * width, 9), "n_events": int((inside & truth).sum()),
                    "n_others": int((inside & ~truth).sum()),
                }
            )  # fmt: skip
    return found


def agreement_sum_rows(context: Context, people: People, *, fitted: Comparison) -> list[Row]:
    """Sums of the raw and of the calibrated values about fixed origins, together and per center."""
    found = []
    for center in (EVERYONE, *context.centers):
        paired = _at(people.paired, center)
        for calibration_id in dict.fromkeys((NO_CALIBRATION, fitted.id)):
            rows = compared_values(paired, fitted, is_calibrated=calibration_id != NO_CALIBRATION)
            y, x = rows["value"].to_numpy(), rows["reference_value"].to_numpy()
            unit = fitted.from_unit if calibration_id == NO_CALIBRATION else fitted.to_unit
            origin, from_origin = ORIGINS.get(unit, 0.0), ORIGINS.get(fitted.to_unit, 0.0)
            dy, dx = y - origin, x - from_origin
            found.append(
                _base(context, people) | {
                    "center": center, "calibration_id": calibration_id, "predicted_value_unit": fitted.from_unit,
                    "compared_unit": fitted.to_unit, "n_persons": rows.height, "origin_predicted": origin,
                    "origin_reference": from_origin, "sum_predicted": float(dy.sum()), "sum_reference": float(dx.sum()),
                    "sum_predicted_squared": float(dy @ dy), "sum_reference_squared": float(dx @ dx),
                    "sum_product": float(dx @ dy),
                }
            )  # fmt: skip
    return found


def _base(context: Context, people: People) -> Row:
    return {"recipe": context.recipe, "reference_id": context.reference_id, "partition": people.partition}


def _at(rows: pl.DataFrame, center: str) -> pl.DataFrame:
    mine = rows if center == EVERYONE else rows.filter(pl.col("center") == center)
    return mine.with_columns(center=pl.lit(center))


def _five_years() -> pl.Expr:
    index = (pl.col("age_at_image") // WIDTH).cast(pl.Int64).clip(0, OLDEST // WIDTH)
    names = {i: group_said(i) for i in range(OLDEST // WIDTH + 1)}
    return index.replace_strict(names, return_dtype=pl.String).fill_null("unknown")


def _described(people: People) -> pl.DataFrame:
    """The eligible, with what is known of the matched label of the labelled."""
    of_label = sorted(OF_LABEL)
    labels = people.paired.select("patient_key", *of_label)
    return people.eligible.drop(of_label).join(labels, on="patient_key", how="left", maintain_order="left")


def _variables(mine: pl.DataFrame, others: pl.DataFrame) -> Iterator[Row]:
    for variable in NUMBERS:
        yield _number(variable, mine, others)
    for variable in LEVELS:
        known, rest = (_known(rows[variable]) for rows in (mine, others))
        for level in sorted(set(known) | set(rest)):
            n, m = int((known == level).sum()), int((rest == level).sum())
            share = n / len(known) if len(known) else None
            other = m / len(rest) if len(rest) else None
            yield _row(variable, level, mine.height, mine.height - len(known)) | {
                "n_level": n, "share": share, "standardised_difference": _difference_of_shares(share, other),
            }  # fmt: skip


def _known(values: pl.Series) -> pl.Series:
    kept = values.drop_nulls()
    return kept.filter(~kept.is_in(NOT_KNOWN))


def _number(variable: str, mine: pl.DataFrame, others: pl.DataFrame) -> Row:
    known, rest = mine[variable].drop_nulls(), others[variable].drop_nulls()
    row = _row(variable, EVERYONE, mine.height, mine.height - len(known))
    if not len(known):
        return row
    values, away = known.to_numpy().astype(np.float64), rest.to_numpy().astype(np.float64)
    low, middle, high = (float(q) for q in np.quantile(values, [0.25, 0.5, 0.75]))
    return row | {
        "mean": float(values.mean()), "sd": float(values.std(ddof=1)) if values.size > 1 else None, "median": middle,
        "quartile_lower": low, "quartile_upper": high, "standardised_difference": _difference_of_means(values, away),
    }  # fmt: skip


def _row(variable: str, level: str, n: int, n_missing: int) -> Row:
    empty = dict.fromkeys(
        ("n_level", "share", "mean", "sd", "median", "quartile_lower", "quartile_upper", "standardised_difference")
    )
    return {"variable": variable, "level": level, "n_persons": n, "n_missing": n_missing} | empty


def _difference_of_means(mine: np.ndarray, others: np.ndarray) -> float | None:
    if mine.size < 2 or others.size < 2:
        return None
    pooled = float(np.sqrt((mine.var(ddof=1) + others.var(ddof=1)) / 2))
    return float(mine.mean() - others.mean()) / pooled if pooled > 0 else None


def _difference_of_shares(mine: float | None, others: float | None) -> float | None:
    if mine is None or others is None:
        return None
    spread = float(np.sqrt((mine * (1 - mine) + others * (1 - others)) / 2))
    return (mine - others) / spread if spread > 0 else None
