"""How far a run has moved from the accepted one: people and prevalence per stratum, and the step where it began."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import polars as pl

from ospor_batch.config import Drift

LEVELS = ("file", "instance", "export_row", "exam", "series", "person")  # in the order of the stages
SCREENED = {"count": ("file", "instance", "series", "person"), "prevalence": ("export_row", "exam")}
LABEL_VALUES = "label: no step moved, so it is the values of the labels"


@dataclass(frozen=True)
class Move:
    """One stratum of one recipe that moved beyond its bound.

    measure: count (persons) or prevalence (share of the paired with the target condition, in per cent).
    """

    recipe: str
    reference_id: str
    stratum: str
    centers: tuple[str, ...]  # that it is made of
    measure: Literal["count", "prevalence"]
    before: float
    now: float

    @property
    def said(self) -> str:
        if self.measure == "count":
            return f"{self.recipe}, {self.stratum}: {self.before:.0f} persons became {self.now:.0f}"
        return f"{self.recipe}, {self.stratum}: prevalence {self.before:.1f} % became {self.now:.1f} %"


def moves(
    before: pl.DataFrame, now: pl.DataFrame, *, strata: Sequence[tuple[str, ...]], target: str, bounds: Drift
) -> list[Move]:
    """Every stratum with at least minimum_n people, then or now, that moved beyond a bound; recipes of both runs only.

    before, now: manifests.
    """
    recipes = before.select("recipe", "reference_id").unique().join(
        now.select("recipe", "reference_id").unique(), on=["recipe", "reference_id"], how="semi"
    )  # fmt: skip
    found: list[Move] = []
    for recipe, reference in recipes.sort("recipe").iter_rows():
        is_mine = (pl.col("recipe") == recipe) & (pl.col("reference_id") == reference)
        for columns in strata:
            both = _counted(before.filter(is_mine), columns, target).join(
                _counted(now.filter(is_mine), columns, target), on=["stratum"], how="full", coalesce=True, suffix="_now"
            )  # fmt: skip
            for row in both.sort("stratum").iter_rows(named=True):
                found += _of_row(row, recipe=recipe, reference_id=reference, bounds=bounds)
    return found


def first_step(before: pl.DataFrame, now: pl.DataFrame, *, move: Move, bound: float) -> str:
    """Name the first step of the flow, from the files on, at which the centers of a move left their former counts.

    before, now: attrition. A step moved when what went on changed by more than ``bound`` (a share) though what entered had
    not; failing that, the step whose share of those who went on changed most.
    """
    changes = list(_changes(before, now, move))
    for name, was, is_now in changes:
        if _relative(was, is_now) > bound:
            return name
    if move.measure == "prevalence":
        return LABEL_VALUES
    ends = [1.0] + [_ratio(was, is_now) for _, was, is_now in changes]
    jumps = [abs(after - earlier) for earlier, after in pairwise(ends)]
    return changes[jumps.index(max(jumps))][0] if changes else "no step of the flow: the two runs have none in common"


def _changes(before: pl.DataFrame, now: pl.DataFrame, move: Move) -> Iterator[tuple[str, int, int]]:
    at = pl.col("center").is_in(list(move.centers))
    order = ["level", "step_number", "stage", "step", "reason"]
    for level in SCREENED[move.measure]:
        mine = at & (pl.col("level") == level) & _chain(level, move)
        sides = [side.filter(mine).group_by(order).agg(pl.col("n_in", "n_out").sum()) for side in (before, now)]
        both = sides[0].join(sides[1], on=["level", "stage", "step", "reason"], suffix="_now").sort("step_number")
        for row in both.head(1).iter_rows(named=True):
            yield f"{row['stage']}: {level.replace('_', ' ')}s that entered", row["n_in"], row["n_in_now"]
        for row in both.iter_rows(named=True):
            yield f"{row['stage']}: {row['step']} ({row['reason']})", row["n_out"], row["n_out_now"]


def _chain(level: str, move: Move) -> pl.Expr:
    if level in {"series", "person"}:
        return (pl.col("recipe") == move.recipe) & (pl.col("reference_id") == move.reference_id)
    return (pl.col("recipe") == "catalog") & pl.col("reference_id").is_in(["catalog", move.reference_id])


def _counted(manifest: pl.DataFrame, columns: tuple[str, ...], target: str) -> pl.DataFrame:
    named = [pl.format("{} {}", pl.lit(c.replace("_", " ")), pl.col(c)) for c in columns]
    stratum = pl.concat_str(named, separator=", ") if named else pl.lit("everyone")
    of = pl.col(f"is_{target}")
    paired = pl.col("is_performance_index") & of.is_not_null()
    return (
        manifest.with_columns(stratum=stratum)
        .group_by("stratum")
        .agg(
            centers=pl.col("center").unique().sort(),
            n=pl.col("patient_key").filter("is_prevalence_index").n_unique(),
            n_paired=pl.col("patient_key").filter(paired).n_unique(),
            n_events=pl.col("patient_key").filter(paired & of).n_unique(),
        )
    )


def _of_row(row: dict[str, object], *, recipe: str, reference_id: str, bounds: Drift) -> Iterator[Move]:
    def held(name: str) -> int:
        value = row[name]
        return value if isinstance(value, int) else 0

    centers = sorted({*_names(row["centers"]), *_names(row["centers_now"])})
    told = (recipe, reference_id, str(row["stratum"]), tuple(centers))
    n, n_now = held("n"), held("n_now")
    if max(n, n_now) >= bounds.minimum_n and _relative(n, n_now) > bounds.count:
        yield Move(*told, "count", float(n), float(n_now))
    paired, paired_now = held("n_paired"), held("n_paired_now")
    if min(paired, paired_now) >= max(bounds.minimum_n, 1):
        share, share_now = 100 * held("n_events") / paired, 100 * held("n_events_now") / paired_now
        if abs(share_now - share) > bounds.prevalence_points:
            yield Move(*told, "prevalence", share, share_now)


def _names(value: object) -> list[str]:
    return [str(name) for name in value] if isinstance(value, list) else []


def _relative(before: int, now: int) -> float:
    if before == now:
        return 0.0
    return abs(now - before) / before if before else float("inf")


def _ratio(before: int, now: int) -> float:
    return now / before if before else 1.0
