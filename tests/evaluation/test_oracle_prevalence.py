"""Equality with reference results computed outside Python: proportions, standards, verification, suppression."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np

from ospor_batch.evaluation.discrimination import (
    Confusion,
    auc,
    confusion,
    operating_point,
)
from ospor_batch.evaluation.intervals import clopper_pearson, proportion, wilson
from ospor_batch.evaluation.multiplicity import METHODS, adjusted
from ospor_batch.evaluation.prevalence import prev_label, rogan_gladen
from ospor_batch.evaluation.standardization import (
    STANDARDS,
    direct_standardised,
    group_said,
    standard_weights,
)
from ospor_batch.evaluation.suppression import bounds_of
from ospor_batch.evaluation.verification import begg_greenes
from tests.evaluation.oracle_files import Row, cases, column, folder, near, table


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


def test_oracle_adjusted_p_values_equal_the_reference(shared: Path) -> None:
    rows = table(folder(shared, "multiplicity") / "expected.csv")
    for method in METHODS:
        found = adjusted([float(row["p"]) for row in rows], method=method)
        assert all(near(value, float(row[method])) for value, row in zip(found, rows, strict=True)), method


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
