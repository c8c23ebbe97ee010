"""Shards are cut by what they cost, and keep the order of the disk."""

from __future__ import annotations

import polars as pl
import pytest

from ospor_batch.stages import shards
from ospor_batch.stages.shards import costs, cut_shards, halves, without

PLAIN, JPEG_2000 = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.90"


def items(megabytes: list[float], seconds: list[float]) -> pl.DataFrame:
    names = [chr(ord("a") + place) for place in range(len(megabytes))]
    return pl.DataFrame(
        {"item_digest": names, "size_bytes": [int(m * 1e6) for m in megabytes], "seconds": seconds},
        schema={"item_digest": pl.String, "size_bytes": pl.Int64, "seconds": pl.Float64},
    )


def test_shards_are_cut_by_size_and_keep_their_order() -> None:
    of = items([4, 4, 4, 30, 1, 1], [1.0] * 6)
    assert cut_shards(of, megabytes=10) == [["a", "b"], ["c"], ["d"], ["e", "f"]]
    assert cut_shards(of, megabytes=0) == [[letter] for letter in "abcdef"]
    assert cut_shards(of.clear(), megabytes=10) == []


def test_shards_are_cut_by_seconds_too() -> None:
    assert cut_shards(items([1] * 4, [9, 9, 9, 40]), megabytes=1000, seconds=20) == [["a", "b"], ["c"], ["d"]]


def test_a_compressed_byte_costs_more_than_a_plain_one_and_a_mask_counts_as_plain() -> None:
    files = pl.DataFrame(
        {
            "item_digest": ["plain", "packed", "plain"],
            "size_bytes": [10_000_000, 10_000_000, 1],
            "transfer_syntax_uid": [PLAIN, JPEG_2000, None],
        }
    )
    found = costs(files)
    assert found["item_digest"].to_list() == ["plain", "packed"]
    assert found["size_bytes"].to_list() == [10_000_001, 10_000_000]
    plain, packed = found["seconds"]
    assert packed > 2 * plain
    assert plain == pytest.approx(10 * shards.SECONDS_PER_PLAIN_MEGABYTE + 2e-3 + 0.25, abs=1e-6)


def test_halves_and_what_is_left() -> None:
    assert halves(["a", "b", "c"]) == [["a"], ["b", "c"]]
    assert halves(["a"]) == [["a"]]
    assert without([["a", "b"], ["c"]], {"b", "c"}) == [["a"]]
