"""Reading of reference results computed outside Python; cases are discovered from what lies there."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

CLOSED = 1e-8  # tolerances that the reference states: closed form, iterative, limits of agreement
ITERATIVE = 1e-4
LIMITS = 1e-6
Row = dict[str, str]


def near(found: float | None, expected: float | None, *, within: float = CLOSED) -> bool:
    if found is None or expected is None:
        return found is None and expected is None
    return math.isclose(found, float(expected), rel_tol=0, abs_tol=within * max(1.0, abs(float(expected))))


def folder(shared: Path, name: str) -> Path:
    found = shared / "oracles" / name
    if not found.is_dir():
        pytest.skip(f"no reference results at {found}")
    return found


def cases(path: Path) -> dict[str, Any]:
    if not path.is_file():
        pytest.skip(f"no reference results at {path}")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    assert found
    return found


def table(path: Path) -> list[Row]:
    if not path.is_file():
        pytest.skip(f"no reference results at {path}")
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def column(rows: list[Row], name: str) -> np.ndarray:
    return np.array([float(row[name]) if row[name] not in {"", "NA"} else math.nan for row in rows])


def scored(rows: list[Row], *names: str) -> tuple[np.ndarray, list[np.ndarray]]:
    columns = [column(rows, name) for name in ("y", *names)]
    whole = np.isfinite(columns).all(axis=0)
    return columns[0][whole].astype(bool), [values[whole] for values in columns[1:]]
