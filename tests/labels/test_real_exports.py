"""Real DXA tables go through whole: columns are found by what their headers say, ids and dates are invented."""

from __future__ import annotations

import csv
import re
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ospor_batch.config import Export, Reference
from ospor_batch.contracts import contract
from ospor_batch.labels.reference import draw
from ospor_batch.labels.table_export import Settled, read_export, settle

# what a header of a DXA table says; the sex header declares its own codes
SAYS = {
    "age_at_label": r"^age\b", "height_m": r"^height", "weight_kg": r"^weight", "tbs": r"^tbs l1",
    "lumbar_spine_bmd_g_cm2": r"spine bmd", "femoral_neck_bmd_g_cm2": r"neck bmd", "total_hip_bmd_g_cm2": r"total hip bmd",
    "lumbar_spine_t": r"spine.*t-score", "femoral_neck_t": r"neck.*t-score", "total_hip_t": r"total hip.*t-score",
}  # fmt: skip
SITES = ("lumbar_spine", "femoral_neck", "total_hip")


def real_tables(shared: Path) -> list[tuple[list[str], list[list[str]]]]:
    found = []
    for path in sorted((shared / "data" / "real" / "labels").glob("*.csv")):
        with path.open(encoding="utf-8-sig", newline="") as handle:
            header, *rows = list(csv.reader(handle))
        if all(any(re.search(says, h, re.IGNORECASE) for h in header) for says in SAYS.values()):
            found.append((header, rows))
    if not found:
        pytest.skip("no DXA table with T-scores and BMD of three sites among the real files")
    return found


def adapted(folder: Path, header: list[str], rows: list[list[str]], *, key: bytes) -> tuple[Settled, dict[str, str]]:
    path = folder / "dxa.csv"
    with path.open("w", encoding="utf-8-sig", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["등록번호", "검사일자", *header])
        writer.writerows([f"KR-{i:06d}", f"2019-{i % 12 + 1:02d}-{i % 28 + 1:02d}", *row] for i, row in enumerate(rows))
    said = {key: next(h for h in header if re.search(says, h, re.IGNORECASE)) for key, says in SAYS.items()}
    sex = next(h for h in header if re.match(r"sex", h, re.IGNORECASE))
    codes = {letter: re.search(rf"{letter}=(\w+)", sex) for letter in "MW"}
    columns: dict[str, Any] = {"patient_id": "등록번호", "exam_date": "검사일자", "sex": sex, **said}
    columns["height_m"] = {"column": said["height_m"], "unit": "cm"}
    values = {name: (found[1],) for name, letter in (("male", "M"), ("female", "W")) if (found := codes[letter])}
    export = Export(path="dxa.csv", kind="dxa", columns=columns, sex_values=values)
    read = read_export(path, export, center="kr", key=key, today=date(2024, 1, 1))
    return settle([read], center="kr"), said


def cell(header: list[str], row: list[str], name: str) -> float | None:
    text = row[header.index(name)]
    return float(text) if text else None


def implausible(header: list[str], row: list[str], said: dict[str, str]) -> list[str]:
    """Headers of values outside the contract's range, found without the code under test; height is in cm."""
    found = []
    for key, name in said.items():
        bounds = dict(contract("exam").field(key).constraints)
        value = cell(header, row, name)
        value = value / 100 if value is not None and key == "height_m" else value
        if value is not None and not bounds["minimum"] <= value <= bounds["maximum"]:
            found.append(name)
    return found


def test_real_table_goes_through_whole_and_its_flaws_are_caught(shared: Path, tmp_path: Path, key: bytes) -> None:
    for header, rows in real_tables(shared):
        found, said = adapted(tmp_path, header, rows, key=key)
        wrong = {i + 2: names for i, row in enumerate(rows) if (names := implausible(header, row, said))}
        refused = {
            int(k.rsplit(":", 1)[1]): (r, d) for k, r, d in found.rejects.select("item_key", "reason", "detail").iter_rows()
        }
        assert set(refused) == set(wrong)
        for number, (reason, detail) in refused.items():
            assert reason == "impossible_value"
            assert f"row {number}, column {wrong[number][0]!r}" in detail
        assert found.exams.height + len(wrong) == len(rows) == found.n_rows
        assert found.exams["sex"].is_in(["female", "male"]).all()
        kept = found.exams.sort("row_number")
        for column, name in said.items():
            given = [cell(header, rows[n - 2], name) for n in kept["row_number"]]
            given = [None if v is None else v / 100 for v in given] if column == "height_m" else given
            assert kept[column].to_list() == pytest.approx(given), column
        # a T-score that no population gives for its BMD, and a value more than six SD from the mean, are remarked on
        remarked = kept.filter(pl.col("flags") != "").height
        extreme = kept.filter(pl.any_horizontal(pl.col(f"{s}_t").abs() > 6 for s in SITES))
        assert extreme["flags"].str.contains("unusual_value").all()
        assert 0 < remarked < 0.05 * kept.height


def test_real_table_has_the_share_of_osteoporosis_that_its_t_scores_say(shared: Path, tmp_path: Path, key: bytes) -> None:
    for header, rows in real_tables(shared):
        found, said = adapted(tmp_path, header, rows, key=key)
        labels = draw(found.exams, Reference(id="any", standard="dxa_who"), key=key).labels
        lowest = [min(t for s in SITES if (t := cell(header, row, said[f"{s}_t"])) is not None) for row in rows
                  if not implausible(header, row, said)]  # fmt: skip
        counts = dict(labels["category"].value_counts().iter_rows())
        assert counts["osteoporosis"] == sum(t <= -2.5 for t in lowest)
        assert counts["low_bone_mass"] == sum(-2.5 < t < -1 for t in lowest)
        assert counts["normal"] == sum(t >= -1 for t in lowest)
        # every flawed row together cannot move a share by more than its own number
        everyone = [min(t for s in SITES if (t := cell(header, row, said[f"{s}_t"])) is not None) for row in rows]
        share = sum(t <= -2.5 for t in everyone) / len(rows)
        assert counts["osteoporosis"] / labels.height == pytest.approx(share, abs=len(rows) / labels.height - 1 + 1e-9)
