"""A proposed column map reads the export that it was proposed for."""

from __future__ import annotations

import tomllib
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ospor_batch.config import Export, read_study
from ospor_batch.labels.proposal import propose
from ospor_batch.labels.table_export import inspect_export, read_export, settle
from ospor_batch.synthetic.archive import write_study


def proposed(path: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    found = propose(path, name=path.name)
    return tomllib.loads(found.toml)["centers"]["exports"][0], found.look_at


def test_an_english_wide_export_needs_no_hand(tmp_path: Path, key: bytes) -> None:
    path = tmp_path / "dxa.csv"
    path.write_text(
        "MRN;Exam Date;DOB;Sex;Height (cm);Weight (kg);L1-L4 BMD;LS T-score;Femoral neck T-score;Total hip T-score;Comment\n"
        "A1;24.03.2022;01.02.1950;F;158,5;60;0,801;-2,5;-1,9;-1,0;x\n"
        "A2;25.03.2022;01.02.1950;M;170;80;0,9;-1,5;-0,9;;y\n"
    )
    block, look_at = proposed(path)
    assert look_at == ()
    assert (block["kind"], block["layout"], block["date_format"], block["decimal"]) == ("dxa", "wide", "%d.%m.%Y", ",")
    assert block["columns"]["height_m"] == {"column": "Height (cm)", "unit": "cm"}
    export = Export(**block)
    found = settle([read_export(path, export, center="c", key=key, today=date(2024, 1, 1))], center="c")
    assert found.rejects.height == 0
    assert found.exams.sort("row_number").select("lumbar_spine_t", "femoral_neck_t", "total_hip_t", "height_m").rows() == [
        (-2.5, -1.9, -1.0, 1.585), (-1.5, -0.9, None, 1.7),
    ]  # fmt: skip
    assert "Comment" not in str(block["columns"])


def test_areas_software_and_single_vertebrae_are_told_from_what_they_stand_beside(tmp_path: Path) -> None:
    (tmp_path / "dxa.csv").write_text(
        "MRN,Exam Date,LS BMD,LS Area,LS T-score,FN Area (mm2),Excluded vertebrae,Vertebrae,Software version,TBS,TBS version\n"
        "1,2022-03-04,0.8,55,-2.1,490,L2,3,APEX,1.2,3.1\n"
    )
    columns = proposed(tmp_path / "dxa.csv")[0]["columns"]
    wanted = {
        "lumbar_spine_bmd_g_cm2": "LS BMD", "lumbar_spine_area_cm2": "LS Area", "lumbar_spine_t": "LS T-score",
        "femoral_neck_area_cm2": {"column": "FN Area (mm2)", "unit": "mm2"}, "excluded_vertebrae": "Excluded vertebrae",
        "n_vertebrae": "Vertebrae", "device_software": "Software version", "tbs": "TBS", "tbs_software_version": "TBS version",
    }  # fmt: skip
    assert {key: columns.get(key) for key in wanted} == wanted
    (tmp_path / "qct.csv").write_text("MRN,Exam Date,L1 vBMD,L2 vBMD,Mean vBMD L1-L2\n1,2022-03-04,80,90,85\n")
    columns = proposed(tmp_path / "qct.csv")[0]["columns"]
    found = [columns[key] for key in ("vbmd_l1_mg_cm3", "vbmd_l2_mg_cm3", "vbmd_mg_cm3")]
    assert found == ["L1 vBMD", "L2 vBMD", "Mean vBMD L1-L2"]


def test_a_date_that_may_be_read_two_ways_is_to_be_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "dxa.csv"
    path.write_text("MRN,Date,LS T-score\n1,03/04/2022,-1\n")
    _, look_at = proposed(path)
    assert any("several forms" in said for said in look_at)


def test_nothing_of_a_person_stands_in_a_proposal(tmp_path: Path) -> None:
    path = tmp_path / "dxa.csv"
    path.write_text("MRN,Name,Date,LS T-score\n1987654,Canary Person,2022-04-03,-1.7\n")
    said = propose(path, name="dxa.csv").toml
    assert not [word for word in ("1987654", "Canary", "Person", "2022-04-03", "-1.7") if word in said]


def test_omop_rows_are_seen_as_coded(tmp_path: Path) -> None:
    path = tmp_path / "measurement.parquet"
    pl.DataFrame({
        "person_id": [1], "measurement_date": [date(2022, 1, 2)], "measurement_concept_id": [3036277],
        "value_as_number": [-2.5],
    }).write_parquet(path)  # fmt: skip
    found = propose(path, name=path.name)
    assert 'layout = "coded"' in found.toml
    assert 'code = "measurement_concept_id"' in found.toml
    assert "3036277" in found.toml


@pytest.mark.parametrize("center", ["north", "south", "west"])
def test_generated_exports_in_three_languages_are_read_as_their_own_study_reads_them(
    tmp_path_factory: pytest.TempPathFactory, center: str
) -> None:
    study = read_study(generated(tmp_path_factory))
    own = study.center(center).exports[0]
    path = study.resolve(own.path)
    block, look_at = proposed(path)
    assert look_at == ()
    assert (block["kind"], block["layout"]) == (own.kind, own.layout)
    said = {k: (v if isinstance(v, dict) else {"column": v}) for k, v in block["columns"].items()}
    for name, source in own.columns.items():
        if source.column is not None:
            assert said[name]["column"] == source.column, name
    report = inspect_export(path, Export(**block))
    assert report.problems == ()
    expected = inspect_export(path, own)
    n_refused = sum(n for reason, n, _ in expected.refused if reason != "t_contradicts_bmd")
    assert sum(n for _, n, _ in report.refused) == n_refused


_MADE: list[Path] = []


def generated(factory: pytest.TempPathFactory) -> Path:
    if not _MADE:
        _MADE.append(write_study(factory.mktemp("made") / "study", preset="tiny"))
    return _MADE[0]
