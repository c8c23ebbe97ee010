"""Rows that correct for age and sex, and for who was sent to the reference standard; each says what it rests on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

from ospor_batch.evaluation.analysis_set import TEST, People, performance_people
from ospor_batch.evaluation.discrimination import Confusion
from ospor_batch.evaluation.intervals import Estimate, not_estimable
from ospor_batch.evaluation.standardization import (
    OLDEST,
    WIDTH,
    direct_standardised,
    standard_said,
    standard_weights,
)
from ospor_batch.evaluation.strata import EVERYONE, Cell
from ospor_batch.evaluation.tables import Context, Row, common, parted, stated, table_at
from ospor_batch.evaluation.verification import Corrected, begg_greenes, weighted_prevalence

SEXES = ("female", "male")
PARTED_BY = {"center", "scanner_vendor", "sex"}  # finer strata hold too few people to be corrected
N_BANDS = OLDEST // WIDTH + 1


def corrected_prevalence_rows(context: Context, people: People) -> list[Row]:
    """Standardised and referral-corrected prevalence of test people, overall, per center, vendor, both, and sex."""
    return [row for cell in _cells(context, people) for row in _prevalence(context, people, cell)]


def corrected_performance_rows(context: Context, people: People) -> list[Row]:
    """Sensitivity and specificity by Begg and Greenes, beside those of the verified people."""
    found = []
    for cell in _cells(context, people):
        scored, table = performance_people(cell.frames[1]), table_at(context, cell.frames[1])
        corrected = _begg_greenes(context, cell, table)
        counts = {"tp": None, "fp": None, "fn": None, "tn": None} if table is None else vars(table)
        base = common(context, people, cell) | {
            "target": context.target, "n_persons": scored.height, "n_images": scored.height,
            "n_events": int(scored["truth"].sum()), **counts, "verified_fraction": _verified(cell),
        }  # fmt: skip
        pairs = (("sensitivity_corrected", corrected.sensitivity), ("specificity_corrected", corrected.specificity))
        found += [base | {"metric": metric, **stated(estimate)} for metric, estimate in pairs]
    return found


def youngest_band(eligible: pl.DataFrame) -> int:
    """Index of the youngest five-year band with people; the standard is cut off there, alike for every row."""
    ages = eligible["age_at_image"].drop_nulls().to_list()
    return int(min(ages) // WIDTH) if ages else 0


def _cells(context: Context, people: People) -> Iterator[Cell]:
    if people.acquisition != EVERYONE or people.partition not in {"test", *TEST}:
        return
    for cell in parted(context, people):
        if {column for column, value in cell.values if value != EVERYONE} <= PARTED_BY:
            yield cell


def _prevalence(context: Context, people: People, cell: Cell) -> Iterator[Row]:
    eligible, paired = cell.frames
    labelled = paired.filter(pl.col("truth").is_not_null())
    scored = eligible.filter(pl.col("score").is_not_null())
    base = common(context, people, cell) | {"target": context.target, "verified_fraction": _verified(cell)}
    by_label, on_label = _standardised(context, labelled, "truth")
    cut = context.threshold.score_cut
    if cut is None:
        by_call, on_call, n_positive = not_estimable("no_threshold"), None, 0
    else:
        called = scored.with_columns(called=pl.col("score") >= cut)
        by_call, on_call = _standardised(context, called, "called")
        n_positive = int(called["called"].sum())
    corrected = _begg_greenes(context, cell, table_at(context, paired)).prevalence
    weighted, on_weights = _weighted(scored, labelled)
    n_events = int(labelled["truth"].sum())
    for metric, estimate, n, events, basis in (
        ("prev_label_standardised", by_label, labelled.height, n_events, on_label),
        ("prev_test_positive_standardised", by_call, scored.height, n_positive, on_call),
        ("prev_label_begg_greenes", corrected, scored.height, n_positive, "call at the locked threshold"),
        ("prev_label_weighted", weighted, scored.height, n_events, on_weights),
    ):
        yield base | {"metric": metric, "n_persons": n, "n_images": n, "n_events": events, "basis": basis, **stated(estimate)}


def _standardised(context: Context, rows: pl.DataFrame, event: str) -> tuple[Estimate, str]:
    """Direct standardisation over sex and five-year bands from the youngest on; people without age or sex are counted."""
    known = rows.filter(pl.col("age_at_image").is_not_null() & pl.col("sex").is_in(SEXES))
    band = np.minimum((known["age_at_image"].to_numpy() // WIDTH).astype(np.int64), N_BANDS - 1)
    sex = known["sex"].replace_strict({"female": 0, "male": 1}, return_dtype=pl.Int64).to_numpy()
    code, size = sex * N_BANDS + band, len(SEXES) * N_BANDS
    weight = np.array(standard_weights(context.standard))
    weight[: context.youngest] = 0
    sexes = [float((sex == i).any()) for i in range(len(SEXES))]
    of_all = np.concatenate([weight * has for has in sexes])
    n, x = np.bincount(code, minlength=size), np.bincount(code, known[event].to_numpy().astype(np.float64), size)
    found = direct_standardised(x, n, weight=of_all)
    left_out = rows.height - known.height
    name = standard_said(context.standard, context.youngest)
    said = f"{name}; {found.n_strata} strata, {found.n_empty_strata} without people; {left_out} of unknown age or sex left out"
    return found.estimate, said


def _begg_greenes(context: Context, cell: Cell, table: Confusion | None) -> Corrected:
    cut, eligible = context.threshold.score_cut, cell.frames[0]
    if cut is None or table is None:
        none = not_estimable("no_threshold")
        return Corrected(none, none, none)
    unverified = eligible.filter(pl.col("score").is_not_null() & ~pl.col("is_paired"))["score"]
    n_positive = int((unverified >= cut).sum())
    return begg_greenes(table, n_positive_unverified=n_positive, n_negative_unverified=len(unverified) - n_positive)


def _weighted(scored: pl.DataFrame, labelled: pl.DataFrame) -> tuple[Estimate, str]:
    rows = scored.drop("truth").join(
        labelled.select("patient_key", "truth"), on="patient_key", how="left", maintain_order="left"
    )
    known = rows.filter(pl.col("age_at_image").is_not_null())
    said = f"score, age, sex, center; {rows.height - known.height} of unknown age left out"
    centers = sorted(set(known["center"]))
    columns = [known["score"].to_numpy(), known["age_at_image"].to_numpy()]
    columns += [(known["sex"] == sex).to_numpy().astype(np.float64) for sex in SEXES]
    columns += [(known["center"] == center).to_numpy().astype(np.float64) for center in centers[1:]]
    verified = known["truth"].is_not_null().to_numpy()
    truth = known["truth"].fill_null(value=False).to_numpy()
    covariates = np.column_stack(columns) if known.height else np.empty((0, 1))
    return weighted_prevalence(truth, covariates=covariates, verified=verified), said


def _verified(cell: Cell) -> float | None:
    eligible = cell.frames[0]
    return int(eligible["is_paired"].sum()) / eligible.height if eligible.height else None
