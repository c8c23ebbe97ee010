"""The people behind tables that cut, class, pool or compare: the rules by which evaluate counted, over keys."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl

from ospor_batch.errors import StudyError
from ospor_batch.evaluation.analysis_set import SITE_TUNING, AnalysisSet, performance_people
from ospor_batch.evaluation.comparison_tables import FAMILIES
from ospor_batch.evaluation.discrimination_tables import COMPLETE
from ospor_batch.evaluation.recipe_tables import FAMILIES as RECIPE_FAMILIES
from ospor_batch.evaluation.risk_calibration import N_BINS
from ospor_batch.evaluation.risk_tables import risks_of
from ospor_batch.evaluation.three_class import CLASSES
from ospor_batch.evaluation.value_tables import comparison, in_common_unit, with_both_values
from ospor_batch.stages.people_seen import Row, Seen, one_kind, seen

OfRecipe = Callable[[str], AnalysisSet]


def of_curve(of: Seen, row: Row, column: str) -> pl.DataFrame:
    """One tenth of the tested by risk."""
    people = of.tested
    risk = dict(risks_of(of.of).ways)[row["calibration_id"]](people["score"].to_numpy())
    tenth = people[np.array_split(np.argsort(risk, kind="stable"), N_BINS)[row["bin"]]]
    return tenth.filter(one_kind({"n_persons": pl.lit(value=True), "n_events": pl.col("truth")}, column))


def of_classes(of: Seen, row: Row, column: str) -> pl.DataFrame:
    """People of one class of the reference who were called one class by the two locked cut-offs."""
    usable = of.paired.filter(pl.col("score").is_not_null() & pl.col("category").is_in(CLASSES))
    if column == "n_persons":
        return usable
    low, high = (_cut(said) for said in row["threshold_ids"].split("; "))
    called = (pl.col("score") >= low).cast(pl.Int64) + (pl.col("score") >= high).cast(pl.Int64)
    kinds = {
        f"n_{truth}_as_{name}": (pl.col("category") == truth) & (called == at)
        for truth in CLASSES
        for at, name in enumerate(CLASSES)
    }
    return usable.filter(one_kind(kinds, column))


def of_discrimination(of: Seen, row: Row, column: str) -> pl.DataFrame:
    """Labelled people, or images, with a score; under the bounds for missing scores those without one too."""
    is_missing = pl.col("score").is_null()
    if row["unit"] == "image":
        rows, missing = performance_people(of.images), of.labelled.clear()
    else:
        rows = of.tested if row["analysis"] == COMPLETE else of.labelled
        missing = of.labelled.filter(is_missing)
    everyone = pl.lit(value=True)
    kinds = {"n_persons": everyone, "n_images": everyone, "n_events": pl.col("truth"), "n_missing": everyone}
    chosen = one_kind(kinds, column)
    return missing if column == "n_missing" else rows.filter(chosen)


def of_pool(of: Seen, row: Row, column: str) -> pl.DataFrame:
    """People of the groups that entered a pooled estimate."""
    one_kind({"n_persons": pl.lit(value=True)}, column)
    people = {
        "auc": of.tested, "sensitivity": of.tested.filter("truth"), "specificity": of.tested.filter(~pl.col("truth")),
        "prev_label": of.labelled, "prev_test_positive": of.scored,
    }[row["metric"]]  # fmt: skip
    left_out = [said.split(": ")[0] for said in row["groups_left_out"].split("; ")]
    group = pl.col(row["grouping"])
    return people.filter(group.is_not_null() & ~group.is_in(left_out))


def of_comparison(of: Seen, row: Row, column: str, *, others: OfRecipe) -> pl.DataFrame:
    """People of one of two groups; of two recipes those whom both scored under one truth; of an interaction those of groups
    that could enter."""
    one_kind({"n_first": pl.lit(value=True), "n_second": pl.lit(value=True)}, column)
    if row["status_reason"] == "references_differ":
        return of.tested.clear()
    if row["family"] in RECIPE_FAMILIES:
        other = seen(others(row["second"]), row | {"center": None}, cut=None).tested
        return of.tested.join(other.select("patient_key", "truth"), on=["patient_key", "truth"], how="semi")
    if row["family"] == "interaction":
        return of.tested if column == "n_first" else _entered(of.tested, row["second"], n=row["n_second"])
    return of.tested.filter(pl.col(FAMILIES[row["family"]]) == row["first" if column == "n_first" else "second"])


def at_site(of: AnalysisSet, row: Row, column: str) -> pl.DataFrame:
    """External people of a center on whom a model and its recalibration are told, or the site's tuning people."""
    rows = performance_people(of.paired).filter(pl.col("center") == row["center"])
    if row["unit"] != "probability":
        rows = in_common_unit(with_both_values(rows), comparison(of))
    everyone, is_tuning = pl.lit(value=True), column.startswith("n_tuning_")
    kinds = {f"n_{of_whom}persons": everyone for of_whom in ("", "tuning_")}
    kinds |= {f"n_{of_whom}events": pl.col("truth") for of_whom in ("", "tuning_")}
    partition = SITE_TUNING if is_tuning else row["partition"]
    return rows.filter(one_kind(kinds, column), pl.col("partition") == partition)


def _entered(people: pl.DataFrame, group: str, *, n: int) -> pl.DataFrame:
    """People of the groups with the most people in their rarer class, as many groups as make up n; empty where none do."""
    groups = people.drop_nulls(group).group_by(group).agg(
        size=pl.len(), fewest=pl.min_horizontal(pl.col("truth").sum(), (~pl.col("truth")).sum())
    )  # fmt: skip
    for least in sorted(set(groups["fewest"])):
        kept = groups.filter(pl.col("fewest") >= least)
        if kept["size"].sum() == n:
            return people.filter(pl.col(group).is_in(kept[group].implode()))
    return people.clear()


def _cut(said: str) -> float:
    """The cut-off in the name of a locked threshold, such as ``youden@tuning n=63 -> -112.4 HU``."""
    written = said.rpartition(" -> ")[2].split(" ")[0]
    try:
        return float(written)
    except ValueError:
        raise StudyError(f"the row has no cut-offs ({said}), so that nobody was called any class; name n_persons") from None
