"""The proportions of one person from the neck to the sacrum: outline, spine, levels and what varies between people.

Coordinates are DICOM's (LPS, mm): x to the left, y to the back, z to the head; the lower end-plate of L4 lies at z = 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from ospor_batch.synthetic.population import Person

Array = NDArray[Any]
THORACIC = tuple(f"T{i}" for i in range(1, 13))
LUMBAR = tuple(f"L{i}" for i in range(1, 6))
LEVELS_OF_BODY = (*THORACIC, *LUMBAR, "S1")
# Height, half width and half depth of each body and the height of the disc below it at scale 1, mm; rounded textbook values
BODY_HEIGHT = (15.5, 16.5, 17.5, 18.0, 18.5, 19.0, 19.5, 20.0, 20.5, 21.5, 22.5, 24.0, 26.0, 27.0, 27.5, 27.5, 27.5, 28.0)
HALF_WIDTH = (14.5, 14.0, 13.5, 13.5, 13.5, 14.0, 14.5, 15.0, 15.5, 16.5, 18.0, 20.0, 21.0, 22.0, 23.0, 24.0, 25.0, 25.0)
HALF_DEPTH = (8.5, 9.0, 9.5, 10.5, 11.5, 12.5, 13.0, 13.5, 14.0, 14.5, 15.0, 15.5, 16.0, 16.5, 17.0, 17.0, 17.0, 15.0)
DISC_BELOW = (4.0, 4.0, 3.5, 3.5, 4.0, 4.5, 4.5, 5.0, 5.0, 5.5, 6.0, 7.0, 9.0, 10.0, 11.0, 11.0, 10.0, 2.0)
CORTEX_MM = 0.85  # of a body at the mean density; thins with density; textbook 0.4 to 1, declared
END_PLATE_MM = 1.0
LAST_RIB = (0.6, 1.35)  # lengths of the twelfth rib, which differs more than any other, as shares of the usual one; declared
# Share of fat within muscle: at 40 years and a BMI of 24, and what each year, each unit of BMI and being a woman add. Aim:
# muscle at L3 without contrast reads 35 to 40 HU at 40 and 20 to 30 HU at 75, as plain CT of unselected people does; declared
MUSCLE_FAT_AT_40, MUSCLE_FAT_A_YEAR, MUSCLE_FAT_OF_BMI, MUSCLE_FAT_OF_WOMEN = 0.075, 0.0018, 0.006, 0.015
MUSCLE_FAT_SD, MUSCLE_FAT_RANGE = 0.025, (0.03, 0.32)


@dataclass(frozen=True)
class Vertebra:
    """One vertebral body: its end-plates in the middle, how they tilt, and its shape, mm."""

    level: str
    top: float
    bottom: float
    half_width: float
    half_depth: float
    wedge: float  # share of the height of the front that a fracture took
    hollow: float  # depth of the middle of the end-plates
    spur: float  # reach of osteophytes beyond the rim
    vbmd_mg_cm3: float

    @property
    def height(self) -> float:
        return self.top - self.bottom

    @property
    def middle(self) -> float:
        return (self.top + self.bottom) / 2


@dataclass(frozen=True)
class Body:
    """Everything that the image makers know of a person's body, mm."""

    half_width: float  # of the abdomen
    half_depth: float
    fat: float  # under the skin
    muscle_scale: float  # linear, 1 at the muscle area that the textbook shapes have
    visceral_fat: float  # share of the belly that is fat
    muscle_fat: float  # share of muscle that is fat
    spine_y: float
    lordosis: float
    kyphosis: float
    scoliosis: float
    scale: float
    cortex: float
    vertebrae: tuple[Vertebra, ...]
    is_female: bool
    sacrum_bend: float  # how far the sacrum reaches behind S1, mm at scale 1
    sacrum_length: float  # from the lower end of S1 to the tip of the coccyx, upright, mm at scale 1
    last_rib: float  # length of the twelfth rib, 1 being the usual one

    @property
    def extent(self) -> tuple[float, float]:
        """z of the lower end-plate of L4 and of the upper one of L1."""
        return self.vertebra("L4").bottom, self.vertebra("L1").top

    @property
    def chest_half_width(self) -> float:
        return 0.40 * self.half_width + 84 * self.scale

    @property
    def chest_half_depth(self) -> float:
        return 0.42 * self.half_depth + 60 * self.scale

    def vertebra(self, level: str) -> Vertebra:
        return self._by_level[level]

    @cached_property
    def _by_level(self) -> dict[str, Vertebra]:
        return {v.level: v for v in self.vertebrae}

    def top(self, level: str) -> float:
        return self.vertebra(level).top

    def spine_at(self, z: Array) -> tuple[Array, Array]:
        """x and y of the middle of the vertebral bodies: scoliosis, lumbar lordosis and thoracic kyphosis."""
        crest, apex = self.top("L1"), self.top("T1")
        lumbar = np.sin(np.pi * np.clip((z - self.bottom_of_spine) / (crest - self.bottom_of_spine), 0, 1))
        thoracic = np.sin(np.pi * np.clip((z - crest) / (apex - crest), 0, 1))
        sacral = np.clip(-z / 60, 0, 2)
        x = self.scoliosis * (lumbar - 0.7 * thoracic)
        return np.asarray(x, dtype=np.float32), np.asarray(
            self.spine_y - self.lordosis * lumbar + self.kyphosis * thoracic + 8 * sacral**2, dtype=np.float32
        )

    @property
    def bottom_of_spine(self) -> float:
        return self.vertebra("S1").bottom

    def tilt_of(self, vertebra: Vertebra) -> tuple[float, float]:
        """Slope of the body's axis along x and y: mm sideways and backwards for each mm towards the head."""
        ends = np.array([vertebra.bottom, vertebra.top], dtype=np.float32)
        x, y = self.spine_at(ends)
        return float(x[1] - x[0]) / vertebra.height, float(y[1] - y[0]) / vertebra.height

    def outline(self, z: Array) -> tuple[Array, Array, Array]:
        """Half width, half depth and y of the middle of the trunk at each height: hips, belly, chest, neck."""
        return tuple(np.asarray(curve(np.clip(z, *self._ends)), dtype=np.float32) for curve in self._curves)  # type: ignore[return-value]

    @property
    def _ends(self) -> tuple[float, float]:
        return -180.0 * self.scale, self.top("T1") + 70 * self.scale

    @cached_property
    def _curves(self) -> tuple[PchipInterpolator, PchipInterpolator, PchipInterpolator]:
        """Smooth curves through the heights where the outline is declared."""
        s, a, b = self.scale, self.half_width, self.half_depth
        low, high = self._ends
        knots = [low, -40 * s, 60.0, self.top("T11"), self.top("T7"), self.top("T3"), self.top("T1") + 12 * s]
        knots += [self.top("T1") + 40 * s, high]
        chest_a, chest_b = self.chest_half_width, self.chest_half_depth
        hips = a * (1.10 if self.is_female else 1.02)
        width = [hips, hips, a, 0.5 * (a + chest_a), chest_a, 0.97 * chest_a, 92 * s, 62 * s, 58 * s]
        depth = [0.98 * b, b, b, 0.5 * (b + chest_b), chest_b, 0.84 * chest_b, 64 * s, 58 * s, 58 * s]
        _, spine = self.spine_at(np.array(knots))
        behind = [b - self.spine_y] * 3 + [0.5 * (b - self.spine_y) + 31 * s, 62 * s, 58 * s, 52 * s, 48 * s, 48 * s]
        middle = [0.0, 0.0, 0.0, *(float(y) + r - d for y, r, d in zip(spine[3:], behind[3:], depth[3:], strict=True))]
        return PchipInterpolator(knots, width), PchipInterpolator(knots, depth), PchipInterpolator(knots, middle)


@lru_cache(maxsize=64)
def body_of(person: Person) -> Body:
    """Derive a person's proportions."""
    draw, scale, landmarks = person.draws("body"), person.size, person.draws("landmarks")
    bmi = person.weight_kg / person.height_m**2
    half_width = float(np.clip(152 * np.sqrt(bmi / 24) * scale, 118, 190))
    half_depth = half_width * float(draw.uniform(0.66, 0.74))
    fat = float(np.clip(11 + 2.0 * (bmi - 21) + (5 if person.sex == "female" else -1) + draw.normal(0, 2), 5, 38))
    narrow, lordosis, kyphosis = float(draw.uniform(0.82, 1.02)), float(draw.uniform(6, 16)), float(draw.uniform(12, 30))
    hollow = float(draw.uniform(0.8, 2.2)) + 0.012 * max(0.0, 120 - person.vbmd_mg_cm3)
    kyphosis += 10 * sum(grade for level, grade in person.fractures if level.startswith("T"))
    return Body(
        half_width=half_width, half_depth=half_depth, fat=fat,
        muscle_scale=float(np.sqrt(np.clip(person.muscle_cm2 / MUSCLE_AT_SCALE_1_CM2, 0.45, 1.9)) / scale),
        visceral_fat=float(np.clip(0.30 + 0.035 * (bmi - 22) + (0.08 if person.sex == "male" else 0), 0.15, 0.75)),
        muscle_fat=_muscle_fat(person, bmi=bmi),
        spine_y=half_depth - 0.8 * fat - 62 * scale,  # the spinous processes end under the fat of the back
        lordosis=lordosis, kyphosis=kyphosis, scoliosis=person.scoliosis_mm, scale=scale,
        cortex=float(np.clip(CORTEX_MM * (0.6 + 0.4 * person.vbmd_mg_cm3 / 110), 0.4, 1.1)),
        vertebrae=_vertebrae(person, scale=scale, disc=narrow, hollow=hollow), is_female=person.sex == "female",
        sacrum_bend=float(landmarks.uniform(20, 40)), sacrum_length=float(landmarks.uniform(66, 90)),
        last_rib=float(landmarks.uniform(*LAST_RIB)),
    )  # fmt: skip


MUSCLE_AT_SCALE_1_CM2 = 120.0


def _muscle_fat(person: Person, *, bmi: float) -> float:
    mean = MUSCLE_FAT_AT_40 + MUSCLE_FAT_A_YEAR * (person.age_at_image - 40) + MUSCLE_FAT_OF_BMI * (bmi - 24)
    mean += MUSCLE_FAT_OF_WOMEN if person.sex == "female" else 0.0
    own = MUSCLE_FAT_SD * float(person.draws("muscle fat").standard_normal())
    return float(np.clip(mean + own, *MUSCLE_FAT_RANGE))


def _vertebrae(person: Person, *, scale: float, disc: float, hollow: float) -> tuple[Vertebra, ...]:
    """Stack the bodies from S1 upwards, so that L4 ends at z = 0."""
    heights = scale * np.array(BODY_HEIGHT)
    discs = scale * np.array(DISC_BELOW) * disc
    if person.transitional == "sacralised":
        discs[16] *= 0.35  # L5 on S1
    if person.transitional == "lumbarised":
        discs[17] = 7.0 * scale
    tops = -(np.cumsum(heights + discs) - discs) + heights  # the top of T1 at 0
    tops -= tops[15] - heights[15]
    grades, draw = dict(person.fractures), person.draws("end-plates")
    vbmd = dict(zip(("L1", "L2", "L3", "L4"), person.level_vbmd, strict=True))
    found = []
    for i, level in enumerate(LEVELS_OF_BODY):
        up = 12 - i if i < 12 else 0  # levels above L1: density rises by about 2 % a level (methods L7: thoracic reads higher)
        found.append(
            Vertebra(
                level,
                float(tops[i]),
                float(tops[i] - heights[i]),
                HALF_WIDTH[i] * scale,
                HALF_DEPTH[i] * scale,
                wedge=grades.get(level, 0.0) * 0.9 + float(draw.uniform(0, 0.05)),
                hollow=hollow * float(draw.uniform(0.7, 1.3)),
                spur=person.spurs * float(draw.uniform(0.4, 1.6)),
                vbmd_mg_cm3=vbmd.get(level, person.vbmd_mg_cm3 * (1 + 0.02 * up)),
            )
        )
    return tuple(found)
