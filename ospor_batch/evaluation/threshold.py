"""Choose a cut-off on tuning people and lock it, with where it came from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ospor_batch.errors import StudyError
from ospor_batch.evaluation.discrimination import classes, operating_counts

CHOSEN_ON = ("tuning", "site_tuning")  # the latter for what is recalibrated at a site, under its own id
SMALLEST_TUNING_CLASS = 2  # with one person of a class the cut-off is that person's score
ROUNDING = 1e-12  # a share that equals its target but for rounding has reached it


@dataclass(frozen=True)
class LockedThreshold:
    """A cut-off of the score (positive: score >= score_cut) and its origin; score_cut is null with a reason."""

    rule: str
    partition: str
    unit: str
    n_persons: int
    n_events: int
    data_digest: str
    score_cut: float | None
    reason: str | None = None

    @property
    def id(self) -> str:
        """Rule, partition and value, such as ``youden@tuning n=63 -> -112.4 HU``."""
        origin = f"{self.rule}@{self.partition} n={self.n_persons}" if self.partition else self.rule
        value = f"not_estimable ({self.reason})" if self.score_cut is None else f"{self.score_cut!r} {self.unit}"
        return f"{origin} -> {value}"


@dataclass(frozen=True)
class ThresholdRule:
    """How a recipe finds its cut-off: fixed before (score_cut), or by name, some with a target, on tuning people."""

    name: str
    unit: str
    target: float | None = None
    score_cut: float | None = None

    def locked(self, truth: ArrayLike, score: ArrayLike, *, partition: str = "tuning") -> LockedThreshold:
        """The cut-off, with the people it was chosen on."""
        if self.score_cut is not None:
            return fixed_threshold(self.score_cut, unit=self.unit)
        return lock_threshold(truth, score, rule=self.name, target=self.target, partition=partition, unit=self.unit)


def fixed_threshold(score_cut: float, *, unit: str) -> LockedThreshold:
    """A cut-off that was set before the study."""
    return LockedThreshold("fixed", "", unit, 0, 0, "", float(score_cut) + 0.0)


def lock_threshold(
    truth: ArrayLike, score: ArrayLike, *, rule: str, target: float | None = None, partition: str, unit: str
) -> LockedThreshold:
    """Choose by youden, sensitivity_at_least or specificity_at_least on tuning people only (methods S3).

    Ties of Youden's J: highest sensitivity, then lowest threshold. sensitivity_at_least takes the highest threshold
    that reaches the target (the lowest would call everyone positive), specificity_at_least the lowest one.
    """
    if partition not in CHOSEN_ON:
        raise StudyError(f"a threshold is chosen on tuning people only, not on {partition}")
    event, value = classes(truth, score)
    n_events, n_others = int(event.sum()), int((~event).sum())
    name = rule if target is None else f"{rule}={target:g}"
    reason = _refusal(n_events, n_others)
    chosen = None
    if reason is None:
        thresholds, tp, fp = operating_counts(event, value)
        at = CHOICES[rule](tp, fp, n_events, n_others, target)
        chosen = None if at is None else float(thresholds[at]) + 0.0  # + 0.0 turns -0.0 into 0.0
        reason = "target_not_reached" if at is None else None
    return LockedThreshold(name, partition, unit, event.size, n_events, _digest(event, value), chosen, reason)


def _refusal(n_events: int, n_others: int) -> str | None:
    if n_events + n_others == 0:
        return "no_tuning_people"
    if n_events < SMALLEST_TUNING_CLASS:
        return "too_few_tuning_events"
    return "too_few_tuning_non_events" if n_others < SMALLEST_TUNING_CLASS else None


Counts = NDArray[np.int64]


def _youden(tp: Counts, fp: Counts, n_events: int, n_others: int, _target: float | None) -> int | None:
    j = tp * n_others - fp * n_events  # J times n1 n0: whole numbers, so that ties are exact
    best = np.flatnonzero(j == j.max())
    return int(best[-1])  # the lowest of the best thresholds has the highest sensitivity


def _sensitivity_at_least(tp: Counts, _fp: Counts, n_events: int, _n_others: int, target: float | None) -> int | None:
    reached = np.flatnonzero(tp >= (target or 0.0) * n_events - ROUNDING)
    return int(reached[0]) if reached.size else None


def _specificity_at_least(_tp: Counts, fp: Counts, _n_events: int, n_others: int, target: float | None) -> int | None:
    reached = np.flatnonzero(n_others - fp >= (target or 0.0) * n_others - ROUNDING)
    return int(reached[-1]) if reached.size else None


CHOICES = {
    "youden": _youden,
    "sensitivity_at_least": _sensitivity_at_least,
    "specificity_at_least": _specificity_at_least,
}


def _digest(event: NDArray[np.bool_], value: NDArray[np.float64]) -> str:
    """Digest of the tuning data, whatever their order."""
    order = np.lexsort((event, value))
    return hashlib.sha256(value[order].tobytes() + event[order].tobytes()).hexdigest()[:16]
