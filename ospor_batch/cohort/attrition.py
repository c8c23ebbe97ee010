"""Where everybody went: one row per center, level and step, closed exactly (methods R1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from ospor_batch.cohort.criteria import LEAVES_AT
from ospor_batch.contracts import contract
from ospor_batch.contracts.table import empty
from ospor_batch.errors import LedgerError

CATALOG = "catalog"  # recipe and reference of the steps before any
LABELLED = "label in the window"
# The fixed order of the steps before any recipe: reason -> name of the step. Reasons not listed follow by name.
FILE_STEPS = {
    "waiting": "settled",
    "special_file": "regular file",
    "broken_link": "link leads to a file",
    "permission_denied": "permitted",
    "read_error": "readable",
    "empty_file": "not empty",
    "nifti": "no NIfTI volume or mask",
    "not_dicom": "DICOM",
    "dicomdir": "no DICOMDIR",
    "truncated": "complete",
    "broken_header": "header readable",
    "missing_uid": "UIDs present",
    "contract": "values possible",
}
INSTANCE_STEPS = {
    "duplicate_same_content": "not a copy",
    "duplicate_different_content": "UID used once",
    "contract": "values possible",
}
ROW_STEPS = {
    "missing_patient_id": "patient number present",
    "missing_date": "date present",
    "partial_date": "date has its day",
    "invalid_date": "date valid",
    "not_a_number": "numbers readable",
    "unit_mismatch": "unit as declared",
    "impossible_value": "values possible",
    "unknown_site": "site known",
    "unknown_code": "code known",
    "unknown_event_code": "event known",
    "exam_in_future": "exam not in the future",
    "exam_before_birth": "exam after birth",
    "no_measurement": "a measurement",
    "t_contradicts_bmd": "T-score fits its BMD",
    "duplicate_exam": "not a copy",
    "duplicate_event": "not a copy of an event",
    "conflicting_exam": "no conflicting exam",
    "contract": "contract kept",
}
EXAM_STEPS = {
    "who_not_applicable": "WHO classes apply",
    "z_not_applicable": "Z-scores apply",
    "no_valid_site": "a valid site",
    "vertebrae_too_few": "enough vertebrae",
    "phantom_material_differs": "phantom material of the classes",
    "height_missing": "height known",
    "category_not_defined": "class defined",
}
NO_IMAGE = ("person has an eligible image", "no_eligible_image")
NO_LABEL = (LABELLED, "no_label")
NOT_THE_MATCH = ("the match", "not_the_match")
OUTRANKED = ("one series per study", "outranked")
NOT_INDEX = ("index series", "not_index")


@dataclass(frozen=True)
class Level:
    """One chain of steps for one thing that is counted."""

    level: str
    stage: str
    steps: tuple[tuple[str, str], ...]  # (name, reason), in order


def flow(counts: pl.DataFrame, level: Level, *, centers: Sequence[str], recipe: str, reference_id: str) -> pl.DataFrame:
    """Turn counts of who leaves where into steps, the same at every center, with rows of zero.

    counts: center, leaves_at (1-based; number of steps + 1 went through), n.
    """
    if not level.steps or not centers:
        return empty("attrition")
    numbers = range(1, len(level.steps) + 1)
    steps = pl.DataFrame(
        {"step_number": list(numbers), "step": [s for s, _ in level.steps], "reason": [r for _, r in level.steps]}
    )
    grid = pl.DataFrame({"center": sorted(centers)}).join(steps, how="cross")
    left = counts.group_by("center", LEAVES_AT).agg(n_excluded=pl.col("n").sum()).rename({LEAVES_AT: "step_number"})
    total = counts.group_by("center").agg(total=pl.col("n").sum())
    rows = grid.join(left, on=["center", "step_number"], how="left").join(total, on="center", how="left")
    rows = rows.with_columns(pl.col("n_excluded", "total").fill_null(0).cast(pl.Int64)).sort("center", "step_number")
    n_out = pl.col("total") - pl.col("n_excluded").cum_sum().over("center")
    rows = rows.with_columns(n_out=n_out).with_columns(n_in=pl.col("n_out") + pl.col("n_excluded"))
    told = {"recipe": recipe, "reference_id": reference_id, "level": level.level, "stage": level.stage, "note": None}
    return rows.with_columns(pl.lit(value, pl.String).alias(name) for name, value in told.items()).select(
        contract("attrition").columns
    )


def by_reason(counts: pl.DataFrame, known: Mapping[str, str]) -> tuple[pl.DataFrame, tuple[tuple[str, str], ...]]:
    """Number reasons by the fixed order, unlisted ones after it; a null reason went through.

    counts: center, reason, n.
    """
    more = sorted(set(counts["reason"].drop_nulls()) - known.keys())
    steps = (*((name, reason) for reason, name in known.items()), *((reason.replace("_", " "), reason) for reason in more))
    numbers = {reason: i for i, (_, reason) in enumerate(steps, start=1)}
    at = pl.col("reason").replace_strict(numbers, default=len(steps) + 1, return_dtype=pl.Int64)
    return counts.select("center", at.alias(LEAVES_AT), pl.col("n").cast(pl.Int64)), steps


def before_recipes(counts: Mapping[str, pl.DataFrame], *, centers: Sequence[str]) -> pl.DataFrame:
    """Steps of crawl, catalog and label.

    counts: center, reason (null: went on), n, under file, instance, export_row; under ``exam:<reference>`` those of a
    reference.
    """
    rules = {"file": ("crawl", FILE_STEPS), "instance": ("catalog", INSTANCE_STEPS), "export_row": ("label", ROW_STEPS)}
    parts = []
    for name in counts:
        level, _, reference = name.partition(":")
        stage, known = rules.get(level, ("label", EXAM_STEPS))
        numbered, steps = by_reason(counts[name], known)
        parts.append(
            flow(numbered, Level(level, stage, steps), centers=centers, recipe=CATALOG, reference_id=reference or CATALOG)
        )
    return pl.concat([empty("attrition"), *parts])


def check_closed(rows: pl.DataFrame) -> None:
    """LedgerError unless every chain closes: numbered from 1, n_out of a step = n_in of the next, same steps everywhere."""
    chain = ["recipe", "reference_id", "center", "level"]
    ordered = rows.sort(*chain, "step_number")
    expected = pl.int_range(1, pl.len() + 1).over(chain)
    before = pl.col("n_out").shift(1).over(chain)
    broken = ordered.filter(
        (pl.col("step_number") != expected)
        | (pl.col("n_in") - pl.col("n_excluded") != pl.col("n_out"))
        | (pl.min_horizontal("n_in", "n_excluded", "n_out") < 0)
        | (before.is_not_null() & (before != pl.col("n_in")))
    )
    if broken.height:
        row = broken.row(0, named=True)
        said = ", ".join(f"{c} {row[c]}" for c in (*chain, "step_number", "step", "n_in", "n_excluded", "n_out"))
        raise LedgerError(f"attrition: {broken.height} steps do not close; the first: {said}")
    shapes = ordered.group_by(chain, maintain_order=True).agg(pl.col("step"), pl.col("reason"))
    if shapes.n_unique(["recipe", "reference_id", "level", "step", "reason"]) != shapes.n_unique(
        ["recipe", "reference_id", "level"]
    ):
        raise LedgerError("attrition: the steps of a level differ between centers")
