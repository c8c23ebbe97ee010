"""Equality with reference results computed outside Python; cases are discovered from what lies there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from ospor_batch.evaluation.agreement import bland_altman, pearson, spearman, tolerance_factors
from ospor_batch.evaluation.discrimination import (
    Confusion,
    auc,
    balanced_accuracy,
    compare_auc,
    confusion,
    f1,
    npv_at_prevalence,
    operating_counts,
    operating_point,
    ppv_at_prevalence,
    roc_area,
)
from ospor_batch.evaluation.heterogeneity import Pooled, logit_auc, pool_random_effects, reml_tau2, tau2_interval
from ospor_batch.evaluation.intervals import Interval, clopper_pearson, proportion, wilson
from ospor_batch.evaluation.prevalence import prev_label, rogan_gladen
from ospor_batch.evaluation.threshold import lock_threshold
from tests.evaluation.oracle_files import CLOSED, ITERATIVE, LIMITS, cases, column, folder, near, scored, table

METHODS_OF_R = {  # how the reference calls an estimator of tau² with a reference distribution
    "fixed": ("fixed", "normal"), "dl_z": ("dersimonian_laird", "normal"), "dl_hksj": ("dersimonian_laird", "hartung_knapp"),
    "reml_z": ("reml", "normal"), "reml_hksj": ("reml", "hartung_knapp"), "reml_hksj_adhoc": ("reml", "hartung_knapp_floored"),
    "pm_z": ("paule_mandel", "normal"),
}  # fmt: skip


def test_oracle_auc_and_its_intervals_equal_the_reference(shared: Path) -> None:
    where, checked = folder(shared, "roc"), 0
    for case, expected in cases(where / "expected.json").items():
        rows = table(where / f"{case}.csv")
        for marker, wanted in expected.items():
            if not isinstance(wanted, dict) or "var_delong" not in wanted or marker not in rows[0]:
                continue
            truth, (score,) = scored(rows, marker)
            area, by_logit, wald = roc_area(truth, score), auc(truth, score), auc(truth, score, method="delong_wald")
            assert (area.n_positive, area.n_negative) == (wanted["n_pos"], wanted["n_neg"]), (case, marker)
            assert near(area.auc, wanted["auc"]), (case, marker)
            assert near(area.variance, wanted["var_delong"]), (case, marker)
            has_variance = bool(wanted["var_delong"])
            assert by_logit.is_estimable == wald.is_estimable == has_variance, (case, marker)
            if has_variance:
                assert near(by_logit.lower, wanted["ci_logit_lo"]), (case, marker)
                assert near(by_logit.upper, wanted["ci_logit_hi"]), (case, marker)
                assert near(wald.lower, wanted["ci_lo"]), (case, marker)
                assert near(wald.upper, wanted["ci_hi"]), (case, marker)
            checked += 1
    assert checked


def test_oracle_paired_delong_equals_the_reference(shared: Path) -> None:
    where, checked = folder(shared, "roc"), 0
    for case, expected in cases(where / "expected.json").items():
        rows = table(where / f"{case}.csv")
        for block, wanted in expected.items():
            if not block.startswith("paired_"):
                continue
            first, second = ("s1", "s2") if block == "paired_delong" else block.removeprefix("paired_").split("_vs_")
            truth, (score, other) = scored(rows, first, second)
            found = compare_auc(truth, score, other_score=other)
            assert found.n_persons == wanted.get("n_used", found.n_persons), (case, block)
            for name, value in (
                ("auc1", found.auc), ("auc2", found.other_auc), ("diff", found.difference), ("se_diff", found.standard_error),
                ("p_two_sided", found.p_value), ("cov_delong", found.covariance),
            ):  # fmt: skip
                if name in wanted and (wanted[name] is not None and value is not None):
                    assert near(value, wanted[name]), (case, block, name)
            assert (found.p_value is None) == (wanted.get("p_two_sided") is None), (case, block)
            if wanted.get("diff_ci_lo") is not None:
                assert found.interval is not None
                assert near(found.interval.lower, wanted["diff_ci_lo"]), (case, block)
                assert near(found.interval.upper, wanted["diff_ci_hi"]), (case, block)
            checked += 1
    assert checked


def test_oracle_youden_threshold_is_a_maximiser_of_the_reference(shared: Path) -> None:
    where, checked = folder(shared, "roc"), 0
    for case, expected in cases(where / "expected.json").items():
        rows = table(where / f"{case}.csv")
        for block, maximisers in expected.items():
            if not block.startswith("youden_"):
                continue
            truth, (score,) = scored(rows, block.removeprefix("youden_"))
            # the tie rule: highest sensitivity, then lowest threshold
            best = max(maximisers, key=lambda m: (m["sensitivity"], -m["smallest_score_called_positive"]))
            locked = lock_threshold(truth, score, rule="youden", partition="tuning", unit="1")
            if int(truth.sum()) < 2:
                assert locked.reason == "too_few_tuning_events"
                continue
            assert near(locked.score_cut, best["smallest_score_called_positive"]), case
            assert locked.score_cut is not None
            at = confusion(truth, score, threshold=locked.score_cut)
            assert near(at.tp / at.n_events, best["sensitivity"]), case
            assert near(at.tn / at.n_others, best["specificity"]), case
            _, tp, fp = operating_counts(truth, score)
            assert near(float((tp / at.n_events - fp / at.n_others).max()), best["youden_j"]), case
            checked += 1
    assert checked


def test_oracle_measures_of_two_by_two_tables_equal_the_reference(shared: Path) -> None:
    where = folder(shared, "confusion")
    expected = cases(where / "expected.json")
    for row in table(where / "inputs.csv"):
        wanted = expected[row["case"]]
        counts = Confusion(*(int(row[name]) for name in ("tp", "fp", "fn", "tn")))
        measured = operating_point(counts, prevalence=0.1) | {"prevalence": proportion(counts.n_events, counts.n)}
        for name in ("sensitivity", "specificity", "ppv", "npv", "accuracy", "prevalence"):
            block = wanted[name]
            assert near(measured[name].value, block["est"]), (row["case"], name)
            assert near(measured[name].lower, block["wilson_lo"]), (row["case"], name)
            assert near(measured[name].upper, block["wilson_hi"]), (row["case"], name)
            exact = clopper_pearson(block["x"], block["n"])
            assert exact is not None
            assert near(exact.lower, block["cp_lo"]), (row["case"], name)
            assert near(exact.upper, block["cp_hi"]), (row["case"], name)
        assert near(f1(counts).value, wanted["f1"])
        assert near(f1(counts).lower, wanted["f1_wilson_lo"])
        assert near(f1(counts).upper, wanted["f1_wilson_hi"])
        assert near(balanced_accuracy(counts).value, wanted["balanced_accuracy"])
        for block in wanted["adjusted"]:
            for name, function in (("ppv", ppv_at_prevalence), ("npv", npv_at_prevalence)):
                found = function(counts, prevalence=block["prevalence"])
                if found.is_estimable:
                    assert near(found.value, block[name])
                    assert near(found.lower, block[f"{name}_lo"])
                    assert near(found.upper, block[f"{name}_hi"])
                else:  # the reference has a point without an interval, or none
                    assert 0 in {counts.tp, counts.fp, counts.fn, counts.tn}


def test_oracle_proportion_intervals_equal_the_reference(shared: Path) -> None:
    where = folder(shared, "proportions")
    for row in table(where / "expected.csv"):
        x, n = int(row["x"]), int(row["n"])
        for level, name in ((0.95, "95"), (0.99, "99")):
            for method, prefix in ((wilson, "wilson"), (clopper_pearson, "cp")):
                found = method(x, n, level=level)
                assert found is not None
                assert near(found.lower, float(row[f"{prefix}{name}_lo"])), (x, n, prefix, name)
                assert near(found.upper, float(row[f"{prefix}{name}_hi"])), (x, n, prefix, name)
    for published in where.glob("published*.csv"):
        for row in table(published):
            for method, prefix in ((wilson, "wilson"), (clopper_pearson, "cp")):
                found = method(int(row["x"]), int(row["n"]))
                assert found is not None
                assert near(found.lower, float(row[f"{prefix}_lo"]), within=5.1e-5)
                assert near(found.upper, float(row[f"{prefix}_hi"]), within=5.1e-5)


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
    where, checked = folder(shared, "bland_altman"), 0
    for case, wanted in cases(where / "expected.json").items():
        found = agreement_pairs(where, case) if "sd_diff" in wanted else None
        if found is None:
            continue
        a, b = found
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


def compare_pooled(value: np.ndarray, variance: np.ndarray, wanted: dict[str, Any]) -> None:
    assert near(reml_tau2(value, variance), wanted["reml_z"]["tau2"], within=ITERATIVE)
    if value.size < 3:
        pooled = pool_random_effects(value, variance)
        assert pooled.reason == "fewer_than_3_groups"
        assert pooled.mean is None
        assert tau2_interval(value, variance) is None
        return
    named = {name: METHODS_OF_R[name] for name in wanted if name in METHODS_OF_R}
    assert len(named) == len([block for block in wanted.values() if isinstance(block, dict) and "mu" in block])
    for name, (estimator, reference) in named.items():
        pooled = pool_random_effects(value, variance, estimator=estimator, reference=reference)
        compare_pool(pooled, wanted[name], wanted["i2_higgins_from_Q_pct"])
        compare_tau2_interval(tau2_interval(value, variance), wanted[name])


def compare_pool(pooled: Pooled, wanted: dict[str, Any], i2_percent: float) -> None:
    assert pooled.interval is not None
    assert pooled.prediction is not None
    assert pooled.prediction_as_mean is not None
    assert near(cochran_p(pooled), wanted["Q_p"], within=ITERATIVE)
    for found, expected in (
        (pooled.mean, wanted["mu"]), (pooled.standard_error, wanted["se"]), (pooled.interval.lower, wanted["ci_lo"]),
        (pooled.interval.upper, wanted["ci_hi"]), (pooled.tau2, wanted["tau2"]), (pooled.q, wanted["Q"]),
        (pooled.p_value, wanted["p"]), (pooled.i2_percent, i2_percent),
    ):  # fmt: skip
        assert near(found, expected, within=ITERATIVE)
    if wanted["pi_hts_t_km2_lo"] is None:
        return
    for found, expected in (
        (pooled.prediction.lower, wanted["pi_hts_t_km2_lo"]), (pooled.prediction.upper, wanted["pi_hts_t_km2_hi"]),
        (pooled.prediction_as_mean.lower, wanted["pi_metafor_lo"]),
        (pooled.prediction_as_mean.upper, wanted["pi_metafor_hi"]),
    ):  # fmt: skip
        assert near(found, expected, within=ITERATIVE)


def cochran_p(pooled: Pooled) -> float:
    assert pooled.q is not None
    return float(stats.chi2.sf(pooled.q, pooled.n_groups - 1))


def compare_tau2_interval(found: Interval | None, wanted: dict[str, Any]) -> None:
    if wanted["tau2_ci_qprofile_hi"] is None:
        return
    if wanted["tau2_ci_qprofile_hi"] == 100:  # the reference's bound: not found
        assert found is None
        return
    assert found is not None
    assert near(found.lower, wanted["tau2_ci_qprofile_lo"], within=ITERATIVE)
    assert near(found.upper, wanted["tau2_ci_qprofile_hi"], within=ITERATIVE)


def test_oracle_random_effects_equal_the_reference(shared: Path) -> None:
    where = folder(shared, "meta")
    for case, wanted in cases(where / "expected.json").items():
        rows = table(where / f"{case}.csv")
        assert len(rows) == wanted["k"]
        compare_pooled(column(rows, "yi"), column(rows, "vi"), wanted)


def test_oracle_rogan_gladen_equals_the_reference(shared: Path) -> None:
    for row in table(folder(shared, "prevalence") / "rogan_gladen.csv"):
        for method, prefix in (("wilson", "rg_wilson"), ("clopper_pearson", "rg_cp")):
            found = rogan_gladen(
                int(row["pos"]), int(row["tested"]), sensitivity=float(row["se"]), specificity=float(row["sp"]), method=method
            )
            if row["outside_0_1"].upper() == "TRUE":
                assert found.reason == "outside_0_1"
                continue
            assert near(found.value, float(row["rogan_gladen"]))
            assert near(found.lower, float(row[f"{prefix}_lo"]))
            assert near(found.upper, float(row[f"{prefix}_hi"]))


def test_oracle_cohort_table_equals_the_reference(shared: Path) -> None:
    where = folder(shared, "cohort")
    people, pooled = table(where / "cohort.csv"), cases(where / "expected_pooled.json")
    for wanted in table(where / "expected_table.csv"):
        mine = [p for p in people if wanted["level"] == "overall" or p[wanted["level"]] == wanted["group"]]
        truth, score = column(mine, "osteoporosis").astype(bool), column(mine, "score")
        has_score = np.isfinite(score)
        assert len(mine) == int(wanted["n"])
        assert int(has_score.sum()) == int(wanted["n_scored"])
        prevalence, area = prev_label(int(truth.sum()), truth.size), auc(truth[has_score], score[has_score])
        wald = auc(truth[has_score], score[has_score], method="delong_wald")
        counts = confusion(truth[has_score], score[has_score], threshold=pooled["threshold"])
        for name in ("tp", "fp", "fn", "tn"):
            assert getattr(counts, name) == int(wanted[name]), wanted["group"]
        at = operating_point(counts, prevalence=0.1)
        for estimate, value, lower, upper in (
            (prevalence, "prevalence", "prev_lo", "prev_hi"), (area, "auc", "auc_logit_lo", "auc_logit_hi"),
            (wald, "auc", "auc_delong_lo", "auc_delong_hi"), (at["sensitivity"], "sens", "sens_lo", "sens_hi"),
            (at["specificity"], "spec", "spec_lo", "spec_hi"), (at["ppv"], "ppv", "ppv_lo", "ppv_hi"),
            (at["npv"], "npv", "npv_lo", "npv_hi"),
        ):  # fmt: skip
            assert near(estimate.value, float(wanted[value])), (wanted["group"], value)
            assert near(estimate.lower, float(wanted[lower])), (wanted["group"], lower)
            assert near(estimate.upper, float(wanted[upper])), (wanted["group"], upper)


def test_oracle_cohort_pooled_auc_equals_the_reference(shared: Path) -> None:
    where = folder(shared, "cohort")
    people, wanted = table(where / "cohort.csv"), cases(where / "expected_pooled.json")["pooled_logit_auc_over_centers"]
    effects = []
    for center in sorted({p["center"] for p in people}):
        mine = [p for p in people if p["center"] == center and p["score"] not in {"", "NA"}]
        area = roc_area(column(mine, "osteoporosis").astype(bool), column(mine, "score"))
        assert area.auc is not None
        assert area.variance is not None
        effects.append(logit_auc(area.auc, area.variance))
    assert len(effects) == wanted["k"]
    compare_pooled(np.array([e.value for e in effects]), np.array([e.variance for e in effects]), wanted)
