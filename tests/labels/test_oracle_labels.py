"""Labels against reference results computed elsewhere; cases are found by the columns that a table has."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ospor_batch.config import Export, Reference
from ospor_batch.labels.cross_calibration import with_sbmd
from ospor_batch.labels.reference import Drawn, draw
from ospor_batch.labels.table_export import read_export, settle

CATEGORY = {"osteopenia": "low_bone_mass"}


def tables(shared: Path, *columns: str) -> Iterator[tuple[Path, list[dict[str, str]]]]:
    folder = shared / "oracles" / "labels"
    for path in sorted(folder.glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as handle:
            reader = csv.DictReader(handle)
            if set(columns) <= set(reader.fieldnames or ()):
                yield path, [row for row in reader if any(row.values())]


def cases(shared: Path, *columns: str) -> list[tuple[Path, list[dict[str, str]]]]:
    found = list(tables(shared, *columns))
    if not found:
        pytest.skip(f"no table with columns {columns} among the reference results")
    return found


def drawn(
    tmp_path: Path, rows: list[dict[str, str]], *, key: bytes, kind: str, columns: dict[str, Any], **reference: Any
) -> Drawn:
    """Write an export, read it as any export is read, and draw its labels; patients are numbered by row."""
    path = tmp_path / "export.csv"
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, ["patient", "date", *rows[0]])
        writer.writeheader()
        writer.writerows({"patient": str(i), "date": "2022-01-01", **row} for i, row in enumerate(rows))
    export = Export(path="export.csv", kind=kind, columns={"patient_id": "patient", "exam_date": "date", **columns})
    settled = settle([read_export(path, export, center="c", key=key, today=date(2023, 1, 1))], center="c")
    # only a case without any value may be no exam
    assert set(settled.rejects["reason"]) <= {"no_measurement"}, settled.rejects["detail"].to_list()
    order = dict(settled.exams.select("exam_key", "row_number").iter_rows())
    found = draw(settled.exams, Reference(id="r", **reference), key=key)
    return Drawn(
        found.labels.with_columns(case=found.labels["exam_key"].replace_strict(order) - 2),
        found.rejects.with_columns(case=found.rejects["item_key"].replace_strict(order, default=None) - 2),
        found.n_exams,
    )


@pytest.mark.parametrize(("rounding", "column"), [("none", "who_unrounded"), ("one_decimal_half_away", "who_from_1dp")])
def test_oracle_dxa_labels(shared: Path, tmp_path: Path, key: bytes, rounding: str, column: str) -> None:
    columns = {
        "sex": "sex", "age_at_label": "age", "densitometer_vendor": "vendor", "femoral_neck_bmd_g_cm2": "fn_bmd",
        "total_hip_bmd_g_cm2": "th_bmd", "lumbar_spine_bmd_g_cm2": "ls_bmd",
    }  # fmt: skip
    for _, rows in cases(shared, "fn_bmd", "th_bmd", "ls_bmd", "t_lowest", "who_applicable_age50", column):
        found = drawn(tmp_path, rows, key=key, kind="dxa", columns=columns, standard="dxa_who", t_source="computed",
                      t_reference="nhanes3_white_female_by_sbmd", t_rounding=rounding)  # fmt: skip
        labels = {row["case"]: row for row in found.labels.iter_rows(named=True)}
        outside = dict(found.rejects.select("case", "reason").iter_rows())
        empty = {i for i, row in enumerate(rows) if not row["t_lowest"]}
        assert len(labels) + len(outside) + len(empty) == len(rows)
        for i, row in enumerate(rows):
            if i in empty:
                assert i not in labels
                continue
            if row["who_applicable_age50"] != "TRUE":
                assert outside[i] == "who_not_applicable"
                continue
            t = {"femoral_neck": row["t_fn"], "total_hip": row["t_th"], "lumbar_spine": row["t_ls"]}
            lowest = min(float(value) for value in t.values() if value)
            assert labels[i]["label_value"] == pytest.approx(float(row["t_lowest"]), abs=2e-6)  # printed with 6 decimals
            assert labels[i]["category"] == CATEGORY.get(row[column], row[column])
            assert float(t[labels[i]["label_site"]]) == lowest
            assert labels[i]["n_sites_valid"] == sum(bool(value) for value in t.values())


def test_oracle_dxa_reported(shared: Path, tmp_path: Path, key: bytes) -> None:
    """A device that prints the rounded T gives the classes of the rounded T, whatever the rounding setting."""
    for _, rows in cases(shared, "t_lowest_1dp", "who_from_1dp", "age", "sex"):
        for rounding in ("none", "one_decimal_half_away"):
            found = drawn(tmp_path, rows, key=key, kind="dxa", columns={"sex": "sex", "lumbar_spine_t": "t_lowest_1dp"},
                          standard="dxa_who", t_rounding=rounding)  # fmt: skip
            assert found.labels.height == sum(bool(row["t_lowest_1dp"]) for row in rows)
            given = [rows[i]["who_from_1dp"] for i in found.labels["case"]]
            assert found.labels["category"].to_list() == [CATEGORY.get(name, name) for name in given]


def test_oracle_qct_classes(shared: Path, tmp_path: Path, key: bytes) -> None:
    for _, rows in cases(shared, "vbmd_mg_cm3", "acr"):
        found = drawn(tmp_path, rows, key=key, kind="qct", columns={"vbmd_mg_cm3": "vbmd_mg_cm3"}, standard="qct")
        assert found.labels.height == len(rows)
        given = [rows[i]["acr"] for i in found.labels["case"]]
        assert found.labels["category"].to_list() == [CATEGORY.get(name, name) for name in given]


def test_oracle_tbs_classes(shared: Path, tmp_path: Path, key: bytes) -> None:
    columns = {"tbs": "tbs", "lumbar_spine_t": {"value": 0.0}}
    for _, rows in cases(shared, "tbs", "category"):
        found = drawn(tmp_path, rows, key=key, kind="dxa", columns=columns, standard="tbs")
        assert found.labels.height == len(rows)
        assert found.labels["category"].to_list() == [f"tbs_{rows[i]['category']}" for i in found.labels["case"]]


def test_oracle_sbmd(shared: Path) -> None:
    """Columns are named sbmd_mg_cm2_SITE_MAKER; spine there by the equation whose numbers they are."""
    places = {"spine": "lumbar_spine", "femoral_neck": "femoral_neck", "total_hip": "total_hip"}
    n_compared = 0
    for _, rows in cases(shared, "bmd"):
        for column in (c for c in rows[0] if c.startswith("sbmd_mg_cm2_")):
            site, maker = column.removeprefix("sbmd_mg_cm2_").rsplit("_", 1)
            exams = pl.DataFrame({f"{s}_bmd_g_cm2": [float(r["bmd"]) for r in rows] for s in places.values()})
            of = with_sbmd(exams.with_columns(densitometer_vendor=pl.lit(maker)), spine_equation="genant1994")
            expected = [float(r[column]) for r in rows]
            assert of[f"{places[site]}_sbmd_mg_cm2"].to_list() == pytest.approx(expected, abs=1e-6), column
            n_compared += 1
    assert n_compared
