"""The match once more under other windows: who is gained, lost or matched otherwise, and the counts of the window table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from ospor_batch.cohort.match import IndexRule, Preference, Reuse, rank_pairs
from ospor_batch.cohort.pairing import PERSON, in_window

PAIR = [*PERSON, "series_key", "label_key"]
WINDOW = ["before_days", "after_days"]


def windows_of(*, declared: tuple[int, int], sensitivity_days: tuple[int, ...]) -> list[tuple[int, int]]:
    """The declared window and the symmetric ones, each once, sorted."""
    return sorted({declared, *((days, days) for days in sensitivity_days)})


def windowed(
    pairs: pl.DataFrame,
    *,
    declared: tuple[int, int],
    sensitivity_days: tuple[int, ...],
    index_series: IndexRule,
    event: str,
    prefer: Preference = "nearest",
    reuse: Reuse = "allow",
) -> pl.DataFrame:
    """The matches under each window with what became of their person against the declared one; rows of the contract windowed.

    pairs: all that label criteria leave, whatever their gap; event: boolean column of the label. Of a person who has no match
    under a window but under the declared one, the declared matches stand there as lost.
    """
    rule = {"index_series": index_series, "prefer": prefer, "reuse": reuse}
    base = _matched(pairs, declared, rule)
    found = []
    for before, after in windows_of(declared=declared, sensitivity_days=sensitivity_days):
        mine = base if (before, after) == declared else _matched(pairs, (before, after), rule)
        rows = _beside(mine, base, event=event).with_columns(
            before_days=pl.lit(before, pl.Int64), after_days=pl.lit(after, pl.Int64)
        )
        found.append(rows.select(*WINDOW, *PAIR, "change", "is_event"))
    return pl.concat(found)


def window_table(rows: pl.DataFrame, *, declared: tuple[int, int], sensitivity_days: tuple[int, ...]) -> pl.DataFrame:
    """Count the persons of windowed rows: paired, with the condition, gained, lost, and matched otherwise.

    n_gained, n_lost: persons paired only here, only under the declared window; n_changed: paired in both, with another series
    or label.
    """
    change, is_paired = pl.col("change"), pl.col("change") != "lost"
    person = pl.struct(PERSON)
    counted = rows.group_by(WINDOW).agg(
        n_persons=person.filter(is_paired).n_unique(),
        n_pairs=is_paired.sum(),
        n_events=person.filter(pl.col("is_event").fill_null(value=False)).n_unique(),
        n_gained=person.filter(change == "gained").n_unique(),
        n_lost=person.filter(change == "lost").n_unique(),
        n_changed=person.filter(change == "changed").n_unique(),
    )
    asked = windows_of(declared=declared, sensitivity_days=sensitivity_days)
    grid = pl.DataFrame(asked, schema=dict.fromkeys(WINDOW, pl.Int64), orient="row")
    is_declared = (pl.col("before_days") == declared[0]) & (pl.col("after_days") == declared[1])
    found = grid.join(counted, on=WINDOW, how="left", maintain_order="left").with_columns(is_declared=is_declared)
    counts = [name for name in counted.columns if name not in WINDOW]
    return found.with_columns(pl.col(counts).fill_null(0).cast(pl.Int64)).select(*WINDOW, "is_declared", *counts)


def _beside(found: pl.DataFrame, base: pl.DataFrame, *, event: str) -> pl.DataFrame:
    """The matches found, and those of the declared window whose person has none here."""
    # a person's status is that of the first of their matches, as only `all` has several
    first = found.sort("image_date", "series_key").unique(subset=PERSON, keep="first", maintain_order=True)
    known = base.select(PERSON).unique().with_columns(is_known=pl.lit(value=True))
    otherwise = [one.join(other, on=PAIR, how="anti").select(PERSON) for one, other in ((found, base), (base, found))]
    moved = pl.concat(otherwise).unique().with_columns(is_moved=pl.lit(value=True))
    rows = found.select(PAIR).join(first.select(*PERSON, is_event=event), on=PERSON, how="left")
    rows = rows.join(known, on=PERSON, how="left").join(moved, on=PERSON, how="left")
    change = pl.when(pl.col("is_known").is_null()).then(pl.lit("gained")).when("is_moved").then(pl.lit("changed"))
    kept = rows.select(*PAIR, "is_event", change=change.otherwise(pl.lit("same")))
    lost = base.select(PAIR).join(found, on=PERSON, how="anti")
    return pl.concat([kept, lost.select(*PAIR, is_event=pl.lit(None, pl.Boolean), change=pl.lit("lost"))])


def _matched(pairs: pl.DataFrame, window: tuple[int, int], rule: Mapping[str, Any]) -> pl.DataFrame:
    inside = pairs.filter(in_window(before_days=window[0], after_days=window[1]))
    return rank_pairs(inside, **rule).filter("is_match")
