"""What an export says beside the main values: areas, software, vertebrae left out, vBMD vertebra by vertebra."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from ospor_batch.config import Export
from ospor_batch.labels.table_export import Settled, read_export, settle

TODAY = date(2024, 1, 1)
WHO = {"patient_id": "id", "exam_date": "day"}


def read(path: Path, text: str, key: bytes, **export: Any) -> Settled:
    path.write_text(text, encoding="utf-8")
    of = Export(**{"path": path.name, "kind": "dxa", **export})
    return settle([read_export(path, of, center="c", key=key, today=TODAY)], center="c")


def test_area_and_software_stand_beside_the_density_in_wide_and_long_layouts(tmp_path: Path, key: bytes) -> None:
    columns = {**WHO, "lumbar_spine_bmd_g_cm2": "B", "lumbar_spine_area_cm2": {"column": "A", "unit": "mm2"},
               "device_software": "V"}  # fmt: skip
    wide = read(tmp_path / "w.csv", "id,day,B,A,V\n1,2022-03-04,0.801,5512,APEX 5.6\n2,2022-03-04,0.801,55.1,\n", key,
                columns=columns)  # fmt: skip
    assert wide.exams.select("lumbar_spine_area_cm2", "device_software").rows() == [(55.12, "APEX 5.6")]
    assert wide.rejects["reason"].to_list() == ["unit_mismatch"]  # 55.1 mm2 is 55.1 cm2
    long = read(tmp_path / "l.csv", "id,day,S,B,A\n1,2022-03-04,spine,0.8,55\n1,2022-03-04,neck,0.6,4.9\n", key, layout="long",
                columns={**WHO, "site": "S", "bmd_g_cm2": "B", "area_cm2": "A"},
                sites={"lumbar_spine": ["spine"], "femoral_neck": ["neck"]})  # fmt: skip
    assert long.exams.select("lumbar_spine_area_cm2", "femoral_neck_area_cm2").rows() == [(55.0, 4.9)]


@pytest.mark.parametrize(
    ("written", "named", "n", "flags"),
    [
        ("L2, L4", "L2+L4", 2, ""),
        ("4;3", "L3+L4", 2, ""),
        ("L1 and l3", "L1+L3", 2, ""),
        ("L5", "L5", 4, ""),  # no part of the region of interest
        ("none", None, 4, ""),
        ("", None, None, ""),
        ("severe scoliosis", None, None, "excluded_vertebrae_not_recognised"),
    ],
)
def test_vertebrae_left_out_of_a_dxa_are_named_and_the_others_counted(  # noqa: PLR0917 -- fixtures
    tmp_path: Path, key: bytes, written: str, named: str | None, n: int | None, flags: str
) -> None:
    columns = {**WHO, "lumbar_spine_t": "T", "excluded_vertebrae": "X"}
    found = read(tmp_path / "e.csv", f'id,day,T,X\n1,2022-03-04,-2.6,"{written}"\n', key, columns=columns).exams
    assert found.select("excluded_vertebrae", "n_vertebrae", "flags").rows() == [(named, n, flags)]


def test_a_number_of_vertebrae_that_contradicts_those_left_out_is_flagged_and_stands(tmp_path: Path, key: bytes) -> None:
    columns = {**WHO, "lumbar_spine_t": "T", "excluded_vertebrae": "X", "n_vertebrae": "N"}
    found = read(tmp_path / "e.csv", "id,day,T,X,N\n1,2022-03-04,-2.6,L2,4\n", key, columns=columns).exams
    assert found.select("n_vertebrae", "flags").rows() == [(4, "n_vertebrae_contradicts_excluded")]


def test_a_qct_without_a_mean_gets_that_of_its_vertebrae_but_those_left_out(tmp_path: Path, key: bytes) -> None:
    columns = {**WHO, "vbmd_l1_mg_cm3": "L1", "vbmd_l2_mg_cm3": "L2", "vbmd_l3_mg_cm3": "L3", "vbmd_mg_cm3": "M",
               "excluded_vertebrae": "X"}  # fmt: skip
    lines = [
        "id,day,L1,L2,L3,M,X", "1,2022-03-04,80,90,,,", "2,2022-03-04,80,90,250,,L3", "3,2022-03-04,80,90,,88,",
        "4,2022-03-04,80,90,,120,", "5,2022-03-04,,,,,", "6,2022-03-04,0.08,90,,,",
    ]  # fmt: skip
    found = read(tmp_path / "q.csv", "\n".join(lines), key, kind="qct", phantom_material="caha", columns=columns)
    assert found.exams.sort("row_number").select("vbmd_mg_cm3", "n_vertebrae", "vbmd_l1_mg_cm3", "flags").rows() == [
        (85.0, 2, 80.0, "vbmd_is_mean_of_vertebrae"),
        (85.0, 2, 80.0, "vbmd_is_mean_of_vertebrae"),
        (88.0, 2, 80.0, ""),
        (120.0, 2, 80.0, "vbmd_contradicts_vertebrae"),
    ]
    assert sorted(found.rejects["reason"]) == ["no_measurement", "unit_mismatch"]
