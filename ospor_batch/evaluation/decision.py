"""Decision curves: net benefit of acting on a risk, of acting on everybody and on nobody (Vickers and Elkin 2006)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ospor_batch.evaluation.discrimination import classes

THRESHOLDS = tuple(round(0.01 * i, 2) for i in range(1, 100))


@dataclass(frozen=True)
class NetBenefit:
    """Net benefit per person at one threshold probability; that of nobody is 0."""

    threshold: float
    model: float
    everyone: float


def net_benefit(
    truth: ArrayLike, risk: ArrayLike, *, thresholds: Sequence[float] = THRESHOLDS, prevalence: float | None = None
) -> list[NetBenefit]:
    """Net benefit of calling risk >= threshold positive, at the prevalence of these people or a declared one (methods S9).

    Means something for calibrated probabilities only. Empty without both classes. Own code in five lines: dcurves gives
    the same and wants pandas.
    """
    event, value = classes(truth, risk)
    n_events, n_others = int(event.sum()), int((~event).sum())
    if not n_events or not n_others:
        return []
    if ((value < 0) | (value > 1)).any():
        raise ValueError("a risk lies outside 0 to 1; recalibrate the score first")
    share = n_events / event.size if prevalence is None else prevalence
    events, others = np.sort(value[event]), np.sort(value[~event])
    found = []
    for at in thresholds:
        odds = at / (1 - at)
        sensitivity = 1 - np.searchsorted(events, at, "left") / n_events
        wrong = 1 - np.searchsorted(others, at, "left") / n_others
        found.append(NetBenefit(at, float(sensitivity * share - wrong * (1 - share) * odds), float(share - (1 - share) * odds)))
    return found
