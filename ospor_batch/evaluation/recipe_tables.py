"""Rows that compare two recipes on the same people: paired AUC, and McNemar's test at each recipe's locked threshold."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from ospor_batch.evaluation.analysis_set import AnalysisSet, partitions_within, performance_people
from ospor_batch.evaluation.discrimination import compare_auc
from ospor_batch.evaluation.intervals import Estimate, Interval, estimated, not_estimable
from ospor_batch.evaluation.multiplicity import adjusted
from ospor_batch.evaluation.tables import Context, Row, stated
from ospor_batch.evaluation.two_by_two import mcnemar, paired_difference

FAMILIES = ("auc_by_recipe", "sensitivity_by_recipe", "specificity_by_recipe")
Tested = tuple[Estimate, float | None]
"""A difference, first recipe minus second, and its p."""


@dataclass(frozen=True)
class Compared:
    """One recipe with its people."""

    context: Context
    of: AnalysisSet


def recipe_rows(recipes: Sequence[Compared], *, partition: str) -> list[Row]:
    """Every pair of recipes on the persons that both scored, p adjusted by Holm and Benjamini-Hochberg (methods S6).

    Only recipes with one reference can be compared: then the truth of a person is the same. A person whose label differs
    between the two, since their images do, is left out.
    """
    pairs = [(a, b, _shared(a, b, partition)) for a, b in itertools.combinations(recipes, 2)]
    found: list[Row] = []
    for family in FAMILIES:
        tested = [_tested(family, a, b, rows) for a, b, rows in pairs]
        raw = [p for _, p in tested]
        holm, bh = adjusted(raw, method="holm"), adjusted(raw, method="bh")
        for (a, b, rows), (estimate, p), p_holm, p_bh in zip(pairs, tested, holm, bh, strict=True):
            n = 0 if rows is None else rows.height
            found.append(
                {
                    "recipe": a.context.recipe, "reference_id": a.context.reference_id, "partition": partition,
                    "family": family, "first": a.context.recipe, "second": b.context.recipe,
                    "model_digest": a.context.model_digest, "degrees_of_freedom": None, "n_first": n, "n_second": n,
                    "family_size": sum(p is not None for p in raw), "p_value": p, "p_holm": p_holm, "p_bh": p_bh,
                    **stated(estimate),
                }
            )  # fmt: skip
    return found


def _shared(first: Compared, second: Compared, partition: str) -> pl.DataFrame | None:
    """Persons with both scores and one truth; null where the references differ."""
    if first.context.reference_id != second.context.reference_id or first.context.target != second.context.target:
        return None
    inside = pl.col("partition").is_in(partitions_within(partition))
    one, other = (
        performance_people(c.of.paired).filter(inside).select("patient_key", "truth", "score") for c in (first, second)
    )
    joined = one.join(other, on=["patient_key", "truth"], how="inner", suffix="_of_second", maintain_order="left")
    return joined.sort("patient_key")


def _tested(family: str, first: Compared, second: Compared, rows: pl.DataFrame | None) -> Tested:
    if rows is None:
        return not_estimable("references_differ"), None
    truth = rows["truth"].to_numpy().astype(bool)
    n_events, fewest = int(truth.sum()), first.context.minimum_events
    if min(n_events, truth.size - n_events) < fewest:
        return not_estimable("too_few_events" if n_events < fewest else "too_few_non_events"), None
    if family == "auc_by_recipe":
        return _areas(rows)
    return _shares(family, first.context.threshold.score_cut, second.context.threshold.score_cut, rows)


def _areas(rows: pl.DataFrame) -> Tested:
    truth = rows["truth"].to_numpy()
    found = compare_auc(truth, rows["score"].to_numpy(), other_score=rows["score_of_second"].to_numpy())
    if found.difference is None or found.p_value is None:
        return not_estimable(found.reason or "zero_variance"), None
    return estimated(found.difference, found.interval, method="delong_paired"), found.p_value


def _shares(family: str, cut: float | None, other_cut: float | None, rows: pl.DataFrame) -> Tested:
    if cut is None or other_cut is None:
        return not_estimable("no_threshold"), None
    is_events = family == "sensitivity_by_recipe"
    mine = rows.filter(pl.col("truth") == is_events)
    first, second = (
        (mine[name].to_numpy() >= at) == is_events for name, at in (("score", cut), ("score_of_second", other_cut))
    )
    both = int((first & second).sum())
    first_only, second_only = int((first & ~second).sum()), int((~first & second).sum())
    difference, interval = paired_difference(both, first_only, second_only, n=mine.height)
    p_value = mcnemar(first_only, second_only).p_exact
    return estimated(difference, Interval(*interval), method="newcombe_paired; p mcnemar_exact"), p_value


def partitions_compared(recipes: Sequence[Compared]) -> Iterator[str]:
    """Test, and its parts that have people."""
    yield "test"
    for name in partitions_within("test"):
        if any(c.of.paired.filter(pl.col("partition") == name).height for c in recipes):
            yield name
