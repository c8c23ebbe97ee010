"""The cohort of one recipe under one reference: every series, pair and person with its fate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import polars as pl

from ospor_batch.cohort import attrition as flows
from ospor_batch.cohort.choose import SERIES, choose, selection
from ospor_batch.cohort.criteria import LEAVES_AT, Step, Steps, judge
from ospor_batch.cohort.linkage import linkage
from ospor_batch.cohort.manifest import manifest, period, with_sex_of_person
from ospor_batch.cohort.match import LOT, PERSON, in_window, lots, pair, prevalence_index, rank_pairs, window_table
from ospor_batch.config import Match
from ospor_batch.contracts import contract
from ospor_batch.errors import LedgerError


@dataclass(frozen=True)
class Question:
    """What a recipe asks of the catalog."""

    recipe: str
    reference_id: str
    match: Match
    steps: Steps
    centers: tuple[str, ...]
    target: str  # osteoporosis or low_bone_mass
    label_dates: tuple[date, date] | None
    linkage_warning_below: float
    seed: int
    key: bytes


@dataclass(frozen=True)
class Cohort:
    """What becomes of the catalog under one question; index: everyone's label-blind series, for the split."""

    selection: pl.DataFrame
    candidate: pl.DataFrame
    manifest: pl.DataFrame
    index: pl.DataFrame
    linkage: pl.DataFrame
    window: pl.DataFrame
    attrition: pl.DataFrame


def build(series: pl.DataFrame, labels: pl.DataFrame, *, question: Question, overrides: pl.DataFrame) -> Cohort:
    """Judge, choose, match and count.

    series: the whole catalog; labels: those of the reference with exam_accession_number; overrides: study_key, series_key.
    """
    judged = judge(series, question.steps.series)
    eligible = judged.filter(pl.col("first_failed").is_null())
    selected = selection(judged, choose(eligible, overrides=overrides), overrides=overrides)
    chosen = _chosen(selected, question)
    pair_steps = _pair_steps(question)
    pairs = judge(_pairs(chosen, labels, pair_steps), pair_steps)
    candidates = rank_pairs(pairs.filter(pl.col(LEAVES_AT) > len(pair_steps)), index_series=question.match.index_series)
    matches = candidates.filter("is_match")
    prevalence = prevalence_index(chosen, rule=question.match.prevalence_index)
    rows = manifest(
        with_sex_of_person(_flagged(chosen, prevalence), labels),
        matches,
        recipe=question.recipe,
        reference_id=question.reference_id,
        window=question.match.window,
    )
    _refuse_lost(series, selected, chosen=chosen, rows=rows)
    dated = labels if question.label_dates is None else labels.filter(_in_period(question.label_dates))
    return Cohort(
        selection=_of_contract(selected, "selection", question),
        candidate=_of_contract(candidates, "candidate", question),
        manifest=rows,
        index=prevalence.with_columns(period=period()),
        linkage=_of_contract(
            linkage(
                chosen,
                dated,
                candidates=candidates,
                centers=question.centers,
                warning_below=question.linkage_warning_below,
            ),
            "linkage",
            question,
        ),
        window=_window(pairs.filter(pl.col(LEAVES_AT) >= len(pair_steps)), question),
        attrition=_attrition(selected, pairs, labels=labels, rows=rows, matches=matches, question=question),
    )


def _chosen(selected: pl.DataFrame, question: Question) -> pl.DataFrame:
    chosen = selected.filter(pl.col("fate") == "chosen")
    if "random" in (question.match.index_series, question.match.prevalence_index):
        chosen = chosen.with_columns(lots(chosen["series_key"], seed=question.seed, key=question.key))
    return chosen


def _pair_steps(question: Question) -> tuple[Step, ...]:
    steps = list(question.steps.pairs)
    if question.label_dates is not None:
        steps.insert(0, Step("label date in the study period", "outside_label_dates", ~_in_period(question.label_dates)))
    inside = in_window(before_days=question.match.before_days, after_days=question.match.after_days)
    return (*steps, Step(flows.LABELLED, "label_outside_window", ~inside))


def _in_period(dates: tuple[date, date]) -> pl.Expr:
    return pl.col("label_date").is_between(*dates, closed="both")


def _pairs(chosen: pl.DataFrame, labels: pl.DataFrame, steps: Sequence[Step]) -> pl.DataFrame:
    """Pairs with no more columns of the series than candidates, tie rule and steps read."""
    named = {column for step in steps for column in step.fails.meta.root_names()}
    needed = {*contract("candidate").columns, *named, "image_date", "accession_number", LOT}
    return pair(chosen.select(column for column in chosen.columns if column in needed), labels)


def _flagged(chosen: pl.DataFrame, prevalence: pl.DataFrame) -> pl.DataFrame:
    mark = prevalence.select(*SERIES, is_prevalence_index=pl.lit(value=True))
    return chosen.join(mark, on=SERIES, how="left").with_columns(pl.col("is_prevalence_index").fill_null(value=False))


def _of_contract(rows: pl.DataFrame, name: str, question: Question) -> pl.DataFrame:
    told = rows.with_columns(recipe=pl.lit(question.recipe), reference_id=pl.lit(question.reference_id))
    return told.select(contract(name).columns).sort(contract(name).primary_key)


def _window(pairs: pl.DataFrame, question: Question) -> pl.DataFrame:
    """The sensitivity table, from the pairs that every step but the window leaves."""
    rows = window_table(
        pairs,
        declared=(question.match.before_days, question.match.after_days),
        sensitivity_days=question.match.sensitivity_days,
        index_series=question.match.index_series,
        event=f"is_{question.target}",
    )
    return _of_contract(rows.with_columns(target=pl.lit(question.target)), "window", question)


def _attrition(
    selected: pl.DataFrame,
    pairs: pl.DataFrame,
    *,
    labels: pl.DataFrame,
    rows: pl.DataFrame,
    matches: pl.DataFrame,
    question: Question,
) -> pl.DataFrame:
    criteria = tuple((step.name, step.reason) for step in question.steps.series)
    on_pairs = tuple((step.name, step.reason) for step in _pair_steps(question))
    of_person = (*criteria, flows.NO_LABEL, *((flows.LABELLED, reason) for _, reason in on_pairs))
    counted = {
        "series": ((*criteria, flows.OUTRANKED, flows.NOT_INDEX), _series_counts(selected, rows, n_criteria=len(criteria))),
        "study": (criteria, flows.units(selected, ["center", "study_key"])),
        "person": (of_person, _person_counts(selected, pairs, n_criteria=len(criteria))),
        "label": (
            (flows.NO_IMAGE, *on_pairs, flows.NOT_THE_MATCH),
            _label_counts(labels, pairs, matches),
        ),
    }
    return pl.concat(
        flows.flow(
            counts,
            flows.Level(level, "match", steps),
            centers=question.centers,
            recipe=question.recipe,
            reference_id=question.reference_id,
        )
        for level, (steps, counts) in counted.items()
    )


def _series_counts(selected: pl.DataFrame, rows: pl.DataFrame, *, n_criteria: int) -> pl.DataFrame:
    index = rows.select(*SERIES, is_index=pl.lit(value=True)).unique()
    at = (
        pl.when(pl.col("fate") == "excluded")
        .then(LEAVES_AT)
        .when(pl.col("fate") == "outranked")
        .then(n_criteria + 1)
        .when(pl.col("is_index").is_null())
        .then(n_criteria + 2)
        .otherwise(n_criteria + 3)
    )
    found = selected.join(index, on=SERIES, how="left").select("center", at.cast(pl.Int64).alias(LEAVES_AT))
    return found.group_by("center", LEAVES_AT).agg(n=pl.len())


def _person_counts(selected: pl.DataFrame, pairs: pl.DataFrame, *, n_criteria: int) -> pl.DataFrame:
    """Known persons only: series without a patient number cannot be counted as persons."""
    known = selected.filter(pl.col("patient_key").is_not_null())
    people = known.group_by(PERSON).agg(pl.col(LEAVES_AT).max())
    paired = pairs.group_by(PERSON).agg(at_pair=pl.col(LEAVES_AT).max())
    at = (
        pl.when(pl.col(LEAVES_AT) <= n_criteria)
        .then(LEAVES_AT)
        .otherwise(
            n_criteria + 1 + pl.col("at_pair").fill_null(0)
        )  # no pair: leaves at "no label", the step after the criteria
    )
    return flows.units(people.join(paired, on=PERSON, how="left").with_columns(at.alias(LEAVES_AT)), PERSON)


def _label_counts(labels: pl.DataFrame, pairs: pl.DataFrame, matches: pl.DataFrame) -> pl.DataFrame:
    one = ["center", "label_key"]
    at_pair = pairs.group_by(one).agg(at_pair=pl.col(LEAVES_AT).max())
    matched = matches.select(*one, is_matched=pl.lit(value=True)).unique()
    found = labels.select(one).join(at_pair, on=one, how="left").join(matched, on=one, how="left")
    at = 1 + pl.col("at_pair").fill_null(0) + pl.col("is_matched").is_not_null().cast(pl.Int64)
    return flows.units(found.with_columns(at.alias(LEAVES_AT)), one)


def _refuse_lost(series: pl.DataFrame, selected: pl.DataFrame, *, chosen: pl.DataFrame, rows: pl.DataFrame) -> None:
    """LedgerError when a series lost its fate, or an eligible person the place in the manifest."""
    if selected.height != series.height:
        raise LedgerError(f"match: {series.height} series in, {selected.height} fates out")
    eligible, listed = chosen.select(PERSON).unique(), rows.select(PERSON).unique()
    blind = rows.filter("is_prevalence_index").height
    if not eligible.height == listed.height == blind:
        raise LedgerError(
            f"match: {eligible.height} eligible persons, {listed.height} in the manifest, {blind} prevalence indices"
        )
