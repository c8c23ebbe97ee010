"""Many comparisons: Holm where one primary family is tested, Benjamini-Hochberg where one explores (methods S6).

Own lines: statsmodels' multipletests collects all garbage of the process in every call, a fifth of a second.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

METHODS = ("bonferroni", "holm", "hochberg", "bh", "by")
Floats = NDArray[np.float64]


def adjusted(p_values: Sequence[float | None], *, method: str = "holm") -> list[float | None]:
    """Adjust the p-values of one family; null stays null and does not count in the family."""
    if method not in METHODS:
        raise ValueError(f"method is {method!r}, expected one of {', '.join(METHODS)}")
    known = np.array([p for p in p_values if p is not None], dtype=np.float64)
    found = iter(_adjusted(known, method).tolist())
    return [None if p is None else float(next(found)) for p in p_values]


def _adjusted(p: Floats, method: str) -> Floats:
    order = np.argsort(p, kind="stable")
    rising, n = p[order], p.size
    rank = np.arange(1, n + 1)
    factor = {
        "bonferroni": np.full(n, float(n)), "holm": n + 1.0 - rank, "hochberg": n + 1.0 - rank, "bh": n / rank,
        "by": float((1 / rank).sum()) * n / rank,
    }[method]  # fmt: skip
    scaled = rising * factor
    if method == "holm":  # stepping down: never below what a smaller p came to
        scaled = np.maximum.accumulate(scaled)
    elif method != "bonferroni":  # stepping up: never above what a larger p came to
        scaled = np.minimum.accumulate(scaled[::-1])[::-1]
    found = np.empty(n)
    found[order] = np.minimum(scaled, 1.0)
    return found
