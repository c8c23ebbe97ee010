"""Hold rows against a contract: dtypes, keys, ranges, enumerations, patterns and SQL rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl

from ospor_batch.contracts.registry import Contract, contract
from ospor_batch.errors import ContractError

DTYPES: dict[str, pl.DataType] = {
    "string": pl.String(),
    "integer": pl.Int64(),
    "number": pl.Float64(),
    "boolean": pl.Boolean(),
    "date": pl.Date(),
    "datetime": pl.Datetime("us", "UTC"),
}
BROKEN = "broken_rules"


@dataclass(frozen=True)
class Parted:
    """Rows that keep the contract, and those that break it with column ``broken_rules``."""

    kept: pl.DataFrame
    refused: pl.DataFrame


def schema_of(name: str) -> pl.Schema:
    """The Polars schema of a contract, in its order."""
    return pl.Schema({field.name: DTYPES[field.type] for field in contract(name).fields})


def empty(name: str) -> pl.DataFrame:
    """A table without rows."""
    return pl.DataFrame(schema=schema_of(name))


def checks(of: Contract) -> dict[str, pl.Expr]:
    """Every constraint and rule as an expression; as in SQL CHECK, unknown passes."""
    found: dict[str, pl.Expr] = {}
    for field in of.fields:
        if field.type == "number":
            found[f"{field.name}.finite"] = pl.col(field.name).is_finite()
        for kind, bound in field.constraints:
            found[f"{field.name}.{kind}"] = _check(pl.col(field.name), kind, bound)
    for name, sql in of.rules:
        found[name] = pl.sql_expr(sql)
    return found


def conform(rows: pl.DataFrame, name: str) -> pl.DataFrame:
    """Put columns in the contract's order; ContractError on a missing, extra or mistyped column.

    A column that holds only nulls may have any type.
    """
    wanted = schema_of(name)
    if rows.schema == wanted:
        return rows
    if missing := [column for column in wanted if column not in rows.columns]:
        raise ContractError(f"{name}: columns missing: {', '.join(missing)}")
    if extra := [column for column in rows.columns if column not in wanted]:
        raise ContractError(f"{name}: columns that schemas/{name}.yaml does not declare: {', '.join(extra)}")
    given = rows.schema  # made anew at every look
    for column, dtype in wanted.items():
        if given[column] != dtype and not _may_become(rows[column], dtype):
            raise ContractError(f"{name}.{column}: type {given[column]}, the contract says {dtype}")
    return rows.select(pl.col(column).cast(dtype) for column, dtype in wanted.items())


def part(rows: pl.DataFrame, name: str) -> Parted:
    """Part the rows that keep the contract from those that break it; kept + refused = rows.

    Rows that share a primary key are a ContractError: duplicates are resolved by a stated rule before.
    """
    judged = conform(rows, name)
    of = contract(name)
    if _is_sound(judged, of):
        refuse_shared_keys(judged, name)
        return Parted(judged, judged.clear().with_columns(pl.lit("").alias(BROKEN)))
    broken = pl.concat_str(
        [pl.when(~ok.fill_null(value=True)).then(pl.lit(rule)) for rule, ok in checks(of).items()],
        separator=";",
        ignore_nulls=True,
    )
    judged = judged.with_columns(broken.alias(BROKEN))
    whole = pl.col(BROKEN) == ""
    parted = Parted(judged.filter(whole).drop(BROKEN), judged.filter(~whole))
    refuse_shared_keys(parted.kept, name)
    return parted


def whole(rows: pl.DataFrame, name: str) -> pl.DataFrame:
    """Rows that must all keep the contract; ContractError names the rules broken and how often."""
    parted = part(rows, name)
    if parted.refused.height:
        counted = parted.refused[BROKEN].value_counts(sort=True).head(5)
        said = ", ".join(f"{rules} ({n} rows)" for rules, n in counted.iter_rows())
        raise ContractError(f"{name}: {parted.refused.height} of {rows.height} rows break the contract: {said}")
    return parted.kept


def refuse_shared_keys(rows: pl.DataFrame, name: str) -> None:
    """ContractError when two rows have the same primary key."""
    key = list(contract(name).primary_key)
    if key and (shared := rows.height - rows.select(key).n_unique()):
        raise ContractError(f"{name}: {shared} rows repeat a primary key ({', '.join(key)})")


def _is_sound(rows: pl.DataFrame, of: Contract) -> bool:
    """Whether all rows keep all rules; that is the rule, and told in half the time of which row breaks which."""
    return rows.height == 0 or all(rows.select(ok.all().alias(rule) for rule, ok in checks(of).items()).row(0))


def _check(value: pl.Expr, kind: str, bound: Any) -> pl.Expr:
    if kind == "required":
        return value.is_not_null() if bound else pl.lit(value=True)
    if kind == "minimum":
        return value.ge(bound)
    if kind == "maximum":
        return value.le(bound)
    if kind == "enum":
        return value.is_in(list(bound))
    if kind == "pattern":
        return value.str.contains(bound)
    return value.is_unique()


def _may_become(values: pl.Series, dtype: pl.DataType) -> bool:
    if values.null_count() == len(values):
        return True
    if dtype == pl.Int64() and values.dtype.is_integer():
        return True
    if dtype == pl.Float64() and values.dtype.is_numeric():
        return True
    return isinstance(dtype, pl.Datetime) and isinstance(values.dtype, pl.Datetime) and values.dtype.time_zone == "UTC"
