"""Which of a person's pairs is the match (methods M1), and which series stands for a person."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import polars as pl

from ospor_batch.cohort.pairing import GAP, PERSON

IndexRule = Literal["nearest", "first", "last", "random", "all"]
Preference = Literal["nearest", "before_first", "after_first"]
Reuse = Literal["allow", "forbid"]
LOT = "lot"
PLACE = pl.col("place")
# The tie rule of methods M1, in order: what is compared, and what a pair has lost by where it differs from the match. Where
# all numbers are alike the keys decide, so that text is compared for few.
TIE_RULE = (
    (pl.col(GAP).abs(), "larger_gap"),
    (pl.col(GAP) < 0, "label_before_image"),
    (pl.col("image_date"), "later_image"),
)
KEYS = ("series_key", "label_key")


def lots(keys: pl.Series, *, seed: int, key: bytes) -> pl.Series:
    """Draw a lot for every key: the same for the same seed and key, on any machine and in any order."""
    drawn = [hmac.new(key, f"index|{seed}|{one}".encode(), hashlib.sha256).hexdigest()[:16] for one in keys]
    return pl.Series(LOT, drawn, dtype=pl.String)


def tie_rule(prefer: Preference) -> tuple[tuple[pl.Expr, str], ...]:
    """The numbers that pairs are compared by, in order; a label of the day of the image lies on the preferred side."""
    is_second = {"nearest": None, "before_first": pl.col(GAP) > 0, "after_first": pl.col(GAP) < 0}[prefer]
    return TIE_RULE if is_second is None else ((is_second, "other_side"), *TIE_RULE)


def rank_pairs(
    candidates: pl.DataFrame, *, index_series: IndexRule, prefer: Preference = "nearest", reuse: Reuse = "allow"
) -> pl.DataFrame:
    """Rank the candidates of each person; rank 1 is the match, the others say what they lost by.

    first, last and random fix the index series among the series that have a candidate, and only then the label;
    all ranks the labels of every series by themselves. random needs the column ``lot``. reuse matters under all alone:
    forbid gives a label to the series of its best pair by the tie rule, then the next best pair of what is left, and so
    on; a series whose every label went to another has no match, and its pairs are ranked from 2.
    """
    group = [*PERSON, "series_key"] if index_series == "all" else list(PERSON)
    reasons = {f"tie_{i}": reason for i, (_, reason) in enumerate(tie_rule(prefer))}
    pairs = candidates.lazy().with_row_index("place")
    numbers = pairs.select(
        PLACE,
        group=PLACE.min().over(group),
        loses_index=_loses_index(index_series),
        is_taken=pl.lit(value=False),
        **{tie: value for tie, (value, _) in zip(reasons, tie_rule(prefer), strict=True)},
    ).collect()
    keys = candidates.select(KEYS)
    if index_series == "all" and reuse == "forbid":
        owned = pairs.select(series=PLACE.min().over("series_key"), label=PLACE.min().over("label_key")).collect()
        numbers = _with_taken(_in_order(numbers.hstack(owned), [*reasons], keys=keys))
    numbers = _in_order(numbers, ["group", "loses_index", "is_taken", *reasons], keys=keys)
    at = pl.int_range(pl.len(), dtype=pl.UInt32)
    starts = pl.when(pl.col("group").ne_missing(pl.col("group").shift(1))).then(at).forward_fill()
    numbers = numbers.with_columns(first=starts)  # where the group's match stands
    n_before = at - pl.col("first") + pl.col("is_taken").gather("first").cast(pl.UInt32)
    numbers = numbers.with_columns(candidate_rank=(n_before + 1).cast(pl.Int64))
    return candidates.hstack(_told(numbers, reasons, keys=keys))


def prevalence_index(chosen: pl.DataFrame, *, rule: Literal["first", "random"]) -> pl.DataFrame:
    """The label-blind index series of every person: earliest image date, then key; or by lot."""
    order = ["image_date", "series_key"] if rule == "first" else [LOT, "series_key"]
    return chosen.sort(*PERSON, *order).unique(subset=PERSON, keep="first", maintain_order=True).sort("series_key")


def _in_order(numbers: pl.DataFrame, by: Sequence[str], *, keys: pl.DataFrame) -> pl.DataFrame:
    """Rows sorted by numbers, and those that are alike in all of these by their keys; place is their row among the keys."""
    ordered = numbers.sort(by)
    is_like = pl.all_horizontal(pl.col(one) == pl.col(one).shift(1) for one in by).fill_null(value=False)
    runs = ordered.select(run=(~is_like).cum_sum(), is_tied=is_like | is_like.shift(-1, fill_value=False))
    tied = runs["is_tied"].arg_true()
    if tied.is_empty():
        return ordered
    alike = keys[ordered["place"][tied]].with_columns(run=runs["run"][tied], at=tied).sort("run", *KEYS)
    order = np.arange(ordered.height)
    order[tied.to_numpy()] = alike["at"].to_numpy()
    return ordered[order]


def _with_taken(ordered: pl.DataFrame) -> pl.DataFrame:
    """Mark in is_taken the pairs whose label the greedy rule matches to another series.

    ordered: pairs by the tie rule, with the numbers of series and label. A pair that is the first of both its series and its
    label is one that the greedy rule takes whatever comes before it; what it takes is set aside, and again until nothing
    is left.
    """
    left = ordered.select("series", "label").with_row_index("at")
    owner = [left.clear().select("label", owner="series")]
    while left.height:
        is_first = [pl.col("at") == pl.col("at").min().over(one) for one in ("series", "label")]
        found = left.filter(*is_first)
        owner.append(found.select("label", owner="series"))
        for one in ("series", "label"):
            left = left.join(found, on=one, how="anti")
    held = ordered.drop("is_taken").join(pl.concat(owner), on="label", how="left")
    return held.with_columns(is_taken=(pl.col("owner") != pl.col("series")).fill_null(value=False)).drop("owner")


def _told(numbers: pl.DataFrame, reasons: Mapping[str, str], *, keys: pl.DataFrame) -> pl.DataFrame:
    """Rank of every row of the keys, whether it is the match, and what it lost by to its group's match (row first)."""
    is_match = pl.col("candidate_rank") == 1
    lost, series = numbers.filter(~is_match), keys["series_key"]
    match = numbers[lost["first"]]
    lost_by = pl.coalesce(
        pl.when(pl.col("loses_index")).then(pl.lit("index_series_rule")),
        pl.when(pl.col("is_taken")).then(pl.lit("label_taken")),
        *(pl.when(pl.col(tie) != match[tie]).then(pl.lit(reason)) for tie, reason in reasons.items()),
        pl.when(series[lost["place"]] != series[match["place"]]).then(pl.lit("later_image_key")),
        pl.lit("later_label_key"),
    )
    told = [
        numbers.filter(is_match).select(PLACE, "candidate_rank", is_match=is_match, lost_by=pl.lit(None, pl.String)),
        lost.select(PLACE, "candidate_rank", is_match=is_match, lost_by=lost_by),
    ]
    return pl.concat(told).sort("place").drop("place")


def _loses_index(rule: IndexRule) -> pl.Expr:
    """True for pairs of a series that the index rule passes over."""
    if rule in {"nearest", "all"}:
        return pl.lit(value=False)
    by, descending = {"first": ("image_date", False), "last": ("image_date", True), "random": (LOT, False)}[rule]
    ordered = pl.col("series_key").sort_by(by, "series_key", descending=[descending, False])
    return pl.col("series_key") != ordered.first().over(PERSON)
