"""Event guards: an event near image and label removes the pair, and where no events were recorded nothing is assumed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl

from ospor_batch.config import Criterion
from ospor_batch.contracts import contract
from ospor_batch.errors import StudyError

GuardRule = Literal["no_event_between", "no_event_before_image", "no_event_before_label", "no_implant"]
GUARD_RULES: tuple[GuardRule, ...] = ("no_event_between", "no_event_before_image", "no_event_before_label", "no_implant")
ON_IMAGE = ("no_event_before_image", "no_implant")  # the rules that judge a series; the others judge pairs
IMPLANTS = ("cement", "implant", "spine_surgery")  # what leaves metal or cement in the body, unless the study names others
DESCRIBED = "implant_described"  # finding of the catalog that says the same of a series
NOT_ASSESSED = "not assessed: the center has no event table"
DESCRIBED_ALONE = f"{NOT_ASSESSED}; only descriptions of series were read"
EVENTS, FINDINGS = "event", "finding"  # what may strike
EVENT = ("patient_key", "code", "start_date", "end_date")
COUNTS = ("n_events", "n_persons", "n_struck", "n_described")


@dataclass(frozen=True)
class Guard:
    """One guard of a recipe.

    no_event_between: an event started on a day from the earlier to the later of image and label date, both inclusive.
    no_event_before_image, no_event_before_label: an event started on or before that day, and lasted to within_days before
    it or later (an event without an end lasts one day; without within_days: it started at any time).
    no_implant: an operation that leaves metal or cement started on or before the day of the image, or a description of the
    series names such a thing; a description that names none proves nothing.
    An event counts whichever center recorded it, where a crosswalk joins the person's numbers.
    """

    name: str
    rule: GuardRule
    codes: tuple[str, ...]
    within_days: int | None

    @property
    def column(self) -> str:
        """The column that holds whether it struck; null where it could not be assessed."""
        return f"guard {self.name}"

    @property
    def judges_pairs(self) -> bool:
        return self.rule not in ON_IMAGE

    @property
    def finding(self) -> str | None:
        """The finding of the catalog that strikes as an event does; null for guards that look at events alone."""
        return DESCRIBED if self.rule == "no_implant" else None

    @property
    def strikes(self) -> pl.Expr:
        """True where an event or a finding removes the row; where events were not assessed they remove nobody."""
        struck = pl.col(self.column).fill_null(value=False)
        return struck if self.finding is None else struck | is_found(self.finding)

    @property
    def note(self) -> str:
        """What is said of a center without an event table."""
        return NOT_ASSESSED if self.finding is None else DESCRIBED_ALONE


def is_found(finding: str) -> pl.Expr:
    """Whether a series has a finding, as a whole word of the joined ones."""
    return pl.col("findings").str.split(";").list.contains(finding)


def guard_of(criterion: Criterion) -> Guard:
    """Read a criterion as a guard; StudyError when its codes are none of the event contract."""
    where = f"criteria {criterion.name!r}"
    known = tuple(dict(contract("event").field("code").constraints)["enum"])
    codes = criterion.codes or (IMPLANTS if criterion.rule == "no_implant" else ())
    if not codes:
        raise StudyError(f"{where}: rule {criterion.rule} needs codes, some of {', '.join(known)}")
    if wrong := sorted(set(codes) - set(known)):
        raise StudyError(f"{where}: codes has {wrong[0]!r}, expected some of {', '.join(known)}")
    if criterion.rule in {"no_event_between", "no_implant"} and criterion.within_days is not None:
        raise StudyError(f"{where}: {criterion.rule} takes no within_days")
    rule: GuardRule = next(name for name in GUARD_RULES if name == criterion.rule)
    return Guard(criterion.name, rule, tuple(sorted(set(codes))), criterion.within_days)


def with_guards(
    rows: pl.DataFrame, guards: Sequence[Guard], *, events: pl.DataFrame, assessed: Collection[str]
) -> pl.DataFrame:
    """Add one column a guard: true where it strikes, null at centers that are not among ``assessed``.

    rows: series with image_date, or pairs with label_date too; events: center, patient_key, code, start and end date.
    """
    for guard in guards:
        mine = events.filter(pl.col("code").is_in(list(guard.codes))).select(EVENT)
        numbered = rows.with_row_index("_row")
        near = numbered.join(mine, on="patient_key", how="inner").filter(_strikes(guard)).select("_row").unique()
        struck = pl.col("_row").is_in(near["_row"].implode())
        is_assessed = pl.col("center").is_in(sorted(assessed))
        rows = numbered.with_columns(pl.when(is_assessed).then(struck).alias(guard.column)).drop("_row")
    return rows


def struck_people(rows: pl.DataFrame, guards: Sequence[Guard]) -> pl.DataFrame:
    """Who was struck, by which guard and what evidence, whatever else removed them.

    rows: series or pairs with the columns of the guards.
    """
    found = [rows.clear().select("center", "patient_key", criterion=pl.lit(""), evidence=pl.lit(""))]
    for guard in guards:
        by = {EVENTS: pl.col(guard.column), FINDINGS: None if guard.finding is None else is_found(guard.finding)}
        for evidence, struck in by.items():
            if struck is not None:
                people = rows.filter(pl.col("patient_key").is_not_null(), struck).select("center", "patient_key").unique()
                found.append(people.with_columns(criterion=pl.lit(guard.name), evidence=pl.lit(evidence)))
    return pl.concat(found)


def guard_rows(
    rows: pl.DataFrame,
    guards: Sequence[Guard],
    *,
    struck: pl.DataFrame,
    events: pl.DataFrame,
    assessed: Collection[str],
    centers: Sequence[str],
) -> pl.DataFrame:
    """What each guard did per center: persons looked at and struck; null, and never 0, where it was not assessed.

    rows: series or pairs; struck: as struck_people gives them. n_described: persons struck by a finding of the catalog, null
    for guards that look at events alone.
    """
    told = []
    for guard in guards:
        for center in sorted(centers):
            people = rows.filter((pl.col("center") == center) & pl.col("patient_key").is_not_null())
            mine = events.filter((pl.col("center") == center) & pl.col("code").is_in(list(guard.codes)))
            hit = struck.filter((pl.col("center") == center) & (pl.col("criterion") == guard.name))
            n_hit = dict(hit.group_by("evidence").len().iter_rows())
            is_assessed = center in assessed
            told.append(
                {
                    "center": center,
                    "criterion": guard.name,
                    "rule": guard.rule,
                    "codes": ";".join(guard.codes),
                    "status": "assessed" if is_assessed else "not_assessed",
                    "n_events": mine.height if is_assessed else None,
                    "n_persons": people["patient_key"].n_unique() if is_assessed else None,
                    "n_struck": n_hit.get(EVENTS, 0) if is_assessed else None,
                    "n_described": None if guard.finding is None else n_hit.get(FINDINGS, 0),
                }
            )
    names = ("center", "criterion", "rule", "codes", "status", *COUNTS)
    return pl.DataFrame(told, schema={name: pl.Int64 if name in COUNTS else pl.String for name in names})


def _strikes(guard: Guard) -> pl.Expr:
    start, end = pl.col("start_date"), pl.coalesce("end_date", "start_date")
    if guard.rule == "no_event_between":
        earlier = pl.min_horizontal("image_date", "label_date")
        return start.is_between(earlier, pl.max_horizontal("image_date", "label_date"), closed="both")
    day = pl.col("image_date" if guard.rule in ON_IMAGE else "label_date")
    if guard.within_days is None:
        return start <= day
    return (start <= day) & ((day - end).dt.total_days() <= guard.within_days)
