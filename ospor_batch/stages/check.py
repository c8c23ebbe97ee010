"""Everything that can be known before work: key, archives, exports, criteria, split, strata, codecs, disk."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from ospor_batch.archive.look import lies_within, look_at
from ospor_batch.cohort.estimand import doubts
from ospor_batch.cohort.split import check_split
from ospor_batch.config import Center, Export, Recipe, Study, read_key
from ospor_batch.errors import ArchiveError, OsporError, StorageError, StudyError
from ospor_batch.evaluation.strata import parse_strata
from ospor_batch.labels.t_reference import t_reference_ids
from ospor_batch.labels.table_export import inspect_export
from ospor_batch.labels.words import UNKNOWN
from ospor_batch.models.registry import kind_of
from ospor_batch.stages.doctor import CODECS, Verdict, codec_of
from ospor_batch.stages.label import check_exports
from ospor_batch.stages.match import read_overrides, steps_of
from ospor_batch.stages.site_rules import read_rules
from ospor_batch.stages.specs import declared_spec, refuse_without_packages, with_threshold

NEEDED_GB = 1.0  # a catalog of a million instances takes about 0.3 GB, its runs less


@dataclass(frozen=True)
class Checked:
    """One thing looked at, how it is, what was found, and the exit code that a run would end with."""

    subject: str
    verdict: Verdict
    said: str
    exit_code: int = 0


def check_study(study: Study) -> list[Checked]:
    """Look at everything that the study file names; nothing is written, nothing raised that is ours."""
    found = [_try("pseudonym key", lambda: f"{len(read_key(study))} characters, from where the study file says")]
    if study.split.key is not None:
        split_secret = study.split.key
        found.append(_try("split key", lambda: f"{len(read_key(study, split_secret))} characters"))
    found.append(_try("words and linkage", lambda: _site_rules(study)))
    for center in study.centers:
        found += [_try(f"archive of {center.name}", partial(_archive, study, center, a)) for a in center.archives]
        found += _exports(study, center)
    found += _overlaps(study)
    found += [Checked("labels", "fault", fault, StudyError.exit_code) for fault in check_exports(study)]
    for recipe in study.recipes:
        found.append(_try(f"criteria of {recipe.key}", partial(_criteria, study, recipe)))
        found.append(_threshold(study, recipe))
        found.append(_try(f"model of {recipe.key}", partial(_model, study, recipe)))
    found.append(_try("split", lambda: _split(study)))
    found += [Checked(d.subject, d.verdict, d.said, StudyError.exit_code if d.verdict == "fault" else 0) for d in doubts(study)]
    found.append(_try("strata", lambda: ", ".join(s.name for s in parse_strata(study.tables.strata))))
    for syntax, name in CODECS.items():
        codec = codec_of(syntax, name)
        found.append(Checked(codec.subject, "ok" if codec.verdict == "ok" else "note", codec.said))
    found.append(_try("disk", lambda: _disk(study)))
    return found


def _try(subject: str, look: Callable[[], str]) -> Checked:
    try:
        return Checked(subject, "ok", look())
    except OsporError as error:
        return Checked(subject, "fault", str(error), error.exit_code)


def _site_rules(study: Study) -> str:
    rules = read_rules(study)
    return f"{len(study.vocabulary.words)} words of the study's own; {len(rules.linkage.crosswalk)} numbers in the crosswalk"


def _archive(study: Study, center: Center, archive: str) -> str:
    try:
        return f"{archive}: {look_at(study.archive_root(archive))}"
    except ArchiveError as error:
        raise ArchiveError(f"centers.{center.name}.archives: {archive}: {error}") from None


def _overlaps(study: Study) -> list[Checked]:
    """Archives that hold the same files: copies in one center are refused, people in two centers would count in both."""
    places = [(center.name, archive, study.archive_root(archive)) for center in study.centers for archive in center.archives]
    found = []
    for one, two in itertools.combinations(places, 2):
        inner, outer = (two, one) if lies_within(two[2], one[2]) else (one, two)
        if not lies_within(inner[2], outer[2]):
            continue
        subject, said = f"archive of {inner[0]}", f"{inner[1]} of {inner[0]} is, or lies in, {outer[1]} of {outer[0]}"
        if inner[0] == outer[0]:
            found.append(Checked(subject, "note", f"{said}: its files are found twice, and one of each is refused as a copy"))
        else:
            said += ": its people would count in both centers; give every file to one"
            found.append(Checked(subject, "fault", said, StudyError.exit_code))
    return found


def _exports(study: Study, center: Center) -> list[Checked]:
    found = []
    for export in center.exports:
        report = inspect_export(study.resolve(export.path), export)
        subject = f"export of {center.name}"
        if not study.resolve(export.path).exists():
            found.append(Checked(subject, "fault", f"{export.path}: no such file", ArchiveError.exit_code))
        if report.problems:
            continue  # told with the faults of the labels
        found.append(Checked(subject, "ok", f"{export.path}: {report.n_rows} rows; " + "; ".join(report.columns)))
        found += [Checked(subject, "note", f"{export.path}: {said}") for said in _oddities(export, n_rows=report.n_rows)]
        found += [
            Checked(subject, "note", f"{export.path}: {n} rows would be refused as {reason}, such as {first}")
            for reason, n, first in report.refused
        ]
    return found


def _oddities(export: Export, *, n_rows: int) -> list[str]:
    """What is no fault of an export and yet may not be meant."""
    said = ["it has a header and no rows, so that nobody is labelled from it"] if n_rows == 0 else []
    known = t_reference_ids()
    if export.kind == "dxa" and export.t_reference not in {UNKNOWN, *known}:
        said.append(
            f"t_reference is {export.t_reference!r}, a population of its own: no T-score is refused for contradicting its "
            f"BMD (those known are {', '.join(known)})"
        )
    return said


def _criteria(study: Study, recipe: Recipe) -> str:
    steps_of(study, recipe)
    n_overrides = read_overrides(study, recipe).height
    names = [criterion.name for criterion in study.criteria_of(recipe)]
    said = "; ".join(names) if names else "none beside those of the recipe"
    return said + (f"; {n_overrides} overrides of the choice of series" if n_overrides else "")


def _threshold(study: Study, recipe: Recipe) -> Checked:
    subject, rule = f"threshold of {recipe.key}", recipe.threshold
    if rule.fixed is not None:
        return Checked(subject, "ok", f"fixed at {rule.fixed:g}")
    if rule.rule == "as_trained":
        return _try(subject, lambda: f"as the model has it, {with_threshold(study, recipe).threshold.fixed:g}")
    if study.split.tuning == 0:
        said = "is chosen on tuning people, but split.tuning is 0; set it, or give a fixed threshold"
        return Checked(subject, "fault", said, StudyError.exit_code)
    return Checked(subject, "ok", f"chosen on the tuning people ({study.split.tuning:.0%}) and locked")


def _model(study: Study, recipe: Recipe) -> str:
    spec = declared_spec(study, recipe)
    shown = "; ".join(f"{name} {value}" for name, value in spec.parameters)
    if kind_of(recipe.name).trains is None:
        return f"a predictor that is ready: {shown}"
    refuse_without_packages()
    if recipe.model is not None:
        return f"read from {recipe.model}, digest {spec.version}: {shown}"
    return f"trained on {study.split.train:.0%} of the people: {shown}"


def _split(study: Study) -> str:
    check_split(study.split, centers=tuple(center.name for center in study.centers))
    parts = (f"{name} {getattr(study.split, name):.0%}" for name in ("train", "tuning", "internal_test"))
    told = [f"external {by}: {', '.join(names)}" for by, names in sorted(study.split.external.items())]
    told += [f"site tuning {share:.0%} of {center}" for center, share in sorted(study.split.site_tuning.items())]
    external = "; ".join(told)
    return ", ".join(parts) + (f"; {external}" if external else "")


def _disk(study: Study) -> str:
    there = study.workspace.resolve()
    while not there.exists():
        there = there.parent
    if not os.access(there, os.W_OK):
        raise StorageError(f"study.workspace: {study.study.workspace} cannot be written to by this user")
    free = shutil.disk_usage(there).free / 1e9
    if free < NEEDED_GB:
        raise StorageError(f"study.workspace: {free:.1f} GB free, expected at least {NEEDED_GB:g} GB")
    return f"{free:.0f} GB free for the workspace"
