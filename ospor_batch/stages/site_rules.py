"""The study's rules of words, linkage and grading, with the crosswalk that it names."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from ospor_batch.catalog.rules import Rules
from ospor_batch.catalog.vocabulary import Words, vocabulary
from ospor_batch.config import Study
from ospor_batch.errors import StudyError
from ospor_batch.pseudonym import Linkage, normal_patient_id

COLUMNS = ("center", "patient_id", "person")


def read_rules(study: Study) -> Rules:
    """The rules that the catalog of a study is made by; StudyError when the crosswalk is not usable."""
    words = vocabulary(tuple(Words(*word) for word in study.vocabulary.words))
    return Rules(words=words, linkage=read_linkage(study), smallest_stack=study.grading.smallest_stack)


def read_linkage(study: Study) -> Linkage:
    """How this study's patient numbers become persons, on images and exports alike."""
    said = study.linkage
    own = frozenset(folded for issuer in said.own_issuers if (folded := normal_patient_id(issuer)))
    bare = Linkage(said.leading_zeros == "strip", said.issuer == "key", own)
    if said.crosswalk is None:
        return bare
    rows = _crosswalk(study.resolve(said.crosswalk), named=said.crosswalk)
    joined = _joined(rows, study, linkage=bare)
    names = _names(rows, joined, study, linkage=bare)
    return Linkage(bare.strips_leading_zeros, bare.is_issuer_key, own, joined, names)


def _crosswalk(path: Path, *, named: str) -> pl.DataFrame:
    try:
        rows = pl.read_csv(path, infer_schema=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise StudyError(f"linkage.crosswalk: {named} cannot be read as CSV in UTF-8 ({type(error).__name__})") from None
    if missing := [column for column in COLUMNS if column not in rows.columns]:
        # the header of a file without one may hold patient numbers: what was found is not quoted
        raise StudyError(
            f"linkage.crosswalk: {named} has no column {', '.join(missing)}; expected {','.join(COLUMNS)}, with commas"
        )
    return rows.select(COLUMNS)


def _joined(rows: pl.DataFrame, study: Study, *, linkage: Linkage) -> dict[tuple[str, str], str]:
    """(center, folded number) to person; messages name rows, never numbers."""
    centers = {center.name for center in study.centers}
    found: dict[tuple[str, str], str] = {}
    first: dict[tuple[str, str], int] = {}
    for row, (center, written, named) in enumerate(rows.iter_rows(), start=2):
        where = f"linkage.crosswalk: {study.linkage.crosswalk} row {row}"
        number, person = linkage.number(written), normal_patient_id(named)
        if number is None or person is None:
            raise StudyError(f"{where}: patient_id and person must not be empty")
        if center not in centers:
            raise StudyError(f"{where}: its center is none of the study's, {', '.join(sorted(centers))}")
        at = (center, number)
        if found.setdefault(at, person) != person:
            raise StudyError(f"{where}: gives the number of row {first[at]} to another person")
        first.setdefault(at, row)
    return found


def _names(
    rows: pl.DataFrame, joined: dict[tuple[str, str], str], study: Study, *, linkage: Linkage
) -> dict[tuple[str, str], int]:
    """(center, name of a person folded as a number) to the first row that gives it; StudyError where numbers form a chain."""
    found: dict[tuple[str, str], int] = {}
    for row, (center, _, named) in enumerate(rows.iter_rows(), start=2):
        name = linkage.number(named)
        if name is None:
            continue
        if joined.get((center, name), person := normal_patient_id(named)) != person:
            where = f"linkage.crosswalk: {study.linkage.crosswalk} row {row}"
            raise StudyError(
                f"{where}: its person is a number that another row gives to another person; one person has one name"
            )
        found.setdefault((center, name), row)
    return found
