"""Which label stands for which image (methods M1), and which series stands for a person."""

from __future__ import annotations

import hashlib
import hmac
from typing import Literal

import polars as pl

IndexRule = Literal["nearest", "first", "last", "random", "all"]
Preference = Literal["nearest", "before_first", "after_first"]
GAP = "gap_days"  # of a pair: label date minus image date
PERSON = ("center", "patient_key")
LOT = "lot"
THEIRS = "center_of_label"
# The tie rule of methods M1, in order: what is compared, and what a pair has lost by where it differs from the match.
TIE_RULE = (
    (pl.col(GAP).abs(), "larger_gap"),
    (pl.col(GAP) < 0, "label_before_image"),
    (pl.col("image_date"), "later_image"),
    (pl.col("series_key"), "later_image_key"),
    (pl.col("label_key"), "later_label_key"),
)


def pair(
    series: pl.DataFrame | pl.LazyFrame, labels: pl.DataFrame | pl.LazyFrame, *, keep: pl.Expr | None = None
) -> pl.DataFrame:
    """Pair every series with every label of the same person, whatever the study, with the gap in whole days.

    Columns that both have are those of the series. keep drops pairs before they are held in memory. The join is by person
    alone, and centers are compared after it: one key of text is joined several times faster than two.
    """
    left, right = series.lazy(), labels.lazy()
    theirs = set(left.collect_schema().names()) - set(PERSON)
    center, person = PERSON
    own = right.drop([column for column in right.collect_schema().names() if column in theirs]).rename({center: THEIRS})
    gap = (pl.col("label_date") - pl.col("image_date")).dt.total_days().alias(GAP)
    pairs = left.join(own, on=person, how="inner").filter(pl.col(center) == pl.col(THEIRS)).drop(THEIRS).with_columns(gap)
    return (pairs if keep is None else pairs.filter(keep)).collect(engine="streaming")


def in_window(*, before_days: int, after_days: int) -> pl.Expr:
    """True where the label lies inside the window, both ends inclusive."""
    return pl.col(GAP).is_between(-before_days, after_days, closed="both")


def lots(keys: pl.Series, *, seed: int, key: bytes) -> pl.Series:
    """Draw a lot for every key: the same for the same seed and key, on any machine and in any order."""
    drawn = [hmac.new(key, f"index|{seed}|{one}".encode(), hashlib.sha256).hexdigest()[:16] for one in keys]
    return pl.Series(LOT, drawn, dtype=pl.String)


def tie_rule(prefer: Preference) -> tuple[tuple[pl.Expr, str], ...]:
    """What pairs are compared by, in order; a label of the day of the image lies on the preferred side."""
    is_second = {"nearest": None, "before_first": pl.col(GAP) > 0, "after_first": pl.col(GAP) < 0}[prefer]
    return TIE_RULE if is_second is None else ((is_second, "other_side"), *TIE_RULE)


def rank_pairs(candidates: pl.DataFrame, *, index_series: IndexRule, prefer: Preference = "nearest") -> pl.DataFrame:
    """Rank the candidates of each person; rank 1 is the match, the others say what they lost by.

    first, last and random fix the index series among the series that have a candidate, and only then the label;
    all ranks the labels of every series by themselves. random needs the column ``lot``.
    """
    group = [*PERSON, "series_key"] if index_series == "all" else list(PERSON)
    rows = candidates.with_columns(loses_index=_loses_index(index_series))
    rules = tie_rule(prefer)
    ties = {f"tie_{i}": value for i, (value, _) in enumerate(rules)}
    rows = rows.with_columns(**ties).sort(*group, "loses_index", *ties)
    starts = pl.any_horizontal(pl.col(column).ne_missing(pl.col(column).shift(1)) for column in group)
    at = pl.int_range(pl.len(), dtype=pl.UInt32)
    rows = rows.with_columns(first=pl.when(starts | (at == 0)).then(at).forward_fill())  # where the group's match stands
    lost = pl.coalesce(
        pl.when(pl.col("loses_index")).then(pl.lit("index_series_rule")),
        *[
            pl.when(pl.col(tie) != pl.col(tie).gather(pl.col("first"))).then(pl.lit(reason))
            for tie, (_, reason) in zip(ties, rules, strict=True)
        ],
    )
    rank = (at - pl.col("first") + 1).cast(pl.Int64)
    ranked = rows.with_columns(candidate_rank=rank, is_match=rank == 1, lost_by=lost)
    return ranked.drop("loses_index", "first", *ties).sort("series_key", "label_key")


def prevalence_index(chosen: pl.DataFrame, *, rule: Literal["first", "random"]) -> pl.DataFrame:
    """The label-blind index series of every person: earliest image date, then key; or by lot."""
    order = ["image_date", "series_key"] if rule == "first" else [LOT, "series_key"]
    return chosen.sort(*PERSON, *order).unique(subset=PERSON, keep="first", maintain_order=True).sort("series_key")


def window_table(
    pairs: pl.DataFrame,
    *,
    declared: tuple[int, int],
    sensitivity_days: tuple[int, ...],
    index_series: IndexRule,
    event: str,
    prefer: Preference = "nearest",
) -> pl.DataFrame:
    """Match again under each window: persons paired, events among them, and matches that differ from the declared window.

    pairs: all that label criteria leave, whatever their gap; event: boolean column of the label. n_gained, n_lost:
    persons paired only here, only under the declared window; n_changed: paired in both, with another series or label.
    """
    windows = sorted({declared, *((days, days) for days in sensitivity_days)})
    matched = {window: _matched(pairs, window, index_series, prefer) for window in windows}
    base = matched[declared]
    rows = []
    for window, found in matched.items():
        persons, known = found.select(PERSON).unique(), base.select(PERSON).unique()
        both = found.join(known, on=PERSON, how="semi")
        differing = both.join(base, on=[*PERSON, "series_key", "label_key"], how="anti")
        gone = base.join(persons, on=PERSON, how="semi").join(found, on=[*PERSON, "series_key", "label_key"], how="anti")
        # a person's status is that of the first of their matches, as only `all` has several
        events = found.sort("image_date", "series_key").unique(subset=PERSON, keep="first", maintain_order=True)[event].sum()
        rows.append(
            {
                "before_days": window[0],
                "after_days": window[1],
                "is_declared": window == declared,
                "n_persons": persons.height,
                "n_pairs": found.height,
                "n_events": int(events),
                "n_gained": persons.join(known, on=PERSON, how="anti").height,
                "n_lost": known.join(persons, on=PERSON, how="anti").height,
                "n_changed": pl.concat([differing.select(PERSON), gone.select(PERSON)]).n_unique(),
            }
        )
    return pl.DataFrame(rows)


def _matched(pairs: pl.DataFrame, window: tuple[int, int], index_series: IndexRule, prefer: Preference) -> pl.DataFrame:
    inside = pairs.filter(in_window(before_days=window[0], after_days=window[1]))
    return rank_pairs(inside, index_series=index_series, prefer=prefer).filter("is_match")


def _loses_index(rule: IndexRule) -> pl.Expr:
    """True for pairs of a series that the index rule passes over."""
    if rule in {"nearest", "all"}:
        return pl.lit(value=False)
    by, descending = {"first": ("image_date", False), "last": ("image_date", True), "random": (LOT, False)}[rule]
    ordered = pl.col("series_key").sort_by(by, "series_key", descending=[descending, False])
    return pl.col("series_key") != ordered.first().over(PERSON)
