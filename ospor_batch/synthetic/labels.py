"""Density examinations of generated people: areal BMD and T-scores from a latent density, QCT, and which exam must match."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ospor_batch.synthetic import latent
from ospor_batch.synthetic.faults import NO_FAULT
from ospor_batch.synthetic.latent import SITES
from ospor_batch.synthetic.population import YEAR, Person, center_plan

Array = NDArray[Any]
# Reference mean and SD of areal BMD in g/cm2, women of 20-29 years (methods L5)
REFERENCE: dict[str, dict[str, tuple[Decimal, Decimal]]] = {
    scale: {site: (Decimal(mean), Decimal(sd)) for site, (mean, sd) in sites.items()}
    for scale, sites in {
        "hologic": {"lumbar_spine": ("1.047", "0.110"), "femoral_neck": ("0.858", "0.120"), "total_hip": ("0.942", "0.122")},
        "lunar": {"lumbar_spine": ("1.180", "0.120"), "femoral_neck": ("1.038", "0.139"), "total_hip": ("1.008", "0.126")},
    }.items()
}
SCALE = {"north": "hologic", "south": "lunar", "east": "hologic"}
# In vivo CV of areal BMD: ISCD's least acceptable precision, the usual bound where a site's own is unknown
PRECISION = {"lumbar_spine": 0.019, "femoral_neck": 0.025, "total_hip": 0.018}
# What a center's device reads too high, as a share of BMD: two devices of one maker differ by about 1 %; declared
DEVICE_OFFSET = {"north": 0.000, "south": 0.006, "east": -0.008}
TBS_ERROR = 0.015  # short-term repeatability, about 1.2 %; declared
QCT_ERROR_MG_CM3 = 4.0  # declared
WINDOW_DAYS = 180
LAST_EXAM = date(2023, 12, 31)  # exports are written on the day after; nobody is examined later
REFERRED_BY = {"decade": 0.5, "female": 0.5, "density_z": -0.8}  # log odds; risk decides who is examined; declared
SECOND_EXAM, THIRD_EXAM = 0.15, 0.4  # share with a later examination outside every window, and of these with a third; declared


@dataclass(frozen=True)
class Exam:
    """One examination as the device prints it."""

    person: Person
    exam_date: date
    bmd: dict[str, Decimal]  # g/cm2, three decimals
    t: dict[str, Decimal]  # one decimal, half away from zero
    tbs: Decimal | None
    vbmd_mg_cm3: Decimal | None

    @property
    def gap_days(self) -> int:
        return (self.exam_date - self.person.image_date).days

    @property
    def age(self) -> float:
        return (self.exam_date - self.person.birth_date).days / YEAR

    @property
    def lowest_t(self) -> Decimal:
        return min(self.t.values())

    @property
    def is_osteoporosis(self) -> bool:
        return self.lowest_t <= Decimal("-2.5")  # methods L1


def exams_of(person: Person) -> list[Exam]:
    """The examinations of one person, by date; empty for people who were not sent to one."""
    draw = person.draws("exams")
    kind = center_plan(person.center).exam_kind
    return [_exam(person, gap, kind=kind) for gap in sorted(_gaps(person, draw, kind))]


def printed_t(bmd: Decimal, *, site: str, scale: str) -> Decimal:
    """T-score as printed: one decimal, half away from zero (methods L2)."""
    mean, sd = REFERENCE[scale][site]
    return _rounded((bmd - mean) / sd, "0.1")


def matched(exams: Sequence[Exam]) -> Exam | None:
    """The exam that must be matched to the person's image: nearest, then on or after the image (methods M1)."""
    inside = [exam for exam in exams if abs(exam.gap_days) <= WINDOW_DAYS]
    return min(inside, key=lambda exam: (abs(exam.gap_days), exam.gap_days < 0), default=None)


def _gaps(person: Person, draw: np.random.Generator, kind: str) -> set[int]:
    planted = {"two_labels_tie": {-30, 30}, "label_outside_window": {240}, "under_50_at_label": {-150}}
    gap = int(draw.integers(-150, 151))
    if kind == "qct" and draw.random() < 0.6:
        gap = 0  # the value was read from the very scan
    chance, second, third = draw.random(), draw.random(), draw.random()
    later = gap + int(draw.integers(420, 800))
    last = later + int(draw.integers(600, 1000))
    later, last = (_known(person, first=gap, other=other) for other in (later, last))
    if person.fault in planted:
        return planted[person.fault]
    if person.fault == NO_FAULT and chance >= _referral(person):
        return set()
    label_age = person.age_at_image + gap / YEAR
    if person.age_at_image >= 50 and label_age < 50.1:  # the age rule of the label must not decide here
        gap = abs(gap)
    if person.fault != NO_FAULT or second >= SECOND_EXAM:
        return {gap}
    return {gap, later, last} if third < THIRD_EXAM else {gap, later}


def _known(person: Person, *, first: int, other: int) -> int:
    """The gap of a repeated examination; one that the export cannot know yet lies as long before the first instead."""
    return other if person.image_date + timedelta(days=other) <= LAST_EXAM else 2 * first - other


def _referral(person: Person) -> float:
    plan = center_plan(person.center)
    bodies = _bodies(person, gap_days=0)
    return float(referral_chance(bodies, log_odds=plan.referral, is_by_risk=person.is_referred_by_risk)[0])


def referral_chance(bodies: latent.Bodies, *, log_odds: float, is_by_risk: bool) -> Array:
    """Chance of an examination; without risk everyone of a center has the same."""
    odds = np.full(len(bodies.age), log_odds)
    if is_by_risk:
        odds += REFERRED_BY["decade"] * (bodies.age - 65) / 10 + REFERRED_BY["female"] * bodies.is_female
        odds += REFERRED_BY["density_z"] * bodies.density_z
    return np.asarray(1 / (1 + np.exp(-odds)))


def _exam(person: Person, gap: int, *, kind: str) -> Exam:
    draw = person.draws("exam", gap)
    day = person.image_date + timedelta(days=gap)
    vbmd = vbmd_at(person, gap_days=gap)
    if kind == "qct":
        measured = _rounded(vbmd + QCT_ERROR_MG_CM3 * draw.standard_normal(), "0.1")
        return Exam(person, day, {}, {}, None, max(measured, Decimal(5)))
    scale, offset = SCALE[person.manner], DEVICE_OFFSET[person.manner]
    true = latent.true_t(_bodies(person, gap_days=gap), np.array([vbmd]))[0]
    bmd = {
        site: areal_bmd(float(t), site=site, scale=scale, error=PRECISION[site] * draw.standard_normal() + offset)
        for site, t in zip(SITES, true, strict=True)
    }
    t = {site: printed_t(value, site=site, scale=scale) for site, value in bmd.items()}
    tbs = float(np.clip(person.tbs + TBS_ERROR * draw.standard_normal(), 0.95, 1.6))
    return Exam(person, day, bmd, t, _rounded(tbs, "0.001"), None)


def vbmd_at(person: Person, *, gap_days: int) -> float:
    """True vBMD in mg/cm3 so many days after the image, by the loss of the person's age and sex."""
    age = person.age_at_image
    lost = latent.loss_a_year(age, is_female=person.sex == "female", menopause_age=person.menopause_age or 50.0)
    return max(latent.VBMD_LEAST, person.vbmd_mg_cm3 - lost * gap_days / YEAR)


def areal_bmd(true_t: float, *, site: str, scale: str, error: float) -> Decimal:
    """Areal BMD in g/cm2 as printed, from a true T-score on the maker's own reference and a relative error."""
    mean, sd = (float(value) for value in REFERENCE[scale][site])
    return _rounded(max(0.30, (mean + sd * true_t) * (1 + error)), "0.001")


def _bodies(person: Person, *, gap_days: int) -> latent.Bodies:
    """The person as the population model's arrays, aged by the gap."""
    one = np.ones(1)
    return latent.Bodies(
        age=one * (person.age_at_image + gap_days / YEAR), is_female=np.array([person.sex == "female"]),
        menopause_age=one * (person.menopause_age or 50.0), ancestry=np.array([latent.ANCESTRIES.index(person.ancestry)]),
        adult_height_m=one * person.height_m, bmi=one * person.weight_kg / person.height_m**2,
        density_z=one * person.density_z, smi_z=one * 0, tbs_z=one * 0, site_z=np.array([person.site_z]),
        spurs=one * person.spurs,
    )  # fmt: skip


def _rounded(value: float | Decimal, step: str) -> Decimal:
    """Half away from zero; never a negative zero."""
    return Decimal(value).quantize(Decimal(step), ROUND_HALF_UP) + 0
