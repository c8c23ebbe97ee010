"""The last steps of the attrition: from the matched people and index series to the n of the performance table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from ospor_batch.contracts.table import conform
from ospor_batch.errors import LedgerError
from ospor_batch.evaluation.analysis_set import SITE_TUNING, TEST, AnalysisSet

SCORED = "scored by the predictor"
AT_SITE = ("not of the site's tuning people", "site_tuning")
IN_TEST = ("in a test partition", "train_or_tuning")
TARGET_KNOWN = ("target condition known", "target_unknown")
MATCHED = ("matched index series", "prevalence_index_only")
ONE_EACH = ("one image per person", "further_image")
STAGE, REASON, STEP = "stage", "reason", "step"


def with_last_steps(attrition: pl.DataFrame, of: AnalysisSet, *, key: dict[str, str]) -> pl.DataFrame:
    """Append infer's and evaluate's steps of one recipe (``key``: recipe and reference_id) at series and person level.

    Every step stands at every center. LedgerError when match's last count is not what the steps begin with.
    """
    mine = pl.all_horizontal(pl.col(name) == value for name, value in key.items())
    added = [
        _steps(attrition.filter(mine & (pl.col("level") == "person")), _fates(of.paired, is_person=True), level="person"),
        _steps(attrition.filter(mine & (pl.col("level") == "series")), _fates(of.series, is_person=False), level="series"),
    ]
    rows = [key | row for level in added for row in level]
    return pl.concat([attrition, conform(pl.DataFrame(rows, schema=attrition.schema), "attrition")])


def _fates(rows: pl.DataFrame, *, is_person: bool) -> pl.DataFrame:
    """Center and first step that each unit leaves at (stage, step, reason); null reason when it stays."""
    refused = pl.col("reject_reason").is_not_null()
    outside = pl.col("partition").is_in(TEST).not_()
    at_site = pl.col("partition") == SITE_TUNING
    rules = [(refused, "infer", SCORED, pl.col("reject_reason")), (at_site, "evaluate", *_said(AT_SITE))]
    rules.append((outside, "evaluate", *_said(IN_TEST)))
    if not is_person:
        rules.append((pl.col("is_performance_index").not_(), "evaluate", *_said(MATCHED)))
        rules.append((pl.col("is_counted").not_(), "evaluate", *_said(ONE_EACH)))
    rules.append((pl.col("truth").is_null(), "evaluate", *_said(TARGET_KNOWN)))
    found = {STAGE: pl.lit(None, pl.String), STEP: pl.lit(None, pl.String), REASON: pl.lit(None, pl.String)}
    for holds, stage, step, reason in reversed(rules):
        said = {STAGE: pl.lit(stage), STEP: pl.lit(step), REASON: reason}
        found = {name: pl.when(holds).then(said[name]).otherwise(before) for name, before in found.items()}
    return rows.select("center", **found)


def _said(step: tuple[str, str]) -> tuple[str, pl.Expr]:
    return step[0], pl.lit(step[1])


def _steps(before: pl.DataFrame, fates: pl.DataFrame, *, level: str) -> list[dict[str, Any]]:
    order = _order(fates, level=level)
    first = int(before["step_number"].max() or 0) + 1  # type: ignore[arg-type]
    rows = []
    for center in sorted(set(before["center"]) | set(fates["center"])):
        left = fates.filter(pl.col("center") == center)
        ends = before.filter(pl.col("center") == center).sort("step_number")
        n_in = int(ends["n_out"][-1]) if ends.height else 0
        if n_in != left.height:
            raise LedgerError(f"{center}: match ends with {n_in} {level}s, the manifest lists {left.height}; run match again")
        for number, (stage, step, reason) in enumerate(order, start=first):
            gone = left.filter((pl.col(STEP) == step) & (pl.col(REASON) == reason)).height
            rows.append(
                {
                    "center": center, "level": level, "step_number": number, "step": step, "stage": stage, "reason": reason,
                    "n_in": n_in, "n_excluded": gone, "n_out": n_in - gone,
                }
            )  # fmt: skip
            n_in -= gone
    return rows


def _order(fates: pl.DataFrame, *, level: str) -> Sequence[tuple[str, str, str]]:
    """Infer's reasons that occur anywhere, in alphabetical order; then evaluate's steps, the rare ones where they occur."""
    refused = fates.filter(pl.col(STAGE) == "infer")[REASON].unique().sort()
    evaluate = [AT_SITE] if fates.filter(pl.col(STEP) == AT_SITE[0]).height else []
    evaluate += [IN_TEST, *([MATCHED] if level == "series" else [])]
    evaluate += [step for step in (ONE_EACH, TARGET_KNOWN) if fates.filter(pl.col(STEP) == step[0]).height]
    return [("infer", SCORED, reason) for reason in refused] + [("evaluate", *step) for step in evaluate]
