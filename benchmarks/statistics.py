"""AUC with DeLong intervals over many strata against a loop, and the bootstrap of persons; ratios, no limits asserted."""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from sklearn.metrics import roc_auc_score

from ospor_batch.evaluation.clustered import bootstrap_auc
from ospor_batch.evaluation.discrimination import roc_area
from ospor_batch.evaluation.grouped_areas import grouped_areas

AIM = 50.0  # times a scikit-learn loop (design section 9)
BOOTSTRAP_LIMIT_S = 60.0
MEMORY_LIMIT_MB = 2048


def people(n_strata: int, n_per_stratum: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth, score and stratum of made-up people; every stratum has both classes."""
    rng = np.random.default_rng(1)
    group = np.repeat(np.arange(n_strata), n_per_stratum)
    truth = rng.random(group.size) < 0.3
    truth[::n_per_stratum], truth[1::n_per_stratum] = True, False
    score = np.round(rng.normal(truth.astype(float), 1.2), 2)
    order = rng.permutation(group.size)
    return truth[order], score[order], group[order]


def strata(n_strata: int, n_per_stratum: int) -> list[dict[str, Any]]:
    """One vectorised pass against two loops: scikit-learn's AUC alone, and scikit-learn's AUC with a DeLong variance."""
    truth, score, group = people(n_strata, n_per_stratum)
    best = min(_timed(lambda: grouped_areas(truth, score, group=group, n_groups=n_strata))[0] for _ in range(3))
    found = grouped_areas(truth, score, group=group, n_groups=n_strata)
    order = np.argsort(group, kind="stable")
    by_group = truth[order], score[order]
    parts = [tuple(of[i : i + n_per_stratum] for of in by_group) for i in range(0, truth.size, n_per_stratum)]
    alone, areas = _timed(lambda: [roc_auc_score(t, s) for t, s in parts])
    with_interval, variances = _timed(lambda: [_delong(t, s) for t, s in parts])
    error = float(np.abs(found.auc - np.array(areas)).max())
    error_variance = float(np.abs(found.variance - np.array(variances)).max())
    assert error < 1e-12
    assert error_variance < 1e-12
    said = {"work": f"AUC and DeLong CI, {n_strata} strata of {n_per_stratum}", "ours_s": best, "aim": AIM}
    return [
        said | _against("scikit-learn loop, AUC alone", alone, best) | {"largest_difference": error},
        said | _against("scikit-learn loop, AUC and DeLong", with_interval, best) | {"largest_difference": error_variance},
    ]


def _against(peer: str, peer_s: float, ours_s: float) -> dict[str, Any]:
    return {"peer": peer, "peer_s": peer_s, "ratio": peer_s / ours_s}


def _delong(truth: np.ndarray, score: np.ndarray) -> float:
    roc_auc_score(truth, score)
    n1, n0 = int(truth.sum()), int((~truth).sum())
    ranks = stats.rankdata(score)
    v10 = (ranks[truth] - stats.rankdata(score[truth])) / n0
    v01 = 1 - (ranks[~truth] - stats.rankdata(score[~truth])) / n1
    return float(v10.var(ddof=1) / n1 + v01.var(ddof=1) / n0)


def bootstrap(n_rows: int, n_replicates: int) -> dict[str, Any]:
    """A bootstrap of persons with two images each, against sorting anew for each replicate (a tenth of a percent of them)."""
    rng = np.random.default_rng(2)
    person = np.repeat(np.arange(n_rows // 2), 2)
    truth = np.repeat(rng.random(n_rows // 2) < 0.2, 2)
    score = rng.normal(truth.astype(float), 1.2)
    started = time.process_time()
    ours, found = _timed(lambda: bootstrap_auc(truth, score, cluster=person, seed=3, n_replicates=n_replicates))
    assert found is not None
    one, _ = _timed(lambda: roc_area(truth, score))
    return {
        "work": f"clustered bootstrap, {n_replicates} replicates of {n_rows} rows",
        "ours_s": ours,
        "ours_cpu_s": time.process_time() - started,
        "limit_s": BOOTSTRAP_LIMIT_S,
        **_against("one AUC with sorting, times the replicates", one * n_replicates, ours),
        "standard_error": found.standard_error,
    }


def _timed(work: Any) -> tuple[float, Any]:
    started = time.perf_counter()
    found = work()
    return time.perf_counter() - started, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--strata", type=int, default=10_000)
    parser.add_argument("--people", type=int, default=100, help="people per stratum")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--replicates", type=int, default=2000)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows = [*strata(given.strata, given.people), bootstrap(given.rows, given.replicates)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # kilobytes on Linux
    for row in rows:
        bound = f"aim {row['aim']:g}x" if "aim" in row else f"limit {row['limit_s']:g} s"
        ours, peer = f"{row['work']:55} {row['ours_s']:9.3f} s", f"{row['peer']:45} {row['peer_s']:9.2f} s"
        print(f"{ours}   {peer}   {row['ratio']:8.1f}x   {bound}")
    print(f"largest memory of the whole run: {peak:.0f} MB, limit {MEMORY_LIMIT_MB} MB")
    if given.json:
        given.json.write_text(json.dumps({"rows": rows, "peak_mb": peak}, indent=2) + "\n")


if __name__ == "__main__":
    main()
