"""Three classes (normal, low bone mass, osteoporosis): the 3 x 3 table, weighted kappa, and areas by class."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ospor_batch.evaluation.discrimination import roc_area
from ospor_batch.evaluation.intervals import LEVEL, Estimate, Interval, estimated, normal_quantile, not_estimable, proportion

CLASSES = ("normal", "low_bone_mass", "osteoporosis")
Counts = NDArray[np.int64]


def class_table(truth: ArrayLike, predicted: ArrayLike, *, n_classes: int = len(CLASSES)) -> Counts:
    """Persons by true (rows) and predicted class (columns), both coded from 0."""
    t, p = np.asarray(truth, dtype=np.int64), np.asarray(predicted, dtype=np.int64)
    return np.bincount(t * n_classes + p, minlength=n_classes * n_classes).reshape(n_classes, n_classes)


def weighted_kappa(table: ArrayLike, *, weights: str | None = None, interval: str = "fleiss", level: float = LEVEL) -> Estimate:
    """Kappa, unweighted or ``quadratic``, with Fleiss, Cohen and Everitt's large-sample interval (1969; methods S5).

    interval ``psych`` gives the limits of R's psych 2.2, to compare with papers that used it: for weights its row term is
    the row share times the sum of the row's weights, not the weighted mean of the formula, and its limits are too narrow.
    """
    counts = np.asarray(table, dtype=np.float64)
    n, k = float(counts.sum()), counts.shape[0]
    if n == 0:
        return not_estimable("no_persons")
    p = counts / n
    row, column = p.sum(axis=1), p.sum(axis=0)
    at = np.arange(k)
    away = (at[:, None] - at[None, :]) / (k - 1)
    w = 1 - away**2 if weights == "quadratic" else np.eye(k)
    observed, chance = float((w * p).sum()), float((w * np.outer(row, column)).sum())
    if 1 - chance < 1e-12:
        return not_estimable("zero_variance")
    value = (observed - chance) / (1 - chance)
    of_row = w @ column
    of_column = row * w.sum(axis=1) if interval == "psych" and weights else w.T @ row
    inner = w * (1 - chance) - (of_row[:, None] + of_column[None, :]) * (1 - observed)
    variance = float((p * inner**2).sum()) - (observed * chance - 2 * chance + observed) ** 2
    variance /= n * (1 - chance) ** 4
    if variance <= 0:
        return not_estimable("zero_variance")
    half = normal_quantile(level) * math.sqrt(variance)
    method = f"{weights or 'unweighted'}_{interval}"
    return estimated(value, Interval(value - half, min(1.0, value + half)), method=method)


def class_measures(table: ArrayLike, *, level: float = LEVEL) -> dict[str, Estimate]:
    """Accuracy, kappas, and recall and precision of each class, by name."""
    counts = np.asarray(table, dtype=np.int64)
    found = {
        "accuracy": proportion(int(np.trace(counts)), int(counts.sum()), level=level),
        "kappa_unweighted": weighted_kappa(counts, level=level),
        "kappa_quadratic": weighted_kappa(counts, weights="quadratic", level=level),
    }
    for i, name in enumerate(CLASSES):
        found[f"recall_{name}"] = proportion(int(counts[i, i]), int(counts[i].sum()), empty="no_persons", level=level)
        found[f"precision_{name}"] = proportion(
            int(counts[i, i]), int(counts[:, i].sum()), empty="no_positive_calls", level=level
        )
    return found


def hand_till(truth: ArrayLike, probabilities: ArrayLike) -> Estimate:
    """Mean of the pairwise areas (Hand and Till 2001); rounded probabilities are brought back to a sum of 1."""
    from sklearn.metrics import roc_auc_score  # late: 1 s

    t, p = np.asarray(truth, dtype=np.int64), np.asarray(probabilities, dtype=np.float64)
    if t.size == 0 or np.unique(t).size < p.shape[1]:
        return not_estimable("class_missing" if t.size else "no_persons")
    shares = p / p.sum(axis=1, keepdims=True)
    return estimated(float(roc_auc_score(t, shares, multi_class="ovo", average="macro")), None, method="hand_till")


def one_against_rest(truth: ArrayLike, probabilities: ArrayLike) -> list[float | None]:
    """AUC of each class against the others by its own probability; null where a class is missing or everybody."""
    t, p = np.asarray(truth, dtype=np.int64), np.asarray(probabilities, dtype=np.float64)
    return [roc_area(t == i, p[:, i]).auc for i in range(p.shape[1])]
