"""What a header says of contrast: the kind of evidence, the phase and the route; silence is no evidence either way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl

from ospor_batch.catalog.vocabulary import Vocabulary, fold, vocabulary

Said = Literal["with", "without"] | None


@dataclass(frozen=True)
class ContrastTags:
    """Distinct values of the contrast tags over a series; None stands for an absent element."""

    agents: frozenset[str | None]
    routes: frozenset[str | None]
    has_volume: bool


@dataclass(frozen=True)
class Told:
    """The descriptions of a series, the nearest first: its own comes before the protocol, and this before the study's."""

    series: str | None = None
    protocol: str | None = None
    study: str | None = None

    @property
    def all(self) -> tuple[str | None, str | None, str | None]:
        return self.series, self.protocol, self.study


def contrast_evidence(tags: ContrastTags, told: Told, *, words: Vocabulary | None = None) -> str:
    """given, declared_plain, tag_absent, tag_empty or conflicting; text counts only where it is explicit.

    The study's description may hold several phases, so it is heard last.
    """
    words = words or vocabulary()
    by_tag = _tags_say(tags, words)
    near = _text_says(told.series, words)
    text = near or _text_says(told.protocol, words) or _text_says(told.study, words)
    if by_tag == "conflicting" or {by_tag, text} == {"with", "without"}:
        return "conflicting"
    if by_tag == "with" or near == "with":
        return "given"
    if text == "with":
        return "conflicting"  # the study speaks of contrast, the tags of this series do not
    if by_tag == "without" or text == "without":
        return "declared_plain"
    return "tag_absent" if tags.agents | tags.routes <= {None} else "tag_empty"


def contrast_phase(evidence: str, told: Told, *, words: Vocabulary | None = None) -> str:
    """plain, a named phase, unspecified or unknown: named only where contrast was given and one text names one phase."""
    if evidence == "declared_plain":
        return "plain"
    if evidence != "given":
        return "unknown"
    for text in told.all:
        found = (words or vocabulary()).every("phases", text)
        if len(found) == 1:
            return found.pop()
        if found:
            return "unspecified"  # a study of several phases
    return "unspecified"


def contrast_route(tags: ContrastTags, *, words: Vocabulary | None = None) -> str | None:
    """Routes that tags and agents name, joined by +; null when none is named. Oral contrast alone leaves bone as it is."""
    words = words or vocabulary()
    found = {name for text in tags.routes | tags.agents for name in words.every("routes", text)}
    return "+".join(sorted(found)) or None


def told_of_contrast(series: pl.DataFrame) -> pl.DataFrame:
    """The CT series whose headers are heard on contrast: no scouts, no screens."""
    is_scan = pl.col("sop_class").is_in(["image", "enhanced_image"]) & ~pl.col("is_localizer")
    return series.filter(pl.col("contrast_evidence") != "not_applicable", is_scan)


def contrast_counts(series: pl.DataFrame, *, by: Sequence[str] = ("center",)) -> pl.DataFrame:
    """How many CT series (no scouts, no screens), their studies and persons each group has of each kind of evidence."""
    counted = (
        told_of_contrast(series)
        .group_by(*by, "contrast_evidence")
        .agg(
            n_series=pl.len(), n_studies=pl.col("study_key").n_unique(), n_persons=pl.col("patient_key").drop_nulls().n_unique()
        )
    )
    return counted.with_columns(pl.col("n_series", "n_studies", "n_persons").cast(pl.Int64)).sort(*by, "contrast_evidence")


def _tags_say(tags: ContrastTags, words: Vocabulary) -> Literal["with", "without", "conflicting"] | None:
    values = {one for value in tags.agents | tags.routes if value for one in value.split("\\") if fold(one)}
    stated = {value for value in values if not words.says(value, "tag_silent", of="evidence")}
    plain = {value for value in stated if words.says(value, "tag_plain", of="evidence")}
    is_given = tags.has_volume or bool(stated - plain)
    if plain and is_given:
        return "conflicting"
    return "with" if is_given else "without" if plain else None


def _text_says(text: str | None, words: Vocabulary) -> Said:
    if words.says(text, "both", of="evidence"):
        return None  # names plain and enhanced phases alike
    told = words.without(text, "neutral", of="evidence")
    is_without = words.says(told, "without", of="evidence")
    is_with = words.says(words.without(told, "without", of="evidence"), "with", of="evidence")
    if is_with == is_without:
        return None
    return "with" if is_with else "without"
