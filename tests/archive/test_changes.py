"""A listing against what is known of it."""

from __future__ import annotations

import polars as pl
import pytest

from ospor_batch.archive.changes import compare
from ospor_batch.archive.walk import waits
from ospor_batch.contracts.table import schema_of

LISTING = {
    "archive": pl.String, "path": pl.String, "size_bytes": pl.Int64, "mtime_ns": pl.Int64, "refusal": pl.String,
    "detail": pl.String, "is_folder": pl.Boolean, "folder_key": pl.String,
}  # fmt: skip


def known_at(*paths: str) -> pl.DataFrame:
    rows = [{"archive": "a", "path": path, "size_bytes": 1, "mtime_ns": 1, "fate": "instance"} for path in paths]
    return pl.DataFrame(rows, schema=schema_of("file"))


def test_what_lies_below_a_place_that_cannot_be_looked_into_is_kept_however_many_there_are() -> None:
    places = [(f"f{n}", "permission_denied", True) for n in range(5000)] + [("link", "broken_link", False)]
    rows = [("a", path, 0, 1, refusal, "", is_folder, "k") for path, refusal, is_folder in places]
    known = known_at("f7/deep/er/x", "link/x", "f70000/x", "f7", "x")
    found = compare(pl.DataFrame(rows, schema=LISTING, orient="row"), known, reader_version="1", settled_before_ns=None)
    assert found.kept["path"].to_list() == ["f7/deep/er/x", "link/x"]
    assert found.vanished["path"].to_list() == ["f70000/x", "x"]


@pytest.mark.parametrize("known", [(), ("other",)])
def test_a_time_far_ahead_of_the_clock_does_not_make_a_file_wait_for_years(known: tuple[str, ...]) -> None:
    now, day = 10**18, 86_400 * 10**9
    times = {"old": now - 1, "young": now + 1, "fast clock": now + day, "wrong clock": now + 40 * day, "year 2262": 2**63 - 1}
    rows = [("a", path, 1, mtime, None, "", False, "k") for path, mtime in times.items()]
    listing = pl.DataFrame(rows, schema=LISTING, orient="row")
    found = compare(listing, known_at(*known), reader_version="1", settled_before_ns=now)
    assert set(found.waiting["path"]) == {"young", "fast clock"}
    assert all(waits(mtime, settled_before_ns=now) == (path in {"young", "fast clock"}) for path, mtime in times.items())


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
