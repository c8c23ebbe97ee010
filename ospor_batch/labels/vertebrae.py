"""What an export says of single lumbar vertebrae: which were left out of a DXA, and the vBMD of each in a QCT."""

from __future__ import annotations

import re

import polars as pl

from ospor_batch.labels.verdict import flag

LUMBAR = ("L1", "L2", "L3", "L4")  # the region of interest of spine DXA (methods L4)
EXCLUDED = "excluded_vertebrae"
NONE = ("none", "no", "0", "无", "없음")  # words for: nothing was left out
NAMED = re.compile(r"L?\s*([1-5])", re.IGNORECASE)
WRITTEN = re.compile(r"^(L?\s*[1-5]|\s|[,;+/&.]|and|椎)+$", re.IGNORECASE)
CONTRADICTS_MG_CM3 = 5.0  # a stated mean this far from that of the vertebrae was made of others (judgement)


def with_vertebrae(rows: pl.DataFrame) -> pl.DataFrame:
    """Read the excluded vertebrae, count the others, and give a QCT without a mean that of its vertebrae.

    n_vertebrae of the export stands; where it says none it is 4 less those left out in a DXA, or the number measured in a
    QCT. A mean of the export stands, too; a vertebra that was left out enters no mean.
    """
    written = rows[EXCLUDED].to_list()
    found = [None if text is None else _named(text) for text in written]
    rows = rows.with_columns(pl.Series(EXCLUDED, ["+".join(f) if f else None for f in found], dtype=pl.String))
    is_unread = pl.Series([text is not None and f is None for text, f in zip(written, found, strict=True)], dtype=pl.Boolean)
    n_left_out = pl.Series([None if f is None else sum(v in LUMBAR for v in f) for f in found], dtype=pl.Int64)
    rows = flag(
        rows.with_columns(_unread=is_unread, _left_out=n_left_out), pl.col("_unread"), remark=f"{EXCLUDED}_not_recognised"
    )
    n, counted = pl.col("n_vertebrae"), len(LUMBAR) - pl.col("_left_out")
    is_dxa = pl.col("exam_kind") == "dxa"
    rows = flag(rows, is_dxa & (n != counted), remark="n_vertebrae_contradicts_excluded")
    rows = rows.with_columns(n_vertebrae=pl.when(is_dxa).then(pl.coalesce(n, counted)).otherwise(n))
    return _with_mean(rows.drop("_unread", "_left_out"))


def _with_mean(rows: pl.DataFrame) -> pl.DataFrame:
    kept = []
    for vertebra in LUMBAR:
        is_out = pl.col(EXCLUDED).str.contains(vertebra, literal=True).fill_null(value=False)
        kept.append(pl.when(~is_out).then(pl.col(f"vbmd_{vertebra.lower()}_mg_cm3")))
    mean, n = pl.mean_horizontal(kept), pl.sum_horizontal(value.is_not_null().cast(pl.Int64) for value in kept)
    rows = rows.with_columns(_mean=mean, _n=pl.when(n > 0).then(n))
    apart = (pl.col("vbmd_mg_cm3") - pl.col("_mean")).abs() > CONTRADICTS_MG_CM3
    rows = flag(rows, apart, remark="vbmd_contradicts_vertebrae")
    is_made = pl.col("vbmd_mg_cm3").is_null() & pl.col("_mean").is_not_null()
    rows = flag(rows, is_made, remark="vbmd_is_mean_of_vertebrae")
    return rows.with_columns(
        vbmd_mg_cm3=pl.coalesce("vbmd_mg_cm3", "_mean"), n_vertebrae=pl.coalesce("n_vertebrae", "_n")
    ).drop("_mean", "_n")


def _named(text: str) -> list[str] | None:
    """The vertebrae that a cell names, in order; none for a word that says so, null when it cannot be read."""
    if text.strip().lower() in NONE:
        return []
    if not WRITTEN.match(text.strip()):
        return None
    return sorted({f"L{number}" for number in NAMED.findall(text)})
