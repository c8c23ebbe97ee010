"""Group instances: duplicates resolved by a stated rule, then one summary of the headers a series."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import date

import polars as pl

from ospor_batch.catalog.vocabulary import Vocabulary
from ospor_batch.contracts import contract

LISTED = ("kvp_kv", "contrast_bolus_agent", "contrast_bolus_route", "contrast_bolus_volume_ml")
MEDIANS = ("xray_tube_current_ma", "ctdivol_mgy", "slice_thickness_mm")
PARTS = ("whole_series_key", "split_by", "n_studies", "n_patients")  # columns that splitting adds to instances
EARLIEST = ("acquisition_date", "series_date", "study_date")
FIRST_CT = date(
    1971, 10, 1
)  # of a patient, at Atkinson Morley's Hospital: an earlier date of an image stands for an unknown one
UNKNOWN_DAY = date(1900, 1, 1)  # declared judgement: what many systems write where a date of birth is not known
SEXES = {"F": "female", "FEMALE": "female", "M": "male", "MALE": "male", "O": "other", "OTHER": "other"}


@dataclass(frozen=True)
class Duplicates:
    """Instances kept, and those refused with reason, detail and the series of the kept one; kept + refused = all."""

    kept: pl.DataFrame
    refused: pl.DataFrame


SAME = ("size_bytes", "header_digest", "series_key")  # what files of one object have in common before their bytes are asked


def suspects(instances: pl.DataFrame) -> pl.DataFrame:
    """The files that only their bytes can tell apart from another: file_key, sorted."""
    return instances.filter(pl.len().over("sop_instance_uid", *SAME) > 1).select("file_key").sort("file_key")


def resolve_duplicates(instances: pl.DataFrame, *, contents: pl.DataFrame | None = None) -> Duplicates:
    """Of the files with one SOP Instance UID keep the first by size, header, bytes and file key, whatever key pseudonyms have.

    contents: file_key and content, one text for the same bytes, for every suspect; without it headers and sizes decide.
    """
    told = pl.DataFrame(schema={"file_key": pl.String, "content": pl.String}) if contents is None else contents
    known = instances.join(told, on="file_key", how="left").with_columns(pl.col("content").fill_null(""))
    ordered = known.sort("sop_instance_uid", "size_bytes", "header_digest", "content", "file_key")
    first = ordered.unique("sop_instance_uid", keep="first", maintain_order=True)
    same = [*SAME, "content"]
    of_first = first.select("sop_instance_uid", pl.col(same).name.prefix("first_"))
    rest = ordered.join(first, on="file_key", how="anti", maintain_order="left").join(
        of_first, on="sop_instance_uid", how="left", maintain_order="left"
    )
    is_same = pl.all_horizontal(pl.col(column) == pl.col(f"first_{column}") for column in same)
    differing = pl.concat_str(
        [pl.when(pl.col(c) != pl.col(f"first_{c}")).then(pl.lit(c)) for c in same], separator=", ", ignore_nulls=True
    )
    refused = rest.with_columns(
        reason=pl.when(is_same).then(pl.lit("duplicate_same_content")).otherwise(pl.lit("duplicate_different_content")),
        detail=pl.when(is_same)
        .then(pl.lit("another file holds the same object"))
        .otherwise(pl.format("another file holds the same SOP instance; these differ: {}", differing)),
    )
    return Duplicates(first.drop("content").sort("file_key"), refused.drop("content").sort("file_key"))


def summarise(kept: pl.DataFrame, *, words: Vocabulary) -> pl.DataFrame:
    """One row a series: of every header value the one that most instances have, and counts of what differs."""
    is_pixels = pl.col("is_pixel_data")
    is_judged = is_pixels | ~is_pixels.any()  # a report filed among images has no technique of its own
    special = {*LISTED, *MEDIANS, *EARLIEST, "series_key", "header_flags", "center"}
    plain = [name for name in [*contract("instance").columns, *PARTS] if name not in special]
    ordered = kept.sort("file_key")
    counted = ordered.with_columns(
        frames=pl.max_horizontal(pl.col("number_of_frames").fill_null(1), 1),
        is_localizer=is_localizer(ordered, words=words),
        patient_birth_date=pl.col("patient_birth_date").replace(UNKNOWN_DAY, None),
        is_birth_unknown=pl.col("patient_birth_date") == UNKNOWN_DAY,
        told=pl.concat_str("sop_instance_uid", pl.col("size_bytes").cast(pl.String), "header_digest", separator="|"),
    )
    summed = counted.group_by("series_key").agg(
        *(_most(pl.col(name)) for name in plain),
        *(pl.col(name).filter(pl.col(name) != UNKNOWN_DAY).min() for name in EARLIEST),
        *(pl.col(name).median() for name in MEDIANS),
        *(pl.col(name).filter(is_judged).unique().sort(nulls_last=True).alias(name) for name in LISTED),
        pl.col("header_flags").unique().sort().str.join(";"),
        **_counts(is_pixels),
        told=pl.col("told").sort().str.join("\n"),
    )
    # sorted (SOP instance UID, size, header digest): no path, so that a series may move
    return summed.sort("series_key").with_columns(series_digest=short_digest("told"))


def _counts(is_pixels: pl.Expr) -> dict[str, pl.Expr]:
    """Counts and extremes of one series; those of pixels over the instances that have them."""
    return {
        "n_instances": pl.len(),
        "n_pixels": is_pixels.sum(),
        "n_slices": pl.col("frames").filter(is_pixels).sum(),
        "n_sop_classes": pl.col("sop_class_uid").n_unique(),
        "n_matrices": pl.struct("rows", "columns").filter(is_pixels).n_unique(),
        "n_birth_dates": pl.col("patient_birth_date").drop_nulls().n_unique(),
        "n_sexes": _sex(pl.col("patient_sex")).drop_nulls().n_unique(),
        "has_unknown_date": pl.any_horizontal(pl.col(name) == UNKNOWN_DAY for name in EARLIEST).any(),
        "has_unknown_birth": pl.col("is_birth_unknown").any(),
        "n_acquisitions": pl.col("acquisition_number").filter(is_pixels).n_unique(),
        "n_folders": pl.col("folder_key").n_unique(),
        "n_rescales": pl.struct("rescale_slope", "rescale_intercept_hu").filter(is_pixels).n_unique(),
        "n_representations": pl.col("pixel_representation").filter(is_pixels).drop_nulls().n_unique(),
        "least_slope": pl.col("rescale_slope").filter(is_pixels).min(),
        "least_padding": pl.col("pixel_padding_value").filter(is_pixels).min(),
        "greatest_padding": pl.col("pixel_padding_value").filter(is_pixels).max(),
        "n_without_spacing": (
            is_pixels & ~(_is_positive("pixel_spacing_row_mm") & _is_positive("pixel_spacing_column_mm"))
        ).sum(),
        "n_without_rescale": (is_pixels & (pl.col("rescale_intercept_hu").is_null() | ~_is_nonzero("rescale_slope"))).sum(),
        "n_localizers": pl.col("is_localizer").sum(),
        "spacing_row_spread": pl.col("pixel_spacing_row_mm").max() - pl.col("pixel_spacing_row_mm").min(),
        "spacing_column_spread": pl.col("pixel_spacing_column_mm").max() - pl.col("pixel_spacing_column_mm").min(),
        "most_samples": pl.col("samples_per_pixel").filter(is_pixels).max().fill_null(1),
        "n_frames_unread": (is_pixels & (pl.col("frames") > 1) & pl.col("frame_positions_mm").is_null()).sum(),
        "n_shifted": (is_pixels & (pl.col("high_bit") != pl.col("bits_stored") - 1)).sum(),
        "most_bits_stored": pl.col("bits_stored").filter(is_pixels).max(),
        "smallest_representation": pl.col("pixel_representation").filter(is_pixels).min(),
        "least_intercept": pl.col("rescale_intercept_hu").filter(is_pixels).min(),
        "is_burned_in": (pl.col("burned_in_annotation").str.to_uppercase() == "YES").any(),
        "is_flagged_lossy": (pl.col("lossy_image_compression") == "01").any(),
        "is_flagged_lossless": (pl.col("lossy_image_compression").fill_null("") == "00").all(),
        "syntaxes": pl.col("transfer_syntax_uid").drop_nulls().unique().sort(),
    }


def _sex(written: pl.Expr) -> pl.Expr:
    return written.str.strip_chars().str.to_uppercase().replace_strict(SEXES, default=None, return_dtype=pl.String)


def short_digest(column: str) -> pl.Expr:
    """SHA-256 of text, first 32 digits."""

    def digest(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    return pl.col(column).map_elements(digest, return_dtype=pl.String)


def _most(value: pl.Expr) -> pl.Expr:
    """The value of most instances; of equally frequent ones the smallest; null where all are absent."""
    return value.drop_nulls().mode().min()


def _is_positive(column: str) -> pl.Expr:
    return (pl.col(column) > 0).fill_null(value=False)


def _is_nonzero(column: str) -> pl.Expr:
    return (pl.col(column) != 0).fill_null(value=False)


def is_localizer(rows: pl.DataFrame, *, words: Vocabulary) -> pl.Series:
    """Whether the image type of each row says localizer; each distinct text is judged once."""
    judged = {text: words.says(text, "localizer") for text in rows["image_type"].unique()}
    return rows["image_type"].replace_strict(judged, return_dtype=pl.Boolean) if judged else pl.Series([], dtype=pl.Boolean)
