"""Many comparisons: Holm where one primary family is tested, Benjamini-Hochberg where one explores (methods S6)."""

from __future__ import annotations

from collections.abc import Sequence

METHODS = {"bonferroni": "bonferroni", "holm": "holm", "hochberg": "simes-hochberg", "bh": "fdr_bh", "by": "fdr_by"}


def adjusted(p_values: Sequence[float | None], *, method: str = "holm") -> list[float | None]:
    """Adjust the p-values of one family; null stays null and does not count in the family."""
    from statsmodels.stats.multitest import multipletests  # late: 1 s

    if method not in METHODS:
        raise ValueError(f"method is {method!r}, expected one of {', '.join(METHODS)}")
    known = [p for p in p_values if p is not None]
    if not known:
        return [None] * len(p_values)
    found = iter(multipletests(known, method=METHODS[method])[1].tolist())
    return [None if p is None else float(next(found)) for p in p_values]
