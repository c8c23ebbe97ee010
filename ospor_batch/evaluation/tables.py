"""Rows of the performance and prevalence tables: every number with n, interval, stratum, threshold and its origin."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import polars as pl

from ospor_batch.evaluation.analysis_set import People, one_of, performance_people
from ospor_batch.evaluation.discrimination import Confusion, auc, confusion, operating_point, roc_curve
from ospor_batch.evaluation.intervals import Estimate, not_estimable
from ospor_batch.evaluation.prevalence import prev_corrected, prev_label, prev_test_positive
from ospor_batch.evaluation.strata import EVERYONE, OVERALL, Cell, Stratum, cells
from ospor_batch.evaluation.threshold import LockedThreshold
from ospor_batch.evaluation.two_by_two import further_measures

Row = dict[str, Any]
LABEL_STRATA = {"densitometer_vendor"}  # known of labelled people only


@dataclass(frozen=True)
class Context:
    """What every row of one recipe says: reference, model, threshold, window, and the study's declarations."""

    recipe: str
    reference_id: str
    model_digest: str
    threshold: LockedThreshold
    window_days: str
    target: str
    ppv_prevalence: float
    minimum_events: int
    strata: tuple[Stratum, ...]
    centers: tuple[str, ...]
    standard: str = "who_2000_2025"
    youngest: int = 0  # five-year band at which the standard population is cut off


def parted(context: Context, people: People, *, paired: pl.DataFrame | None = None) -> Iterator[Cell]:
    """Every cell of every stratum; train and tuning people appear overall only, centers of the study always."""
    frames = (people.eligible, people.paired if paired is None else paired)
    for stratum in context.strata:
        if people.partition in {"train", "tuning"} and stratum.name != OVERALL:
            continue
        shown = [(c,) for c in context.centers] if _is_everyone_by_center(stratum, people) else []
        yield from cells(frames, stratum, expected=shown)


def performance_rows(context: Context, people: People) -> list[Row]:
    """One row per cell and metric; the cells of the 2 x 2 table are null without a threshold."""
    return [row for cell in parted(context, people) for row in _performance(context, people, cell)]


def prevalence_rows(context: Context, people: People) -> list[Row]:
    """One row per cell and kind of prevalence, each with the people behind it."""
    return [row for cell in parted(context, people) for row in _prevalence(context, people, cell)]


def roc_rows(context: Context, people: People) -> list[Row]:
    """Corners of the ROC curve, all centers together and each center."""
    scored = performance_people(people.paired)
    groups = [(EVERYONE, scored), *((c, scored.filter(pl.col("center") == c)) for c in context.centers)]
    return [
        {
            "recipe": context.recipe, "reference_id": context.reference_id, "partition": people.partition, "center": center,
            "point": number, "false_positive_rate": x, "true_positive_rate": y, "threshold": threshold,
        }
        for center, rows in groups
        if (curve := roc_curve(rows["truth"].to_numpy(), rows["score"].to_numpy())) is not None
        for number, (x, y, threshold) in enumerate(
            zip(curve.false_positive_rate, curve.true_positive_rate, curve.threshold, strict=True)
        )
    ]  # fmt: skip


def common(context: Context, people: People, cell: Cell) -> Row:
    """The columns that every table shares, with eligible and scored people by the label-blind index."""
    eligible, paired = cell.frames
    return {
        "recipe": context.recipe,
        "reference_id": context.reference_id,
        "t_source": one_of(paired["t_source"]),
        "t_reference": one_of(paired["t_reference"]),
        "partition": people.partition,
        "unit": "person",
        "model_digest": context.model_digest,
        "threshold_id": context.threshold.id,
        "window_days": context.window_days,
        "stratum": cell.stratum,
        **dict(cell.values),
        "is_same_acquisition": people.acquisition,
        "n_eligible": eligible.height,
        "n_scored": eligible["score"].count(),
    }


def stated(estimate: Estimate) -> Row:
    """The columns of an estimate."""
    return {
        "estimate": estimate.value,
        "estimate_lower": estimate.lower,
        "estimate_upper": estimate.upper,
        "interval_method": estimate.method,
        "status": "estimated" if estimate.is_estimable else "not_estimable",
        "status_reason": estimate.reason,
    }


def table_at(context: Context, paired: pl.DataFrame) -> Confusion | None:
    """The 2 x 2 table of labelled and scored people at the locked threshold; null without one."""
    scored = performance_people(paired)
    if context.threshold.score_cut is None:
        return None
    return confusion(scored["truth"].to_numpy(), scored["score"].to_numpy(), threshold=context.threshold.score_cut)


def _performance(context: Context, people: People, cell: Cell) -> Iterator[Row]:
    scored = performance_people(cell.frames[1])
    table = table_at(context, cell.frames[1])
    counts = {"tp": None, "fp": None, "fn": None, "tn": None} if table is None else _counts(table)
    base = common(context, people, cell) | {
        "target": context.target,
        "n_persons": scored.height,
        "n_images": scored.height,
        "n_events": int(scored["truth"].sum()),
        **counts,
        "verified_fraction": _verified(people, cell),
    }
    area = auc(scored["truth"].to_numpy(), scored["score"].to_numpy(), minimum_events=context.minimum_events)
    yield base | {"metric": "auc", **stated(area)}
    for metric, estimate in _at_threshold(context, table).items():
        yield base | {"metric": metric, **stated(estimate)}


def _at_threshold(context: Context, table: Confusion | None) -> dict[str, Estimate]:
    counts = table or Confusion(0, 0, 0, 0)
    measured = operating_point(counts, prevalence=context.ppv_prevalence) | further_measures(counts)
    return measured if table is not None else dict.fromkeys(measured, not_estimable("no_threshold"))


def _prevalence(context: Context, people: People, cell: Cell) -> Iterator[Row]:
    eligible, paired = cell.frames
    labelled = paired.filter(pl.col("truth").is_not_null())
    scored = eligible.filter(pl.col("score").is_not_null())
    cut = context.threshold.score_cut
    n_positive = 0 if cut is None else int((scored["score"] >= cut).sum())
    n_events = int(labelled["truth"].sum())
    table = table_at(context, paired)
    by_test = not_estimable("no_threshold") if cut is None else prev_test_positive(n_positive, scored.height)
    corrected = not_estimable("no_threshold") if table is None else prev_corrected(
        n_positive, scored.height, n_image_only=int((~scored["is_paired"]).sum()), verified=table,
        partition=people.partition, minimum_events=context.minimum_events,
    )  # fmt: skip
    base = common(context, people, cell) | {"target": context.target, "verified_fraction": _verified(people, cell)}
    for metric, estimate, n, events in (
        ("prev_label", prev_label(n_events, labelled.height), labelled.height, n_events),
        ("prev_test_positive", by_test, scored.height, n_positive),
        ("prev_corrected", corrected, scored.height, n_positive),
    ):
        counts = {"n_persons": n, "n_images": n, "n_events": events, "basis": None}
        yield base | {"metric": metric, **counts, **stated(estimate)}


def _verified(people: People, cell: Cell) -> float | None:
    """Share of the eligible with a matched label; null where the cell itself is made of labelled people."""
    eligible = cell.frames[0]
    is_label_side = people.acquisition != EVERYONE or any(c in LABEL_STRATA and v != EVERYONE for c, v in cell.values)
    if is_label_side or not eligible.height:
        return None
    return int(eligible["is_paired"].sum()) / eligible.height


def _counts(table: Confusion) -> dict[str, int | None]:
    return {"tp": table.tp, "fp": table.fp, "fn": table.fn, "tn": table.tn}


def _is_everyone_by_center(stratum: Stratum, people: People) -> bool:
    return stratum.columns == ("center",) and (people.partition, people.acquisition) == ("test", EVERYONE)
