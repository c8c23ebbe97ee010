"""What the header says of the person and of the acquisition: view, dates, age, sex, voltage, species."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from ospor_batch.catalog.grouping import SEXES
from ospor_batch.catalog.vocabulary import Vocabulary, fold, vocabulary

RADIOGRAPHS = ("CR", "DX", "RG")
XRAY = (*RADIOGRAPHS, "CT", "MG", "XA", "RF", "PX", "IO")
# Declared judgement: what is older is far more often a date of birth that stands for an unknown one
OLDEST = 110.0
AGE = re.compile(r"^(\d{1,3})([DWMY])$")
YEARS_PER = {"D": 1 / 365.2425, "W": 7 / 365.2425, "M": 1 / 12, "Y": 1.0}
HEIGHT_M = (1.2, 2.2)  # methods I1: catches centimeters
WEIGHT_KG = (20.0, 300.0)  # contract series: weight_kg
FRONTAL = ("pa", "ap", "frontal")
HUMAN = r"\bhomo\b|\bhuman|\bsapiens\b"  # SNOMED CT 337915000 is "Homo sapiens"


@dataclass(frozen=True)
class View:
    """How a radiograph was taken: the way of the beam and the plane it gives; findings when tag and text disagree."""

    view: str
    projection: str | None
    findings: tuple[str, ...] = ()


def view(
    modality: str,
    *,
    tag: str | None,
    code: str | None = None,
    orientation: str | None,
    descriptions: Sequence[str | None],
    words: Vocabulary | None = None,
) -> View:
    """View of a radiograph from tag or code, else the descriptions, else the direction of its rows; never guessed."""
    if modality not in RADIOGRAPHS:
        return View("not_applicable", None)
    words = words or vocabulary()
    by_tag = _one_view(tag, words) or _one_view(code, words)
    by_text = next((one for text in descriptions if (one := _one_view(text, words))), None)
    rows = (orientation or "").split("\\")[0]
    by_rows = "lateral" if rows[:1] in {"A", "P"} else None  # rows that run front to back
    found = by_tag or ("other" if fold(tag) or fold(code) else by_text or by_rows)
    planes = {_projection(one) for one in (by_tag, by_text) if one}
    findings = ("view_contradicted",) if len(planes) > 1 else ()
    is_named = found in {"pa", "ap", "lateral"}
    said = found if is_named else "unknown" if found in {None, "frontal"} else "other"
    return View(str(said), _projection(found), findings)


def _one_view(text: str | None, words: Vocabulary) -> str | None:
    """The view that a text names; null when it names none or several, but for other and oblique, which win."""
    found = words.every("views", text)
    for name in ("oblique", "other"):
        if name in found:
            return name
    found -= {"frontal"} if found & {"pa", "ap"} else set()
    return found.pop() if len(found) == 1 else None


def _projection(found: str | None) -> str:
    return "unknown" if found is None else "frontal" if found in FRONTAL else found


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
    return SEXES.get(fold(written).upper(), "unknown")


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


def is_human(row: dict[str, Any], *, words: Vocabulary | None = None) -> bool:
    """False when any part of the header says that the subject is an animal."""
    species = fold(row["patient_species"])
    if (species and not re.search(HUMAN, species)) or fold(row["patient_breed"]):
        return False
    if fold(row["patient_sex_neutered"]) or fold(row["responsible_person_role"]) == "owner":
        return False
    told = ("institution_name", "acquisition_device_processing", "study_description", "series_description", "protocol_name")
    kinds = ("animal", "animal_radiograph") if row["modality"] in RADIOGRAPHS else ("animal",)
    return not any((words or vocabulary()).says(row[column], kind) for column in told for kind in kinds)
