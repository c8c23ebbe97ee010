"""What the catalog leaves to people: written values that no word list places, and patient numbers that collide."""

from __future__ import annotations

from typing import Any

import polars as pl

from ospor_batch.config import Study
from ospor_batch.store import Store

PLACE = ["center", "kind", "item_key"]


def list_words(study: Study) -> list[dict[str, Any]]:
    """Rows of the table unlisted; most frequent first."""
    rows = Store(study.workspace).current("unlisted")
    return rows.sort(
        "center", "kind", "n_series", "scanner_vendor", "written", descending=[False, False, True, False, False]
    ).to_dicts()


def list_collisions(study: Study, *, locate: bool) -> list[dict[str, Any]]:
    """Rows of the table collision with a column `where`: the key, or the folders of their images, a row each, if located."""
    store = Store(study.workspace)
    rows = store.current("collision").with_columns(where="item_key").sort(PLACE)
    if locate:
        found = rows.drop("where").join(_folders(store, rows), on=PLACE, how="left")
        rows = found.with_columns(pl.col("where").fill_null(pl.col("item_key"))).sort(*PLACE, "where")
    return rows.to_dicts()


def _folders(store: Store, collisions: pl.DataFrame) -> pl.DataFrame:
    """center, kind, item_key and where: each folder with images of the study or the number."""
    series = store.current("series", columns=["center", "whole_series_key", "study_key", "patient_key"])
    of_study = pl.col("kind") == "two_numbers_in_one_study"
    held = pl.concat(
        [
            collisions.filter(of_study).join(series, left_on=["center", "item_key"], right_on=["center", "study_key"]),
            collisions.filter(~of_study).join(series, left_on=["center", "item_key"], right_on=["center", "patient_key"]),
        ],
        how="diagonal",
    ).select(*PLACE, series_key="whole_series_key")
    among = held.select("series_key").unique()
    files = store.current("instance", columns=["center", "file_key", "series_key"], among=among)
    paths = store.current("file", columns=["center", "file_key", "archive", "path"], among=files.select("file_key"))
    located = held.join(files, on=["center", "series_key"]).join(paths, on=["center", "file_key"])
    folder = pl.col("archive") + "/" + pl.col("path").str.replace(r"/?[^/]*$", "")
    return located.select(*PLACE, where=folder).unique()
