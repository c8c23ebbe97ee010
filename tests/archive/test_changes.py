"""A listing against what is known of it."""

from __future__ import annotations

import polars as pl
import pytest

from ospor_batch.archive.changes import compare
from ospor_batch.contracts.table import schema_of

LISTING = {
    "archive": pl.String, "path": pl.String, "size_bytes": pl.Int64, "mtime_ns": pl.Int64, "refusal": pl.String,
    "detail": pl.String, "is_folder": pl.Boolean, "folder_key": pl.String,
}  # fmt: skip


@pytest.mark.parametrize("settled_before_ns", [None, 5])
def test_where_nothing_is_known_the_verdicts_are_those_of_a_center_that_knows_other_files(
    settled_before_ns: int | None,
) -> None:
    refusals = [None, "special_file", None, None]
    listing = pl.DataFrame(
        [("a", f"f/{n}", 1, mtime, refusals[n], "", False, "k") for n, mtime in ((3, 9), (1, 1), (2, 5), (0, 2))],
        schema=LISTING,
        orient="row",
    )
    nothing = pl.DataFrame(schema=schema_of("file"))
    other = pl.DataFrame(
        [{"archive": "a", "path": "gone", "size_bytes": 1, "mtime_ns": 1, "fate": "waiting"}], schema=nothing.schema
    )
    fast, slow = (
        compare(listing, known, reader_version="1", settled_before_ns=settled_before_ns) for known in (nothing, other)
    )
    for name in ("read", "refused", "waiting"):
        assert getattr(fast, name).equals(getattr(slow, name))
    assert fast.read["path"].to_list() == (["f/0", "f/2", "f/3"] if settled_before_ns is None else ["f/0", "f/2"])
    assert fast.vanished.height == fast.unchanged.height == 0
