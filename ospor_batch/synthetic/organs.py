"""Soft tissue and air of the trunk, as parts; all sizes are rounded textbook values at scale 1, declared."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from ospor_batch.synthetic.body import Array, Body
from ospor_batch.synthetic.parts import Along, Part, Shape, dome, ellipsoid, rising

Posture = Literal["supine", "standing"]  # supine: arms over the head, as in CT; standing: arms beside the chest
SKIN_MM = 2.0
WALL_MM = 13.0  # muscle of the belly wall at scale 1
CLEFT_MM = 1.1  # half the width of the fat between the muscles of the back where muscle holds 12 % of fat; declared
OUTSIDE_THE_CHEST = 0.3  # share of a breast of someone standing that adds to the depth of the chest
HEAD_END, FOOT_END = 60.0, -170.0  # how far the body reaches beyond T1 and below L4


def organs(body: Body, *, posture: Posture, draw: np.random.Generator) -> list[Part]:
    """Everything but bone, in the order in which it is laid."""
    return [*_hull(body, posture), *_belly(body, draw), *muscles(body), *_vessels(body), *_chest(body, draw, posture)]


def hull(body: Body) -> list[Part]:
    """Skin, subcutaneous fat, muscle wall and the cavities inside."""
    return _hull(body, "supine")


def fat_at(body: Body, z: Array) -> Array:
    """Thickness of the fat under the skin: thinner over the chest and the neck."""
    knots = [0.0, body.top("L1"), body.top("T7"), body.top("T1")]
    return np.asarray(body.fat * np.interp(z, knots, [1.0, 0.9, 0.55, 0.4]), dtype=np.float32)


def cavity(body: Body, z: Array) -> tuple[Along, Along, Along, Along]:
    """The inside of the muscle wall."""
    a, b, y = body.outline(z)
    wall = fat_at(body, z) + SKIN_MM + WALL_MM * body.scale * body.muscle_scale
    return 0.0, y - 4.0, a - wall, b - wall


def lung_base(body: Body) -> float:
    """The lowest height that the lungs reach."""
    return body.top("T12") - 4 * body.scale


def _hull(body: Body, posture: Posture) -> list[Part]:
    low, high = FOOT_END, body.top("T1") + HEAD_END

    def inside(less: float, *, fat: float = 0.0) -> Shape:
        def shape(z: Array) -> tuple[Along, Along, Along, Along]:
            a, b, y = body.outline(z)
            off = less + fat * fat_at(body, z)
            return 0.0, y, a - off, b - off

        return shape

    parts = [
        Part("skin", "air", low, high, inside(0.0), is_flat=True),
        Part("fat", "skin", low, high, inside(SKIN_MM), is_flat=True),
        Part("muscle", "fat", low, high, inside(SKIN_MM, fat=1.0), is_flat=True),
        Part("visceral_fat", "muscle", low, lung_base(body), lambda z: cavity(body, z), is_flat=True),
    ]
    return [*_outside(body, posture), *parts]


def _outside(body: Body, posture: Posture) -> list[Part]:
    """Breasts, and the shoulders and upper arms of someone who stands."""
    s, chest_a, chest_b = body.scale, body.chest_half_width, body.chest_half_depth
    found = []
    if body.is_female:
        flat, out, fill = (0.6, 22.0, 1.0) if posture == "supine" else (1.0, 6.0, OUTSIDE_THE_CHEST)
        _, spine = body.spine_at(np.array([body.top("T8")]))
        front = float(spine[0]) + 62 * s - 2 * chest_b
        size = 0.7 + 0.02 * body.fat
        for side in (-1, 1):
            center, half = (
                (side * (72 + out) * s, front + 14 * flat, body.top("T8")),
                (62 * s * size, 40 * s * size * flat, 62 * s * size),
            )
            found.append(replace(ellipsoid("fat", "air", center=center, half=half), fill=fill))
    if posture == "standing":
        top = body.top("T2")
        for side in (-1, 1):

            def arm(z: Array, side: int = side) -> tuple[Along, Along, Along, Along]:
                round_ = dome(z, top - 60 * s, 60 * s, power=2.5) * (z > top - 60 * s) + (z <= top - 60 * s)
                out = chest_a + (34 + 0.22 * np.maximum(top - 40 * s - z, 0)) * s
                return side * out, body.spine_y - 32 * s, 47 * s * round_, 48 * s * round_

            found.append(Part("muscle", "air", FOOT_END, top, arm, is_flat=True))
    return found


def muscles(body: Body) -> list[Part]:
    """Paraspinal muscle with fat in its clefts, psoas and quadratus lumborum."""
    s, m, cleft = body.scale, body.muscle_scale, CLEFT_MM * body.muscle_fat / 0.12
    low, high = body.extent
    found = []
    for side in (-1, 1):

        def paraspinal(z: Array, side: int = side) -> tuple[Along, Along, Along, Along]:
            x, spine = body.spine_at(z)
            thin = np.interp(z, [-60, 60, body.top("T12"), body.top("T3")], [0.8, 1.0, 0.85, 0.6])
            return x + side * 33 * s * thin, spine + 43 * s * (0.55 + 0.45 * thin), 29 * s * m * thin, 22 * s * m * thin

        def inner_cleft(z: Array, side: int = side) -> tuple[Along, Along, Along, Along]:  # multifidus from longissimus
            x, y, a, b = paraspinal(z, side)
            return x - side * 0.30 * np.asarray(a), np.asarray(y) + 0.15 * np.asarray(b), cleft, 0.72 * np.asarray(b)

        def outer_cleft(z: Array, side: int = side) -> tuple[Along, Along, Along, Along]:  # longissimus from iliocostalis
            x, y, a, b = paraspinal(z, side)
            return x + side * 0.38 * np.asarray(a), np.asarray(y) + 0.05 * np.asarray(b), 0.7 * cleft, 0.55 * np.asarray(b)

        def under_fascia(z: Array, side: int = side) -> tuple[Along, Along, Along, Along]:  # behind the muscle, thickest below
            x, y, a, b = paraspinal(z, side)
            thick = 1.5 * cleft * np.interp(z, [-60, body.top("T11")], [1.4, 0.2])
            return np.asarray(x) - side * 2 * s, np.asarray(y) + 0.92 * np.asarray(b), 0.6 * np.asarray(a), thick

        def psoas(z: Array, side: int = side) -> tuple[Along, Along, Along, Along]:
            x, spine = body.spine_at(z)
            grown = np.sqrt(rising(z, high + 5, low - 10)) * s * m  # from L1 downwards
            return x + side * (28 + 10 * grown) * s, spine + 4 * s, 18 * grown, 22 * grown

        def quadratus(z: Array, side: int = side) -> tuple[Along, Along, Along, Along]:
            x, spine = body.spine_at(z)
            return x + side * 62 * s, spine + 20 * s, 20 * s * m, 8 * s * m

        found.append(Part("muscle", "fat", FOOT_END, body.top("T1") + 30, paraspinal, is_flat=True))
        for gap, turn in ((inner_cleft, side * 0.35), (outer_cleft, side * -0.2), (under_fascia, 0.0)):
            found.append(Part("fat", "muscle", FOOT_END, body.top("T8"), gap, turn=turn, is_flat=True))
        found.append(Part("muscle", "visceral_fat", FOOT_END, high + 4, psoas))
        found.append(Part("muscle", "visceral_fat", -50.0, high, quadratus, turn=side * 0.5))
    return found


def _belly(body: Body, draw: np.random.Generator) -> list[Part]:
    """Liver, spleen, kidneys, and bowel in the fat of the belly; some bowel holds gas."""
    s, chest = body.scale, body.chest_half_width
    a, b = body.half_width, body.half_depth
    spine, top = body.spine_y - body.lordosis, body.top("T10")
    reach_x, reach_y = a - body.fat - 40 * s, b - body.fat - 34 * s
    found = []
    n_loops = int(64 * (1.1 - body.visceral_fat))
    for u in draw.uniform(-1, 1, size=(n_loops, 6)):
        center = (reach_x * u[0] * 0.85, -8 * s + reach_y * (0.42 * u[1] - 0.42), -120 + 150 * (u[2] + 1) * s)
        half = (20 * s * (1 + 0.4 * u[3]), 15 * s * (1 + 0.3 * u[4]), 24 * s * (1 + 0.4 * u[5]))
        found.append(ellipsoid("bowel", "visceral_fat", center=center, half=half))
        if u[4] > 0.6:
            gas = (center[0], center[1] - 0.25 * half[1], center[2])
            found.append(ellipsoid("air", "bowel", center=gas, half=(0.7 * half[0], 0.5 * half[1], 0.7 * half[2])))
    liver_a, spleen = 0.52 * chest, (0.62 * chest, spine + 4 * s, top - 42 * s)
    found.append(
        ellipsoid("liver", "visceral_fat", center=(-0.42 * chest, -12 * s, top - 62 * s), half=(liver_a, 0.74 * b, 92 * s))
    )
    found.append(ellipsoid("spleen", "visceral_fat", center=spleen, half=(26 * s, 44 * s, 55 * s)))
    for side in (-1, 1):
        kidney = (side * 70 * s, spine + 2 * s, body.vertebra("L1").middle - (12 if side < 0 else 0) * s)
        found.append(ellipsoid("kidney", "visceral_fat", center=kidney, half=(26 * s, 29 * s, 55 * s)))
        sinus = (kidney[0] - side * 8 * s, kidney[1] - 4 * s, kidney[2])
        found.append(ellipsoid("visceral_fat", "kidney", center=sinus, half=(9 * s, 9 * s, 22 * s)))
    return found


def _vessels(body: Body) -> list[Part]:
    """Abdominal aorta, left of the midline, and the lower vena cava."""
    s, top = body.scale, body.top("T11")

    def before(x: float, gap: float, r: float) -> Shape:
        def shape(z: Array) -> tuple[Along, Along, Along, Along]:
            center, spine = body.spine_at(z)
            return center + x * s, spine - gap * s, r * s, 0.92 * r * s

        return shape

    return [
        Part("blood", "visceral_fat", -8.0, top, before(9, 28, 9.5), is_flat=True),
        Part("vein", "visceral_fat", -20.0, top, before(-17, 27, 10.5), is_flat=True),
    ]


def _chest(body: Body, draw: np.random.Generator, posture: Posture) -> list[Part]:
    """Lungs as the inside of the chest, with mediastinum, heart, great vessels and the domes laid over them."""
    s, base, apex = body.scale, lung_base(body), body.top("T1") - 2
    shoulder = body.top("T4")

    def lungs(z: Array) -> tuple[Along, Along, Along, Along]:
        x, y, a, b = cavity(body, z)
        narrow = np.power(np.maximum(0, 1 - rising(z, shoulder, apex) ** 2.2), 0.5)
        return x, y + 8 * s * rising(z, shoulder, apex), (a - 1) * narrow, (b + 2) * narrow

    def mediastinum(z: Array) -> tuple[Along, Along, Along, Along]:
        _, y, _, b = cavity(body, z)
        wide = np.interp(z, [base, body.top("T8"), body.top("T6"), body.top("T4"), apex], [24, 19, 18, 24, 30])
        return 2.0, y, wide * s, b + 6

    found = [
        Part("lung", "visceral_fat", base, apex, lungs),
        Part("mediastinum", "lung", base, apex + 40, mediastinum, is_flat=True),
    ]
    return [*found, *_lung_vessels(body, draw), *_domes(body, posture), *_heart(body)]


def _domes(body: Body, posture: Posture) -> list[Part]:
    """The diaphragm: liver on the right, stomach lower on the left, and what lies between them."""
    s, a, b = body.scale, body.chest_half_width, body.chest_half_depth
    _, spine = body.spine_at(np.array([body.top("T11")]))
    y, foot = float(spine[0]) + 56 * s - b, lung_base(body) - 6

    def half(x: float, wide: float, deep: float, top: float, tissue: str) -> Part:
        low = body.top("L1")

        def shape(z: Array) -> tuple[Along, Along, Along, Along]:
            r = dome(np.maximum(z, low), low, top - low, power=2.6)
            return x, y, wide * r, deep * r

        return Part(tissue, "lung", foot, top, shape)

    high = body.top("T10") - (2 if posture == "supine" else 20) * s  # standing, people breathe in deeply
    gas = ellipsoid("air", "bowel", center=(0.40 * a, y - 30 * s, high - 30 * s), half=(26 * s, 20 * s, 9 * s))
    return [
        half(0.46 * a, 0.50 * a, 0.92 * b, high - 11 * s, "bowel"), half(0.0, 0.42 * a, 0.98 * b, high - 22 * s, "bowel"),
        half(-0.46 * a, 0.51 * a, 0.92 * b, high, "liver"), gas,
    ]  # fmt: skip


def _heart(body: Body) -> list[Part]:
    s, b = body.scale, body.chest_half_depth
    middle = body.top("T9") + 4 * s
    _, spine = body.spine_at(np.array([middle]))
    front = float(spine[0]) - 62 * s

    def heart(z: Array) -> tuple[Along, Along, Along, Along]:
        r = dome(z, middle, 62 * s)
        return (16 + 0.26 * (middle - z)) * s, front - 2 * s, 58 * s * r, min(48 * s, 0.46 * b) * r

    def descending(z: Array) -> tuple[Along, Along, Along, Along]:
        x, y = body.spine_at(z)
        return x + (20 - 11 * rising(z, body.top("T8"), body.top("T11"))) * s, y - 27 * s, 12 * s, 12 * s

    def trachea(z: Array) -> tuple[Along, Along, Along, Along]:
        return 0.0, body.spine_at(z)[1] - 30 * s, 8.5 * s, 8 * s

    arch = body.top("T5")
    return [
        Part("blood", "lung", middle - 62 * s, middle + 62 * s, heart),
        ellipsoid("blood", "mediastinum", center=(-14 * s, front - 6 * s, arch - 45 * s), half=(16 * s, 16 * s, 50 * s)),
        Part("blood", "lung", body.top("T11"), arch, descending, is_flat=True),
        Part("blood", "lung", arch - 12 * s, arch + 14 * s,
             lambda z: (13 * s, front + 18 * s, 19 * s * dome(z, arch, 15 * s), 40 * s * dome(z, arch, 15 * s))),
        Part("air", "mediastinum", arch - 26 * s, body.top("T1") + HEAD_END, trachea),
    ]  # fmt: skip


def _lung_vessels(body: Body, draw: np.random.Generator) -> list[Part]:
    """Hila, and vessels that fan out from them upwards and downwards."""
    s, z0 = body.scale, body.top("T6") - 8 * body.scale
    _, spine = body.spine_at(np.array([z0]))
    y0, found = float(spine[0]) - 45 * s, []
    for side in (-1, 1):
        x0 = side * 36 * s
        found.append(ellipsoid("blood", "lung", center=(x0, y0, z0 - 8 * s), half=(12 * s, 13 * s, 26 * s)))
        found += [_vessel(u, start=(x0, y0, z0), side=side, scale=s) for u in draw.random((26, 5))]
    return found


def _vessel(u: Array, *, start: tuple[float, float, float], side: int, scale: float) -> Part:
    """One vessel from a hilum upwards or downwards, by five even numbers."""
    (x0, y0, z0), is_up = start, u[0] < 0.38
    reach = float(45 + 35 * u[1] if is_up else 60 + 50 * u[1]) * scale
    sideways, back = side * float(0.1 + 0.9 * u[2]) * (1.2 if is_up else 0.8), 0.9 * float(u[3] - 0.45)

    def shape(z: Array) -> tuple[Along, Along, Along, Along]:
        away = np.abs(z - z0)
        taper = (1 - 0.7 * away / reach) * np.clip(away / (14 * scale) - 0.5, 0, 1)
        wide = float(1.1 + 1.5 * u[4]) * scale * taper
        return x0 + sideways * away, y0 + back * away, wide * np.sqrt(1 + sideways**2), wide * np.sqrt(1 + back**2)

    return Part("blood", "lung", z0 if is_up else z0 - reach, z0 + reach if is_up else z0, shape)
