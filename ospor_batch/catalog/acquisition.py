"""What the header says of the person and of the acquisition: contrast, view, region, dates, age, sex, voltage."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

from ospor_batch.catalog.vocabulary import fold, pattern, says, vocabulary

RADIOGRAPHS = ("CR", "DX", "RG")
XRAY = (*RADIOGRAPHS, "CT", "MG", "XA", "RF", "PX", "IO")
OLDEST = 130.0  # contract series: age_at_image
AGE = re.compile(r"^(\d{1,3})([DWMY])$")
YEARS_PER = {"D": 1 / 365.2425, "W": 7 / 365.2425, "M": 1 / 12, "Y": 1.0}
HEIGHT_M = (1.2, 2.2)  # methods I1: catches centimeters
WEIGHT_KG = (20.0, 300.0)  # contract series: weight_kg
Said = Literal["with", "without"] | None


@dataclass(frozen=True)
class ContrastTags:
    """Distinct values of the contrast tags over a series; None stands for an absent element."""

    agents: frozenset[str | None]
    routes: frozenset[str | None]
    has_volume: bool


def contrast_evidence(tags: ContrastTags, *, series: str | None, protocol: str | None, study: str | None) -> str:
    """given, declared_plain, tag_absent, tag_empty or conflicting; text counts only where it is explicit.

    The description of the series comes before the protocol, and this before the study, which may hold several phases.
    """
    by_tag = _tags_say(tags)
    near = _text_says(series)
    text = near or _text_says(protocol) or _text_says(study)
    if by_tag == "conflicting" or {by_tag, text} == {"with", "without"}:
        return "conflicting"
    if by_tag == "with" or near == "with":
        return "given"
    if text == "with":
        return "conflicting"  # the study speaks of contrast, the tags of this series do not
    if by_tag == "without" or text == "without":
        return "declared_plain"
    return "tag_absent" if tags.agents | tags.routes <= {None} else "tag_empty"


def _tags_say(tags: ContrastTags) -> Literal["with", "without", "conflicting"] | None:
    plain = pattern(tuple(vocabulary("contrast")["tag_plain"]))
    stated = {fold(value) for value in tags.agents | tags.routes if fold(value)}
    is_plain = any(plain.search(value) for value in stated)
    is_given = tags.has_volume or any(not plain.search(value) for value in stated)
    if is_plain and is_given:
        return "conflicting"
    return "with" if is_given else "without" if is_plain else None


def _text_says(text: str | None) -> Said:
    words = vocabulary("contrast")
    rest = pattern(tuple(words["both"])).sub(" ", fold(text))
    if rest != fold(text):
        return None  # names plain and enhanced phases alike
    without = pattern(tuple(words["without"]))
    is_without = bool(without.search(rest))
    is_with = bool(pattern(tuple(words["with"])).search(without.sub(" ", rest)))
    if is_with == is_without:
        return None
    return "with" if is_with else "without"


def body_region(tag: str | None, *, descriptions: Sequence[str | None]) -> tuple[str, str]:
    """Region and what the verdict rests on: the tag, else the first description that names a part."""
    if (region := _region(tag)) is not None:
        return region, "tag"
    for text in descriptions:
        if (region := _region(text)) is not None:
            return region, "description"
    return "unknown", "none"


def _region(text: str | None) -> str | None:
    words = fold(text)
    parts = {
        str(e["part"]) for e in vocabulary("body_regions")["parts"] if words and pattern(tuple(e["patterns"])).search(words)
    }
    if not parts:
        return None
    if "whole_body" in parts:
        return "whole_body"
    if len(parts) == 1:
        return parts.pop()
    for entry in vocabulary("body_regions")["regions"]:
        if parts == set(entry["parts"]):
            return str(entry["region"])
    return "other"


def view(modality: str, *, tag: str | None, orientation: str | None, descriptions: Sequence[str | None]) -> str:
    """View of a radiograph from the tag, else the descriptions, else the direction of its rows; never guessed."""
    if modality not in RADIOGRAPHS:
        return "not_applicable"
    for text in (tag, *descriptions):
        found = [name for name in ("lateral", "pa", "ap", "other") if says(text, f"view_{name}")]
        if "other" in found:
            return "other"
        if len(found) == 1:
            return found[0]
    if fold(tag):
        return "other"
    rows = (orientation or "").split("\\")[0]
    return "lateral" if rows[:1] in {"A", "P"} else "unknown"  # rows that run front to back


def image_date(first: dict[str, date | None]) -> tuple[date | None, str]:
    """Acquisition, else series, else study date (methods M2), and which it was."""
    for source in ("acquisition", "series", "study"):
        if (found := first[f"{source}_date"]) is not None:
            return found, source
    return None, "none"


def years_between(start: date, end: date) -> float:
    """Completed years and the share of the running one: whole on a birthday, so that limits of age hold exactly."""
    years = end.year - start.year - ((end.month, end.day) < (start.month, start.day))
    last, following = _birthday(start, start.year + years), _birthday(start, start.year + years + 1)
    return years + (end - last).days / (following - last).days


def _birthday(born: date, year: int) -> date:
    try:
        return born.replace(year=year)
    except ValueError:  # 29 February
        return date(year, 3, 1)


def age(born: date | None, *, at: date | None, stated: str | None) -> tuple[float | None, str, list[str]]:
    """Age in years, its source, and findings; from the birth date, else from PatientAge; never imputed."""
    findings = []
    by_tag = _stated_age(stated)
    if fold(stated) and by_tag is None:
        findings.append("age_unreadable")
    if born is not None and at is not None:
        found = years_between(born, at)
        if 0 <= found <= OLDEST:
            # PatientAge counts whole years: a year and a half apart cannot both be true
            if by_tag is not None and abs(found - by_tag) > 1.5:
                findings.append("age_conflict")
            return found, "birth_date", findings
        findings.append("age_implausible")
    return (by_tag, "patient_age", findings) if by_tag is not None else (None, "none", findings)


def _stated_age(stated: str | None) -> float | None:
    found = AGE.match((stated or "").strip().upper())
    if found is None or int(found[1]) == 0:  # 000Y is what de-identification leaves; a newborn has days
        return None
    years = int(found[1]) * YEARS_PER[found[2]]
    return years if years <= OLDEST else None


def sex(written: str | None) -> str:
    """female, male, other or unknown."""
    return {"f": "female", "m": "male", "o": "other"}.get(fold(written), "unknown")


def within(value: float | None, bounds: tuple[float, float]) -> float | None:
    """The value, or null outside its bounds."""
    return value if value is not None and bounds[0] <= value <= bounds[1] else None


def tube_voltage(values: Sequence[float | None], *, modality: str, is_multi: bool) -> tuple[float | None, str]:
    """The voltage that all instances state, and whether they do; 0 counts as absent (methods I3)."""
    if modality not in XRAY:
        return None, "not_applicable"
    stated = {value or None for value in values}
    if is_multi or len(stated) > 1:
        return None, "mixed"
    found = stated.pop() if stated else None
    return (found, "stated") if found is not None else (None, "absent")


def is_human(row: dict[str, Any]) -> bool:
    """False when any part of the header says that the subject is an animal."""
    species = fold(row["patient_species"])
    if (species and "homo" not in species and "human" not in species) or fold(row["patient_breed"]):
        return False
    if fold(row["patient_sex_neutered"]) or fold(row["responsible_person_role"]) == "owner":
        return False
    told = ("institution_name", "acquisition_device_processing", "study_description", "series_description", "protocol_name")
    return not any(says(row[column], "animal") for column in told)
