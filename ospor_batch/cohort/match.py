"""Which of a person's pairs is the match (methods M1), and which series stands for a person."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Literal

import polars as pl

from ospor_batch.cohort.pairing import GAP, PERSON

IndexRule = Literal["nearest", "first", "last", "random", "all"]
Preference = Literal["nearest", "before_first", "after_first"]
Reuse = Literal["allow", "forbid"]
LOT = "lot"
PLACE = pl.col("place")
# The tie rule of methods M1, in order: what is compared, and what a pair has lost by where it differs from the match.
# Pairs stand in the order of series_key, then label_key, so that the number of the series and the place of the row say which
# key is earlier: numbers alone are compared.
TIE_RULE = (
    (pl.col(GAP).abs(), "larger_gap"),
    (pl.col(GAP) < 0, "label_before_image"),
    (pl.col("image_date"), "later_image"),
    (pl.col("series_key").rle_id(), "later_image_key"),
    (PLACE, "later_label_key"),
)


def lots(keys: pl.Series, *, seed: int, key: bytes) -> pl.Series:
    """Draw a lot for every key: the same for the same seed and key, on any machine and in any order."""
    drawn = [hmac.new(key, f"index|{seed}|{one}".encode(), hashlib.sha256).hexdigest()[:16] for one in keys]
    return pl.Series(LOT, drawn, dtype=pl.String)


def tie_rule(prefer: Preference) -> tuple[tuple[pl.Expr, str], ...]:
    """What pairs are compared by, in order; a label of the day of the image lies on the preferred side."""
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
    rules = tie_rule(prefer)
    reasons = {f"tie_{i}": reason for i, (_, reason) in enumerate(rules)}
    rows = candidates.sort("series_key", "label_key").with_row_index("place")
    narrow = rows.select(
        **{tie: value for tie, (value, _) in zip(reasons, rules, strict=True)},
        place=PLACE,
        group=PLACE.min().over(group),
        loses_index=_loses_index(index_series),
        is_taken=pl.lit(value=False),
    )
    if index_series == "all" and reuse == "forbid":
        numbers = rows.select(series=pl.col("series_key").rle_id(), label=PLACE.min().over("label_key"))
        narrow = _with_taken(narrow.hstack(numbers).sort(list(reasons)))
    narrow = narrow.sort("group", "loses_index", "is_taken", *reasons)
    at = pl.int_range(pl.len(), dtype=pl.UInt32)
    starts = pl.when(pl.col("group").ne_missing(pl.col("group").shift(1))).then(at).forward_fill()
    narrow = narrow.with_columns(at=at, first=starts)  # first: where the group's match stands
    n_before = pl.col("at") - pl.col("first") + pl.col("is_taken").gather("first").cast(pl.UInt32)
    ranked = narrow.select(
        "place", candidate_rank=(n_before + 1).cast(pl.Int64), is_match=n_before == 0, lost_by=_lost_by(reasons)
    )
    return rows.drop("place").hstack(ranked.sort("place").drop("place"))


def prevalence_index(chosen: pl.DataFrame, *, rule: Literal["first", "random"]) -> pl.DataFrame:
    """The label-blind index series of every person: earliest image date, then key; or by lot."""
    order = ["image_date", "series_key"] if rule == "first" else [LOT, "series_key"]
    return chosen.sort(*PERSON, *order).unique(subset=PERSON, keep="first", maintain_order=True).sort("series_key")


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


def _lost_by(reasons: Mapping[str, str]) -> pl.Expr:
    """What a pair lost by, from where its group's match stands (column first); null for the match."""
    return pl.coalesce(
        pl.when(pl.col("loses_index")).then(pl.lit("index_series_rule")),
        pl.when(pl.col("is_taken")).then(pl.lit("label_taken")),
        *(pl.when(pl.col(tie) != pl.col(tie).gather("first")).then(pl.lit(reason)) for tie, reason in reasons.items()),
    )


def _loses_index(rule: IndexRule) -> pl.Expr:
    """True for pairs of a series that the index rule passes over."""
    if rule in {"nearest", "all"}:
        return pl.lit(value=False)
    by, descending = {"first": ("image_date", False), "last": ("image_date", True), "random": (LOT, False)}[rule]
    ordered = pl.col("series_key").sort_by(by, "series_key", descending=[descending, False])
    return pl.col("series_key") != ordered.first().over(PERSON)
