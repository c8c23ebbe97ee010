"""Exports written by the test that reads them."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from ospor_batch.config import Export
from ospor_batch.labels.table_export import Settled, read_export, settle

TODAY = date(2024, 1, 1)
DXA = {
    "patient_id": "MRN",
    "exam_date": "Date",
    "sex": "Sex",
    "age_at_label": "Age",
    "lumbar_spine_t": "LS T",
    "femoral_neck_t": "FN T",
    "lumbar_spine_bmd_g_cm2": "LS BMD",
    "height_m": "Height",
}
HEADER = ("MRN", "Date", "Sex", "Age", "LS T", "FN T", "LS BMD", "Height")
GOOD = ("P1", "2022-03-04", "F", "66", "-2.5", "-1.9", "0.801", "1.58")

Write = Callable[..., Path]
Settle = Callable[..., Settled]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write rows as delimited text in any encoding."""

    def _write(*rows: Sequence[str], encoding: str = "utf-8", delimiter: str = ",", name: str = "dxa.csv") -> Path:
        text = io.StringIO(newline="")
        csv.writer(text, delimiter=delimiter).writerows(rows)
        path = tmp_path / name
        path.write_bytes(text.getvalue().encode(encoding))
        return path

    return _write


def export(**changes: Any) -> Export:
    return Export(**{"path": "dxa.csv", "kind": "dxa", "columns": DXA, **changes})


@pytest.fixture
def settled(key: bytes) -> Settle:
    """Read one file as the exports of one center."""

    def _settled(path: Path, **changes: Any) -> Settled:
        read = read_export(path, export(**changes), center="north", key=key, today=TODAY)
        return settle([read], center="north")

    return _settled


def changed(**cells: str) -> tuple[str, ...]:
    """A good row with some cells changed; names as in HEADER, blanks written as _."""
    return tuple(cells.get(name.replace(" ", "_"), value) for name, value in zip(HEADER, GOOD, strict=True))


def reasons(found: Settled) -> dict[str, str]:
    """Row to reason."""
    return {k.rsplit(":", 1)[1]: r for k, r in found.rejects.select("item_key", "reason").iter_rows()}
