"""The work list and analysis set: one row per person and index series."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import polars as pl

from ospor_batch.cohort.guards import is_found
from ospor_batch.cohort.pairing import PERSON
from ospor_batch.contracts import contract
from ospor_batch.errors import LedgerError

UNVERIFIED = "unverified"  # what stands where no label speaks
UNKNOWN = "unknown"
SAME = "is_same_acquisition"
NAMED, DENIED = "phantom_described", "phantom_denied"  # findings of the catalog
CROPPED = "cropped_field_of_view"  # a finding: what lies under the patient may be left out


def period() -> pl.Expr:
    """Calendar quarter of the image, such as 2022Q3."""
    return pl.format("{}Q{}", pl.col("image_date").dt.year(), pl.col("image_date").dt.quarter())


def age_band() -> pl.Expr:
    """Ten-year band such as 60-69; 90+ top-coded (methods P1); unknown without an age."""
    tens = pl.col("age_at_image").floor().cast(pl.Int64) // 10 * 10
    return pl.when(tens >= 90).then(pl.lit("90+")).otherwise(pl.format("{}-{}", tens, tens + 9)).fill_null(pl.lit(UNKNOWN))


def same_acquisition() -> pl.Expr:
    """True where the label was computed from the very study that is read.

    Same accession number where series and exam both have one; else a QCT of the same day, as a DXA never is a CT.
    """
    same_number = pl.col("exam_accession_number").str.strip_chars() == pl.col("accession_number").str.strip_chars()
    same_day_qct = (pl.col("standard") == "qct") & (pl.col("gap_days") == 0)
    return pl.coalesce(same_number, same_day_qct)


def phantom_in_view(declared: Mapping[str, str]) -> dict[str, pl.Expr]:
    """Whether a calibration phantom is in view, and what says so; null where nothing does, since no pixel was read yet.

    declared: of every center, whether one lies under the patients of its CTs (in_view, absent, unknown). The description of a
    series is nearer than the word of its center, which says nothing of a reconstruction narrower than the trunk.
    """
    is_named, is_denied, is_cropped = (is_found(finding) for finding in (NAMED, DENIED, CROPPED))
    said = pl.col("center").replace_strict(dict(declared), default=UNKNOWN, return_dtype=pl.String)
    by_center = pl.when(pl.col("modality") == "CT").then(
        pl.when(said == "absent").then(pl.lit(value=False)).when((said == "in_view") & ~is_cropped).then(pl.lit(value=True))
    )
    by_text = pl.when(is_named | is_denied).then(is_named)
    source = pl.when(by_text.is_not_null()).then(pl.lit("description")).when(by_center.is_not_null()).then(pl.lit("center"))
    return {"is_phantom_in_view": pl.coalesce(by_text, by_center), "phantom_source": source}


def with_sex_of_person(series: pl.DataFrame, labels: pl.DataFrame) -> pl.DataFrame:
    """Fill an unknown sex of the image header from the person's exports, where these agree."""
    known = (
        labels.filter(pl.col("sex") != UNKNOWN)
        .group_by("patient_key")
        .agg(exported=pl.when(pl.col("sex").n_unique() == 1).then(pl.col("sex").first()))
    )
    filled = series.join(known, on="patient_key", how="left").with_columns(
        sex=pl.when(pl.col("sex") == UNKNOWN).then(pl.coalesce("exported", "sex")).otherwise("sex")
    )
    return filled.drop("exported")


def manifest(
    index: pl.DataFrame,
    matches: pl.DataFrame,
    *,
    recipe: str,
    reference_id: str,
    window: str,
    phantoms: Mapping[str, str],
) -> pl.DataFrame:
    """Rows of the manifest without their partition.

    index: the chosen series of all eligible people with is_prevalence_index; matches: the matched pairs with their label;
    phantoms: as phantom_in_view takes them. A series that is index of nothing has no row; label columns stand on the
    performance index alone.
    """
    paired = matches.select(PERSON).unique().with_columns(role=pl.lit("paired"))
    of_label = matches.select("center", "series_key", *_label_columns(matches), same_acquisition().alias(SAME))
    rows = index.join(of_label, on=["center", "series_key"], how="left").join(paired, on=PERSON, how="left")
    if rows.height != index.height:
        raise LedgerError(f"manifest: {index.height} index series became {rows.height} rows; a join multiplied them")
    rows = rows.filter(pl.col("label_key").is_not_null() | pl.col("is_prevalence_index"))
    return rows.with_columns(
        recipe=pl.lit(recipe),
        reference_id=pl.lit(reference_id),
        window_days=pl.lit(window),
        role=pl.col("role").fill_null("image_only"),
        is_performance_index=pl.col("label_key").is_not_null(),
        age_band=age_band(),
        period=period(),
        item_digest=pl.Series(
            [_item(*pair) for pair in rows.select("series_digest", "mask_digest").iter_rows()], dtype=pl.String
        ),
        **phantom_in_view(phantoms),
        **{c: pl.col(c).fill_null(UNVERIFIED) for c in ("densitometer_vendor", "t_source", "t_reference")},
    )


def with_partition(rows: pl.DataFrame, split: pl.DataFrame) -> pl.DataFrame:
    """Add everyone's partition and put the columns and rows in the contract's order."""
    whole = rows.join(split.select("patient_key", "partition"), on="patient_key", how="left")
    if whole.height != rows.height or whole["partition"].null_count():
        raise LedgerError(
            f"manifest: {rows.height} rows in, {whole.height} out, {whole['partition'].null_count()} without partition"
        )
    of = contract("manifest")
    return whole.select(of.columns).sort(of.primary_key)


def _label_columns(matches: pl.DataFrame) -> list[str]:
    """Columns of the manifest that are the label's or the pair's and not the series' own."""
    of_series, of_pair = contract("series").columns, {*contract("label").columns, "gap_days"}
    wanted = [c for c in contract("manifest").columns if c in of_pair and c not in of_series]
    return [c for c in wanted if c in matches.columns and c not in {"recipe", "reference_id"}]


def _item(series_digest: str, mask_digest: str | None) -> str:
    return hashlib.sha256(f"{series_digest}|{mask_digest or ''}".encode()).hexdigest()[:32]
