"""Density calibration: the line from a predicted value (such as mean HU) to a density, fitted off the test people."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from ospor_batch.errors import StudyError
from ospor_batch.evaluation.agreement import pairs
from ospor_batch.evaluation.intervals import LEVEL, Interval

FEWEST_FOR_A_LINE = 3  # the residual SD divides by n - 2
FITTING_PARTITIONS = ("train", "tuning")  # in this order; never a test partition (methods S10, S12)


@dataclass(frozen=True)
class DensityLine:
    """density = intercept + slope · predicted value, with t intervals and the residual SD (n - 2)."""

    partition: str
    n: int
    intercept: float
    intercept_interval: Interval
    slope: float
    slope_interval: Interval
    residual_sd: float

    def apply(self, predicted: ArrayLike) -> NDArray[np.float64]:
        """Densities of predicted values."""
        return self.intercept + self.slope * np.asarray(predicted, dtype=np.float64)


def fit_density_line(reference: ArrayLike, predicted: ArrayLike, *, partition: str, level: float = LEVEL) -> DensityLine | None:
    """Fit the least-squares line of reference on predicted; null with fewer than three persons or one predicted value."""
    if partition not in FITTING_PARTITIONS:
        raise StudyError(f"a density calibration is fitted on {' or '.join(FITTING_PARTITIONS)} people, not on {partition}")
    y, x = pairs(reference, predicted)
    if x.size < FEWEST_FOR_A_LINE or np.ptp(x) == 0:
        return None
    n, dx = x.size, x - x.mean()
    sxx = float(dx @ dx)
    slope = float(dx @ (y - y.mean())) / sxx
    intercept = float(y.mean()) - slope * float(x.mean())
    residual = y - intercept - slope * x
    sd = math.sqrt(float(residual @ residual) / (n - 2))
    t = float(stats.t.ppf(0.5 + level / 2, n - 2))
    of_slope = t * sd / math.sqrt(sxx)
    of_intercept = t * sd * math.sqrt(1 / n + float(x.mean()) ** 2 / sxx)
    return DensityLine(
        partition,
        n,
        intercept,
        Interval(intercept - of_intercept, intercept + of_intercept),
        slope,
        Interval(slope - of_slope, slope + of_slope),
        sd,
    )
