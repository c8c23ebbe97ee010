"""The people of a generated study: age, sex, size, true bone density and the way that each came to be imaged."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import cache
from typing import Literal, cast

import numpy as np

from ospor_batch.synthetic import latent
from ospor_batch.synthetic.faults import NO_FAULT, faults_of
from ospor_batch.synthetic.latent import ANCESTRIES, Ancestry, Bodies
from ospor_batch.synthetic.seeding import stream

Sex = Literal["female", "male"]
Implant = Literal["none", "pedicle_screws", "cement"]
LEVELS = ("L1", "L2", "L3", "L4")
LEVEL_OFFSET_MG_CM3 = (4.0, 1.0, -3.0, -2.0)  # sums to zero: the mean over levels is the person's value; declared
YEAR = 365.25
FIRST_IMAGE, LAST_IMAGE = date(2022, 1, 1), date(2022, 12, 31)  # the study period of a generated study
# Where vertebrae break, and the weight of each place: the two crests at T7-T8 and T12-L1 are textbook; declared
FRACTURE_PLACES = {
    "T6": 0.5,
    "T7": 1.0,
    "T8": 1.0,
    "T9": 0.6,
    "T11": 0.8,
    "T12": 1.6,
    "L1": 1.6,
    "L2": 0.8,
    "L3": 0.5,
    "L4": 0.4,
}
HEIGHT_LOST_BY_FRACTURE_M = 0.008  # at a grade of one third of the height of the front; declared
TILT_LEAST, TILT_RANGE = 5.0, 15.0  # degrees; gantries reach 30, and 20 serve the lumbar spine; declared
CALIBRATION_PEOPLE = 6000  # people drawn to find the shift that gives a declared prevalence


Manner = Literal["north", "south", "east", "west"]


@dataclass(frozen=True)
class CenterPlan:
    """What is declared of one generated center.

    A declared prevalence is that of everyone of 50 or older under the center's own reference (lowest T of three sites, or
    vBMD below 80 mg/cm3), before referral and measurement error; it decides the shift. Without one the shift stands.
    """

    name: str
    vendors: tuple[tuple[str, float], ...]  # scanner vendor and its share of the people
    vbmd_shift_mg_cm3: float  # how far its people stand from the others: prevalence differs by center
    referral: float  # log odds of a density examination for a person of 65 of mean density
    script: Literal["latin", "korean", "chinese"]
    exam_kind: Literal["dxa", "qct"]
    prevalence: float | None = None
    ancestry_shares: tuple[float, float, float] = (1.0, 0.0, 0.0)  # by ANCESTRIES
    manner: Manner | None = None  # whose folders, exports and units it shares; its own where it is one of the four
    image_dates: tuple[date, date] = (FIRST_IMAGE, LAST_IMAGE)
    share_female: float = latent.SHARE_FEMALE
    least_age: float | None = None  # nobody younger is imaged

    @property
    def shift_mg_cm3(self) -> float:
        if self.prevalence is None:
            return self.vbmd_shift_mg_cm3
        return shift_for(
            self.prevalence, exam_kind=self.exam_kind, ancestry_shares=self.ancestry_shares, share_female=self.share_female
        )


CENTERS: tuple[CenterPlan, ...] = (
    CenterPlan("north", (("ge", 0.7), ("siemens", 0.3)), 0.0, 0.9, "latin", "dxa", 0.28, (0.05, 0.88, 0.07)),
    CenterPlan("south", (("siemens", 1.0),), 0.0, 1.2, "korean", "dxa", 0.36),
    CenterPlan("east", (("philips", 1.0),), 0.0, 0.7, "korean", "dxa", 0.24),
    CenterPlan("west", (("canon", 0.75), ("ge", 0.25)), 0.0, 0.8, "chinese", "qct", 0.25),
)


@dataclass(frozen=True)
class Rates:
    """Shares of ordinary people whom a study leaves out, who have a radiograph as well, and who differ in body or image."""

    contrast: float
    other_kvp: float
    radiograph_only: float
    radiograph_beside: float
    fracture: float = 1.0  # times the chance that density and age give
    scoliosis: float = 0.10
    transitional: float = 0.06
    implant: float = 0.0
    motion: float = 0.0
    tilt: float = 0.0  # of CT with a tilted gantry
    phantom: float = 0.0  # of QCT exams read from the very scan, with a calibration phantom under the patient
    is_referred_by_risk: bool = True  # False: everyone of a center is examined with the same chance


@dataclass(frozen=True)
class Person:
    """One generated person with the true values that everything else follows from."""

    center: str
    number: int  # from 1 in each center
    night: int
    seed: int
    patient_id: str
    name: str
    sex: Sex
    birth_date: date
    image_date: date
    height_m: float
    weight_kg: float
    vbmd_mg_cm3: float
    density_z: float  # standard deviations from the mean of the same age, sex and center
    vendor: str
    kvp_kv: int
    is_contrast: bool
    is_ct: bool
    is_radiograph: bool
    fault: str
    ancestry: Ancestry = "east_asian"
    menopause_age: float | None = None  # of women
    smi_cm2_m2: float = 42.0  # true muscle area at L3 over height squared
    tbs: float = 1.30  # true, as a device prints it
    site_z: tuple[float, float, float] = (0.0, 0.0, 0.0)  # what each site of latent.SITES has of its own
    spurs: float = 0.0  # grade of osteophytes, 0 to 3
    fractures: tuple[tuple[str, float], ...] = ()  # level and share of the height of the front that is lost
    scoliosis_mm: float = 0.0  # greatest distance of the lumbar spine from the midline, left positive
    transitional: Literal["none", "lumbarised", "sacralised"] = "none"
    implant: Implant = "none"
    motion_mm: float = 0.0
    tilt_deg: float = 0.0  # of the gantry, towards the head behind
    is_referred_by_risk: bool = True
    phantom_share: float = 0.0  # of the QCT exams of the study; who has one, synthetic.phantom says

    @property
    def manner(self) -> Manner:
        """Whose folders, exports and units the person's center shares."""
        return center_plan(self.center).manner or cast(Manner, self.center)

    @property
    def age_at_image(self) -> float:
        return (self.image_date - self.birth_date).days / YEAR

    @property
    def is_postmenopausal(self) -> bool | None:
        """None in men."""
        return None if self.menopause_age is None else self.age_at_image >= self.menopause_age

    @property
    def muscle_cm2(self) -> float:
        """True muscle area at L3."""
        return self.smi_cm2_m2 * self.height_m**2

    @property
    def ct_accession(self) -> str:
        return f"{self.center[0].upper()}{self.image_date:%y%m%d}{self.number:05d}C"

    @property
    def level_vbmd(self) -> tuple[float, ...]:
        return tuple(self.vbmd_mg_cm3 + offset for offset in LEVEL_OFFSET_MG_CM3)

    @property
    def size(self) -> float:
        """Body scale, 1 at 1.65 m."""
        return float(np.clip(self.height_m / 1.65, 0.9, 1.13))

    def draws(self, *words: object) -> np.random.Generator:
        return stream(self.seed, self.center, self.number, *words)


@cache
def center_plan(name: str) -> CenterPlan:
    """The plan of one of the four centers, or of one of a published cohort."""
    from ospor_batch.synthetic.cohorts import COHORT_CENTERS  # late: it is made of plans

    return next(plan for plan in (*CENTERS, *COHORT_CENTERS) if plan.name == name)


@cache
def shift_for(
    prevalence: float, *, exam_kind: str, ancestry_shares: tuple[float, float, float], share_female: float = latent.SHARE_FEMALE
) -> float:
    """Shift of the mean vBMD in mg/cm3 that gives a prevalence among people of 50 or older; by bisection on fixed draws."""
    draw = stream(0, "prevalence")
    drawn = latent.draw_bodies(draw, CALIBRATION_PEOPLE, ancestry_shares=ancestry_shares, share_female=share_female)
    old = drawn.age >= 50
    low, high = -80.0, 80.0
    while high - low > 0.01:
        middle = (low + high) / 2
        vbmd = latent.true_vbmd(drawn, shift=middle)
        sick = vbmd < 80 if exam_kind == "qct" else latent.true_t(drawn, vbmd).min(axis=1) < -2.45
        low, high = (middle, high) if sick[old].mean() > prevalence else (low, middle)
    return round((low + high) / 2, 2)


def people(center: str, numbers: range, *, seed: int, night: int, rates: Rates, is_planted: bool = True) -> list[Person]:
    """Draw the people of one center and night; on the first night the faults go to the first numbers."""
    planted = [fault.name for fault in faults_of(center)] if night == 1 and is_planted else []
    names = [*planted, *[NO_FAULT] * max(0, len(numbers) - len(planted))]
    return [
        _person(center_plan(center), number, seed=seed, night=night, rates=rates, fault=fault)
        for number, fault in zip(numbers, names, strict=False)
    ]


def _person(plan: CenterPlan, number: int, *, seed: int, night: int, rates: Rates, fault: str) -> Person:
    draw = stream(seed, plan.name, number, "person")
    first_day, last_day = plan.image_dates
    image_date = first_day + timedelta(days=int(draw.integers(0, (last_day - first_day).days + 1)))
    if fault == "image_before_period":
        image_date -= timedelta(days=400)
    drawn = latent.draw_bodies(draw, 1, ancestry_shares=plan.ancestry_shares, share_female=plan.share_female)
    bodies = _as_planted(drawn, fault, least_age=plan.least_age)
    sex: Sex = "female" if bodies.is_female[0] else "male"
    age, vbmd = float(bodies.age[0]), round(float(latent.true_vbmd(bodies, shift=plan.shift_mg_cm3)[0]), 2)
    only_radiograph = draw.random() < rates.radiograph_only
    beside = draw.random() < rates.radiograph_beside
    sound = fault != NO_FAULT  # a person with a planted fault is sound otherwise, so that the fault alone decides
    is_ct = fault != "radiograph_only" and (sound or not only_radiograph)
    fractures = _fractures(stream(seed, plan.name, number, "fractures"), vbmd=vbmd, age=age, rates=rates)
    bmi, height = float(bodies.bmi[0]), _height_now(bodies, fractures)
    person = Person(
        center=plan.name, number=number, night=night, seed=seed,
        patient_id=_patient_id(plan.manner or plan.name, number), name=_name(draw, plan.script, sex), sex=sex,
        birth_date=image_date - timedelta(days=round(age * YEAR)), image_date=image_date,
        height_m=round(height, 3), weight_kg=round(bmi * height**2, 1),
        vbmd_mg_cm3=vbmd, density_z=float(bodies.density_z[0]),
        vendor=_vendor(draw, plan), kvp_kv=_kvp(draw, rates=rates, fault=fault),
        is_contrast=bool(draw.random() < rates.contrast and not sound) or fault == "contrast_only",
        is_ct=is_ct, is_radiograph=not is_ct or beside or fault in {"photometric_wrong", "lateral_beside"}, fault=fault,
        ancestry=ANCESTRIES[int(bodies.ancestry[0])], menopause_age=_menopause(bodies),
        smi_cm2_m2=float(latent.smi(bodies)[0]), tbs=float(latent.true_tbs(bodies)[0]),
        site_z=(float(bodies.site_z[0, 0]), float(bodies.site_z[0, 1]), float(bodies.site_z[0, 2])),
        spurs=float(bodies.spurs[0]), fractures=fractures, is_referred_by_risk=rates.is_referred_by_risk,
        phantom_share=rates.phantom,
    )  # fmt: skip
    return _with_variants(person, rates)


def _as_planted(bodies: Bodies, fault: str, *, least_age: float | None) -> Bodies:
    """The same body with the age and sex that a fault needs, or folded to the other side of the least age."""
    if least_age is not None:
        bodies = replace(bodies, age=least_age + np.abs(bodies.age - least_age))
    if fault == "under_50_at_label":
        bodies = replace(bodies, is_female=np.array([False]))
    return replace(bodies, age=np.array([_age(float(bodies.age[0]), fault)]))


def _age(age: float, fault: str) -> float:
    """Age at the image in years; nobody stands within weeks of 50, where day counts and calendars differ."""
    if fault == "under_50_at_label":
        return 50.2  # the examination lies 150 days earlier: 49.8
    if fault == "under_50_at_image":
        return 45.0
    if fault != NO_FAULT:
        return max(age, 52.0)
    return age if abs(age - 50) > 0.15 else 50.5


def _menopause(bodies: Bodies) -> float | None:
    return round(float(bodies.menopause_age[0]), 2) if bodies.is_female[0] else None


def _height_now(bodies: Bodies, fractures: tuple[tuple[str, float], ...]) -> float:
    """Height after what age and fractures took."""
    lost = latent.HEIGHT_LOSS_A_YEAR * max(0.0, float(bodies.age[0]) - 45)
    lost += sum(HEIGHT_LOST_BY_FRACTURE_M * 3 * grade for _, grade in fractures)
    return max(1.36, float(bodies.adult_height_m[0]) - lost)


def _fractures(draw: np.random.Generator, *, vbmd: float, age: float, rates: Rates) -> tuple[tuple[str, float], ...]:
    """Levels and grades of wedge fractures, from head to foot; a grade is the share of the front's height that is lost."""
    chance = rates.fracture * float(latent.fracture_chance(np.array(vbmd), np.array(age)))
    drawn = draw.random((len(FRACTURE_PLACES), 2))
    places = zip(FRACTURE_PLACES.items(), drawn, strict=True)
    return tuple((level, round(0.20 + 0.25 * grade, 3)) for (level, weight), (u, grade) in places if u < chance * weight)


def _with_variants(person: Person, rates: Rates) -> Person:
    """The same person with what a stream of its own decides of spine, implants and lying still."""
    draw = person.draws("variants")
    u, amount = draw.random(4), draw.random(4)
    side = 1.0 if draw.random() < 0.5 else -1.0
    implants: tuple[Implant, Implant] = ("pedicle_screws", "cement")
    return replace(
        person,
        scoliosis_mm=round(side * float(4 + 10 * amount[0] if u[0] < rates.scoliosis else 2 * amount[0]), 2),
        transitional="none" if u[1] >= rates.transitional else "lumbarised" if amount[1] < 0.4 else "sacralised",
        implant=implants[int(amount[2] * 2)] if u[2] < rates.implant and person.fault == NO_FAULT else "none",
        tilt_deg=_tilt(draw, rates, fault=person.fault),
        motion_mm=round(1 + 3 * float(amount[3]), 2) if u[3] < rates.motion and person.fault == NO_FAULT else 0.0,
    )


def _tilt(draw: np.random.Generator, rates: Rates, *, fault: str) -> float:
    """Tilt of the gantry in degrees; the head end is tilted back more often, along the discs of L5."""
    u, amount, side = draw.random(3)
    is_tilted = fault == "tilted" or (u < rates.tilt and fault == NO_FAULT)
    return round(float(TILT_LEAST + TILT_RANGE * amount) * (1 if side < 0.7 else -1), 1) if is_tilted else 0.0


def _kvp(draw: np.random.Generator, *, rates: Rates, fault: str) -> int:
    other, which = draw.random() < rates.other_kvp, draw.random()
    if fault == "kvp_100_only":
        return 100
    return (100 if which < 0.5 else 140) if other and fault == NO_FAULT else 120


def _vendor(draw: np.random.Generator, plan: CenterPlan) -> str:
    names, shares = zip(*plan.vendors, strict=True)
    return str(names[int(np.searchsorted(np.cumsum(shares), draw.random() * sum(shares), side="right"))])


def _patient_id(manner: str, number: int) -> str:
    """The number as the export writes it; east and west use the same numbers, which begin with 0, for different people."""
    shared = f"{4_210_000 + number * 11:08d}"
    return {"north": f"N{1_000_000 + number * 17}", "south": f"S-{number * 13:06d}A"}.get(manner, shared)


LATIN = (("Arden", "Bell", "Müller", "Novák", "Olsen", "Quist"), ("Ada", "Iris", "Mona"), ("Carl", "Jon", "Otto"))
KOREAN = (
    (("Kim", "김"), ("Lee", "이"), ("Park", "박"), ("Choi", "최"), ("Jung", "정")),
    (("Youngja", "영자"), ("Soonja", "순자"), ("Mikyung", "미경")),
    (("Minsu", "민수"), ("Youngho", "영호"), ("Jungwoo", "정우")),
)
CHINESE = (
    (("Wang", "王"), ("Li", "李"), ("Zhang", "张"), ("Chen", "陈"), ("Liu", "刘")),
    (("Xiulan", "秀兰"), ("Guiying", "桂英"), ("Min", "敏")),
    (("Wei", "伟"), ("Jianguo", "建国"), ("Xiaodong", "晓东")),
)


def _name(draw: np.random.Generator, script: str, sex: Sex) -> str:
    """A person name as DICOM writes it, invented; with an ideographic group where the script has one."""
    which, first = 1 if sex == "female" else 2, int(draw.integers(0, 5))
    second = int(draw.integers(0, 3))
    if script == "latin":
        return f"{LATIN[0][first]}^{LATIN[which][second]}"
    family, given = (
        (KOREAN if script == "korean" else CHINESE)[0][first],
        (KOREAN if script == "korean" else CHINESE)[which][second],
    )
    return f"{family[0]}^{given[0]}={family[1]}^{given[1]}"
