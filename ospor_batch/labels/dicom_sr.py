"""DICOM reports and secondary captures of densitometers and QCT software as coded rows: one row a number.

A code is written as its value (``38267-1``), or ``VALUE@SITE`` where the item or a container above it names a finding site;
which code means which column stands in ``codes`` of the study file, since makers use codes of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ospor_batch.errors import ArchiveError
from ospor_batch.labels.dicom_header import header_numbers
from ospor_batch.labels.raw_table import RawTable

PERSON = ("PatientID", "PatientBirthDate", "PatientSex")
EXAM = ("ContentDate", "StudyDate", "AccessionNumber", "Manufacturer", "ManufacturerModelName")
HEADER = (*PERSON, *EXAM, "Code", "Meaning", "Value", "Unit")
FINDING_SITE = ("363698007", "G-C0E3")  # SNOMED CT and its former SRT code


def read_reports(folder: Path, *, name: str) -> RawTable:
    """Read every file under a folder; a file without numbers is one row without a code, one that is no DICOM an empty row.

    Rows are numbered from 2 over the files in order of their paths, as the rows of a table would be. No path is kept.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not files:
        raise ArchiveError(f"{name}: the folder is empty")
    rows = [row for path in files for row in _rows(path)]
    return RawTable(HEADER, tuple(rows), tuple(range(2, len(rows) + 2)), "dicom_sr")


def _rows(path: Path) -> list[tuple[str, ...]]:
    import pydicom  # late: only folders of reports need it

    try:
        of = pydicom.dcmread(path, stop_before_pixels=True)
    except (pydicom.errors.InvalidDicomError, OSError, ValueError, AttributeError, EOFError):
        return [("",) * len(HEADER)]
    told = tuple(str(of.get(keyword, "") or "") for keyword in (*PERSON, *EXAM))
    found = [(*told, *item) for item in (*_numbers(of, site=None), *header_numbers(of))]
    return found or [(*told, "", "", "", "")]


def _numbers(node: Any, *, site: str | None) -> Iterator[tuple[str, str, str, str]]:
    """Code, meaning, value and unit of every numeric item below a node."""
    children = list(node.get("ContentSequence", None) or [])
    site = next((found for child in children if (found := _site(child)) is not None), site)
    if node.get("ValueType") == "NUM":
        code, meaning = _coded(node, "ConceptNameCodeSequence")
        measured = next(iter(node.get("MeasuredValueSequence", None) or []), None)
        if code is not None and measured is not None and measured.get("NumericValue") is not None:
            unit, _ = _coded(measured, "MeasurementUnitsCodeSequence")
            yield code if site is None else f"{code}@{site}", meaning or "", str(measured.NumericValue), unit or ""
    for child in children:
        yield from _numbers(child, site=site)


def _site(node: Any) -> str | None:
    is_site = node.get("ValueType") == "CODE" and _coded(node, "ConceptNameCodeSequence")[0] in FINDING_SITE
    return _coded(node, "ConceptCodeSequence")[0] if is_site else None


def _coded(node: Any, sequence: str) -> tuple[str | None, str | None]:
    first = next(iter(node.get(sequence, None) or []), None)
    if first is None:
        return None, None
    return str(first.get("CodeValue", "") or first.get("LongCodeValue", "") or "") or None, str(
        first.get("CodeMeaning", "") or ""
    )
