"""The population model in arrays: bodies, bone density and what a densitometer would find without error.

Every number here is declared; its aim, where it has one, stands beside it. Ages in years, heights in m, vBMD in mg/cm3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
SITES = ("lumbar_spine", "femoral_neck", "total_hip")
Ancestry = Literal["east_asian", "european", "african"]
ANCESTRIES: tuple[Ancestry, ...] = ("east_asian", "european", "african")
SHARE_FEMALE = 0.62
AGE_MEAN, AGE_SD, AGE_RANGE = 67.0, 10.0, (41.0, 89.0)
MENOPAUSE_MEAN, MENOPAUSE_SD = 50.0, 3.5
# vBMD at 30 years and its loss a year: slow, faster for eight years from the menopause, then slower again. Aim: 152, 126, 112
# and 92 in women of 50, 58, 65 and 75; 139 and 117 in men of 50 and 65 (methods I2: about -2.5 HU a year over both)
VBMD_AT_30 = {"female": 172.0, "male": 160.0}
LOSS = {"female": (1.0, 3.2, 2.0), "male": (1.05, 1.5, 1.5)}
FAST_YEARS = 8.0
MEN_TURN_AT = 50.0
VBMD_SD = 26.0  # methods I2: 38 to 44 HU between people of one age, less image noise
VBMD_LEAST = 15.0
VBMD_OF = {"east_asian": 0.0, "european": 1.0, "african": 12.0}
HEIGHT = {"east_asian": (1.56, 1.69), "european": (1.62, 1.75), "african": (1.63, 1.75)}  # women, men at 30
HEIGHT_SD, HEIGHT_LOSS_A_YEAR = 0.058, 0.0007  # from 45 on, by posture and discs; fractures take more
BMI_MEAN, BMI_SD, BMI_RANGE = 24.3, 3.3, (17.0, 36.0)
# Muscle area at L3: SMI in cm2/m2 at 60 years and its loss a year. Aim: cut-offs of methods I1 part the lowest fifth
SMI_AT_60 = {"female": 41.0, "male": 52.0}
SMI_LOSS, SMI_SD, SMI_OF_BMI = 0.16, 5.0, 0.75
# True T of a site = intercept + slope * (vBMD - 165) / 28 + effects of body mass, bone size, age and spurs + its own part.
# Aim: the table of 969 Koreans of 50 to 93 years of Kim & Kim 2022 (PLOS ONE 17:e0260924): spine with hip r 0.6, neck with
# total hip r 0.86, women of 65 near -1.1, -1.8 and -1.2, falls by age of 0.03 at the spine and 0.07 a year at the hips
YOUNG_VBMD, YOUNG_SD = 165.0, 28.0
T_INTERCEPT = (0.18, -0.15, 0.50)
T_OF_VBMD = (0.85, 0.68, 0.68)
T_OWN_SD = (0.70, 0.64, 0.60)
T_OF_BMI, T_OF_MALE = (0.09, 0.09, 0.10), (0.75, 0.65, 0.80)
T_OF_DECADE = (0.0, -0.25, -0.30)
T_OF_SPUR = (0.55, 0.0, 0.0)  # for each grade of osteophytes: areal density counts them, volumetric does not
HIPS_TOGETHER = 0.65  # correlation of what the two hip sites have of their own
# TBS: follows the latent density in part only. Aim: the same table; r 0.45 with the spine, 1.26 in women of 65
TBS_AT_65 = {"female": 1.262, "male": 1.345}
TBS_A_YEAR = {"female": -0.0042, "male": -0.0018}
TBS_OF_Z, TBS_OF_BMI, TBS_SD = 0.040, -0.0045, 0.070


@dataclass(frozen=True)
class Bodies:
    """People as arrays of one length; z are standard normal."""

    age: Array
    is_female: Array
    menopause_age: Array  # of women; meaningless in men
    ancestry: Array  # index into ANCESTRIES
    adult_height_m: Array
    bmi: Array
    density_z: Array
    smi_z: Array
    tbs_z: Array
    site_z: Array  # (n, 3), by SITES
    spurs: Array  # grade of osteophytes, 0 to 3


def draw_bodies(
    draw: np.random.Generator, n: int, *, ancestry_shares: tuple[float, float, float], share_female: float = SHARE_FEMALE
) -> Bodies:
    """Draw people; always the same count of random numbers for each."""
    normal, even = draw.standard_normal((n, 11)), draw.random((n, 3))
    is_female = even[:, 0] < share_female
    ancestry = np.minimum(np.searchsorted(np.cumsum(ancestry_shares), even[:, 1] * sum(ancestry_shares), side="right"), 2)
    age = np.clip(AGE_MEAN + AGE_SD * normal[:, 0], *AGE_RANGE)
    heights = np.array([HEIGHT[name] for name in ANCESTRIES])[ancestry, 1 - is_female.astype(int)]
    shared, apart = np.sqrt(HIPS_TOGETHER), np.sqrt(1 - HIPS_TOGETHER)
    hip = normal[:, 7]
    return Bodies(
        age=age,
        is_female=is_female,
        menopause_age=np.clip(MENOPAUSE_MEAN + MENOPAUSE_SD * normal[:, 1], 40, 58),
        ancestry=ancestry,
        adult_height_m=np.clip(heights + HEIGHT_SD * normal[:, 2], 1.42, 1.92),
        bmi=np.clip(BMI_MEAN + BMI_SD * normal[:, 3], *BMI_RANGE),
        density_z=normal[:, 4],
        smi_z=normal[:, 5],
        tbs_z=normal[:, 6],
        site_z=np.stack([normal[:, 8], shared * hip + apart * normal[:, 9], shared * hip + apart * normal[:, 10]], axis=1),
        spurs=spurs_of(age, is_female, even[:, 2]),
    )


def spurs_of(age: Array, is_female: Array, chance: Array) -> Array:
    """Grade of osteophytes, 0 to 3: rises with age, more in men."""
    mean = np.clip((age - 45) / 40, 0, 1.2) * np.where(is_female, 1.3, 2.4)
    return np.asarray(np.clip(mean * (0.2 + 1.6 * chance), 0, 3))


def mean_vbmd(age: Array, is_female: Array, menopause_age: Array) -> Array:
    """Mean vBMD of an age and sex before ancestry and center."""
    turn = np.where(is_female, menopause_age, MEN_TURN_AT)
    found = np.zeros(np.shape(age))
    for sex, members in (("female", is_female), ("male", ~np.asarray(is_female))):
        slow, fast, late = LOSS[sex]
        lost = slow * (np.minimum(age, turn) - 30) + fast * np.clip(age - turn, 0, FAST_YEARS)
        found = np.where(members, VBMD_AT_30[sex] - lost - late * np.maximum(age - turn - FAST_YEARS, 0), found)
    return np.asarray(found)


def loss_a_year(age: float, *, is_female: bool, menopause_age: float) -> float:
    """Loss of vBMD in mg/cm3 a year at an age."""
    slow, fast, late = LOSS["female" if is_female else "male"]
    after = age - (menopause_age if is_female else MEN_TURN_AT)
    return slow if after < 0 else fast if after < FAST_YEARS else late


def true_vbmd(bodies: Bodies, *, shift: float) -> Array:
    """True vBMD; shift is how far a center's people stand from the others."""
    mean = mean_vbmd(bodies.age, bodies.is_female, bodies.menopause_age) + shift
    mean = mean + np.array([VBMD_OF[name] for name in ANCESTRIES])[bodies.ancestry]
    return np.asarray(np.maximum(VBMD_LEAST, mean + VBMD_SD * bodies.density_z))


def expected_t(bodies: Bodies, vbmd: Array) -> Array:
    """(n, 3) mean of the true T-scores of people with these bodies and this density, before each site's own part."""
    columns = [
        T_INTERCEPT[i]
        + T_OF_VBMD[i] * (vbmd - YOUNG_VBMD) / YOUNG_SD
        + T_OF_BMI[i] * (bodies.bmi - BMI_MEAN)
        + T_OF_MALE[i] * ~bodies.is_female
        + T_OF_DECADE[i] * np.maximum(bodies.age - 50, 0) / 10
        + T_OF_SPUR[i] * bodies.spurs
        for i in range(len(SITES))
    ]
    return np.stack(columns, axis=-1)


def true_t(bodies: Bodies, vbmd: Array) -> Array:
    """(n, 3) T-scores without measurement error, by SITES."""
    return np.asarray(expected_t(bodies, vbmd) + np.array(T_OWN_SD) * bodies.site_z)


def smi(bodies: Bodies) -> Array:
    """Skeletal muscle index at L3, cm2/m2."""
    at_60 = np.where(bodies.is_female, SMI_AT_60["female"], SMI_AT_60["male"])
    mean = at_60 - SMI_LOSS * (bodies.age - 60) + SMI_OF_BMI * (bodies.bmi - BMI_MEAN)
    return np.asarray(np.maximum(20.0, mean + SMI_SD * bodies.smi_z))


def expected_tbs(bodies: Bodies, density_z: Array) -> Array:
    """Mean TBS of people with these bodies and this density."""
    at = np.where(bodies.is_female, TBS_AT_65["female"], TBS_AT_65["male"])
    slope = np.where(bodies.is_female, TBS_A_YEAR["female"], TBS_A_YEAR["male"])
    return np.asarray(at + slope * (bodies.age - 65) + TBS_OF_Z * density_z + TBS_OF_BMI * (bodies.bmi - BMI_MEAN))


def true_tbs(bodies: Bodies) -> Array:
    """TBS as a device would print it, without measurement error."""
    return np.asarray(np.clip(expected_tbs(bodies, bodies.density_z) + TBS_SD * bodies.tbs_z, 0.95, 1.60))


def fracture_chance(vbmd: Array, age: Array) -> Array:
    """Chance that one vertebra of the usual places is fractured; doubles with each 25 mg/cm3 lost and each 12 years."""
    return np.asarray(np.clip(0.006 * 2.0 ** ((110 - vbmd) / 25 + (age - 65) / 12), 0, 0.35))
