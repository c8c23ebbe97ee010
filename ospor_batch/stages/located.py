"""Which files stand behind the items of a work list."""

from __future__ import annotations

import polars as pl

from ospor_batch.config import Study
from ospor_batch.errors import LedgerError
from ospor_batch.runs import Run
from ospor_batch.store import Store

ITEM = ["center", "series_key"]


def distinct_items(rows: pl.DataFrame) -> pl.DataFrame:
    """One row per item: the same images in two archives are one item, and the first center's files are read."""
    of = rows.select("item_digest", "series_digest", *ITEM)
    return of.sort("item_digest", *ITEM).unique(subset="item_digest", keep="first", maintain_order=True)


def located(items: pl.DataFrame, study: Study, *, store: Store, run: Run) -> pl.DataFrame:
    """The files of every item, with the archive root as a path; folder by folder, as the disk holds them.

    LedgerError when an item has no image in the locator.
    """
    found = store.current("locator", snapshot=run.snapshot, among=items.select(ITEM), is_sorted=False).join(items, on=ITEM)
    n_lost = items.join(found.filter(pl.col("kind") == "image"), on=ITEM, how="anti").height
    if n_lost:
        raise LedgerError(f"{n_lost} series of the manifest have no image in the catalog's locator")
    roots = {archive: study.archive_root(archive) for archive in found["archive"].unique()}
    folder = pl.concat_str("root", pl.col("path").str.replace(r"[^/]*$", ""), separator="/")
    return (
        found.with_columns(root=pl.col("archive").replace_strict(roots, return_dtype=pl.String), cache=pl.lit(str(store.cache)))
        .with_columns(folder=folder.min().over("item_digest"))
        .sort("folder", "item_digest", "kind", "slice_order", "file_key")
        .drop("folder")
    )
