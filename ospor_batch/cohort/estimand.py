"""What a study asks, held against itself before any work: dates that cannot meet, classes that a standard does not have."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from ospor_batch.cohort.criteria import LABEL_PRESENT
from ospor_batch.cohort.guards import GUARD_RULES
from ospor_batch.config import Recipe, Study

WITHOUT_CLASSES = {"tbs": "TBS", "dxa_z": "Z-scores", "smi": "muscle"}  # standards that never say osteoporosis


@dataclass(frozen=True)
class Doubt:
    """Something about the estimand: a fault stops a run, a note is for the person who reads the tables."""

    subject: str
    verdict: Literal["fault", "note"]
    said: str


def doubts(study: Study) -> list[Doubt]:
    """Every doubt about what the study asks, in the order of the study file."""
    of_recipes = (doubt for recipe in study.recipes for doubt in _of_recipe(study, recipe))
    return [*_dates(study), *shifted_apart(study), *_partitions(study), *of_recipes]


def _dates(study: Study) -> Iterator[Doubt]:
    for name in ("image_dates", "label_dates"):
        dates = getattr(study.analysis, name)
        if dates is not None and dates[0] > dates[1]:
            yield Doubt("analysis", "fault", f"analysis.{name} ends before it begins")


def shifted_apart(study: Study) -> Iterator[Doubt]:
    """Dates that were shifted apart give no true gap, whoever shifted them (methods M2)."""
    for center in study.centers:
        for file in (*center.exports, *center.events):
            if file.date_shift != center.date_shift:
                names = [name or "none" for name in (file.date_shift, center.date_shift)]
                said = f"{file.path}: date_shift is {names[0]}, that of the archives {names[1]}"
                yield Doubt(f"dates of {center.name}", "fault", f"{said}; no label can be matched by dates shifted apart")


def _partitions(study: Study) -> Iterator[Doubt]:
    external = set(study.split.external.get("center", ()))
    if study.split.train + study.split.tuning > 0 and external >= {center.name for center in study.centers}:
        said = "every center is external: nobody is left for the training and tuning that split asks for"
        yield Doubt("split", "fault", said)


def _of_recipe(study: Study, recipe: Recipe) -> Iterator[Doubt]:
    subject, reference, match = f"estimand of {recipe.key}", study.reference(recipe.reference), study.match_of(recipe)
    images, labels = study.analysis.image_dates, study.analysis.label_dates
    if images is not None and labels is not None:
        first, last = images[0] - timedelta(match.before_days), images[1] + timedelta(match.after_days)
        if labels[1] < first or labels[0] > last:
            yield Doubt(
                subject, "fault", f"no label of label_dates can lie in the window {match.window} of an image of image_dates"
            )
    if reference.standard in WITHOUT_CLASSES:
        what = WITHOUT_CLASSES[reference.standard]
        said = f"reference {reference.id} ({what}) has no class of {study.analysis.target}: only agreement can be estimated"
        yield Doubt(subject, "note", said)
    if reference.standard == "dxa_who" and reference.t_source == "computed" and "radius_33" in reference.sites:
        yield Doubt(subject, "note", f"reference {reference.id}: T of the 33 % radius is never computed, only reported")
    if match.linkage == "accession" and not _has_accession(study):
        said = 'match.linkage is "accession", and no export maps accession_number: no label can be matched'
        yield Doubt(subject, "fault", said)
    if any(criterion.rule == LABEL_PRESENT for criterion in study.criteria_of(recipe)):
        said = "label_present keeps people who were measured: prevalence is theirs, and can be corrected for nobody else"
        yield Doubt(subject, "note", said)
    silent = [center.name for center in study.centers if not center.events]
    for criterion in study.criteria_of(recipe):
        if criterion.rule in GUARD_RULES and silent:
            yield Doubt(subject, "note", f"{criterion.name}: not assessed at {', '.join(silent)}, which have no events")


def _has_accession(study: Study) -> bool:
    return any("accession_number" in export.columns for center in study.centers for export in center.exports)
