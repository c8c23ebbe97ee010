"""Standards beside WHO's: Z-scores, the 33 % radius, phantom materials, muscle, sBMD, and the table of their sources."""

from __future__ import annotations

from datetime import date
from typing import Any

import polars as pl
import pytest

from ospor_batch.config import Export, Reference
from ospor_batch.contracts.table import whole
from ospor_batch.errors import StudyError
from ospor_batch.labels.cut_offs import cut_offs
from ospor_batch.labels.reference import check_reference, draw
from ospor_batch.labels.table_export import read_export, settle

COLUMNS = {
    "sex": "sex", "age_at_label": "age", "menopause": "menopause", "densitometer_vendor": "maker", "n_vertebrae": "n",
    "lumbar_spine_t": "ls_t", "femoral_neck_t": "fn_t", "total_hip_t": "th_t", "radius_33_t": "r_t",
    "lumbar_spine_z": "ls_z", "femoral_neck_z": "fn_z", "lumbar_spine_bmd_g_cm2": "ls_bmd",
    "femoral_neck_bmd_g_cm2": "fn_bmd", "vbmd_mg_cm3": "vbmd", "phantom_material": "phantom",
    "height_m": "height", "muscle_area_cm2": "muscle", "muscle_level": "level",
}  # fmt: skip


@pytest.fixture
def drawn(tmp_path, key):
    """drawn("dxa", [dict(sex="F", ls_t="-2.5"), ...], id=..., standard=...): {row: label or (reason, detail)}"""

    def _drawn(kind: str, rows: list[dict[str, str]], **reference: Any) -> dict[int, Any]:
        names = [*dict.fromkeys(name for row in rows for name in row)]
        lines = [",".join(["id", "day", *names])]
        lines += [",".join([f"P{i}", "2022-03-01", *(row.get(n, "") for n in names)]) for i, row in enumerate(rows)]
        path = tmp_path / "e.csv"
        path.write_text("\n".join(lines))
        mapped = {ours: theirs for ours, theirs in COLUMNS.items() if theirs in names}
        export = Export(path="e.csv", kind=kind, columns={"patient_id": "id", "exam_date": "day", **mapped})
        settled = settle([read_export(path, export, center="c", key=key, today=date(2024, 1, 1))], center="c")
        assert settled.rejects.height == 0, settled.rejects["detail"].to_list()
        found = draw(settled.exams, Reference(**{"id": "r", **reference}), key=key)
        whole(found.labels, "label")
        place = dict(settled.exams.select("exam_key", pl.col("row_number") - 2).iter_rows())
        out: dict[int, Any] = {place[row["exam_key"]]: row for row in found.labels.to_dicts()}
        return out | {place[r["item_key"]]: (r["reason"], r["detail"]) for r in found.rejects.to_dicts()}

    return _drawn


def test_young_people_are_read_by_z_and_nobody_else(drawn):
    rows = [
        {"sex": "F", "age": "35", "menopause": "pre", "ls_z": "-2.0", "fn_z": "-0.3"},
        {"sex": "M", "age": "49", "ls_z": "-1.9", "fn_z": "0.4"},
        {"sex": "M", "age": "50", "ls_z": "-3.0", "fn_z": "-3.0"},
        {"sex": "", "age": "", "ls_z": "-3.0", "fn_z": "-3.0"},
        {"sex": "M", "age": "30", "ls_z": "-3.0", "n": "1"},
        {"sex": "M", "age": "30", "ls_t": "-3.0"},
    ]
    found = drawn("dxa", rows, standard="dxa_z", sites=("lumbar_spine", "femoral_neck"))
    said = {i: (r["category"], r["label_value"], r["label_site"], r["is_osteoporosis"]) for i, r in found.items() if i < 2}
    assert said == {
        0: ("below_expected_range", -2.0, "lumbar_spine", None),
        1: ("within_expected_range", -1.9, "lumbar_spine", None),
    }
    assert {i: found[i][0] for i in (2, 3, 4, 5)} == {
        2: "z_not_applicable", 3: "z_not_applicable", 4: "no_valid_site", 5: "no_valid_site",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("row", "site", "value"),
    [
        ({"ls_t": "-1.0", "fn_t": "-1.0", "r_t": "-3.0"}, "lumbar_spine", -1.0),  # spine and hip can be read
        ({"fn_t": "-1.0", "r_t": "-3.0"}, "radius_33", -3.0),
        ({"ls_t": "-1.0", "r_t": "-3.0"}, "radius_33", -3.0),
        ({"ls_t": "-1.0", "n": "1", "th_t": "-1.0", "r_t": "-3.0"}, "radius_33", -3.0),
        ({"ls_t": "-1.0", "th_t": "-1.5", "r_t": "-3.0"}, "total_hip", -1.5),
    ],
)
def test_the_radius_counts_only_where_spine_or_hip_cannot_be_read(drawn, row, site, value):
    sites = ("lumbar_spine", "femoral_neck", "total_hip", "radius_33")
    found = drawn("dxa", [{"sex": "F", "age": "70", **row}], standard="dxa_who", sites=sites)
    assert (found[0]["label_site"], found[0]["label_value"]) == (site, value)
    ordinary = drawn("dxa", [{"sex": "F", "age": "70", **row}], standard="dxa_who")
    assert ordinary[0]["label_site"] != "radius_33"


def test_a_vbmd_of_another_phantom_is_not_classed_without_a_named_conversion(drawn):
    rows = [{"age": "70", "vbmd": "95", "phantom": p, "n": "2"} for p in ("CaHA", "K2HPO4", "")]
    plain = drawn("qct", rows, standard="qct")
    assert plain[0][0] == "phantom_material_differs"
    assert plain[1]["category"] == plain[2]["category"] == "low_bone_mass"
    assert plain[2]["flags"] == "phantom_material_unknown"
    converted = drawn("qct", rows, standard="qct", phantom_conversion="goodsitt1992_140kvp")
    assert converted[0]["label_value"] == pytest.approx(95 * 0.81)
    assert converted[0]["label_value_measured"] == 95
    assert converted[0]["category"] == "osteoporosis"
    assert converted[0]["phantom_conversion"] == "goodsitt1992_140kvp"
    assert converted[1]["label_value"] == converted[1]["label_value_measured"] == 95
    back = drawn("qct", rows, standard="qct", phantom_material="caha", phantom_conversion="goodsitt1992_140kvp")
    assert back[1]["label_value"] == pytest.approx(95 / 0.81)


def test_muscle_is_read_by_sex_and_level_and_never_without_height(drawn):
    rows = [
        {"sex": "F", "height": "1.60", "muscle": "98.56", "level": "L3"},  # 38.5: at the cut-off
        {"sex": "F", "height": "1.60", "muscle": "99.0", "level": "l3"},
        {"sex": "M", "height": "1.60", "muscle": "99.0", "level": "L3"},
        {"sex": "F", "height": "", "muscle": "99.0", "level": "L3"},
        {"sex": "F", "height": "1.60", "muscle": "99.0", "level": "T12"},
        {"sex": "", "height": "1.60", "muscle": "99.0", "level": "L3"},
    ]
    found = drawn("body", rows, standard="smi")
    assert [found[i]["category"] for i in range(3)] == ["smi_low", "smi_normal", "smi_low"]
    assert found[1]["label_value"] == pytest.approx(99 / 1.6**2)
    assert found[0]["label_value_unit"] == "cm2/m2"
    assert found[0]["is_osteoporosis"] is None
    assert [found[i][0] for i in (3, 4, 5)] == ["height_missing", "category_not_defined", "category_not_defined"]
    assert drawn("body", rows, standard="smi", smi_cut_offs="derstine_2018_l3")[0]["category"] == "smi_normal"


def test_sbmd_is_off_unless_asked_and_never_moves_a_class(drawn):
    rows = [
        {"sex": "F", "age": "70", "maker": m, "ls_bmd": "0.9", "fn_bmd": "0.7", "ls_t": "-1.0"}
        for m in ("Hologic", "Lunar", "")
    ]
    off, on = drawn("dxa", rows, standard="dxa_who"), drawn("dxa", rows, standard="dxa_who", cross_calibration="genant1994")
    assert {row["bmd_scale"] for row in off.values()} == {"device"}
    assert all(row["lumbar_spine_sbmd_mg_cm2"] is None for row in off.values())
    assert [row["bmd_scale"] for _, row in sorted(on.items())] == ["sbmd:genant1994", "sbmd:genant1994", "device"]
    assert on[0]["lumbar_spine_sbmd_mg_cm2"] == pytest.approx(967.95)
    assert on[1]["femoral_neck_sbmd_mg_cm2"] == pytest.approx(1000 * (0.939 * 0.7 - 0.023))
    assert [r["category"] for r in off.values()] == [r["category"] for r in on.values()]


def test_the_class_of_a_recomputed_t_stands_beside_the_reported_one(drawn):
    rows = [
        {"sex": "F", "age": "70", "maker": "Hologic", "fn_bmd": "0.55", "fn_t": "-2.0"},  # recomputed: -2.57
        {"sex": "F", "age": "70", "maker": "", "fn_bmd": "0.55", "fn_t": "-2.0"},
    ]
    found = drawn("dxa", rows, standard="dxa_who")
    assert [(found[i]["category"], found[i]["category_recomputed"]) for i in (0, 1)] == [
        ("low_bone_mass", "osteoporosis"), ("low_bone_mass", None),
    ]  # fmt: skip
    assert drawn("dxa", rows, standard="dxa_who", compare_with=None)[0]["category_recomputed"] is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"standard": "smi", "smi_cut_offs": "prado"},
        {"standard": "qct", "phantom_conversion": "ours"},
        {"standard": "tbs", "tbs_cut_offs": "ours"},
        {"standard": "dxa_who", "compare_with": "ours"},
    ],
)
def test_a_name_that_is_no_table_is_refused_with_those_that_are(wrong):
    with pytest.raises(StudyError, match="expected one of"):
        check_reference(Reference(id="r", **wrong))


def test_every_number_of_the_tables_says_where_it_comes_from():
    table = whole(cut_offs(), "cut_off")
    assert table["source"].str.len_chars().min() > 5
    who = table.filter(pl.col("standard") == "dxa_who", pl.col("item") == "osteoporosis")
    assert who["value"].to_list() == [-2.5]
    assert set(table["standard"]) == set("dxa_who dxa_z qct tbs smi t_reference cross_calibration phantom_conversion".split())
