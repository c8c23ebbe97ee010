"""Coded layouts: one row a measurement, named by a code, as in OMOP's measurement table, MEDS events and DICOM reports."""

from __future__ import annotations

import polars as pl

from ospor_batch.config import ColumnSource, Export
from ospor_batch.errors import StudyError
from ospor_batch.labels.raw_table import plain
from ospor_batch.labels.units import factor, measure
from ospor_batch.labels.verdict import refuse, say


def refuse_unusable_codes(export: Export) -> None:
    """StudyError when a code stands for two columns, for no measured column, or with a unit that cannot be its own."""
    for key in export.codes:
        of = measure(key)
        if of is None:
            raise StudyError(f"{export.path}: codes has {key!r}, which is no measured column of the exam")
        factor(export.units.get(key), of=of, where=f"{export.path}: units.{key}")
    if unused := sorted(set(export.units) - set(export.codes)):
        raise StudyError(f"{export.path}: units has {unused[0]!r}, which codes does not name")
    _words(export)


def with_coded_columns(rows: pl.DataFrame, *, export: Export) -> pl.DataFrame:
    """Give every measured column of ``codes`` the value of the rows of its codes; refuse rows of any other code."""
    words = _words(export)
    written = [None if text is None else plain(text).casefold() for text in rows["code"].to_list()]
    rows = rows.with_columns(
        pl.Series("site:written", written, dtype=pl.String),
        pl.Series("site", [None if text is None else words.get(text) for text in written], dtype=pl.String),
    )
    rows = rows.with_columns(pl.when(pl.col("site") == key).then(pl.col("value")).alias(key) for key in export.codes)
    row = say("row ", pl.col("row_number"))
    silent = say(row, ": no code; of a report or capture: no number stands in its header, and none is read from pixels")
    rows = refuse(rows, pl.col("site:written").is_null(), reason="no_measurement", detail=silent)
    detail = say(row, ": its code is none that codes of the study file names")
    return refuse(rows, pl.col("site").is_null(), reason="unknown_code", detail=detail)


def spread(export: Export) -> Export:
    """The export as if every coded measurement had a column of its own."""
    header = export.columns["value"].column
    measured = {key: ColumnSource(column=header, unit=export.units.get(key)) for key in export.codes}
    kept = {key: source for key, source in export.columns.items() if key not in {"code", "value"}}
    return export.model_copy(update={"columns": {**kept, **measured}})


def _words(export: Export) -> dict[str, str]:
    words: dict[str, str] = {}
    for key, texts in export.codes.items():
        for text in texts:
            if words.setdefault(plain(text).casefold(), key) != key:
                raise StudyError(f"{export.path}: codes names {text!r} twice, for {words[plain(text).casefold()]} and {key}")
    return words
