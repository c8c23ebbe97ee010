"""Bone other than the vertebral bodies, and metal, as parts; rounded textbook sizes at scale 1, declared."""

from __future__ import annotations

from functools import partial

import numpy as np

from ospor_batch.synthetic.body import LUMBAR, THORACIC, Array, Body
from ospor_batch.synthetic.organs import Posture, cavity
from ospor_batch.synthetic.parts import Along, Part, Shape, ellipsoid

# Angle from the spine at which each rib ends (radians) and how far it falls on its way, mm
RIB_END = (2.3, 2.45, 2.5, 2.5, 2.5, 2.45, 2.4, 2.3, 2.15, 1.95, 1.45, 0.95)
RIB_FALL = (32.0, 48.0, 60.0, 72.0, 82.0, 92.0, 98.0, 100.0, 100.0, 95.0, 70.0, 38.0)
RIB_START = 0.16
RIB_CURVE = 1.25  # above 1: flat at the back, steeper at the side


def skeleton(body: Body, *, posture: Posture) -> list[Part]:
    """Ribs, sternum, clavicles, scapulae, iliac wings and the arches of the vertebrae."""
    return [*ribs(body), *_front(body), *_shoulder_girdle(body, posture), *_pelvis(body), *arches(body)]


def ribs(body: Body) -> list[Part]:
    """Twelve pairs, from head to foot."""
    return [part for i in range(12) for side in (-1, 1) for part in _rib(body, i, side)]


def _rib(body: Body, i: int, side: int) -> list[Part]:
    """Cortex around marrow, along the inside of the chest wall."""
    s, top = body.scale, body.vertebra(THORACIC[i]).middle + 4
    fall, end = RIB_FALL[i] * s, RIB_END[i]
    reach = end - RIB_START

    def along(z: Array) -> Array:
        return np.asarray(np.power(np.clip((top - z) / fall, 0.001, 1), 1 / RIB_CURVE))

    def middle(z: Array) -> tuple[Array, Array, Array, Array]:
        _, y, a, b = cavity(body, np.maximum(z, body.top("L2")))
        share = 1.0 if i > 2 else (0.62, 0.80, 0.92)[i]  # the first ribs run round the apices
        a, b = share * (np.asarray(a) + 3.5 * s), share * (np.asarray(b) + 4.0 * s)
        angle = RIB_START + reach * along(z)
        return side * a * np.sin(angle), np.asarray(y) + b * np.cos(angle), angle, np.sqrt(a * b)

    def stretch(z: Array) -> Array:
        """Half length along the rib of the cut at this height: long where the rib is flat."""
        _, _, _, radius = middle(z)
        slope = fall * RIB_CURVE * np.power(along(z), RIB_CURVE - 1) / (reach * radius)
        return np.asarray(np.clip(5.5 * s / slope, 6 * s, 30 * s))

    def shape(z: Array, less: float = 0.0) -> tuple[Along, Along, Along, Along]:
        x, y, _, _ = middle(z)
        return x, y, stretch(z) - less, 4.2 * s - less

    def turn(z: Array) -> Along:
        angle = middle(z)[2]
        return np.asarray(-side * angle)

    return [
        Part("cortical_bone", "muscle", top - fall, top, shape, turn=turn, is_flat=True, fill=0.85),
        Part("rib_marrow", "cortical_bone", top - fall, top, lambda z: shape(z, 1.0), turn=turn, is_flat=True),
    ]


def _front(body: Body) -> list[Part]:
    """Manubrium, body of the sternum and the cartilage beside it."""
    s, high, low = body.scale, body.top("T3"), body.top("T9")

    def plate(wide: float, less: float = 0.0) -> Shape:
        def shape(z: Array) -> tuple[Along, Along, Along, Along]:
            _, y, _, b = cavity(body, z)
            return 0.0, np.asarray(y) - np.asarray(b) - 3 * s, wide * s - less, 5.5 * s - less

        return shape

    return [
        Part("cortical_bone", "muscle", body.top("T4"), high, plate(27), is_flat=True, fill=0.7),
        Part("rib_marrow", "cortical_bone", body.top("T4"), high, plate(27, 1.2), is_flat=True),
        Part("cortical_bone", "muscle", low, body.top("T4") - 3, plate(17), is_flat=True, fill=0.7),
        Part("rib_marrow", "cortical_bone", low, body.top("T4") - 3, plate(17, 1.2), is_flat=True),
    ]


def _shoulder_girdle(body: Body, posture: Posture) -> list[Part]:
    """Clavicles in front, shoulder blades behind; arms over the head turn the blades outwards and up."""
    s, a, found = body.scale, body.chest_half_width, []
    start, rise = body.top("T3") - 2 * s, (0.16 if posture == "standing" else 0.35)
    _, spine = body.spine_at(np.array([body.top("T3")]))
    front, out = float(spine[0]) - 90 * s, 0.82 if posture == "standing" else 0.70

    def clavicle(z: Array, *, side: int, less: float) -> tuple[Along, Along, Along, Along]:
        x = 22 * s + (z - start) / rise
        return side * x, front + 0.35 * (x - 22 * s), np.clip(6.5 * s / rise, 0, 40) - 2 * less, 5.5 * s - less

    for side in (-1, 1):
        outer, marrow = partial(clavicle, side=side, less=0.0), partial(clavicle, side=side, less=1.5)
        high = start + (125 if posture == "standing" else 80) * s * rise
        found.append(Part("cortical_bone", "muscle", start - 4, high, outer, is_flat=True, fill=0.8))
        found.append(Part("rib_marrow", "cortical_bone", start - 4, high, marrow, is_flat=True))

        def blade(z: Array, side: int = side) -> tuple[Along, Along, Along, Along]:
            _, y, wall_a, wall_b = cavity(body, z)
            wide = 44 * s * np.clip((z - body.top("T8")) / (body.top("T4") - body.top("T8")), 0.08, 1)
            x = out * (np.asarray(wall_a) + 14 * s) + 0.5 * (44 * s - wide)
            behind = np.sqrt(np.maximum(0.05, 1 - (x / (np.asarray(wall_a) + 14 * s)) ** 2))
            return side * x, np.asarray(y) + (np.asarray(wall_b) + 12 * s) * behind, wide, 2.4 * s

        found.append(
            Part(
                "spongy_bone", "muscle", body.top("T8"), body.top("T2") - 4, blade,
                turn=-side * 0.75, is_flat=True,
            )
        )  # fmt: skip
        if posture == "standing":
            head = (side * (a + 18 * s), body.spine_y - 30 * s, body.top("T3") - 2 * s)
            found.append(ellipsoid("spongy_bone", "muscle", center=head, half=(23 * s, 23 * s, 24 * s)))
    return found


def _pelvis(body: Body) -> list[Part]:
    """Iliac wings beside L5 and the sacrum."""
    s, found = body.scale, []
    for side in (-1, 1):

        def wing(z: Array, side: int = side) -> tuple[Along, Along, Along, Along]:
            down = np.clip(-z, 0, 150) / 150
            return side * (118 - 62 * down**0.7) * s, body.spine_y + (10 - 12 * down) * s, (20 + 38 * down) * s, 4.5 * s

        found.append(Part("spongy_bone", "muscle", -165.0, 2.0, wing, turn=-side * 1.0, is_flat=True))
    return found


def arches(body: Body) -> list[Part]:
    """Pedicles, transverse and spinous processes and laminae around the canal."""
    found: list[Part] = []
    for level in (*THORACIC, *LUMBAR):
        found += _arch(body, level)

    def canal(z: Array) -> tuple[Along, Along, Along, Along]:
        x, y = body.spine_at(z)
        depth = np.interp(z, [0, body.top("T12"), body.top("T1")], [17.5, 15.5, 10.0]) * body.scale
        return x, y + depth + 7.5 * body.scale, 10.5 * body.scale, 7.5 * body.scale

    found.append(Part("canal", "muscle", -90.0, body.top("T1") + 60, canal, is_flat=True))
    return found


def _arch(body: Body, level: str) -> list[Part]:
    v, s = body.vertebra(level), body.scale
    height, is_lumbar = v.height, level.startswith("L")
    long = 1.0 if is_lumbar else 0.75

    def at(z: Array, dx: float, dy: float) -> tuple[Array, Array]:
        x, y = body.spine_at(z)
        return x + dx * s, y + v.half_depth + dy * s

    def piece(dx: float, dy: float, a: float, b: float) -> Shape:
        return lambda z: (*at(z, dx, dy), a * s, b * s)

    found = []
    pedicle, lamina = (v.bottom + 0.45 * height, v.bottom + 0.92 * height), (v.bottom - 0.2 * height, v.bottom + 0.55 * height)
    transverse, wide = (pedicle[0], pedicle[1] - 0.15 * height), v.half_width / s
    for side in (-1, 1):
        rows = [
            ("cortical_bone", pedicle, side * 0.64 * wide, 6.0, 4.6, 9.0, 0.0, 0.8),
            ("rib_marrow", pedicle, side * 0.64 * wide, 6.0, 3.0, 9.0, 0.0, 1.0),
            ("spongy_bone", transverse, side * (1.05 * wide + 8), 13.0, 15.0 * long, 3.6, side * 0.25, 1.0),
            ("spongy_bone", lamina, side * 11.0 * (1 if is_lumbar else 0.8), 19.0, 10.0, 4.2, side * -0.5, 1.0),
            ("cortical_bone", (lamina[0] - 2, lamina[0] + 0.5 * height), side * 16.0 * long, 15.0, 6.5, 5.5, 0.0, 0.6),
        ]  # fmt: skip
        for tissue, (low, high), dx, dy, a, b, turn, fill in rows:
            found.append(
                Part(tissue, "muscle", low, high, piece(dx, dy, a, b),
                     turn=turn, is_flat=True, fill=fill)
            )  # fmt: skip
    fall = 0.0 if is_lumbar else 0.55 * height  # thoracic spines hang down
    spine = piece(0.0, 33.0 * (1 if is_lumbar else 0.85), 3.4, 13.0 * (1 if is_lumbar else 0.85))
    found.append(Part("cortical_bone", "muscle", lamina[0] - fall + 2, lamina[1] - fall - 3, spine, is_flat=True, fill=0.5))
    marrow = piece(0.0, 33.0 * (1 if is_lumbar else 0.85), 2.0, 11.0 * (1 if is_lumbar else 0.85))
    found.append(Part("rib_marrow", "cortical_bone", lamina[0] - fall + 4, lamina[1] - fall - 5, marrow, is_flat=True))
    return found


def metal(body: Body, implant: str) -> list[Part]:
    """Pedicle screws of L4 and L5."""
    if implant != "pedicle_screws":
        return []
    found: list[Part] = []
    for level in ("L4", "L5"):
        v = body.vertebra(level)
        for side in (-1, 1):

            def screw(z: Array, side: int = side) -> tuple[Along, Along, Along, Along]:
                x, y = body.spine_at(z)
                return x + side * 12.5 * body.scale, y + 8 * body.scale, 3.0, 27 * body.scale

            at = v.bottom + 0.7 * v.height
            found.append(Part("titanium", "spongy_bone", at - 3.2, at + 3.2, screw, turn=side * 0.22, is_flat=True))
    return found
