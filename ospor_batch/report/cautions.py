"""What a reader must know before a number: the estimand in one sentence, and warnings with the figures behind them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl

from ospor_batch.config import Recipe, Reference, Study
from ospor_batch.report.display import percent, reason_said, shortened, spoken
from ospor_batch.report.tables import EVERYONE, partitions_of

# bounds of judgement, not of a paper; methods S4 gives AUC 0.975 beside a sensitivity of 42 % as the case to catch
HIGH_AUC, LOW_AT_THRESHOLD = 0.80, 0.70
LOW_COVERAGE = 0.95
T_SCORED = {"dxa_who", "dxa_z"}  # other references have no T-score, so no reference population either
FEWEST_GROUPS = 5  # methods S11: fewer than five groups deserve a warning
SITES = {"lumbar_spine": "lumbar spine", "femoral_neck": "femoral neck", "total_hip": "total hip"}
PARTITIONS_SAID = {"test": "test (internal test and external together)", "internal_test": "internal test"}
RULES = {
    "youden": "Youden's index",
    "sensitivity_at_least": "the lowest score that reaches a sensitivity of {:.0%}",
    "specificity_at_least": "the lowest score that reaches a specificity of {:.0%}",
}


@dataclass(frozen=True)
class Caution:
    """One warning: what it is about, and the sentence."""

    about: str
    says: str


def estimand(study: Study, recipe: Recipe, *, performance: pl.DataFrame) -> str:
    """Say in one sentence what is estimated: target, reference, window, unit, threshold and its origin, partitions."""
    match, when = study.match_of(recipe), study.analysis
    images = f" dated {when.image_dates[0]} to {when.image_dates[1]}" if when.image_dates else ""
    labels = f" dated {when.label_dates[0]} to {when.label_dates[1]}" if when.label_dates else ""
    chosen = "every series" if match.index_series == "all" else f"one index series a person ({match.index_series})"
    shown = ", ".join(PARTITIONS_SAID.get(name, name) for name in partitions_of(performance)) or "none"
    unit = " and ".join(sorted(set(performance["unit"]))) or "person"
    return (
        f"How well, and in whom, does {recipe.key} find {spoken(study.analysis.target).lower()} as defined by "
        f"{reference_said(study, recipe)}, among eligible persons with an image{images} and a label{labels} from "
        f"{match.before_days} days before to {match.after_days} days after it, read from {chosen}, "
        f"prevalence from the label-blind {match.prevalence_index} series; unit of analysis: {unit}; "
        f"{threshold_said(recipe, performance=performance)}; estimated in the partitions: {shown}."
    )


def reference_said(study: Study, recipe: Recipe) -> str:
    """The reference standard in words, with its sites, the source of its T-scores and its cut-offs."""
    reference = study.reference(recipe.reference)
    cut = _cut_off(reference, study.analysis.target)
    if reference.standard == "qct":
        return f"{reference.id} (QCT: {cut}; at least {reference.minimum_vertebrae} vertebrae)"
    if reference.standard == "tbs":
        return f"{reference.id} (TBS: cut-offs {reference.tbs_cut_offs})"
    sites = ", ".join(SITES[site] for site in reference.sites)
    return (
        f"{reference.id} (DXA: {cut} at the lowest of {sites}; T-scores {reference.t_source}, "
        f"reference population {reference.t_reference or 'as each export declares'})"
    )


def threshold_said(recipe: Recipe, *, performance: pl.DataFrame) -> str:
    """The decision threshold, how it came about and under which name it stands in the tables."""
    names = ", ".join(shortened(name).removesuffix(" 1") for name in sorted(set(performance["threshold_id"]))) or "none"
    if any(name.endswith((" HU", " mg/cm3", " g/cm2")) for name in names.split(", ")):
        names += "; the score is minus the value, so that a higher one means osteoporosis is more likely"
    threshold = recipe.threshold
    if threshold.fixed is not None:
        return f"positive at a threshold fixed beforehand ({names})"
    rule, value = next(
        (name, getattr(threshold, name)) for name in type(threshold).model_fields if getattr(threshold, name) is not None
    )
    said = RULES["youden"] if rule == "rule" else RULES[rule].format(value)
    return f"positive at a threshold set by {said} on the tuning partition and locked before the test ({names})"


def cautions(
    study: Study,
    recipe: Recipe,
    *,
    threshold: pl.DataFrame,
    performance: pl.DataFrame,
    prevalence: pl.DataFrame,
    linkage: pl.DataFrame,
    heterogeneity: pl.DataFrame,
    last_in_flow: int | None,
) -> list[Caution]:
    """Every warning that the tables of one recipe give rise to, in a fixed order."""
    main = _main(performance)
    found = [
        *_threshold_missing(threshold),
        *_operating_point(main),
        *_few_events(main, study.analysis.minimum_events),
        *_linkage(linkage),
        *_verification(main),
        *_coverage(main),
        *(_sources(main) if study.reference(recipe.reference).standard in T_SCORED else []),
        *_corrected(_main(prevalence)),
        *_confounded(performance),
        *_few_groups(heterogeneity),
        *_flow_ends(main, last_in_flow),
    ]
    return [Caution(recipe.key, says) for says in found]


def _cut_off(reference: Reference, target: str) -> str:
    if reference.standard == "qct":  # methods L7
        return "below 80 mg/cm³" if target == "osteoporosis" else "at most 120 mg/cm³"
    return "T-score of −2.5 or lower" if target == "osteoporosis" else "T-score below −1.0"  # methods L1


def _main(rows: pl.DataFrame) -> pl.DataFrame:
    """Persons of all acquisitions in the partition that is shown first."""
    found = rows.filter(pl.col("unit") == "person", pl.col("is_same_acquisition") == EVERYONE)
    return found.filter(pl.col("partition") == partitions_of(found)[0]) if found.height else found


def _by_place(rows: pl.DataFrame, metric: str) -> list[dict[str, Any]]:
    wanted = pl.col("stratum").is_in(["overall", "center"])
    return rows.filter(wanted, pl.col("metric") == metric).sort("stratum", "center", descending=[True, False]).to_dicts()


def _where(row: dict[str, Any]) -> str:
    return "all centers" if row["center"] == EVERYONE else f"center {row['center']}"


def _threshold_missing(rows: pl.DataFrame) -> list[str]:
    missing = rows.filter(pl.col("status") != "estimated")["status_reason"].to_list()
    why = "; ".join(reason_said(reason) for reason in missing)
    return [f"Threshold not estimable: {why}. Nothing that needs a decision can be shown."] if missing else []


def _operating_point(rows: pl.DataFrame) -> list[str]:
    said = []
    areas = {row["center"]: row["estimate"] for row in _by_place(rows, "auc")}
    for metric, (right, wrong) in {"sensitivity": ("tp", "fn"), "specificity": ("tn", "fp")}.items():
        low = [
            f"{_where(row)} {metric} {percent(row['estimate'])} ({row[right]}/{row[right] + row[wrong]}), AUC {area:.3f}"
            for row in _by_place(rows, metric)
            if (area := areas.get(row["center"])) is not None and area >= HIGH_AUC
            if row["estimate"] is not None and row["estimate"] < LOW_AT_THRESHOLD
        ]
        if low:
            said.append(
                f"{metric.capitalize()} is low at the locked threshold beside a high AUC: {'; '.join(low)}. "
                f"The score ranks well and the threshold does not fit these people: look at calibration and at bias "
                f"near the cut-off before use."
            )
    return said


def _few_events(rows: pl.DataFrame, minimum: int) -> list[str]:
    few = []
    for row in _by_place(rows, "auc"):
        with_it, without = row["n_events"], row["n_persons"] - row["n_events"]
        if min(with_it, without) < minimum:
            few.append(f"{_where(row)} ({with_it} with, {without} without the condition)")
    return (
        [f"Too few people for an area under the curve (fewer than {minimum} with or without): {', '.join(few)}."] if few else []
    )


def _linkage(rows: pl.DataFrame) -> list[str]:
    warned = (
        rows.filter(pl.col("month") == "all", pl.col("warning").is_not_null(), pl.col("warning") != "")
        .sort("center")
        .to_dicts()
    )
    return [
        f"Linkage at center {row['center']}: {row['n_both']} of {row['n_labelled']} labelled persons have an "
        f"eligible image; {row['warning']}."
        for row in warned
    ]


def _verification(rows: pl.DataFrame) -> list[str]:
    part = [
        row for row in _by_place(rows, "sensitivity") if row["verified_fraction"] is not None and row["verified_fraction"] < 1
    ]
    if not part:
        return []
    shares = ", ".join(f"{_where(row)} {percent(row['verified_fraction'])} of {row['n_eligible']}" for row in part)
    return [
        f"Only part of the eligible have a label in the window: {shares}. Sensitivity, specificity and AUC describe those "
        f"who were sent to the reference standard; they are not corrected for who was sent."
    ]


def _coverage(rows: pl.DataFrame) -> list[str]:
    said = [
        f"{_where(row)} {row['n_scored']} of {row['n_eligible']} ({percent(row['n_scored'] / row['n_eligible'])})"
        for row in _by_place(rows, "auc")
        if row["n_eligible"] and row["n_scored"] / row["n_eligible"] < LOW_COVERAGE
    ]
    return (
        [f"Eligible persons without a prediction: scored were {', '.join(said)}. The unscored are not random."] if said else []
    )


def _sources(rows: pl.DataFrame) -> list[str]:
    found = {
        row["center"]: (row["t_source"], row["t_reference"])
        for row in _by_place(rows, "auc")
        if row["center"] != EVERYONE and row["n_persons"]
    }
    if len(set(found.values())) < 2:
        return []
    listed = "; ".join(f"{center}: {source}, {population}" for center, (source, population) in sorted(found.items()))
    return [
        f"T-scores are not alike in every center (source, reference population): {listed}. Prevalence differs by that alone."
    ]


def _corrected(rows: pl.DataFrame) -> list[str]:
    places: dict[str, list[str]] = {}
    for row in _by_place(rows, "prev_corrected"):
        if row["status"] != "estimated":
            places.setdefault(reason_said(row["status_reason"]), []).append(_where(row))
    told = "; ".join(f"{', '.join(where)}: {why}" for why, where in places.items())
    return [f"Prevalence cannot be corrected for model error at {told}."] if places else []


def _confounded(performance: pl.DataFrame) -> list[str]:
    cells = performance.filter(pl.col("stratum") == "center*scanner_vendor").select("center", "scanner_vendor").unique()
    if not cells.height:
        return []
    per_vendor = cells.group_by("scanner_vendor").agg(pl.col("center").n_unique())["center"].to_list()
    if max(per_vendor) > 1 or len(per_vendor) < 2:
        return []
    return [
        "Every scanner vendor stands at one center only: a difference between vendors cannot be told from one between centers."
    ]


def _few_groups(heterogeneity: pl.DataFrame) -> list[str]:
    pooled = heterogeneity.filter(pl.col("estimate").is_not_null(), pl.col("n_groups") < FEWEST_GROUPS)
    if not pooled.height:
        return []
    fewest = min(pooled["n_groups"].to_list())
    return [f"Pooled over as few as {fewest} groups: between-group variance and prediction intervals are uncertain."]


def _flow_ends(rows: pl.DataFrame, last: int | None) -> list[str]:
    """The last number of the flow is the n of the performance table (methods R1)."""
    row = next((row for row in _by_place(rows, "auc") if row["center"] == EVERYONE), None)
    if last is None or row is None or row["n_persons"] == last:
        return []
    return [f"The flow ends with {last} persons and the performance table holds {row['n_persons']}: do not use these tables."]
