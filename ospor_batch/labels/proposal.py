"""Propose the block of a study file that reads an export, from its headers and cells; a person looks before it is used."""

from __future__ import annotations

import functools
import json
import re
import statistics
import unicodedata
from dataclasses import dataclass
from functools import partial
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from ospor_batch.errors import ArchiveError, StudyError
from ospor_batch.labels.raw_table import EAST_ASIAN, FIRST_ROWS, RawTable, joined_header, read_raw, sheets_of
from ospor_batch.labels.typed_rows import DAY_NUMBER, EXCEL, read_date

KINDS = ("dxa", "qct", "body")
_Rows = tuple[int, ...]
GUESSED = ("cp1252", "shift_jis")  # encodings that only a proposal tries: many a file is readable as these, too
WESTERN = "latin-1"  # reads whatever there is
LOOKED_AT = 200  # cells of a column that forms and units are told from


@dataclass(frozen=True)
class Proposal:
    """The TOML block, and what a person must look at before using it."""

    toml: str
    look_at: tuple[str, ...]


def propose(path: Path, *, name: str) -> Proposal:
    """Propose kind, layout, date form, decimal sign, units and column map of an export; name is what its path will be.

    No cell of the file stands in the proposal, save the words that a site, a sex or a code is written in.
    """
    raw, sheet, header_rows = _best_read(path, name=name)
    kind = _kind(raw.header)
    columns = _columns(raw.header, kind=kind)
    layout = "coded" if {"code", "value"} <= columns.keys() else "long" if "site" in columns else "wide"
    wanted = (
        {"code", "value"} if layout == "coded" else {"site", "bmd_g_cm2", "t_score", "z_score"} if layout == "long" else set()
    )
    every = {"code", "value", "site", "bmd_g_cm2", "t_score", "z_score"}
    columns = {key: header for key, header in columns.items() if key not in every or key in wanted}
    cells = {key: _cells(raw, header) for key, header in columns.items()}
    decimal = "," if any(re.fullmatch(r"-?(\d+|\d{1,3}(\.\d{3})+),\d+", c) for found in cells.values() for c in found) else "."
    thousands = _thousands([c for found in cells.values() for c in found], decimal=decimal)
    form, ambiguous = _date_form(cells.get("exam_date", []))
    head = [f"path = {_text(name)}", f'kind = "{kind}"', f'layout = "{layout}"']
    head += ['t_reference = "unknown"  # <- the population of the T-scores, where the center knows it'] if kind == "dxa" else []
    head += ['phantom_material = "unknown"  # <- k2hpo4 or caha'] if kind == "qct" else []
    head += [f"date_format = {_text(form)}"] if form else []
    head += [f'decimal = "{decimal}"'] if decimal == "," else []
    head += [f"thousands = {_text(thousands)}"] if thousands else []
    head += [f"sheet = {_text(sheet)}"] if sheet else []
    head += [f"header_rows = {list(header_rows)}"] if header_rows else []
    head += [f'encoding = "{raw.form}"'] if raw.form in (*EAST_ASIAN, *GUESSED, WESTERN) else []
    head += _words(layout, cells)
    plain_cells = {key: [c.replace(thousands, "") if thousands else c for c in found] for key, found in cells.items()}
    lines = [f"{key} = {_mapped(key, header, plain_cells[key], decimal)}" for key, header in columns.items()]
    unused = [header for header in raw.header if header and header not in columns.values()]
    toml = "\n".join(["[[centers.exports]]", *head, "[centers.exports.columns]", *lines, *(f"# not used: {h}" for h in unused)])
    look_at = _look_at(columns, form=form, ambiguous=ambiguous, layout=layout)
    if raw.form in (*GUESSED, WESTERN):
        look_at.append(f"the file is no UTF-8 and was read as {raw.form}; where words look garbled, give another encoding")
    return Proposal(toml + "\n", tuple(look_at))


def _best_read(path: Path, *, name: str) -> tuple[RawTable, str | None, tuple[int, ...]]:
    """The table whose header tells most columns: of each sheet, with the header in any of its first rows or in two of them.

    The sheet is null where it is the first, the rows of the header are none where it is the first filled row.
    """
    sheets: tuple[str | None, ...] = sheets_of(path) or (None,)
    read: list[tuple[RawTable, str | None, _Rows]] = []
    for sheet in sheets:
        try:
            read.append((_read(path, name=name, sheet=sheet), sheet, ()))
        except ArchiveError:  # an empty sheet; told below where every one is
            if sheet is None:
                raise
    if not read:
        raise ArchiveError(f"{name}: every sheet is empty")
    more = [
        (_read(path, name=name, sheet=sheet, header_rows=rows), sheet, rows)
        for raw, sheet, _ in read
        for rows in _other_headers(raw)
    ]
    raw, sheet, rows = max((*read, *more), key=lambda one: _n_told(one[0].header))
    return raw, None if sheet == sheets[0] else sheet, rows


def _n_told(header: tuple[str, ...]) -> int:
    """Columns that a header tells."""
    return len(_columns(header, kind=_kind(header)))


def _other_headers(raw: RawTable) -> list[_Rows]:
    """Rows that tell more columns than the first filled one: a later row, or two rows that follow each other."""
    filled = [(raw.header_at, raw.header), *zip(raw.numbers[:FIRST_ROWS], raw.rows, strict=False)]
    found: list[tuple[_Rows, int]] = [((number,), _n_told(joined_header([row]))) for number, row in filled[1:]]
    for (number, row), (after, below) in pairwise(filled):
        if after == number + 1 and not any(any(sign.isdigit() for sign in cell) and _is_number(cell) for cell in below):
            found.append(((number, after), _n_told(joined_header([row, below]))))
    most = max((n for _, n in found), default=0)
    return [rows for rows, n in found if n == most and n > _n_told(raw.header)][:1]


def _is_number(cell: str) -> bool:
    return re.fullmatch(r"[-+]?[\d.,' ]+", cell.strip()) is not None


def _read(path: Path, *, name: str, sheet: str | None, header_rows: _Rows = ()) -> RawTable:
    """Read as the label stage would; where the bytes are no UTF-8, under the encoding whose header tells most columns."""
    read = partial(read_raw, path, name=name, wanted=(), sheet=sheet, header_rows=header_rows)
    raw: RawTable | None = None
    try:
        raw = read()
    except ArchiveError:
        raise
    except StudyError:  # of no encoding that is tried, or of two: tried below
        pass
    if raw is not None and raw.form not in EAST_ASIAN:
        return raw
    forms = [form for form in (*EAST_ASIAN, *GUESSED) if _decodes(path, form)] or [WESTERN]
    return max((read(encoding=form) for form in forms), key=lambda one: _n_told(one.header))


def _decodes(path: Path, form: str) -> bool:
    try:
        path.read_bytes().decode(form)
    except UnicodeDecodeError:
        return False
    return True


def _kind(header: tuple[str, ...]) -> str:
    folded = [_folded(h) for h in header]
    if any(re.search(r"t[- _]?(score|점수|值)|dxa|neck|l1 ?[-~] ?l?4|경부|颈", h) for h in folded):
        return "dxa"
    if any(re.search(pattern, h) for pattern in _tables()["body"]["muscle_area_cm2"] for h in folded):
        return "body"
    is_qct = any(re.search(pattern, h) for pattern in _tables()["qct"]["vbmd_mg_cm3"] for h in folded)
    return "qct" if is_qct else "dxa"


def _columns(header: tuple[str, ...], *, kind: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, patterns in {**_tables()["any"], **_tables()[kind]}.items():
        for own in header:
            if own and own not in found.values() and any(re.search(p, _bare(own)) for p in patterns):
                found[key] = own
                break
    return found


def _mapped(key: str, header: str, cells: list[str], decimal: str) -> str:
    unit = _unit(key, header, cells, decimal)
    return _text(header) if unit is None else f"{{ column = {_text(header)}, unit = {_text(unit)} }}"


def _unit(key: str, header: str, cells: list[str], decimal: str) -> str | None:
    """The unit that the header says or the values show, where it is not the column's own."""
    scales = _tables()["scales"].get(key, [])
    numbers = [float(c.replace(",", ".") if decimal == "," else c) for c in cells if re.fullmatch(r"-?\d+([.,]\d+)?", c)]
    if not scales or not numbers:
        return None
    fitting = [str(scale["unit"]) for scale in scales if statistics.median(numbers) > float(scale["above"])]
    said = re.search(_tables()["units"][0], _folded(header))
    if said and said[1] in {str(scale["unit"]) for scale in scales}:
        return said[1]
    return fitting[-1] if fitting else None


def _date_form(cells: list[str]) -> tuple[str | None, bool]:
    """The first form that reads most cells, and whether another reads as many."""
    if not cells:
        return None, False
    text = pl.DataFrame({"day": cells})
    n_read = {}
    for form in _tables()["date_formats"]:
        try:
            n_read[form] = int(text.select(read_date(pl.col("day"), form).is_not_null().sum()).item())
        except pl.exceptions.PolarsError:
            n_read[form] = 0
    best = max(n_read.values())
    if not best and all(re.fullmatch(DAY_NUMBER, cell) for cell in cells):
        return EXCEL, False
    fitting = [form for form, n in n_read.items() if n == best]
    return (fitting[0], len(fitting) > 1) if best else (None, False)


def _thousands(cells: list[str], *, decimal: str) -> str | None:
    """The sign that parts thousands, where a number has it and its decimal sign too."""
    for sign in (",", ".", "'", " "):
        grouped = rf"-?\d{{1,3}}({re.escape(sign)}\d{{3}})+{re.escape(decimal)}\d+"
        if sign != decimal and any(re.fullmatch(grouped, cell) for cell in cells):
            return sign
    return None


def _words(layout: str, cells: dict[str, list[str]]) -> list[str]:
    if layout == "long":
        said = ", ".join(dict.fromkeys(cells["site"]))
        return [f"sites = {{ lumbar_spine = [], femoral_neck = [], total_hip = [] }}  # <- sort in: {said}"]
    if layout == "coded":
        said = ", ".join(list(dict.fromkeys(cells["code"]))[:20])
        return [f"codes = {{ lumbar_spine_t = [], femoral_neck_t = [], total_hip_t = [] }}  # <- sort in: {said}"]
    sexes = sorted(set(cells.get("sex", [])))
    is_coded = sexes and all(re.fullmatch(r"\d", s) for s in sexes)
    return [f"sex_values = {{ female = [], male = [] }}  # <- sort in: {', '.join(sexes)}"] if is_coded else []


def _look_at(columns: dict[str, str], *, form: str | None, ambiguous: bool, layout: str) -> list[str]:
    said = [f"no column looks like {key}; name it by hand" for key in ("patient_id", "exam_date") if key not in columns]
    if "exam_date" in columns and form is None:
        said.append("no known form reads the dates; give date_format by hand")
    if ambiguous:
        said.append("the dates read under several forms (day and month?); make sure of date_format")
    if layout != "wide":
        said.append("sort the words behind '<-' into the brackets, and take the comment away")
    return said


def _cells(raw: RawTable, header: str) -> list[str]:
    place = raw.header.index(header)
    found = (unicodedata.normalize("NFKC", row[place]).strip() for row in raw.rows if place < len(row))
    return [cell for cell in found if cell][:LOOKED_AT]


def _bare(header: str) -> str:
    """A header without what stands in brackets."""
    return re.sub(r"\s*[(\[][^)\]]*[)\]]\s*", " ", _folded(header)).strip() or _folded(header)


def _folded(header: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", header).lower().split())


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)  # a JSON string is a TOML basic string


@functools.cache
def _tables() -> dict[str, Any]:
    text = resources.files("ospor_batch.labels").joinpath("header_words.yaml").read_text(encoding="utf-8")
    tables: dict[str, Any] = yaml.safe_load(text)
    return tables
