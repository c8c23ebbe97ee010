"""X-ray attenuation of tissues, and the CT number that each composition has at each tube voltage."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np

KEV = (30.0, 40.0, 50.0, 60.0, 80.0, 100.0, 150.0)
# Mass attenuation with coherent scatter in cm2/g at these energies: Elam, Ravel & Sieber (2002, Radiat Phys Chem 63:121),
# equal to NIST XCOM to the digits shown for water and iodine; tissues by the elemental compositions of ICRU Report 44
MASS_ATTENUATION: dict[str, tuple[float, ...]] = {
    "water": (0.3756, 0.2683, 0.2269, 0.2059, 0.1837, 0.1707, 0.1505),
    "adipose": (0.3064, 0.2396, 0.2123, 0.1974, 0.1800, 0.1688, 0.1500),
    "muscle": (0.3783, 0.2685, 0.2263, 0.2048, 0.1823, 0.1693, 0.1492),
    "blood": (0.3852, 0.2715, 0.2278, 0.2057, 0.1827, 0.1695, 0.1492),
    "lung": (0.3815, 0.2699, 0.2270, 0.2053, 0.1826, 0.1695, 0.1493),
    "liver": (0.3798, 0.2691, 0.2265, 0.2049, 0.1824, 0.1693, 0.1492),
    "cartilage": (0.4149, 0.2831, 0.2332, 0.2083, 0.1832, 0.1694, 0.1486),
    "cortical_bone": (1.3311, 0.6655, 0.4242, 0.3148, 0.2229, 0.1855, 0.1480),
    "red_marrow": (0.3457, 0.2553, 0.2197, 0.2011, 0.1809, 0.1687, 0.1492),
    "yellow_marrow": (0.3007, 0.2373, 0.2112, 0.1968, 0.1799, 0.1688, 0.1500),
    "k2hpo4": (1.9753, 0.9326, 0.5574, 0.3890, 0.2508, 0.1972, 0.1480),
    "hydroxyapatite": (2.0992, 0.9876, 0.5867, 0.4067, 0.2589, 0.2019, 0.1501),
    "iodine": (8.5617, 22.0958, 12.3235, 7.5770, 3.5103, 1.9422, 0.6978),
    "titanium": (4.9719, 2.2126, 1.2135, 0.7660, 0.4053, 0.2721, 0.1649),
    "air": (0.3538, 0.2485, 0.2080, 0.1875, 0.1662, 0.1541, 0.1356),
}
# Water that a gram of K2HPO4 or hydroxyapatite displaces, g: solution data of liquid phantoms; 1 / 3.16 g/cm3
DISPLACED = {"k2hpo4": 0.2174, "hydroxyapatite": 0.3165}
# Effective energy in keV of each tube voltage behind a trunk. 120 kV is declared, so that the line of K2HPO4 has 1.25 HU for
# each mg/cm3; 100 and 140 kV follow from the ratios of L1 of methods I3 (0.927 and 1.053), 80 kV by the same curve
EFFECTIVE_KEV: dict[int, float] = {80: 65.1, 100: 70.86, 120: 75.05, 140: 78.02}
RED_SHARE = 0.87  # of marrow between trabeculae, so that marrow alone has 5 HU at 120 kV; declared


@dataclass(frozen=True)
class Tissue:
    """Which attenuation table a tissue follows and its density in g/cm3."""

    table: str
    density: float


# Densities: ICRU Report 44, within its ranges set so that CT numbers at 120 kV are those of usual textbooks; declared
TISSUES: dict[str, Tissue] = {
    "air": Tissue("air", 0.0012),
    "lung": Tissue("lung", 0.17),
    "fat": Tissue("adipose", 0.920),
    "visceral_fat": Tissue("adipose", 0.925),
    "skin": Tissue("muscle", 1.02),
    "muscle": Tissue("muscle", 1.058),
    "bowel": Tissue("muscle", 1.038),
    "liver": Tissue("liver", 1.066),
    "spleen": Tissue("liver", 1.056),
    "kidney": Tissue("muscle", 1.040),
    "blood": Tissue("blood", 1.048),
    "vein": Tissue("blood", 1.046),
    "mediastinum": Tissue("muscle", 1.025),
    "disc": Tissue("cartilage", 1.085),
    "cartilage": Tissue("cartilage", 1.095),
    "canal": Tissue("muscle", 1.022),
    "cortical_bone": Tissue("cortical_bone", 1.92),
    "rib_marrow": Tissue("cortical_bone", 0.86),
    "spongy_bone": Tissue("cortical_bone", 1.14),  # of ribs, arches and processes: cortex and marrow, mixed
    "table_shell": Tissue("adipose", 0.87),
    "table_core": Tissue("adipose", 0.12),
    "pad": Tissue("adipose", 0.05),  # foam under the back
    "phantom_block": Tissue("adipose", 0.96),  # plastic, some 50 HU below water; declared
    "titanium": Tissue("titanium", 4.5),
}


def mass_attenuation(table: str, kev: float) -> float:
    """Mass attenuation in cm2/g, between the given energies by straight lines in logarithms."""
    values = MASS_ATTENUATION[table]
    return math.exp(float(np.interp(math.log(kev), np.log(KEV), np.log(values))))


def attenuation_per_mm(tissue: str, kev: float) -> float:
    """Linear attenuation in 1/mm."""
    kind = TISSUES[tissue]
    return kind.density * mass_attenuation(kind.table, kev) / 10


def trabecular_per_mm(vbmd_mg_cm3: float, kev: float) -> float:
    """Linear attenuation in 1/mm of a trabecular core with this much K2HPO4-equivalent mineral."""
    return mass_attenuation("water", kev) / 10 * (1 + (_marrow_hu(kev) + mineral_slope("k2hpo4", kev) * vbmd_mg_cm3) / 1000)


@cache
def tissue_hu(tissue: str, kvp_kv: int) -> float:
    """CT number in HU of a tissue without contrast."""
    kev = EFFECTIVE_KEV[kvp_kv]
    return _hu(attenuation_per_mm(tissue, kev) * 10, kev)


def mineral_slope(mineral: str, kev: float) -> float:
    """HU that each mg/cm3 of a mineral adds to water, the water that it displaces taken off."""
    return mass_attenuation(mineral, kev) / mass_attenuation("water", kev) - DISPLACED[mineral]


def solution_hu(mineral: str, mg_cm3: float, kvp_kv: int) -> float:
    """CT number of water, or of plastic like it, with so much of a mineral."""
    return mineral_slope(mineral, EFFECTIVE_KEV[kvp_kv]) * mg_cm3


@cache
def iodine_hu(kvp_kv: int) -> float:
    """HU that each mg/mL of iodine adds."""
    kev = EFFECTIVE_KEV[kvp_kv]
    return mass_attenuation("iodine", kev) / mass_attenuation("water", kev)


@cache
def trabecular_line(kvp_kv: int) -> tuple[float, float]:
    """Intercept in HU and slope in HU for each mg/cm3 of the line from vBMD (K2HPO4) to the CT number of the core."""
    kev = EFFECTIVE_KEV[kvp_kv]
    return round(_marrow_hu(kev), 4), round(mineral_slope("k2hpo4", kev), 4)


def _marrow_hu(kev: float) -> float:
    red, yellow = (
        _hu(density * mass_attenuation(table, kev), kev) for table, density in (("red_marrow", 1.03), ("yellow_marrow", 0.98))
    )
    return RED_SHARE * red + (1 - RED_SHARE) * yellow


def _hu(attenuation_per_cm: float, kev: float) -> float:
    water = mass_attenuation("water", kev)
    return 1000 * (attenuation_per_cm - water) / water
