"""Density examinations of generated people: areal BMD and T-scores from a latent density, QCT, and which exam must match."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import ROUND_HALF_UP, Decimal

import numpy as np

from ospor_batch.synthetic.faults import NO_FAULT
from ospor_batch.synthetic.population import YEAR, Person, center_plan

SITES = ("lumbar_spine", "femoral_neck", "total_hip")
# Reference mean and SD of areal BMD in g/cm2, women of 20-29 years (methods L5)
REFERENCE: dict[str, dict[str, tuple[Decimal, Decimal]]] = {
    scale: {site: (Decimal(mean), Decimal(sd)) for site, (mean, sd) in sites.items()}
    for scale, sites in {
        "hologic": {"lumbar_spine": ("1.047", "0.110"), "femoral_neck": ("0.858", "0.120"), "total_hip": ("0.942", "0.122")},
        "lunar": {"lumbar_spine": ("1.180", "0.120"), "femoral_neck": ("1.038", "0.139"), "total_hip": ("1.008", "0.126")},
    }.items()
}
SCALE = {"north": "hologic", "south": "lunar", "east": "hologic"}
# True T of a site = intercept + slope * (vBMD - 165) / 28 + what is the site's own; declared, so that women of 65 years
# stand near -1.6 at the spine and about a third of those over 60 fall to -2.5 at one site
YOUNG_VBMD, YOUNG_SD = 165.0, 28.0
LATENT = {"lumbar_spine": (-0.10, 0.72, 0.75), "femoral_neck": (-0.30, 0.60, 0.60), "total_hip": (0.05, 0.60, 0.60)}
HIPS_TOGETHER = 0.75  # correlation of what the two hip sites have of their own; declared
PRECISION = {"lumbar_spine": 0.019, "femoral_neck": 0.025, "total_hip": 0.018}  # in vivo CV; ISCD's least acceptable
QCT_ERROR_MG_CM3 = 4.0  # declared
WINDOW_DAYS = 180
REFERRED_BY = {"decade": 0.5, "female": 0.5, "density_z": -0.8}  # log odds; risk decides who is examined; declared
SECOND_EXAM = 0.15  # share of people with a later examination, outside every window; declared


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
    own = _site_specific(person)
    return [_exam(person, gap, kind=kind, own=own) for gap in sorted(_gaps(person, draw, kind))]


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
    chance, second = draw.random(), draw.random()
    later = gap + int(draw.integers(420, 800))
    if person.fault in planted:
        return planted[person.fault]
    if person.fault == NO_FAULT and chance >= _referral(person):
        return set()
    label_age = person.age_at_image + gap / YEAR
    if person.age_at_image >= 50 and label_age < 50.1:  # the age rule of the label must not decide here
        gap = abs(gap)
    return {gap, later} if person.fault == NO_FAULT and second < SECOND_EXAM else {gap}


def _referral(person: Person) -> float:
    odds = center_plan(person.center).referral + REFERRED_BY["decade"] * (person.age_at_image - 65) / 10
    odds += REFERRED_BY["female"] * (person.sex == "female") + REFERRED_BY["density_z"] * person.density_z
    return float(1 / (1 + np.exp(-odds)))


def _site_specific(person: Person) -> dict[str, float]:
    """What each site has of its own, in standard deviations; the hips share most of it."""
    draw = person.draws("sites")
    spine, hip, neck, total = draw.standard_normal(4)
    shared, apart = np.sqrt(HIPS_TOGETHER), np.sqrt(1 - HIPS_TOGETHER)
    return {"lumbar_spine": spine, "femoral_neck": shared * hip + apart * neck, "total_hip": shared * hip + apart * total}


def _exam(person: Person, gap: int, *, kind: str, own: dict[str, float]) -> Exam:
    draw = person.draws("exam", gap)
    day = person.image_date + timedelta(days=gap)
    if kind == "qct":
        vbmd = _rounded(person.vbmd_mg_cm3 + QCT_ERROR_MG_CM3 * draw.standard_normal(), "0.1")
        return Exam(person, day, {}, {}, None, max(vbmd, Decimal(5)))
    scale = SCALE[person.center]
    bmd = {site: _bmd(person, site=site, scale=scale, own=own[site], error=draw.standard_normal()) for site in SITES}
    t = {site: printed_t(value, site=site, scale=scale) for site, value in bmd.items()}
    tbs = 1.29 + 0.045 * person.density_z - 0.003 * (person.age_at_image - 65) + 0.07 * draw.standard_normal()
    return Exam(person, day, bmd, t, _rounded(float(np.clip(tbs, 0.95, 1.6)), "0.001"), None)


def _bmd(person: Person, *, site: str, scale: str, own: float, error: float) -> Decimal:
    intercept, slope, spread = LATENT[site]
    mean, sd = (float(value) for value in REFERENCE[scale][site])
    true_t = intercept + slope * (person.vbmd_mg_cm3 - YOUNG_VBMD) / YOUNG_SD + spread * own
    return _rounded(max(0.30, (mean + sd * true_t) * (1 + PRECISION[site] * error)), "0.001")


def _rounded(value: float | Decimal, step: str) -> Decimal:
    """Half away from zero; never a negative zero."""
    return Decimal(value).quantize(Decimal(step), ROUND_HALF_UP) + 0
