"""The cohort of one recipe under one reference: every series, pair and person with its fate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

import polars as pl

from ospor_batch.cohort import attrition as flows
from ospor_batch.cohort.choose import SERIES, choose, selection
from ospor_batch.cohort.criteria import HAS_LABEL, LEAVES_AT, PERIOD, Step, Steps, judge
from ospor_batch.cohort.fates import unit_fates
from ospor_batch.cohort.guards import guard_rows, struck_people, with_guards
from ospor_batch.cohort.linkage import linkage, linked
from ospor_batch.cohort.manifest import manifest, period, with_sex_of_person
from ospor_batch.cohort.match import LOT, lots, prevalence_index, rank_pairs
from ospor_batch.cohort.pairing import PERSON, in_window, pair
from ospor_batch.cohort.shared_persons import with_home
from ospor_batch.cohort.windows import window_table, windowed
from ospor_batch.config import Match
from ospor_batch.contracts import contract
from ospor_batch.contracts.table import empty
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
    event_centers: tuple[str, ...] = ()  # centers whose events were recorded; guards say nothing of the others
    phantoms: Mapping[str, str] = field(default_factory=dict)  # center -> whether a calibration phantom is in view


@dataclass(frozen=True)
class Cohort:
    """What becomes of the catalog under one question; index: everyone's label-blind series, for the split.

    linked, windowed and struck are the people that linkage, window and guard count.
    """

    selection: pl.DataFrame
    candidate: pl.DataFrame
    manifest: pl.DataFrame
    index: pl.DataFrame
    linkage: pl.DataFrame
    linked: pl.DataFrame
    window: pl.DataFrame
    windowed: pl.DataFrame
    guard: pl.DataFrame
    struck: pl.DataFrame
    fate: pl.DataFrame
    attrition: pl.DataFrame


def build(
    series: pl.DataFrame,
    labels: pl.DataFrame,
    *,
    question: Question,
    overrides: pl.DataFrame,
    events: pl.DataFrame | None = None,
) -> Cohort:
    """Judge, choose, match and count.

    series: the whole catalog; labels: those of the reference with exam_accession_number; overrides: study_key, series_key;
    events: of the event contract.
    """
    events = empty("event") if events is None else events
    judged, question = _judged(series, labels, question, events=events)
    eligible = judged.filter(pl.col("first_failed").is_null())
    selected = selection(judged, choose(eligible, overrides=overrides), overrides=overrides)
    chosen = _chosen(selected, question)
    pair_steps = _pair_steps(question)
    pairs = _guarding(_pairs(chosen, labels, pair_steps), question, events=events, judges_pairs=True)
    pairs = judge(pairs, pair_steps)
    inside = pairs.filter(pl.col(LEAVES_AT) > len(pair_steps))
    candidates = rank_pairs(inside, **_rule(question.match))
    matches = candidates.filter("is_match")
    prevalence = prevalence_index(chosen, rule=question.match.prevalence_index)
    rows = manifest(
        with_sex_of_person(_flagged(chosen, prevalence), labels),
        matches,
        recipe=question.recipe,
        reference_id=question.reference_id,
        window=question.match.window,
        phantoms=question.phantoms,
    )
    _refuse_lost(series, selected, chosen=chosen, rows=rows)
    fates = unit_fates(selected, pairs, labels=labels, rows=rows, matches=matches, n_criteria=len(question.steps.series))
    linked_people, linked_counts = _linked(chosen, labels, pairs=pairs, question=question)
    near, window_counts = _windows(pairs.filter(pl.col(LEAVES_AT) >= len(pair_steps)), question)
    struck, guard_counts = _guards(judged, pairs, question, events=events)
    return Cohort(
        selection=_of_contract(selected, "selection", question),
        candidate=_of_contract(candidates, "candidate", question),
        manifest=rows,
        index=prevalence.with_columns(period=period()),
        linkage=linked_counts,
        linked=linked_people,
        window=window_counts,
        windowed=near,
        guard=guard_counts,
        struck=struck,
        fate=_of_contract(fates.rename({LEAVES_AT: "step_number"}), "fate", question),
        attrition=_attrition(fates, question),
    )


def _judged(
    series: pl.DataFrame, labels: pl.DataFrame, question: Question, *, events: pl.DataFrame
) -> tuple[pl.DataFrame, Question]:
    """Every series judged by its steps; the question has one step more where people of two centers need a home."""
    ready = _with_label_present(series.with_columns(period().alias(PERIOD)), labels, question)
    judged = judge(_guarding(ready, question, events=events, judges_pairs=False), question.steps.series)
    shared = with_home(judged)
    if shared is None:
        return judged, question
    at_home, step = shared
    question = replace(question, steps=replace(question.steps, series=(*question.steps.series, step)))
    return judge(at_home, question.steps.series), question


def _linked(
    chosen: pl.DataFrame, labels: pl.DataFrame, *, pairs: pl.DataFrame, question: Question
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The people of the linkage table, and the table."""
    dated = labels if question.label_dates is None else labels.filter(_in_period(question.label_dates))
    judged = pairs.with_columns(is_candidate=pl.col(LEAVES_AT) > len(_pair_steps(question)))
    people = linked(chosen, dated, pairs=judged)
    found = linkage(
        people,
        pairs=judged,
        window=in_window(before_days=question.match.before_days, after_days=question.match.after_days),
        centers=question.centers,
        warning_below=question.linkage_warning_below,
    )
    return _of_contract(people, "linked", question), _of_contract(found, "linkage", question)


def _chosen(selected: pl.DataFrame, question: Question) -> pl.DataFrame:
    chosen = selected.filter(pl.col("fate") == "chosen")
    if "random" in (question.match.index_series, question.match.prevalence_index):
        chosen = chosen.with_columns(lots(chosen["series_key"], seed=question.seed, key=question.key))
    return chosen


def _with_label_present(series: pl.DataFrame, labels: pl.DataFrame, question: Question) -> pl.DataFrame:
    """Say in has_label whether a label lies in the window of each series and in the study period, if a criterion asks."""
    if not any(HAS_LABEL in step.fails.meta.root_names() for step in question.steps.series):
        return series
    dated = labels if question.label_dates is None else labels.filter(_in_period(question.label_dates))
    within = (question.match.before_days, question.match.after_days)
    mine, theirs = series.select(*SERIES, "patient_key", "image_date"), dated.select(*PERSON, "label_date")
    labelled = pair(mine, theirs, within=within).select(*SERIES).unique().with_columns(pl.lit(value=True).alias(HAS_LABEL))
    return series.join(labelled, on=SERIES, how="left").with_columns(pl.col(HAS_LABEL).fill_null(value=False))


def _rule(match: Match) -> dict[str, Any]:
    return {"index_series": match.index_series, "prefer": match.prefer, "reuse": match.label_reuse}


def _guarding(rows: pl.DataFrame, question: Question, *, events: pl.DataFrame, judges_pairs: bool) -> pl.DataFrame:
    guards = [guard for guard in question.steps.guards if guard.judges_pairs is judges_pairs]
    return with_guards(rows, guards, events=events, assessed=question.event_centers)


def _guards(
    judged: pl.DataFrame, pairs: pl.DataFrame, question: Question, *, events: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Whom the guards struck, those on series among all series and those on pairs among all pairs; and the table."""
    people, told = list[pl.DataFrame](), list[pl.DataFrame]()
    for rows, judges_pairs in ((judged, False), (pairs, True)):
        guards = [guard for guard in question.steps.guards if guard.judges_pairs is judges_pairs]
        people.append(struck_people(rows, guards))
        told.append(
            guard_rows(
                rows,
                guards,
                struck=people[-1],
                events=events,
                assessed=question.event_centers,
                centers=question.centers,
            )
        )
    return _of_contract(pl.concat(people), "struck", question), _of_contract(pl.concat(told), "guard", question)


def _pair_steps(question: Question) -> tuple[Step, ...]:
    steps = list(question.steps.pairs)
    if question.match.linkage == "accession":
        same = pl.col("exam_accession_number").str.strip_chars() == pl.col("accession_number").str.strip_chars()
        steps[:0] = [
            Step("label of the same accession", "other_accession", (~same).fill_null(value=False)),
            Step("label of the same accession: unknown", "accession_unknown", same.is_null()),
        ]
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


def _windows(pairs: pl.DataFrame, question: Question) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The matches under each window, from the pairs that every step but the window leaves; and the table that counts them."""
    asked: dict[str, Any] = {
        "declared": (question.match.before_days, question.match.after_days),
        "sensitivity_days": question.match.sensitivity_days,
    }
    rows = windowed(pairs, event=f"is_{question.target}", **asked, **_rule(question.match))
    counted = window_table(rows, **asked).with_columns(target=pl.lit(question.target))
    return _of_contract(rows, "windowed", question), _of_contract(counted, "window", question)


def _attrition(fates: pl.DataFrame, question: Question) -> pl.DataFrame:
    criteria = tuple((step.name, step.reason) for step in question.steps.series)
    on_pairs = tuple((step.name, step.reason) for step in _pair_steps(question))
    steps = {
        "series": (*criteria, flows.OUTRANKED, flows.NOT_INDEX),
        "study": criteria,
        "person": (*criteria, flows.NO_LABEL, *((flows.LABELLED, reason) for _, reason in on_pairs)),
        "label": (flows.NO_IMAGE, *on_pairs, flows.NOT_THE_MATCH),
    }
    flow = pl.concat(
        flows.flow(
            fates.filter(pl.col("level") == level).group_by("center", LEAVES_AT).agg(n=pl.len()),
            flows.Level(level, "match", of_level),
            centers=question.centers,
            recipe=question.recipe,
            reference_id=question.reference_id,
        )
        for level, of_level in steps.items()
    )
    # by reason: at person level every step on pairs is called "label in the window"
    every = (*question.steps.series, *question.steps.pairs)
    notes = {step.reason: step.guard.note for step in every if step.guard is not None}
    is_silent = ~pl.col("center").is_in(list(question.event_centers))
    said = pl.col("reason").replace_strict(notes, default=None, return_dtype=pl.String)
    return flow.with_columns(note=pl.when(is_silent).then(said))


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
