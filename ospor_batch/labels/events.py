"""Event files (fractures, surgery, drugs) to event rows, by the column map of the study file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from ospor_batch.config import EventFile
from ospor_batch.contracts import contract
from ospor_batch.contracts.table import empty, schema_of
from ospor_batch.errors import LedgerError, StudyError
from ospor_batch.labels.raw_table import RawTable, plain, read_raw
from ospor_batch.labels.table_export import ExportReport, counted
from ospor_batch.labels.typed_rows import headers, picked, refuse_unknown_format, with_date, with_patient
from ospor_batch.labels.verdict import REASON, refuse, row_rejects, say
from ospor_batch.pseudonym import AS_WRITTEN, Linkage, pseudonym

MISSING = ("NA", "N/A", "n/a", "-", ".", "null", "NULL")


@dataclass(frozen=True)
class Events:
    """Events of a center and the rows that are none; n_rows = events + rejects."""

    events: pl.DataFrame
    rejects: pl.DataFrame
    n_rows: int


def read_events(path: Path, source: EventFile, *, center: str, key: bytes, linkage: Linkage = AS_WRITTEN) -> pl.DataFrame:
    """Read one event file into judged rows; join them with ``settle_events``."""
    refuse_unknown_format(source)
    codes = _codes(source)
    raw = read_raw(
        path,
        name=source.path,
        wanted=headers(source),
        encoding=source.encoding,
        delimiter=source.delimiter,
        sheet=source.sheet,
        header_rows=source.header_rows,
    )
    return _adapt(raw, source, codes=codes, center=center, key=key, linkage=linkage)


def settle_events(files: list[pl.DataFrame], *, center: str) -> Events:
    """Keep one row per person, code and start: of several the one that ends last, and of equal ones the first."""
    n_rows = sum(rows.height for rows in files)
    if n_rows == 0:
        return Events(empty("event"), empty("reject"), 0)
    rows = pl.concat(files).with_row_index("position")
    rows = rows.sort(pl.col("end_date").is_null(), pl.col("end_date"), "position", descending=[False, True, False])
    is_later = pl.int_range(pl.len()).over(["event_key", REASON]) > 0
    detail = say("row ", pl.col("row_number"), ": the same person, code and start stand in another row that ends no earlier")
    rows = refuse(rows, pl.col(REASON).is_null() & is_later, reason="duplicate_event", detail=detail)
    events = rows.filter(pl.col(REASON).is_null()).select(contract("event").columns).sort(list(contract("event").primary_key))
    rejects = row_rejects(rows.filter(pl.col(REASON).is_not_null()), center=center)
    if events.height + rejects.height != n_rows:
        raise LedgerError(f"{center}: {n_rows} event rows, but {events.height} events and {rejects.height} rejects")
    return Events(events, rejects.sort(list(contract("reject").primary_key)), n_rows)


def inspect_events(path: Path, source: EventFile) -> ExportReport:
    """Say which rows of an event file would be refused; StudyError becomes a problem."""
    try:
        found = settle_events([read_events(path, source, center="check", key=b"")], center="check")
    except StudyError as error:
        return ExportReport(0, (), (), tuple(str(error).splitlines()))
    return ExportReport(found.n_rows, (), counted(found.rejects), ())


def _adapt(
    raw: RawTable, source: EventFile, *, codes: dict[str, str], center: str, key: bytes, linkage: Linkage
) -> pl.DataFrame:
    rows = with_patient(picked(raw, source, missing=MISSING))
    rows = with_date(rows, "start", source=source, is_required=True, raw=raw)
    rows = with_date(rows, "end", source=source, is_required=False, raw=raw)
    found = [None if text is None else codes.get(plain(text).casefold()) for text in rows["code"].to_list()]
    rows = rows.with_columns(pl.Series("code", found, dtype=pl.String))
    row = say("row ", pl.col("row_number"))
    unknown = say(row, f", column {source.columns['code'].column!r}: its code is none that codes of the study file names")
    rows = refuse(rows, pl.col("code").is_null(), reason="unknown_event_code", detail=unknown)
    ends_early = say(row, ": it ends before it starts")
    rows = refuse(rows, pl.col("end") < pl.col("start"), reason="invalid_date", detail=ends_early)
    written = rows.select("patient_id", "code", "start").iter_rows()
    keys = [_keys(*of, center=center, key=key, linkage=linkage) for of in written]
    rows = rows.with_columns(
        pl.lit(center).alias("center"),
        pl.lit(source.path).alias("export"),
        pl.lit(source.path).alias("scope"),
        pl.col("start").alias("start_date"),
        pl.col("end").alias("end_date"),
        pl.Series("patient_key", [k[0] for k in keys], dtype=pl.String),
        pl.Series("event_key", [k[1] for k in keys], dtype=pl.String),
    )
    return rows.select(*(pl.col(c).cast(d) for c, d in schema_of("event").items()), REASON, "detail", "scope")


def _keys(
    patient: str | None, code: str | None, start: object, *, center: str, key: bytes, linkage: Linkage
) -> tuple[str | None, str | None]:
    person = linkage.person(patient, center=center)
    if person is None:
        return None, None
    who = person.number if person.issuer == center else "\0".join(person)
    said = "\0".join((who, str(code), str(start)))
    patient_key = linkage.key_of(patient, center=center, key=key)
    return patient_key, pseudonym(said, kind="event", issuer=center, key=key)


def _codes(source: EventFile) -> dict[str, str]:
    """Written code to the contract's; StudyError for a code that the contract does not have."""
    allowed = dict(contract("event").field("code").constraints)["enum"]
    codes = {code: str(code) for code in allowed}
    for code, texts in source.codes.items():
        if code not in allowed:
            raise StudyError(f"{source.path}: codes has no {code!r}, expected one of {', '.join(allowed)}")
        codes.update({plain(text).casefold(): code for text in texts})
    return codes
