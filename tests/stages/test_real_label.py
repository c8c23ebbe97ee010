"""Real DXA tables through the label stage: classes by the lowest reported T, and whom a recomputed T would move."""

from __future__ import annotations

import csv
from pathlib import Path

import polars as pl
import pytest

from ospor_batch.config import read_study
from ospor_batch.labels.t_reference import populations
from ospor_batch.stages.label import label
from ospor_batch.store import Store
from tests.labels.test_real_exports import SAYS, SITES, cell, implausible, real_tables

STUDY = """
[study]
name = "real"
pseudonym_key = {{ env = "NOT_READ_HERE" }}
[[centers]]
name = "kr"
archives = ["none"]
[[centers.exports]]
path = "dxa.csv"
kind = "dxa"
sex_values = {{ male = ["1"], female = ["2"] }}
[centers.exports.columns]
patient_id = "number"
exam_date = "date"
densitometer_vendor = {{ value = "{maker}" }}
sex = '''{sex}'''
{columns}
[[references]]
id = "any"
standard = "dxa_who"
[[recipes]]
name = "mean_hu"
reference = "any"
threshold = {{ fixed = 110 }}
"""


def expected_class(t: float) -> str:
    return "osteoporosis" if t <= -2.5 else "normal" if t >= -1 else "low_bone_mass"


@pytest.mark.parametrize("maker", ["hologic", "lunar"])
def test_real_shares_are_reproduced_and_what_recomputing_would_move_is_shown(
    shared: Path, tmp_path: Path, key: bytes, maker: str
) -> None:
    for header, rows in real_tables(shared):
        with (tmp_path / "dxa.csv").open("w", encoding="utf-8-sig", newline="") as handle:
            writer = csv.writer(handle)
            writer.writerow(["number", "date", *header])
            writer.writerows([f"{i}", f"2019-{i % 12 + 1:02d}-{i % 28 + 1:02d}", *row] for i, row in enumerate(rows))
        said = {k: next(h for h in header if pl.Series([h]).str.contains(f"(?i){says}")[0]) for k, says in SAYS.items()}
        units = {"height_m": ', unit = "cm"'}
        columns = "\n".join(f"{k} = {{ column = '''{name}'''{units.get(k, '')} }}" for k, name in said.items())
        sex = next(h for h in header if h.lower().startswith("sex"))
        (tmp_path / "study.toml").write_text(STUDY.format(maker=maker, sex=sex, columns=columns), encoding="utf-8")
        store = Store(tmp_path / f"workspace-{maker}")
        summary = label(read_study(tmp_path / "study.toml"), "kr", store=store, key=key)
        labels = store.current("label")
        whole = [row for row in rows if not implausible(header, row, said)]
        lowest = [min(t for s in SITES if (t := cell(header, row, said[f"{s}_t"])) is not None) for row in whole]
        counts = dict(labels["category"].value_counts().iter_rows())
        assert counts == {name: sum(expected_class(t) == name for t in lowest) for name in counts}
        # the shares that the table is known by, to the whole per cent
        everyone = [min(t for s in SITES if (t := cell(header, row, said[f"{s}_t"])) is not None) for row in rows]
        for name in ("osteoporosis", "low_bone_mass"):
            share = sum(expected_class(t) == name for t in everyone) / len(everyone)
            assert counts[name] / labels.height == pytest.approx(share, abs=0.005)
        notes = dict(summary.notes)
        moved = sum(a != b for a, b in zip(map(expected_class, lowest), recomputed(header, whole, said, maker), strict=True))
        assert notes["T recomputed:any"] == labels.height == len(whole)
        assert notes["class would move:any"] == moved
        assert 0 < moved < labels.height
        (said,) = summary.remarks
        for name in ("osteoporosis", "low_bone_mass"):
            assert f"{counts[name] / labels.height:.0%} {name.replace('_', ' ')}" in said
        assert f"would move {moved} of {labels.height} ({moved / labels.height:.0%})" in said


def recomputed(header: list[str], rows: list[list[str]], said: dict[str, str], maker: str) -> list[str]:
    """Classes by T from BMD in tenths, rounded half away from zero, with whole numbers throughout."""
    of = {p.site: (round(p.mean * 1000), round(p.sd * 1000)) for p in populations()
          if p.reference_id == "nhanes3_white_female" and p.scale == maker}  # fmt: skip
    found = []
    for row in rows:
        tenths = []
        for site, (mean, sd) in of.items():
            if (bmd := cell(header, row, said[f"{site}_bmd_g_cm2"])) is not None:
                over, under = round(bmd * 1e9) - mean * 10**6, sd * 10**6
                tenths.append((1 if over > 0 else -1) * ((20 * abs(over) + under) // (2 * under)))
        found.append(expected_class(min(tenths) / 10))
    return found
