"""STARD, TRIPOD+AI and CLAIM, filled in where the software knows the answer; a human item is never marked as done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ospor_batch.config import Study

STARD, TRIPOD, CLAIM = "STARD 2015", "TRIPOD+AI 2024", "CLAIM 2020"


@dataclass(frozen=True)
class Known:
    """What a run knows beside the study file."""

    n_tables: int


@dataclass(frozen=True)
class Item:
    """One item: what it asks for, in our words, and how the software answers; null: a person must."""

    guideline: str
    number: str
    asks: str
    answer: Callable[[Study, Known], str] | None = None
    where: str | None = None


def checklist_rows(study: Study, known: Known) -> list[dict[str, Any]]:
    """One row per item, in the order of each guideline."""
    found = []
    for item in ITEMS:
        answer = None if item.answer is None else item.answer(study, known)
        found.append(
            {
                "guideline": item.guideline, "item": item.number, "asks": item.asks,
                "filled_by": "needs_human" if answer is None else "auto", "answer": answer,
                "where_found": None if answer is None else item.where,
            }
        )  # fmt: skip
    return found


def _criteria(study: Study, _known: Known) -> str:
    named = "; ".join(criterion.name for criterion in study.criteria) or "none declared"
    return f"eligibility as coded: {named}"


def _dates(study: Study, _known: Known) -> str:
    when = study.analysis
    said = [
        f"{name} {dates[0]} to {dates[1]}"
        for name, dates in (("images", when.image_dates), ("labels", when.label_dates))
        if dates
    ]
    return "; ".join(said) or "no dates declared: all of the archive"


def _centers(study: Study, known: Known) -> str:
    return f"{len(study.centers)} centers: {', '.join(sorted(c.name for c in study.centers))}; {_dates(study, known)}"


def _reference(study: Study, _known: Known) -> str:
    return "; ".join(f"{r.id}: {r.standard}" for r in study.references)


def _thresholds(study: Study, _known: Known) -> str:
    said = []
    for recipe in study.recipes:
        given = {n: getattr(recipe.threshold, n) for n in type(recipe.threshold).model_fields}
        name, value = next((n, v) for n, v in given.items() if v is not None)
        rule = f"{value}" if name == "rule" else f"{name} = {value:g}"
        origin = "set before the study" if name == "fixed" else "chosen on tuning people and locked before the test"
        said.append(f"{recipe.key}: {rule}, {origin}")
    return "; ".join(said)


def _window(study: Study, _known: Known) -> str:
    return f"labels {study.match.window} days from the image; {study.match.index_series} image"


def _split(study: Study, _known: Known) -> str:
    split = study.split
    said = [f"external by {by}: {', '.join(names)}" for by, names in split.external.items()]
    said += [f"{share:g} of {center} set aside to recalibrate there" for center, share in sorted(split.site_tuning.items())]
    away = "; ".join(said)
    return f"persons split {split.train:g} train, {split.tuning:g} tuning, {split.internal_test:g} internal test" + (
        f"; {away}" if away else ""
    )


def _missing(_study: Study, _known: Known) -> str:
    return (
        "complete cases; what is missing is counted per center; nothing is imputed in a primary table; discrimination "
        "bounds what missing scores could change by taking all as wrong and all as right"
    )


def _numbers(_study: Study, _known: Known) -> str:
    return "every step of the flow is counted and subtracts exactly; numbers in the tables named"


def _statistics(_study: Study, _known: Known) -> str:
    return "AUC by DeLong (logit interval), proportions by Wilson, centers by REML with floored Hartung-Knapp"


def _strata(study: Study, _known: Known) -> str:
    return "by " + ", ".join(study.tables.strata)


def _identifiers(_study: Study, _known: Known) -> str:
    return "keyed pseudonyms in all shared tables; dates as days between; small cells withheld in the release"


def _software(_study: Study, known: Known) -> str:
    return f"version and digest of code, study, snapshot and models stand in the provenance; {known.n_tables} tables"


FLOW, TABLE1, PERFORMANCE = "participant flow; attrition", "baseline", "performance"
ITEMS = (
    Item(STARD, "1", "Title says that it is a study of diagnostic accuracy"),
    Item(STARD, "3", "Scientific and clinical background, intended use"),
    Item(STARD, "4", "Objectives and hypotheses"),
    Item(STARD, "5", "Whether data were collected before or after the tests"),
    Item(STARD, "6", "Eligibility criteria", _criteria, FLOW),
    Item(STARD, "7", "On what basis eligible people were identified", _criteria, FLOW),
    Item(STARD, "8", "Where and when eligible people were identified", _centers, "provenance"),
    Item(STARD, "9", "Whether people formed a consecutive, random or convenience series"),
    Item(STARD, "10a", "Index test, in enough detail to repeat it", _software, "provenance"),
    Item(STARD, "10b", "Reference standard, in enough detail to repeat it", _reference, "estimand; provenance"),
    Item(STARD, "11", "Rationale for the reference standard"),
    Item(STARD, "12a", "Cut-offs of the index test, pre-set or explored", _thresholds, "threshold"),
    Item(STARD, "12b", "Cut-offs of the reference standard", _reference, "estimand"),
    Item(STARD, "13a", "Whether readers of the index test knew the reference result"),
    Item(STARD, "14", "Methods to estimate and compare accuracy", _statistics, PERFORMANCE),
    Item(STARD, "15", "How indeterminate results were handled", _missing, "missingness"),
    Item(STARD, "16", "How missing data were handled", _missing, "missingness"),
    Item(STARD, "17", "Analyses of variability, pre-set or explored", _strata, "performance; heterogeneity"),
    Item(STARD, "18", "Intended sample size and how it was found"),
    Item(STARD, "19", "Flow of participants, with a diagram", _numbers, FLOW),
    Item(STARD, "20", "Baseline characteristics", _numbers, TABLE1),
    Item(STARD, "21a", "Severity of disease in those with it", _numbers, TABLE1),
    Item(STARD, "22", "Interval between index test and reference standard", _window, "baseline; window"),
    Item(STARD, "23", "Cross tabulation of index test by reference standard", _numbers, PERFORMANCE),
    Item(STARD, "24", "Estimates of accuracy with precision", _statistics, PERFORMANCE),
    Item(STARD, "26", "Limitations, sources of bias, generalisability"),
    Item(STARD, "28", "Registration"),
    Item(STARD, "30", "Funding and role of funders"),
    Item(TRIPOD, "3c", "Health inequalities between groups"),
    Item(TRIPOD, "5a", "Sources of data and their dates", _centers, "provenance"),
    Item(TRIPOD, "6a", "Setting, number and place of centers", _centers, TABLE1),
    Item(TRIPOD, "6b", "Eligibility criteria", _criteria, FLOW),
    Item(TRIPOD, "8a", "Outcome, how and when assessed", _reference, "estimand"),
    Item(TRIPOD, "11", "How missing data were handled", _missing, "missingness"),
    Item(TRIPOD, "12a", "How data were used for development and evaluation", _split, "provenance"),
    Item(TRIPOD, "12e", "Measures of discrimination and calibration", _statistics, "performance; risk_calibration"),
    Item(TRIPOD, "12f", "Heterogeneity between clusters", _strata, "heterogeneity; leave_one_out"),
    Item(TRIPOD, "13", "Class imbalance, what was done about it"),
    Item(TRIPOD, "14", "Fairness, what was done about it"),
    Item(TRIPOD, "15", "Classification thresholds and their origin", _thresholds, "threshold"),
    Item(TRIPOD, "20a", "Flow of participants", _numbers, FLOW),
    Item(TRIPOD, "20b", "Characteristics of participants", _numbers, TABLE1),
    Item(TRIPOD, "23a", "Performance with intervals, also in subgroups", _strata, PERFORMANCE),
    Item(TRIPOD, "26", "Limitations"),
    Item(CLAIM, "7", "Data sources", _centers, "provenance"),
    Item(CLAIM, "8", "Eligibility", _criteria, FLOW),
    Item(CLAIM, "9", "Preprocessing", _software, "provenance"),
    Item(CLAIM, "12", "De-identification", _identifiers, "README of the release"),
    Item(CLAIM, "13", "Missing data", _missing, "missingness"),
    Item(CLAIM, "14", "Definition of the reference standard", _reference, "estimand"),
    Item(CLAIM, "15", "Rationale for the reference standard"),
    Item(CLAIM, "20", "How data were assigned to partitions", _split, "provenance"),
    Item(CLAIM, "21", "Level at which partitions are disjoint", lambda _s, _k: "person", "provenance"),
    Item(CLAIM, "28", "Metrics of performance", _statistics, PERFORMANCE),
    Item(CLAIM, "29", "Statistical uncertainty", _statistics, PERFORMANCE),
    Item(CLAIM, "31", "Explainability or interpretability"),
    Item(CLAIM, "33", "Flow of participants or images", _numbers, FLOW),
    Item(CLAIM, "34", "Characteristics in each partition", _numbers, TABLE1),
    Item(CLAIM, "35", "Performance on all partitions", _strata, PERFORMANCE),
    Item(CLAIM, "37", "Failure analysis"),
    Item(CLAIM, "38", "Limitations"),
)
