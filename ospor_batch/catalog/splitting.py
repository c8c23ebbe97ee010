"""Parts of a series that are stacks of their own: several acquisitions, planes or a scout under one Series Instance UID."""

from __future__ import annotations

import hashlib

import polars as pl

from ospor_batch.catalog.grouping import is_localizer
from ospor_batch.catalog.vocabulary import Vocabulary

PLACES = 2  # digits of a position in mm: slices nearer than 0.01 mm share a place (geometry.SAME_PLACE_MM)
TURN = 3  # digits of a cosine: geometry.SAME_DIRECTION
SMALLEST_PART = 3  # a plane or matrix of its own needs a stack of its own; one odd slice is a fault of the series
NONE = "none"
# What the header declares to be another acquisition or another kind of image: a part may be small, since the header says that
# the images do not belong together. In this order the first that leaves no two slices at one place is taken.
DECLARED = ("is_localizer", "acquisition_number", "image_type", "convolution_kernel", "kvp_kv", "acquisition_time")
# What only differs: split when every part is a stack of its own.
FORM = ("turn", "matrix")
STACKS = ("CT", "MR", "PT")


def split_series(kept: pl.DataFrame, *, words: Vocabulary) -> pl.DataFrame:
    """Give images that form stacks of their own a series key of their own; rows in = rows out.

    Adds whole_series_key, the key of the Series Instance UID, and split_by: what told the parts apart, or none. A series is
    split only where as a whole it is no stack: two images at one place, two planes, two matrices, or scouts among slices.
    The key of a part depends on what it is, not on its number, so that a late file does not rename the others.
    """
    rows = kept.with_columns(
        whole_series_key=pl.col("series_key"),
        split_by=pl.lit(NONE),
        is_localizer=is_localizer(kept, words=words),
        turn=pl.concat_str(
            [pl.col(f"{line}_cosine_{axis}").round(TURN).add(0.0) for line in ("row", "column") for axis in "xyz"],
            separator=" ",
        ),
        matrix=pl.concat_str("rows", "columns", separator=" "),
        place=pl.concat_str([pl.col(f"position_{axis}_mm").round(PLACES).add(0.0) for axis in "xyz"], separator=" "),
    )
    added = ["is_localizer", "turn", "matrix", "place"]
    parts = [_split(group) for group in _conflicting(rows).partition_by("series_key", maintain_order=True)]
    if not parts:
        return rows.drop(added)
    done = pl.concat(parts)
    rest = rows.join(done, on="file_key", how="anti", maintain_order="left")
    return pl.concat([rest, done]).sort("file_key").drop(added)


def _conflicting(rows: pl.DataFrame) -> pl.DataFrame:
    """All rows of the series that are no single stack."""
    images = rows.filter("is_pixel_data", pl.col("number_of_frames").fill_null(1) <= 1, pl.col("modality").is_in(STACKS))
    counted = images.group_by("series_key").agg(
        n=pl.len(),
        n_places=pl.col("place").drop_nulls().n_unique() + pl.col("place").null_count(),
        n_forms=pl.struct(FORM).n_unique(),
        is_mixed=pl.col("is_localizer").any() & ~pl.col("is_localizer").all(),
    )
    several = counted.filter((pl.col("n_places") < pl.col("n")) | (pl.col("n_forms") > 1) | pl.col("is_mixed"))
    return rows.filter(pl.col("series_key").is_in(several["series_key"].implode()))


def _split(series: pl.DataFrame) -> pl.DataFrame:
    """One series with the keys of its parts; as it was when nothing tells them apart."""
    images = series.filter("is_pixel_data")
    columns: list[str] = []
    for column in (DECLARED[0], *FORM, *DECLARED[1:]):
        if _is_stack(images, columns):
            break
        if _helps(images, columns, column):
            columns.append(column)
    if not columns:
        return series
    # what has no pixels goes with the first part
    told_by = [pl.format("{}={}", pl.lit(name), pl.col(name).cast(pl.String).fill_null("")) for name in columns]
    label = pl.concat_str(told_by, separator="|")
    labels = images.select("file_key", label=label)
    told = series.join(labels, on="file_key", how="left", maintain_order="left")
    told = told.with_columns(pl.col("label").fill_null(labels["label"].min()))
    keys = {text: _key(told["series_key"][0], text) for text in told["label"].unique()}
    return told.with_columns(
        series_key=pl.col("label").replace_strict(keys, return_dtype=pl.String), split_by=pl.lit("+".join(columns))
    ).drop("label")


def _is_stack(images: pl.DataFrame, columns: list[str]) -> bool:
    return _n_conflicts(images, columns) == 0


def _helps(images: pl.DataFrame, columns: list[str], column: str) -> bool:
    """Whether one column more tells the images apart, and leaves parts that may stand alone."""
    wider = [*columns, column]
    if images[column].n_unique() < 2 or _n_conflicts(images, wider) >= _n_conflicts(images, columns):
        return False
    if column == "is_localizer":
        return True
    if column in FORM:
        slices = images.filter(~pl.col("is_localizer")) if "is_localizer" in columns else images
        return slices.group_by(wider).len().filter(pl.col("len") < SMALLEST_PART).height == 0
    # a scanner that counts every rotation has more acquisitions than images at one place: its numbers tell no stacks apart
    n_parts = images.select(wider).n_unique()
    return _shared_places(images, wider) == 0 and n_parts <= _n_wanted(images, columns)


def _n_wanted(images: pl.DataFrame, columns: list[str]) -> int:
    """Parts that the images need: as many as lie at one place, or as there are forms, with the parts made already."""
    by = columns or ["whole_series_key"]
    at_one_place: list[int] = images.group_by(_once(*by, "turn", "place")).len()["len"].to_list()
    n_forms = images.select(_once(*by, *FORM)).n_unique()
    n_made = images.select(by).n_unique()
    return max(max(at_one_place) * n_made, n_forms)


def _n_conflicts(images: pl.DataFrame, columns: list[str]) -> int:
    """Images that share a place with another of their part, parts of several forms, and scouts among slices."""
    by = columns or ["whole_series_key"]
    parts = images.group_by(by).agg(
        forms=pl.struct(FORM).n_unique() - 1,
        mixed=(pl.col("is_localizer").any() & ~pl.col("is_localizer").all()).cast(pl.UInt32),
    )
    return _shared_places(images, columns) + int(parts["forms"].sum()) + int(parts["mixed"].sum())


def _shared_places(images: pl.DataFrame, columns: list[str]) -> int:
    placed = images.filter(pl.col("place").is_not_null())
    return placed.height - placed.select(_once(*(columns or ["whole_series_key"]), "turn", "place")).n_unique()


def _once(*columns: str) -> list[str]:
    return list(dict.fromkeys(columns))


def _key(series_key: str, label: str) -> str:
    """Key of a part; it is made of a keyed hash already and of what the part is."""
    return hashlib.sha256(f"{series_key}|{label}".encode()).hexdigest()[:32]
