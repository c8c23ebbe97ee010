"""A shift of dates for release: one number of days a person, so that every interval within a person is kept exactly.

The shift is drawn from a keyed hash of the person's pseudonym: the same key gives the same shift tonight and next year, in
every table, and without the key it cannot be undone. Weekday and season go with it, on purpose; age at a date stays, since
birth moves too, save where a leap day moves a birthday. Two tables are shifted alike only under one key: never match tables
shifted under two (methods M2). What intervals reveal by themselves (a rare one, say) is still there.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection

import polars as pl

from ospor_batch.errors import ContractError

LARGEST = 365  # days either way: a year, so that neither season nor calendar year can be read off


def shift_days(person: str, *, key: bytes, largest: int = LARGEST) -> int:
    """Days that a person's dates are moved by: from -largest to largest and never 0, each as likely as another."""
    digits = hmac.new(key, f"date_shift|{person}".encode(), hashlib.sha256).hexdigest()
    drawn = int(digits[:16], 16) % (2 * largest)  # bias below 1e-16: 2^64 is far beyond 730
    return drawn - largest if drawn < largest else drawn - largest + 1


def shifted(rows: pl.DataFrame, *, columns: Collection[str], person: str, key: bytes, largest: int = LARGEST) -> pl.DataFrame:
    """Move the named date columns of every row by the shift of its person; a date without a person is a ContractError.

    Null stays null. Times of day are kept in a datetime.
    """
    undated = pl.all_horizontal(pl.col(column).is_null() for column in columns)
    if n := rows.filter(pl.col(person).is_null() & ~undated).height:
        raise ContractError(f"{n} rows have a date and no {person}; such a date cannot be shifted and may not be released")
    people = rows[person].drop_nulls().unique().sort()
    days = pl.Series([shift_days(one, key=key, largest=largest) for one in people], dtype=pl.Int64)
    by = pl.duration(days=pl.col(person).replace_strict(people, days, default=None, return_dtype=pl.Int64))
    return rows.with_columns(pl.col(column) + by for column in columns)
