"""Where the bytes of every series lie: its images in slice order, and the masks beside them."""

from __future__ import annotations

import polars as pl

from ospor_batch.catalog.grouping import short_digest
from ospor_batch.catalog.vocabulary import sop_class_is
from ospor_batch.contracts import contract


def image_rows(images: pl.DataFrame) -> pl.DataFrame:
    """Locator rows of images; they carry series_key, slice_order and, from the file table, archive and path."""
    return images.with_columns(kind=pl.lit("image"), content_digest=pl.lit(None, pl.String)).select(contract("locator").columns)


def mask_rows(images: pl.DataFrame, kept: pl.DataFrame, files: pl.DataFrame) -> pl.DataFrame:
    """Locator rows of masks: NIfTI files in a folder of the series' images, and DICOM segmentations of the series.

    A segmentation that names no series belongs to the images of its study in its frame of reference.
    """
    nifti = files.filter((pl.col("reason") == "nifti") & pl.col("content_digest").is_not_null())
    beside = (
        images.select("series_key", "folder_key").unique().join(nifti, on="folder_key").with_columns(kind=pl.lit("mask_nifti"))
    )
    found = pl.concat([_columns(beside), _columns(_segmentations(images, kept, files))])
    return found.unique(["series_key", "file_key"], keep="first").sort("series_key", "file_key")


def mask_summary(masks: pl.DataFrame) -> pl.DataFrame:
    """Per series the kind of its masks and one digest over the sorted digests of their content."""
    joined = masks.group_by("series_key").agg(
        mask_kind=pl.when((pl.col("kind") == "mask_nifti").any()).then(pl.lit("nifti")).otherwise(pl.lit("dicom_seg")),
        told=pl.col("content_digest").sort().str.join("|"),
    )
    return joined.sort("series_key").select("series_key", "mask_kind", mask_digest=short_digest("told"))


def _segmentations(images: pl.DataFrame, kept: pl.DataFrame, files: pl.DataFrame) -> pl.DataFrame:
    uids = [uid for uid in kept["sop_class_uid"].drop_nulls().unique() if sop_class_is(uid, "segmentation")]
    where = files.select("file_key", "archive", "path", "content_digest")
    masks = (
        kept.filter(pl.col("sop_class_uid").is_in(uids)).join(where, on="file_key").with_columns(kind=pl.lit("mask_dicom_seg"))
    )
    is_named = pl.col("referenced_series_uid").fill_null("") != ""
    named = (
        masks.filter(is_named).with_columns(pl.col("referenced_series_uid").str.split("\\")).explode("referenced_series_uid")
    )
    of_series = images.select("series_key", "series_instance_uid").unique()
    by_name = named.drop("series_key").join(of_series, left_on="referenced_series_uid", right_on="series_instance_uid")
    place = ["study_instance_uid", "frame_of_reference_uid"]
    of_place = images.filter(pl.col("frame_of_reference_uid") != "").select("series_key", *place).unique()
    by_place = masks.filter(~is_named).drop("series_key").join(of_place, on=place)
    return pl.concat([_columns(by_name), _columns(by_place)])


def _columns(rows: pl.DataFrame) -> pl.DataFrame:
    filled = rows.with_columns(slice_order=pl.lit(0, pl.Int64), transfer_syntax_uid=pl.lit(None, pl.String))
    return filled.filter(pl.col("content_digest").is_not_null()).select(contract("locator").columns)
