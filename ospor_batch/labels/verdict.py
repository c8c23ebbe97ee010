"""Verdicts on rows: the first rule that a row breaks is its one reason; remarks add up."""

from __future__ import annotations

import polars as pl

from ospor_batch.contracts.table import schema_of

REASON, DETAIL, FLAGS, MEMBERS = "reason", "detail", "flags", "members"


def unjudged(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows with empty columns for reason, detail and remarks."""
    nothing = pl.lit(None, dtype=pl.String)
    return rows.with_columns(nothing.alias(REASON), nothing.alias(DETAIL), pl.lit("").alias(FLAGS))


def refuse(rows: pl.DataFrame, when: pl.Expr, *, reason: str, detail: pl.Expr) -> pl.DataFrame:
    """Give rows for which ``when`` holds a reason, unless an earlier rule gave them one; unknown passes."""
    is_first = pl.col(REASON).is_null() & when.fill_null(value=False)
    return rows.with_columns(
        pl.when(is_first).then(pl.lit(reason)).otherwise(pl.col(REASON)).alias(REASON),
        pl.when(is_first).then(detail).otherwise(pl.col(DETAIL)).alias(DETAIL),
    )


def flag(rows: pl.DataFrame, when: pl.Expr, *, remark: str) -> pl.DataFrame:
    """Add a remark to the rows for which ``when`` holds."""
    added = pl.when(pl.col(FLAGS) == "").then(pl.lit(remark)).otherwise(pl.col(FLAGS) + ";" + remark)
    return rows.with_columns(pl.when(when.fill_null(value=False)).then(added).otherwise(pl.col(FLAGS)).alias(FLAGS))


def say(*parts: str | pl.Expr) -> pl.Expr:
    """Text put together from words and columns; null columns are written as nothing."""
    return pl.concat_str([pl.lit(p) if isinstance(p, str) else p.cast(pl.String).fill_null("") for p in parts])


def shown(value: pl.Expr) -> pl.Expr:
    """A number for a message: four significant digits, so that a number in the wrong column identifies nobody."""
    return value.round_sig_figs(4)


def row_rejects(refused: pl.DataFrame, *, center: str) -> pl.DataFrame:
    """Reject rows from export rows with scope, row_number, reason and detail."""
    rows = refused.select(
        pl.lit(center).alias("center"),
        pl.lit("label").alias("stage"),
        pl.lit("export_row").alias("level"),
        pl.concat_str(["scope", "row_number"], separator=":").alias("item_key"),
        pl.col("scope"),
        pl.col(REASON),
        pl.col(DETAIL),
        pl.lit(value=False).alias("is_transient"),
    )
    return rows.select(pl.col(name).cast(dtype) for name, dtype in schema_of("reject").items())
