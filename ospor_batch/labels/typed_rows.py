"""Text cells to typed columns under the study file's column map; a row that breaks a rule keeps its first reason."""

from __future__ import annotations

import difflib
import re
from datetime import date

import polars as pl

from ospor_batch.config import ColumnSource, EventFile, Export
from ospor_batch.errors import StudyError
from ospor_batch.labels.raw_table import FIRST_ROWS, RawTable, plain
from ospor_batch.labels.units import DIGITS, Measure, factor, measure, unit_meant
from ospor_batch.labels.verdict import flag, refuse, say, shown, unjudged
from ospor_batch.labels.words import worded, worded_columns
from ospor_batch.pseudonym import normal_patient_id

LIKE = 0.5  # similarity from which a header is offered as the one that was meant (judgement)
MOST_SHOWN = 12  # headers in a message
PLAIN_FORMS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be")
OFFSET = r"\s*(Z|[+-]\d{2}(:?\d{2})?)$"  # of a time zone, as %z reads it
EXCEL = "excel"  # date_format of day numbers, as a spreadsheet holds dates: 1 is 1900-01-01, and 60 a day that never was
EXCEL_ZERO = date(1899, 12, 30)  # day 0 for every day after February 1900
DAY_NUMBER = r"^\d{4,5}(\.\d+)?$"
LIKELY_DAYS = (7000, 73050)  # 1919 to 2099: a number of a column of dates that is one of these days
EARLIEST = date(1900, 1, 1)  # nobody alive was examined or born before; a year of two digits read by %Y falls here
NUMBER = r"^[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?$"
NUMBER_WITH_COMMA = r"^[+-]?(\d+(,\d*)?|,\d+)([eE][+-]?\d+)?$"
TIME_DIRECTIVES = ("%H", "%I", "%M", "%S", "%T", "%R", "%p", "%X")
# a year, a year and month, or a day of 00: such a date is refused by its own reason, never moved to a day
YEAR = r"[12]\d{3}"
PARTIAL_DATE = (
    rf"^({YEAR}|{YEAR}[-./]\d{{1,2}}|{YEAR}(0[1-9]|1[0-2])|{YEAR}[-./]?\d{{2}}[-./]?00|"
    rf"{YEAR}\s?년(\s?\d{{1,2}}\s?월)?|{YEAR}年(\d{{1,2}}月)?)$"
)
WORKBOOK_DATE = "%Y-%m-%d %H:%M:%S"  # how a date cell of a workbook is read as text


def headers(source: Export | EventFile) -> list[str]:
    """The headers that the column map wants to find."""
    return [c.column for c in source.columns.values() if c.column is not None]


def missing_headers(raw: RawTable, source: Export | EventFile) -> list[str]:
    """One message for each header of the map that the file lacks or holds twice; one alone where it has none of them."""
    wanted = {key: plain(of.column) for key, of in source.columns.items() if of.column is not None}
    asked = set(wanted.values())
    if asked and not asked & set(raw.header):
        return [f"{source.path}: row {raw.header_at}, read as {raw.form}, holds none of the headers that columns names "
                f"({', '.join(sorted(asked)[:3])} ...); {_where_else(raw, asked)}"]  # fmt: skip
    said = []
    for key, header in wanted.items():
        n = raw.header.count(header)
        if n > 1:
            said.append(
                f"{source.path}: columns.{key} is {source.columns[key].column!r}, and the file has {n} columns of that name"
            )
        if n == 0:
            lacking = f"and the file (read as {raw.form}) has no such column; {_nearest(raw, header, asked=asked)}"
            said.append(f"{source.path}: columns.{key} is {source.columns[key].column!r}, {lacking}")
    return said


def _nearest(raw: RawTable, header: str, *, asked: set[str]) -> str:
    free = [own for own in raw.header if own and own not in asked]
    is_below = bool(raw.rows) and not any(any(sign.isdigit() for sign in cell) for cell in raw.rows[0])
    rows = [raw.header_at, raw.header_at + 1]
    more = f"; if the header has two rows, declare header_rows = {rows}" if is_below else ""
    if near := difflib.get_close_matches(header, free, n=1, cutoff=LIKE):
        return f"the nearest is {near[0]!r}{more}"
    garbled = "; if these look garbled, declare its encoding" if raw.form not in {*PLAIN_FORMS, "workbook", "parquet"} else ""
    said = f"its columns not in the map are {', '.join(free[:MOST_SHOWN])}" if free else "every column is in the map already"
    return said + more + garbled


def _where_else(raw: RawTable, asked: set[str]) -> str:
    """The row that holds the headers, if one of the first does; no cell is quoted, since it may be a person's."""
    for number, row in zip(raw.numbers[:FIRST_ROWS], raw.rows, strict=False):
        if 2 * len(asked & {plain(cell) for cell in row}) >= len(asked):
            return f"row {number} does: header_rows = [{number}]"
    return "is it another file, another sheet, or another encoding or delimiter? Declare encoding, delimiter or sheet"


def picked(raw: RawTable, source: Export | EventFile, *, missing: tuple[str, ...]) -> pl.DataFrame:
    """The mapped columns as text under their keys, with row_number; StudyError names every header not found.

    Cells are NFKC-folded and stripped; the declared words for "missing" become null. A row with more or fewer cells than
    the header is refused (contract): its values may stand under the wrong column.
    """
    if faults := missing_headers(raw, source):
        raise StudyError("\n".join(faults))
    width = len(raw.header)
    data: dict[str, pl.Series] = {"row_number": pl.Series(raw.numbers, dtype=pl.Int64)}
    for key, wanted in source.columns.items():
        if wanted.column is not None:
            place = raw.header.index(plain(wanted.column))
            data[key] = pl.Series([row[place] if place < len(row) else None for row in raw.rows], dtype=pl.String)
        else:
            data[key] = pl.Series([str(wanted.value)] * len(raw.rows), dtype=pl.String)
    data["n_cells"] = pl.Series([_n_cells(row, width=width) for row in raw.rows], dtype=pl.Int64)
    rows = pl.DataFrame(data)
    folded = [pl.col(key).str.normalize("NFKC").str.strip_chars() for key in source.columns]
    rows = rows.with_columns(folded)
    rows = rows.with_columns(pl.when(~pl.col(k).is_in(["", *missing])).then(pl.col(k)).alias(k) for k in source.columns)
    ragged = say("row ", pl.col("row_number"), " has ", pl.col("n_cells"), f" cells, the header {width}")
    return refuse(unjudged(rows), pl.col("n_cells") != width, reason="contract", detail=ragged).drop("n_cells")


def _n_cells(row: tuple[str, ...], *, width: int) -> int:
    return width if len(row) > width and not any(cell.strip() for cell in row[width:]) else len(row)


def with_patient(rows: pl.DataFrame) -> pl.DataFrame:
    """Fold the patient numbers; a row without one is refused."""
    folded = {value: normal_patient_id(value) for value in rows["patient_id"].unique().to_list()}
    rows = rows.with_columns(pl.Series("patient_id", [folded[v] for v in rows["patient_id"].to_list()], dtype=pl.String))
    detail = say("row ", pl.col("row_number"), ": the patient number is empty")
    return refuse(rows, pl.col("patient_id").is_null(), reason="missing_patient_id", detail=detail)


def with_date(rows: pl.DataFrame, key: str, *, source: Export | EventFile, is_required: bool, raw: RawTable) -> pl.DataFrame:
    """Read a date column strictly by date_format; what is no date is refused, never moved to another day."""
    if key not in source.columns:
        return rows.with_columns(pl.lit(None, dtype=pl.Date).alias(key))
    where = _column(source.columns[key], key)
    if is_required:
        detail = say("row ", pl.col("row_number"), f", {where}: no date")
        rows = refuse(rows, pl.col(key).is_null(), reason="missing_date", detail=detail)
    formats = [source.date_format, *([WORKBOOK_DATE] if raw.is_workbook else [])]
    read = pl.coalesce([read_date(pl.col(key), form) for form in formats])
    read = pl.when(read >= EARLIEST).then(read)
    expected = f"no date of the form {source.date_format}"
    rows = rows.with_columns(read.alias(f"{key}:read"))
    is_wrong = pl.col(key).is_not_null() & pl.col(f"{key}:read").is_null()
    numbered = pl.col(key).cast(pl.Float64, strict=False).is_between(*LIKELY_DAYS) & pl.col(key).str.contains(DAY_NUMBER)
    hint = pl.when(numbered).then(pl.lit(f'; it looks like the day number of a spreadsheet: date_format = "{EXCEL}"'))
    detail = say("row ", pl.col("row_number"), f", {where}: {expected}", hint)
    partial = say("row ", pl.col("row_number"), f", {where}: only a year or a month; a day is not guessed")
    rows = refuse(rows, is_wrong & pl.col(key).str.contains(PARTIAL_DATE), reason="partial_date", detail=partial)
    rows = refuse(rows, is_wrong, reason="invalid_date", detail=detail)
    return rows.with_columns(pl.col(f"{key}:read").alias(key)).drop(f"{key}:read")


def refuse_unknown_format(source: Export | EventFile) -> None:
    """StudyError when date_format cannot say year, month and day."""
    if source.date_format == EXCEL:
        return
    example = date(2001, 2, 3)
    try:
        back = pl.select(read_date(pl.lit(example.strftime(source.date_format)), source.date_format)).item()
    except (pl.exceptions.ComputeError, ValueError):
        back = None
    if back != example:
        raise StudyError(
            f"{source.path}: date_format is {source.date_format!r}, expected year, month and day, such as '%Y-%m-%d', "
            f"or '{EXCEL}' for the day numbers of a spreadsheet"
        )


def read_date(text: pl.Expr, form: str) -> pl.Expr:
    """Null unless the date, written back, is the text: only zeros before a number may be left out ("2022-1-5")."""
    if form == EXCEL:
        days = pl.when(text.str.contains(DAY_NUMBER)).then(text.cast(pl.Float64, strict=False).floor().cast(pl.Int64))
        return pl.when(days.is_between(*LIKELY_DAYS)).then(pl.lit(EXCEL_ZERO) + pl.duration(days=days))
    if form.endswith("%z"):  # the day is that of the clock on the wall, whatever the zone
        text, form = text.str.replace(OFFSET, ""), form.removesuffix("%z").rstrip()
    for part in (".%f", "%.f"):  # parts of a second are of no use to a match by days
        if part in form:
            text, form = text.str.replace(r"(:\d{2})\.\d{1,9}", "$1"), form.replace(part, "")
    if any(directive in form for directive in TIME_DIRECTIVES):
        read = text.str.to_datetime(form, strict=False, time_unit="us")
    else:
        read = text.str.to_date(form, strict=False)
    back = read.dt.to_string(form)
    is_same = _without_zeros(back) == _without_zeros(text)
    return pl.when(is_same).then(read.cast(pl.Date))


def _without_zeros(text: pl.Expr) -> pl.Expr:
    return text.str.to_lowercase().str.replace_all(r"\b0+(\d)", "$1")


def with_numbers(rows: pl.DataFrame, *, export: Export, is_workbook: bool) -> pl.DataFrame:
    """Read every measured column in its declared unit; then refuse what is no number, out of range or of another unit.

    One impossible value refuses the whole row: a wrong number is worse than a missing one, and a row that holds one is
    often shifted or belongs to somebody else. Missing stays null.
    """
    measures = {key: found for key in export.columns if (found := measure(key)) is not None}
    for key, of in measures.items():
        rows = _with_number(rows, key, of=of, export=export, is_workbook=is_workbook)
    for key, of in measures.items():
        rows = _with_range(rows, key, of=of, source=export.columns[key])
    return rows.drop([f"{key}:written" for key in measures])


def _with_number(rows: pl.DataFrame, key: str, *, of: Measure, export: Export, is_workbook: bool) -> pl.DataFrame:
    source = export.columns[key]
    text = pl.col(key).str.replace_all("[\u2212\u2013]", "-")  # minus sign and dash, as word processors write it
    if export.thousands is not None:
        text = _without_thousands(text, export.thousands, decimal=export.decimal, is_workbook=is_workbook)
    is_number = text.str.contains(NUMBER_WITH_COMMA if export.decimal == "," else NUMBER)
    if export.decimal == "," and (is_workbook or source.value is not None):
        is_number = is_number | text.str.contains(NUMBER)  # number cells have a point, whatever the text cells have
    times = factor(source.unit, of=of, where=f"{export.path}: columns.{key}")
    written = pl.when(is_number).then(text.str.replace(",", ".", literal=True).str.strip_prefix("+"))
    rows = rows.with_columns(written.cast(pl.Float64, strict=False).alias(f"{key}:written"))
    value = (pl.col(f"{key}:written") * times).round(DIGITS)
    is_wrong = pl.col(key).is_not_null() & ~pl.col(f"{key}:written").is_finite().fill_null(value=False)
    if of.is_integer:
        is_wrong = is_wrong | (value != value.round(0))
    what = "no whole number" if of.is_integer else f"no number (decimal = {export.decimal!r})"
    other = "." if export.decimal == "," else ","
    is_parted = pl.col(key).str.contains(_grouped(other, decimal=export.decimal)) & pl.lit(export.thousands is None)
    hint = pl.when(is_parted).then(pl.lit(f"; if {other!r} parts its thousands, declare thousands = {other!r}"))
    detail = say("row ", pl.col("row_number"), f", {_column(source, key)}: {what}", hint)
    rows = refuse(rows, is_wrong, reason="not_a_number", detail=detail)
    return rows.with_columns(value.cast(pl.Int64, strict=False).alias(key) if of.is_integer else value.alias(key))


def _grouped(sign: str, *, decimal: str) -> str:
    """Numbers whose thousands are parted by a sign, such as 1.580,5."""
    return rf"^[+-]?\d{{1,3}}({re.escape(sign)}\d{{3}})+({re.escape(decimal)}\d+)?$"


def _without_thousands(text: pl.Expr, sign: str, *, decimal: str, is_workbook: bool) -> pl.Expr:
    """Take the signs out of whole groups of three; in a workbook only beside a decimal sign: 1.234 may be a number."""
    is_parted = text.str.contains(_grouped(sign, decimal=decimal))
    if is_workbook and sign == ".":
        is_parted = is_parted & text.str.contains(decimal, literal=True)
    return pl.when(is_parted).then(text.str.replace_all(sign, "", literal=True)).otherwise(text)


def _with_range(rows: pl.DataFrame, key: str, *, of: Measure, source: ColumnSource) -> pl.DataFrame:
    value, written = pl.col(key).cast(pl.Float64), pl.col(f"{key}:written")
    meant = unit_meant(written, value, of=of, declared=source.unit)
    where = f", {_column(source, key)}: "
    declared = source.unit or of.unit
    hint = say(
        "row ", pl.col("row_number"), where, shown(written), f" {declared} looks like ", meant, "; declare unit = ", meant
    )
    rows = refuse(rows, meant.is_not_null(), reason="unit_mismatch", detail=hint)
    bounds = f" is outside {of.minimum:g} to {of.maximum:g}" + ("" if of.unit == "1" else f" {of.unit}")
    outside = say("row ", pl.col("row_number"), where, shown(value), bounds)
    return refuse(rows, ~value.is_between(of.minimum, of.maximum), reason="impossible_value", detail=outside)


def with_words(rows: pl.DataFrame, *, export: Export) -> pl.DataFrame:
    """Put the export's words for sex, menopause, maker and phantom into the contract's; what is not known is flagged."""
    for column in worded_columns():
        if column not in export.columns:
            rows = rows.with_columns(pl.lit("unknown").alias(column))
            continue
        sexes: dict[str, tuple[str, ...]] = {word: texts for word, texts in export.sex_values.items()}  # noqa: C416 -- str keys
        declared = sexes if column == "sex" else None
        found = worded(rows[column], column=column, declared=declared)
        rows = rows.with_columns(found["word"].alias(column), found["is_recognised"].alias("is_recognised"))
        rows = flag(rows, ~pl.col("is_recognised"), remark=f"{column}_not_recognised").drop("is_recognised")
    return rows


def with_age(rows: pl.DataFrame) -> pl.DataFrame:
    """Age in completed years from the birth date where there is one, else the age of the export."""
    birth, exam = pl.col("birth_date"), pl.col("exam_date")
    # months are bytes: a hundred of them would overflow
    had_birthday = (exam.dt.month() > birth.dt.month()) | (
        (exam.dt.month() == birth.dt.month()) & (exam.dt.day() >= birth.dt.day())
    )
    years = (exam.dt.year() - birth.dt.year() - (~had_birthday).cast(pl.Int32)).cast(pl.Float64)
    if "age_at_label" in rows.columns:
        # two years apart is more than counting age by calendar year or in the Korean way can explain
        rows = flag(rows, (pl.col("age_at_label") - years).abs() > 2, remark="age_contradicts_birth_date")
        years = pl.coalesce([years, pl.col("age_at_label")])
    return rows.with_columns(years.alias("age_at_label"))


def refuse_dates_apart(rows: pl.DataFrame, *, today: date) -> pl.DataFrame:
    """Refuse exams before birth, in the future, or of somebody older than the contract allows."""
    row = say("row ", pl.col("row_number"))
    before = say(row, ": the exam lies before the date of birth")
    rows = refuse(rows, pl.col("exam_date") < pl.col("birth_date"), reason="exam_before_birth", detail=before)
    rows = refuse(rows, pl.col("exam_date") > today, reason="exam_in_future", detail=say(row, ": the exam lies in the future"))
    age = measure("age_at_label")
    assert age is not None
    too_old = say(row, f": age is outside {age.minimum:g} to {age.maximum:g} a")
    return refuse(rows, pl.col("age_at_label") > age.maximum, reason="impossible_value", detail=too_old)


def _column(source: ColumnSource, key: str) -> str:
    return f"column {source.column!r} ({key})" if source.column is not None else f"the value of columns.{key}"
