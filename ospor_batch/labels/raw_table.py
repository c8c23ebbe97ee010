"""Read a delimited file or a workbook into text cells; nothing is guessed about their meaning here."""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ospor_batch.errors import ArchiveError, StudyError

if TYPE_CHECKING:
    import polars as pl

PARQUET_MAGIC = b"PAR1"
WORKBOOK_MAGIC = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # ZIP (xlsx, ods) and OLE (xls)
BYTE_ORDER_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
EAST_ASIAN = ("cp949", "gb18030")  # tried when the bytes are no UTF-8; cp949 holds EUC-KR, gb18030 holds GBK and GB2312
DELIMITERS = (",", ";", "\t", "|")
FIRST_ROWS = 20  # in which a header is looked for
LONGEST_CELL = 1 << 20  # characters; a longer one is an unclosed quotation mark


@dataclass(frozen=True)
class RawTable:
    """Cells as text; numbers[i] is the row of rows[i] in the file, counted from 1. Blank rows are left out.

    is_workbook: the file knows numbers and dates as such, so that these are written our way whatever its text cells do.
    header_at: row of the file that the header ends at.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: tuple[int, ...]
    form: str
    is_workbook: bool = False
    header_at: int = 1

    def found(self, wanted: Sequence[str]) -> int:
        return len({plain(w) for w in wanted} & set(self.header))

    def cells_of(self, wanted: Sequence[str]) -> list[tuple[str, ...]]:
        places = [self.header.index(plain(w)) for w in wanted if plain(w) in self.header]
        return [tuple(row[p] for p in places if p < len(row)) for row in self.rows]


def plain(text: str) -> str:
    """A header as it is compared: NFKC, blanks and line breaks folded into one blank."""
    return " ".join(unicodedata.normalize("NFKC", text).split())


def read_raw(
    path: Path,
    *,
    name: str,
    wanted: Sequence[str],
    encoding: str | None = None,
    delimiter: str | None = None,
    sheet: str | None = None,
    header_rows: Sequence[int] = (),
) -> RawTable:
    """Read a table as text; name is how the study file calls it and what messages say.

    Encoding and delimiter are the ones under which most of the wanted headers are found. Latin-1 is never tried, for every
    file is readable as Latin-1: declare it. header_rows: rows of the file that hold the header; empty for the first filled one.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ArchiveError(f"{name}: no such file; mend its path in the study file") from None
    except OSError as error:
        raise ArchiveError(f"{name}: cannot be read ({type(error).__name__})") from None
    if not content.strip():
        raise ArchiveError(f"{name}: the file is empty")
    _refuse_no_table(content, name=name)
    if content.startswith(PARQUET_MAGIC):
        return _parquet(content, name=name)
    if content.startswith(WORKBOOK_MAGIC):
        return _workbook(content, name=name, sheet=sheet, header_rows=header_rows)
    tables = [
        _parse(text, name=name, wanted=wanted, delimiter=delimiter, form=form, header_rows=header_rows)
        for form, text in _decodings(content, name=name, encoding=encoding)
    ]
    return _best(tables, name=name, wanted=wanted)


def joined_header(rows: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """One header of one row or several: the text of a merged cell goes before what stands below it."""
    width = max(len(row) for row in rows)
    filled = [[plain(cell) for cell in row] + [""] * (width - len(row)) for row in rows]
    for at, row in enumerate(filled[:-1]):
        for place in range(1, width):
            is_named_below = any(below[place] for below in filled[at + 1 :])
            if not row[place] and is_named_below and not any(above[place] for above in filled[:at]):
                row[place] = row[place - 1]
    return tuple(" ".join(part for part in parts if part) for parts in zip(*filled, strict=True))


def sheets_of(path: Path) -> tuple[str, ...]:
    """Names of the sheets of a workbook; none for another kind of file, or one that cannot be read."""
    import fastexcel  # late: only workbooks need it

    try:
        content = path.read_bytes()
    except OSError:  # told when the table is read
        return ()
    if not content.startswith(WORKBOOK_MAGIC):
        return ()
    try:
        return tuple(fastexcel.read_excel(content).sheet_names)
    except fastexcel.FastExcelError:
        return ()


def _refuse_no_table(content: bytes, *, name: str) -> None:
    head = content[:512].lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    if head.startswith((b"<html", b"<!doctype html", b"<table", b"<?xml")):
        raise ArchiveError(
            f"{name}: holds a web page or XML, as some systems export under the name of a workbook; open it and save it as "
            "CSV or XLSX"
        )
    if head.startswith(b"%pdf"):
        raise ArchiveError(f"{name}: is a PDF; nothing is read from pages, export the measurements as CSV or XLSX")


def _best(tables: list[RawTable], *, name: str, wanted: Sequence[str]) -> RawTable:
    best = max(table.found(wanted) for table in tables)
    tables = [table for table in tables if table.found(wanted) == best]
    if any(table.cells_of(wanted) != tables[0].cells_of(wanted) for table in tables[1:]):
        raise StudyError(
            f"{name}: the file is no UTF-8 and reads differently as {' and as '.join(t.form for t in tables)}; "
            f'declare it: encoding = "{tables[0].form}"'
        )
    return tables[0]


def _decodings(content: bytes, *, name: str, encoding: str | None) -> list[tuple[str, str]]:
    if encoding is not None:
        return [(encoding, _decode_as_declared(content, name=name, encoding=encoding))]
    for mark, form in BYTE_ORDER_MARKS:
        if content.startswith(mark):
            return [(form, _decode_as_declared(content, name=name, encoding=form))]
    head = content[:4096]
    if head.count(0) > len(head) // 4:  # ASCII text in UTF-16: every second byte is zero
        form = "utf-16-be" if head[0] == 0 else "utf-16-le"
        return [(form, _decode_as_declared(content, name=name, encoding=form))]
    found = [(form, text) for form in ("utf-8", *EAST_ASIAN) if (text := _decoded(content, form)) is not None]
    if not found:
        raise StudyError(f'{name}: the file is no UTF-8, CP949 or GB18030; declare what it is, such as encoding = "latin-1"')
    return found[:1] if found[0][0] == "utf-8" else found


def _decode_as_declared(content: bytes, *, name: str, encoding: str) -> str:
    try:
        text = content.decode(encoding)
    except LookupError:
        raise StudyError(f"{name}: encoding is {encoding!r}, which no codec is named; try utf-8, cp949, gb18030") from None
    except UnicodeDecodeError as error:
        row = content.count(b"\n", 0, error.start) + 1
        raise StudyError(f"{name}: row {row} is no {encoding} text; mend encoding in the study file") from None
    return text.removeprefix("\ufeff")


def _decoded(content: bytes, encoding: str) -> str | None:
    try:
        return content.decode(encoding)
    except UnicodeDecodeError:
        return None


def _parse(
    text: str, *, name: str, wanted: Sequence[str], delimiter: str | None, form: str, header_rows: Sequence[int]
) -> RawTable:
    if delimiter is not None and len(delimiter) != 1:
        raise StudyError(f"{name}: delimiter is {delimiter!r}, expected one character")
    if delimiter is None:
        delimiter = max(DELIMITERS, key=lambda d: _found_in_header(text, delimiter=d, wanted=wanted, header_rows=header_rows))
    records = _records(text, delimiter=delimiter, name=name)
    table = _table(records, form=form, is_workbook=False, header_rows=header_rows)
    if table is None:
        raise ArchiveError(f"{name}: {_nothing(header_rows)}")
    return table


def _found_in_header(text: str, *, delimiter: str, wanted: Sequence[str], header_rows: Sequence[int]) -> tuple[int, int, int]:
    """Wanted headers found under a delimiter: in the header, in any of the first rows; and the width of the header."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        head = list(itertools.islice(reader, max(header_rows, default=FIRST_ROWS)))
    except csv.Error:  # an open quotation mark, or no text at all: told with its row when the rows are read
        return 0, 0, 0
    table = _table(iter(head), form="", is_workbook=False, header_rows=header_rows)
    if table is None:
        return 0, 0, 0
    asked = {plain(w) for w in wanted}
    elsewhere = max((len(asked & {plain(cell) for cell in row}) for row in table.rows), default=0)
    return table.found(wanted), elsewhere, len(table.header)


def _records(text: str, *, delimiter: str, name: str) -> Iterator[list[str]]:
    csv.field_size_limit(LONGEST_CELL)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    number = 0
    try:
        for number, record in enumerate(reader, start=1):  # noqa: B007 -- the number is for the message
            yield record
    except csv.Error as error:
        raise ArchiveError(f"{name}: row {number + 1} is broken ({error}); is a quotation mark left open?") from None


def _table(records: Iterator[list[str]], *, form: str, is_workbook: bool, header_rows: Sequence[int]) -> RawTable | None:
    head: list[list[str]] = []
    rows: list[tuple[str, ...]] = []
    numbers: list[int] = []
    last = max(header_rows, default=0)
    for number, record in enumerate(records, start=1):
        is_filled = any(cell.strip() for cell in record)
        if number in header_rows or (not last and is_filled):
            head.append(record)
            last = last or number
        elif is_filled and number > last:
            rows.append(tuple(record))
            numbers.append(number)
    if not any(cell.strip() for record in head for cell in record):
        return None
    return RawTable(joined_header(head), tuple(rows), tuple(numbers), form, is_workbook, last)


def _nothing(header_rows: Sequence[int]) -> str:
    return f"row {header_rows[-1]}, named by header_rows, is empty or not there" if header_rows else "the file is empty"


def _parquet(content: bytes, *, name: str) -> RawTable:
    import polars as pl

    try:
        rows = pl.read_parquet(io.BytesIO(content))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise ArchiveError(f"{name}: cannot be read as Parquet ({type(error).__name__})") from None
    text = []
    for column, dtype in rows.schema.items():
        if dtype.is_nested():
            raise ArchiveError(f"{name}: column {column!r} holds lists or structures; an export has one value a cell")
        text.append(_as_text(pl.col(column), dtype).fill_null("").alias(column))
    cells = rows.select(text).rows()
    filled = [(number, row) for number, row in enumerate(cells, start=2) if any(cell.strip() for cell in row)]
    header = tuple(plain(column) for column in rows.columns)
    return RawTable(header, tuple(row for _, row in filled), tuple(number for number, _ in filled), "parquet", is_workbook=True)


def _as_text(value: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Cells of a typed column as a workbook's would read: dates as local dates, whole numbers without a point."""
    import polars as pl

    if dtype == pl.Date or isinstance(dtype, pl.Datetime):
        # the day of the clock on the wall where it was measured, and not that of Greenwich
        local = value.dt.replace_time_zone(None) if isinstance(dtype, pl.Datetime) else value
        return local.cast(pl.Datetime("us")).dt.to_string("%Y-%m-%d %H:%M:%S")
    if dtype.is_float():  # numbers of patients are floats where one of them was missing
        whole = value.cast(pl.Int64, strict=False)
        return pl.when(whole == value).then(whole.cast(pl.String)).otherwise(value.cast(pl.String))
    return value.cast(pl.String)


def _workbook(content: bytes, *, name: str, sheet: str | None, header_rows: Sequence[int]) -> RawTable:
    import fastexcel  # late: only workbooks need it

    try:
        book = fastexcel.read_excel(content)
        sheets = ", ".join(book.sheet_names)
        if sheet is not None and sheet not in book.sheet_names:
            raise StudyError(f"{name}: sheet is {sheet!r}, expected one of {sheets}")
        # skip_rows=0 keeps leading blank rows, so that row numbers are the workbook's
        cells = book.load_sheet(sheet or 0, header_row=None, skip_rows=0, dtypes="string").to_polars()
    except fastexcel.FastExcelError as error:
        raise ArchiveError(f"{name}: cannot be read as a workbook ({type(error).__name__})") from None
    records = ([cell or "" for cell in row] for row in cells.iter_rows())
    table = _table(records, form="workbook", is_workbook=True, header_rows=header_rows)
    if table is None:
        said = _nothing(header_rows) if header_rows else "the sheet is empty"
        of = f"sheet {sheet or book.sheet_names[0]!r}"
        raise ArchiveError(f"{name}, {of}: {said}; the workbook has {sheets}: name one by sheet")
    return table
