"""The exports of the four centers, each in a layout of its own, with the planted faults of their rows."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from decimal import Decimal
from xml.sax.saxutils import escape

from ospor_batch.synthetic.labels import Exam

Cell = str | Decimal | date | None
Rows = list[list[Cell]]
INVALID_DATE = "2022-02-30"
XLSX_EPOCH = date(1899, 12, 30)  # day 0 of the 1900 date system, counted with its false leap day


@dataclass(frozen=True)
class Layout:
    """How a center's export is called, what stands in its header and how an exam becomes rows."""

    file: str
    header: tuple[str, ...]
    rows: Callable[[Exam], Rows]
    encode: Callable[[Rows], bytes]


def export(manner: str, exams: Sequence[Exam]) -> bytes:
    """Content of an export in the manner of a center; rows by night, date and patient, so that a later night only appends."""
    layout = LAYOUTS[manner]
    rows: Rows = [list(layout.header)]
    for exam in sorted(exams, key=lambda e: (e.person.night, e.exam_date, e.person.patient_id)):
        printed = layout.rows(_impossible(exam) if exam.person.fault == "impossible_bmd" else exam)
        rows += printed * (2 if exam.person.fault == "duplicate_exam" else 1)
    return layout.encode(rows)


def file_name(manner: str, center: str) -> str:
    """Name of a center's export in the manner of one of the four."""
    return LAYOUTS[manner].file.replace(f"{manner}_", f"{center}_", 1)


def _impossible(exam: Exam) -> Exam:
    """A decimal point lost at the spine."""
    return replace(exam, bmd={**exam.bmd, "lumbar_spine": exam.bmd["lumbar_spine"] * 10})


def _north(exam: Exam) -> Rows:
    day: Cell = INVALID_DATE if exam.person.fault == "invalid_date" else exam.exam_date.isoformat()
    sites = [value for site in exam.bmd for value in (exam.bmd[site], exam.t[site])]
    return [[exam.person.patient_id, day, exam.person.birth_date.isoformat(), exam.person.sex[0].upper(),
             _centimetres(exam), _weight(exam), *sites, exam.tbs, "Hologic"]]  # fmt: skip


def _south(exam: Exam) -> Rows:
    sex = "여" if exam.person.sex == "female" else "남"
    sites = [value for site in exam.bmd for value in ((exam.bmd[site] * 1000).quantize(Decimal(1)), exam.t[site])]
    height = None if exam.person.fault == "missing_height" else _centimetres(exam)
    return [[exam.person.patient_id, exam.exam_date, exam.person.birth_date, sex, height, _weight(exam), *sites]]


def _east(exam: Exam) -> Rows:
    sex = "F" if exam.person.sex == "female" else "M"
    start: list[Cell] = [exam.person.patient_id, f"{exam.exam_date:%Y.%m.%d}", Decimal(int(exam.age)), sex]
    start += [_centimetres(exam), _weight(exam)]
    return [[*start, name, exam.bmd[site], exam.t[site]] for site, name in EAST_SITES.items()]


def _west(exam: Exam) -> Rows:
    sex = "女" if exam.person.sex == "female" else "男"
    height = Decimal(str(exam.person.height_m)).quantize(Decimal("0.01"))
    same_scan = exam.person.ct_accession if exam.gap_days == 0 else None
    return [[exam.person.patient_id, f"{exam.exam_date:%Y/%m/%d}", f"{exam.person.birth_date:%Y/%m/%d}", sex, height,
             _weight(exam), Decimal(4), exam.vbmd_mg_cm3, same_scan]]  # fmt: skip


def _centimetres(exam: Exam) -> Decimal:
    return Decimal(str(exam.person.height_m * 100)).quantize(Decimal("0.1"))


def _weight(exam: Exam) -> Decimal:
    return Decimal(str(exam.person.weight_kg))


def _delimited(rows: Rows, *, encoding: str, delimiter: str = ",", decimal: str = ".") -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\r\n")
    for row in rows:
        writer.writerow([_text(cell, decimal) for cell in row])
    return text.getvalue().encode(encoding)


def _text(cell: Cell, decimal: str) -> str:
    if cell is None:
        return ""
    return str(cell).replace(".", decimal) if isinstance(cell, Decimal) else str(cell)


def _workbook(rows: Rows) -> bytes:
    """A minimal XLSX of one sheet: text inline, numbers as numbers, dates as dates; the same bytes for the same rows."""
    lines = [
        f'<row r="{r}">{"".join(_xml_cell(cell, f"{_column(c)}{r}") for c, cell in enumerate(row))}</row>'
        for r, row in enumerate(rows, start=1)
    ]
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    sheet = f'<worksheet xmlns="{main}"><sheetData>{"".join(lines)}</sheetData></worksheet>'
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in {**XLSX_FRAME, "xl/worksheets/sheet1.xml": sheet}.items():
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(info, '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n' + body)
    return buffer.getvalue()


def _xml_cell(cell: Cell, place: str) -> str:
    if cell is None:
        return ""
    if isinstance(cell, date):
        return f'<c r="{place}" s="1"><v>{(cell - XLSX_EPOCH) // timedelta(days=1)}</v></c>'
    if isinstance(cell, Decimal):
        return f'<c r="{place}"><v>{cell}</v></c>'
    return f'<c r="{place}" t="inlineStr"><is><t>{escape(cell)}</t></is></c>'


def _column(number: int) -> str:
    return chr(ord("A") + number)  # the widest sheet has fewer than 26 columns


_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml"
_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
XLSX_FRAME = {
    "[Content_Types].xml": f'<Types xmlns="{_PACKAGE}/content-types"><Default Extension="rels" '
    'ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    f'<Override PartName="/xl/workbook.xml" ContentType="{_TYPE}.sheet.main+xml"/>'
    f'<Override PartName="/xl/worksheets/sheet1.xml" ContentType="{_TYPE}.worksheet+xml"/>'
    f'<Override PartName="/xl/styles.xml" ContentType="{_TYPE}.styles+xml"/></Types>',
    "_rels/.rels": f'<Relationships xmlns="{_PACKAGE}/relationships"><Relationship Id="rId1" '
    f'Type="{_OFFICE}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
    "xl/workbook.xml": f'<workbook xmlns="{_MAIN}" xmlns:r="{_OFFICE}"><sheets>'
    '<sheet name="DXA" sheetId="1" r:id="rId1"/></sheets></workbook>',
    "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{_PACKAGE}/relationships">'
    f'<Relationship Id="rId1" Type="{_OFFICE}/worksheet" Target="worksheets/sheet1.xml"/>'
    f'<Relationship Id="rId2" Type="{_OFFICE}/styles" Target="styles.xml"/></Relationships>',
    # cell format 1 is number format 14, a date
    "xl/styles.xml": f'<styleSheet xmlns="{_MAIN}"><fonts count="1"><font/></fonts><fills count="1"><fill/></fills>'
    '<borders count="1"><border/></borders><cellStyleXfs count="1"><xf/></cellStyleXfs><cellXfs count="2"><xf/>'
    '<xf numFmtId="14" applyNumberFormat="1"/></cellXfs></styleSheet>',
}
EAST_SITES = {"lumbar_spine": "요추 L1-L4", "femoral_neck": "대퇴경부", "total_hip": "대퇴골 전체"}
LAYOUTS: dict[str, Layout] = {
    "north": Layout(
        "north_dxa.csv",
        ("MRN", "ExamDate", "DOB", "Sex", "Height", "Weight", "LS BMD", "LS T-score", "FN BMD", "FN T-score", "TH BMD",
         "TH T-score", "TBS", "Device"),
        _north, lambda rows: _delimited(rows, encoding="utf-8"),
    ),
    "south": Layout(
        "south_dxa.xlsx",
        ("환자번호", "검사일", "생년월일", "성별", "키(cm)", "몸무게(kg)", "L1-L4 BMD", "L1-L4 T", "Neck BMD", "Neck T",
         "Total BMD", "Total T"),
        _south, _workbook,
    ),
    "east": Layout(
        "east_dxa.csv",
        ("등록번호", "검사일자", "나이", "성별", "신장", "체중", "부위", "골밀도", "T점수"),
        _east, lambda rows: _delimited(rows, encoding="cp949", delimiter=";", decimal=","),
    ),
    "west": Layout(
        "west_qct.csv",
        ("住院号", "检查日期", "出生日期", "性别", "身高", "体重", "椎体数", "骨密度", "检查号"),
        _west, lambda rows: _delimited(rows, encoding="gb18030"),
    ),
}  # fmt: skip
