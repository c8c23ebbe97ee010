"""The people of a generated study: age, sex, size, true bone density and the way that each came to be imaged."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

import numpy as np

from ospor_batch.synthetic.faults import NO_FAULT, faults_of
from ospor_batch.synthetic.seeding import stream

Sex = Literal["female", "male"]
LEVELS = ("L1", "L2", "L3", "L4")
LEVEL_OFFSET_MG_CM3 = (4.0, 1.0, -3.0, -2.0)  # sums to zero: the mean over levels is the person's value; declared
YEAR = 365.25
FIRST_IMAGE, LAST_IMAGE = date(2022, 1, 1), date(2022, 12, 31)  # the study period of a generated study
# Mean vBMD at 50 years and its loss a year, mg/cm3: methods I2 (-2.5 HU a year) over the line of 120 kVp, split by sex
VBMD_AT_50 = {"female": 140.0, "male": 138.0}
LOSS_A_YEAR = {"female": 2.2, "male": 1.5}
VBMD_SD = 26.0  # mg/cm3; methods I2: 38 to 44 HU between people, less image noise
VBMD_LEAST = 15.0  # mg/cm3; declared


@dataclass(frozen=True)
class CenterPlan:
    """What is declared of one generated center."""

    name: str
    vendors: tuple[tuple[str, float], ...]  # scanner vendor and its share of the people
    vbmd_shift_mg_cm3: float  # how far its people stand from the others: prevalence differs by center
    referral: float  # log odds of a density examination for a person of 65 of mean density
    script: Literal["latin", "korean", "chinese"]
    exam_kind: Literal["dxa", "qct"]


CENTERS: tuple[CenterPlan, ...] = (
    CenterPlan("north", (("ge", 0.7), ("siemens", 0.3)), 0.0, 0.9, "latin", "dxa"),
    CenterPlan("south", (("siemens", 1.0),), -9.0, 1.2, "korean", "dxa"),
    CenterPlan("east", (("philips", 1.0),), 7.0, 0.7, "korean", "dxa"),
    CenterPlan("west", (("canon", 0.75), ("ge", 0.25)), -4.0, 0.8, "chinese", "qct"),
)


@dataclass(frozen=True)
class Rates:
    """Shares of ordinary people whom a study leaves out, and of those who have a radiograph as well."""

    contrast: float
    other_kvp: float
    radiograph_only: float
    radiograph_beside: float


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

    @property
    def age_at_image(self) -> float:
        return (self.image_date - self.birth_date).days / YEAR

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


def center_plan(name: str) -> CenterPlan:
    return next(plan for plan in CENTERS if plan.name == name)


def people(center: str, numbers: range, *, seed: int, night: int, rates: Rates) -> list[Person]:
    """Draw the people of one center and night; on the first night the faults go to the first numbers."""
    planted = [fault.name for fault in faults_of(center)] if night == 1 else []
    names = [*planted, *[NO_FAULT] * max(0, len(numbers) - len(planted))]
    return [
        _person(center_plan(center), number, seed=seed, night=night, rates=rates, fault=fault)
        for number, fault in zip(numbers, names, strict=False)
    ]


def _person(plan: CenterPlan, number: int, *, seed: int, night: int, rates: Rates, fault: str) -> Person:
    draw = stream(seed, plan.name, number, "person")
    sex: Sex = "male" if fault == "under_50_at_label" or draw.random() < 0.38 else "female"
    image_date = FIRST_IMAGE + timedelta(days=int(draw.integers(0, (LAST_IMAGE - FIRST_IMAGE).days + 1)))
    if fault == "image_before_period":
        image_date -= timedelta(days=400)
    age = _age(draw, fault)
    z = float(draw.standard_normal())
    mean = VBMD_AT_50[sex] - LOSS_A_YEAR[sex] * (age - 50) + plan.vbmd_shift_mg_cm3
    height = float(np.clip(draw.normal(1.58 if sex == "female" else 1.71, 0.06), 1.42, 1.90))
    bmi = float(np.clip(draw.normal(24.0, 3.2), 17, 34))
    only_radiograph = draw.random() < rates.radiograph_only
    beside = draw.random() < rates.radiograph_beside
    sound = fault != NO_FAULT  # a person with a planted fault is sound otherwise, so that the fault alone decides
    is_ct = fault != "radiograph_only" and (sound or not only_radiograph)
    return Person(
        center=plan.name, number=number, night=night, seed=seed,
        patient_id=_patient_id(plan.name, number), name=_name(draw, plan.script, sex), sex=sex,
        birth_date=image_date - timedelta(days=round(age * YEAR)), image_date=image_date,
        height_m=round(height, 3), weight_kg=round(bmi * height**2, 1),
        vbmd_mg_cm3=round(max(VBMD_LEAST, mean + VBMD_SD * z), 2), density_z=z,
        vendor=_vendor(draw, plan), kvp_kv=_kvp(draw, rates=rates, fault=fault),
        is_contrast=bool(draw.random() < rates.contrast and not sound) or fault == "contrast_only",
        is_ct=is_ct, is_radiograph=not is_ct or beside, fault=fault,
    )  # fmt: skip


def _age(draw: np.random.Generator, fault: str) -> float:
    """Age at the image in years; nobody stands within weeks of 50, where day counts and calendars differ."""
    age = float(np.clip(draw.normal(67.0, 10.0), 41, 89))
    if fault == "under_50_at_label":
        return 50.2  # the examination lies 150 days earlier: 49.8
    if fault == "under_50_at_image":
        return 45.0
    if fault != NO_FAULT:
        return max(age, 52.0)
    return age if abs(age - 50) > 0.15 else 50.5


def _kvp(draw: np.random.Generator, *, rates: Rates, fault: str) -> int:
    other, which = draw.random() < rates.other_kvp, draw.random()
    if fault == "kvp_100_only":
        return 100
    return (100 if which < 0.5 else 140) if other and fault == NO_FAULT else 120


def _vendor(draw: np.random.Generator, plan: CenterPlan) -> str:
    names, shares = zip(*plan.vendors, strict=True)
    return str(names[int(np.searchsorted(np.cumsum(shares), draw.random() * sum(shares), side="right"))])


def _patient_id(center: str, number: int) -> str:
    """The number as the export writes it; east and west use the same numbers for different people."""
    return {"north": f"N{1_000_000 + number * 17}", "south": f"S-{number * 13:06d}A"}.get(center, f"{number * 11:08d}")


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
