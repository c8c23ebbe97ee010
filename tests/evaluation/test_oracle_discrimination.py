"""Equality with reference results computed outside Python: areas under the curve, thresholds, classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ospor_batch.evaluation.clustered import bootstrap_auc, clustered_area, clustered_proportion, compare_clustered
from ospor_batch.evaluation.curves import compare_unpaired, partial_area
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
from ospor_batch.evaluation.grouped_areas import grouped_areas
from ospor_batch.evaluation.intervals import clopper_pearson, proportion
from ospor_batch.evaluation.three_class import class_measures, class_table, hand_till, one_against_rest, weighted_kappa
from ospor_batch.evaluation.threshold import lock_threshold
from ospor_batch.evaluation.two_by_two import (
    cohen_kappa,
    diagnostic_odds_ratio,
    matthews,
    mcnemar,
    negative_likelihood_ratio,
    positive_likelihood_ratio,
    youden_index,
)
from tests.evaluation.oracle_files import Row, cases, column, folder, near, scored, table


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
