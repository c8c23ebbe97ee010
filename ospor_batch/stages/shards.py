"""Cut what is to be predicted into shards: by what they will cost, in the order in which the disk holds them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import polars as pl

from ospor_batch.inference.items import PLAIN
from ospor_batch.inference.parts import name_of
from ospor_batch.store import write_rows

MEGABYTE = 1_000_000
SHARD_SECONDS = 30.0  # estimated; a shard lasts about a minute at most, so that little is lost with a worker
# Estimates of one core, to cut even shards with and for nothing else (python benchmarks/scale_figures.py decode): a slice or
# radiograph is opened and its header read; a compressed byte is decoded; a plain byte is copied; a network looks at a series
SECONDS_PER_FILE = 1e-3
SECONDS_PER_COMPRESSED_MEGABYTE = 0.15
SECONDS_PER_PLAIN_MEGABYTE = 3e-3
SECONDS_PER_ITEM = 0.25


def costs(files: pl.DataFrame) -> pl.DataFrame:
    """Size and estimated seconds of every item, in the order of its files.

    files: rows of the locator with item_digest; a file without a transfer syntax (a mask) counts as plain.
    """
    megabytes = pl.col("size_bytes") / MEGABYTE
    is_plain = pl.col("transfer_syntax_uid").is_null() | pl.col("transfer_syntax_uid").is_in(PLAIN)
    each = pl.when(is_plain).then(SECONDS_PER_PLAIN_MEGABYTE).otherwise(SECONDS_PER_COMPRESSED_MEGABYTE)
    seconds = (megabytes * each + SECONDS_PER_FILE).sum() + SECONDS_PER_ITEM
    return files.group_by("item_digest", maintain_order=True).agg(pl.col("size_bytes").sum(), seconds.alias("seconds"))


def cut_shards(items: pl.DataFrame, *, megabytes: float, seconds: float = SHARD_SECONDS) -> list[list[str]]:
    """Cut items into shards of at most so many megabytes and seconds, in the order given; a larger item stands alone.

    items: item_digest, size_bytes and seconds, in the order in which the disk holds them.
    """
    shards: list[list[str]] = []
    filled = lasting = 0.0
    for digest, size, takes in items.select("item_digest", "size_bytes", "seconds").iter_rows():
        if not shards or filled + size > megabytes * MEGABYTE or lasting + takes > seconds:
            shards.append([])
            filled = lasting = 0.0
        shards[-1].append(digest)
        filled += size
        lasting += takes
    return shards


def write_shards(shards: Sequence[list[str]], files: pl.DataFrame, *, folder: Path) -> None:
    """Write the private file of every shard; it holds paths, so it stands in a private folder for as long as it is needed."""
    named = pl.DataFrame(
        [(digest, name_of(shard)) for shard in shards for digest in shard],
        schema={"item_digest": pl.String, "shard": pl.String},
        orient="row",
    )
    parts = files.join(named, on="item_digest", maintain_order="left").partition_by("shard", as_dict=True)
    for (name,), rows in parts.items():
        write_rows(rows.drop("shard"), target=folder / f"{name}.parquet")


def halves(shard: list[str]) -> list[list[str]]:
    """Both halves; of a single item the item itself."""
    middle = len(shard) // 2
    return [part for part in (shard[:middle], shard[middle:]) if part]


def without(shards: Iterable[list[str]], items: set[str]) -> list[list[str]]:
    """The shards without some items; none that is empty."""
    left = ([digest for digest in shard if digest not in items] for shard in shards)
    return [shard for shard in left if shard]
