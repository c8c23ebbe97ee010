"""Several images of a person: AUC after Obuchowski, proportions by linearisation, and a bootstrap of persons."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from ospor_batch.evaluation.discrimination import NO_VARIANCE, classes, placements
from ospor_batch.evaluation.intervals import (
    LEVEL,
    Estimate,
    Interval,
    estimated,
    expit,
    logit,
    normal_quantile,
    not_estimable,
)

Floats = NDArray[np.float64]
FEWEST_CLUSTERS = 2  # the variance divides by clusters - 1


@dataclass(frozen=True)
class ClusteredArea:
    """AUC over images with a variance over persons; null with a reason."""

    n_images: int
    n_clusters: int
    auc: float | None
    variance: float | None
    reason: str | None = None


@dataclass(frozen=True)
class ClusteredDifference:
    """AUC of the first score minus that of the second over the same images."""

    difference: float | None
    covariance: float | None
    standard_error: float | None
    z: float | None
    p_value: float | None
    reason: str | None = None


@dataclass(frozen=True)
class Resampled:
    """What a bootstrap of persons gives: SE and percentile limits over the replicates that had both classes."""

    n_replicates: int
    n_used: int
    standard_error: float
    interval: Interval


def clustered_area(truth: ArrayLike, score: ArrayLike, *, cluster: ArrayLike) -> ClusteredArea:
    """AUC over images with Obuchowski's variance over persons (1997; methods S7); DeLong's for single images."""
    found = _components(truth, score, cluster=cluster)
    if isinstance(found, ClusteredArea):
        return found
    return ClusteredArea(found.n_images, found.n_any, found.auc, _covariance(found, found))


def clustered_auc(truth: ArrayLike, score: ArrayLike, *, cluster: ArrayLike, level: float = LEVEL) -> Estimate:
    """Estimate the AUC over images with a logit interval on Obuchowski's variance."""
    area = clustered_area(truth, score, cluster=cluster)
    if area.auc is None or area.variance is None:
        return not_estimable(area.reason or "too_few_clusters")
    if area.variance <= NO_VARIANCE or area.auc in {0.0, 1.0}:
        return not_estimable("perfect_separation" if area.auc in {0.0, 1.0} else "zero_variance")
    half = normal_quantile(level) * math.sqrt(area.variance) / (area.auc * (1 - area.auc))
    at = logit(area.auc)
    return estimated(area.auc, Interval(expit(at - half), expit(at + half)), method="obuchowski_logit")


def compare_clustered(truth: ArrayLike, score: ArrayLike, *, other_score: ArrayLike, cluster: ArrayLike) -> ClusteredDifference:
    """Paired test of two scores on the same images of the same persons; equal scores give p = 1."""
    first, second = _components(truth, score, cluster=cluster), _components(truth, other_score, cluster=cluster)
    if isinstance(first, ClusteredArea) or isinstance(second, ClusteredArea):
        reason = first.reason if isinstance(first, ClusteredArea) else "too_few_clusters"
        return ClusteredDifference(None, None, None, None, None, reason)
    covariance = _covariance(first, second)
    variance = _covariance(first, first) + _covariance(second, second) - 2 * covariance
    difference = first.auc - second.auc
    if variance <= NO_VARIANCE:
        same = math.isclose(difference, 0.0, abs_tol=1e-14)
        z, p, why = (0.0, 1.0, None) if same else (None, None, "zero_variance")
        return ClusteredDifference(difference, covariance, 0.0, z, p, why)
    se = math.sqrt(variance)
    z = difference / se
    return ClusteredDifference(difference, covariance, se, z, float(2 * stats.norm.sf(abs(z))))


def clustered_proportion(success: ArrayLike, *, cluster: ArrayLike, level: float = LEVEL) -> Estimate:
    """Share of images with success, linearised over persons, logit interval with t(clusters - 1) (methods S7)."""
    hit = np.asarray(success).astype(np.float64)
    code, n_clusters = _codes(cluster)
    if hit.size == 0:
        return not_estimable("no_persons")
    share = float(hit.mean())
    if n_clusters < FEWEST_CLUSTERS:
        return not_estimable("too_few_clusters")
    if share in {0.0, 1.0}:
        return not_estimable("zero_variance")
    residual = np.bincount(code, hit - share, n_clusters)
    variance = n_clusters / (n_clusters - 1) * float(residual @ residual) / hit.size**2
    half = float(stats.t.ppf(0.5 + level / 2, n_clusters - 1)) * math.sqrt(variance) / (share * (1 - share))
    return estimated(share, Interval(expit(logit(share) - half), expit(logit(share) + half)), method="clustered_logit_t")


def bootstrap_auc(
    truth: ArrayLike, score: ArrayLike, *, cluster: ArrayLike, seed: int, n_replicates: int = 2000, level: float = LEVEL
) -> Resampled | None:
    """Percentile bootstrap of the AUC: persons are drawn, within class where every person has one class (methods S7).

    A drawn person counts with all images; the rows are sorted once and each replicate is one weighted pass, so that
    2000 replicates of a million rows take well under a minute. Null without both classes.
    """
    event, value = classes(truth, score)
    if not event.any() or event.all():
        return None
    code, n_clusters = _codes(cluster)
    groups = _resampling_groups(event, code, n_clusters)
    order = np.argsort(value[~event], kind="stable")
    others, of_others = value[~event][order], code[~event][order]
    rising = np.argsort(value[event], kind="stable")
    events, of_events = value[event][rising], code[event][rising]
    below, upto = np.searchsorted(others, events, "left"), np.searchsorted(others, events, "right")
    has_ties = bool((below != upto).any())
    rng, found = np.random.default_rng(seed), np.full(n_replicates, np.nan)
    running, drawn = np.zeros(others.size + 1, dtype=np.int32), np.empty(others.size, dtype=np.uint8)
    for i in range(n_replicates):
        weight = _drawn(rng, groups, n_clusters)
        np.take(weight, of_others, out=drawn, mode="clip")  # clip: no second look at the bounds
        np.cumsum(drawn, dtype=np.int32, out=running[1:])
        mine = weight[of_events].astype(np.float64)
        pairs = float(mine.sum()) * float(running[-1])
        if pairs:
            lower = float(mine @ running[below])
            found[i] = (lower + (float(mine @ running[upto]) if has_ties else lower)) / (2 * pairs)
    used = found[np.isfinite(found)]
    if used.size < FEWEST_CLUSTERS:
        return None
    low, high = np.quantile(used, [0.5 - level / 2, 0.5 + level / 2])
    return Resampled(n_replicates, used.size, float(used.std(ddof=1)), Interval(float(low), float(high)))


@dataclass(frozen=True)
class _Components:
    """Cluster sums of the placements, centred at the AUC."""

    n_images: int
    n_any: int
    auc: float
    of_events: Floats
    of_others: Floats
    n_events: int
    n_others: int
    n_with_events: int
    n_with_others: int


def _components(truth: ArrayLike, score: ArrayLike, *, cluster: ArrayLike) -> _Components | ClusteredArea:
    event, value = classes(truth, score)
    code, n_clusters = _codes(cluster)
    n_events, n_others = int(event.sum()), int((~event).sum())
    if not n_events or not n_others:
        reason = "no_persons" if not event.size else "no_events" if not n_events else "no_non_events"
        return ClusteredArea(event.size, n_clusters, None, None, reason)
    v10, v01 = placements(event, value)
    area = float(v10.mean())
    with_events, with_others = (np.bincount(code[part], minlength=n_clusters) for part in (event, ~event))
    n_with = int((with_events > 0).sum()), int((with_others > 0).sum())
    if min(n_with) < FEWEST_CLUSTERS:
        return ClusteredArea(event.size, n_clusters, area, None, "too_few_clusters")
    of_events: Floats = np.bincount(code[event], v10 - area, n_clusters).astype(np.float64)
    of_others: Floats = np.bincount(code[~event], v01 - area, n_clusters).astype(np.float64)
    return _Components(event.size, n_clusters, area, of_events, of_others, n_events, n_others, *n_with)


def _covariance(a: _Components, b: _Components) -> float:
    m, n = a.n_events, a.n_others
    s10 = a.n_with_events / ((a.n_with_events - 1) * m) * float(a.of_events @ b.of_events)
    s01 = a.n_with_others / ((a.n_with_others - 1) * n) * float(a.of_others @ b.of_others)
    cross = float(a.of_events @ b.of_others) + float(a.of_others @ b.of_events)
    s11 = a.n_any / (a.n_any - 1) * cross
    return s10 / m + s01 / n + s11 / (m * n)


def _codes(cluster: ArrayLike) -> tuple[NDArray[np.int64], int]:
    names, code = np.unique(np.asarray(cluster), return_inverse=True)
    return code.astype(np.int64), names.size


def _resampling_groups(event: NDArray[np.bool_], code: NDArray[np.int64], n_clusters: int) -> list[NDArray[np.int64]]:
    """Persons with and without the condition apart when nobody has images of both classes; else everybody together."""
    with_events = np.bincount(code[event], minlength=n_clusters) > 0
    with_others = np.bincount(code[~event], minlength=n_clusters) > 0
    if (with_events & with_others).any():
        return [np.arange(n_clusters)]
    return [np.flatnonzero(with_events), np.flatnonzero(with_others)]


def _drawn(rng: np.random.Generator, groups: list[NDArray[np.int64]], n_clusters: int) -> NDArray[np.uint8]:
    """How often each person was drawn; a byte is enough, as more than 255 draws of one person do not happen."""
    weight = np.zeros(n_clusters, dtype=np.uint8)
    for members in groups:
        draws = rng.integers(0, members.size, members.size, dtype=np.int64)
        weight[members] = np.bincount(draws, minlength=members.size)
    return weight
