"""The people of one recipe: everyone eligible by the label-blind index, and the labelled by the matched index."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import polars as pl

from ospor_batch.errors import LedgerError
from ospor_batch.evaluation.strata import ACQUISITION

TEST = ("internal_test", "external")
SITE_TUNING = "site_tuning"  # external people on whom a site's recalibration is fitted; they stand in no other table
PARTITIONS = (*TEST, "tuning", "train")
AS_LABELLED = ("mg/cm3", "tbs")  # units of label values that a measurement is compared with as they are
NO_MAKER = {"unknown", "other", "unverified"}
NOT_FINITE = "score_not_finite"
THICKNESS_EDGES_MM = (1.0, 2.0, 3.0, 5.0)  # judgement: thin, and the usual reconstructions
LABEL_SIDE = ("densitometer_vendor", "t_source", "t_reference", ACQUISITION)


@dataclass(frozen=True)
class AnalysisSet:
    """eligible and paired hold one row per person, sorted; score and truth are null where there is none.

    series holds every listed series with is_counted (it stands for its person's performance). Of several performance
    images of a person the one nearest in time counts.
    """

    eligible: pl.DataFrame
    paired: pl.DataFrame
    series: pl.DataFrame


@dataclass(frozen=True)
class People:
    """One partition group and one acquisition group of an analysis set; acquisition is all, yes or no."""

    partition: str
    acquisition: str
    eligible: pl.DataFrame
    paired: pl.DataFrame


def analysis_set(manifest: pl.DataFrame, predictions: pl.DataFrame, *, rejects: pl.DataFrame, target: str) -> AnalysisSet:
    """Join one recipe's manifest with its predictions and rejects; LedgerError when a row is not exactly one of both."""
    rows = _with_outcome(manifest, predictions, rejects).with_columns(
        truth=pl.col(f"is_{target}"),
        kvp=_kvp_text(pl.col("kvp_kv")),
        slice_thickness=_thickness_band(pl.col("slice_thickness_mm")),
        is_same_acquisition=pl.col(ACQUISITION).replace_strict({True: "yes", False: "no"}, return_dtype=pl.String),
        **_compared(manifest),
    )
    performance = rows.filter("is_performance_index")
    nearest = performance.sort("patient_key", pl.col("gap_days").abs(), "series_key")
    paired = nearest.unique("patient_key", keep="first", maintain_order=True)
    blind = rows.sort("patient_key", pl.col("is_prevalence_index").not_(), "series_key")
    eligible = blind.unique("patient_key", keep="first", maintain_order=True)
    counted = paired.select("patient_key", "series_key", is_counted=pl.lit(value=True))
    series = rows.join(counted, on=["patient_key", "series_key"], how="left", maintain_order="left")
    return AnalysisSet(
        _with_label_side(eligible, paired), paired, series.with_columns(pl.col("is_counted").fill_null(value=False))
    )


def people_groups(of: AnalysisSet) -> list[People]:
    """Test people together, then each partition that has people; the two acquisition groups apart when both occur."""
    groups = []
    for name, partitions in [("test", TEST), *((p, (p,)) for p in PARTITIONS)]:
        eligible = of.eligible.filter(pl.col("partition").is_in(partitions))
        paired = of.paired.filter(pl.col("partition").is_in(partitions))
        if name != "test" and not eligible.height:
            continue
        groups.append(People(name, "all", eligible, paired))
        if {"yes", "no"} <= set(paired[ACQUISITION]):
            groups += [
                People(name, kind, eligible.filter(pl.col(ACQUISITION) == kind), paired.filter(pl.col(ACQUISITION) == kind))
                for kind in ("yes", "no")
            ]
    return groups


def partitions_within(name: str) -> tuple[str, ...]:
    """The partitions that a group of people is made of."""
    return TEST if name == "test" else (name,)


def images_of(of: AnalysisSet, people: People) -> pl.DataFrame:
    """Every image that may stand for a person's performance; several a person where the study asks for all."""
    inside = pl.col("partition").is_in(partitions_within(people.partition))
    return of.series.filter(pl.col("is_performance_index"), inside)


def performance_people(paired: pl.DataFrame) -> pl.DataFrame:
    """Labelled people with a score and a known target condition."""
    return paired.filter(pl.col("score").is_not_null() & pl.col("truth").is_not_null())


def one_of(values: pl.Series, *, none: str = "unverified") -> str:
    """The single value of a column, mixed when several, ``none`` when there is none."""
    known = sorted(set(values.drop_nulls().to_list()))
    if not known:
        return none
    return str(known[0]) if len(known) == 1 else "mixed"


def _with_label_side(eligible: pl.DataFrame, paired: pl.DataFrame) -> pl.DataFrame:
    """Say of everyone eligible whether and how they are labelled, whichever series the label-blind index is."""
    matched = paired.select("patient_key", *LABEL_SIDE, is_paired=pl.lit(value=True))
    joined = eligible.join(matched, on="patient_key", how="left", maintain_order="left", suffix="_of_match")
    return joined.with_columns(
        pl.col("is_paired").fill_null(value=False),
        *(pl.coalesce(f"{column}_of_match", column).alias(column) for column in LABEL_SIDE),
    ).drop(f"{column}_of_match" for column in LABEL_SIDE)


def _with_outcome(manifest: pl.DataFrame, predictions: pl.DataFrame, rejects: pl.DataFrame) -> pl.DataFrame:
    outcome = predictions.select("item_digest", "score", "predicted_value", "predicted_value_unit")
    refused = rejects.select("center", pl.col("item_key").alias("series_key"), reject_reason="reason")
    rows = manifest.join(outcome, on="item_digest", how="left").join(refused, on=["center", "series_key"], how="left")
    rows = _without_infinite(rows)
    unclear = rows.filter(pl.col("score").is_null() == pl.col("reject_reason").is_null()).height
    if unclear or rows.height != manifest.height:
        raise LedgerError(
            f"{manifest.height} manifest rows, {unclear} of which are not exactly one of prediction and reject; run infer again"
        )
    return rows.sort("patient_key", "series_key")


def _without_infinite(rows: pl.DataFrame) -> pl.DataFrame:
    """A score that is no finite number is no score: the person is refused with a reason and counted as such."""
    is_infinite = pl.col("score").is_finite().not_().fill_null(value=False)
    return rows.with_columns(
        reject_reason=pl.when(is_infinite).then(pl.lit(NOT_FINITE)).otherwise("reject_reason"),
        score=pl.when(~is_infinite).then("score"),
        predicted_value=pl.when(~is_infinite & pl.col("predicted_value").is_finite()).then("predicted_value"),
    )


def _compared(manifest: pl.DataFrame) -> dict[str, pl.Expr]:
    """The reference value that a measurement is compared with: vBMD and TBS as they are; in DXA the areal lumbar BMD.

    Areal BMD of several makers cannot be pooled (methods L6): then, or where no BMD is known, it is the T-score.
    """
    areal, unit = pl.col("lumbar_spine_bmd_g_cm2"), pl.col("label_value_unit")
    makers = set(manifest.filter(areal.is_not_null())["densitometer_vendor"])
    is_one_maker = len(makers) == 1 and not makers & NO_MAKER
    keeps_label = unit.is_in(AS_LABELLED) if is_one_maker else unit.is_not_null()
    return {
        "reference_value": pl.when(keeps_label).then(pl.col("label_value")).otherwise(areal),
        "compared_unit": pl.when(keeps_label).then(unit).otherwise(pl.when(areal.is_not_null()).then(pl.lit("g/cm2"))),
    }


def _kvp_text(kvp_kv: pl.Expr) -> pl.Expr:
    whole = kvp_kv == kvp_kv.round(0)
    text = pl.when(whole).then(kvp_kv.cast(pl.Int64, strict=False).cast(pl.String)).otherwise(kvp_kv.cast(pl.String))
    return text.fill_null("unknown")


def _thickness_band(millimetres: pl.Expr) -> pl.Expr:
    """Slice thickness in mm as a band that sorts by name, such as 1 to <2; unknown without one."""
    last = THICKNESS_EDGES_MM[-1]
    band = pl.when(millimetres >= last).then(pl.lit(f"{last:g} and more")).otherwise(pl.lit("unknown"))
    for low, high in itertools.pairwise((0.0, *THICKNESS_EDGES_MM)):
        is_here = millimetres.is_between(low, high, closed="left")
        band = pl.when(is_here).then(pl.lit(f"{low:g} to <{high:g}")).otherwise(band)
    return band
