"""Equality with reference results: clusters, reliability, risks, standards, verification, classes, masks, suppression."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np

from ospor_batch.evaluation.agreement import bland_altman
from ospor_batch.evaluation.clustered import bootstrap_auc, clustered_area, clustered_proportion, compare_clustered
from ospor_batch.evaluation.curves import compare_unpaired, partial_area
from ospor_batch.evaluation.decision import net_benefit
from ospor_batch.evaluation.differences import (
    approximate_limits,
    mover_limits,
    proportional_bias,
    repeated_pairs,
)
from ospor_batch.evaluation.discrimination import Confusion, roc_area
from ospor_batch.evaluation.grouped_areas import grouped_areas
from ospor_batch.evaluation.intervals import proportion
from ospor_batch.evaluation.multiplicity import METHODS, adjusted
from ospor_batch.evaluation.overlap import overlap
from ospor_batch.evaluation.reliability import concordance, icc
from ospor_batch.evaluation.risk_calibration import (
    brier,
    calibration_line,
    ece,
    lowess_curve,
    observed_over_expected,
    scaled_brier,
    smooth_curve,
    spiegelhalter,
)
from ospor_batch.evaluation.standardization import (
    STANDARDS,
    direct_standardised,
    group_said,
    standard_weights,
)
from ospor_batch.evaluation.suppression import bounds_of
from ospor_batch.evaluation.three_class import class_measures, class_table, hand_till, one_against_rest, weighted_kappa
from ospor_batch.evaluation.two_by_two import (
    cohen_kappa,
    diagnostic_odds_ratio,
    matthews,
    mcnemar,
    negative_likelihood_ratio,
    positive_likelihood_ratio,
    youden_index,
)
from ospor_batch.evaluation.verification import begg_greenes
from tests.evaluation.oracle_files import ITERATIVE, LIMITS, Row, cases, column, folder, near, scored, table
from tests.evaluation.test_oracles import agreement_pairs


def test_oracle_partial_areas_equal_the_reference(shared: Path) -> None:
    where, checked = folder(shared, "roc"), 0
    for case, expected in cases(where / "expected.json").items():
        for block, areas in expected.items():
            if not block.startswith("pauc_"):
                continue
            truth, (score,) = scored(table(where / f"{case}.csv"), block.removeprefix("pauc_"))
            for wanted in areas:
                found = partial_area(truth, score, max_fpr=wanted["max_fpr"])
                assert near(found.raw, wanted["pauc_raw"]), (case, wanted)
                assert near(found.standardised, wanted["pauc_mcclish"]), (case, wanted)
                checked += 1
    assert checked


def unpaired_groups(rows: list[Row], block: str) -> tuple[str, list[list[Row]]]:
    """The marker of an unpaired block and the two groups of people, in the order that the block names them."""
    words = block.removeprefix("unpaired_").split("_")
    marker = next(word for word in words if word in rows[0])
    named = [word for word in words if word not in {marker, "vs"}]
    for name in rows[0]:
        values = sorted({row[name] for row in rows})
        if len(values) != 2 or name in {"y", marker}:
            continue
        if name in named:  # an indicator: its own name is the group where it is 1
            order = sorted(values, reverse=named[0] == name)
        elif not named or {w.lower() for w in named} == {v.lower() for v in values}:
            order = sorted(values, key=lambda v: named.index(v.lower()) if named else v)
        else:
            continue
        return marker, [[row for row in rows if row[name] == value] for value in order]
    raise AssertionError(f"no column parts the people of {block}")


def test_oracle_unpaired_areas_equal_the_reference(shared: Path) -> None:
    where, checked = folder(shared, "roc"), 0
    for case, expected in cases(where / "expected.json").items():
        for block, wanted in expected.items():
            if not block.startswith("unpaired_"):
                continue
            marker, groups = unpaired_groups(table(where / f"{case}.csv"), block)
            areas = []
            for rows in groups:
                truth, (score,) = scored(rows, marker)
                areas.append(roc_area(truth, score))
            found = compare_unpaired(*areas)
            for value, name in (
                (areas[0].auc, "auc_a"), (areas[1].auc, "auc_b"), (found.difference, "diff"), (found.standard_error, "se_diff"),
                (found.z, "z"), (found.degrees, "proc_df"), (found.p_t, "proc_p_t"), (found.p_normal, "p_normal"),
            ):  # fmt: skip
                assert near(value, wanted[name]), (case, block, name)
            checked += 1
    assert checked


def test_oracle_areas_of_groups_equal_each_area(shared: Path) -> None:
    where, truths, scores, codes, wanted = folder(shared, "roc"), [], [], [], []
    for case, expected in cases(where / "expected.json").items():
        for marker, block in expected.items():
            rows = table(where / f"{case}.csv")
            if isinstance(block, dict) and "var_delong" in block and marker in rows[0]:
                truth, (score,) = scored(rows, marker)
                truths.append(truth)
                scores.append(score)
                codes.append(np.full(truth.size, len(wanted)))
                wanted.append(block)
    found = grouped_areas(np.concatenate(truths), np.concatenate(scores), group=np.concatenate(codes), n_groups=len(wanted))
    for i, block in enumerate(wanted):
        assert near(float(found.auc[i]), block["auc"])
        if block["var_delong"] is None:
            assert np.isnan(found.variance[i])
        else:
            assert near(float(found.variance[i]), block["var_delong"])
        if block.get("ci_logit_lo") is not None and block["var_delong"]:
            assert near(float(found.logit_lower[i]), block["ci_logit_lo"])
            assert near(float(found.logit_upper[i]), block["ci_logit_hi"])


def test_oracle_likelihood_ratios_kappa_and_mcc_equal_the_reference(shared: Path) -> None:
    where = folder(shared, "confusion")
    expected = cases(where / "expected.json")
    for row in table(where / "inputs.csv"):
        counts, wanted = Confusion(*(int(row[name]) for name in ("tp", "fp", "fn", "tn"))), expected[row["case"]]
        for name, found in (
            ("mcc", matthews(counts)), ("kappa", cohen_kappa(counts)), ("youden_j", youden_index(counts)),
            ("lr_pos", positive_likelihood_ratio(counts)), ("lr_neg", negative_likelihood_ratio(counts)),
            ("dor", diagnostic_odds_ratio(counts)),
        ):  # fmt: skip
            if not found.is_estimable:
                assert wanted.get(name) in {None, 0, "Inf"} or isinstance(wanted.get(name), str), (row["case"], name)
                continue
            assert near(found.value, wanted[name]), (row["case"], name)
            if name.startswith("lr_") and found.lower is not None:
                assert near(found.lower, wanted[f"{name}_lo"]), (row["case"], name)
                assert near(found.upper, wanted[f"{name}_hi"]), (row["case"], name)


def test_oracle_mcnemar_equals_the_reference(shared: Path) -> None:
    where = folder(shared, "confusion")
    rows = table(where / "mcnemar.csv")
    models = [name for name in rows[0] if name not in {"id", "truth"}]
    for case, wanted in cases(where / "mcnemar_expected.json").items():
        found = mcnemar(wanted["b"], wanted["c"])
        side = {"sensitivity": "1", "specificity": "0"}.get(case)
        if side is not None:
            mine = [row for row in rows if row["truth"] == side]
            right = [tuple(row[model] for model in models) for row in mine]
            assert (len(mine), right.count(("1", "0")), right.count(("0", "1"))) == (wanted["n"], wanted["b"], wanted["c"])
        for value, name in (
            (found.p_exact, "p_exact"), (found.chi2, "chi2_uncorrected"), (found.p_chi2, "p_uncorrected"),
            (found.chi2_corrected, "chi2_corrected"), (found.p_corrected, "p_corrected"),
        ):  # fmt: skip
            assert near(value, wanted[name]), (case, name)


def test_oracle_clustered_areas_and_proportions_equal_the_reference(shared: Path) -> None:
    where = folder(shared, "clustered")
    for case, wanted in cases(where / "expected.json").items():
        if "file" in wanted:
            rows = table(shared / "oracles" / wanted["file"])
            truth, (score,) = scored(rows, "s1")
            alone = clustered_area(truth, score, cluster=np.arange(truth.size))
            assert alone.variance is not None
            assert near(alone.variance**0.5, wanted["se_obuchowski"])
            assert near(alone.variance**0.5, wanted["se_delong"])
            continue
        rows = table(where / f"images_{case}.csv")
        truth, (first, second) = scored(rows, "s1", "s2")
        person = np.array([row["patient_id"] for row in rows])
        for name, score in (("s1", first), ("s2", second)):
            area = clustered_area(truth, score, cluster=person)
            assert near(area.auc, wanted[f"auc_{name}"])
            assert area.variance is not None
            assert near(area.variance**0.5, wanted[f"se_{name}_obuchowski"])
        found = compare_clustered(truth, first, other_score=second, cluster=person)
        for value, name in (
            (found.difference, "diff"), (found.covariance, "cov_obuchowski"), (found.standard_error, "se_diff"),
            (found.z, "z"), (found.p_value, "p"),
        ):  # fmt: skip
            assert near(value, wanted[name]), (case, name)
        called = first >= wanted["threshold"]
        for name, mine, hit in (("sensitivity", truth, called[truth]), ("specificity", ~truth, ~called[~truth])):
            share, block = clustered_proportion(hit, cluster=person[mine]), wanted[name]
            assert near(share.value, block["est"])
            assert near(share.lower, block["ci_logit_t_lo"]), (case, name)
            assert near(share.upper, block["ci_logit_t_hi"]), (case, name)
        resampled, block = bootstrap_auc(truth, first, cluster=person, seed=7), wanted["cluster_bootstrap"]
        assert resampled is not None
        assert abs(resampled.standard_error / block["se"] - 1) < 0.06
        assert abs(resampled.interval.lower - block["pct_lo"]) < 0.01
        assert abs(resampled.interval.upper - block["pct_hi"]) < 0.01


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
    where, checked = folder(shared, "bland_altman"), 0
    for case, wanted in cases(where / "expected.json").items():
        found = agreement_pairs(where, case) if "sd_diff" in wanted else None
        if found is None:
            continue
        a, b = found
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


def test_oracle_calibration_equals_the_reference(shared: Path) -> None:
    where = folder(shared, "calibration")
    for case, wanted in cases(where / "expected.json").items():
        truth, (risk,) = scored(table(where / f"{case}.csv"), "p")
        line, ratio, curve = calibration_line(truth, risk), observed_over_expected(truth, risk), smooth_curve(truth, risk)
        z = spiegelhalter(truth, risk)
        assert z is not None
        assert curve is not None
        for value, name, within in (
            (line.slope.value, "slope", ITERATIVE), (line.slope.lower, "slope_lo", ITERATIVE),
            (line.slope.upper, "slope_hi", ITERATIVE), (line.intercept, "intercept_joint", ITERATIVE),
            (line.in_the_large.value, "citl", ITERATIVE), (line.in_the_large.lower, "citl_lo", ITERATIVE),
            (line.in_the_large.upper, "citl_hi", ITERATIVE), (brier(truth, risk).value, "brier", 1e-8),
            (scaled_brier(truth, risk).value, "brier_scaled", 1e-8), (ratio.value, "o_e", 1e-8),
            (ratio.lower, "o_e_lo", 1e-8), (ratio.upper, "o_e_hi", 1e-8),
            (ece(truth, risk, equal_mass=False)[0], "ece_equal_width_10", 1e-8),
            (ece(truth, risk, equal_mass=False)[1], "mce_equal_width_10", 1e-8),
            (ece(truth, risk, equal_mass=True)[0], "ece_equal_mass_10", 1e-8),
            (z[0], "spiegelhalter_z", 1e-8), (z[1], "spiegelhalter_p", 1e-8), (curve.ici, "loess_ici", ITERATIVE),
            (curve.e50, "loess_e50", ITERATIVE), (curve.e90, "loess_e90", ITERATIVE), (curve.e_max, "loess_emax", ITERATIVE),
        ):  # fmt: skip
            assert near(value, wanted[name], within=within), (case, name, value, wanted[name])
        grid = lowess_curve(truth, risk, at=wanted["lowess_grid_x"])
        assert np.abs(grid - np.array(wanted["lowess_grid_y"])).max() < 1e-3, case  # as the reference states


def test_oracle_net_benefit_equals_the_reference(shared: Path) -> None:
    where = folder(shared, "dca")
    for case, wanted in cases(where / "expected.json").items():
        truth, (risk,) = scored(table(shared / "oracles" / wanted["file"]), "p")
        for block, points in wanted.items():
            if block == "file":
                continue
            prevalence = float(block.removeprefix("prevalence_set_to_")) if block.startswith("prevalence_set_to_") else None
            found = net_benefit(truth, risk, thresholds=[point["threshold"] for point in points], prevalence=prevalence)
            for got, point in zip(found, points, strict=True):
                assert near(got.model, point["nb_model"]), (case, block, point)
                assert near(got.everyone, point["nb_all"]), (case, block, point)


def weights_50plus(shared: Path, standard: str) -> dict[str, float]:
    rows = table(shared / "oracles" / "standardization" / "standard_populations.csv")
    return {row["age_group"]: float(row[standard]) for row in rows}


def check_standardised(rows: list[Row], wanted: dict[str, Any], weight: dict[str, float]) -> None:
    counts, n = [int(row["count"]) for row in rows], [int(row["pop"]) for row in rows]
    for form in ("gamma", "binomial_wald", "binomial_logit"):
        found = direct_standardised(counts, n, weight=[weight[row["age_group"]] for row in rows], form=form)
        assert found.n_strata + found.n_empty_strata == wanted["n_strata"]
        assert found.n_empty_strata == wanted["n_empty_strata_dropped"]
        prefix = form if found.estimate.method == form else "gamma"  # nobody: the binomial limits are undefined
        assert near(found.estimate.value, wanted["adjusted"])
        assert near(found.estimate.lower, wanted[f"{prefix}_lo"] or 0.0), (form, found)
        assert near(found.estimate.upper, wanted[f"{prefix}_hi"]), (form, found)
        assert near(found.variance_binomial, wanted["var_binomial"])
        assert near(found.variance_poisson, wanted["var_poisson"])


def test_oracle_standards_are_the_published_ones(shared: Path) -> None:
    rows = table(folder(shared, "standardization") / "standard_populations.csv")
    for name in STANDARDS:
        listed = np.array([float(row[name]) for row in rows])
        assert [row["age_group"] for row in rows] == [group_said(i) for i in range(len(rows))]
        ours = np.array(standard_weights(name))
        assert np.allclose(ours / ours.sum(), listed / listed.sum(), rtol=0, atol=1e-12), name


def test_oracle_standardised_rates_equal_the_reference(shared: Path) -> None:
    where, checked = folder(shared, "standardization"), 0
    for case, standards in cases(where / "expected.json").items():
        path = where / f"strata_{case}.csv"
        if not path.is_file():
            continue
        rows = table(path)
        for standard, groups in standards.items():
            for group, wanted in groups.items():
                sex = {"women": "F", "men": "M"}.get(group.split("_")[0])
                mine = [row for row in rows if sex is None or row["sex"] == sex]
                check_standardised(mine, wanted, weights_50plus(shared, standard))
                checked += 1
    assert checked


def test_oracle_published_standardisation_is_reproduced(shared: Path) -> None:
    where, checked = folder(shared, "standardization"), 0
    for case, groups in cases(where / "expected.json").items():
        words = case.split("_per_")
        path = where / f"{words[0]}.csv"
        if len(words) != 2 or not path.is_file():
            continue
        rows, per = table(path), float(words[1])
        parts = next(name for name in rows[0] if any(group.startswith(name) for group in groups))
        for group, wanted in groups.items():
            mine = [row for row in rows if row[parts] == group.removeprefix(f"{parts}_")]
            columns = (column(mine, "count"), column(mine, "pop"))
            found = direct_standardised(*columns, weight=column(mine, "standard"), form="gamma").estimate
            assert found.value is not None
            assert found.lower is not None
            assert found.upper is not None
            assert near(per * found.value, wanted["adjusted"])
            assert near(per * found.lower, wanted["gamma_lo"])
            assert near(per * found.upper, wanted["gamma_hi"])
            checked += 1
    assert checked


def test_oracle_cohort_standardised_prevalence_equals_the_reference(shared: Path) -> None:
    where, checked = folder(shared, "cohort"), 0
    people = table(where / "cohort.csv")
    wanted_all = cases(where / "expected_pooled.json")["age_standardised_prevalence_who_50plus"]
    weight = standard_weights("who_2000_2025")
    for center, sexes in wanted_all.items():
        for sex, wanted in sexes.items():
            mine = [p for p in people if p["center"] == center and p["sex"] == sex and float(p["age"]) >= 50]
            band = [min(int(float(p["age"]) // 5), 17) for p in mine]
            n = np.bincount(band, minlength=18)
            events = np.bincount(band, [float(p["osteoporosis"]) for p in mine], 18)
            used = [w if i >= 10 else 0.0 for i, w in enumerate(weight)]
            found = direct_standardised(events, n, weight=used)
            assert near(found.estimate.value, wanted["adjusted"]), (center, sex)
            prefix = found.estimate.method
            assert near(found.estimate.lower, wanted[f"{prefix}_lo"] or 0.0), (center, sex)
            assert near(found.estimate.upper, wanted[f"{prefix}_hi"]), (center, sex)
            assert found.n_empty_strata == wanted["n_empty_strata_dropped"]
            for form in ("gamma", "binomial_wald", "binomial_logit"):
                other = direct_standardised(events, n, weight=used, form=form).estimate
                if other.method != form or wanted[f"{form}_hi"] is None:
                    continue
                assert near(other.lower, wanted[f"{form}_lo"] or 0.0), (center, sex, form)
                assert near(other.upper, wanted[f"{form}_hi"]), (center, sex, form)
            crude = proportion(int(events[10:].sum()), int(n[10:].sum()))
            assert (near(crude.value, wanted["crude"]), near(crude.lower, wanted["crude_wilson_lo"])) == (True, True)
            checked += 1
    assert checked


def test_oracle_begg_greenes_equals_the_reference(shared: Path) -> None:
    expected = cases(folder(shared, "verification") / "expected.json")
    for case in [expected] if "inputs" in expected else expected.values():
        given, wanted = case["inputs"], case["result"]
        verified = Confusion(*(given[f"{name}_verified"] for name in ("tp", "fp", "fn", "tn")))
        found = begg_greenes(
            verified, n_positive_unverified=given["test_pos_unverified"], n_negative_unverified=given["test_neg_unverified"]
        )
        for estimate, name in ((found.sensitivity, "sens"), (found.specificity, "spec")):
            assert near(estimate.value, wanted[f"corrected_{'sensitivity' if name == 'sens' else 'specificity'}"])
            assert near(estimate.lower, wanted[f"{name}_ci"][0])
            assert near(estimate.upper, wanted[f"{name}_ci"][1])
        assert near(found.prevalence.value, wanted["corrected_prevalence"])


def test_oracle_three_classes_equal_the_reference(shared: Path) -> None:
    where = folder(shared, "multiclass")
    wanted = cases(where / "expected.json")
    for path in sorted(where.glob("*.csv")):
        rows = table(path)
        truth, predicted = column(rows, "truth").astype(int), column(rows, "pred").astype(int)
        probabilities = np.column_stack([column(rows, f"p{i}") for i in range(3)])
        counts = class_table(truth, predicted)
        assert counts.tolist() == wanted["confusion_rows_truth"]
        found = class_measures(counts)
        assert near(found["accuracy"].value, wanted["accuracy"])
        assert near(found["accuracy"].lower, wanted["accuracy_wilson"][0])
        for name in ("unweighted", "quadratic"):
            assert near(found[f"kappa_{name}"].value, wanted[f"kappa_{name}"])
            kappa = weighted_kappa(counts, weights="quadratic" if name == "quadratic" else None, interval="psych")
            assert near(kappa.lower, wanted[f"kappa_{name}_ci"][0]), name
            assert near(kappa.upper, wanted[f"kappa_{name}_ci"][1]), name
        recalls = [e.value for name, e in found.items() if name.startswith("recall_")]
        precisions = [e.value for name, e in found.items() if name.startswith("precision_")]
        for values, name in ((recalls, "recall_per_class"), (precisions, "precision_per_class")):
            assert all(near(value, other) for value, other in zip(values, wanted[name], strict=True)), name
        assert near(hand_till(truth, probabilities).value, wanted["hand_till_auc_mean_of_pairs"])
        areas = one_against_rest(truth, probabilities)
        assert all(near(value, other) for value, other in zip(areas, wanted["ovr_auc_per_class"], strict=True))


def test_oracle_adjusted_p_values_equal_the_reference(shared: Path) -> None:
    rows = table(folder(shared, "multiplicity") / "expected.csv")
    for method in METHODS:
        found = adjusted([float(row["p"]) for row in rows], method=method)
        assert all(near(value, float(row[method])) for value, row in zip(found, rows, strict=True)), method


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


def test_oracle_suppressed_cells_have_the_bounds_of_the_reference(shared: Path) -> None:
    for case, wanted in cases(folder(shared, "suppression") / "expected.json").items():
        counts = np.array(wanted["counts"])
        names = {(i, j): i * counts.shape[1] + j for i, j in itertools.product(*map(range, counts.shape))}
        hidden = {names[cell[0], cell[1]] for cell in wanted["suppressed_cells_row_col_0based"]}
        relations, values = [], [float(v) for v in counts.flatten()]
        for members in [*([(i, j) for j in range(counts.shape[1])] for i in range(counts.shape[0])),
                        *([(i, j) for i in range(counts.shape[0])] for j in range(counts.shape[1]))]:  # fmt: skip
            relations.append({**{names[m]: 1.0 for m in members}, len(values): -1.0})
            values.append(float(sum(counts[m] for m in members)))
        found = bounds_of(values, relations, hidden=hidden)
        for at, low, high in zip(
            wanted["suppressed_cells_row_col_0based"], wanted["feasible_min"], wanted["feasible_max"], strict=True
        ):
            bounds = found[names[at[0], at[1]]]
            assert near(bounds[0], low, within=1e-6), case
            assert near(bounds[1], high, within=1e-6), case
        exact = [i for i, at in enumerate(wanted["suppressed_cells_row_col_0based"])
                 if found[names[at[0], at[1]]][1] - found[names[at[0], at[1]]][0] < 0.5]  # fmt: skip
        assert exact == wanted["cells_exactly_recoverable"], case
