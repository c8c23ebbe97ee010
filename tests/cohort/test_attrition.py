"""Steps that close exactly, the same at every center, in a fixed order."""

from __future__ import annotations

import polars as pl
import pytest

from ospor_batch.cohort.attrition import FILE_STEPS, Level, before_recipes, check_closed, flow
from ospor_batch.contracts.table import whole
from ospor_batch.errors import LedgerError

STEPS = (("first", "one"), ("second", "two"))


def chain(counts, centers=("n", "s")):
    frame = pl.DataFrame(counts, schema={"center": pl.String, "leaves_at": pl.Int64, "n": pl.Int64}, orient="row")
    return flow(frame, Level("series", "match", STEPS), centers=centers, recipe="r", reference_id="d")


def numbers(rows):
    return rows.sort("center", "step_number").select("center", "n_in", "n_excluded", "n_out").rows()


def test_steps_subtract_exactly_and_rows_of_zero_are_kept():
    rows = whole(chain([("n", 1, 4), ("n", 2, 1), ("n", 3, 5)]), "attrition")
    check_closed(rows)
    assert numbers(rows) == [("n", 10, 4, 6), ("n", 6, 1, 5), ("s", 0, 0, 0), ("s", 0, 0, 0)]


@pytest.mark.parametrize("column", ["n_in", "n_excluded", "n_out", "step_number"])
def test_a_chain_that_does_not_close_is_a_ledger_error(column):
    rows = chain([("n", 1, 4), ("n", 3, 5)])
    for row in range(rows.height):
        broken = rows.with_columns(
            pl.when(pl.int_range(pl.len()) == row).then(pl.col(column) + 1).otherwise(column).alias(column)
        )
        with pytest.raises(LedgerError, match="do not close"):
            check_closed(broken)


def test_steps_that_differ_between_centers_are_a_ledger_error():
    rows = chain([("n", 1, 4)])
    with pytest.raises(LedgerError, match="differ between centers"):
        check_closed(rows.filter(~((pl.col("center") == "s") & (pl.col("step_number") == 2))))


def test_reasons_before_the_recipes_stand_in_a_fixed_order_with_unlisted_ones_last():
    counts = pl.DataFrame(
        [("n", None, 7), ("n", "nifti", 2), ("s", "a_new_reason", 1)],
        schema={"center": pl.String, "reason": pl.String, "n": pl.UInt32},
        orient="row",
    )
    rows = whole(before_recipes({"file": counts, "exam:dxa": counts.clear()}, centers=("n", "s")), "attrition")
    check_closed(rows)
    files = rows.filter(pl.col("level") == "file", pl.col("center") == "n").sort("step_number")
    assert files["reason"].to_list() == [*FILE_STEPS, "a_new_reason"]
    assert (files["n_in"][0], files["n_out"][-1]) == (9, 7)
    assert set(rows.filter(pl.col("level") == "exam")["reference_id"]) == {"dxa"}
    assert set(rows["recipe"]) == {"catalog"}
