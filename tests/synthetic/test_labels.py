"""Exports say what the truth says, in the layout of each center."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

import fastexcel
import numpy as np
import polars as pl
import pytest

from ospor_batch.synthetic.labels import exams_of, matched, printed_t
from ospor_batch.synthetic.population import Rates, people
from tests.synthetic.conftest import Generated


@dataclass(frozen=True)
class Row:
    """One exam as a person reads it from the file."""

    day: str
    values: tuple[float, ...]  # T-scores, or the vBMD


def read_csv(tiny: Generated, name: str, *, encoding: str, delimiter: str = ",") -> list[dict[str, str]]:
    text = (tiny.folder / "exports" / name).read_bytes().decode(encoding)
    return list(csv.DictReader(io.StringIO(text), delimiter=delimiter))


def north(tiny: Generated) -> list[tuple[str, Row]]:
    rows = read_csv(tiny, "north_dxa.csv", encoding="utf-8")
    return [(r["MRN"], Row(r["ExamDate"], tuple(float(r[f"{s} T-score"]) for s in ("LS", "FN", "TH")))) for r in rows]


def south(tiny: Generated) -> list[tuple[str, Row]]:
    frame = fastexcel.read_excel(tiny.folder / "exports" / "south_dxa.xlsx").load_sheet(0).to_polars()
    assert frame.schema["검사일"] in (pl.Date, pl.Datetime("ms")), "dates are dates, not text"
    return [
        (r["환자번호"], Row(str(r["검사일"])[:10], (r["L1-L4 T"], r["Neck T"], r["Total T"])))
        for r in frame.iter_rows(named=True)
    ]


def east(tiny: Generated) -> list[tuple[str, Row]]:
    found: dict[tuple[str, str], list[float]] = {}
    for r in read_csv(tiny, "east_dxa.csv", encoding="cp949", delimiter=";"):
        assert "." not in r["T점수"]
        found.setdefault((r["등록번호"], r["검사일자"].replace(".", "-")), []).append(float(r["T점수"].replace(",", ".")))
    return [(number, Row(day, tuple(t))) for (number, day), t in found.items()]


def west(tiny: Generated) -> list[tuple[str, Row]]:
    rows = read_csv(tiny, "west_qct.csv", encoding="gb18030")
    return [(r["住院号"], Row(r["检查日期"].replace("/", "-"), (float(r["骨密度"]),))) for r in rows]


def image_date(tiny: Generated, center: str, number: str) -> date:
    header = next(f.header for f in tiny.files[center, number] if f.header.Modality == "CT")
    return datetime.strptime(header.StudyDate, "%Y%m%d").date()


def nearest(rows: Sequence[Row], image: date) -> tuple[int, Row]:
    gaps = [((date.fromisoformat(row.day) - image).days, row) for row in rows]
    return min(gaps, key=lambda g: (abs(g[0]), g[0] < 0))


@pytest.mark.parametrize(("center", "read"), [("north", north), ("south", south), ("east", east)])
def test_the_matched_exam_is_in_the_export(tiny: Generated, center: str, read: object) -> None:
    rows = read(tiny)  # type: ignore[operator]
    paired = tiny.truth.filter((tiny.truth["center"] == center) & (tiny.truth["expected_role"] == "paired"))
    assert paired.height
    for person in paired.iter_rows(named=True):
        own = [row for number, row in rows if number == person["patient_id"]]
        gap, row = nearest(own, image_date(tiny, center, person["patient_id"]))
        assert gap == person["expected_gap_days"]
        assert min(row.values) == person["lowest_t"]
        assert all(v == round(v, 1) for v in row.values)


def test_the_matched_vbmd_is_in_the_export(tiny: Generated) -> None:
    rows = west(tiny)
    people_west = tiny.truth.filter((tiny.truth["center"] == "west") & tiny.truth["qct_vbmd_mg_cm3"].is_not_null())
    assert people_west.height > 1
    for person in people_west.iter_rows(named=True):
        gap, row = nearest([r for n, r in rows if n == person["patient_id"]], image_date(tiny, "west", person["patient_id"]))
        assert abs(gap) <= 180
        assert row.values[0] == person["qct_vbmd_mg_cm3"]
    assert (
        tiny.truth.filter(tiny.truth["center"] == "west")["lowest_t"].null_count()
        == tiny.truth.filter(tiny.truth["center"] == "west").height
    )


def test_faults_of_rows(tiny: Generated) -> None:
    number = {
        f: str(tiny.person(f)["patient_id"])
        for f in ("two_labels_tie", "label_outside_window", "invalid_date", "duplicate_exam")
    }
    rows = north(tiny)
    own = {f: [row for n, row in rows if n == number[f]] for f in number}
    image = {f: image_date(tiny, "north", n) for f, n in number.items()}
    gaps = sorted((date.fromisoformat(r.day) - image["two_labels_tie"]).days for r in own["two_labels_tie"])
    assert gaps[0] == -gaps[1]
    assert tiny.person("two_labels_tie")["expected_gap_days"] == gaps[1] > 0
    ((day),) = [r.day for r in own["label_outside_window"]]
    assert (date.fromisoformat(day) - image["label_outside_window"]).days > 180
    with pytest.raises(ValueError, match="day is out of range"):
        date.fromisoformat(own["invalid_date"][0].day)
    assert own["duplicate_exam"] == [own["duplicate_exam"][0]] * 2


def test_faults_of_values(tiny: Generated) -> None:
    frame = fastexcel.read_excel(tiny.folder / "exports" / "south_dxa.xlsx").load_sheet(0).to_polars()
    row = frame.filter(pl.col("환자번호") == tiny.person("impossible_bmd")["patient_id"]).row(0, named=True)
    assert row["L1-L4 BMD"] > 2500  # mg/cm2
    row = frame.filter(pl.col("환자번호") == tiny.person("missing_height")["patient_id"]).row(0, named=True)
    assert row["키(cm)"] is None
    assert frame.filter(pl.col("환자번호") == tiny.person("korean_name")["patient_id"])["키(cm)"].item() > 100
    young = [
        r
        for r in read_csv(tiny, "east_dxa.csv", encoding="cp949", delimiter=";")
        if r["등록번호"] == tiny.person("under_50_at_label")["patient_id"]
    ]
    assert {r["나이"] for r in young} == {"49"}
    assert {r["성별"] for r in young} == {"M"}


def test_numbers_with_leading_zeros_stay_text(tiny: Generated) -> None:
    assert all(len(number) == 8 and number.startswith("0") for number, _ in [*east(tiny), *west(tiny)])


def test_t_is_rounded_half_away_from_zero() -> None:
    # (0.564 - 0.858) / 0.120 = -2.45 exactly; methods L2: -2.5, though floats and ties to even give -2.4
    assert printed_t(Decimal("0.564"), site="femoral_neck", scale="hologic") == Decimal("-2.5")
    assert printed_t(Decimal("0.558"), site="femoral_neck", scale="hologic") == Decimal("-2.5")
    assert str(printed_t(Decimal("0.858"), site="femoral_neck", scale="hologic")) == "0.0"


def test_density_falls_with_age_and_disease_follows_density() -> None:
    everyone = people("north", range(1000, 2500), seed=11, night=2, rates=Rates(0, 0, 0, 0))
    age, vbmd = (np.array([getattr(p, name) for p in everyone]) for name in ("age_at_image", "vbmd_mg_cm3"))
    assert np.polyfit(age, vbmd, 1)[0] == pytest.approx(-1.9, abs=0.4)
    labelled = [exam for p in everyone if (exam := matched(exams_of(p))) is not None]
    sick = np.array([e.is_osteoporosis for e in labelled])
    density = np.array([e.person.vbmd_mg_cm3 for e in labelled])
    assert 0.2 < sick.mean() < 0.5
    assert density[sick].mean() < density[~sick].mean() - 20
    hips = np.corrcoef([[float(e.t[s]) for e in labelled] for s in ("femoral_neck", "total_hip")])[0, 1]
    assert hips > 0.75


def test_referral_follows_risk() -> None:
    everyone = people("south", range(1000, 2500), seed=11, night=2, rates=Rates(0, 0, 0, 0))
    sent = np.array([bool(exams_of(p)) for p in everyone])
    z = np.array([p.density_z for p in everyone])
    assert 0.5 < sent.mean() < 0.95
    assert z[sent].mean() < z[~sent].mean() - 0.3


def test_someone_examined_twice_is_matched_once() -> None:
    everyone = people("north", range(1000, 1300), seed=11, night=2, rates=Rates(0, 0, 0, 0))
    counts = Counter(len(exams_of(p)) for p in everyone)
    assert counts[2] > 10
    for person in everyone:
        exam = matched(exams_of(person))
        assert exam is None or abs(exam.gap_days) <= 150
