"""CSV files and workbooks of densitometers and QCT software to exam rows, by the column map of the study file.

Every row of an export ends in exactly one exam or one reject. One impossible value refuses the whole row (and the whole
exam of a long layout): a wrong number is worse than a missing one. A missing value is null, never 0 and never imputed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import polars as pl

from ospor_batch.config import Export
from ospor_batch.contracts import contract
from ospor_batch.contracts.table import BROKEN, empty, part
from ospor_batch.errors import LedgerError, StudyError
from ospor_batch.labels.coded_rows import refuse_unusable_codes, spread, with_coded_columns
from ospor_batch.labels.dicom_sr import read_reports
from ospor_batch.labels.exam_rows import (
    flag_values,
    folded,
    refuse_repeats,
    refuse_unmeasured,
    with_exam_columns,
)
from ospor_batch.labels.raw_table import RawTable, plain, read_raw
from ospor_batch.labels.t_reference import judge_t_scores
from ospor_batch.labels.typed_rows import (
    headers,
    picked,
    refuse_dates_apart,
    refuse_unknown_format,
    with_age,
    with_date,
    with_numbers,
    with_patient,
    with_words,
)
from ospor_batch.labels.units import factor, measure
from ospor_batch.labels.verdict import DETAIL, MEMBERS, REASON, refuse, row_rejects, say
from ospor_batch.labels.vertebrae import with_vertebrae
from ospor_batch.pseudonym import AS_WRITTEN, Linkage

FAR_FUTURE = date.max


@dataclass(frozen=True)
class Adapted:
    """One export, row by row: exams in the making, each with members (its row numbers), or a reason."""

    rows: pl.DataFrame
    n_rows: int


@dataclass(frozen=True)
class Settled:
    """The exports of one center: exams and rejects; n_rows = rows behind the exams + rejects."""

    exams: pl.DataFrame
    rejects: pl.DataFrame
    n_rows: int


@dataclass(frozen=True)
class ExportReport:
    """What a column map makes of an export; problems stop a run, refused counts rows per reason."""

    n_rows: int
    columns: tuple[str, ...]
    refused: tuple[tuple[str, int, str], ...]
    problems: tuple[str, ...]


def read_export(
    path: Path,
    export: Export,
    *,
    center: str,
    key: bytes,
    today: date,
    scope: str | None = None,
    linkage: Linkage = AS_WRITTEN,
) -> Adapted:
    """Read one export; StudyError when the map does not fit the file, ArchiveError when there is no file to read.

    scope is what rejects are filed under: the path as in the study file, unless several exports share one file.
    """
    refuse_unusable_map(export)
    adapted = adapt(read_export_cells(path, export), export, center=center, key=key, today=today, linkage=linkage)
    rows = adapted.rows if scope is None else adapted.rows.with_columns(scope=pl.lit(scope))
    return Adapted(rows, adapted.n_rows)


def read_export_cells(path: Path, export: Export) -> RawTable:
    """Read an export as text cells, under the encoding and delimiter that show its headers; a folder holds DICOM reports."""
    if path.is_dir() and export.layout == "coded":
        return read_reports(path, name=export.path)
    return read_raw(
        path,
        name=export.path,
        wanted=headers(export),
        encoding=export.encoding,
        delimiter=export.delimiter,
        sheet=export.sheet,
        header_rows=export.header_rows,
    )


def adapt(raw: RawTable, export: Export, *, center: str, key: bytes, today: date, linkage: Linkage = AS_WRITTEN) -> Adapted:
    """Turn the cells of one export into exams in the making; pure."""
    rows = picked(raw, export, missing=export.missing)
    rows = with_patient(rows)
    rows = with_date(rows, "exam_date", source=export, is_required=True, raw=raw)
    rows = with_date(rows, "birth_date", source=export, is_required=False, raw=raw)
    if export.layout == "long":
        rows = _with_site(rows, export=export)
    if export.layout == "coded":
        rows, export = with_coded_columns(rows, export=export), spread(export)
    rows = with_numbers(rows, export=export, is_workbook=raw.is_workbook)
    rows = refuse_dates_apart(with_age(rows), today=today)
    rows = with_exam_columns(with_words(rows, export=export), export=export, center=center, key=key, linkage=linkage)
    if export.layout != "wide":
        rows = folded(rows, export=export)
    rows = with_vertebrae(rows)
    rows = flag_values(judge_t_scores(refuse_unmeasured(rows, kind=export.kind)), export=export)
    columns = [*contract("exam").columns, MEMBERS, REASON, DETAIL]
    rows = rows.select(columns).with_columns(conflicts=pl.lit(export.conflicts), scope=pl.lit(export.path))
    return Adapted(rows, len(raw.rows))


def settle(exports: Sequence[Adapted], *, center: str) -> Settled:
    """Resolve repeats over all exports of a center, hold exams against their contract, and close the ledger."""
    n_rows = sum(export.n_rows for export in exports)
    filled = [export.rows for export in exports if export.rows.height]
    if not filled:
        return Settled(empty("exam"), empty("reject"), n_rows)
    rows = refuse_repeats(pl.concat(filled))
    columns = list(contract("exam").columns)
    parted = part(rows.filter(pl.col(REASON).is_null()).select(columns), "exam")
    broken = parted.refused.select("exam_key", BROKEN)
    rows = rows.join(broken, on="exam_key", how="left", maintain_order="left")
    is_broken = pl.col(REASON).is_null() & pl.col(BROKEN).is_not_null()
    rows = refuse(rows, is_broken, reason="contract", detail=say("row ", pl.col("row_number"), ": ", pl.col(BROKEN)))
    refused = rows.filter(pl.col(REASON).is_not_null()).drop("row_number").explode(MEMBERS).rename({MEMBERS: "row_number"})
    n_kept = int(rows.filter(pl.col(REASON).is_null())[MEMBERS].list.len().sum())
    if n_kept + refused.height != n_rows:
        raise LedgerError(f"{center}: {n_rows} export rows, but {n_kept} stand behind exams and {refused.height} were refused")
    exams = parted.kept.sort(list(contract("exam").primary_key))
    rejects = row_rejects(refused, center=center).sort(list(contract("reject").primary_key))
    return Settled(exams, rejects, n_rows)


def inspect_export(path: Path, export: Export, *, today: date = FAR_FUTURE) -> ExportReport:
    """Say what each mapped column becomes and which rows would be refused; StudyError becomes a problem."""
    try:
        refuse_unusable_map(export)
        raw = read_export_cells(path, export)
        adapted = adapt(raw, export, center="check", key=b"", today=today)
        settled = settle([adapted], center="check")
    except StudyError as error:
        return ExportReport(0, (), (), tuple(str(error).splitlines()))
    columns = tuple(_becomes(raw, export, k) for k in export.columns)
    return ExportReport(settled.n_rows, columns, counted(settled.rejects), ())


def counted(rejects: pl.DataFrame) -> tuple[tuple[str, int, str], ...]:
    """Reason, number of rows and the first detail of each reason."""
    of = rejects.sort("item_key").group_by("reason", maintain_order=True).agg(pl.len(), pl.col("detail").first())
    return tuple((str(reason), int(n), str(detail)) for reason, n, detail in of.sort("reason").iter_rows())


def refuse_unusable_map(export: Export) -> None:
    """StudyError for what is wrong with a column map whatever the file holds: units, date format, sites."""
    refuse_unknown_format(export)
    for key, source in export.columns.items():
        of = measure(key)
        where = f"{export.path}: columns.{key}"
        if of is not None:
            factor(source.unit, of=of, where=where)
        elif source.unit is not None:
            raise StudyError(f"{where}.unit is {source.unit!r}, but {key} is no measured column and has no unit")
    _site_words(export)
    refuse_unusable_codes(export)


def _becomes(raw: RawTable, export: Export, key: str) -> str:
    source = export.columns[key]
    of = measure(key)
    unit = "" if of is None or of.unit == "1" else f", {source.unit or of.unit} -> {of.unit}"
    if source.column is None:
        return f"{key} = {source.value!r} for every row{unit}"
    place = raw.header.index(plain(source.column))
    n = sum(1 for row in raw.rows if place < len(row) and row[place].strip() not in export.missing)
    return f"{key} <- {source.column!r}{unit}: {n} of {len(raw.rows)} rows filled"


def _with_site(rows: pl.DataFrame, *, export: Export) -> pl.DataFrame:
    words = _site_words(export)
    folded_text = [None if text is None else plain(text).casefold() for text in rows["site"].to_list()]
    rows = rows.with_columns(
        pl.Series("site:written", folded_text, dtype=pl.String),
        pl.Series("site", [None if text is None else words.get(text) for text in folded_text], dtype=pl.String),
    )
    detail = say("row ", pl.col("row_number"), ": its site is none that sites of the study file names")
    return refuse(rows, pl.col("site").is_null(), reason="unknown_site", detail=detail)


def _site_words(export: Export) -> dict[str, str]:
    words: dict[str, str] = {}
    for site, texts in export.sites.items():
        for text in texts:
            if words.setdefault(plain(text).casefold(), site) != site:
                raise StudyError(f"{export.path}: sites names {text!r} twice, for {words[plain(text).casefold()]} and {site}")
    return words
