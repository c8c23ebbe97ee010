"""Rows of the agreement and calibration tables: the measured value against the reference value."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ospor_batch.evaluation.agreement import bland_altman, mean_absolute_error, pearson, root_mean_squared_error, spearman
from ospor_batch.evaluation.analysis_set import AnalysisSet, People, one_of
from ospor_batch.evaluation.calibration import FITTING_PARTITIONS, DensityLine, fit_density_line
from ospor_batch.evaluation.differences import bias_at, bias_in_bands, proportional_bias, repeated_pairs
from ospor_batch.evaluation.intervals import Estimate, estimated, not_estimable
from ospor_batch.evaluation.reliability import concordance, icc
from ospor_batch.evaluation.strata import OVERALL, Cell
from ospor_batch.evaluation.tables import Context, Row, common, parted, stated

Floats = NDArray[np.float64]
CALIBRATED_KVP = (120.0,)  # kV; HU falls as kVp rises, so one line serves one tube voltage (methods I3)
KIND = "density_calibration"
NO_CALIBRATION = "none"
OTHER_QUANTITY = "reference_is_another_quantity"
OF_THEIR_OWN = {"tbs"}  # units of what is no density: no line makes one of it
DIFFERENCES = (
    "icc_a_1", "concordance", "proportional_bias", "bias", "bias_at_cut", "bias_below_cut", "bias_near_cut", "bias_above_cut",
    "sd_of_differences", "loa_lower", "loa_upper", "mae", "rmse",
)  # fmt: skip
# clinical cut-offs of the reference value; near: between them (methods L1, L7, L9)
CLINICAL_CUTS = {"mg/cm3": (80.0, 120.0), "t_score": (-2.5, -1.0), "tbs": (1.23, 1.31)}


@dataclass(frozen=True)
class Comparison:
    """How a measured value becomes one in the unit of the reference; line is null where none is needed or possible."""

    from_unit: str
    to_unit: str
    line: DensityLine | None
    reason: str | None

    @property
    def id(self) -> str:
        if self.line is None:
            return NO_CALIBRATION
        voltages = "+".join(f"{kvp:g}" for kvp in CALIBRATED_KVP)
        return f"density@{self.line.partition} kvp={voltages} n={self.line.n}"


def comparison(of: AnalysisSet) -> Comparison:
    """Fit the density calibration on train people, else tuning people, at the calibrated tube voltages."""
    from_unit, to_unit = one_of(of.paired["predicted_value_unit"]), one_of(of.paired["compared_unit"])
    if from_unit == to_unit:
        return Comparison(from_unit, to_unit, None, None if from_unit != "unverified" else "no_values")
    if {from_unit, to_unit} & OF_THEIR_OWN:
        return Comparison(from_unit, to_unit, None, OTHER_QUANTITY)
    usable = _calibrated(with_both_values(of.paired))
    for partition in FITTING_PARTITIONS:
        rows = usable.filter(pl.col("partition") == partition)
        line = fit_density_line(rows["reference_value"].to_numpy(), rows["predicted_value"].to_numpy(), partition=partition)
        if line is not None:
            return Comparison(from_unit, to_unit, line, None)
    return Comparison(from_unit, to_unit, None, "no_calibration_people")


def calibration_rows(context: Context, fitted: Comparison) -> list[Row]:
    """The fitted line, when there is one."""
    line = fitted.line
    if line is None:
        return []
    return [
        {
            "recipe": context.recipe,
            "reference_id": context.reference_id,
            "calibration_id": fitted.id,
            "kind": KIND,
            "partition": line.partition,
            "model_digest": context.model_digest,
            "from_unit": fitted.from_unit,
            "to_unit": fitted.to_unit,
            "n_persons": line.n,
            "intercept": line.intercept,
            "intercept_lower": line.intercept_interval.lower,
            "intercept_upper": line.intercept_interval.upper,
            "slope": line.slope,
            "slope_lower": line.slope_interval.lower,
            "slope_upper": line.slope_interval.upper,
            "residual_sd": line.residual_sd,
        }
    ]


def agreement_rows(context: Context, people: People, *, fitted: Comparison) -> list[Row]:
    """Correlations of the raw values, differences of the calibrated ones, per cell."""
    return [row for cell in parted(context, people) for row in _agreement(context, people, cell=cell, fitted=fitted)]


def repeated_rows(context: Context, people: People, *, images: pl.DataFrame, fitted: Comparison) -> list[Row]:
    """Limits of agreement of single images where persons have several, overall and per center; none where nobody has."""
    rows = in_common_unit(with_both_values(images), fitted)
    if fitted.reason is not None or rows.height == rows["patient_key"].n_unique():
        return []
    return [
        row
        for cell in parted(context, people, paired=rows)
        if cell.stratum in {OVERALL, "center"}
        for row in _repeated(context, people, cell=cell, fitted=fitted)
    ]


def _repeated(context: Context, people: People, *, cell: Cell, fitted: Comparison) -> Iterator[Row]:
    rows = cell.frames[1]
    said = common(context, people, cell) | {"predicted_value_unit": fitted.from_unit, "compared_unit": fitted.to_unit}
    counted = _behind(rows) | {"unit": "image", "n_persons": rows["patient_key"].n_unique(), "calibration_id": fitted.id}
    person = rows["patient_key"].to_numpy()
    found = repeated_pairs(rows["reference_value"].to_numpy(), rows["calibrated"].to_numpy(), person=person)
    numbers = (("sd_of_differences", found.sd_total), ("loa_lower", found.loa_lower), ("loa_upper", found.loa_upper))
    reason = found.reason or "zero_variance"
    bias = found.mean if found.mean is not None else not_estimable(reason)
    yield said | counted | {"metric": "bias", **stated(bias)}
    method = "variance_components_floored" if found.is_between_floored else "variance_components"
    for metric, value in numbers:
        one = not_estimable(reason) if value is None else estimated(value, None, method=method)
        yield said | counted | {"metric": metric, **stated(one)}


def agreement_point_rows(context: Context, people: People, *, fitted: Comparison) -> list[Row]:
    """Mean and difference of each person, without a key, sorted by value; none without a common unit."""
    if fitted.reason is not None:
        return []
    rows = in_common_unit(with_both_values(people.paired), fitted).select(
        "center",
        "scanner_vendor",
        "reference_value",
        calibrated_value="calibrated",
        mean=(pl.col("calibrated") + pl.col("reference_value")) / 2,
        difference=pl.col("calibrated") - pl.col("reference_value"),
    )
    said = {
        "recipe": context.recipe,
        "reference_id": context.reference_id,
        "partition": people.partition,
        "compared_unit": fitted.to_unit,
        "calibration_id": fitted.id,
    }
    ordered = rows.sort("center", "scanner_vendor", "mean", "difference").with_row_index("point")
    return [said | row for row in ordered.iter_rows(named=True)]


def compared_values(paired: pl.DataFrame, fitted: Comparison, *, is_calibrated: bool) -> pl.DataFrame:
    """Pairs of reference_value and value, the latter as predicted or calibrated to the unit of the reference."""
    raw = with_both_values(paired)
    if not is_calibrated:
        return raw.select("reference_value", value="predicted_value")
    return in_common_unit(raw, fitted).select("reference_value", value="calibrated")


def _agreement(context: Context, people: People, *, cell: Cell, fitted: Comparison) -> Iterator[Row]:
    base = common(context, people, cell) | {"predicted_value_unit": fitted.from_unit, "compared_unit": fitted.to_unit}
    raw = with_both_values(cell.frames[1])
    reference, predicted = raw["reference_value"].to_numpy(), raw["predicted_value"].to_numpy()
    is_other = fitted.reason == OTHER_QUANTITY  # the correlation of TBS with a density is not that of a TBS with another
    for metric, correlate in (("pearson_r", pearson), ("spearman_rho", spearman)):
        estimate = not_estimable(OTHER_QUANTITY) if is_other else correlate(reference, predicted)
        yield base | _behind(raw) | {"metric": metric, "calibration_id": NO_CALIBRATION, **stated(estimate)}
    in_unit = in_common_unit(raw, fitted)
    for metric, estimate in _differences(in_unit, fitted, target=context.target).items():
        yield base | _behind(in_unit) | {"metric": metric, "calibration_id": fitted.id, **stated(estimate)}


def _differences(rows: pl.DataFrame, fitted: Comparison, *, target: str) -> dict[str, Estimate]:
    if fitted.reason is not None:
        return dict.fromkeys(DIFFERENCES, not_estimable(fitted.reason))
    reference, calibrated = rows["reference_value"].to_numpy(), rows["calibrated"].to_numpy()
    limits = bland_altman(reference, calibrated)
    return {
        "icc_a_1": _icc(reference, calibrated),
        "concordance": concordance(reference, calibrated),
        "proportional_bias": proportional_bias(reference, calibrated).slope,
        "bias": limits.bias,
        "bias_at_cut": _bias_at_cut(reference, calibrated, unit=fitted.to_unit, target=target),
        **_bias_by_band(reference, calibrated, unit=fitted.to_unit),
        "sd_of_differences": limits.sd_of_differences,
        "loa_lower": limits.loa_lower,
        "loa_upper": limits.loa_upper,
        "mae": mean_absolute_error(reference, calibrated),
        "rmse": root_mean_squared_error(reference, calibrated),
    }


def _icc(reference: Floats, calibrated: Floats) -> Estimate:
    """Absolute agreement of single values, ICC(A,1): blind neither to bias nor to scale."""
    return icc(np.column_stack([reference, calibrated])) if reference.size else not_estimable("no_persons")


def _bias_at_cut(reference: Floats, calibrated: Floats, *, unit: str, target: str) -> Estimate:
    """Bias at the cut-off of the study's target: the lower clinical one of osteoporosis, the upper one of low bone mass."""
    if unit not in CLINICAL_CUTS:
        return not_estimable("no_clinical_cut_off")
    return bias_at(reference, calibrated, at=CLINICAL_CUTS[unit][0 if target == "osteoporosis" else 1])


def _bias_by_band(reference: Floats, calibrated: Floats, *, unit: str) -> dict[str, Estimate]:
    names = ("bias_below_cut", "bias_near_cut", "bias_above_cut")
    if unit not in CLINICAL_CUTS:
        return dict.fromkeys(names, not_estimable("no_clinical_cut_off"))
    bands = bias_in_bands(reference, calibrated, cuts=CLINICAL_CUTS[unit])
    return {name: limits.bias for name, (_, limits) in zip(names, bands, strict=True)}


def in_common_unit(rows: pl.DataFrame, fitted: Comparison) -> pl.DataFrame:
    """Rows that can be compared, with the calibrated value; a line serves its tube voltages only."""
    if fitted.line is None:
        kept = rows if fitted.reason is None else rows.clear()
        return kept.with_columns(calibrated=pl.col("predicted_value"))
    kept = _calibrated(rows)
    return kept.with_columns(calibrated=pl.Series(fitted.line.apply(kept["predicted_value"].to_numpy()), dtype=pl.Float64))


def with_both_values(paired: pl.DataFrame) -> pl.DataFrame:
    """People who have a predicted and a reference value."""
    return paired.filter(pl.col("predicted_value").is_not_null() & pl.col("reference_value").is_not_null())


def _calibrated(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.filter(pl.col("kvp_kv").is_in(CALIBRATED_KVP))


def _behind(rows: pl.DataFrame) -> Row:
    return {"n_persons": rows.height, "n_images": rows.height, "n_events": int(rows["truth"].fill_null(value=False).sum())}
