"""The pelvis: sacrum with its wings and foramina, iliac bones and heads of the femurs, as parts.

Sizes at scale 1 are rounded textbook values and, for how the bones lie to each other, distances read off one abdomen CT;
declared.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from ospor_batch.synthetic.body import Array, Body
from ospor_batch.synthetic.parts import Along, Part, Shape, ellipsoid

# Below S1, by the share of the sacrum's length: half widths and half depths of S2 to the coccyx, mm
DOWN, WIDE, DEEP = (0.0, 0.2, 0.5, 0.8, 1.0), (21.0, 18.0, 13.0, 9.0, 4.0), (13.0, 11.0, 8.5, 6.0, 4.0)
# The lateral mass on each side, by mm below the upper end-plate of S1: out from the middle, behind it, half width, half depth
MASS_AT, MASS_OUT, MASS_BACK = (2.0, 14.0, 28.0, 45.0, 66.0), (36.0, 40.0, 38.0, 31.0, 22.0), (3.0, 7.0, 10.0, 8.0, 4.0)
MASS_WIDE, MASS_DEEP, MASS_TURN = (14.0, 20.0, 20.0, 14.0, 7.0), (7.0, 15.0, 14.0, 9.0, 5.0), 0.25
FUSED = (0.30, 0.55, 0.78)  # where the discs of S2 to S5 were, as shares of the length
# Foramina: the share of the length at which each pair lies, and how far from the middle, mm
FORAMINA = ((0.02, 25.0), (0.27, 21.0), (0.52, 16.0), (0.74, 12.5))
# Iliac bone, by mm below the middle of S1: out from the middle, behind it, half length and half thickness of its cut
WING_AT, WING_OUT, WING_BACK = (
    (-60.0, -30.0, 0.0, 27.0, 45.0, 63.0),
    (90.0, 80.0, 71.0, 70.0, 79.0, 83.0),
    (2.0, 10.0, 7.0, 4.0, -8.0, -4.0),
)
WING_LONG, WING_THICK, WING_TURN = (16.0, 44.0, 50.0, 46.0, 34.0, 21.0), (3.0, 5.0, 6.0, 6.5, 10.0, 15.0), 0.97
FEMUR_AT, FEMUR_MM = (84.0, -4.0, -82.0), 23.0  # out, behind and up from the middle of S1; radius of the head
CANAL_BEHIND_MM = 25.0  # the middle of the spinal canal behind that of the bodies
MARROW = 0.94  # share of what lies within the cortex; declared


def pelvis(body: Body) -> list[Part]:
    """Iliac bones in their muscle, heads of the femurs, and the sacrum between them."""
    return [*_ilium(body), *sacrum(body)]


def sacral_y(body: Body, z: Array) -> Array:
    """y of the middle of S2 to S5 and the coccyx: to the back below S1, then to the front."""
    at = body.vertebra("S1").bottom
    _, start = body.spine_at(np.array([at]))
    share = np.clip((at - z) / (body.sacrum_length * body.scale), 0, 1)
    return np.asarray(float(start[0]) + body.sacrum_bend * body.scale * np.sin(0.72 * np.pi * share))


def canal_y(body: Body, z: Array) -> Array:
    """How far behind the middle of the bodies the sacral canal runs, mm: nearer, the lower."""
    down = np.clip((body.vertebra("S1").bottom - z) / (body.sacrum_length * body.scale), 0, 1)
    return np.asarray(sacral_y(body, z) + (CANAL_BEHIND_MM - 12 * down) * body.scale)


def sacrum(body: Body) -> list[Part]:
    """S2 to the coccyx, the lateral masses from S1 downwards, the arch behind the canal, and the foramina."""
    s, s1 = body.scale, body.vertebra("S1")
    low, high = s1.bottom - body.sacrum_length * s, s1.bottom - 1.5 * s

    def share(z: Array) -> Array:
        return np.asarray((s1.bottom - z) / (body.sacrum_length * s))

    def column(less: float) -> Shape:
        def shape(z: Array) -> tuple[Along, Along, Along, Along]:
            x, _ = body.spine_at(z)
            wide, deep = (np.interp(share(z), DOWN, of) * s - less for of in (WIDE, DEEP))
            return x, sacral_y(body, z), wide, deep

        return shape

    def arch(z: Array) -> tuple[Along, Along, Along, Along]:
        x, _ = body.spine_at(z)
        thin = 1 - 0.5 * np.clip(share(z), 0, 1)
        return x, canal_y(body, z) + 9 * s * thin, 17 * s * thin, 4.5 * s * thin

    found = [
        Part("cortical_bone", "muscle", s1.bottom - 0.68 * body.sacrum_length * s, s1.top - 6 * s, arch, is_flat=True, fill=0.6)
    ]
    for side in (-1, 1):
        found += _lateral_mass(body, side)
    found.append(Part("cortical_bone", "muscle", low, high, column(0.0), is_flat=True, fill=0.7))
    found.append(Part("rib_marrow", "cortical_bone", low, high, column(1.4), is_flat=True, fill=MARROW))
    for at in FUSED:
        middle = s1.bottom - at * body.sacrum_length * s
        found.append(Part("cortical_bone", "rib_marrow", middle - 1, middle + 1, column(1.0), is_flat=True, fill=0.5))
    for at, out in FORAMINA:
        z = s1.bottom - at * body.sacrum_length * s
        x, _ = (float(c[0]) for c in body.spine_at(np.array([z])))
        y = float(sacral_y(body, np.array([z]))[0]) + 3 * s
        size = 1 - 0.35 * at
        half = (5.0 * s * size, 13.0 * s * size, 5.0 * s * size)
        found += [ellipsoid("fat", "spongy_bone", center=(x + side * out * s, y, z), half=half) for side in (-1, 1)]
    return found


def _lateral_mass(body: Body, side: int) -> list[Part]:
    s, s1 = body.scale, body.vertebra("S1")

    def shape(z: Array, less: float = 0.0) -> tuple[Along, Along, Along, Along]:
        down = (s1.top - z) / s
        x, y = body.spine_at(z)
        y = np.where(z < s1.bottom, sacral_y(body, z), y)
        out, back, wide, deep = (np.interp(down, MASS_AT, of) * s for of in (MASS_OUT, MASS_BACK, MASS_WIDE, MASS_DEEP))
        return x + side * out, y + back, wide - less, deep - less

    low, high = s1.top - MASS_AT[-1] * s, s1.top - MASS_AT[0] * s
    turn = side * MASS_TURN
    return [
        Part("cortical_bone", "muscle", low, high, shape, turn=turn, is_flat=True, fill=0.6),
        Part("rib_marrow", "cortical_bone", low, high - 1.4, lambda z: shape(z, 1.4),
             turn=turn, is_flat=True, fill=MARROW),
    ]  # fmt: skip


def _ilium(body: Body) -> list[Part]:
    """Each iliac bone from its crest to the socket of the hip and the head of the femur, in the muscle on both sides."""
    s, s1 = body.scale, body.vertebra("S1")
    _, at = body.spine_at(np.array([s1.middle]))
    low, high, found = s1.middle - WING_AT[-1] * s, s1.middle - WING_AT[0] * s, []

    def wing(z: Array, *, side: int, thicker: float, longer: float) -> tuple[Along, Along, Along, Along]:
        down = (s1.middle - z) / s
        out, back, long, thick = (np.interp(down, WING_AT, of) * s for of in (WING_OUT, WING_BACK, WING_LONG, WING_THICK))
        return side * out, float(at[0]) + back, long + longer * s, thick + thicker * s

    for side in (-1, 1):
        rows = (
            ("muscle", "fat", low - 30 * s, high - 22 * s, 15.0, 3.0, 1.0),
            ("cortical_bone", "muscle", low, high, 0.0, 0.0, 0.8),
            ("rib_marrow", "cortical_bone", low, high - 2, -2.2, -3.0, MARROW),
        )
        for tissue, under, first, last, thicker, longer, fill in rows:
            shape = partial(wing, side=side, thicker=thicker, longer=longer)
            found.append(Part(tissue, under, first, last, shape, turn=-side * WING_TURN, is_flat=True, fill=fill))
        center = (side * FEMUR_AT[0] * s, float(at[0]) + FEMUR_AT[1] * s, s1.middle + FEMUR_AT[2] * s)
        for tissue, under, less in (
            ("muscle", "cortical_bone", -4.0), ("cortical_bone", "muscle", 0.0), ("spongy_bone", "cortical_bone", 1.5)
        ):  # fmt: skip
            radius = (FEMUR_MM - less) * s
            found.append(ellipsoid(tissue, under, center=center, half=(radius, radius, radius)))
    return found
