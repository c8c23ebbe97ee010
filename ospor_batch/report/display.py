"""What a table on the page is made of, and how numbers become text."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Literal

from ospor_batch.contracts import contract

NOT_ESTIMABLE = "not estimable"
ACRONYMS = {
    "auc": "AUC", "ppv": "PPV", "npv": "NPV", "f1": "F1", "tp": "TP", "fp": "FP", "fn": "FN", "tn": "TN", "kvp": "kVp",
    "mae": "MAE", "rmse": "RMSE", "sd": "SD", "loa": "LoA", "id": "ID", "t": "T", "i2": "I²", "tau2": "τ²", "q": "Q",
    "r": "r", "n": "n",
    "prev": "prevalence", "smd": "SMD", "ici": "ICI", "ece": "ECE", "bh": "BH",
}  # fmt: skip
MINUS = "−"
# the typed reasons of tables, as a reader would say them
REASONS = {
    "one_class": "only people with, or only people without, the condition",
    "no_events": "nobody with the condition",
    "no_non_events": "nobody without the condition",
    "too_few_events": "fewer people with the condition than the study asks for",
    "too_few_non_events": "fewer people without the condition than the study asks for",
    "perfect_separation": "everyone with the condition scores above everyone without, so there is no variance for an interval",
    "zero_variance": "the estimate has no variance to build an interval on",
    "no_labelled_people": "nobody has a label in the window",
    "no_scored_people": "nobody was scored",
    "no_image_only_people": "everybody scored is labelled too, so the correction would return the label prevalence itself",
    "train_or_tuning_people": "these people served to make the model or its threshold",
    "no_better_than_chance": "sensitivity plus specificity is not above one",
    "outside_0_1": "the corrected value falls outside 0 to 100 %",
    "sensitivity_or_specificity_0_or_1": "sensitivity or specificity is 0 or 1, so the restated value has no interval",
    "no_positive_calls": "nobody was called positive",
    "no_negative_calls": "nobody was called negative",
    "no_persons": "nobody is here",
    "too_few_persons": "too few persons",
    "no_values": "nobody has both a predicted and a reference value",
    "no_calibration_people": "nobody outside the test partitions has both values, so no calibration could be fitted",
    "no_threshold": "there is no locked threshold",
    "no_events_and_no_positive_calls": "nobody has the condition and nobody was called positive",
    "perfect_correlation": "the correlation is perfect, so there is no interval",
    "no_tuning_people": "nobody is in the tuning partition",
    "too_few_tuning_events": "too few people with the condition in the tuning partition",
    "too_few_tuning_non_events": "too few people without the condition in the tuning partition",
    "score_not_finite": "the score is no finite number",
    "division_by_zero": "a denominator is zero",
    "empty_cell": "a cell of the 2 x 2 table is empty",
    "too_few_clusters": "too few persons to build a variance on",
    "positivity_violated": "one person with a label would stand for a tenth of all, so unlike the others is their referral",
    "verification_not_modelled": "the chance of being sent to the reference standard cannot be modelled",
    "no_clinical_cut_off": "the reference value has no clinical cut-off in this unit",
    "cut_offs_cross": "the cut-off for low bone mass lies above that for osteoporosis",
    "score_is_no_probability": "the score is no probability",
    "class_missing": "one of the classes is missing",
    "references_differ": "the recipes are judged by different references, so a person has two truths",
    "fewer_than_2_groups": "fewer than two groups have enough people with and without the condition",
    "no_group_with_both_classes": "no group has people with and without the condition",
    "too_many_to_resample": "there are so many images that the closed form says the same",
    "no_repeated_pairs": "nobody has several images",
    "not_computed_in_this_run": "this run does not estimate it",
    "target_not_reached": "no cut-off reaches the declared target on the tuning partition",
    "fewer_than_3_groups": "fewer than three groups could enter, so they are shown and not pooled",
}


@dataclass(frozen=True)
class Cell:
    """One cell: its text, a smaller second line, a remark, and what it is sorted by.

    kind: missing cells carry their reason as the remark, which the page prints as a footnote too.
    """

    text: str
    sub: str = ""
    remark: str = ""
    sort: float | None = None
    kind: Literal["text", "number", "missing"] = "text"


@dataclass(frozen=True)
class Column:
    """One column: its heading with the unit, and what it means."""

    heading: str
    explains: str = ""
    is_number: bool = False


@dataclass(frozen=True)
class DisplayTable:
    """A table as it is shown; says holds what is true of every row, empty what to print when there are none."""

    name: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    says: str = ""
    empty: str = "Nothing to show in this run."
    n_total_rows: int = 0


def spoken(name: str) -> str:
    """Say a column or metric name as a heading: ``prev_label`` -> ``Prevalence label``."""
    words = [ACRONYMS.get(word, word) for word in name.removeprefix("n_").split("_")]
    said = " ".join(words)
    said = said if said.split(" ")[0] in ACRONYMS.values() else said[:1].upper() + said[1:]
    said = said[:1].upper() + said[1:] if said.startswith("prevalence") else said
    return f"{said}, n" if name.startswith("n_") else said


def column_of(table: str, name: str) -> Column:
    """The column of a contract with its unit and its description."""
    field = contract(table).field(name)
    unit = "" if field.unit in {None, "1"} or str(field.unit).startswith(("as ", "to_unit")) else f" ({unit_said(field.unit)})"
    return Column(f"{spoken(name)}{unit}", field.description, is_number=field.type in {"integer", "number"})


def unit_said(unit: str | None) -> str:
    """A unit with its powers raised."""
    return (unit or "").replace("cm3", "cm³").replace("cm2", "cm²").replace("m2", "m²")


def text(value: object) -> Cell:
    """A word of the contracts as a cell; null and the empty string become a dash."""
    if value is None or value == "":
        return Cell("–", remark="none", kind="text")
    return Cell({True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value))


def count(value: int | None) -> Cell:
    """A count, with thin groups of three digits; null where nothing could be counted."""
    if value is None:
        return Cell(NOT_ESTIMABLE, remark=reason_said("no_threshold"), kind="missing")
    return Cell(grouped(value), sort=float(value), kind="number")


def number(value: float | None, *, digits: int = 3, missing: str = "not estimated") -> Cell:
    """A number without an interval of its own; null says why it is missing."""
    if value is None or not math.isfinite(value):
        return Cell(NOT_ESTIMABLE, remark=missing, kind="missing")
    return Cell(decimal(value, digits=digits), remark=f"{value!r}", sort=value, kind="number")


def estimate(row: dict[str, Any], *, digits: int, scale: float = 1.0, sub: str = "") -> Cell:
    """An estimate with its 95 % interval; not estimable with the reason where the row says so."""
    if row["status"] != "estimated" or row["estimate"] is None:
        return Cell(NOT_ESTIMABLE, sub=sub, remark=reason_said(row["status_reason"]), kind="missing")
    value, lower, upper = (row[name] for name in ("estimate", "estimate_lower", "estimate_upper"))
    shown = decimal(value * scale, digits=digits)
    if lower is None or upper is None:
        interval, method = "(no interval)", f"no interval: {row['interval_method']}"
    else:
        interval = f"({decimal(lower * scale, digits=digits)} to {decimal(upper * scale, digits=digits)})"
        method = f"95 % interval: {row['interval_method']}"
    return Cell(f"{shown} {interval}", sub=sub, remark=method, sort=value, kind="number")


def reason_said(reason: str | None) -> str:
    """A typed reason as a sentence with the reason itself; an unknown one as it stands."""
    known = REASONS.get(reason or "")
    return f"{known} ({reason})" if known else str(reason or "no reason given")


def decimal(value: float, *, digits: int) -> str:
    """A number with fixed decimals and a true minus sign; never ``-0``."""
    said = f"{value:.{digits}f}"
    if float(said) == 0:
        said = said.removeprefix("-")
    return said.replace("-", MINUS)


def percent(share: float) -> str:
    """A share as percent with one decimal."""
    return f"{decimal(share * 100, digits=1)} %"


def grouped(value: int) -> str:
    """A whole number with narrow blanks between groups of three digits from 10 000 on."""
    return f"{value:,}".replace(",", "\u202f") if abs(value) >= 10_000 else str(value)


def shortened(said: str) -> str:
    """A name with its long numbers at four significant digits; the exact one stands in the tables."""
    return re.sub(r"-?\d+\.\d{4,}", lambda found: f"{float(found[0]):.4g}", said)
