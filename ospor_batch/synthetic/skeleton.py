"""Bone other than the vertebral bodies, and metal, as parts; rounded textbook sizes at scale 1, declared."""

from __future__ import annotations

from functools import partial

import numpy as np

from ospor_batch.synthetic.body import LUMBAR, THORACIC, Array, Body
from ospor_batch.synthetic.organs import Posture, cavity
from ospor_batch.synthetic.parts import Along, Part, Shape, ellipsoid
from ospor_batch.synthetic.pelvis import canal_y, pelvis

# Angle from the spine at which each rib ends (radians) and how far it falls on its way, mm
RIB_END = (2.3, 2.45, 2.5, 2.5, 2.5, 2.45, 2.4, 2.3, 2.15, 1.95, 1.45, 0.95)
RIB_FALL = (32.0, 48.0, 60.0, 72.0, 82.0, 92.0, 98.0, 100.0, 100.0, 95.0, 70.0, 50.0)
# Where the neck of a rib meets its body at the back wall: mm beside the middle, and the most that this may turn (radians);
# read off T12 of one abdomen CT, where the rib lies 20 mm beside and 18 mm behind the middle of the body at its head and
# 50 and 38 mm at the wall
RIB_JOIN, RIB_JOIN_TURN = 46.0, 0.6
NECK_MM = (4.0, 9.0)  # half thickness of a neck and its height
RIB_CURVE = 1.25  # above 1: flat at the back, steeper at the side


def skeleton(body: Body, *, posture: Posture) -> list[Part]:
    """Ribs, sternum, clavicles, scapulae, pelvis and the arches of the vertebrae."""
    return [*ribs(body), *_front(body), *_shoulder_girdle(body, posture), *pelvis(body), *arches(body)]


def ribs(body: Body) -> list[Part]:
    """Twelve pairs, from head to foot."""
    return [part for i in range(12) for side in (-1, 1) for part in _rib(body, i, side)]


def _rib(body: Body, i: int, side: int) -> list[Part]:
    """Cortex around marrow, along the inside of the chest wall."""
    s, top = body.scale, body.vertebra(THORACIC[i]).middle + 4
    long = body.last_rib if i == 11 else 1.0
    fall, end = RIB_FALL[i] * s * long, RIB_END[i] * long
    start = _rib_start(body, i, top)
    reach = end - start

    def along(z: Array) -> Array:
        return np.asarray(np.power(np.clip((top - z) / fall, 0.001, 1), 1 / RIB_CURVE))

    def middle(z: Array) -> tuple[Array, Array, Array, Array]:
        _, y, a, b = cavity(body, np.maximum(z, body.top("L2")))
        share = _round_the_apex(i)
        a, b = share * (np.asarray(a) + 3.5 * s), share * (np.asarray(b) + 4.0 * s)
        angle = start + reach * along(z)
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
        _neck(body, i, side, join=tuple(float(np.asarray(c)[0]) for c in middle(np.array([top]))[:2])),
        Part("cortical_bone", "muscle", top - fall, top, shape, turn=turn, is_flat=True, fill=0.85),
        Part("rib_marrow", "cortical_bone", top - fall, top, lambda z: shape(z, 1.0), turn=turn, is_flat=True),
    ]


def _round_the_apex(i: int) -> float:
    """The first ribs run round the apices of the lungs: their share of the chest's width."""
    return 1.0 if i > 2 else (0.62, 0.80, 0.92)[i]


def _rib_start(body: Body, i: int, top: float) -> float:
    """Angle from the spine at which the neck of a rib meets its body."""
    _, _, a, _ = cavity(body, np.array([top]))
    wide = _round_the_apex(i) * float(np.asarray(a)[0])
    return min(RIB_JOIN_TURN, float(np.arcsin(min(1.0, RIB_JOIN * body.scale / wide))))


def _neck(body: Body, i: int, side: int, *, join: tuple[float, ...]) -> Part:
    """From the head of a rib, behind and beside its body, to the wall of the back."""
    s, v = body.scale, body.vertebra(THORACIC[i])
    high = v.middle + 4
    x, y = (float(c[0]) for c in body.spine_at(np.array([v.middle])))
    head = (x + side * 0.92 * v.half_width, y + 0.8 * v.half_depth)
    dx, dy = join[0] - head[0], join[1] - head[1]
    half = float(np.hypot(dx, dy)) / 2 + 2 * s

    def shape(_: Array) -> tuple[Along, Along, Along, Along]:
        return head[0] + dx / 2, head[1] + dy / 2, half, NECK_MM[0] * s

    turn = float(np.arctan2(dy, dx))
    return Part("spongy_bone", "muscle", high - NECK_MM[1] * s, high, shape, turn=turn, is_flat=True)


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


def arches(body: Body) -> list[Part]:
    """Pedicles, transverse and spinous processes and laminae around the canal."""
    found: list[Part] = []
    for level in (*THORACIC, *LUMBAR):
        found += _arch(body, level)

    def canal(z: Array) -> tuple[Along, Along, Along, Along]:
        x, y = body.spine_at(z)
        depth = np.interp(z, [0, body.top("T12"), body.top("T1")], [17.5, 15.5, 10.0]) * body.scale
        end = body.vertebra("S1").bottom
        narrow = 1 - 0.6 * np.clip((end - z) / (body.sacrum_length * body.scale), 0, 1)
        y = np.where(z < end, canal_y(body, z), y + depth + 7.5 * body.scale)
        return x, y, 10.5 * body.scale * narrow, 7.5 * body.scale * narrow

    sacral = body.vertebra("S1").bottom - 0.6 * body.sacrum_length * body.scale
    found.append(Part("canal", "muscle", sacral, body.top("T1") + 60, canal, is_flat=True))
    return found


def _arch(body: Body, level: str) -> list[Part]:
    v, s = body.vertebra(level), body.scale
    height, is_lumbar = v.height, level.startswith("L")
    long = 1.0 if is_lumbar else 0.75
    process = {"T11": 0.5, "T12": 0.3, "L1": 0.75}.get(level, long)  # the last thoracic transverse processes are stubs

    def at(z: Array, dx: float, dy: float) -> tuple[Array, Array]:
        x, y = body.spine_at(z)
        return x + dx * s, y + v.half_depth + dy * s

    def piece(dx: float, dy: float, a: float, b: float) -> Shape:
        return lambda z: (*at(z, dx, dy), a * s, b * s)

    out = 1.05 * v.half_width / s + 8.0 - 15.0 * (long - process)
    found = []
    pedicle, lamina = (v.bottom + 0.45 * height, v.bottom + 0.92 * height), (v.bottom - 0.2 * height, v.bottom + 0.55 * height)
    transverse, wide = (pedicle[0], pedicle[1] - 0.15 * height), v.half_width / s
    for side in (-1, 1):
        rows = [
            ("cortical_bone", pedicle, side * 0.64 * wide, 6.0, 4.6, 9.0, 0.0, 0.8),
            ("rib_marrow", pedicle, side * 0.64 * wide, 6.0, 3.0, 9.0, 0.0, 1.0),
            ("spongy_bone", transverse, side * out, 13.0, 15.0 * process, 3.6, side * 0.25, 1.0),
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
