"""Equality with reference results computed outside Python: correlation, limits, reliability, replicates, masks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ospor_batch.evaluation.agreement import bland_altman, pearson, spearman, tolerance_factors
from ospor_batch.evaluation.differences import (
    approximate_limits,
    mover_limits,
    proportional_bias,
    repeated_pairs,
)
from ospor_batch.evaluation.overlap import overlap
from ospor_batch.evaluation.reliability import concordance, icc
from tests.evaluation.oracle_files import CLOSED, LIMITS, cases, column, folder, near, table


def agreement_pairs(where: Path, case: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Columns a and b of a case; a real file with columns of its own is named in the case."""
    simple = where / f"pairs_{case}.csv"
    if simple.is_file():
        rows = table(simple)
        return column(rows, "a"), column(rows, "b")
    for path in sorted(where.glob("*_real.csv")):
        rows = table(path)
        stem = path.stem.split("_")[0]
        words = case.replace("_minus_", "_").split("_")
        named = [name for name in words if name in rows[0] and name != "subject"]
        if words[0] == stem and len(named) == 2:
            return column(rows, named[0]), column(rows, named[1])
    return None


def pairs_with_limits(shared: Path) -> Iterator[tuple[str, dict[str, Any], np.ndarray, np.ndarray]]:
    where = folder(shared, "bland_altman")
    for case, wanted in cases(where / "expected.json").items():
        found = agreement_pairs(where, case) if "sd_diff" in wanted else None
        if found is not None:
            yield case, wanted, *found


def test_oracle_correlations_equal_the_reference(shared: Path) -> None:
    where, checked = folder(shared, "correlation"), 0
    for case, wanted in cases(where / "expected.json").items():
        found = agreement_pairs(shared / "oracles" / "bland_altman", case)
        if found is None:
            continue
        a, b = found
        r, rho = pearson(b, a), spearman(b, a)
        assert near(r.value, wanted["pearson_r"]), case
        assert near(r.lower, wanted["pearson_ci_lo"]), case
        assert near(r.upper, wanted["pearson_ci_hi"]), case
        assert rho.is_estimable == (wanted["spearman_ci_bonett_wright_lo"] is not None), case
        if rho.is_estimable:
            assert near(rho.value, wanted["spearman_rho"]), case
            assert near(rho.lower, wanted["spearman_ci_bonett_wright_lo"]), case
            assert near(rho.upper, wanted["spearman_ci_bonett_wright_hi"]), case
        checked += 1
    assert checked


def test_oracle_limits_of_agreement_equal_the_reference(shared: Path) -> None:
    checked = 0
    for case, wanted, a, b in pairs_with_limits(shared):
        limits = bland_altman(b, a)
        assert limits.n == wanted["n"]
        inner, outer = tolerance_factors(limits.n)
        for value, name, within in (
            (limits.bias.value, "bias", CLOSED), (limits.bias.lower, "bias_ci_lo", CLOSED),
            (limits.bias.upper, "bias_ci_hi", CLOSED),
            (limits.sd_of_differences.value, "sd_diff", CLOSED), (limits.loa_lower.value, "loa_lo", CLOSED),
            (limits.loa_upper.value, "loa_hi", CLOSED), (inner, "exact_k_inner", LIMITS), (outer, "exact_k_outer", LIMITS),
            (limits.loa_lower.lower, "loa_lo_exact_ci_lo", LIMITS), (limits.loa_lower.upper, "loa_lo_exact_ci_hi", LIMITS),
            (limits.loa_upper.lower, "loa_hi_exact_ci_lo", LIMITS), (limits.loa_upper.upper, "loa_hi_exact_ci_hi", LIMITS),
        ):  # fmt: skip
            assert near(value, wanted[name], within=within), (case, name)
        checked += 1
    assert checked


def ratings(shared: Path, case: str) -> np.ndarray | None:
    own = shared / "oracles" / "icc" / f"{case}.csv"
    if own.is_file():
        rows = table(own)
        return np.column_stack([column(rows, name) for name in rows[0] if name != "subject"])
    pairs = agreement_pairs(shared / "oracles" / "bland_altman", case)
    if pairs is not None:
        return np.column_stack(pairs)
    for path in sorted((shared / "oracles" / "bland_altman").glob("*_real.csv")):
        rows = table(path)
        named = [name for name in case.split("_") if name in rows[0] and name != "subject"]
        if case.startswith(path.stem.split("_")[0]) and len(named) > 1:
            return np.column_stack([column(rows, name) for name in named])
    return None


def test_oracle_intraclass_correlations_equal_the_reference(shared: Path) -> None:
    where, checked = folder(shared, "icc"), 0
    for case, wanted in cases(where / "expected.json").items():
        found = ratings(shared, case)
        if found is None:
            continue
        assert found.shape == (wanted["n_subjects"], wanted["k_raters"]), case
        for form, block in wanted.items():
            if not form.startswith("icc_"):
                continue
            estimate = icc(found, form=form)
            assert near(estimate.value, block["icc"]), (case, form)
            assert near(estimate.lower, block["ci_lo"], within=LIMITS), (case, form)
            assert near(estimate.upper, block["ci_hi"], within=LIMITS), (case, form)
            checked += 1
    assert checked


def test_oracle_concordance_equals_the_reference(shared: Path) -> None:
    where, checked = folder(shared, "icc"), 0
    for case, wanted in cases(where / "ccc_expected.json").items():
        found = agreement_pairs(shared / "oracles" / "bland_altman", case)
        if found is None:
            continue
        estimate = concordance(*found)
        assert near(estimate.value, wanted["ccc"]), case
        assert near(estimate.lower, wanted["ci_z_lo"], within=LIMITS), case
        assert near(estimate.upper, wanted["ci_z_hi"], within=LIMITS), case
        checked += 1
    assert checked


def test_oracle_proportional_bias_and_other_limits_equal_the_reference(shared: Path) -> None:
    checked = 0
    for case, wanted, a, b in pairs_with_limits(shared):
        line, limits = proportional_bias(b, a), bland_altman(b, a)
        for value, name in (
            (line.slope.value, "prop_bias_slope"), (line.slope.lower, "prop_bias_slope_ci_lo"),
            (line.slope.upper, "prop_bias_slope_ci_hi"), (line.intercept, "prop_bias_intercept"),
            (line.p_value, "prop_bias_slope_p"), (line.residual_intercept, "regr_loa_absres_intercept"),
            (line.residual_slope, "regr_loa_absres_slope"),
        ):  # fmt: skip
            assert near(value, wanted[name]), (case, name)
        for name, both in (
            ("mover", mover_limits(limits)), ("ba1986", approximate_limits(limits)),
            ("ba1999", approximate_limits(limits, form="ba1999")),
        ):  # fmt: skip
            assert both is not None
            for side, interval in zip(("lo", "hi"), both, strict=True):
                assert near(interval.lower, wanted[f"loa_{side}_{name}_ci_lo"]), (case, name, side)
                assert near(interval.upper, wanted[f"loa_{side}_{name}_ci_hi"]), (case, name, side)
        checked += 1
    assert checked


def replicate_pairs(where: Path, case: str) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """First minus second of a file of repeated pairs, and who they are of."""
    words = case.split("_")
    for path in sorted(where.glob("*.csv")):
        if path.stem != case and not (path.stem.split("_")[0] == words[0] and words[-1] == "replicates"):
            continue
        rows = table(path)
        measured = [name for name in words if name in rows[0]] or [n for n in rows[0] if n in {"a", "b"}]
        who = next((name for name in rows[0] if name in {"subject", "patient", "id", "item"}), next(iter(rows[0])))
        if len(measured) == 2:
            return column(rows, measured[0]), column(rows, measured[1]), np.array([row[who] for row in rows])
    return None


def test_oracle_replicates_equal_the_reference(shared: Path) -> None:
    where, checked = folder(shared, "bland_altman"), 0
    for case, wanted in cases(where / "expected.json").items():
        found = replicate_pairs(where, case) if "msw" in wanted else None
        if found is None:
            continue
        a, b, person = found
        repeated = repeated_pairs(b, a, person=person)
        assert (repeated.n_persons, repeated.n_pairs) == (wanted["n_subjects"], wanted["n_pairs"])
        for value, name in (
            (repeated.bias, "bias_mean_of_pairs"), (repeated.between, "var_between"), (repeated.within, "var_within"),
            (repeated.sd_total, "sd_total"), (repeated.loa_lower, "loa_lo"), (repeated.loa_upper, "loa_hi"),
        ):  # fmt: skip
            assert near(value, wanted[name]), (case, name)
        checked += 1
    assert checked


def test_oracle_overlap_of_masks_equals_the_reference(shared: Path) -> None:
    where = folder(shared, "segmentation")
    for case, wanted in cases(where / "expected.json").items():
        masks = {name: np.zeros(wanted["shape"], dtype=bool) for name in ("a", "b")}
        for row in table(where / f"{case}_voxels.csv"):
            masks[row["mask"]][int(row["i"]), int(row["j"]), int(row["k"])] = True
        for convention in ("max_of_directed", "pooled"):
            found = overlap(masks["a"], masks["b"], spacing_mm=tuple(wanted["spacing_mm"]), hd95_convention=convention)
            assert near(found.dice, wanted["dice"]), case
            assert near(found.hd95_mm, wanted[f"hd95_{convention}"]), (case, convention)
