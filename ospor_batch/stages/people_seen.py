"""The people of one cell of a table, as evaluate saw them: partition, acquisition, and whatever parts the table's rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl

from ospor_batch.errors import LedgerError, StudyError
from ospor_batch.evaluation.analysis_set import AnalysisSet, People, images_of, people_groups, performance_people
from ospor_batch.evaluation.recalibration import FITTING_PARTITION
from ospor_batch.evaluation.strata import EVERYONE, stratum_columns

Row = dict[str, Any]


@dataclass(frozen=True)
class Seen:
    """The people of one cell; images: every image that may stand for a person; cut: the locked threshold, or null."""

    of: AnalysisSet
    eligible: pl.DataFrame
    paired: pl.DataFrame
    images: pl.DataFrame
    cut: float | None

    @property
    def tested(self) -> pl.DataFrame:
        return performance_people(self.paired)

    @property
    def scored(self) -> pl.DataFrame:
        return self.eligible.filter(pl.col("score").is_not_null())

    @property
    def labelled(self) -> pl.DataFrame:
        return self.paired.filter(pl.col("truth").is_not_null())

    @property
    def called(self) -> pl.Expr:
        """Called positive; without a threshold nobody is, and the tables say 0."""
        return pl.lit(value=False) if self.cut is None else pl.col("score") >= self.cut


def seen(of: AnalysisSet, row: Row, *, cut: float | None) -> Seen:
    """The people that a row is about."""
    group = _group(of, row)
    named = [c for c in stratum_columns() if row.get(c) not in {None, EVERYONE}]
    if row.get("grouping") not in {None, "overall"} and "group" in row:
        named, row = [row["grouping"]], {row["grouping"]: row["group"]}
    fits = pl.all_horizontal(pl.lit(value=True), *(pl.col(c).cast(pl.String) == row[c] for c in named))
    eligible, paired, images = (rows.filter(fits) for rows in (group.eligible, group.paired, images_of(of, group)))
    return Seen(of, eligible, paired, images, cut=cut)


def one_kind(kinds: dict[str, pl.Expr], column: str) -> pl.Expr:
    """The condition behind a count; StudyError where the column counts nobody."""
    if column not in kinds:
        raise StudyError(f"{column!r} counts no people; the counts of its row are {', '.join(kinds)}")
    return kinds[column]


def _group(of: AnalysisSet, row: Row) -> People:
    partition, acquisition = row.get("partition", FITTING_PARTITION), row.get("is_same_acquisition", EVERYONE)
    for group in people_groups(of):
        if (group.partition, group.acquisition) == (partition, acquisition):
            return group
    if partition is None:  # a threshold that was given rests on nobody
        return People("none", EVERYONE, of.eligible.clear(), of.paired.clear())
    raise LedgerError(f"trace: the run has no people of partition {partition}")
