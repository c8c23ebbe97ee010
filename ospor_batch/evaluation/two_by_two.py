"""Further measures of a 2 x 2 table, and McNemar's test of two predictors on the same people."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ospor_batch.evaluation.discrimination import Confusion, balanced_accuracy
from ospor_batch.evaluation.intervals import LEVEL, Estimate, Interval, estimated, normal_quantile, not_estimable, wilson
from ospor_batch.evaluation.three_class import weighted_kappa


@dataclass(frozen=True)
class McNemar:
    """b: the first right and the second wrong; c: the reverse. Statistics are null without a discordant person."""

    n_first_only: int
    n_second_only: int
    p_exact: float
    chi2: float | None
    p_chi2: float | None
    chi2_corrected: float | None
    p_corrected: float | None


def positive_likelihood_ratio(table: Confusion, *, level: float = LEVEL) -> Estimate:
    """se/(1 - sp) with the log method's interval (Simel 1991; methods S2)."""
    return _ratio(table.tp, table.n_events, over=(table.fp, table.n_others), level=level)


def negative_likelihood_ratio(table: Confusion, *, level: float = LEVEL) -> Estimate:
    """(1 - se)/sp with the log method's interval (Simel 1991; methods S2)."""
    return _ratio(table.fn, table.n_events, over=(table.tn, table.n_others), level=level)


def diagnostic_odds_ratio(table: Confusion, *, level: float = LEVEL) -> Estimate:
    """TP·TN/(FP·FN) with Woolf's interval; not estimable where a cell is empty."""
    cells = (table.tp, table.fp, table.fn, table.tn)
    if min(cells) == 0:
        return not_estimable(_one_class(table) or "empty_cell")
    value = table.tp * table.tn / (table.fp * table.fn)
    half = normal_quantile(level) * math.sqrt(sum(1 / cell for cell in cells))
    return estimated(value, Interval(value * math.exp(-half), value * math.exp(half)), method="woolf_log")


def youden_index(table: Confusion, *, level: float = LEVEL) -> Estimate:
    """se + sp - 1 with the hybrid score interval of balanced accuracy, of which it is twice the value minus 1."""
    half = balanced_accuracy(table, level=level)
    if half.value is None or half.lower is None or half.upper is None:
        return half
    return estimated(2 * half.value - 1, Interval(2 * half.lower - 1, 2 * half.upper - 1), method=half.method)


def matthews(table: Confusion, *, level: float = LEVEL) -> Estimate:
    """Matthews' correlation (phi) with the multinomial delta limits on Fisher's z; not estimable where a margin is empty."""
    margins = (table.n_events, table.n_others, table.tp + table.fp, table.fn + table.tn)
    if min(margins) == 0:
        return not_estimable(_one_class(table) or ("no_positive_calls" if not margins[2] else "no_negative_calls"))
    root = math.sqrt(math.prod(margins))
    value = (table.tp * table.tn - table.fp * table.fn) / root
    if 1 - abs(value) < 1e-12:  # a perfect correlation has no variance
        return estimated(value, None, method="none")
    yes, no, plus, minus = (1 / margin for margin in margins)
    slopes = (  # derivatives in tp, fp, fn, tn, whose margins are (with, called), (without, called) and so on
        (table.tp, table.tn / root - value / 2 * (yes + plus)), (table.fp, -table.fn / root - value / 2 * (no + plus)),
        (table.fn, -table.fp / root - value / 2 * (yes + minus)), (table.tn, table.tp / root - value / 2 * (no + minus)),
    )  # fmt: skip
    variance = sum(n * slope**2 for n, slope in slopes) - sum(n * slope for n, slope in slopes) ** 2 / table.n
    half = normal_quantile(level) * math.sqrt(max(variance, 0.0)) / (1 - value**2)
    at = math.atanh(value)
    return estimated(value, Interval(math.tanh(at - half), math.tanh(at + half)), method="delta_fisher_z")


def cohen_kappa(table: Confusion, *, level: float = LEVEL) -> Estimate:
    """Chance-corrected agreement of call and truth, Fleiss' limits (1969); null where chance alone gives full agreement."""
    n = table.n
    if n == 0:
        return not_estimable("no_persons")
    agreed = (table.tp + table.tn) / n
    called = table.tp + table.fp
    chance = (called * table.n_events + (n - called) * table.n_others) / n**2
    if chance >= 1:
        return not_estimable("zero_variance")
    value = (agreed - chance) / (1 - chance)
    interval = weighted_kappa([[table.tp, table.fn], [table.fp, table.tn]], level=level)
    if interval.value is None or interval.lower is None or interval.upper is None:
        return estimated(value, None, method="none")
    return estimated(value, Interval(interval.lower, interval.upper), method=interval.method)


def further_measures(table: Confusion, *, level: float = LEVEL) -> dict[str, Estimate]:
    """The measures that stand beside sensitivity and specificity, by name."""
    return {
        "lr_positive": positive_likelihood_ratio(table, level=level),
        "lr_negative": negative_likelihood_ratio(table, level=level),
        "youden": youden_index(table, level=level),
        "mcc": matthews(table, level=level),
        "kappa": cohen_kappa(table, level=level),
    }


def mcnemar(n_first_only: int, n_second_only: int) -> McNemar:
    """McNemar's exact test, and the chi-square with and without correction (methods S2).

    statsmodels gives 0.25 instead of 0 for the corrected statistic when b = c, so that one is our own line.
    """
    from statsmodels.stats.contingency_tables import mcnemar as of_statsmodels  # late: 1 s

    b, c = n_first_only, n_second_only
    if b + c == 0:
        return McNemar(b, c, 1.0, None, None, None, None)
    cells = [[0, b], [c, 0]]
    exact = min(1.0, float(of_statsmodels(cells, exact=True).pvalue))
    plain = of_statsmodels(cells, exact=False, correction=False)
    corrected = 0.0 if b == c else (abs(b - c) - 1) ** 2 / (b + c)
    return McNemar(b, c, exact, float(plain.statistic), float(plain.pvalue), corrected, _chi2_tail(corrected))


def _chi2_tail(statistic: float) -> float:
    return math.erfc(math.sqrt(statistic / 2))  # one degree of freedom


def _ratio(x: int, n: int, *, over: tuple[int, int], level: float) -> Estimate:
    y, m = over
    if n == 0 or m == 0:
        return not_estimable("no_events" if n == 0 and m else "no_non_events" if n else "no_persons")
    if y == 0:
        return not_estimable("division_by_zero")
    value = (x / n) / (y / m)
    if x == 0:
        return estimated(0.0, None, method="simel_log")
    half = normal_quantile(level) * math.sqrt(1 / x - 1 / n + 1 / y - 1 / m)
    return estimated(value, Interval(value * math.exp(-half), value * math.exp(half)), method="simel_log")


def _one_class(table: Confusion) -> str | None:
    if table.n == 0:
        return "no_persons"
    return "no_events" if table.n_events == 0 else "no_non_events" if table.n_others == 0 else None


def paired_difference(
    n_both: int, n_first_only: int, n_second_only: int, *, n: int, level: float = LEVEL
) -> tuple[float, tuple[float, float]]:
    """First share minus second of the same n > 0 people, with Newcombe's square-and-add limits (1998b, method 10).

    The Wilson limits of both shares are joined with the correlation of the two calls, continuity-corrected where positive.
    """
    one, two = n_both + n_first_only, n_both + n_second_only
    first, second = wilson(one, n, level=level), wilson(two, n, level=level)
    assert first is not None
    assert second is not None
    p, q = one / n, two / n
    phi = _phi(n_both, n_first_only, n_second_only, n - n_both - n_first_only - n_second_only)
    low = _joined(p - first.lower, second.upper - q, phi)
    high = _joined(first.upper - p, q - second.lower, phi)
    return p - q, (p - q - low, p - q + high)


def _phi(a: int, b: int, c: int, d: int) -> float:
    margins = (a + b) * (c + d) * (a + c) * (b + d)
    if not margins:
        return 0.0
    product = a * d - b * c
    corrected = max(0.0, product - (a + b + c + d) / 2) if product > 0 else float(product)
    return corrected / math.sqrt(margins)


def _joined(one: float, two: float, phi: float) -> float:
    return math.sqrt(max(0.0, one**2 - 2 * phi * one * two + two**2))
