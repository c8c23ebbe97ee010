"""Written values that no word list knows: told, counted, and left unknown until somebody adds them to the study file."""

from __future__ import annotations

import polars as pl

from ospor_batch.contracts.table import schema_of

# kind -> the column of what was written, and which series' value no list placed
KINDS = {
    "vendor": ("manufacturer_raw", pl.col("scanner_vendor") == "other"),
    "model": ("model_raw", pl.col("scanner_model") == "other"),
    "kernel": ("kernel_raw", pl.col("kernel_class") == "unknown"),
    "body_region": ("body_part_raw", pl.col("body_region_source") != "tag"),
    "view": ("view_raw", pl.col("view") == "other"),
}
SCREENED = ("CT", "CR", "DX", "RG")  # what screening reads; words of other modalities are not collected


def unlisted(series: pl.DataFrame) -> pl.DataFrame:
    """Rows of the contract unlisted: every written value without a place in the lists, by center, kind and vendor."""
    images = series.filter(pl.col("modality").is_in(SCREENED), pl.col("sop_class").is_in(["image", "enhanced_image"]))
    parts = []
    for kind, (column, is_unplaced) in KINDS.items():
        written = pl.col(column).str.strip_chars(" \\")
        rows = images.filter(is_unplaced, written.fill_null("") != "")
        counted = rows.group_by("center", "scanner_vendor", written=written).agg(n_series=pl.len().cast(pl.Int64))
        parts.append(counted.with_columns(kind=pl.lit(kind)))
    return pl.concat(parts).select(schema_of("unlisted").names()).sort("center", "kind", "scanner_vendor", "written")
