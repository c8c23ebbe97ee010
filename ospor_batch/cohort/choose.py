"""Which series stands for a study: a score of named parts, visible in the reason, ties by key, overrides honoured."""

from __future__ import annotations

import polars as pl

from ospor_batch.errors import StudyError

STUDY = ("center", "patient_key", "study_key")
SERIES = ("center", "series_key")

# Points of each part. The weights are a judgement, not from a paper: a usable series always outranks a doubtful one
# (20 > 10 + 3 + 2 + 2 + 1), and among equals one with masks outranks one without (10 > 3 + 2 + 2 + 1).
USABLE, MASK, SLICES, KERNEL, COVERAGE, CLEAN = 20.0, 10.0, 3.0, 2.0, 2.0, 1.0
THICKEST_MM, THIN_ENOUGH_MM = 5.0, 1.0  # from 5 mm (partial volume) to 1 mm; thinner gains nothing but noise
LONG_ENOUGH_MM = 400.0  # about thorax plus abdomen


def score_parts() -> dict[str, pl.Expr]:
    """The named parts of the score, in the order of the reason; each is a number of points, never null."""
    thickness = pl.col("slice_thickness_mm").fill_null(pl.col("slice_spacing_mm"))
    thin = ((THICKEST_MM - thickness) / (THICKEST_MM - THIN_ENOUGH_MM)).clip(0, 1).fill_null(0)
    n_findings = pl.when(pl.col("findings") == "").then(0).otherwise(pl.col("findings").str.count_matches(";") + 1)
    kernel = pl.col("kernel_class").replace_strict({"soft": KERNEL, "standard": KERNEL, "unknown": KERNEL / 2}, default=0.0)
    return {
        "usable": pl.when(pl.col("grade") == "usable").then(USABLE).otherwise(0.0),
        "mask": pl.when(pl.col("mask_kind") != "none").then(MASK).otherwise(0.0),
        "thin slices": SLICES * thin,
        "kernel": kernel,
        "coverage": COVERAGE * (pl.col("extent_mm") / LONG_ENOUGH_MM).clip(0, 1).fill_null(0),
        "clean": CLEAN / (1 + n_findings),
    }


def choose(series: pl.DataFrame, *, overrides: pl.DataFrame) -> pl.DataFrame:
    """Rank the series of every study by score, highest first, then by series_key; rank 1 is chosen.

    series: those that passed every criterion; overrides: study_key, series_key. A study is that of one person:
    were a study instance used for two people, both would keep a series.
    """
    parts = {name: part.round(2) for name, part in score_parts().items()}  # what is shown is what decides
    shown = pl.concat_str([pl.format(f"{name} {{}}", part) for name, part in parts.items()], separator=" + ")
    scored = series.with_columns(score=pl.sum_horizontal(*parts.values()).round(2), choice_reason=shown)
    forced = overrides.select("study_key", "series_key", is_forced=pl.lit(value=True))
    scored = scored.join(forced, on=["study_key", "series_key"], how="left").with_columns(
        pl.col("is_forced").fill_null(value=False)
    )
    ranked = scored.sort(
        *STUDY, "is_forced", "score", "series_key", descending=[False] * len(STUDY) + [True, True, False]
    ).with_columns(choice_rank=pl.int_range(1, pl.len() + 1, dtype=pl.Int64).over(STUDY))
    reason = pl.when("is_forced").then(pl.format("override; {}", "choice_reason")).otherwise("choice_reason")
    return ranked.select(*SERIES, "score", "choice_rank", choice_reason=reason).sort(SERIES)


def check_overrides(overrides: pl.DataFrame, series: pl.DataFrame) -> None:
    """StudyError when an override names a study twice, or a series that its study does not have."""
    if repeated := overrides.filter(pl.col("study_key").is_duplicated())["study_key"].unique().sort().to_list():
        raise StudyError(f"match.overrides: study {repeated[0]} stands more than once; one series stands for a study")
    unknown = overrides.join(series, on=["study_key", "series_key"], how="anti").sort("study_key")
    if unknown.height:
        study, chosen = unknown.select("study_key", "series_key").row(0)
        raise StudyError(
            f"match.overrides: {unknown.height} rows name a series that its study does not have; "
            f"the first is study_key {study}, series_key {chosen}"
        )


def selection(judged: pl.DataFrame, ranked: pl.DataFrame, *, overrides: pl.DataFrame) -> pl.DataFrame:
    """The fate of every series: excluded, outranked or chosen; an override that a criterion bars is said so."""
    forced = overrides.select("study_key", "series_key", is_forced=pl.lit(value=True))
    found = judged.join(ranked, on=SERIES, how="left").join(forced, on=["study_key", "series_key"], how="left")
    barred = pl.format("override not honoured: failed {}", "first_failed")
    fate = (
        pl.when(pl.col("first_failed").is_not_null())
        .then(pl.lit("excluded"))
        .when(pl.col("choice_rank") == 1)
        .then(pl.lit("chosen"))
        .otherwise(pl.lit("outranked"))
    )
    return found.with_columns(
        fate=fate,
        choice_reason=pl.when(pl.col("first_failed").is_not_null() & pl.col("is_forced"))
        .then(barred)
        .otherwise("choice_reason"),
    ).drop("is_forced")
