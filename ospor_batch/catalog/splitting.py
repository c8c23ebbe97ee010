"""Parts of a series: several owners under one Series Instance UID, or stacks of their own (acquisitions, planes, a scout)."""

from __future__ import annotations

import hashlib

import polars as pl

from ospor_batch.catalog.acquisition import RADIOGRAPHS, view
from ospor_batch.catalog.grouping import is_localizer
from ospor_batch.catalog.vocabulary import Vocabulary

PLACES = 2  # digits of a position in mm: slices nearer than 0.01 mm share a place (geometry.SAME_PLACE_MM)
TURN = 3  # digits of a cosine: geometry.SAME_DIRECTION
SMALLEST_PART = 3  # a plane or matrix of its own needs a stack of its own; one odd slice is a fault of the series
NONE = "none"
# What the header declares to be another acquisition or another kind of image: a part may be small, since the header says that
# the images do not belong together. In this order the first that leaves no two slices at one place is taken.
DECLARED = (
    "is_localizer", "acquisition_number", "image_type", "convolution_kernel", "kvp_kv", "pixel_spacing_row_mm",
    "slice_thickness_mm", "acquisition_time",
)  # fmt: skip
# What only differs: split when every part is a stack of its own.
FORM = ("turn", "matrix")
STACKS = ("CT", "MR", "PT")
OWNERS = {"study": "study_key", "patient": "patient_key"}
TOLD_VIEW = ["modality", "view_position", "view_code", "patient_orientation", "acquisition_device_processing"]


def split_series(kept: pl.DataFrame, *, words: Vocabulary) -> pl.DataFrame:
    """Give images that form stacks of their own a series key of their own; rows in = rows out.

    Adds whole_series_key, the key of the Series Instance UID, split_by (what told the parts apart, or none), and how many
    studies and patient numbers the whole names. A series is split by its owners, radiographs by their views, and slices where
    as a whole they are no stack: two images at one place, two planes, two matrices, or scouts among them. The key of a part
    depends on what it is, not on its number, so that a late file does not rename the others.
    """
    rows = _by_view(_by_owner(kept), words=words).with_columns(
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


def _by_owner(kept: pl.DataFrame) -> pl.DataFrame:
    """Part series whose UID several studies or patient numbers use: nobody may vanish behind the owner of most images."""
    counts = {f"n_{name}": pl.col(column).drop_nulls().n_unique().over("series_key") for name, column in OWNERS.items()}
    rows = kept.with_columns(whole_series_key=pl.col("series_key"), split_by=pl.lit(NONE), **counts)
    several = {name: pl.when(pl.col(f"n_{name}") > 1) for name in OWNERS}
    by = [of.then(pl.lit(name)) for name, of in several.items()]
    of_owner = {name: pl.format("{}={}", pl.lit(name), pl.col(column).fill_null("")) for name, column in OWNERS.items()}
    label = [of.then(of_owner[name]) for name, of in several.items()]
    told = rows.with_columns(
        by=pl.concat_str(by, separator="+", ignore_nulls=True), label=pl.concat_str(label, separator="|", ignore_nulls=True)
    )
    return _parted(told).rename({"n_study": "n_studies", "n_patient": "n_patients"})


def _by_view(rows: pl.DataFrame, *, words: Vocabulary) -> pl.DataFrame:
    """Part a series of radiographs by their views, so that a lateral one beside it does not hide the frontal one."""
    is_film = pl.col("is_pixel_data") & pl.col("modality").is_in(RADIOGRAPHS)
    told = rows.filter(is_film & (is_film.sum().over("series_key") > 1)).select(TOLD_VIEW).unique()
    seen = [
        view(modality, tag=tag, code=code, orientation=orientation, descriptions=(processing,), words=words)
        for modality, tag, code, orientation, processing in told.iter_rows()
    ]
    names = told.with_columns(seen=pl.Series([f"view={one.view} {one.projection}" for one in seen], dtype=pl.String))
    joined = rows.join(names, on=TOLD_VIEW, how="left", nulls_equal=True, maintain_order="left")
    film = pl.when(is_film).then("seen")
    is_split = film.drop_nulls().n_unique().over("series_key") > 1
    label = pl.when(is_split).then(pl.coalesce(film, film.min().over("series_key"))).otherwise(pl.lit(""))
    return _parted(joined.with_columns(label=label, by=pl.lit("view"))).drop("seen")


def _parted(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows with a series key of their own where they have a label; what it tells apart is added to split_by."""
    parts = rows.filter(pl.col("label") != "").select("series_key", "label").unique()
    if parts.is_empty():
        return rows.drop("label", "by")
    keys = [_key(*part) for part in parts.iter_rows()]
    named = parts.with_columns(part_key=pl.Series(keys, dtype=pl.String))
    joined = rows.join(named, on=["series_key", "label"], how="left", maintain_order="left")
    before = pl.when(pl.col("split_by") != NONE).then("split_by")
    split_by = pl.when(pl.col("part_key").is_not_null()).then(pl.concat_str([before, "by"], separator="+", ignore_nulls=True))
    return joined.with_columns(
        series_key=pl.coalesce("part_key", "series_key"), split_by=pl.coalesce(split_by, "split_by")
    ).drop("part_key", "label", "by")


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
    split_by = "+".join([name for name in (told["split_by"][0],) if name != NONE] + columns)
    return told.with_columns(
        series_key=pl.col("label").replace_strict(keys, return_dtype=pl.String), split_by=pl.lit(split_by)
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
