"""Whether a score means the same in every group: likelihood ratio test of the interaction of score and group."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from ospor_batch.evaluation.discrimination import classes
from ospor_batch.evaluation.risk_calibration import is_separated, logistic_fit

Floats = NDArray[np.float64]
FEWEST_GROUPS = 2


@dataclass(frozen=True)
class Interaction:
    """Twice the difference of the log-likelihoods, chi-square with groups - 1 degrees of freedom; null with a reason."""

    n_groups: int
    statistic: float | None = None
    degrees: int | None = None
    p_value: float | None = None
    groups_left_out: tuple[str, ...] = ()
    reason: str | None = None


def score_by_group(truth: ArrayLike, score: ArrayLike, *, group: ArrayLike, minimum_events: int) -> Interaction:
    """Compare a logistic model of score and group with one whose slope of the score differs by group (methods S6).

    Groups with fewer than minimum_events with or without the condition are left out and named; not estimable below two
    groups or where a cut parts the classes of a group.
    """
    event, value = classes(truth, score)
    names = np.asarray(group).astype(str)
    kept, left_out = list[str](), list[str]()
    for name in np.unique(names).tolist():
        mine = event[names == name]
        enough = min(int(mine.sum()), int((~mine).sum())) >= minimum_events
        (kept if enough else left_out).append(name)
    if len(kept) < FEWEST_GROUPS:
        return Interaction(len(kept), groups_left_out=tuple(left_out), reason="fewer_than_2_groups")
    inside = np.isin(names, kept)
    event, value, names = event[inside], value[inside], names[inside]
    if any(is_separated(event[names == name], value[names == name]) for name in kept) or np.ptp(value) == 0:
        return Interaction(len(kept), groups_left_out=tuple(left_out), reason="perfect_separation")
    lp = (value - value.mean()) / value.std()
    of_group = np.column_stack([(names == name).astype(np.float64) for name in kept])
    alike = np.column_stack([of_group, lp])
    apart = np.column_stack([of_group, of_group * lp[:, None]])
    statistic = max(0.0, 2 * (_log_likelihood(event, apart) - _log_likelihood(event, alike)))
    degrees = len(kept) - 1
    return Interaction(len(kept), statistic, degrees, float(stats.chi2.sf(statistic, degrees)), tuple(left_out))


def _log_likelihood(event: NDArray[np.bool_], design: Floats) -> float:
    beta, _ = logistic_fit(event, design)
    lp = design @ beta
    return float(np.where(event, special.log_expit(lp), special.log_expit(-lp)).sum())
